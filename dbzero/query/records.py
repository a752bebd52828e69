"""Stored records of the inverted index: kind 0, told apart by the byte behind it. No reference of a value leads to one.

===  ==============  ==================================================================================================
sub  record          after the two bytes
===  ==============  ==================================================================================================
0    root (OID 3)    MessagePack array: OID of the dictionary's root or 0, class OIDs, as many OIDs of membership trees
1    inner node      values: level, lower bounds, OIDs of the children
2    counted leaf    varint: number of members; the members are the record's own references
3    plain leaf      the members as runs (csrc/pytypes_oids.c), not referred to
4    dictionary      values: number of entries, the tags' keys, OIDs of their posting trees; in order of hash and key
===  ==============  ==================================================================================================

A *posting tree* is a keyed tree (:mod:`dbzero.collections.keyed`) of OIDs. Its leaves are small, so that tagging one
object rewrites one small record. The members of an explicit tag are counted as references, by standing in the
reference list; those of a class are not. An empty tree is no tree. The dictionary of tags is a keyed tree, too, by the
hash of a tag's key (:func:`key_hash`); tags with equal hashes stand in one leaf.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple

from pyroaring import BitMap64
from xxhash import xxh3_64_intdigest

from dbzero.collections import keyed
from dbzero.collections.keyed import Inner, KeyedNode
from dbzero.collections.nodes import DEPTH, LEAF, corrupt, create, member, natural, set_data, touch
from dbzero.model import base, kinds
from dbzero.model.codec import decode_values, encode_values, read_varint, varint
from dbzero.model.view import Records, View

KIND = 0
ROOT_OID = kinds.TAG_ROOT_OID
ROOT, INNER, COUNTED, PLAIN, NAMES = range(5)
MEMBERS = {True: LEAF, False: 4096}  # most members of a leaf, counted or not
PLAIN_BYTES = 1024  # a plain leaf is split beyond that
NAMES_BYTES = 32768  # most bytes of keys in a dictionary leaf of more than one hash


Key = str | bytes
"""What a prefix's index knows a tag by."""


def is_counted(key: Key | int) -> bool:
    """Whether the members of a posting list, by tag key or class OID, are counted as references."""
    return isinstance(key, str) or (isinstance(key, bytes) and key[:1] != b"p")


def passive_key(key: Key) -> bytes:
    """Under which key the dictionary of tags has the objects that have a tag by one of their fields."""
    return b"ps" + key.encode("utf-8", "surrogatepass") if isinstance(key, str) else b"p" + key


class Leaf:
    """State of a leaf: its members. Its length is its fill in the units of :mod:`dbzero.collections.keyed`."""

    __slots__ = ("bits", "counted")

    def __init__(self, bits: BitMap64, counted: bool) -> None:
        self.bits = bits
        self.counted = counted

    def __len__(self) -> int:
        n = len(self.bits)
        return n if self.counted else -(-n * LEAF // MEMBERS[False])


class Root:
    """State of the root: `names` is the root of the dictionary of tags, `classes` maps class OID -> membership tree."""

    __slots__ = ("classes", "names")

    def __init__(self, names: IndexRecord | None, classes: dict[int, IndexRecord]) -> None:
        self.names = names
        self.classes = classes


class Names:
    """State of a dictionary leaf: parallel lists, ascending. Its length is its fill."""

    __slots__ = ("items", "size", "trees")

    def __init__(self, items: list[tuple[int, Key]], trees: list[IndexRecord]) -> None:
        self.items = items
        self.trees = trees
        self.size = sum([len(key) for _, key in items])

    def __len__(self) -> int:
        return max(len(self.items), self.size * LEAF // NAMES_BYTES if self.items else 0)

    def find(self, item: tuple[int, Key]) -> int:
        """The place of an entry, or -1."""
        at = bisect_left(self.items, item[0], key=itemgetter(0))
        while at < len(self.items) and self.items[at][0] == item[0]:
            if self.items[at][1] == item[1]:
                return at
            at += 1
        return -1


def key_hash(key: Key) -> int:
    """The hash of a tag's key by which the dictionary is sorted: 63 bits."""
    data = key.encode("utf-8", "surrogatepass") if type(key) is str else b"\xff" + key  # type: ignore[operator]
    return int(xxh3_64_intdigest(data)) >> 1


class IndexRecord(KeyedNode):
    """Any record of the inverted index; the type of its state says which."""

    __slots__ = ()
    KIND = KIND
    _data: Any

    def _p_encode(self) -> tuple[bytes, list[int]]:
        data = self._data
        if type(data) is Inner:
            payload, refs = super()._p_encode()
            return bytes((KIND, INNER)) + payload[1:], refs
        if type(data) is Leaf:
            members = data.bits.to_array()
            if data.counted:
                return bytes((KIND, COUNTED)) + varint(len(members)), members.tolist()
            return bytes((KIND, PLAIN)) + base.pack_oids(members.tobytes()), []
        if type(data) is Names:
            oids = [tree._p_oid for tree in data.trees]
            keys = [key for _, key in data.items]
            return bytes((KIND, NAMES)) + encode_values([len(keys), *keys, *oids])[0], oids
        trees = [tree._p_oid for tree in data.classes.values()]
        names = 0 if data.names is None else data.names._p_oid
        body, _ = encode_values([names, *data.classes, *trees])
        return bytes((KIND, ROOT)) + body, [names, *trees] if names else trees

    def _p_decode(self, payload: bytes) -> None:
        if len(payload) < 2 or payload[0] != KIND or payload[1] > NAMES:
            raise corrupt(self, f"head {payload[:2].hex()}")
        sub = payload[1]
        if sub == INNER:
            super()._p_decode(payload[:1] + payload[2:])
            if type(self._data) is not Inner:
                raise corrupt(self, "a leaf in place of an inner node")
        elif sub == ROOT:
            set_data(self, self._root(payload))
        elif sub == NAMES:
            set_data(self, self._names(payload))
        else:
            set_data(self, Leaf(self._members(payload, sub == COUNTED), sub == COUNTED))

    def _root(self, payload: bytes) -> Root:
        values = decode_values(self._p_view, payload[2:])
        n = len(values) // 2
        if len(values) != 2 * n + 1:
            raise corrupt(self, f"{len(values)} values in the root")
        codes = [natural(self, code, kinds.FIRST_OID, (1 << 48) - 1) for code in values[1 : n + 1]]
        trees = [member(self, IndexRecord, oid) for oid in values[n + 1 :]]
        names = member(self, IndexRecord, values[0]) if values[0] else None
        return Root(names, dict(zip(codes, trees, strict=True)))

    def _names(self, payload: bytes) -> Names:
        values = decode_values(self._p_view, payload[2:])
        n = natural(self, values[0] if values else None)
        keys = values[1 : n + 1]
        if len(values) != 2 * n + 1 or any(type(key) not in (str, bytes) for key in keys):
            raise corrupt(self, f"{len(values)} values for {n} tags")
        return Names(
            [(key_hash(key), key) for key in keys], [member(self, IndexRecord, oid) for oid in values[n + 1 :]]
        )

    def _members(self, payload: bytes, counted: bool) -> BitMap64:
        if not counted:
            try:
                return _bitmap(base.unpack_oids(payload[2:]))
            except ValueError as error:
                raise corrupt(self, str(error)) from None
        view = self._p_view
        bits = BitMap64(view.records.references(self._p_oid, view.state))
        try:
            count, _ = read_varint(payload, 2)
        except ValueError as error:
            raise corrupt(self, str(error)) from None
        if len(bits) != count:
            raise corrupt(self, f"{len(bits)} members instead of {count}")
        return bits

    def _p_weight(self) -> int:
        """About how many bytes it takes up in memory."""
        data = self._data
        if type(data) is Leaf:
            return 200 + 2 * len(data.bits)
        return 200 + 150 * (len(data.classes) if type(data) is Root else len(data))

    def _p_absorb(self, left: Any, right: Any, other: KeyedNode) -> None:
        if type(left) is Leaf:
            left.bits |= right.bits
            other._p_changed()  # it goes with the next commit, but what it refers to is counted before
            set_data(other, Leaf(BitMap64(), left.counted))
            return
        left.items += right.items
        left.trees += right.trees
        left.size += right.size


def _bitmap(packed: bytes) -> BitMap64:
    made: BitMap64 = BitMap64(memoryview(packed).cast("Q")) if packed else BitMap64()
    return made


def leaf_members(records: Records, oid: int, state: int) -> BitMap64:
    """What the record `oid` says the members of its posting list are at `state`; none when it is no leaf there."""
    found = records.read(oid, state)
    if found is None or found[0][:1] != bytes((KIND,)):
        return BitMap64()
    sub = found[0][1]
    if sub == COUNTED:
        return BitMap64(records.references(oid, state))
    return _bitmap(base.unpack_oids(found[0][2:])) if sub == PLAIN else BitMap64()


def make_root(view: View) -> IndexRecord:
    """The root of a prefix's index, which has none yet. Inside an operation."""
    root = IndexRecord.__new__(IndexRecord)
    set_data(root, Root(None, {}))
    view.adopt(root, ROOT_OID)
    return root


class Part(NamedTuple):
    """One leaf of a posting tree: its members are from `low` on (None: it is the first) and below `high` (None: it is
    the last)."""

    leaf: IndexRecord
    low: int | None
    high: int | None


def parts(root: IndexRecord) -> Iterator[Part]:
    """The leaves of a posting tree or of the dictionary, in order. Inside an operation, in which the tree does not change."""
    stack: list[tuple[IndexRecord, int | None, int | None, int]] = [(root, None, None, len(DEPTH))]
    while stack:
        node, low, high, depth = stack.pop()
        data = node._data
        if type(data) is Leaf or type(data) is Names:
            yield Part(node, low, high)
            continue
        if type(data) is not Inner or not depth:
            raise corrupt(node, "no node of a posting tree")
        marks = data.marks
        lows = [low, *marks[1:]]
        highs = [*marks[1:], high]
        stack.extend((child, lows[k], highs[k], depth - 1) for k, child in reversed([*enumerate(data.children)]))


def _high(path: keyed.Path) -> int | None:
    """The upper bound of the leaf at the end of a path."""
    for node, k in reversed(path):
        marks = node._data.marks
        if k + 1 < len(marks):
            return int(marks[k + 1])
    return None


def add_members(view: View, root: IndexRecord | None, members: BitMap64, counted: bool) -> IndexRecord:
    """Add members, at least one, to a posting tree (None: there is none yet). Returns its root. Inside an operation."""
    oids = members.to_array()
    if root is None:
        pieces = _pieces(members, counted, True)
        return keyed.build(view, IndexRecord, [(piece.min(), Leaf(piece, counted)) for piece in pieces])
    at = 0
    while at < len(oids):
        path, leaf = keyed.find_path(root, oids[at])
        high = _high(path)
        end = len(oids) if high is None else bisect_left(oids, high, at)
        part = BitMap64(oids[at:end])
        at = end
        if type(leaf._data) is not Leaf or leaf._data.counted != counted:
            raise corrupt(leaf, "no leaf of this posting tree")
        part -= leaf._data.bits
        if not part:
            continue
        data = touch(leaf)
        last = high is None and (not data.bits or part.min() > data.bits.max())
        data.bits |= part
        pieces = _pieces(data.bits, counted, last)
        data.bits = pieces[0]
        for before, piece in pairwise(pieces):
            path, _ = keyed.find_path(root, before.max())
            root = keyed.attach(view, root, path, create(view, IndexRecord, Leaf(piece, counted)), piece.min())
    return root


def _pieces(bits: BitMap64, counted: bool, full: bool) -> list[BitMap64]:
    """Members cut into leaves: full ones if asked for, else such that each has room."""
    most = MEMBERS[counted]
    if not counted and len(bits) > 64:
        size = len(base.pack_oids(bits.to_array().tobytes()))
        most = min(most, max(64, len(bits) * PLAIN_BYTES // max(size, 1)))
    n = len(bits)
    if n <= most:
        return [bits]
    oids = bits.to_array()
    if not full:
        count = -(-n * 4 // (most * 3))
        most = -(-n // count)
    return [BitMap64(oids[i : i + most]) for i in range(0, n, most)]


def remove_members(root: IndexRecord, members: BitMap64) -> IndexRecord | None:
    """Remove members from a posting tree. Returns its root; None: nothing is left. Inside an operation."""
    oids = members.to_array()
    at = 0
    found: IndexRecord | None = root
    while at < len(oids) and found is not None:
        path, leaf = keyed.find_path(found, oids[at])
        high = _high(path)
        end = len(oids) if high is None else bisect_left(oids, high, at)
        part = BitMap64(oids[at:end])
        at = end
        if type(leaf._data) is not Leaf:
            raise corrupt(leaf, "no leaf of a posting tree")
        if not part.isdisjoint(leaf._data.bits):
            touch(leaf).bits -= part
            found = keyed.shrunk(found, path, leaf)
    return found


def find_name(root: IndexRecord | None, key: Key) -> IndexRecord | None:
    """The posting tree of a tag, or None. Inside an operation."""
    if root is None:
        return None
    item = (key_hash(key), key)
    data = keyed.find(root, item[0])._data
    if type(data) is not Names:
        raise corrupt(root, "not the dictionary of tags")
    at = data.find(item)
    return data.trees[at] if at >= 0 else None


def set_name(view: View, root: IndexRecord | None, key: Key, tree: IndexRecord) -> IndexRecord:
    """Enter the posting tree of a tag in the dictionary (None: there is none yet). Returns its root. Inside an
    operation."""
    item = (key_hash(key), key)
    if root is None:
        return create(view, IndexRecord, Names([item], [tree]))
    path, leaf = keyed.find_path(root, item[0])
    data = touch(leaf)
    at = data.find(item)
    if at >= 0:
        data.trees[at] = tree
        return root
    at = bisect_left(data.items, item[0], key=itemgetter(0))
    data.items.insert(at, item)
    data.trees.insert(at, tree)
    data.size += len(key)
    if len(data) <= LEAF:
        return root
    hashes = [number for number, _ in data.items]
    cuts = [k for k in range(1, len(hashes)) if hashes[k - 1] != hashes[k]]
    if not cuts:
        return root
    cut = min(cuts, key=lambda k: abs(2 * k - len(hashes)))
    right = Names(data.items[cut:], data.trees[cut:])
    del data.items[cut:], data.trees[cut:]
    data.size -= right.size
    return keyed.attach(view, root, path, create(view, IndexRecord, right), hashes[cut])


def remove_name(root: IndexRecord, key: Key) -> IndexRecord | None:
    """Remove a tag from the dictionary. Returns its root; None: nothing is left. Inside an operation."""
    item = (key_hash(key), key)
    path, leaf = keyed.find_path(root, item[0])
    at = leaf._data.find(item)
    if at < 0:
        return root
    data = touch(leaf)
    del data.items[at], data.trees[at]
    data.size -= len(key)
    return keyed.shrunk(root, path, leaf)


def names(root: IndexRecord | None) -> Iterator[tuple[Key, IndexRecord]]:
    """All tags with their posting trees. Inside an operation, in which the dictionary does not change."""
    for part in parts(root) if root is not None else ():
        for (_, key), tree in zip(part.leaf._data.items, part.leaf._data.trees, strict=True):
            yield key, tree


def check_names(root: IndexRecord) -> None:
    """Verify the structure of the dictionary; AssertionError tells what is wrong."""

    def hashes_of(data: Any) -> list[int]:
        assert type(data) is Names and len(data.items) == len(data.trees), "leaf of a wrong sort"
        assert all(key_hash(key) == number for number, key in data.items), "wrong hash"
        assert data.size == sum([len(key) for _, key in data.items]), "wrong size"
        return [number for number, _ in data.items]

    found = keyed.check(root, hashes_of)
    assert found == sorted(found), "tags out of order"
    assert len({key for key, _ in names(root)}) == len(found), "a tag twice"


def check_tree(root: IndexRecord, counted: bool) -> BitMap64:
    """Verify the structure of a posting tree; AssertionError tells what is wrong. Returns the members."""
    members = BitMap64()

    def members_of(data: Any) -> list[int]:
        assert type(data) is Leaf and data.counted == counted, "leaf of a wrong sort"
        assert 0 < len(data.bits) <= MEMBERS[counted], "leaf of a wrong size"
        members.update(data.bits)
        return list(data.bits)

    keyed.check(root, members_of)
    return members
