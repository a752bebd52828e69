"""Counted tree: a sequence as a B+-tree by position.

A leaf (:class:`ListNode` whose state is a builtin list) holds up to LEAF values, or CHUNK bytes; an inner node holds up to FANOUT
children and how many values are below each. All leaves are on one level. Appending fills leaves completely; insertion
splits in halves, deletion merges sparse neighbours, so every operation touches one path. Functions that may replace
the root return the new one. All of them run inside an operation.

Algorithm: the order-statistic B+-tree (Cormen et al., *Introduction to Algorithms*, chapters 14 and 18), with relaxed
minimum fill.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from dbzero.collections.nodes import (
    DEPTH,
    FANOUT,
    LEAF,
    SPARSE,
    Stored,
    corrupt,
    create,
    member,
    natural,
    pack,
    set_data,
    touch,
    unpack,
)
from dbzero.model.base import CountedInner
from dbzero.model.view import View

CHUNK = 2048  # most bytes in a leaf of a bytearray
BYTES = 63  # stands where other nodes have their level


if TYPE_CHECKING:

    class Inner:
        """State of an inner node: `counts[k]` values below `children[k]`, whose first has position `starts[k]` (starts:
        None until asked for). Defined in C, so that the short ways find leaves without Python."""

        level: int
        counts: list[int]
        children: list[ListNode]
        starts: list[int] | None

        def __init__(self, level: int, counts: list[int], children: list[ListNode]) -> None: ...

        def __len__(self) -> int: ...

else:
    Inner = CountedInner


def _starts(data: Inner) -> list[int]:
    """The start positions, computed when needed."""
    starts = data.starts
    if starts is None:
        starts = data.starts = list(accumulate(data.counts[:-1], initial=0))
    return starts


class ListNode(Stored):
    """One node of the tree of a list or tuple, or of a bytearray, whose leaves have a bytearray for a state."""

    __slots__ = ()
    KIND = 8

    def _p_encode(self) -> tuple[bytes, list[int]]:
        data = self._data
        if type(data) is list:
            return pack(self.KIND, [0, *data])
        if type(data) is bytearray:
            return pack(self.KIND, [BYTES, bytes(data)])
        oids = [child._p_oid for child in data.children]
        return pack(self.KIND, [data.level, *data.counts, *oids])[0], oids

    def _p_decode(self, payload: bytes) -> None:
        values = unpack(self, payload, 1)
        if values[0] == BYTES and len(values) == 2 and type(values[1]) is bytes and values[1]:
            set_data(self, bytearray(values[1]))
            return
        level = natural(self, values[0], 0, len(DEPTH))
        if not level:
            del values[0]
            if len(values) > LEAF:
                raise corrupt(self, f"{len(values)} values in a leaf")
            set_data(self, values)
            return
        n = len(values) // 2
        if len(values) != 2 * n + 1 or not 1 <= n <= FANOUT:
            raise corrupt(self, f"{len(values)} numbers in an inner node")
        counts = [natural(self, count, 1) for count in values[1 : n + 1]]
        children = [member(self, ListNode, oid) for oid in values[n + 1 :]]
        set_data(self, Inner(level, counts, children))


def room(data: Any) -> int:
    """How many values a leaf of state `data` may hold."""
    return CHUNK if type(data) is bytearray else LEAF


def total(data: Any) -> int:
    """How many values are below a node of state `data`."""
    return sum(data.counts) if type(data) is Inner else len(data)


def locate(root: ListNode, position: int) -> tuple[ListNode, int]:
    """The leaf that holds `position` (in range), and the offset there."""
    node = root
    for _ in DEPTH:
        data = node._data
        if type(data) is not Inner:
            if position >= len(data):
                raise corrupt(node, f"{len(data)} values, expected more than {position}")
            return node, position
        starts = _starts(data)
        k = bisect_right(starts, position) - 1
        position -= starts[k]
        node = data.children[k]
    raise corrupt(root, "tree without leaves")


def _descend(root: ListNode, position: int) -> tuple[list[tuple[ListNode, int]], ListNode, int]:
    """The path to the leaf that holds `position`, or would have it appended: (inner node, child number) from the root
    down, leaf, offset."""
    path: list[tuple[ListNode, int]] = []
    node = root
    for _ in DEPTH:
        data = node._data
        if type(data) is not Inner:
            if position > len(data):
                raise corrupt(node, f"{len(data)} values, expected {position} or more")
            return path, node, position
        starts = _starts(data)
        k = bisect_right(starts, position) - 1
        position -= starts[k]
        path.append((node, k))
        node = data.children[k]
    raise corrupt(root, "tree without leaves")


def _recount(path: list[tuple[ListNode, int]], by: int) -> None:
    for node, k in path:
        data = touch(node)
        data.counts[k] += by
        data.starts = None


def _attach(
    view: View, root: ListNode, path: list[tuple[ListNode, int]], right: ListNode, moved: int, added: int
) -> ListNode:
    """Put `right`, holding `moved` values taken from the node at the end of `path` and `added` new ones, behind that
    node; split upwards as needed."""
    while path:
        parent, k = path.pop()
        data = touch(parent)
        data.counts[k] -= moved
        data.counts.insert(k + 1, moved + added)
        data.children.insert(k + 1, right)
        data.starts = None
        if len(data.children) <= FANOUT:
            _recount(path, added)
            return root
        # behind the last child one appends: leave the left node full
        cut = FANOUT if k + 2 == len(data.children) else len(data.children) // 2
        sibling = Inner(data.level, data.counts[cut:], data.children[cut:])
        del data.counts[cut:], data.children[cut:]
        right = create(view, ListNode, sibling)
        moved = sum(sibling.counts) - added
    left = root._data
    level = left.level + 1 if type(left) is Inner else 1
    return create(view, ListNode, Inner(level, [total(left), moved + added], [root, right]))


def push_leaf(view: View, root: ListNode | None, leaf: ListNode) -> ListNode:
    """Append a whole leaf."""
    return leaf if root is None else _push(view, root, leaf, len(leaf._data))


def push_leaves(view: View, root: ListNode | None, leaves: list[ListNode]) -> ListNode | None:
    """Append whole leaves. A new tree is built bottom-up."""
    if root is not None:
        for leaf in leaves:
            root = push_leaf(view, root, leaf)
        return root
    nodes = [(len(leaf._data), leaf) for leaf in leaves]
    level = 1
    while len(nodes) > 1:
        parts = [list(zip(*nodes[i : i + FANOUT], strict=True)) for i in range(0, len(nodes), FANOUT)]
        nodes = [
            (sum(counts), create(view, ListNode, Inner(level, list(counts), list(children))))
            for counts, children in parts
        ]
        level += 1
    return nodes[0][1] if nodes else None


def _push(view: View, root: ListNode, leaf: ListNode, n: int) -> ListNode:
    path: list[tuple[ListNode, int]] = []
    node = root
    for _ in DEPTH:
        data = node._data
        if type(data) is not Inner:
            return _attach(view, root, path, leaf, 0, n)
        path.append((node, len(data.children) - 1))
        node = data.children[-1]
    raise corrupt(root, "tree without leaves")


def insert(view: View, root: ListNode, position: int, value: Any) -> ListNode:
    """Insert `value` before `position` (0..total)."""
    path, leaf, offset = _descend(root, position)
    data = touch(leaf)
    data.insert(offset, value)
    if len(data) <= LEAF:
        _recount(path, 1)
        return root
    cut = len(data) // 2
    right = create(view, ListNode, data[cut:])
    moved = len(data) - cut
    del data[cut:]
    # the new value is counted on the left, then `moved` values go over
    _recount(path, 1)
    return _attach(view, root, path, right, moved, 0)


def pop_leaf(root: ListNode) -> tuple[list[Any], ListNode | None]:
    """Take the last leaf off: its values, and the root of the rest (None: nothing is left)."""
    path: list[tuple[ListNode, int]] = []
    node = root
    for _ in DEPTH:
        data = node._data
        if type(data) is not Inner:
            break
        path.append((node, len(data.children) - 1))
        node = data.children[-1]
    else:
        raise corrupt(root, "tree without leaves")
    values = list(node._data)
    _recount(path, -len(values))
    return values, _detach(root, path)


def _detach(root: ListNode, path: list[tuple[ListNode, int]]) -> ListNode | None:
    """Remove the empty node at the end of `path`, and the inner nodes that get empty by it."""
    while path:
        node, k = path.pop()
        data = touch(node)
        del data.counts[k], data.children[k]
        data.starts = None
        if data.children:
            return _collapse(root)
    return None


def _collapse(root: ListNode) -> ListNode:
    """The root without levels that have a single child."""
    for _ in DEPTH:
        data = root._data
        if type(data) is not Inner or len(data.children) > 1:
            return root
        root = data.children[0]
    raise corrupt(root, "tree without leaves")


def delete(root: ListNode, position: int) -> tuple[Any, ListNode | None]:
    """Remove and return the value at `position` (in range), with the new root (None: nothing is left)."""
    path, leaf, offset = _descend(root, position)
    data = touch(leaf)
    if offset >= len(data):
        raise corrupt(leaf, f"{len(data)} values, expected more than {offset}")
    value = data.pop(offset)
    _recount(path, -1)
    return value, _shrunk(root, path, leaf)


def _shrunk(root: ListNode, path: list[tuple[ListNode, int]], leaf: ListNode) -> ListNode | None:
    """Tidy up after something was removed from `leaf`, at the end of `path`: drop it when empty, merge it when sparse.
    Returns the new root (None: all empty)."""
    data = leaf._data
    if not data:
        return _detach(root, path)
    node = leaf
    limit = room(data)
    while path:
        size = len(node._data)
        if size * SPARSE >= limit:
            return root
        parent, k = path.pop()
        _merge(parent, k, size, limit)
        node, limit = parent, FANOUT
    return _collapse(root)


def _merge(parent: ListNode, k: int, size: int, limit: int) -> None:
    """Merge child `k` of `parent`, filled to `size`, with a neighbour if both together are at most 3/4 of `limit`."""
    for left in (k - 1, k):
        siblings = parent._data.children
        if left < 0 or left + 1 >= len(siblings):
            continue
        a, b = siblings[left], siblings[left + 1]
        other = len((a if left < k else b)._data)
        if (size + other) * 4 > limit * 3:
            continue
        source = b._data  # held here: stays whole even if b is evicted by the next load
        target = touch(a)
        if type(target) is Inner:
            target.counts.extend(source.counts)
            target.children.extend(source.children)
            target.starts = None
        else:
            target.extend(source)
        data = touch(parent)
        data.counts[left] += data.counts[left + 1]
        del data.counts[left + 1], data.children[left + 1]
        data.starts = None
        return


def paste(view: View, root: ListNode | None, position: int, values: Any) -> ListNode:
    """Insert `values` (a container like those of the leaves, not empty) before `position` (0..total)."""
    most = room(values)
    at = 0
    if root is None:
        at = min(most, len(values))
        root = create(view, ListNode, values[:at])
    while at < len(values):
        path, leaf, offset = _descend(root, position + at)
        data = touch(leaf)
        if len(data) < most:
            part = values[at : at + most - len(data)]
            data[offset:offset] = part
            _recount(path, len(part))
        elif offset == len(data):
            part = values[at : at + most]
            root = _attach(view, root, path, create(view, ListNode, part), 0, len(part))
        else:
            middle = offset or most // 2
            right = data[middle:]
            del data[middle:]
            root = _attach(view, root, path, create(view, ListNode, right), len(right), 0)
            continue
        at += len(part)
    return root


def cut(root: ListNode, position: int, most: int) -> tuple[Any, ListNode | None]:
    """Remove the value at `position` (in range) and those behind it in its leaf, but at most `most`: what was removed,
    and the new root (None: nothing is left)."""
    path, leaf, offset = _descend(root, position)
    data = touch(leaf)
    removed = data[offset : offset + most]
    if not removed:
        raise corrupt(leaf, f"{len(data)} values, expected more than {offset}")
    del data[offset : offset + most]
    _recount(path, -len(removed))
    return removed, _shrunk(root, path, leaf)


def leaves(root: ListNode) -> Iterator[ListNode]:
    """Every leaf, left to right. The tree must not change meanwhile."""
    data = root._data
    if type(data) is not Inner:
        yield root
        return
    for child in list(data.children):
        yield from leaves(child)


def check(root: ListNode) -> int:
    """Verify the structure below `root`; AssertionError tells what is wrong. Returns the number of values."""

    def walk(node: ListNode, level: int | None, top: bool) -> tuple[int, int]:
        data = node._data
        if type(data) is not Inner:
            assert level in (None, 0), "leaf on the wrong level"
            assert type(data) in (list, bytearray) and 1 <= len(data) <= room(data), "leaf of a wrong size"
            return len(data), 0
        assert level is None or data.level == level, "inner node on the wrong level"
        own, counts, children = data.level, list(data.counts), list(data.children)
        assert len(counts) == len(children) and (2 if top else 1) <= len(children) <= FANOUT, (
            "inner node of a wrong size"
        )
        assert data.starts is None or data.starts == list(accumulate(counts[:-1], initial=0)), "stale start positions"
        for count, child in zip(counts, children, strict=True):
            assert walk(child, own - 1, False)[0] == count, "wrong count"
        return sum(counts), own

    return walk(root, None, True)[0]
