"""What an assignment stores."""

from __future__ import annotations

import datetime as dt
import threading
import zoneinfo
from typing import TYPE_CHECKING, Any

from dbzero.errors import BadPrefixError, ClosedError, Error, ExpiredError, UnsupportedTypeError
from dbzero.model import arrays, base, deferred, kinds, memo, named, weak
from dbzero.model.codec import ATOMS, EXTENDED
from dbzero.model.versions import live_version

if TYPE_CHECKING:
    from dbzero.model.view import View


class _Building(threading.local):
    """Whether this thread is inside the making of a collection that nobody else has seen."""

    depth = 0


_building = _Building()

REGISTERED = (arrays, named, weak)
"""What knows the values that are made when they are read."""


def convert(view: View, value: Any) -> Any:
    """What storing `value` in an object of `view` stores.

    Atoms and other immutable values stay as they are, builtin list, tuple, dict and set become new persistent
    collections of that view (deeply), objects of the same view stay themselves, memo objects of another prefix become
    weak references.

    Raises:
        UnsupportedTypeError: values of that type cannot be stored.
        BadPrefixError: the collection belongs to another prefix and cannot be moved, or the object to a snapshot.
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
    return deferred.admit(view, value)


def convert_attribute(view: View, value: Any) -> Any:
    """:func:`convert` for an attribute: an object under construction may be assigned too."""
    if isinstance(value, base.Persistent):
        return _convert_object(view, value, True)
    return convert(view, value)


def _convert_object(view: View, value: Any, unfinished: bool) -> Any:
    flags = value._p_flags
    if flags & base.EXPIRED:
        raise ExpiredError("Object is no longer accessible: a deleted object cannot be stored")
    if flags & base.CLOSED:
        raise ClosedError("Object is no longer accessible: its prefix is closed")
    if value._p_view is view:
        if flags & base.INIT and not unfinished and not flags & base.MATERIALIZED:
            raise Error(
                "Object instance does not exist yet (did you forget to use db0.materialized(self) in constructor ?)"
            )
        return value
    if value._p_view is not None and value._p_view.frozen:
        if not isinstance(value, memo.MemoObject):
            raise BadPrefixError(
                f"a {type(value).__name__} of a snapshot of prefix {value._p_view.name!r} cannot be stored: store a copy"
            )
        return _convert_object(view, live_version(value), unfinished)
    harden = getattr(type(value), "_p_harden", None)
    if harden is not None:
        return harden(value, view)
    home = value._p_view
    if isinstance(value, memo.MemoObject) and home is not None and home.records.uuid != view.records.uuid:
        return weak.reference_to(view, value)
    name = None if home is None else home.name
    raise BadPrefixError(
        f"a {type(value).__name__} of another view of prefix {name!r} cannot be stored in prefix {view.name!r}; "
        f"fetch the object itself and store that"
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
