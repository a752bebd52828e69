"""Deleting an object at once, instead of leaving it to the commit after its last reference went."""

from __future__ import annotations

from collections import Counter
from typing import Any

from dbzero.errors import ClosedError, Error
from dbzero.model import base, weak
from dbzero.model.base import Persistent, operation
from dbzero.model.memo import MemoObject, class_info
from dbzero.model.view import View
from dbzero.session.workspace import active


def delete(obj: Any, /) -> None:
    """Delete a memo object now: from here on it neither exists nor can it be used.

    What only it referred to, and Python does not hold, goes with it. A collection goes when its last Python reference
    does; deleting one only checks that it may. Values that are no stored objects are ignored.

    Args:
        obj: a memo object, or a weak proxy of one.

    Raises:
        Error: something stored refers to it (a singleton's class does not count), it was deleted before, or its
        construction is not finished. ReadOnlyError: its prefix is read-only. ClosedError: its prefix was closed.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Draft:
    ...     pass
    >>> draft = Draft()
    >>> identity = db0.uuid(draft)
    >>> db0.delete(draft)
    >>> db0.exists(identity)
    False
    >>> db0.close()
    """
    active()
    if isinstance(obj, weak.WeakProxy):
        obj = weak.target_of(obj)
    if not isinstance(obj, Persistent):
        return
    flags = obj._p_flags
    if flags & base.EXPIRED:
        raise Error("Object is no longer accessible: it was deleted before")
    if flags & base.CLOSED:
        raise ClosedError("Object is no longer accessible: its prefix is closed")
    if flags & base.INIT:
        raise Error("Cannot delete a memo object whose construction is not finished")
    view: View = obj._p_view
    if not view.writable:
        view._refuse_write()
    with operation:
        view.begin_changes()
        counts = pending_counts(view)
        info = class_info(type(obj))
        single = info is not None and info.singleton and view.singleton(type(obj)) is obj
        if _count(view, counts, obj._p_oid) > (1 if single else 0):
            raise Error(
                "Cannot delete a memo object with references: remove it from what refers to it first "
                f"(db0.getrefcount() tells how many there are), prefix {view.name!r}"
            )
        if not isinstance(obj, MemoObject):
            return
        obj._p_activate()
        if single:
            view.set_singleton(type(obj), None)
        _drop_all(view, counts, obj)


def pending_counts(view: View) -> Counter[int]:
    """Differences that uncommitted changes make to stored reference counts, by OID."""
    view.flush()
    counts: Counter[int] = Counter()
    for dirty in view.objects():
        if dirty._p_flags & base.DIRTY:
            counts.update(dirty._p_encode()[1])
            counts.subtract(view.records.references(dirty._p_oid, view.state))
    for gone in view.deleted:
        counts.subtract(view.records.references(gone, view.state))
    return counts


def _count(view: View, counts: Counter[int], oid: int) -> int:
    return view.records.refcount(oid, view.state) + counts[oid]


def _drop_all(view: View, counts: Counter[int], obj: Any) -> None:
    """Drop `obj`, then what nothing holds any more, and so on."""
    waiting = set(_drop(view, counts, obj._p_oid, obj))
    while waiting:
        oid = waiting.pop()
        child = view.peek(oid)
        if _count(view, counts, oid) > 0:
            continue
        if child is None:
            if oid not in view.deleted:
                waiting.update(_drop(view, counts, oid, None))
        # Held by `child` here, and by the list of what a commit has to write.
        elif not view.held(oid, 2 if child._p_flags & base.DIRTY else 1):
            waiting.update(_drop(view, counts, oid, child))


def _drop(view: View, counts: Counter[int], oid: int, obj: Any) -> list[int]:
    """Make one object vanish; returns what it referred to."""
    refs = list(view.records.references(oid, view.state))
    view.forget([oid])
    if obj is not None:
        if not obj._p_flags & base.GHOST:
            refs = obj._p_encode()[1]
        view.expire(obj)
    view.deleted.add(oid)
    view.mark_orphan(oid)  # its wrapper has left the map, so this has the next commit delete it
    counts.subtract(refs)
    return refs
