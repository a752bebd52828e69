"""One open prefix in this process: store, slot in the segment and reader, tied together by the commit protocol.

Everything above sees records and states only. The protocol's steps and what a crash after each leaves are argued in docs/design.md,
sections 3 to 6. Here is how a prefix is opened, taken over and left; :mod:`dbzero.storage.reading`,
:mod:`dbzero.storage.committing` and :mod:`dbzero.storage.compacting` have the rest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final, TypeVar

from dbzero.errors import (
    FileReplacedError,
    StateNotKeptError,
)
from dbzero.runtime import osthreads
from dbzero.runtime.lease import SlotLease
from dbzero.runtime.segment import Segment
from dbzero.runtime.slot import PrefixSlot
from dbzero.runtime.starting import clear_delta, led, slot_lock
from dbzero.storage import decisions, recovery
from dbzero.storage.compacting import Compacting
from dbzero.storage.filestore import DATA_REGION, LocalFileStore
from dbzero.storage.vector import Window

_OPENINGS: Final = 10  # times that the page file may be replaced while it is being opened

_T = TypeVar("_T")


class SharedHooks:
    """What :mod:`dbzero.storage.sharing`, which needs this module, does for it."""

    hold: Callable[[Segment, LocalFileStore], contextlib.AbstractContextManager[bool | None]]  # see decisions.Hold


shared_hooks = SharedHooks()


def while_replaced(opening: Callable[[], _T]) -> _T:
    """Open anew as long as the page file was compacted, and so replaced, while it was being opened."""
    for _ in range(_OPENINGS):
        with contextlib.suppress(FileReplacedError):
            return opening()
    return opening()


class Prefix(Compacting):
    """A prefix that is open for reading, or (`writable`) whose lease this process holds."""

    @classmethod
    def open(
        cls,
        segment: Segment,
        root: str,
        name: str,
        *,
        writable: bool,
        blocking: bool = False,
        timeout: float | None = None,
        force: bool = False,
    ) -> Prefix:
        """Open a prefix, created when missing and `writable`.

        Args:
            segment: the root's segment. root: its directory. name: of the prefix.
            blocking, timeout (seconds), force: how to get the lease when another process holds it.

        Raises:
            LeaseError: held by another process. PrefixError, StorageError and subclasses: the files cannot be used.
        """
        return while_replaced(lambda: cls._open(segment, root, name, writable, blocking, timeout, force))

    @classmethod
    def _open(
        cls,
        segment: Segment,
        root: str,
        name: str,
        writable: bool,
        blocking: bool,
        timeout: float | None,
        force: bool,
    ) -> Prefix:
        store = LocalFileStore.open(root, name, writable=writable)
        try:
            epoch = store.acquire(blocking=blocking, timeout=timeout, force=force) if writable else 0
            slot = PrefixSlot.find(segment, store.prefix, store.identity.file_id)
            replaced = writable and force and led(slot, lambda: True)
            if replaced:
                slot.retire(epoch)
                slot = PrefixSlot.find(segment, store.prefix, store.identity.file_id)
            prefix = cls(segment, store, slot, epoch)
            try:
                if writable:
                    with slot_lock(slot):
                        prefix._renew_reader()  # another process may have reset the slot while this one waited
                        prefix._take_over(forced=force)
                else:
                    prefix._ensure_filled()
            except BaseException:
                prefix._reader.close()
                raise
        except BaseException:
            store.close()
            raise
        return prefix

    def _take_over(self, *, forced: bool) -> None:
        """Become the writer: recover what the predecessor left in the log, then put the slot at the recovered state.

        A slot that readers use goes on as it is: they see the old table and delta until the new root is in force, and
        both say the same for every state they look at.
        """
        slot, store = self._slot, self._store
        usable = not forced and slot.status().ready and not slot.status().poisoned
        if not usable:
            self._reset_slot()
        SlotLease(slot).take(self._epoch, force=forced)
        found = recovery.recover(
            store, self._segment.handle, slot.index, self._reader, forced=forced, settle=self._settle_doubt
        )
        for said in found.last:  # parts of it may be shown to readers already, and others not yet
            Window(store.root, store.system).note(said)
        if usable and found.state < slot.published:
            # What was published was lost with the kernel's cache: views that saw it must start over.
            self._reset_slot()
            SlotLease(slot).take(self._epoch, force=forced)
            slot.install_root(found.meta.root, found.meta.depth, found.meta.state)
            usable = False
        if not usable:
            slot.start(
                epoch=self._epoch,
                state=found.state,
                data_end=found.data_end,
                next_oid=found.next_oid,
                floor=found.meta.floor,
            )
        else:
            if found.merged:
                clear_delta(slot, found.state)
            slot.advance(found.data_end, found.next_oid)
            before = slot.published
            if found.state > before:
                slot.publish(self._epoch, before, found.state)
            slot.set_durable(found.state)
        Window(store.root, store.system).recovered(self.uuid, found.state)
        self._limit = found.data_end + DATA_REGION
        self._fresh = found.next_oid
        self._changed = not found.merged
        self._set_floor(self._slot.status().floor)

    def _settle_doubt(self, store: LocalFileStore, said: decisions.Together) -> bool:
        return decisions.settle(store, said, lambda coordinator: shared_hooks.hold(self._segment, coordinator))

    # --- closing ---------------------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave the prefix. A writer makes a last checkpoint, so that the page file is complete in itself, and gives the lease back."""
        with self._commit_lock:
            if self._closed:
                return
            self._closed = True
            try:
                if self.writable:
                    self._close_writer()
            finally:
                with self._lock:
                    self._unpin()
                    if self._batch_reader is not None:
                        self._batch_reader.close()
                    if self._unreadable():
                        self._close_reading()
                    else:
                        self._store.close_writing()

    def _close_writer(self) -> None:
        store, slot = self._store, self._slot
        try:
            if not store.poisoned:
                self._finish_pending()
                if self._changed:
                    self._run_checkpoint(self._cut())
                store.truncate_log(store.position[0] + 1)
                store.trim()
        finally:
            self._give_back_slots()
            SlotLease(slot).drop(self._epoch)

    def before_fork(self) -> None:
        """No other thread is in the middle of a read while the process is copied. :meth:`fork_done` in the parent."""
        self._lock.acquire()

    def fork_done(self) -> None:
        self._lock.release()

    def after_fork(self) -> None:
        """In a forked child: what only the parent holds is gone; reading goes on. See :meth:`attach`."""
        self._forked = self._forked or self.writable
        self.writable = False
        self._detached = True
        self._pin = None
        self._holds.forget_pin()
        self._lock = osthreads.RLock()
        self._commit_lock = osthreads.RLock()
        self.compaction_lock = osthreads.Lock()
        self._checkpointer = None

    def attach(self) -> None:
        """In a forked child whose segment was rejoined: have pins of our own, and follow what is committed."""
        self._detached = False
        with self._lock, contextlib.suppress(StateNotKeptError):
            self._holds.move(self._slot)

    @property
    def forked(self) -> bool:
        """Whether this process was forked from the prefix's writer."""
        return self._forked
