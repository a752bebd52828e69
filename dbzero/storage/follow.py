"""Bringing a segment's slot to what the files say, for readers whose writer does not share their segment (another container, a deleted name) or does not run.

Whoever does it holds the slot's lock and knows that no writer leads the slot, so it may set the words that otherwise only the lease holder moves.
"""

from __future__ import annotations

import contextlib
from typing import Any

from dbzero.errors import CheckpointMovedError, Error
from dbzero.runtime.slot import PrefixSlot
from dbzero.runtime.starting import led, slot_lock
from dbzero.storage import recovery
from dbzero.storage.filestore import LocalFileStore
from dbzero.storage.store import Meta
from dbzero.storage.vector import Window

_ATTEMPTS = 20


def fill(store: LocalFileStore, seg: Any, slot: PrefixSlot) -> None:
    """Fill a slot that was just reset: the checkpoint's root, the log's changes, the states; then it is ready."""
    meta, found = _replay(store, seg, slot)
    for said in found.last:
        with contextlib.suppress(Error):  # a directory that may not be written has no writer to be half done either
            Window(store.root, store.system).note(said)
    slot.start(epoch=meta.epoch, state=found.state, data_end=found.data_end, next_oid=found.next_oid, floor=meta.floor)


def _replay(store: LocalFileStore, seg: Any, slot: PrefixSlot, after: int = 0) -> tuple[Meta, recovery.Recovered]:
    for attempt in range(_ATTEMPTS):
        meta = store.read_meta()
        try:
            slot.advance(
                meta.data_end, meta.next_oid
            )  # first: older states are read by way of what the new table leads to
            slot.install_root(meta.root, meta.depth, meta.state)
            return meta, recovery.replay_into(store, seg, slot.index, meta, after=after, durable_only=store.leased())
        except CheckpointMovedError:
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def behind(store: LocalFileStore, slot: PrefixSlot) -> bool:
    """Whether the files' checkpoint is newer than what the slot shows."""
    return store.read_meta().state > slot.durable


def catch_up(store: LocalFileStore, seg: Any, slot: PrefixSlot) -> bool:
    """Take in what a writer outside this segment committed. True when the slot moved.

    When the writer made a checkpoint, its root is installed and the entries below it are dropped; the order - freeze, fill anew, install, drop - keeps every
    lookup that runs beside it right.
    """
    with slot_lock(slot):
        if led(slot, lambda: store.shared_in(slot.segment.identity)) or not slot.status().ready:
            return False
        before = slot.durable
        info = slot.status()
        meta = store.read_meta()
        if meta.state > info.root_state:
            if (
                not info.has_frozen
            ):  # else an attempt before this one failed half way: its leftovers are right, only repeated
                slot.delta_rotate(before)
            meta, found = _replay(store, seg, slot)
            slot.delta_retire()
        else:
            try:
                found = recovery.replay_into(store, seg, slot.index, meta, after=before, durable_only=True)
            except CheckpointMovedError:
                return False  # the next call finds the new checkpoint
        if found.state <= before:
            return False
        slot.start(
            epoch=meta.epoch, state=found.state, data_end=found.data_end, next_oid=found.next_oid, floor=meta.floor
        )
        return True
