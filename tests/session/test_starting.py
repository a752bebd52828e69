"""Two processes that open a prefix at the same moment.

A process that waited for the slot's lock while another one reset and filled the slot used to go on with a reader of the incarnation before: a writer then
failed in its recovery, and a reader never got to see anything, both with StaleViewError.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

import dbzero as db0
from dbzero.runtime.slot import PrefixSlot
from dbzero.runtime.starting import slot_lock
from dbzero.storage import follow, prefix, reading
from dbzero.storage.filestore import LocalFileStore


@db0.memo(singleton=True)
class Kept:
    def __init__(self, value: int) -> None:
        self.value = value


@pytest.mark.parametrize("mode", ["r", "rw"])
def test_slot_is_reset_while_its_lock_is_waited_for(root: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    db0.init(root, autocommit=False)
    db0.open("main")
    Kept(7)
    db0.close()
    waits = []

    @contextlib.contextmanager
    def late(slot: PrefixSlot, patience: float = 60.0) -> Iterator[None]:
        with slot_lock(slot, patience):
            if not waits:
                waits.append(slot.index)
                store = LocalFileStore.open(root, "main", writable=False)
                slot.reset(store.identity.file_id, store.identity.prefix_uuid)
                follow.fill(store, slot.segment.handle, slot)
                store.close()
            yield

    monkeypatch.setattr(prefix, "slot_lock", late)
    monkeypatch.setattr(reading, "slot_lock", late)
    db0.init(root, autocommit=False)
    db0.open("main", mode)
    assert waits
    kept = db0.fetch(Kept)
    assert kept.value == 7
    if mode == "rw":
        kept.value = 8
        db0.commit()
        db0.clear_cache()
        assert kept.value == 8
