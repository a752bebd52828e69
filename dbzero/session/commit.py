"""One commit: from the dirty set of a view to a durable state of its prefix.

Encoding runs under the operation lock, so that a commit holds whole operations and nothing of a later one. Appending, publishing and syncing
run without it: the process goes on working while the disk does.
"""

from __future__ import annotations

import time
from typing import Any

from dbzero.errors import ReadOnlyError
from dbzero.model.base import NEW, operation
from dbzero.model.view import View
from dbzero.runtime.batch import Batch
from dbzero.storage.prefix import DeltaRoomMade, Prefix

# References to an instance that this file itself holds while it asks whether anyone else does: the list of taken objects.
_OWN_REFERENCES = 1
_MANY = 8  # objects worth the trouble of encoding them together


def commit_view(view: View, prefix: Prefix) -> bool:
    """Commit what is pending in `view`. Returns whether a new state was made.

    Raises StorageError and its kin; then everything that was pending still is.
    """
    if not prefix.writable:
        raise ReadOnlyError(f"Cannot modify read-only prefix: {prefix.name}")
    while True:
        try:
            return _commit_once(view, prefix)
        except DeltaRoomMade:
            continue


def _commit_once(view: View, prefix: Prefix) -> bool:
    taken: list[Any] = []
    orphans: list[int] = []
    with operation:
        view.raise_autocommit_error()
        if not view.has_changes():
            return False
        view.flush()
        batch = prefix.begin()
        try:
            orphans = view.dead_orphans()
            _encode(view, batch, taken)
            deleted = _collect(view, batch, orphans, taken)
            if not batch.records:
                batch.close()
                view.settle_all()
                return False
            prefix.seal(batch, time.time_ns() // 1000)
        except BaseException:
            batch.close()
            _restore(view, taken, orphans)
            raise
    try:
        state = prefix.commit(batch)
    except BaseException:
        with operation:
            _restore(view, taken, orphans)
        raise
    finally:
        batch.close()
    with operation:
        view.advance(state)
        prefix.pin(state)
        for oid in deleted:
            gone = view.peek(oid)
            if gone is not None:
                view.expire(gone)
    prefix.raise_interrupt()
    # What was new is clean from here on. It was never loaded, so no load has made room for it.
    if 0 < view.limit < view.weight:
        view.evict(view.limit - view.limit // 8)
    return True


def _restore(view: View, taken: list[Any], orphans: list[int]) -> None:
    view.put_back(taken)
    view.add_dead_orphans(orphans)


def _encode(view: View, batch: Batch, taken: list[Any]) -> None:
    # Encoding an object may dirty its class record (a new shape), so go on until nothing is left.
    while fresh := view.take_dirty():
        taken.extend(fresh)
        if len(fresh) >= _MANY:
            fresh, *packed = view.encode_ordinary(fresh)
            batch.put_packed(*packed)
            batch.put_many((obj._p_oid, *obj._p_encode()) for obj in fresh)
        else:
            for obj in fresh:
                batch.put(obj._p_oid, *obj._p_encode())
        del fresh


def _collect(view: View, batch: Batch, orphans: list[int], taken: list[Any]) -> list[int]:
    """Delete what nothing refers to, neither stored nor in Python; the rest of it becomes orphans, looked at again when their wrapper dies.

    Returns the OIDs of what was deleted.
    """
    deleted: list[int] = []
    for oid in orphans:
        if view.peek(oid) is None and batch.refcount(oid) == 0:
            batch.delete(oid)
            deleted.append(oid)
    places: dict[int, int] = {}  # of what is in `taken`
    while zero := batch.zero():
        places = places or {obj._p_oid: place for place, obj in enumerate(taken)}
        for oid in zero:
            place = places.get(oid)
            if view.held(oid, 0 if place is None else _OWN_REFERENCES):
                view.mark_orphan(oid)
                continue
            batch.delete(oid)
            deleted.append(oid)
            if place is not None and taken[place]._p_flags & NEW:
                # Nobody can reach it, should the commit fail or not. It lets go of what only it held, which goes as well.
                view.expire(taken[place])
                taken[place] = None
    if deleted:
        taken[:] = [obj for obj in taken if obj is not None]
    return deleted
