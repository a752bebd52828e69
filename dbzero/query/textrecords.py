"""Stored full-text indexes: for each word of one declared field, which objects have it and how often.

===  ==============  ==================================================================================================
sub  record          after the two bytes (kind 0)
===  ==============  ==================================================================================================
11   text index      values: number of texts, number of words in them, OID of the tree's root or 0
12   inner node      values: as of a node of an index, bounded by (word, OID)
12   leaf            values: 0, number of words, words, for each its OIDs as runs (csrc/pytypes_oids.c), for each its
                     frequencies
===  ==============  ==================================================================================================

The tree is a keyed tree (:mod:`dbzero.collections.keyed`) of postings, in order of word and OID. A leaf has at most
128 postings: a common word has many leaves, many rare words share one, and a changed text rewrites one small record for
each word that it gained, lost or has another number of times. Frequencies are bytes, 16-bit words if one is above 255,
or nothing if all are 1. Under the empty word stand the lengths of the texts.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

from pyroaring import BitMap64

from dbzero.collections import keyed
from dbzero.collections.keyed import Inner, KeyedNode
from dbzero.collections.nodes import LEAF, Stored, corrupt, create, member, natural, set_data, touch
from dbzero.collections.order import Item
from dbzero.collections.pairs import PairNode
from dbzero.model import base
from dbzero.model.codec import decode_values, encode_values
from dbzero.model.view import View
from dbzero.query.records import KIND

INDEX, NODE = 11, 12
LENGTHS = ""  # the word whose frequencies are the lengths of the texts
MOST = 0xFFFF  # frequencies and lengths above count as that

Posting = tuple[str, int, int]
"""(word, OID, how often); as a change, 0: not any more."""

_item = itemgetter(0, 1)


class Postings:
    """State of a leaf: words, ascending; for each its OIDs, ascending, and frequencies."""

    __slots__ = ("bits", "freqs", "oids", "size", "words")

    def __init__(self, entries: Sequence[Posting]) -> None:
        self.bits: dict[int, BitMap64] = {}  # by place: those that were asked for
        self.words: list[str] = []
        self.oids: list[Any] = []
        self.freqs: list[Any] = []
        self.size = len(entries)
        for word, group in groupby(entries, key=itemgetter(0)):
            _, oids, freqs = zip(*group, strict=True)
            self.words.append(word)
            self.oids.append(array("Q", oids))
            self.freqs.append(array("H", freqs))

    def __len__(self) -> int:
        return self.size

    def bits_of(self, k: int) -> BitMap64:
        """The OIDs of a word. Not to be changed."""
        found = self.bits.get(k)
        if found is None:
            found = self.bits[k] = BitMap64(self.oids[k])
        return found

    def entries(self) -> list[Posting]:
        """All postings, in order."""
        return [
            (word, oid, freq)
            for word, oids, freqs in zip(self.words, self.oids, self.freqs, strict=True)
            for oid, freq in zip(oids, freqs, strict=True)
        ]


class TextNode(PairNode):
    """A node of the tree of postings."""

    __slots__ = ()
    KIND = KIND

    def _p_encode(self) -> tuple[bytes, list[int]]:
        payload, refs = super()._p_encode()
        return bytes((KIND, NODE)) + payload[1:], refs

    def _p_decode(self, payload: bytes) -> None:
        if payload[:2] != bytes((KIND, NODE)):
            raise corrupt(self, f"head {payload[:2].hex()}")
        super()._p_decode(payload[:1] + payload[2:])

    def _p_leaf_values(self, data: Any) -> list[Any]:
        oids = [base.pack_oids(some.tobytes()) for some in data.oids]
        return [len(data.words), *data.words, *oids, *map(_pack, data.freqs)]

    def _p_leaf_state(self, values: list[Any]) -> Any:
        n = natural(self, values[0], 0, LEAF)
        state = Postings(())
        state.words = values[1 : n + 1]
        try:
            if len(values) != 3 * n + 1 or any(type(word) is not str for word in state.words):
                raise ValueError(f"{len(values)} values for {n} words")
            for packed, freqs in zip(values[n + 1 : 2 * n + 1], values[2 * n + 1 :], strict=True):
                oids = array("Q", base.unpack_oids(packed))
                state.oids.append(oids)
                state.freqs.append(_unpack(freqs, len(oids)))
                state.size += len(oids)
        except (ValueError, TypeError, struct.error) as error:
            raise corrupt(self, str(error)) from None
        return state

    def _p_weight(self) -> int:
        """About how many bytes it takes up in memory."""
        data = self._data
        return 300 + 150 * len(data) if type(data) is Inner else 300 + 280 * len(data.words) + 14 * data.size

    def _p_absorb(self, left: Any, right: Any, other: KeyedNode) -> None:
        joined = Postings(left.entries() + right.entries())
        left.words, left.oids, left.freqs, left.size = joined.words, joined.oids, joined.freqs, joined.size
        left.bits.clear()


def _pack(freqs: Any) -> bytes:
    most = max(freqs)
    if most == 1:
        return b""
    return bytes(freqs) if most < 256 else struct.pack(f"<{len(freqs)}H", *freqs)


def _unpack(packed: bytes, n: int) -> Any:
    if not packed:
        return array("H", [1]) * n
    if len(packed) == n:
        return array("H", list(packed))
    return array("H", struct.unpack(f"<{n}H", packed))


class TextState:
    """State of a text index."""

    __slots__ = ("root", "texts", "total")

    def __init__(self, texts: int, total: int, root: TextNode | None) -> None:
        self.texts = texts
        self.total = total
        self.root = root


class TextIndex(Stored):
    """The full-text index of one declared field."""

    __slots__ = ()
    KIND = KIND
    _data: TextState

    def _p_encode(self) -> tuple[bytes, list[int]]:
        state = self._data
        oid = 0 if state.root is None else state.root._p_oid
        return bytes((KIND, INDEX)) + encode_values([state.texts, state.total, oid])[0], [oid] if oid else []

    def _p_decode(self, payload: bytes) -> None:
        values = decode_values(self._p_view, payload[2:]) if payload[:2] == bytes((KIND, INDEX)) else []
        if len(values) != 3:
            raise corrupt(self, f"head {payload[:2].hex()}")
        root = member(self, TextNode, values[2]) if values[2] else None
        set_data(self, TextState(natural(self, values[0]), natural(self, values[1]), root))

    def clear(self) -> None:
        """Remove everything. Inside an operation."""
        self._p_changed()
        set_data(self, TextState(0, 0, None))

    def change(self, changes: list[Posting]) -> None:
        """Add, replace and remove postings, in ascending order; each pair of word and OID at most once. Inside an
        operation."""
        if not changes:
            return
        state = touch(self)
        root: TextNode | None = state.root
        at = 0
        while at < len(changes):
            if root is None:
                fresh = [entry for entry in changes[at:] if entry[2]]
                if fresh:
                    pieces = [fresh[i : i + LEAF] for i in range(0, len(fresh), LEAF)]
                    leaves: Any = [(_item(piece[0]), Postings(piece)) for piece in pieces]
                    root = keyed.build(self._p_view, TextNode, leaves)
                break
            path, leaf = keyed.find_path(root, _item(changes[at]))
            high = _high(path)
            end = len(changes) if high is None else bisect_left(changes, high, at, key=_item)
            root = self._change_leaf(root, path, leaf, changes[at:end], high is None)
            at = end
        state.root = root

    def _change_leaf(
        self, root: TextNode, path: keyed.Path, leaf: TextNode, changes: list[Posting], last: bool
    ) -> TextNode | None:
        view: View = self._p_view
        before = leaf._data.entries()
        merged = {(word, oid): freq for word, oid, freq in before}
        for word, oid, freq in changes:
            if freq:
                merged[word, oid] = freq
            else:
                merged.pop((word, oid), None)
        entries = [(word, oid, freq) for (word, oid), freq in sorted(merged.items())]
        if entries == before:
            return root
        touch(leaf)
        size = LEAF
        if len(entries) > LEAF and not (last and before and _item(changes[0]) > _item(before[-1])):
            size = -(-len(entries) // -(-len(entries) * 4 // (LEAF * 3)))
        pieces = [entries[i : i + size] for i in range(0, len(entries), size)] or [[]]
        set_data(leaf, Postings(pieces[0]))
        if len(pieces) == 1:
            return keyed.shrunk(root, path, leaf) if len(entries) < len(before) else root
        for left, piece in pairwise(pieces):
            path, _ = keyed.find_path(root, _item(left[-1]))
            root = keyed.attach(view, root, path, create(view, TextNode, Postings(piece)), _item(piece[0]))
        return root

    def add_texts(self, number: int, words: int) -> None:
        """There are so many texts and words more. Inside an operation."""
        state = touch(self)
        state.texts += number
        state.total += words

    def postings(self, word: str, prefix: bool = False) -> Iterator[tuple[Postings, int]]:
        """(leaf, place in it) of a word, or of all words that begin with it, leaf by leaf. Inside an operation."""
        root = self._data.root
        for leaf in () if root is None else keyed.leaves(root, (word, 0)):
            data = leaf._data
            for k in range(bisect_left(data.words, word), len(data.words)):
                found = data.words[k]
                if not (found.startswith(word) if prefix else found == word):
                    return
                yield data, k

    def check(self) -> dict[tuple[str, int], int]:
        """Verify the structure; AssertionError tells what is wrong. Returns all postings."""
        found: dict[tuple[str, int], int] = {}
        state = self._data

        def items_of(data: Any) -> list[Item]:
            assert type(data) is Postings and 0 < len(data) <= LEAF, "a leaf of a wrong size"
            entries = data.entries()
            assert len(entries) == data.size, "wrong size"
            found.update({(word, oid): freq for word, oid, freq in entries})
            return [(word, oid) for word, oid, _ in entries]

        if state.root is not None:
            items = keyed.check(state.root, items_of)
            assert all(a < b for a, b in pairwise(items)), "postings out of order"
        lengths = [freq for (word, _), freq in found.items() if word == LENGTHS]
        assert state.texts == len(lengths), "wrong number of texts"
        assert state.total == sum(lengths), "wrong number of words"
        return found


def _high(path: keyed.Path) -> Item | None:
    """The upper bound of the leaf at the end of a path."""
    for node, k in reversed(path):
        marks = node._data.marks
        if k + 1 < len(marks):
            found: Item = marks[k + 1]
            return found
    return None


def new_text_index(view: View) -> TextIndex:
    """A text index without texts. Inside an operation."""
    return create(view, TextIndex, TextState(0, 0, None))
