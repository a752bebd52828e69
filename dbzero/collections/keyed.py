"""Keyed tree: a B+-tree by integer key, for the entries of a dict (by sequence number), its hash index, and the
elements of a set (by hash). The functions that compare keys and nothing else serve any ordered key, which an index
makes use of.

What a leaf is, the node class says: the state of a leaf has a length, and :meth:`KeyedNode._p_absorb` joins two. An
inner node has `marks[k]`, a lower bound of the keys below `children[k]`; ``marks[0]`` is not looked at, so a leftmost
child takes every smaller key. All leaves are on one level. Functions that may replace the root return the new one. All
of them run inside an operation.

Algorithm: the B+-tree (Comer, *The Ubiquitous B-Tree*, 1979), with relaxed minimum fill.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

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
from dbzero.model import base
from dbzero.model.base import find_leaf
from dbzero.model.view import View

if TYPE_CHECKING:

    class Inner:
        """State of an inner node. Defined in C, so that the short ways find children without Python."""

        marks: list[Any]
        children: list[Any]
        level: int

        def __init__(self, level: int, marks: list[Any], children: list[Any]) -> None: ...

        def __len__(self) -> int: ...

else:
    Inner = base.Inner


class KeyedNode(Stored):
    """One node of a keyed tree; subclasses define what a leaf is."""

    __slots__ = ()

    def _p_encode(self) -> tuple[bytes, list[int]]:
        data = self._data
        if type(data) is not Inner:
            return pack(self.KIND, [0, *self._p_leaf_values(data)])
        oids = [child._p_oid for child in data.children]
        return pack(self.KIND, [data.level, *data.marks, *oids])[0], oids

    def _p_decode(self, payload: bytes) -> None:
        values = unpack(self, payload, 1)
        level = natural(self, values[0], 0, len(DEPTH))
        if not level:
            del values[0]
            set_data(self, self._p_leaf_state(values))
            return
        n = len(values) // 2
        if len(values) != 2 * n + 1 or not 1 <= n <= FANOUT:
            raise corrupt(self, f"{len(values)} numbers in an inner node")
        marks = values[1 : n + 1]
        if any(type(mark) is not int for mark in marks) or any(a >= b for a, b in pairwise(marks[1:])):
            raise corrupt(self, "keys out of order")
        cls = type(self)
        children = [member(self, cls, oid) for oid in values[n + 1 :]]
        set_data(self, Inner(level, marks, children))

    def _p_leaf_values(self, data: Any) -> list[Any]:
        """What is stored of a leaf's state."""
        raise NotImplementedError

    def _p_leaf_state(self, values: list[Any]) -> Any:
        """The leaf's state from what was stored; CorruptError when it can't be."""
        raise NotImplementedError

    def _p_bulky(self, *states: Inner) -> bool:
        """Whether an inner node of these states together has too many bytes."""
        return False

    def _p_absorb(self, left: Any, right: Any, other: KeyedNode) -> None:
        """Append the leaf state `right`, which is that of `other`, to `left`, which is this node's."""
        raise NotImplementedError


N = TypeVar("N", bound=KeyedNode)
Path = list[tuple[KeyedNode, int]]


def find(root: N, key: Any) -> N:
    """The leaf in whose range `key` is."""
    leaf: N | None = find_leaf(root, key)
    if leaf is not None:
        return leaf
    node = root
    for _ in DEPTH:
        data = node._data
        if type(data) is not Inner:
            return node
        node = data.children[bisect_right(data.marks, key, 1) - 1]
    raise corrupt(root, "tree without leaves")


def find_path(root: N, key: Any) -> tuple[Path, N]:
    """The leaf in whose range `key` is, and the path to it: (inner node, child number) from the root down."""
    path: Path = []
    node = root
    for _ in DEPTH:
        data = node._data
        if type(data) is not Inner:
            return path, node
        k = bisect_right(data.marks, key, 1) - 1
        path.append((node, k))
        node = data.children[k]
    raise corrupt(root, "tree without leaves")


def find_bound(root: N, key: Any) -> tuple[N, Any, Any]:
    """The leaf in whose range `key` is (None: the first leaf), its lower bound (None: it is the first) and that of the
    next leaf (None: there is none)."""
    node = root
    low: Any = None
    high: Any = None
    for _ in DEPTH:
        data = node._data
        if type(data) is not Inner:
            return node, low, high
        marks = data.marks
        k = 0 if key is None else bisect_right(marks, key, 1) - 1
        if k:
            low = marks[k]
        if k + 1 < len(marks):
            high = marks[k + 1]
        node = data.children[k]
    raise corrupt(root, "tree without leaves")


def leaves(root: N, key: Any = None, level: int | None = None) -> Iterator[N]:
    """The leaves, in order, from the one in whose range `key` is (None: the first). The tree must not change meanwhile."""
    data = root._data
    if type(data) is not Inner:
        yield root
        return
    if level is not None and data.level != level:
        raise corrupt(root, f"a node of level {data.level} where one of level {level} belongs")
    k = 0 if key is None else bisect_right(data.marks, key, 1) - 1
    yield from leaves(data.children[k], key, data.level - 1)
    for child in data.children[k + 1 :]:
        yield from leaves(child, None, data.level - 1)


def find_bound_before(root: N, key: int | None) -> tuple[N, int | None]:
    """The leaf that holds the keys right below `key` (None: the last leaf), and that leaf's own lower bound (None: it
    is the first)."""
    node = root
    bound: int | None = None
    for _ in DEPTH:
        data = node._data
        if type(data) is not Inner:
            return node, bound
        marks = data.marks
        k = len(marks) - 1 if key is None else bisect_right(marks, key - 1, 1) - 1
        if k:
            bound = marks[k]
        node = data.children[k]
    raise corrupt(root, "tree without leaves")


def attach(view: View, root: N, path: Path, right: N, mark: Any) -> N:
    """Put `right`, which holds keys from `mark` on, behind the node at the end of `path`; split upwards as needed."""
    while path:
        parent, k = path.pop()
        data = touch(parent)
        data.marks.insert(k + 1, mark)
        data.children.insert(k + 1, right)
        n = len(data.children)
        if n <= FANOUT and not parent._p_bulky(data):
            return root
        cut = n - 1 if k + 2 == n else n // 2
        mark = data.marks[cut]
        sibling = Inner(data.level, data.marks[cut:], data.children[cut:])
        del data.marks[cut:], data.children[cut:]
        right = create(view, type(root), sibling)
    left = root._data
    level = left.level + 1 if type(left) is Inner else 1
    return create(view, type(root), Inner(level, [mark, mark], [root, right]))


def shrunk(root: N, path: Path, leaf: N) -> N | None:
    """Tidy up after something was removed from `leaf`, at the end of `path`: drop it when empty, merge it when sparse.
    Returns the new root (None: all empty)."""
    if not len(leaf._data):
        return _detach(root, path)
    node: KeyedNode = leaf
    limit = LEAF
    while path:
        size = len(node._data)
        if size * SPARSE >= limit:
            return root
        parent, k = path.pop()
        _merge(parent, k, size, limit)
        node, limit = parent, FANOUT
    return _collapse(root)


def _detach(root: N, path: Path) -> N | None:
    while path:
        node, k = path.pop()
        data = touch(node)
        del data.marks[k], data.children[k]
        if data.children:
            return _collapse(root)
    return None


def _collapse(root: N) -> N:
    for _ in DEPTH:
        data = root._data
        if type(data) is not Inner or len(data.children) > 1:
            return root
        root = data.children[0]
    raise corrupt(root, "tree without leaves")


def _merge(parent: KeyedNode, k: int, size: int, limit: int) -> None:
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
        if type(source) is Inner and b._p_bulky(a._data, source):
            continue
        target = touch(a)
        data = touch(parent)
        if type(target) is Inner:
            target.marks.append(data.marks[left + 1])
            target.marks.extend(source.marks[1:])
            target.children.extend(source.children)
        else:
            a._p_absorb(target, source, b)
        del data.marks[left + 1], data.children[left + 1]
        return


def build(view: View, cls: type[N], leaves: list[tuple[int, Any]]) -> N:
    """A tree of the leaves (lower bound of the keys, state), at least one, in ascending order."""
    nodes = [(mark, create(view, cls, state)) for mark, state in leaves]
    level = 1
    while len(nodes) > 1:
        parts = [nodes[i : i + FANOUT] for i in range(0, len(nodes), FANOUT)]
        nodes = [
            (part[0][0], create(view, cls, Inner(level, [mark for mark, _ in part], [node for _, node in part])))
            for part in parts
        ]
        level += 1
    return nodes[0][1]


def check(root: KeyedNode, keys_of: Any) -> list[Any]:
    """Verify the structure below `root`; AssertionError tells what is wrong. `keys_of(leaf state)` gives a leaf's
    keys. Returns all keys, in order of the leaves."""
    found: list[Any] = []

    def walk(node: KeyedNode, level: int | None, low: Any, high: Any, top: bool) -> int:
        data = node._data
        if type(data) is not Inner:
            assert level in (None, 0), "leaf on the wrong level"
            assert len(data) or top, "empty leaf"
            keys = list(keys_of(data))
            assert all((low is None or low <= key) and (high is None or key < high) for key in keys), (
                "key outside the range of its leaf"
            )
            found.extend(keys)
            return 0
        assert level is None or data.level == level, "inner node on the wrong level"
        own, marks, children = data.level, list(data.marks), list(data.children)
        assert len(marks) == len(children) and (2 if top else 1) <= len(children) <= FANOUT, (
            "inner node of a wrong size"
        )
        assert all(a < b for a, b in pairwise(marks[1:])), "keys out of order"
        for k, child in enumerate(children):
            walk(child, own - 1, marks[k] if k else low, marks[k + 1] if k + 1 < len(marks) else high, False)
        return int(own)

    walk(root, None, None, None, True)
    return found
