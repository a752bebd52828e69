"""Nodes of an index's trees: entries (key, object), sorted by the key's rank and then by OID.

A leaf of any index is bounded twice, in entries and in bytes, as keys may be long: its *fill* is the larger share of
both.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from dbzero.collections import keyed
from dbzero.collections.keyed import Inner, KeyedNode
from dbzero.collections.nodes import (
    DEPTH,
    FANOUT,
    LEAF,
    corrupt,
    create,
    member,
    natural,
    pack,
    set_data,
    touch,
    unpack,
)
from dbzero.collections.order import Item, separator
from dbzero.model import base
from dbzero.model.base import Persistent
from dbzero.model.view import View

FEW = 8  # so many entries are added to a leaf one by one
ROOM = LEAF * 3 // 4  # entries of leaves that are made of many entries at once
BULK = 32768  # most bytes of keys in a leaf of more than one entry


def bulk(rank: Any) -> int:
    """About how many bytes a rank takes up. The same for equal objects: the size of a str object itself grows when it
    is encoded."""
    return 49 + len(rank) if type(rank) in (str, bytes) else int(rank.__sizeof__())


def weigh(ranks: list[Any]) -> int:
    """The bulk of some ranks together."""
    types = set(map(type, ranks))
    if types == {int}:
        return sum(map(int.__sizeof__, ranks))
    if types == {str}:
        return 49 * len(ranks) + sum(map(len, ranks))
    return sum(map(bulk, ranks))


class Pairs:
    """State of a leaf: parallel lists. `keys` is None where the keys are the ranks, or all None."""

    __slots__ = ("items", "keys", "objects", "size")

    def __init__(self, items: list[Item], keys: list[Any] | None, objects: list[Any]) -> None:
        self.items = items
        self.keys = keys
        self.objects = objects
        self.size = weigh([item[0] for item in items])

    def __len__(self) -> int:
        return max(len(self.items), self.size * LEAF // BULK if self.items else 0)

    def insert(self, at: int, item: Item, key: Any, obj: Any) -> None:
        """Put an entry at its place."""
        self.items.insert(at, item)
        self.objects.insert(at, obj)
        if self.keys is not None:
            self.keys.insert(at, key)
        self.size += bulk(item[0])

    def remove(self, at: int) -> None:
        """Remove an entry."""
        self.size -= bulk(self.items[at][0])
        del self.items[at], self.objects[at]
        if self.keys is not None:
            del self.keys[at]

    def cut(self, at: int) -> Pairs:
        """Take off the entries from `at` on."""
        right = Pairs(self.items[at:], None if self.keys is None else self.keys[at:], self.objects[at:])
        del self.items[at:], self.objects[at:]
        if self.keys is not None:
            del self.keys[at:]
        self.size -= right.size
        return right

    def span(self, at: int, end: int) -> list[Any]:
        """The keys of entries at..end-1, in a tree of keys."""
        return [item[0] for item in self.items[at:end]] if self.keys is None else self.keys[at:end]

    def key(self, at: int) -> Any:
        """The key of an entry, in a tree of keys."""
        return self.items[at][0] if self.keys is None else self.keys[at]


class PairNode(KeyedNode):
    """One node of an index's tree."""

    __slots__ = ()
    KIND = 14

    def _p_encode(self) -> tuple[bytes, list[int]]:
        data = self._data
        if type(data) is not Inner:
            return pack(self.KIND, [0, *self._p_leaf_values(data)])
        oids = [child._p_oid for child in data.children]
        ranks = [mark[0] for mark in data.marks]
        return pack(self.KIND, [data.level, len(oids), *ranks, *[mark[1] for mark in data.marks], *oids])[0], oids

    def _p_decode(self, payload: bytes) -> None:
        values = unpack(self, payload, 2)
        level = natural(self, values[0], 0, len(DEPTH))
        if not level:
            set_data(self, self._p_leaf_state(values[1:]))
            return
        n = natural(self, values[1], 1, FANOUT)
        if len(values) != 3 * n + 2:
            raise corrupt(self, f"{len(values)} values in an inner node")
        numbers = [natural(self, number) for number in values[n + 2 : 2 * n + 2]]
        marks = list(zip(values[2 : n + 2], numbers, strict=True))
        self._p_ordered(marks[1:])
        children = [member(self, type(self), oid) for oid in values[2 * n + 2 :]]
        set_data(self, Inner(level, marks, children))

    def _p_bulky(self, *states: Inner) -> bool:
        marks = [mark for state in states for mark in state.marks]
        return len(marks) > 3 and weigh([rank for rank, _ in marks]) > BULK

    def _p_ordered(self, items: list[Item]) -> None:
        try:
            if all(a < b for a, b in pairwise(items)):
                return
        except (TypeError, ArithmeticError):
            pass  # keys of different families
        raise corrupt(self, "keys out of order")

    def _p_leaf_values(self, data: Pairs) -> list[Any]:
        ranks = [item[0] for item in data.items]
        return [len(ranks), *ranks, *data.objects, *(() if data.keys is None else data.keys)]

    def _p_leaf_state(self, values: list[Any]) -> Pairs:
        n = natural(self, values[0], 0, 1 << 20)
        if len(values) not in (2 * n + 1, 3 * n + 1):
            raise corrupt(self, f"{len(values)} values for {n} entries")
        objects = values[n + 1 : 2 * n + 1]
        if not all(isinstance(obj, Persistent) and obj._p_flags & base.MEMO for obj in objects):
            raise corrupt(self, "an entry that is no object")
        items: list[Item] = list(zip(values[1 : n + 1], [obj._p_oid for obj in objects], strict=True))
        self._p_ordered(items)
        return Pairs(items, values[2 * n + 1 :] or None, objects)

    def _p_absorb(self, left: Pairs, right: Pairs, other: KeyedNode) -> None:
        left.items += right.items
        left.objects += right.objects
        left.size += right.size
        if left.keys is not None:
            assert right.keys is not None
            left.keys += right.keys
        other._p_changed()  # it goes with the next commit, but what it refers to is counted before
        set_data(other, Pairs([], None, []))


class Place(NamedTuple):
    """Where an entry is or would be: the path to its leaf, its place there."""

    path: keyed.Path
    leaf: PairNode
    at: int
    found: bool


def locate(root: PairNode, item: Item) -> Place:
    """The place of an entry. It is good until the tree changes, within one operation."""
    try:
        path, leaf = keyed.find_path(root, item)
        items = leaf._data.items
        at = bisect_left(items, item)
    except TypeError:
        raise corrupt(root, "keys without an order") from None
    return Place(path, leaf, at, at < len(items) and items[at] == item)


def start(view: View, item: Item, key: Any, keyless: bool, obj: Any, node: type[PairNode] = PairNode) -> PairNode:
    """A tree of one entry. `keyless`: the keys of this tree are its ranks, or all None. Inside an operation."""
    return create(view, node, Pairs([item], None if keyless else [key], [obj]))


def add(view: View, root: PairNode, place: Place, item: Item, key: Any, obj: Any) -> PairNode:
    """Add an entry at its place. Returns the new root. Inside an operation."""
    data = touch(place.leaf)
    items = data.items
    at = place.at
    data.insert(at, item, key, obj)
    n = len(items)
    if len(data) <= LEAF or n < 2:
        return root
    right = data.cut(n - 1 if n > LEAF and _last(place.path, at, n) else _middle(data))
    mark = separator(items[-1], right.items[0])
    return keyed.attach(view, root, place.path, create(view, type(root), right), mark)


def _last(path: keyed.Path, at: int, n: int) -> bool:
    """Whether place `at` of `n` is the last of all: ascending keys leave full leaves behind."""
    return at == n - 1 and all(k + 1 == len(node._data.children) for node, k in path)


def _middle(data: Pairs) -> int:
    """Where to cut a leaf that is too large: in the middle of its entries, or of its bytes."""
    items = data.items
    if len(items) > LEAF:
        return len(items) // 2
    sizes = list(accumulate([bulk(item[0]) for item in items]))
    return min(range(1, len(items)), key=lambda at: abs(2 * sizes[at - 1] - data.size))


def merge(view: View, root: PairNode, items: list[Item], objects: list[Any], added: list[Item]) -> Iterator[PairNode]:
    """Add many entries to a tree without keys of their own, leaf by leaf. Inside an operation.

    Args:
        items, objects: the entries, in order, none of them twice.
        added: what was not there yet is appended to it, in order. It tells the truth after an error, too.

    Yields the root, whenever it may be a new one.
    """
    at = 0
    while at < len(items):
        try:
            path, leaf = keyed.find_path(root, items[at])
        except TypeError:
            raise corrupt(root, "keys without an order") from None
        high = next((node._data.marks[k + 1] for node, k in reversed(path) if k + 1 < len(node._data.marks)), None)
        end = len(items) if high is None else bisect_left(items, high, at)
        here, values = items[at:end], objects[at:end]
        at = end
        if len(here) <= FEW:
            for item, obj in zip(here, values, strict=True):
                place = locate(root, item)
                if not place.found:
                    root = add(view, root, place, item, None, obj)
                    added.append(item)
                    yield root
            continue
        data = leaf._data
        there = set(data.items)
        if not there.isdisjoint(here):
            fresh = [(item, obj) for item, obj in zip(here, values, strict=True) if item not in there]
            if not fresh:
                continue
            here, values = [item for item, _ in fresh], [obj for _, obj in fresh]
        data = touch(leaf)
        added += here  # before the others come in
        last = high is None and (not there or data.items[-1] < here[0])
        if last:
            here, values = data.items + here, data.objects + values
        elif len(there) <= FEW:
            for item, obj in zip(data.items, data.objects, strict=True):
                k = bisect_left(here, item)
                here.insert(k, item)
                values.insert(k, obj)
        else:
            # No two items are equal, so no objects are compared.
            both = sorted(zip(data.items + here, data.objects + values, strict=True))
            here, values = [item for item, _ in both], [obj for _, obj in both]
        # Ascending keys leave full leaves behind, others some room.
        states = _leaves(here, values, LEAF if last else ROOM)
        left = next(states)
        set_data(leaf, left)
        for right in states:
            mark = separator(left.items[-1], right.items[0])
            root = keyed.attach(view, root, path, create(view, type(root), right), mark)
            path, _ = keyed.find_path(root, right.items[0])
            left = right
        yield root


def _leaves(items: list[Item], objects: list[Any], step: int) -> Iterator[Pairs]:
    """States of leaves with `step` entries each, or less where these have too many bytes."""
    for at in range(0, len(items), step):
        made = Pairs(items[at : at + step], None, objects[at : at + step])
        n = len(made.items)
        if len(made) <= LEAF or n < 2:
            yield made
        else:
            yield from _leaves(made.items, made.objects, (n + 1) // 2)


def remove(root: PairNode, place: Place) -> tuple[Any, PairNode | None]:
    """Remove the entry at its place: (its key, new root; None: nothing is left). Inside an operation."""
    data = touch(place.leaf)
    key = data.key(place.at)
    data.remove(place.at)
    return key, keyed.shrunk(root, place.path, place.leaf)


def part(root: PairNode, low: Item | None) -> tuple[Pairs, int, Item | None]:
    """The state of the leaf in whose range `low` is (None: the first), the place of the first entry from there on, and
    the start of the next leaf (None: there is none)."""
    try:
        leaf, _, following = keyed.find_bound(root, low)
        data = leaf._data
        return data, 0 if low is None else bisect_left(data.items, low), following
    except TypeError:
        raise corrupt(root, "keys without an order") from None


def part_before(root: PairNode, high: Item | None) -> tuple[Pairs, int, Item | None]:
    """The state of the leaf that has the entries right below `high` (None: the last leaf), the place behind the last of
    these, and the start of that leaf (None: it is the first)."""
    node = root
    low: Item | None = None
    try:
        for _ in DEPTH:
            data = node._data
            if type(data) is not Inner:
                return data, len(data.items) if high is None else bisect_left(data.items, high), low
            marks = data.marks
            k = len(marks) - 1 if high is None else bisect_left(marks, high, 1) - 1
            if k:
                low = marks[k]
            node = data.children[k]
    except TypeError:
        raise corrupt(root, "keys without an order") from None
    raise corrupt(root, "tree without leaves")


def position(root: PairNode, item: Item) -> float:
    """About what share of the entries stands below `item`, from the fill of the nodes on the way to it."""
    low, share = 0.0, 1.0
    node = root
    try:
        for _ in DEPTH:
            data = node._data
            if type(data) is not Inner:
                return low + share * bisect_left(data.items, item) / max(len(data.items), 1)
            k = bisect_right(data.marks, item, 1) - 1
            share /= len(data.children)
            low += share * k
            node = data.children[k]
    except TypeError:
        raise corrupt(root, "keys without an order") from None
    raise corrupt(root, "tree without leaves")


def check(root: PairNode, keyless: bool) -> int:
    """Verify the structure below `root`; AssertionError tells what is wrong. Returns the number of entries."""

    def items_of(data: Pairs) -> list[Item]:
        assert type(data) is Pairs, "not a leaf"
        assert 1 <= len(data.items) <= LEAF, "leaf of a wrong size"
        assert data.size - max([bulk(item[0]) for item in data.items]) <= 2 * BULK, "leaf of too many bytes"
        assert len(data.objects) == len(data.items), "objects missing"
        assert (data.keys is None) == keyless, "keys missing"
        assert data.keys is None or len(data.keys) == len(data.items), "keys missing"
        assert [item[1] for item in data.items] == [getattr(obj, "_p_oid", obj) for obj in data.objects], "wrong OIDs"
        assert data.size == sum([bulk(item[0]) for item in data.items]), "wrong size"
        return data.items

    items = keyed.check(root, items_of)
    assert all(a < b for a, b in pairwise(items)), "entries out of order"
    return len(items)
