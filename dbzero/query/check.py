"""Checking the inverted index of a prefix against its objects."""

from __future__ import annotations

from collections.abc import Iterator

from pyroaring import BitMap64

from dbzero.errors import CorruptError
from dbzero.model import kinds
from dbzero.model.base import operation
from dbzero.model.catalog import ENUM, NO_DEFAULT_TAGS
from dbzero.model.codec import read_varint
from dbzero.model.view import View
from dbzero.query.records import check_names, check_tree, names
from dbzero.query.tagindex import flushed


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
        for key, tree in names(dictionary):
            tagged = check_tree(tree, True)
            if tagged - everything:
                yield f"{where}: {list(tagged - everything)[:5]} have tag {key!r} and do not exist"
            if index.members(key) != tagged:
                yield f"{where}: the bitmap of tag {key!r} is not what is stored"
    except (AssertionError, CorruptError) as error:
        yield f"{where}: tag index: {error}"
