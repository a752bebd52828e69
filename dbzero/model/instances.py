"""The instances of a class, by a walk over all objects of a prefix.

Object numbers are dense and never used again, so the walk is a loop over numbers: right at every state, and nothing has
to be kept for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dbzero.model import base, kinds
from dbzero.model.base import operation
from dbzero.model.codec import read_varint
from dbzero.model.memo import MemoObject
from dbzero.model.view import View


def enter_classes(view: View) -> None:
    """Enter the classes of all pending objects in the catalogue, where a commit would enter them."""
    with operation:
        for obj in view.objects():
            if isinstance(obj, MemoObject) and obj._p_flags & base.DIRTY:
                view.class_code(obj)


def class_oids(view: View, oid: int) -> set[int]:
    """OIDs of a class's record and of those of all classes derived from it."""
    catalogue = view.catalogue
    below = {oid}
    records = [] if catalogue is None else [view.class_record(one) for _, one in catalogue.items()]
    grown = True
    while grown:
        grown = False
        for record in records:
            if record._p_oid not in below and not below.isdisjoint(record.data.bases):
                below.add(record._p_oid)
                grown = True
    return below


def instances(view: View, oid: int, *, derived: bool = True) -> Iterator[Any]:
    """The live instances of a class, oldest first, those not committed yet included.

    Args:
        view: where to look. oid: of the class's record. derived: instances of derived classes too.

    Objects made or deleted meanwhile may or may not be among them.
    """
    wanted = class_oids(view, oid) if derived else {oid}
    for number in range(kinds.FIRST_OID, view.records.oid_limit()):
        obj = view.peek(number)
        if obj is None or obj._p_flags & base.GHOST:
            found = view.records.read(number, view.state)
            if found is None or found[0][:1] != bytes((kinds.MEMO,)):
                continue
            try:
                code, _ = read_varint(found[0], 1)
            except ValueError as error:
                raise view.corrupt(number, error) from None
            if code not in wanted:
                continue
            obj = view.get(number)
            if obj is not None:
                yield obj
        elif (
            isinstance(obj, MemoObject)
            and not obj._p_flags & (base.EXPIRED | base.INIT)
            and view.class_code(obj) in wanted
        ):
            yield obj
