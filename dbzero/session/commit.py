"""One commit: from the dirty set of a view to a durable state of its prefix.

Encoding runs under the operation lock, held exclusively, so that a commit holds whole operations and nothing of a later one. Appending, publishing and syncing
run without it: the process goes on working while the disk does.
"""

from __future__ import annotations

import time

from ..errors import ReadOnlyError
from ..model.base import operation
from ..model.view import View
from ..runtime.batch import Batch
from ..storage.prefix import Prefix

# References to an instance that this file itself holds while it asks whether anyone else does: the list of taken objects.
_OWN_REFERENCES = 1


def commit_view(view: View, prefix: Prefix) -> bool:
    """Commit what is pending in `view`. Returns whether a new state was made.

    Raises StorageError and its kin; then everything that was pending still is.
    """
    if not prefix.writable:
        raise ReadOnlyError(f"Cannot modify read-only prefix: {prefix.name}")
    with operation.exclusive():
        view.raise_autocommit_error()
        if not view.has_changes():
            return False
        orphans = view.dead_orphans()
        taken: list[object] = []
        batch = prefix.begin()
        try:
            _encode(view, batch, taken)
            _collect(view, batch, orphans, taken)
            if not batch.changed:
                batch.close()
                return False
            batch.seal(time.time_ns() // 1000)
        except BaseException:
            batch.close()
            view.put_back(taken)
            view.add_dead_orphans(orphans)
            raise
    try:
        state = prefix.commit(batch)
    except BaseException:
        with operation:
            view.put_back(taken)
            view.add_dead_orphans(orphans)
        raise
    finally:
        batch.close()
    view.advance(state)
    return True


def _encode(view: View, batch: Batch, taken: list[object]) -> None:
    # Encoding an object may dirty its class record (a new shape), so go on until nothing is left.
    while fresh := view.take_dirty():
        taken.extend(fresh)
        for obj in fresh:
            payload, refs = obj._p_encode()
            batch.put(obj._p_oid, payload, refs)
        del obj
    del fresh


def _collect(view: View, batch: Batch, orphans: list[int], taken: list[object]) -> None:
    """Delete what nothing refers to, neither stored nor in Python; the rest of it becomes orphans, looked at again when their wrapper dies."""
    for oid in orphans:
        if batch.refcount(oid) == 0 and view.peek(oid) is None:
            batch.delete(oid)
    in_flight = {obj._p_oid for obj in taken}
    while zero := batch.zero():
        for oid in zero:
            if view.held(oid, _OWN_REFERENCES if oid in in_flight else 0):
                view.mark_orphan(oid)
            else:
                batch.delete(oid)
