"""Taking the turn to write a prefix that is open shared, and ending it.

Who wants to write takes the turn, brings itself to what was published last, and gives the turn back when its own commit is published. A
turn that ended badly - its holder died, or was replaced because it was stopped or took too long - leaves the slot marked torn.
Whoever gets the next turn recovers from the files under a new epoch before anything else. The argument is in docs/design.md,
section 3.3.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from dbzero._engine import ffi
from dbzero.errors import (
    ClosedError,
    Error,
    FencedError,
    FileReplacedError,
    ForkedError,
    LeaseError,
    SegmentError,
    TurnTimeoutError,
)
from dbzero.runtime import osthreads
from dbzero.runtime.lease import GROUP
from dbzero.runtime.segment import Segment
from dbzero.runtime.slot import PrefixSlot
from dbzero.runtime.starting import slot_lock
from dbzero.runtime.turns import FORCED, TORN, FairLock, Outcome, Turns, TurnStatus, overrun
from dbzero.runtime.watching import Watched
from dbzero.storage.filestore import LocalFileStore
from dbzero.storage.prefix import Prefix
from dbzero.storage.reading import PATIENCE

ALLOWED: Final = 10.0  # seconds that a turn may last unless its holder says otherwise
RECOVERING: Final = 120.0  # the same for one that recovers or checkpoints
_WRITERS_PAUSE: Final = 0.001  # as for a reader, for a process that is writing itself; twice as much each time, up to
_WRITERS_LONGEST_PAUSE: Final = 0.01
_WRITERS_REST: Final = 0.002  # when it is the only one that writes
_SEEN: Final = 1.0  # seconds: its holder was seen to have the turn for long enough, by who wants to replace it


class _MovedOn(Exception):
    """The turn is not the overrunning holder's any more."""


class TurnTaking(Prefix):
    """A prefix that this process may write in turns with others. `writable` only during a turn."""

    shared = True

    def __init__(self, segment: Segment, store: LocalFileStore, slot: PrefixSlot, epoch: int) -> None:
        super().__init__(segment, store, slot, epoch)
        self.writable = False
        self._mine = FairLock()  # which of this process's threads has, or waits for, the turn
        self._seen = ffi.new("uint64_t *")  # newest state made here
        self._made = self._made_before = 0  # that as well, now and at the last pause()
        self._place: tuple[int, int, int, int] | None = None  # epoch and end of the log when our last turn ended
        self._writers_pause = _WRITERS_PAUSE
        self._allowed = ALLOWED  # seconds that our turn may last
        self._entered = False  # the turn is ours, if only to recover: no other thread moves us to another slot
        self._given = False  # other processes may have the turn already, which for our threads has not ended
        self._sound = True  # whether the next holder may go on from where our turn leaves the log
        self._known_turns = Turns(slot)
        self._ended: set[int] = set()  # incarnations left with all that was published in them, for a compacted file

    # --- turns --------------------------------------------------------------------------------------------------------

    @property
    def _turns(self) -> Turns:
        known = self._known_turns
        if known.slot is not self._slot:
            known = self._known_turns = Turns(self._slot)
        return known

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
                except Error:
                    # What went wrong in a slot that another process has taken from us meanwhile does not matter.
                    if self._is_present():
                        raise
                if outcome is Outcome.RETIRED and self._slot.incarnation == self._incarnation:
                    self._change_slot()  # we came to it when it was left already
                self._entered = False
                if outcome is Outcome.MINE:
                    turns.drop()
        except BaseException as error:
            # What is not ours may be our follower's, who fills a slot in a turn of its own. A signal's handler may have raised right behind the wait.
            held = self._entered or not isinstance(error, Error)
            self.writable = self._entered = False
            self._store.leave()
            if held:
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

    def _is_present(self) -> bool:
        """Whether our slot is the prefix's. It stays so under the slot's lock; and a slot that we have pinned is nobody else's."""
        return self._present_slot().index == self._slot.index and self._slot.incarnation == self._incarnation

    def _settle(self, allowed: float) -> None:
        """The turn is ours. Recover what its last holder left torn; otherwise take the log over where it ends."""
        now = self._slot.now()
        if now.torn or now.poisoned or not now.ready or now.owner != GROUP:
            self._recover_again(now.torn)
            self._turns.extend(allowed)
        else:
            place = (now.epoch, now.log_number, now.log_end, now.log_chain)
            self._epoch = now.epoch
            self._store.enter(
                epoch=now.epoch,
                number=now.log_number,
                end=now.log_end,
                state=now.state,
                chain=now.log_chain,
                next_oid=now.next_oid,
            )
            if not self._is_settled():
                self._renew_reader()  # the one who recovered the slot has just made it ready
            if place != self._place:
                self._limit = self._store.data_limit
                self._fresh = now.next_oid  # others may have stored every OID that was given out
                self._pending_cut = None
        self.writable = True

    def _recover_again(self, torn: int) -> None:
        """In our turn, recover from the files under a new epoch.

        FencedError: the turn was taken from us. Both happens where one process at a time can begin an epoch: either it is seen
        here, or our epoch is seen there, and what we do after that finds a newer one where it matters (recovery.recover).
        """
        with slot_lock(self._slot):
            self._turns.extend(RECOVERING)
            self._turns.set_torn(torn or TORN)
            self._epoch = self._store.new_epoch(self._check_present)
            self._recover(forced=torn == FORCED)

    def _check_present(self) -> None:
        if not self._is_present():
            raise self._fenced()

    def _check_slot(self) -> None:
        """In a turn, which another process may have taken away. FencedError."""
        if self._slot.incarnation != self._incarnation:
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
                Turns(fresh).seize(0, RECOVERING)
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
        self._slot.turn_torn(TORN)

    def hand_over(self) -> None:
        """Let the next process have the turn, everything being published. In this process it lasts until :meth:`yield_turn`."""
        self._give_turn()
        self._given = True

    def yield_turn(self) -> None:
        """Give the turn back. What was published is not necessarily durable yet (:meth:`await_durable`)."""
        self._end_turn()
        self._mine.release()

    def _end_turn(self, sound: bool = True) -> None:
        given, self._given = self._given, False
        if not given:
            self._give_turn(sound)
        self.writable = self._entered = False

    def _give_turn(self, sound: bool = True) -> None:
        """May be repeated: a signal's handler may raise anywhere in it."""
        store = self._store
        try:
            now = self._slot.now()
            whole = sound and self._sound and not store.poisoned and store.appended == now.state and not now.poisoned
        except Error:
            whole = False
        turns = self._turns
        store.leave()
        if whole:
            place = store.place
            self._place = (self._epoch, *place)
            turns.end(*place)
        elif turns.slot.now().turn == turns.own_word:
            turns.set_torn(TORN)
            turns.drop()

    def _note_place(self) -> None:
        place = self._store.place
        self._turns.set_place(*place)
        self._place = (self._epoch, *place)

    def rejoin(self, *, replaced: bool = False, patience: float = PATIENCE) -> bool:
        """When the slot began another incarnation, or was left to a replaced holder or with a page file that was compacted: go on
        with the prefix's present slot and file. True when it did.

        A recovery under way, by a thread of this process or by another one, is waited for; SegmentError when that takes longer than `patience` seconds.

        FencedError: in a turn that another process has taken away."""
        if self._closed:
            return super().rejoin(replaced=replaced, patience=patience)  # snapshots read on
        if self._detached or self._is_settled():
            return False
        end = time.monotonic() + patience
        while True:
            with self._lock:
                if self._closed or self._detached:
                    return False
                if self.writable:
                    self._check_slot()
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

    def watched(self) -> Watched:
        """For a thread that follows the prefix. What this process commits does not wake it."""
        return Watched(self._slot, self._seen, _WRITERS_REST)

    def pause(self, moved: bool) -> float:
        """Longer and longer while this process writes: each of its transactions begins at the newest state by itself."""
        before, self._made_before = self._made_before, self._made
        if before == self._made:
            self._writers_pause = _WRITERS_PAUSE
            return super().pause(moved)
        pause, self._writers_pause = self._writers_pause, min(2 * self._writers_pause, _WRITERS_LONGEST_PAUSE)
        return pause

    def newest(self, patience: float = PATIENCE) -> tuple[int, int] | None:
        """(newest durable state, incarnation) to move the view to. None while another process recovers, and in a turn."""
        if self._closed:
            return super().newest(patience)
        if self.writable:
            return None
        if not self._is_settled():
            with self._lock:
                if self._entered or not self._try_settle():
                    return None
        return self._newest_here()

    def _hand_out(self) -> None:
        """After a recovery: the lease is everybody's again."""
        self._turns.share_lease(self._epoch, True)
        self._note_place()
        self._turns.set_torn(0)
