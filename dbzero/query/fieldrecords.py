"""Stored records of declared fields: kind 0, told apart from those of the tag index by the byte behind it.

===  ==============  ==================================================================================================
sub  record          after the two bytes
===  ==============  ==================================================================================================
8    root (OID 4)    values: number of fields; of each in turn: OID of the class that owns it, sort, name, OID of its index or 0
9    field index     values: as of an index (:mod:`dbzero.collections.index`)
10   node of one     values: as of a node of an index, with OIDs in place of objects
===  ==============  ==================================================================================================

Those of full-text indexes are in :mod:`dbzero.query.textrecords`.

What they say of objects is no reference: an object is not kept by what its fields say. The values of tag fields stand
in the dictionary of tags under keys of their own (:func:`dbzero.query.records.passive_key`), in plain posting trees.
"""

from __future__ import annotations

from typing import Any

from dbzero.collections.index import Index, State
from dbzero.collections.nodes import Stored, corrupt, create, member, natural, set_data
from dbzero.collections.order import place
from dbzero.collections.pairs import PairNode, Pairs
from dbzero.model import kinds
from dbzero.model.codec import decode_values, encode_values
from dbzero.model.declared import MARKS, TEXT
from dbzero.model.memo import MemoObject
from dbzero.model.view import View
from dbzero.query.records import KIND
from dbzero.query.textrecords import TextIndex

ROOT_OID = kinds.FIELD_ROOT_OID
ROOT, INDEX, NODE = 8, 9, 10

Field = tuple[int, str, str]
"""A field as it is stored: OID of the class that owns it, sort, name."""


def _outer(payload: bytes, sub: int) -> bytes:
    return bytes((KIND, sub)) + payload[1:]


def _inner(node: Stored, payload: bytes, sub: int) -> bytes:
    if payload[:2] != bytes((KIND, sub)):
        raise corrupt(node, f"head {payload[:2].hex()}")
    return payload[:1] + payload[2:]


class FieldRoot(Stored):
    """The root: which fields are followed, and their indexes."""

    __slots__ = ()
    KIND = KIND
    _data: dict[Field, Any]

    def _p_encode(self) -> tuple[bytes, list[int]]:
        values: list[Any] = [len(self._data)]
        for (code, sort, name), index in self._data.items():
            values += [code, sort, name, 0 if index is None else index._p_oid]
        refs = [index._p_oid for index in self._data.values() if index is not None]
        return bytes((KIND, ROOT)) + encode_values(values)[0], refs

    def _p_decode(self, payload: bytes) -> None:
        values = decode_values(self._p_view, _inner(self, payload, ROOT)[1:])
        n = natural(self, values[0] if values else None)
        if len(values) != 4 * n + 1:
            raise corrupt(self, f"{len(values)} values for {n} fields")
        state: dict[Field, Any] = {}
        for at in range(1, len(values), 4):
            code, sort, name, oid = values[at : at + 4]
            if sort not in MARKS or type(name) is not str:
                raise corrupt(self, f"field {name!r} of sort {sort!r}")
            kind: Any = TextIndex if sort == TEXT else FieldIndex
            state[natural(self, code, kinds.FIRST_OID), sort, name] = member(self, kind, oid) if oid else None
        set_data(self, state)


class FieldNode(PairNode):
    """A node of a field index: it has OIDs in place of objects."""

    __slots__ = ()
    KIND = KIND

    def _p_encode(self) -> tuple[bytes, list[int]]:
        payload, refs = super()._p_encode()
        return _outer(payload, NODE), refs

    def _p_decode(self, payload: bytes) -> None:
        super()._p_decode(_inner(self, payload, NODE))

    def _p_leaf_state(self, values: list[Any]) -> Pairs:
        n = natural(self, values[0], 0, 1 << 20)
        if len(values) not in (2 * n + 1, 3 * n + 1):
            raise corrupt(self, f"{len(values)} values for {n} entries")
        oids = [natural(self, oid, kinds.FIRST_OID) for oid in values[n + 1 : 2 * n + 1]]
        items = list(zip(values[1 : n + 1], oids, strict=True))
        self._p_ordered(items)
        return Pairs(items, values[2 * n + 1 :] or None, oids)


class FieldIndex(Index):
    """The index of one declared field. It has OIDs in place of objects and is changed by the library only."""

    __slots__ = ()
    KIND = KIND
    _p_node = FieldNode

    def _p_encode(self) -> tuple[bytes, list[int]]:
        payload, refs = super()._p_encode()
        return _outer(payload, INDEX), refs

    def _p_decode(self, payload: bytes) -> None:
        super()._p_decode(_inner(self, payload, INDEX))

    def _p_put(self, key: Any, oid: int) -> None:
        """Add an entry. Inside an operation."""
        family, rank, key = ("", 0, None) if key is None else place(self._p_view, key)
        self._p_enter(family, (rank, oid), key, oid)

    def _p_take(self, key: Any, oid: int) -> None:
        """Remove an entry. Inside an operation."""
        nulls = key is None
        family, rank, _ = ("", 0, None) if nulls else place(self._p_view, key)
        if nulls or family == self._data.family:
            self._p_leave((rank, oid), nulls, oid)

    def _p_objects(self, held: list[Any]) -> list[Any]:
        view: View = self._p_view
        found = [view.get(oid) for oid in held]
        return [obj for obj in found if isinstance(obj, MemoObject)]


def new_index(view: View) -> FieldIndex:
    """An index without entries. Inside an operation."""
    return create(view, FieldIndex, State())


def make_root(view: View) -> FieldRoot:
    """The root of a prefix's declared fields, which has none yet. Inside an operation."""
    root = FieldRoot.__new__(FieldRoot)
    set_data(root, {})
    view.adopt(root, ROOT_OID)
    return root
