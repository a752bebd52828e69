"""Reading one prefix in this process: its slot in the segment, the page file, the reader, and what is pinned.

A process goes on with the prefix's present slot when that is another one: a successor had to begin anew, or the page file was
compacted. What is read in the meantime is said in docs/design.md, section 3.3.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from dbzero.errors import (
    ClosedError,
    PrefixError,
    SegmentError,
    StaleViewError,
    StateNotKeptError,
)
from dbzero.runtime import osthreads, registry
from dbzero.runtime.lease import GROUP, SlotLease
from dbzero.runtime.native import persistent
from dbzero.runtime.pins import Pin, not_kept
from dbzero.runtime.reader import Reader
from dbzero.runtime.segment import Segment
from dbzero.runtime.slot import PrefixSlot
from dbzero.runtime.starting import led, slot_lock
from dbzero.runtime.turns import Turns
from dbzero.runtime.watching import Watched, wait_durable
from dbzero.storage import follow
from dbzero.storage import format as fmt
from dbzero.storage.filestore import LocalFileStore
from dbzero.storage.holds import Holds

_PAUSE: Final = 0.00025  # seconds between two looks of a follower at what others commit one behind the other; twice as much each time, up to
_LONGEST_PAUSE: Final = 0.001
PATIENCE: Final = 60.0  # seconds that a recovery by another process may take
_UNFILLED: Final = 1 << 62  # above every state: nothing can be read yet

_read = persistent.read

_T = TypeVar("_T")


class Reading:
    """A prefix that is open for reading.

    Attributes: name; uuid (64 bits, fixed at creation); writable (whether this process may write just now); shared (see :mod:`dbzero.storage.sharing`).
    """

    shared = False

    def __init__(self, segment: Segment, store: LocalFileStore, slot: PrefixSlot) -> None:
        self.name: Final = store.prefix
        self.uuid: Final = store.identity.prefix_uuid
        self.writable = False
        self._segment = segment
        self._store = store
        self._slot = slot
        self._incarnation = slot.incarnation  # of the slot that the reader was made for
        self._reader = self.make_reader()
        self._set_floor(0)
        self._batch_reader: Reader | None = None  # the committing thread's own: a batch uses it between its calls
        self._pin: Pin | None = None
        self._holds = Holds()  # what snapshots need; while there is any, reading goes on after close()
        self._lock = osthreads.RLock()  # the reader serves one thread at a time
        self._pause = _PAUSE
        self._moved = 0.0  # monotonic time at which there was something to follow
        self._detached = False  # this process was forked from one that has it open, and has no part in the segment
        self._closed = False

    def make_reader(self) -> Reader:
        """A reader of the present page file, for one thread. Close it before the prefix is closed or its file replaced."""
        store = self._store
        return Reader(
            self._segment.handle,
            self._slot.index,
            name=store.prefix,
            path=store.path,
            fd=store.fileno(),
            supply=store.read_page,
        )

    @property
    def _floor(self) -> int:
        """States below are not in the file that the reader was made for, or not in the slot yet."""
        return self._quick[0]

    def _set_floor(self, floor: int) -> None:
        # One attribute, so that no thread goes from the floor of one slot to the reader of another.
        self._quick: tuple[int, Any] = floor, None if floor == _UNFILLED else self._reader.quick()

    @property
    def store(self) -> LocalFileStore:
        """The prefix's files."""
        return self._store

    @property
    def segment(self) -> Segment:
        return self._segment

    # --- the slot ----------------------------------------------------------------------------------------------------------

    def _ensure_filled(self, patience: float = PATIENCE) -> None:
        """For a reader: have a slot that can be read, filled from the files unless a writer has done or is doing that.

        Shared writers recover in their turn; while there are some, a reader fills the slot only in a turn of its own.
        """
        end = time.monotonic() + patience
        # Mostly without the lock: who recovers a slot that is in use holds that.
        while not self._find_filled():
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
                if (not now.word or not now.lives) and turns.seize(now.word, PATIENCE):
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

    def _present_slot(self) -> PrefixSlot:
        return PrefixSlot.find(self._segment, self._store.prefix, self._store.identity.file_id)

    def _find_filled(self) -> bool:
        """Go on with the prefix's present slot; whether it can be read."""
        present = self._present_slot()
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
            self._reader = self.make_reader()
            self._set_floor(self._store.read_meta().floor if self._slot.status().ready else _UNFILLED)

    def rejoin(self, *, replaced: bool = False, patience: float = PATIENCE) -> bool:
        """For a reader: when its slot began another incarnation, or was left to a replaced writer or with a page file
        that was compacted, go on with the prefix's present slot and file. True when it did.

        A successor that is still recovering is waited for. SegmentError when that takes longer than `patience` seconds.

        Args:
            replaced: the page file is known to be another one by now, whatever the slot says.
        """
        writer = self.writable and not self._closed
        if writer or self._detached or (self._is_settled() and not replaced):
            return False
        with self._lock if patience > 0 else self._lock_now():
            if self._unreadable() or (self._is_settled() and not replaced):
                return False
            before = self._pin
            reopened = self._reopen_replaced(before.state if before is not None else 0)
            if not reopened and self._is_settled():
                return False
            self._pin = None  # stays in force until its state is pinned in the new slot
            try:
                self._slot = self._present_slot()
                self._ensure_filled(patience)
            except BaseException:
                self._pin = before
                self._set_floor(_UNFILLED)  # to be tried again
                raise
            self._pin_again(before)
        return True

    @contextlib.contextmanager
    def _lock_now(self) -> Iterator[None]:
        """The lock, for a thread that nobody sends signals. SegmentError when it is taken: who has it may be waiting for a recovery."""
        if not self._lock.acquire(blocking=False):
            raise SegmentError(
                f"prefix {self.name!r}: another thread of this process is reading it just now; try again"
            )
        try:
            yield
        finally:
            self._lock.release()

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

    # --- what is kept ------------------------------------------------------------------------------------------------------

    @property
    def oldest_state(self) -> int:
        """The oldest state that is kept."""
        return max(fmt.FIRST_STATE, self._slot.status().floor)

    def _check_filled(self) -> None:
        if self._floor == _UNFILLED:
            raise self._stale()

    def _kept(self, state: int) -> None:
        self._check_filled()
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

    def _close_reading(self) -> None:
        self._reader.close()
        self._store.close()

    def _unreadable(self) -> bool:
        return self._closed and not self._holds

    def _unpin(self) -> None:
        pin, self._pin = self._pin, None
        if pin is not None:
            pin.close()

    # --- reading (the model's Records) -----------------------------------------------------------------------------------------------------

    def read(self, oid: int, state: int) -> tuple[bytes, int] | None:
        """Payload and reference count of the newest version of an object at or below `state`; None when it does not exist there."""
        floor, quick = self._quick
        if state >= floor:
            found = _read(quick, oid, state)
            if found.__class__ is not int:
                return found  # type: ignore[no-any-return]
        try:
            with self._lock:
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
        self.rejoin()  # if another thread of ours has not done that
        with self._lock:
            self._kept(state)
            return ask()

    def changes(self, state: int) -> list[int] | None:
        """OIDs whose content the commit of `state` changed, ascending; None when that is not known."""
        found = self._logged(state)
        return None if found is None else found[0]

    def changes_since(self, after: int, upto: int) -> set[int] | None:
        """OIDs whose content the commits after state `after` up to `upto` changed; None when that is not known."""
        with self._lock:
            try:
                self._check_filled()
                return self._reader.changes_since(after, upto)
            except StaleViewError:
                return None

    def committed_at(self, state: int) -> float | None:
        """When the commit of `state` was made, in seconds since 1970; None when that is not known."""
        found = self._logged(state)
        return None if found is None else found[1] / 1e6

    def _logged(self, state: int) -> tuple[list[int], int] | None:
        """What the commit log says of `state`: the OIDs, and the time in microseconds."""
        with self._lock:
            try:
                self._check_filled()
                return self._reader.changes(state)
            except StaleViewError:
                return None

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

    # --- the newest state, and following it ---------------------------------------------------------------------------------

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

    def newest(self, patience: float = PATIENCE) -> tuple[int, int] | None:
        """(newest durable state, incarnation) to move a reader's view to. None while a successor is taking the slot over: ask again.

        patience: seconds to wait for that."""
        try:
            self.rejoin(patience=patience)
        except SegmentError:
            if patience > 0:
                raise
            return None
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

    def watched(self) -> Watched:
        """For a thread that follows the prefix. To be asked for anew each time: the prefix may go on in another slot."""
        return Watched(self._slot)

    def pause(self, moved: bool) -> float:
        """Seconds for which a thread that has just looked at the prefix leaves it alone. moved: there was something to follow."""
        if not moved:
            return 0.0
        before, self._moved = self._moved, time.monotonic()
        busy = self._moved - before < 2 * self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE) if busy else _PAUSE
        return self._pause

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
