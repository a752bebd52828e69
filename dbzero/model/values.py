"""What an assignment stores."""

from __future__ import annotations

import datetime as dt
import threading
import zoneinfo
from typing import TYPE_CHECKING, Any

from dbzero.errors import ClosedError, Error, ReferenceError, UnsupportedTypeError
from dbzero.model import base, kinds
from dbzero.model.codec import ATOMS, EXTENDED

if TYPE_CHECKING:
    from dbzero.model.view import View


class _Building(threading.local):
    """Whether this thread is inside the making of a collection that nobody else has seen."""

    depth = 0


_building = _Building()


def convert(view: View, value: Any) -> Any:
    """What storing `value` in an object of `view` stores.

    Atoms and other immutable values stay as they are, builtin list, tuple, dict and set become new persistent
    collections of that view (deeply), objects of the same view stay themselves.

    Raises:
        UnsupportedTypeError: values of that type cannot be stored, or the object belongs to another prefix.
        ReferenceError, ClosedError: the object was deleted, or its prefix closed.
        Error: the object is under construction.
    """
    kind = type(value)
    if kind in ATOMS:
        return value
    if isinstance(value, base.Persistent):
        return _convert_object(view, value, _building.depth > 0)
    builder = kinds.builders.get(kind)
    if builder is not None:
        _building.depth += 1
        try:
            return builder(view, value)
        finally:
            _building.depth -= 1
    bind = kinds.binders.get(kind)
    if bind is not None:
        return bind(view, value)
    if kind in EXTENDED:
        if kind in (dt.datetime, dt.time) and value.tzinfo is not None:
            return _settle_zone(value)
        return value
    raise UnsupportedTypeError(
        f"Unsupported attribute type: a value of type {kind.__module__}.{kind.__qualname__} cannot be stored in "
        f"prefix {view.name!r}; "
        "store atoms, dates, Decimal, list, tuple, dict, set or memo objects"
    )


def convert_attribute(view: View, value: Any) -> Any:
    """:func:`convert` for an attribute: an object under construction may be assigned too."""
    if isinstance(value, base.Persistent):
        return _convert_object(view, value, True)
    return convert(view, value)


def _convert_object(view: View, value: Any, unfinished: bool) -> Any:
    flags = value._p_flags
    if flags & base.EXPIRED:
        raise ReferenceError("Memo instance expired: a deleted object cannot be stored")
    if flags & base.CLOSED:
        raise ClosedError("Object is no longer accessible: its prefix is closed")
    if value._p_view is view:
        if flags & base.INIT and not unfinished and not flags & base.MATERIALIZED:
            raise Error(
                "Object instance does not exist yet (did you forget to use db0.materialized(self) in constructor ?)"
            )
        return value
    harden = getattr(type(value), "_p_harden", None)
    if harden is not None:
        return harden(value, view)
    name = None if value._p_view is None else value._p_view.name
    raise UnsupportedTypeError(
        f"an object of prefix {name!r} cannot be stored in prefix {view.name!r}: references between prefixes "
        f"are not supported; store db0.uuid(obj) instead"
    )


def _settle_zone(value: Any) -> Any:
    zone = value.tzinfo
    if type(zone) is zoneinfo.ZoneInfo and zone.key is not None:
        return value
    if type(zone) is dt.timezone:
        return value
    offset = value.utcoffset()
    if offset is None:
        raise UnsupportedTypeError(
            f"a {type(value).__name__} whose time zone has no offset cannot be stored: use zoneinfo.ZoneInfo or "
            f"datetime.timezone"
        )
    name = value.tzname()
    return value.replace(tzinfo=dt.timezone(offset) if name is None else dt.timezone(offset, name))
