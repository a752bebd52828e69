"""Finding stored objects that only refer to each other: reference counts never fall to zero in a cycle.

Mark and sweep over the reference lists of the records. What is reached from the catalogue or from any object that this
process has in hand stays. Everything stays readable at the states before.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

from dbzero.errors import ReadOnlyError
from dbzero.model import kinds
from dbzero.model.base import operation
from dbzero.model.view import View
from dbzero.session.commit import collect, encode, restore
from dbzero.session.workspace import OpenPrefix, active, refuse_in_block
from dbzero.storage.committing import DeltaRoomMade


def collect_cycles(prefix: str | None = None) -> int:
    """Delete the stored objects of a prefix that can be reached neither from its roots nor from an object in use here.

    Reference counts delete the rest by themselves; this finds cycles. What is pending is committed first. Takes a walk
    over the whole prefix under the operation lock, and a few bytes of memory per object.

    Args:
        prefix: name of a prefix open read-write; None: the current one.

    Returns:
        How many objects were deleted.

    Raises:
        ReadOnlyError: the prefix is open read-only. StorageError: the commit failed; nothing is deleted.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Node:
    ...     pass
    >>> one, two = Node(), Node()
    >>> one.other, two.other = two, one
    >>> db0.commit()
    >>> del one, two
    >>> db0.collect_cycles()
    2
    >>> db0.close()
    """
    workspace = active()
    opened = workspace.current() if prefix is None else workspace.get(prefix)
    opened.refuse_shared("collecting cycles")
    if not opened.writable:
        raise ReadOnlyError(f"Cannot modify read-only prefix: {opened.name}")
    refuse_in_block("collect_cycles")
    with opened.commit_lock:
        while True:
            opened.commit()
            gc.collect()  # wrappers that hold each other are not in use
            try:
                found = _sweep(opened)
            except DeltaRoomMade:
                continue
            if found is not None:
                return found


def _sweep(opened: OpenPrefix) -> int | None:
    """Delete what is not reached; None when something is pending again."""
    view, prefix = opened.view, opened.prefix
    with operation:
        if view.dirty_count or view.deleted:
            return None
        garbage = unreachable(view)
        if not garbage:
            return 0
        taken: list[Any] = []
        undo: list[Callable[[], None]] = []
        batch = prefix.begin()
        try:
            undo += view.forget(garbage)
            encode(view, batch, taken)
            for oid in garbage:
                batch.delete(oid)
            collect(view, batch, [], taken, undo)
            prefix.seal(batch, time.time_ns() // 1000)
        except BaseException:
            batch.close()
            restore(view, taken, [], undo)
            raise
    try:
        state = prefix.commit(batch)
    except BaseException:
        with operation:
            restore(view, taken, [], undo)
        raise
    finally:
        batch.close()
    with operation:
        view.advance(state)
    return len(garbage)


def unreachable(view: View) -> list[int]:
    """OIDs of the stored objects that no root leads to. Under the operation lock, with nothing pending."""
    records, state = view.records, view.state
    limit = records.oid_limit()
    reached = bytearray(limit)
    stack = [kinds.CATALOGUE_OID, kinds.TAG_ROOT_OID, kinds.FIELD_ROOT_OID, *[obj._p_oid for obj in view.objects()]]
    while stack:
        oid = stack.pop()
        if reached[oid]:
            continue
        reached[oid] = 1
        stack.extend(records.references(oid, state))
    return [oid for oid in range(kinds.FIRST_OID, limit) if not reached[oid] and records.read(oid, state) is not None]
