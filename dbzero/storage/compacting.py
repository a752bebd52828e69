"""A prefix's part in the compaction of its page file (:mod:`dbzero.storage.history`): another file takes its place, and another slot."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from dbzero.errors import (
    Error,
    PoisonedError,
)
from dbzero.runtime import osthreads, registry
from dbzero.runtime.lease import SlotLease
from dbzero.runtime.pins import Pin, oldest_pin, raise_floor
from dbzero.runtime.segment import Segment
from dbzero.runtime.slot import PrefixSlot
from dbzero.runtime.starting import slot_lock
from dbzero.runtime.status import slots
from dbzero.storage import format as fmt
from dbzero.storage.committing import Committing
from dbzero.storage.filestore import DATA_REGION, LocalFileStore
from dbzero.storage.store import Meta


class Compacting(Committing):
    """A prefix whose page file can be replaced under its readers."""

    def __init__(self, segment: Segment, store: LocalFileStore, slot: PrefixSlot, epoch: int) -> None:
        super().__init__(segment, store, slot, epoch)
        self.compaction_lock = osthreads.Lock()  # held while the page file is being compacted
        self._left: list[PrefixSlot] = []  # slots of files that were compacted, while somebody may have pins there

    @contextlib.contextmanager
    def upkeep(self, stop: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """While nobody commits, here or elsewhere. stop: asked now and then, while that is waited for, whether to give up."""
        with self._commit_lock:
            yield

    def begin_compaction(self) -> None:
        """In :meth:`upkeep`: from here to :meth:`end_compaction` nothing that is in use now is written over. LeaseError: another process
        compacts the prefix."""
        self._store.keep_pages = self._store.read_meta().checkpoint

    def end_compaction(self) -> None:
        """The table that was read is not needed any more."""
        self._store.keep_pages = None

    def moved_on(self, incarnation: int) -> bool:
        """Whether the prefix, or this process with it, has left the slot of that incarnation."""
        return incarnation != self._incarnation or self._slot.incarnation != incarnation

    def _slots_left(self) -> list[PrefixSlot]:
        """Slots of this prefix that were left with the files before, by us or by predecessors, in which readers may still have pins."""
        self._give_back_slots()
        return [slot for slot, status in slots(self._segment) if status.retired and status.prefix_uuid == self.uuid]

    def raise_floor(self, wanted: int) -> int:
        """Give up states below `wanted`, except for what is pinned; returns the floor that holds. Only the lease holder."""
        with self._commit_lock:
            registry.reclaim(self._segment)
            pinned = [oldest_pin(slot) for slot in self._slots_left()]  # by readers that have not moved on yet
            wanted = min([wanted, *(state for state in pinned if state is not None)])
            return max(fmt.FIRST_STATE, raise_floor(self._slot, wanted))

    def _give_back_slots(self) -> None:
        """Slots that were left and in which nothing is pinned any more can be used by other prefixes."""
        for slot in list(self._left):
            if oldest_pin(slot) is None:
                SlotLease(slot).drop(self._epoch)
                with self._segment.root_lock():
                    slot.retire(self._epoch)  # once more: now nobody holds its lease
                self._left.remove(slot)

    def replace_file(self, path: str, file_id: int, meta: Meta) -> None:
        """Go on with the compacted page file at `path`, whose checkpoint `meta` has everything up to the newest state.

        The caller is in :meth:`upkeep` and has made a checkpoint there. Everybody else notices by the old
        slot's incarnation.

        Raises:
            FencedError, StorageError: nothing happened. PoisonedError: the file is replaced, but the prefix has to be
            reopened.
        """
        slot = PrefixSlot.find(self._segment, self._store.prefix, file_id)
        try:
            with self._lock, self._filling(slot):
                slot.reset(file_id, self.uuid)
                SlotLease(slot).take(self._epoch)
                self._prepare(slot, meta)
                page = self._store.replace_file(path)
                try:
                    self._go_on_in(slot, meta)
                except BaseException as exc:
                    self._broken(slot, exc)
                    raise
                finally:
                    page.close()
        finally:
            if self._slot.index != slot.index:  # the name is as it was: nobody knows of that slot
                self._give_back(slot)

    def _filling(self, slot: PrefixSlot) -> contextlib.AbstractContextManager[None]:
        """While the slot of a compacted file is made ready."""
        return slot_lock(slot)

    def _prepare(self, slot: PrefixSlot, meta: Meta) -> None:
        """Before a compacted file, and with it its slot, can be found by others."""

    def _give_back(self, slot: PrefixSlot) -> None:
        with self._segment.root_lock(), contextlib.suppress(Error):
            slot.retire(self._epoch)
            SlotLease(slot).drop(self._epoch)

    def _go_on_in(self, slot: PrefixSlot, meta: Meta) -> None:
        """The compacted file has the name: leave the slot of the one before for its own, and begin a log."""
        old, store = self._slot, self._store
        self._slot = slot
        try:
            slot.install_root(meta.root, meta.depth, meta.state)
            next_oid = max(meta.next_oid, old.allocated()[1])
            slot.start(epoch=self._epoch, state=meta.state, data_end=meta.data_end, next_oid=next_oid, floor=meta.floor)
            pinned, self._pin = self._pin, None
            if pinned is not None:
                self._pin = Pin(slot, pinned.state)
                pinned.close()
            self._holds.move(slot)
            self._renew_reader()
            limit = meta.data_end + DATA_REGION
            with store.unfenced():  # a successor's log file must not be followed by one of ours
                store.truncate_log(meta.redo)
                store.begin_log(
                    epoch=self._epoch, state=meta.state, chain=meta.chain, data_base=meta.data_end, data_limit=limit
                )
            self._limit, self._changed = limit, False
        finally:
            # Readers leave the old slot now: its incarnation changes, and they are woken.
            self._leave(old)

    def _leave(self, old: PrefixSlot) -> None:
        """Not used for anything else as long as its lease is held: the pins of readers there still count."""
        with self._segment.root_lock():
            old.retire(self._epoch)
        self._left.append(old)

    def _broken(self, slot: PrefixSlot, exc: BaseException) -> None:
        """The page file is replaced, but its log could not be begun."""
        slot.poison()
        self._store.poison()
        if isinstance(exc, Error):
            raise PoisonedError(
                f"prefix {self.name!r}: its page file was compacted and replaced, but no log file could be begun "
                f"({exc}). Nothing is lost: close and reopen the prefix"
            ) from exc
