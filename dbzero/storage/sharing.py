"""A prefix that several processes of one segment write in turns.

Everybody reads; who wants to write takes the turn, brings itself to what was published last, commits as an exclusive writer
does, publishes, and gives the turn back. Only then comes the sync: one of those whose commits wait does it for all.

A turn that ended badly - its holder died, or was replaced because it was stopped or took too long - leaves the slot marked
torn. Whoever gets the next turn recovers from the files under a new epoch before anything else. The argument is in
docs/design.md, section 3.3.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from dbzero._engine import ffi
from dbzero.errors import (
    ClosedError,
    Error,
    FencedError,
    FileReplacedError,
    ForkedError,
    LeaseError,
    PoisonedError,
    SegmentError,
    TurnTimeoutError,
)
from dbzero.runtime import osthreads
from dbzero.runtime.batch import Batch
from dbzero.runtime.lease import GROUP, SlotLease
from dbzero.runtime.pins import Pin
from dbzero.runtime.segment import Segment
from dbzero.runtime.slot import STATE_MASK, PrefixSlot
from dbzero.runtime.starting import led, slot_lock
from dbzero.runtime.status import slots
from dbzero.runtime.turns import FORCED, TORN, FairLock, Outcome, Turns, TurnStatus, overrun
from dbzero.runtime.watching import Waiter
from dbzero.storage import checkpoint as ckpt
from dbzero.storage.filestore import LocalFileStore
from dbzero.storage.prefix import LOG_LIMIT, PAUSE, Prefix, shared_hooks
from dbzero.storage.store import Meta

ALLOWED: Final = 10.0  # seconds that a turn may last unless its holder says otherwise
_RECOVERING: Final = 120.0  # the same for one that recovers or checkpoints
_PATIENCE: Final = 0.05  # seconds to wait for another process's sync before doing it oneself
_WRITERS_PAUSE: Final = 0.002  # as PAUSE, for a process that is writing itself
_UNRESOLVED: Final = 30.0  # seconds to wait for what became of a commit whose successor has taken over
_COMMIT_LOG: Final = 2  # OID
_SOON: Final = 0.2  # seconds in which who begins a log file says so in the slot
_FOLLOWED: Final = 5.0  # seconds after which a log file that nobody answers for is an exclusive writer's
_SEEN: Final = 1.0  # seconds: its holder was seen to have the turn for long enough, by who wants to replace it
_UNFILLED_PATIENCE: Final = 60.0  # seconds that a reading thread waits for a recovery
_GLANCE: Final = 1.0  # seconds to wait for the turn of another prefix: long enough to see that its holder is stopped
_OPENINGS: Final = 10  # times that the page file may be replaced while it is being opened


class _MovedOn(Exception):
    """The turn is not the overrunning holder's any more."""


class _Followed(Exception):
    """The log file that was synced has a successor of which the slot does not say where it comes from."""


@dataclass(frozen=True)
class Published:
    """A commit that the next holder of the turn builds on, and that is not known to be durable yet."""

    state: int
    address: int  # its data is at [address, end)
    end: int
    incarnation: int
    number: int  # log file of its frame
    file_id: int  # page file that its data is in


class SharedPrefix(Prefix):
    """A prefix open for shared writing. `writable` only during a turn."""

    shared = True

    def __init__(self, segment: Segment, store: LocalFileStore, slot: PrefixSlot, epoch: int) -> None:
        super().__init__(segment, store, slot, epoch)
        self.writable = False
        self._mine = FairLock()  # which of this process's threads has, or waits for, the turn
        self._closing = False
        self._seen = ffi.new("uint64_t *")  # newest state made here
        self._made = self._made_before = 0  # that as well, now and at the last pause()
        self._place: tuple[int, int, int, int] | None = None  # epoch and end of the log when our last turn ended
        self._allowed = ALLOWED  # seconds that our turn may last
        self._entered = False  # the turn is ours, if only to recover: no other thread moves us to another slot
        self._sound = True  # whether the next holder may go on from where our turn leaves the log
        self._next_pin: Pin | None = None  # in the slot of a compacted file, before that has its name
        self._ended: set[int] = (
            set()
        )  # incarnations left with all that was published in them, when a file was compacted

    # --- opening and closing ------------------------------------------------------------------------------------------

    @classmethod
    def share(
        cls,
        segment: Segment,
        root: str,
        name: str,
        *,
        blocking: bool = False,
        timeout: float | None = None,
        force: bool = False,
    ) -> SharedPrefix:
        """Open a prefix, created when missing, for writing together with others.

        Args:
            segment: the root's segment. root: its directory. name: of the prefix.
            blocking, timeout (seconds), force: how to deal with an exclusive writer.
        Raises:
            LeaseError: an exclusive writer has it, or processes with other shared memory write it. SegmentError: no slot is
            left for this process. PrefixError, StorageError and subclasses: the files cannot be used.
        """
        for _ in range(_OPENINGS):
            try:
                return cls._share(segment, root, name, blocking, timeout, force)
            except FileReplacedError:  # compacted, while it was waited for
                continue
        return cls._share(segment, root, name, blocking, timeout, force)

    @classmethod
    def _share(
        cls, segment: Segment, root: str, name: str, blocking: bool, timeout: float | None, force: bool
    ) -> SharedPrefix:
        store = LocalFileStore.open(root, name, writable=True)
        try:
            if segment.slot < 0:
                raise SegmentError(
                    f"prefix {name!r}: this process has no slot in the shared segment (4096 processes are attached), "
                    "so it cannot write; close some of them"
                )
            with store.gate():
                first = store.share(segment.identity, blocking=blocking, timeout=timeout, force=force)
                store.check_name()
                slot = PrefixSlot.find(segment, store.prefix, store.identity.file_id)
                if first and force and led(slot, lambda: True):
                    slot.retire(store.epoch)
                    slot = PrefixSlot.find(segment, store.prefix, store.identity.file_id)
                prefix = cls(segment, store, slot, store.epoch)
                try:
                    prefix._begin(first, force)
                    prefix.pin(prefix.head())  # as long as we are here, nobody else gets the slot
                    if not prefix._is_present():
                        prefix._change_slot()
                except BaseException:
                    prefix._reader.close()
                    raise
        except BaseException:
            store.close()
            raise
        return prefix

    def _begin(self, first: bool, force: bool) -> None:
        if first:
            with slot_lock(self._slot):
                turns = self._turns
                while not turns.seize(turns.status().word, _RECOVERING):
                    pass  # whoever had it is dead, or a reader that fills the slot, which ends with its lock on it
                self._renew_reader()
                turns.set_torn(TORN)
                self._take_over(forced=force)
                self._hand_out()
                self.writable = True
            self._end_turn()
            self._store.let_in()
        elif self._slot.status().ready:
            self._renew_reader()
        else:
            self.acquire_turn(_RECOVERING)
            self.yield_turn()

    def _hand_out(self) -> None:
        """After a recovery: the lease is everybody's again."""
        self._turns.share_lease(self._epoch, True)
        self._note_place()
        self._turns.set_torn(0)

    def _close_writer(self) -> None:
        """The last to leave makes the page file complete in itself."""
        with self._store.gate():
            if not self._store.shut_out():
                return
            try:
                self.acquire_turn(_RECOVERING)
            except FencedError:
                return
            store, slot = self._store, self._slot
            done = False
            try:
                if store.read_meta().state < slot.published or self._pending_cut is not None:
                    self.begin_writing()
                    self._checkpoint_here()
                store.truncate_log(store.position[0] + 1)
                store.trim()
                store.remove_unfinished()
                done = True
            finally:
                if done:
                    self._turns.share_lease(self._epoch, False)
                    SlotLease(slot).drop(self._epoch)
                    self._turns.set_torn(0)
                self.writable = self._entered = False
                self._turns.drop()
                store.release()
                self._mine.release()

    def close(self) -> None:
        """Leave the prefix. The last of the shared writers makes a last checkpoint."""
        with self._lock:
            closing, self._closing = self._closing, True
        try:
            if not closing and not self._detached and not self._store.poisoned:
                self._close_writer()  # not under the commit lock: whose turn it is may want that
        finally:
            self.writable = False
            super().close()

    # --- turns --------------------------------------------------------------------------------------------------------

    @property
    def _turns(self) -> Turns:
        return Turns(self._slot)

    def turn_status(self) -> TurnStatus:
        return self._turns.status()

    def acquire_turn(
        self, timeout: float | None = None, allowed: float = ALLOWED, stop: Callable[[], bool] = lambda: False
    ) -> None:
        """Wait for the turn to write, in order of arrival, and be at the newest published state (:meth:`head`).

        Args:
            timeout: seconds to wait at most, None: for ever. allowed: seconds the turn may last before a waiter may
                replace us. stop: asked now and then whether to give up.
        Raises:
            TurnTimeoutError: it did not come in time, or `stop` said so. FencedError: an exclusive writer has taken the prefix over.
            Errors of a recovery, when the last holder ended badly.
        The calling thread holds it, and gives it back with :meth:`yield_turn`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._mine.acquire(deadline, stop):
            raise self._too_late(timeout)
        self._allowed, self._sound = allowed, True
        try:
            while True:
                if self._detached:
                    raise ForkedError(
                        f"prefix {self.name!r}: this process was forked from one that has it open, and could not join its shared memory; "
                        "close it and open it anew here"
                    )
                if self._closed:
                    raise ClosedError(f"prefix {self.name!r} is closed; open it again")
                self._store.check_alive()
                self._find_slot()
                turns = self._turns
                outcome = turns.wait(deadline, allowed, stop)
                if outcome is Outcome.TIMEOUT:
                    raise self._too_late(timeout)
                try:
                    if outcome is Outcome.OVERRUN and self._replace_holder(allowed):
                        return
                    if outcome is Outcome.MINE and self._enter(turns.slot):
                        self._settle(allowed)
                        return
                except FileReplacedError:
                    self._leave_replaced()
                except (
                    Error
                ):  # what went wrong in a slot that another process has taken from us meanwhile does not matter
                    if self._is_present():
                        raise
                if outcome is Outcome.RETIRED and self._slot.incarnation == self._incarnation:
                    self._change_slot()  # we came to it when it was left already
                self._entered = False
                turns.drop()
                self._turns.drop()
        except BaseException:
            self.writable = self._entered = False
            self._store.leave()
            self._turns.drop()
            self._mine.release()
            raise

    def _enter(self, slot: PrefixSlot) -> bool:
        """The turn in `slot` is this thread's. False: another thread, or another process, has moved us away from it meanwhile.

        From here to the end of the turn nobody else does.
        """
        with self._lock:
            self._entered = slot.index == self._slot.index and self._slot.incarnation == self._incarnation
            return self._entered

    def _too_late(self, timeout: float | None) -> TurnTimeoutError:
        now = self._turns.status()
        who = "this process" if not now.word or now.word == self._turns.own_word else f"process {now.pid}"
        waited = "while it was waited for" if timeout is None else f"within {timeout:g} s"
        return TurnTimeoutError(
            f"prefix {self.name!r}: the turn to write did not come {waited}; {who} has it and {now.waiting} "
            "others wait. Try again, or with a longer timeout"
        )

    def _find_slot(self) -> None:
        """Go on with the prefix's present slot, whatever state that is in."""
        if self._slot.incarnation != self._incarnation:
            self._change_slot()

    def _leave_replaced(self) -> None:
        """A compacted file has the prefix's name and everything that was published in our slot: leave that, with everybody. Whoever
        compacted it died, or was stopped, before."""
        slot, incarnation = self._slot, self._incarnation
        with self._store.unreplaceable(), self._segment.root_lock():
            epoch = slot.status().lease_epoch
            if slot.incarnation == incarnation:
                try:
                    slot.leave(epoch)
                except FencedError:  # it was begun anew for the file before, by us
                    slot.retire(max(1, epoch))
        Turns(slot).drop()
        self._change_slot()

    def _go_to(self, present: PrefixSlot) -> None:
        self._change_slot()

    def _change_slot(self) -> None:
        # Who syncs tells the slot that it is durable: not a slot that others use by now, so nobody is in the middle of that.
        with self._lock, self._store.quiet():
            while True:
                if self._slot.left == self._incarnation:
                    self._ended.add(self._incarnation)
                before_page = self._store.follow_name()
                # The old pin stays in force: who may still write a word of a slot has a pin there.
                before, self._pin = self._pin, None
                self._slot = self._present_slot()
                self._renew_reader()
                if before_page is not None:
                    before_page.close()
                self._place = None
                self._seen[0] = 0
                if before is None:
                    self.pin(max(self._slot.durable, self._slot.status().floor))
                else:
                    self._pin_again(before)
                # Before the pin was there the slot could be left, and be given to anybody.
                if self._is_present() and not self._store.replaced():
                    return

    def _present_slot(self) -> PrefixSlot:
        return PrefixSlot.find(self._segment, self._store.prefix, self._store.identity.file_id)

    def _is_present(self) -> bool:
        """Whether our slot is the prefix's. It stays so under the slot's lock; and a slot that we have pinned is nobody else's."""
        return self._present_slot().index == self._slot.index and self._slot.incarnation == self._incarnation

    def _settle(self, allowed: float) -> None:
        """The turn is ours. Recover what its last holder left torn; otherwise take the log over where it ends."""
        turn, slot = self._turns.status(), self._slot.words()
        epoch, owner = slot.lease >> 16, slot.lease & 0xFFFF
        if turn.torn or slot.poisoned or not slot.ready or owner != GROUP:
            self._recover_again(turn.torn)
            self._turns.extend(allowed)
        else:
            place = (epoch, turn.log_number, turn.log_end, turn.log_chain)
            self._epoch = epoch
            self._store.enter(
                epoch=epoch,
                number=turn.log_number,
                end=turn.log_end,
                state=slot.published & STATE_MASK,
                chain=turn.log_chain,
                next_oid=slot.next_oid,
            )
            if not self._is_settled():
                self._renew_reader()  # the one who recovered the slot has just made it ready
            if place != self._place:
                self._limit = self._store.data_limit
                self._fresh = slot.next_oid  # others may have stored every OID that was given out
                self._pending_cut = None
        self.writable = True

    def _recover_again(self, torn: int) -> None:
        """In our turn, recover from the files under a new epoch.

        FencedError: the turn was taken from us. Both happens where one process at a time can begin an epoch: either it is seen
        here, or our epoch is seen there, and what we do after that finds a newer one where it matters (recovery.recover).
        """
        with slot_lock(self._slot):
            self._turns.extend(_RECOVERING)
            self._turns.set_torn(torn or TORN)
            self._epoch = self._store.new_epoch(self._check_present)
            self._recover(forced=torn == FORCED)

    def _check_present(self) -> None:
        if not self._is_present():
            raise self._fenced()

    def _fenced(self) -> FencedError:
        return FencedError(
            f"prefix {self.name!r}: this process was stopped, or its transaction took too long, and another has taken over; "
            "nothing of the transaction is committed. Repeat it"
        )

    def _recover(self, *, forced: bool) -> None:
        try:
            try:
                self._take_over(forced=forced)
            except LeaseError:
                # A holder that was replaced is still writing its checkpoint. Its pages are its own; go on beside it.
                self._take_over(forced=True)
        except ClosedError:
            if self._closed:
                raise
            # Stopped in the middle, and replaced: the follower has gone on to the successor's slot and closed the
            # reader that this recovery uses.
            raise self._fenced() from None
        self._pending_cut = None
        self._hand_out()

    def _replace_holder(self, allowed: float) -> bool:
        """Take the prefix away from a holder that lives but is stopped or has overrun its time: fence its log file, leave the slot
        to it, and recover in a fresh one. False when the turn has moved on meanwhile.

        Not under the slot's lock, which the holder may have, stopped in the middle of a recovery.
        """
        old, seen, fresh = self._slot, self._turns.status(), self._slot

        def check() -> None:
            now = Turns(old).status()
            if (
                (now.word, now.turns) != (seen.word, seen.turns)
                or not overrun(self._segment, now, _SEEN)
                or not self._is_present()
            ):
                raise _MovedOn

        def leave(epoch: int) -> None:
            nonlocal fresh
            with self._segment.root_lock():
                old.retire(epoch)
                # Nobody finds the fresh slot before us.
                fresh = PrefixSlot.find_locked(self._segment, self._store.prefix, self._store.identity.file_id)
                Turns(fresh).seize(0, _RECOVERING)
                Turns(fresh).set_torn(FORCED)

        if not seen.word or not seen.lives or seen.word == self._turns.own_word:
            return False
        try:
            epoch = self._store.new_epoch(check, leave)
        except _MovedOn:
            return False
        try:
            self._find_slot()
            if not self._enter(fresh):
                Turns(fresh).drop()  # we were stopped, and replaced in our turn
                return False
            with slot_lock(self._slot):
                self._epoch = epoch
                self._recover(forced=True)
            self._turns.extend(allowed)
        except BaseException:
            if fresh.index != old.index:
                Turns(fresh).drop()
            raise
        self.writable = True
        return True

    def begin_writing(self) -> None:
        """Before anything of the slot or the files is changed in a turn."""
        self._turns.set_torn(TORN)

    def yield_turn(self) -> None:
        """Give the turn back. What was published is not necessarily durable yet (:meth:`await_durable`)."""
        self._end_turn()
        self._mine.release()

    def _end_turn(self, sound: bool = True) -> None:
        store, slot = self._store, self._slot
        whole = False
        with contextlib.suppress(Error):
            whole = (
                sound
                and self._sound
                and not store.poisoned
                and store.position[1] == slot.published
                and not slot.words().poisoned
            )
        if whole:
            self._note_place()
            self._turns.set_torn(0)
        else:
            self._turns.set_torn(TORN)
        self.writable = self._entered = False
        store.leave()
        self._turns.drop()

    def _note_place(self) -> None:
        place = self._store.place
        self._turns.set_place(*place)
        self._place = (self._epoch, *place)

    def rejoin(self, *, replaced: bool = False) -> bool:
        """When the slot began another incarnation, or was left to a replaced holder or with a page file that was compacted: go on
        with the prefix's present slot and file. True when it did.

        A recovery under way, by a thread of this process or by another one, is waited for; SegmentError when that takes longer than a minute.

        FencedError: in a turn that another process has taken away."""
        if self._closed:
            return super().rejoin(replaced=replaced)  # snapshots read on
        if self._detached or self._is_settled():
            return False
        end = time.monotonic() + _UNFILLED_PATIENCE
        while True:
            with self._lock:
                if self._closed or self._detached:
                    return False
                if self.writable and self._slot.incarnation != self._incarnation:
                    raise self._fenced()
                if not self._entered and self._try_settle(last=time.monotonic() > end):
                    return True
                if self._is_settled():
                    return True
            osthreads.sleep(0.005)  # without the lock: who is recovering wants it

    def _try_settle(self, last: bool = False) -> bool:
        """Under the lock, outside of turns: be in a slot that can be read. False: another process recovers it (SegmentError if `last`)."""
        try:
            self._find_slot()
            self._ensure_filled(0.0)
        except SegmentError:
            if last or self._is_settled():
                raise
            return False
        return True

    def waiter(self) -> Waiter:
        """For a thread that follows the prefix. What this process commits does not wake it."""
        return Waiter(self._slot, self._seen)

    def pause(self) -> float:
        """Longer while this process writes: each of its transactions begins at the newest state by itself."""
        before, self._made_before = self._made_before, self._made
        return PAUSE if before == self._made else _WRITERS_PAUSE

    def newest(self) -> tuple[int, int] | None:
        """(newest durable state, incarnation) to move the view to. None while another process recovers, and in a turn."""
        if self._closed:
            return super().newest()
        if self.writable:
            return None
        if not self._is_settled():
            with self._lock:
                if self._entered or not self._try_settle():
                    return None
        return self._newest_here()

    # --- committing ---------------------------------------------------------------------------------------------------

    def begin(self) -> Batch:
        """An empty batch for the next state; in a turn. FencedError when another process has taken that away."""
        if self.writable and self._slot.incarnation != self._incarnation:
            raise self._fenced()
        batch = super().begin()
        self.begin_writing()
        return batch

    def commit(self, batch: Batch) -> int:
        """Publish and wait until it is durable, without giving the turn back in between."""
        published = self.publish(batch)
        self.await_durable(published)
        return published.state

    def publish(self, batch: Batch) -> Published:
        """Make a sealed batch the newest published state, in a turn. It is durable after :meth:`await_durable`.

        Raises: as :meth:`commit`.
        """
        with self._commit_lock:
            self._report_checkpoint()
            if self._slot.incarnation != self._incarnation:
                raise self._fenced()
            address, end = batch.address, batch.address + len(batch.data())
            state = self._commit(batch)
            self._seen[0] = state
            self._made = state
            store = self._store
            published = Published(state, address, end, self._incarnation, store.position[0], store.identity.file_id)
            if self._store.log_size > LOG_LIMIT:
                try:
                    self._checkpoint_here()
                except Error as error:
                    self._checkpoint_error = error
            return published

    # --- the steps of a transaction across prefixes, in the turns of all of them ---------------------------------------

    def check_turn(self) -> None:
        self._turns.extend(self._allowed)  # as long as it is ours
        if self._slot.incarnation != self._incarnation:
            raise self._fenced()

    def poison(self) -> None:
        """What became of a transaction has to be asked for: the next holder of the turn does, we or another process."""
        self._sound = False

    def publish_batch(self, batch: Batch) -> None:
        super().publish_batch(batch)
        self._seen[0] = self._made = batch.state

    def after_commit(self) -> None:
        self.tidy()
        if self._store.log_size > LOG_LIMIT:
            try:
                self._checkpoint_here()
            except Error as error:
                self._checkpoint_error = error

    def _acknowledge(self, state: int, next_oid: int) -> None:
        self._fresh = next_oid
        self._changed = True

    def _begin_log(self, start: int, end: int, state: int) -> None:
        super()._begin_log(start, end, state)
        self._rotated(state)

    def _rotated(self, state: int) -> None:
        """A log file was begun: what stands in the ones before is durable, and syncs of those cover nothing newer."""
        self._note_place()
        self._slot.set_durable(state)

    def _cut(self, extra: int = 0) -> ckpt.Cut:
        cut = super()._cut(extra)
        self._rotated(cut.state)
        return cut

    def _start_checkpoint(self) -> None:
        raise AssertionError("shared writers make checkpoints in their turn")

    def checkpoint(self) -> None:
        """Bring the page file to the newest state and begin an empty log. In a turn."""
        with self._commit_lock:
            self._checkpoint_here()

    def _checkpoint_here(self) -> None:
        self._turns.extend(max(_RECOVERING, self._allowed))
        if self._pending_cut is None and self._slot.status().has_frozen:
            # Another process could not finish its checkpoint. The log has everything.
            self._recover_again(TORN)
            self.begin_writing()
        else:
            self._finish_pending()
            self._run_checkpoint(self._cut())
        self._turns.extend(self._allowed)
        self.after_checkpoint()

    # --- compaction, by one of the writers beside the others ----------------------------------------------------------

    @contextlib.contextmanager
    def upkeep(self, stop: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """A turn in which nothing is committed. TurnTimeoutError: `stop` said so."""
        self.acquire_turn(None, _RECOVERING, stop)
        try:
            self.begin_writing()
            yield
        finally:
            # Interrupted between the file's change of name and what follows: the next holder finds out.
            self._end_turn(sound=not self._store.replaced())
            self._mine.release()

    def begin_compaction(self) -> None:
        self._store.begin_compaction()

    def end_compaction(self) -> None:
        self._store.end_compaction()

    def _slots_left(self) -> list[PrefixSlot]:
        return [slot for slot, status in slots(self._segment) if status.retired and status.prefix_uuid == self.uuid]

    def _filling(self, slot: PrefixSlot) -> contextlib.AbstractContextManager[None]:
        return (
            contextlib.nullcontext()
        )  # what keeps others off is that the turn is ours there: see Prefix._ensure_filled

    def _prepare(self, slot: PrefixSlot, meta: Meta) -> None:
        """Whoever finds that slot waits for our turn there, and if we die recovers from the new file before anything else. If
        we are stopped and replaced, our pin keeps the slot from being used for anything else."""
        turns = Turns(slot)
        turns.set_torn(TORN)
        if not turns.seize(0, _RECOVERING):
            raise self._fenced()
        self._next_pin = Pin(slot, meta.state)
        turns.share_lease(self._epoch, True)

    def _give_back(self, slot: PrefixSlot) -> None:
        turns, pin = Turns(slot), self._next_pin
        if pin is not None:
            pin.close()
        self._next_pin = None
        with contextlib.suppress(FencedError):
            turns.share_lease(self._epoch, False)
        turns.drop()
        super()._give_back(slot)

    def _go_on_in(self, slot: PrefixSlot, meta: Meta) -> None:
        try:
            super()._go_on_in(slot, meta)
            self._note_place()
        finally:
            pin, self._next_pin = self._next_pin, None
            if pin is not None and self._pin is not None and self._pin.slot.index == slot.index:
                pin.close()

    def _leave(self, old: PrefixSlot) -> None:
        with self._segment.root_lock():
            with contextlib.suppress(FencedError):  # a successor has done it
                old.leave(self._epoch)
            self._ended.add(old.left)
        Turns(old).drop()

    def _broken(self, slot: PrefixSlot, exc: BaseException) -> None:
        """Nothing is lost: the slot is torn, and whoever has the next turn recovers from the new file."""

    # --- durability ---------------------------------------------------------------------------------------------------

    def await_durable(self, commit: Published) -> None:
        """Wait until a published commit is durable; sync for everybody if nobody else is at it. Not in need of the turn.

        Raises:
            PoisonedError: a sync failed, the outcome is unknown. FencedError: a successor recovered without it.
        """
        end = 0.0
        while True:
            answer = self._turns.sync_begin(commit.state, commit.incarnation, _PATIENCE)
            if answer == 1:
                break
            if answer == 2 or self._incarnation != commit.incarnation:
                self._find_out(commit)
                return
            try:
                if self._sync_for_all(commit):
                    self._mark(commit.state)
                    break
            except _Followed:
                end = end or time.monotonic() + _FOLLOWED
                if time.monotonic() > end:
                    raise FencedError(
                        f"prefix {self.name!r}: another process has taken over writing; what was not acknowledged is void. "
                        "Close and reopen it"
                    ) from None
                # Or who began that file died before it said so, and nobody else waits for the turn.
                with contextlib.suppress(TurnTimeoutError):
                    self.acquire_turn(_GLANCE)
                    self.yield_turn()
        self.tidy()

    def wait_durable(self, state: int) -> None:
        """The same for a state that another process published and this one has shown."""
        if self._slot.durable < state:
            self.await_durable(Published(state, 0, 0, self._incarnation, 0, 0))

    def _sync_for_all(self, commit: Published) -> bool:
        """Whether the commit is durable by it, and everything else that was published before the call."""
        turns, durable = self._turns, 0
        try:
            with self._store.syncing() as (number, sync):
                turns = self._turns  # the same until this is over
                slot = turns.slot
                # In this order: a file is entered in the slot before anything that stands in it is published.
                newest = slot.published
                if turns.log_number != number:
                    newest = commit.state if number >= commit.number > 0 else 0
                try:
                    sync()
                except PoisonedError:
                    slot.poison()
                    raise
                if newest and not self._unfollowed(number, commit):
                    raise _Followed
                durable = newest if slot.incarnation == commit.incarnation else 0
                turns.sync_end(durable)
                return durable >= commit.state
        finally:
            if not durable:
                turns.sync_end(0)

    def _unfollowed(self, number: int, commit: Published) -> bool:
        """Whether the log file was not continued behind our back.

        Who takes over by force creates the next file before reading this one. A file that one of us began is entered in the slot soon after it was created; a
        successor of this segment has retired the slot by then.
        """
        end = time.monotonic() + _SOON
        while self._store.followed(number):
            if self._turns.log_number != number or self._slot.incarnation != commit.incarnation:
                break
            if time.monotonic() > end:
                return False
            osthreads.sleep(0.002)
        return True

    def _mark(self, durable: int) -> None:
        """Note in the log what is durable, if nobody is about to write there."""
        if not self._mine.acquire(0.0):
            return
        try:
            turns = self._turns
            if turns.try_take(ALLOWED):
                try:
                    now = turns.status()
                    if not now.torn and (self._epoch, now.log_number, now.log_end, now.log_chain) == self._place:
                        self._store.mark_shared(self._epoch, durable)
                finally:
                    turns.drop()
        finally:
            self._mine.release()

    def _find_out(self, commit: Published) -> None:
        """The slot was poisoned or begun anew while we waited. Whoever recovered has our commit, or it is lost."""
        end = time.monotonic() + _UNRESOLVED
        while time.monotonic() < end:
            slot = self._slot
            if slot.incarnation == commit.incarnation and slot.durable >= commit.state:
                return
            if commit.incarnation in self._ended or slot.left == commit.incarnation:
                return  # it is in the compacted file
            if not slot.status().poisoned or slot.incarnation != commit.incarnation:
                with contextlib.suppress(
                    SegmentError, FencedError
                ):  # that of a turn that another thread of ours has lost
                    self.rejoin()
                slot = self._slot
                if slot.status().ready and slot.incarnation == self._incarnation != commit.incarnation:
                    if commit.address == 0 or (slot.durable >= commit.state and self._is_ours(commit)):
                        return
                    if commit.file_id != self._store.identity.file_id:
                        break  # recovered, then compacted: nothing tells whose that state is
                    raise FencedError(
                        f"prefix {self.name!r}: the commit of state {commit.state} was published, but a successor recovered without it; it is void"
                    )
            elif slot.incarnation == commit.incarnation:
                break
            osthreads.sleep(0.005)
        raise PoisonedError(
            f"prefix {self.name!r}: a sync of its log failed before the commit of state {commit.state} was durable: its outcome is unknown. "
            "Check the device; the next transaction recovers from the files"
        )

    def _is_ours(self, commit: Published) -> bool:
        with self._lock:
            version = self._reader.get(_COMMIT_LOG, commit.state)
        return version is not None and version.state == commit.state and commit.address <= version.address < commit.end

    # --- forks --------------------------------------------------------------------------------------------------------

    def after_fork(self) -> None:
        """In a forked child: no turn, no lock; reading goes on."""
        self.writable = self._entered = False
        super().after_fork()
        self._mine = FairLock()
        self._place = None

    def attach(self) -> None:
        """In a forked child whose segment was rejoined: one of the shared writers again, unless an exclusive one has come."""
        self._store.share_again()
        super().attach()


@contextlib.contextmanager
def hold_turn(segment: Segment, store: LocalFileStore) -> Iterator[bool | None]:
    """While this process has the turn of a prefix that is open shared; see :data:`dbzero.storage.decisions.Hold`."""
    if not store.shared_in(segment.identity):
        yield None
        return
    try:
        prefix = SharedPrefix.share(segment, store.root, store.prefix)
    except LeaseError:
        yield None
        return
    try:
        turns = Turns(prefix._slot)
        if turns.own_word and turns.status().word == turns.own_word:
            yield True  # another thread has it, or we do, further up
            return
        try:
            prefix.acquire_turn(_GLANCE, _RECOVERING)
        except TurnTimeoutError:
            yield False
            return
        try:
            yield True
        finally:
            prefix.yield_turn()
    finally:
        prefix.close()


shared_hooks.hold = hold_turn


def prefix_is_shared(segment: Segment, root: str, name: str) -> bool:
    """Whether processes that share this segment have the prefix open for shared writing."""
    store = LocalFileStore.open(root, name, writable=False)
    try:
        return store.shared_in(segment.identity)
    finally:
        store.close()


__all__ = ["ALLOWED", "Published", "SharedPrefix", "prefix_is_shared"]
