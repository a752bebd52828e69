"""One open prefix in this process: store, slot in the segment and reader, tied together by the commit protocol.

Everything above sees records and states only. The protocol's steps and what a crash after each leaves are argued in docs/design.md, sections 3 to 6.
"""

from __future__ import annotations

import contextlib
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from dbzero.errors import (
    ClosedError,
    Error,
    FileReplacedError,
    ForkedError,
    PoisonedError,
    PrefixError,
    ReadOnlyError,
    SegmentError,
    StaleViewError,
    StateNotKeptError,
    StorageError,
)
from dbzero.runtime import osthreads, registry
from dbzero.runtime.batch import Batch
from dbzero.runtime.lease import GROUP, SlotLease
from dbzero.runtime.pins import Pin, not_kept, oldest_pin, raise_floor
from dbzero.runtime.reader import Reader
from dbzero.runtime.segment import Segment
from dbzero.runtime.slot import PrefixSlot
from dbzero.runtime.starting import clear_delta, led, slot_lock
from dbzero.runtime.turns import Turns
from dbzero.runtime.watching import Waiter, wait_durable
from dbzero.storage import checkpoint as ckpt
from dbzero.storage import decisions, follow, merge, recovery
from dbzero.storage import format as fmt
from dbzero.storage.filestore import DATA_REGION, LocalFileStore
from dbzero.storage.holds import Holds
from dbzero.storage.store import Meta
from dbzero.storage.vector import Window

LOG_LIMIT: Final = 16 << 20  # bytes of log after which a checkpoint is due
IN_PLACE: Final = 1 << 20  # data from this size on is synced in place instead of going through the log
PAUSE: Final = 0.00025  # seconds between two looks of a follower at what others commit one behind the other
_FRAME_ROOM: Final = 4096
_PATIENCE: Final = 60.0  # seconds that a recovery by another process may take
_OPENINGS: Final = 10  # times that the page file may be replaced while it is being opened
_UNFILLED: Final = 1 << 62  # above every state: nothing can be read yet
_INTERRUPTS: Final = 100  # signals whose handlers raise, in one commit: more is a mistake


_T = TypeVar("_T")


class DeltaRoomMade(Exception):
    """The delta index was emptied to make room: the batch has to be built again on top of that."""


class SharedHooks:
    """What :mod:`dbzero.storage.sharing`, which needs this module, does for it."""

    hold: Callable[[Segment, LocalFileStore], contextlib.AbstractContextManager[bool | None]]  # see decisions.Hold


shared_hooks = SharedHooks()


class Prefix:
    """A prefix that is open for reading, or (`writable`) whose lease this process holds.

    Attributes: name; uuid (64 bits, fixed at creation); writable; shared (see :mod:`dbzero.storage.sharing`).
    """

    shared = False

    def __init__(self, segment: Segment, store: LocalFileStore, slot: PrefixSlot, epoch: int) -> None:
        self.name: Final = store.prefix
        self.uuid: Final = store.identity.prefix_uuid
        self.writable = epoch > 0
        self._segment = segment
        self._store = store
        self._slot = slot
        self._epoch = epoch
        self._incarnation = slot.incarnation  # of the slot that the reader was made for
        self._left: list[PrefixSlot] = []  # slots of files that were compacted, while somebody may have pins there
        self._floor = 0  # states below are not in the file that the reader was made for, or not in the slot yet
        self._reader = self._make_reader()
        self._pin: Pin | None = None
        self._holds = Holds()  # what snapshots need; while there is any, reading goes on after close()
        self._interrupt: BaseException | None = None
        self._lock = osthreads.RLock()  # the reader serves one thread at a time
        self._batch_reader: Reader | None = None  # the committing thread's own: a batch uses it between its calls
        self._commit_lock = osthreads.RLock()
        self.compaction_lock = osthreads.Lock()  # held while the page file is being compacted
        self.after_checkpoint: Callable[[], None] = lambda: None  # called when one was made in the background
        self._limit = 0  # end of the data region of the log file in use
        self._fresh = 0  # no OID from here on is stored
        self._checkpointer: osthreads.Thread | None = None
        self._checkpoint_error: Exception | None = None
        self._pending_cut: ckpt.Cut | None = None  # a cut whose checkpoint failed and is to be tried again
        self._changed = False  # something was committed since the last checkpoint
        self._through_table = False  # the next commit is too big for the delta index
        self._forked = False  # this process was forked from its writer
        self._detached = False  # ... or from a reader, and has no part in the segment
        self._closed = False

    def _make_reader(self) -> Reader:
        store = self._store
        return Reader(
            self._segment.handle,
            self._slot.index,
            name=store.prefix,
            path=store.path,
            fd=store.fileno(),
            supply=store.read_page,
        )

    # --- opening ---------------------------------------------------------------------------------------------------------------------------

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
        for _ in range(_OPENINGS):
            try:
                return cls._open(
                    segment, root, name, writable=writable, blocking=blocking, timeout=timeout, force=force
                )
            except FileReplacedError:  # compacted, while it was waited for
                continue
        return cls._open(segment, root, name, writable=writable, blocking=blocking, timeout=timeout, force=force)

    @classmethod
    def _open(
        cls,
        segment: Segment,
        root: str,
        name: str,
        *,
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
        self._floor = self._slot.status().floor

    def _settle_doubt(self, store: LocalFileStore, said: decisions.Together) -> bool:
        return decisions.settle(store, said, lambda coordinator: shared_hooks.hold(self._segment, coordinator))

    def _ensure_filled(self, patience: float = _PATIENCE) -> None:
        """For a reader: have a slot that can be read, filled from the files unless a writer has done or is doing that.

        Shared writers recover in their turn; while there are some, a reader fills the slot only in a turn of its own.
        """
        end = time.monotonic() + patience
        while (
            not self._find_filled()
        ):  # mostly without the lock, which who recovers a slot that is in use holds meanwhile
            slot = self._slot
            with slot_lock(slot, patience):
                if self._find_filled():
                    return
                if self._slot.index != slot.index:  # left, before we had the lock
                    continue
                grouped = self._grouped()
                if not grouped:
                    self._fill_from_disk()
                    continue
                turns = Turns(slot)
                now = turns.status()
                if (not now.word or not now.lives) and turns.seize(now.word, _PATIENCE):
                    try:
                        self._fill_from_disk()
                    finally:
                        turns.drop()
                    continue
            if time.monotonic() > end:
                raise SegmentError(
                    f"prefix {self.name!r}: process {now.pid} has been recovering it for {patience:.0f} s and may be stopped; "
                    "end or continue it, then try again"
                )
            osthreads.sleep(0.005)

    def _find_filled(self) -> bool:
        """Go on with the prefix's present slot; whether it can be read."""
        present = PrefixSlot.find(self._segment, self._store.prefix, self._store.identity.file_id)
        if present.index != self._slot.index:
            self._go_to(present)
        if self._slot.incarnation != self._incarnation or self._floor == _UNFILLED:
            self._renew_reader()
        status = self._slot.status()
        # After the incarnation: a slot that was retired meanwhile says so before it changes that.
        whole = status.ready and not status.retired and self._is_settled()
        return whole and (not status.poisoned or self._grouped())

    def _grouped(self) -> bool:
        """Whether there are shared writers."""
        return SlotLease(self._slot).word & 0xFFFF == GROUP and self._led()

    def _is_settled(self) -> bool:
        """Whether the reader reads what the slot has to say."""
        return self._slot.incarnation == self._incarnation and self._floor != _UNFILLED

    def _go_to(self, present: PrefixSlot) -> None:
        self._slot = present

    def _fill_from_disk(self) -> None:
        """Nobody who writes shares our segment: bring the slot to the state that the files say, writing nothing to disk.

        Nothing happens when the slot is not the prefix's any more: who replaces a writer retires it without its lock.
        """
        state = self._store.read_meta().state
        with self._segment.root_lock():
            identity = self._store.identity
            if PrefixSlot.find_locked(self._segment, self._store.prefix, identity.file_id).index != self._slot.index:
                return
            self._reset_slot()
            pin = Pin(self._slot, state)  # retired now, it is not used for anything else before we are done
        with pin:
            follow.fill(self._store, self._segment.handle, self._slot)
            self._renew_reader()  # the store may read pages through an overlay now

    def _reset_slot(self) -> None:
        self._slot.reset(self._store.identity.file_id, self.uuid)
        self._renew_reader()

    def _renew_reader(self) -> None:
        with self._lock:  # no thread is in the middle of a read
            self._reader.close()
            if self._batch_reader is not None:
                self._batch_reader.close()
                self._batch_reader = None
            self._incarnation = self._slot.incarnation  # first: a reset in between shows as another incarnation
            self._reader = self._make_reader()
            self._floor = self._store.read_meta().floor if self._slot.status().ready else _UNFILLED

    def rejoin(self, *, replaced: bool = False) -> bool:
        """For a reader: when its slot began another incarnation, or was left to a replaced writer or with a page file
        that was compacted, go on with the prefix's present slot and file. True when it did.

        A successor that is still recovering is waited for. SegmentError when that takes longer than a minute.

        Args:
            replaced: the page file is known to be another one by now, whatever the slot says.
        """
        writer = self.writable and not self._closed
        if writer or self._detached or (self._is_settled() and not replaced):
            return False
        with self._lock:
            if self._unreadable() or (self._is_settled() and not replaced):
                return False
            before = self._pin
            reopened = self._reopen_replaced(before.state if before is not None else 0)
            if not reopened and self._is_settled():
                return False
            self._pin = None  # stays in force until its state is pinned in the new slot
            self._slot = PrefixSlot.find(self._segment, self._store.prefix, self._store.identity.file_id)
            self._ensure_filled()
            self._pin_again(before)
        return True

    def _pin_again(self, before: Pin | None) -> None:
        """In another slot than the one that `before` pins a state in."""
        if before is not None:
            try:
                self.pin(before.state)
            except StateNotKeptError:  # it was pinned in another segment, of which the writer does not know
                self.pin(max(before.state, self._slot.status().floor))
            before.close()
        with contextlib.suppress(StateNotKeptError):  # the same: snapshots say so when they are read
            self._holds.move(self._slot)

    def _reopen_replaced(self, state: int) -> bool:
        """Open the page file that now has the prefix's name, if that is a later one of the same prefix."""
        store = self._store
        if not store.replaced():
            return False
        try:
            fresh = LocalFileStore.open(store.root, store.prefix, writable=False)
        except PrefixError:
            return False  # dropped: what is open here can still be read
        if fresh.identity.prefix_uuid != self.uuid or fresh.read_meta().state < state:
            fresh.close()
            return False
        self._reader.close()
        self._store = fresh
        store.close()
        return True

    @property
    def oldest_state(self) -> int:
        """The oldest state that is kept."""
        return max(fmt.FIRST_STATE, self._slot.status().floor)

    def _kept(self, state: int) -> None:
        if self._floor == _UNFILLED:
            raise self._stale()
        if state < self._floor:
            raise not_kept(self._slot, state)

    def _stale(self) -> StaleViewError:
        return StaleViewError(
            f"prefix {self.name!r} ({self._store.path}) is being taken over by another process; refresh and repeat"
        )

    def pin(self, state: int) -> None:
        """Keep what `state` shows until another state is pinned, or the prefix is closed, or this process dies."""
        with self._lock:
            if self._closed or self._detached:
                return
            if self._pin is None:
                self._pin = Pin(self._slot, state)
            elif self._pin.state != state:
                self._pin.move(state)

    def hold(self, state: int) -> None:
        """Keep what `state` shows, readable also after :meth:`close`, until :meth:`release`.

        StateNotKeptError: it is older than what is kept. ClosedError: the prefix is closed.
        """
        with self._lock:
            if self._unreadable():
                raise ClosedError(f"prefix {self.name!r} is closed; open it again")
            self._kept(state)
            self._holds.add(self._slot, state)

    def release(self, state: int) -> None:
        """Let go of a state that was held."""
        with self._lock:
            self._holds.remove(state)
            if self._unreadable():
                self._close_reading()

    def _unreadable(self) -> bool:
        return self._closed and not self._holds

    def _unpin(self) -> None:
        pin, self._pin = self._pin, None
        if pin is not None:
            pin.close()

    # --- reading (the model's Records) -----------------------------------------------------------------------------------------------------

    def read(self, oid: int, state: int) -> tuple[bytes, int] | None:
        """Payload and reference count of the newest version of an object at or below `state`; None when it does not exist there."""
        try:
            with self._lock:
                if state < self._floor:
                    self._kept(state)
                return self._reader.read(oid, state)
        except StaleViewError:
            return self._again(state, lambda: self._reader.read(oid, state))

    def refcount(self, oid: int, state: int) -> int:
        """Stored strong references to an object as of `state` (0 when there is none)."""
        try:
            with self._lock:
                self._kept(state)
                return self._reader.refcount(oid, state)
        except StaleViewError:
            return self._again(state, lambda: self._reader.refcount(oid, state))

    def references(self, oid: int, state: int) -> tuple[int, ...]:
        """OIDs that the stored version of an object holds strongly at `state`, duplicates included."""
        try:
            with self._lock:
                self._kept(state)
                return self._references(oid, state)
        except StaleViewError:
            return self._again(state, lambda: self._references(oid, state))

    def _references(self, oid: int, state: int) -> tuple[int, ...]:
        version = self._reader.get(oid, state)
        return () if version is None or version.deleted else version.refs

    def _again(self, state: int, ask: Callable[[], _T]) -> _T:
        """Repeat what was asked of a slot that has been left, or that is being filled. Not under the lock: whoever fills it may want that."""
        if not self.rejoin():
            raise self._stale()
        with self._lock:
            self._kept(state)
            return ask()

    def changes(self, state: int) -> list[int] | None:
        """OIDs whose content the commit of `state` changed, ascending; None when that is not known."""
        with self._lock:
            try:
                found = self._reader.changes(state)
            except StaleViewError:
                return None
        return None if found is None else found[0]

    def changes_since(self, after: int, upto: int) -> set[int] | None:
        """OIDs whose content the commits after state `after` up to `upto` changed; None when that is not known."""
        with self._lock:
            try:
                return self._reader.changes_since(after, upto)
            except StaleViewError:
                return None

    def committed_at(self, state: int) -> float | None:
        """When the commit of `state` was made, in seconds since 1970; None when that is not known."""
        with self._lock:
            try:
                found = self._reader.changes(state)
            except StaleViewError:
                return None
        return None if found is None else found[1] / 1e6

    def oid_limit(self) -> int:
        """Above every OID in use, reserved ones included."""
        return int(self._slot.status().next_oid)

    def reserve_oids(self, n: int) -> int:
        """First of `n` fresh OIDs."""
        with self._lock:  # not while the slot is being left
            return self._slot.reserve_oids(n)

    def data_end(self) -> int:
        """Where the next commit's data will stand in the page file."""
        return self._slot.allocated()[0]

    def data_limit(self) -> int:
        """End of the data region of the log file in use."""
        return self._limit

    def head(self) -> int:
        """The state that views start from: the writer's newest, a reader's newest durable one."""
        return self._slot.published if self.writable else self._slot.durable

    def committed(self) -> int:
        """The newest state that is known to be on disk."""
        return self._slot.durable

    def newest_shown(self) -> int:
        """The newest durable state, as everybody can see it now: not the last one of a slot that was left."""
        while True:
            self.rejoin()
            slot, incarnation = self._slot, self._incarnation
            state = slot.durable
            if self.writable or self._closed or self._detached or slot.incarnation == incarnation:
                return state

    @property
    def incarnation(self) -> int:
        """Changes when another segment slot, or another life of it, is read from (:meth:`rejoin`)."""
        return self._incarnation

    def newest(self) -> tuple[int, int] | None:
        """(newest durable state, incarnation) to move a reader's view to. None while a successor is taking the slot over: ask again."""
        self.rejoin()
        return self._newest_here()

    def _newest_here(self) -> tuple[int, int] | None:
        slot, incarnation = self._slot, self._incarnation
        state = slot.durable
        # A slot's incarnation changes before its words do.
        return (state, incarnation) if slot.incarnation == incarnation and slot is self._slot else None

    def tidy(self) -> None:
        """Now and then: let go of what processes that died have pinned."""
        registry.reclaim_sometimes(self._segment)

    def wait(self, state: int, timeout: float | None) -> bool:
        """Sleep until a state above `state` is durable (or the incarnation changed). False after `timeout` seconds."""
        return wait_durable(self._slot, state, self._incarnation, timeout)

    def waiter(self) -> Waiter:
        """For a thread that follows the prefix."""
        return Waiter(self._slot)

    def pause(self) -> float:
        """Seconds for which a thread that has just followed the prefix leaves it alone."""
        return PAUSE

    def wake(self) -> None:
        """Make every sleeper of this prefix look again."""
        self._slot.wake()

    def _led(self) -> bool:
        return led(self._slot, lambda: self._store.shared_in(self._segment.identity))

    def follow_log(self, timeout: float) -> bool:
        """For a reader whose writer does not share the segment: wait up to `timeout` seconds for its log to grow, then take the new commits in.

        Returns False when the writer does share the segment, or there is none: then `wait` is enough.
        """
        slot, store = self._slot, self._store
        if not self._led() and store.replaced() and self.rejoin(replaced=True):
            return True
        if self._led() or not (store.leased() or follow.behind(store, slot)):
            return False
        follow.catch_up(store, self._segment.handle, slot)
        store.watch(timeout)
        follow.catch_up(store, self._segment.handle, slot)
        return True

    # --- committing ------------------------------------------------------------------------------------------------------------------------

    def begin(self) -> Batch:
        """An empty batch for the next state. Only the lease holder, under its operation lock."""
        if self._forked:
            raise ForkedError(
                f"prefix {self.name!r}: this process was forked from its writer; only that one may commit. Close and open it anew here"
            )
        if self._closed:
            raise ClosedError(f"prefix {self.name!r} is closed; open it again")
        if not self.writable:
            raise ReadOnlyError(f"Cannot modify read-only prefix: {self.name}")
        state = self._slot.published
        if self._batch_reader is None:
            self._batch_reader = self._make_reader()
        return Batch(self._batch_reader, state + 1, self._slot.allocated()[0], base=state, fresh=self._fresh)

    def seal(self, batch: Batch, time_us: int) -> None:
        """Finish a batch. time_us: commit time, microseconds since 1970."""
        batch.seal(time_us, in_place=batch.size >= IN_PLACE)

    def commit(self, batch: Batch) -> int:
        """Make a sealed batch the next state; returns its number when it is durable.

        Raises:
            DeltaRoomMade: nothing happened; build the batch anew. DiskFullError, StorageError: nothing happened.
            PoisonedError, FencedError: the prefix has to be reopened.
        """
        with self._commit_lock:
            self._report_checkpoint()
            if batch.address != self._slot.allocated()[0]:
                raise DeltaRoomMade  # a checkpoint came in between: that address is taken
            state = self._commit(batch)
            self.tidy()
            if self._store.log_size > LOG_LIMIT:
                self._start_checkpoint()
            return state

    def _commit(self, batch: Batch) -> int:
        slot, store, epoch = self._slot, self._store, self._epoch
        before = slot.published
        state = batch.state
        data, body, entries = batch.data(), batch.body(), batch.entries()
        end = batch.address + len(data)
        if end > self._limit:
            self._begin_log(batch.address, end, before)
        store.reserve(log_bytes=len(body) + _FRAME_ROOM, data_end=end)
        if not self._through_table:
            self._reserve_delta(entries.count)
        store.write_data(batch.address, data)
        if len(data) >= IN_PLACE:
            store.sync_data()
        next_oid = slot.allocated()[1]
        if self._through_table:
            store.append(kind=fmt.COMMIT, epoch=epoch, state=state, durable=slot.durable, next_oid=next_oid, body=body)
            self._publish_through_table(batch, before, end, next_oid)
            self._acknowledge(state, next_oid)
            return state
        interrupt: BaseException | None = None
        for _ in range(_INTERRUPTS):
            try:
                if store.position[1] != state:
                    store.append(
                        kind=fmt.COMMIT, epoch=epoch, state=state, durable=slot.durable, next_oid=next_oid, body=body
                    )
                self._publish(batch, before, end, next_oid)
                self._acknowledge(state, next_oid)
                break
            except Error:
                raise
            except BaseException as error:
                # A signal's handler raised in the middle. Once the frame is in the log there is no way back, but the same steps again lead to the end.
                interrupt = error
                if store.position[1] != state:
                    raise
        else:
            assert interrupt is not None
            self._slot.poison()
            raise interrupt
        self._interrupt = interrupt
        return state

    def _publish(self, batch: Batch, before: int, end: int, next_oid: int) -> None:
        slot = self._slot
        if slot.published != batch.state:
            entries = batch.entries()
            try:
                slot.delta_apply(entries.array, entries.count)
                slot.advance(end, next_oid)
                slot.publish(self._epoch, before, batch.state)
            except Error:
                with contextlib.suppress(Error):
                    self._store.rewind()
                raise

    def _acknowledge(self, state: int, next_oid: int) -> None:
        self._sync_log()
        self._fresh = next_oid
        self._changed = True
        self._store.mark_durable(state)
        self._slot.set_durable(state)

    def raise_interrupt(self) -> None:
        """Raise what a signal's handler raised in the middle of a commit that was finished nevertheless. Call it when that commit is settled."""
        interrupt, self._interrupt = self._interrupt, None
        if interrupt is not None:
            raise interrupt

    def _sync_log(self) -> None:
        try:
            self._store.sync_log()
        except PoisonedError:
            self._slot.poison()
            raise

    def _begin_log(self, start: int, end: int, state: int) -> None:
        """A log file whose data region holds a transaction that the present one's does not."""
        _, at, chain = self._store.position
        base = start - start % fmt.PAGE
        limit = base + max(DATA_REGION, 2 * (end - base))
        if at != state:
            raise StorageError(
                f"prefix {self.name!r}: its log is at state {at}, the segment at {state}; reopen the prefix"
            )
        self._store.begin_log(epoch=self._epoch, state=state, chain=chain, data_base=base, data_limit=limit)
        self._limit = limit

    def _reserve_delta(self, entries: int) -> None:
        if self._slot.delta_reserve(entries):
            return
        self.checkpoint()
        self._through_table = not self._slot.delta_reserve(entries)
        raise DeltaRoomMade

    def _publish_through_table(self, batch: Batch, before: int, end: int, next_oid: int) -> None:
        """A transaction whose changes do not fit into the segment: durable in the log, then merged into the table, then published."""
        self._sync_log()
        slot = self._slot
        extra = merge.Pile()
        extra.add(batch.entries())
        slot.advance(end, next_oid)
        cut = self._cut(extra=len(extra))
        self._run_checkpoint(cut, extra)
        slot.publish(self._epoch, before, batch.state)
        self._through_table = False

    # --- the steps of a commit, for transactions across prefixes (storage/together.py) ------------------------------------------------------

    @property
    def epoch(self) -> int:
        """Of the lease held, 0 without."""
        return self._epoch

    @property
    def durable(self) -> int:
        """Newest durable state."""
        return self._slot.durable

    def make_room(self, batch: Batch, extra: int) -> None:
        """Reserve all that a sealed batch needs, and `extra` bytes of its frame.

        Raises:
            DeltaRoomMade: build the batch anew. DiskFullError, StorageError: nothing happened.
        """
        self._report_checkpoint()
        if batch.address != self._slot.allocated()[0]:
            raise DeltaRoomMade
        end = batch.address + len(batch.data())
        if end > self._limit:
            self._begin_log(batch.address, end, batch.state - 1)
        self._store.reserve(log_bytes=len(batch.body()) + extra + _FRAME_ROOM, data_end=end)
        if not self._through_table:
            self._reserve_delta(batch.entries().count)

    def check_turn(self) -> None:
        """FencedError when another process has taken over writing, as far as that is known without asking the disk."""

    def append_batch(self, batch: Batch, kind: int, head: bytes) -> None:
        """Write a batch's data, and its frame with `head` in front of the body. Not synced."""
        store, data = self._store, batch.data()
        store.write_data(batch.address, data)
        if len(data) >= IN_PLACE:
            store.sync_data()
        store.append(
            kind=kind,
            epoch=self._epoch,
            state=batch.state,
            durable=self._slot.durable,
            next_oid=self._slot.allocated()[1],
            body=head + bytes(batch.body()),
        )

    def append_note(self, kind: int, body: bytes) -> None:
        """Append a frame that makes no state, and sync it."""
        store = self._store
        store.reserve(log_bytes=len(body) + _FRAME_ROOM, data_end=0)
        store.append(
            kind=kind,
            epoch=self._epoch,
            state=store.position[1],
            durable=self._slot.durable,
            next_oid=self._slot.allocated()[1],
            body=body,
        )
        self.sync()

    def take_back(self) -> None:
        """Take back the frame appended last. PoisonedError: whether it is taken back is unknown."""
        try:
            self._store.rewind()
        except PoisonedError:
            self._slot.poison()
            raise

    def sync(self) -> None:
        """Make every appended frame durable. PoisonedError, FencedError."""
        self._sync_log()

    def publish_batch(self, batch: Batch) -> None:
        """Put a batch, whose frame is durable, into the segment. Only :meth:`show_batch` shows it to readers."""
        slot, before, end = self._slot, batch.state - 1, batch.address + len(batch.data())
        if self._through_table:
            self._publish_through_table(batch, before, end, slot.allocated()[1])
            return
        entries = batch.entries()
        slot.delta_apply(entries.array, entries.count)
        slot.advance(end, slot.allocated()[1])
        slot.publish(self._epoch, before, batch.state)

    def show_batch(self, batch: Batch) -> None:
        """Show a published batch, whose frame is durable, to readers."""
        self._fresh = self._slot.allocated()[1]
        self._changed = True
        self._store.mark_durable(batch.state)
        self._slot.set_durable(batch.state)

    def poison(self) -> None:
        """Refuse every further write: what its files say is for the next who opens them to find out."""
        self._store.poison()
        self._slot.poison()

    def after_commit(self) -> None:
        """What is due now and then behind a commit."""
        self.tidy()
        if self._store.log_size > LOG_LIMIT:
            self._start_checkpoint()

    # --- checkpoints -----------------------------------------------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Bring the page file to the newest state and begin an empty log."""
        with self._commit_lock:
            self._finish_pending()
            self._run_checkpoint(self._cut())

    def _cut(self, extra: int = 0) -> ckpt.Cut:
        slot, store = self._slot, self._store
        info = slot.status()
        cut = ckpt.cut(
            store,
            self._segment.handle,
            slot.index,
            meta=store.read_meta(),
            data_end=int(info.data_end),
            next_oid=int(info.next_oid),
            extra=extra,
        )
        slot.advance(cut.data_end, cut.next_oid)
        self._limit = cut.data_end + DATA_REGION
        self._pending_cut = cut
        return cut

    def _run_checkpoint(self, cut: ckpt.Cut, extra: merge.Pile | None = None) -> None:
        reader = self._make_reader()  # its own: this may run beside other readers of this process
        try:
            ckpt.checkpoint(self._store, self._segment.handle, self._slot.index, reader, cut, extra)
        except PoisonedError:
            self._slot.poison()
            raise
        finally:
            reader.close()
        self._pending_cut = None

    def _start_checkpoint(self) -> None:
        """Cut here; merge and write in the background, beside further commits."""
        if self._checkpointer is not None and self._checkpointer.is_alive():
            return
        try:
            cut = self._pending_cut or self._cut()
        except Error as error:
            self._checkpoint_error = error
            return
        self._checkpointer = osthreads.thread(
            lambda: self._checkpoint_in_background(cut), f"dbzero-checkpoint-{self.name}"
        )
        self._checkpointer.start()

    def _checkpoint_in_background(self, cut: ckpt.Cut) -> None:
        try:
            self._run_checkpoint(cut)
        except Exception as error:
            self._checkpoint_error = error
        else:
            self.after_checkpoint()

    def _report_checkpoint(self) -> None:
        error, self._checkpoint_error = self._checkpoint_error, None
        if isinstance(error, PoisonedError):
            raise error
        if error is not None:
            warnings.warn(
                f"prefix {self.name!r}: a checkpoint failed and will be tried again ({error}). Commits go on; the log grows until it succeeds",
                RuntimeWarning,
                stacklevel=4,
            )

    def _finish_pending(self) -> None:
        """Wait for the background checkpoint; if it failed, do it now."""
        if self._checkpointer is not None and not osthreads.is_current(self._checkpointer):
            self._checkpointer.join()
            self._checkpointer = None
        self._checkpoint_error = None
        if self._pending_cut is not None:
            self._run_checkpoint(self._pending_cut)

    # --- compaction ------------------------------------------------------------------------------------------------------------------------

    @property
    def commit_lock(self) -> threading.RLock:
        """Held from the beginning of a batch to its end, and while the page file is being replaced."""
        return self._commit_lock

    @property
    def store(self) -> LocalFileStore:
        """The prefix's files."""
        return self._store

    @property
    def segment(self) -> Segment:
        return self._segment

    def make_reader(self) -> Reader:
        """A reader of the present page file, for one thread. Close it before the prefix is closed or its file replaced."""
        return self._make_reader()

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
        """Slots of this prefix that were left with the files before, in which readers may still have pins."""
        self._give_back_slots()
        return self._left

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

    def _close_reading(self) -> None:
        self._reader.close()
        self._store.close()

    def _close_writer(self) -> None:
        store, slot = self._store, self._slot
        try:
            if not (store.poisoned or slot.published >> 40):
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
