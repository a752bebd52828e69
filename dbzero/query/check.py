"""Checking the inverted index of a prefix against its objects."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import Any

from pyroaring import BitMap64

from dbzero.errors import CorruptError
from dbzero.model import kinds
from dbzero.model.base import operation
from dbzero.model.catalog import ENUM, NO_DEFAULT_TAGS
from dbzero.model.codec import read_varint
from dbzero.model.declared import INDEXED, TAG, TEXT
from dbzero.model.view import View
from dbzero.query.fieldrecords import Field
from dbzero.query.fields import Changes, Values, stored_values
from dbzero.query.records import check_names, check_tree, is_counted, names
from dbzero.query.tagindex import flushed
from dbzero.query.textrecords import LENGTHS, MOST
from dbzero.query.words import frequencies


def check_index(view: View) -> list[str]:
    """Everything that the index of a prefix says, against the objects there are at the view's state.

    Reads the head of every object's record. Call it with nothing pending.

    Returns:
        What is wrong, as sentences; an empty list means sound.
    """
    with operation:
        return list(_problems(view))


def _problems(view: View) -> Iterator[str]:
    where = f"prefix {view.name!r}, state {view.state}"
    objects: dict[int, BitMap64] = {}
    for oid in range(kinds.FIRST_OID, view.records.oid_limit()):
        found = view.records.read(oid, view.state)
        if found is not None and found[0][:1] == bytes((kinds.MEMO,)):
            objects.setdefault(read_varint(found[0], 1)[0], BitMap64()).add(oid)
    index = flushed(view)
    root = index.root()
    classes = {} if root is None else root._data.classes
    try:
        members = {code: check_tree(tree, False) for code, tree in classes.items()}
        for code in sorted(objects.keys() | members.keys()):
            data = view.class_record(code).data
            should, does = objects.get(code, BitMap64()), members.get(code, BitMap64())
            if data.flags & ENUM:
                yield f"{where}: objects of enum {data.key!r}"
            if does - should:
                yield f"{where}: {list(does - should)[:5]} are listed as {data.key!r} and are not"
            if not data.flags & NO_DEFAULT_TAGS and should - does:
                yield f"{where}: {list(should - does)[:5]} are not listed as {data.key!r}"
            if index.members(code) != does:
                yield f"{where}: the bitmap of class {data.key!r} is not what is stored"
        dictionary = None if root is None else root._data.names
        if dictionary is not None:
            check_names(dictionary)
        everything = BitMap64.union(BitMap64(), *objects.values())
        passive = _passive(view, objects)
        for key, tree in names(dictionary):
            tagged = check_tree(tree, is_counted(key))
            if not is_counted(key) and passive.pop(key, BitMap64()) != tagged:  # type: ignore[arg-type]
                yield f"{where}: the objects that have tag {key!r} by a field are not those that have that value"
            if tagged - everything:
                yield f"{where}: {list(tagged - everything)[:5]} have tag {key!r} and do not exist"
            if index.members(key) != tagged:
                yield f"{where}: the bitmap of tag {key!r} is not what is stored"
        for key in passive:
            yield f"{where}: no object has tag {key!r}, which a field gives"
    except (AssertionError, CorruptError) as error:
        yield f"{where}: tag index: {error}"
    try:
        yield from _field_problems(view, objects, where)
    except (AssertionError, CorruptError) as error:
        yield f"{where}: declared fields: {error}"


def _values(view: View, objects: dict[int, BitMap64], sort: str) -> Iterator[tuple[int, list[Field], Values]]:
    """(OID, followed fields of one sort, stored attributes) of every object that has such fields."""
    for code, oids in objects.items():
        fields = [field for field in view.fields.fields_of(code) if field[1] == sort]
        for oid in oids if fields else ():
            found = view.records.read(oid, view.state)
            if found is not None:
                yield oid, fields, stored_values(view, oid, found[0])


def _passive(view: View, objects: dict[int, BitMap64]) -> dict[bytes, BitMap64]:
    """Which objects must have which tags by their fields."""
    changes = Changes(view.fields)
    for oid, fields, values in _values(view, objects, TAG):
        changes.change(oid, fields, {}, values)
    return {key: BitMap64(added) for key, (added, _) in changes.tags.items()}


def _field_problems(view: View, objects: dict[int, BitMap64], where: str) -> Iterator[str]:
    """The indexes of declared fields against the stored values."""
    root = view.fields.root()
    should: dict[Field, list[tuple[int, Any]]] = {}
    for oid, fields, values in _values(view, objects, INDEXED):
        for field in fields:
            if field[2] in values:
                should.setdefault(field, []).append((oid, values[field[2]]))
    for field, index in {} if root is None else root._data.items():
        if field[1] != INDEXED:
            continue
        index._check()
        found = [
            (oid, key)
            for _, keys, oids in index._p_batches(None, None, False)
            for oid, key in zip(oids, keys, strict=True)
        ]
        if sorted(found, key=itemgetter(0)) != sorted(should.get(field, ()), key=itemgetter(0)):
            yield f"{where}: the index of field {field[2]!r} of class {field[0]} is not what the objects have"
    texts: dict[Field, dict[tuple[str, int], int]] = {}
    for oid, fields, values in _values(view, objects, TEXT):
        for field in fields:
            counts = frequencies(values.get(field[2]))
            some = texts.setdefault(field, {})
            some.update({(word, oid): min(n, MOST) for word, n in counts.items()})
            if counts:
                some[LENGTHS, oid] = min(sum(counts.values()), MOST)
    for field, index in {} if root is None else root._data.items():
        if field[1] == TEXT and index.check() != texts.get(field, {}):
            yield f"{where}: the words of field {field[2]!r} of class {field[0]} are not those of the texts"
