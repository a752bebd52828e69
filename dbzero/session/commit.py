"""One commit: from the dirty set of a view to a durable state of its prefix.

Encoding runs under the operation lock, so that a commit holds whole operations and nothing of a later one. Appending, publishing and syncing
run without it: the process goes on working while the disk does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from dbzero.errors import ReadOnlyError
from dbzero.model.base import NEW, operation
from dbzero.model.view import View
from dbzero.runtime.batch import Batch
from dbzero.storage.committing import DeltaRoomMade
from dbzero.storage.prefix import Prefix
from dbzero.storage.sharing import Published, SharedPrefix

# References to an instance that this file itself holds while it asks whether anyone else does: the list of taken objects.
_OWN_REFERENCES = 1
_MANY = 8  # objects worth the trouble of encoding them together


def commit_view(
    view: View,
    prefix: Prefix,
    unless: Callable[[], object] | None = None,
    taken: Callable[[], None] | None = None,
    publish: Callable[[Published], object] | None = None,
) -> bool:
    """Commit what is pending in `view`. Returns whether a new state was made.

    Under the operation lock `unless` is asked whether to do nothing, and `taken` is told that the commit has all that
    is pending. `publish`, for a shared prefix in its turn, is told of the commit, which is published then and not durable yet.

    Raises StorageError and its kin; then everything that was pending still is.
    """
    if not prefix.writable:
        raise ReadOnlyError(f"Cannot modify read-only prefix: {prefix.name}")
    while True:
        try:
            return _commit_once(view, prefix, unless, taken, publish)
        except DeltaRoomMade:
            continue


def _commit_once(
    view: View,
    prefix: Prefix,
    unless: Callable[[], object] | None,
    all_taken: Callable[[], None] | None,
    publish: Callable[[Published], object] | None,
) -> bool:
    with operation:
        view.raise_autocommit_error()
        if unless is not None and unless():
            return False
        pending = take(view, prefix)
        if pending is None:
            return False
        try:
            prefix.seal(pending.batch, time.time_ns() // 1000)
            if all_taken is not None:
                all_taken()
        except BaseException:
            pending.put_back()
            raise
    try:
        if publish is None:
            state = prefix.commit(pending.batch)
        else:
            assert isinstance(prefix, SharedPrefix)
            made = prefix.publish(pending.batch)
            state = made.state
            publish(made)
    except BaseException:
        pending.put_back()
        raise
    finally:
        pending.batch.close()
    pending.settle(state)
    prefix.raise_interrupt()
    pending.make_room()
    return True


class Pending:
    """What a commit has taken out of a view's dirty set, encoded into a batch: to be settled or put back."""

    def __init__(self, view: View, prefix: Prefix) -> None:
        self.view = view
        self.prefix = prefix
        self.batch = prefix.begin()
        self.taken: list[Any] = []
        self.orphans: list[int] = []
        self.deleted: list[int] = []
        self.undo: list[Callable[[], None]] = []

    def put_back(self) -> None:
        """The commit came to nothing: everything is pending again."""
        self.batch.close()
        with operation:
            restore(self.view, self.taken, self.orphans, self.undo)

    def settle(self, state: int) -> None:
        """The commit was made, as `state`."""
        view = self.view
        with operation:
            view.advance(state)
            self.prefix.pin(state)
            for oid in self.deleted:
                gone = view.peek(oid)
                if gone is not None:
                    view.expire(gone)

    def make_room(self) -> None:
        """What was new is clean from here on. It was never loaded, so no load has made room for it."""
        view = self.view
        if 0 < view.limit < view.weight:
            view.evict(view.limit - view.limit // 8)


def take(view: View, prefix: Prefix) -> Pending | None:
    """Take what is pending in a view into a batch that is not sealed yet; None when there is nothing. Under the operation lock."""
    if not view.has_changes():
        return None
    view.flush()
    pending = Pending(view, prefix)
    try:
        pending.orphans = view.dead_orphans()
        encode(view, pending.batch, pending.taken)
        pending.deleted = collect(view, pending.batch, pending.orphans, pending.taken, pending.undo)
        if pending.batch.records:
            return pending
        pending.batch.close()
        view.settle_all()
        return None
    except BaseException:
        pending.put_back()
        raise


def restore(view: View, taken: list[Any], orphans: list[int], undo: list[Callable[[], None]]) -> None:
    view.put_back([obj for obj in taken if obj is not None])
    view.add_dead_orphans(orphans)
    for put_back in undo:
        put_back()


def encode(view: View, batch: Batch, taken: list[Any]) -> None:
    # Encoding an object may dirty its class record (a new shape), so go on until nothing is left.
    while view.dirty_count and (fresh := view.take_dirty()):
        taken.extend(fresh)
        if len(fresh) >= _MANY:
            fresh, *packed = view.encode_ordinary(fresh)
            batch.put_packed(*packed)
            batch.put_many((obj._p_oid, *obj._p_encode()) for obj in fresh)
        else:
            for obj in fresh:
                batch.put(obj._p_oid, *obj._p_encode())
        del fresh


def collect(
    view: View, batch: Batch, orphans: list[int], taken: list[Any], undo: list[Callable[[], None]]
) -> list[int]:
    """Delete what nothing refers to, neither stored nor in Python; the rest of it becomes orphans, looked at again when
    their wrapper dies. What is kept beside the deleted objects goes in the same commit; `undo` gets what puts it back.

    Returns the OIDs of what was deleted.
    """
    deleted: list[int] = []
    for oid in orphans:
        if view.peek(oid) is None and batch.refcount(oid) == 0:
            batch.delete(oid)
            deleted.append(oid)
    waiting: list[int] = []  # without references, but with a wrapper that somebody holds
    settled = 0
    while True:
        places: dict[int, int] = {}  # of what is in `taken`
        while zero := batch.zero():
            places = places or {obj._p_oid: place for place, obj in enumerate(taken) if obj is not None}
            for oid in zero:
                if view.held(oid, _OWN_REFERENCES if oid in places else 0):
                    waiting.append(oid)
                else:
                    batch.delete(oid)
                    deleted.append(oid)
        if settled == len(deleted):
            break
        fresh = deleted[settled:]
        settled = len(deleted)
        garbage = [oid for oid in fresh if oid in places and taken[places[oid]]._p_flags & NEW]
        undo += view.forget(sorted(set(fresh).difference(garbage)))
        # What was never stored nobody can reach any more, should the commit fail or not. It lets go of what it held.
        view.forget(garbage)
        for oid in garbage:
            view.expire(taken[places[oid]])
            taken[places[oid]] = None
        encode(view, batch, taken)  # what forgetting changed; that may leave more without references
        if garbage:
            places = {obj._p_oid: place for place, obj in enumerate(taken) if obj is not None}
            for oid in [oid for oid in waiting if not view.held(oid, _OWN_REFERENCES if oid in places else 0)]:
                waiting.remove(oid)
                if batch.refcount(oid) == 0:
                    batch.delete(oid)
                    deleted.append(oid)
    taken[:] = [obj for obj in taken if obj is not None]
    for oid in waiting:
        view.mark_orphan(oid)
    return deleted
