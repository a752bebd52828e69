"""Durability of commits that were published in turns: after its turn, one of those whose commits wait syncs for all of them."""

from __future__ import annotations

import contextlib
import time
from typing import Final

from msgspec import Struct

from dbzero.errors import (
    FencedError,
    PoisonedError,
    SegmentError,
    TurnTimeoutError,
)
from dbzero.runtime import osthreads
from dbzero.storage.turntaking import ALLOWED, TurnTaking

_TIDY_EVERY: Final = 16  # states; who follows, as this process does, tidies up in quiet times
_PATIENCE: Final = 0.05  # seconds to wait for another process's sync before doing it oneself
_UNRESOLVED: Final = 30.0  # seconds to wait for what became of a commit whose successor has taken over
_COMMIT_LOG: Final = 2  # OID
_SOON: Final = 0.2  # seconds in which who begins a log file says so in the slot
_FOLLOWED: Final = 5.0  # seconds after which a log file that nobody answers for is an exclusive writer's
GLANCE: Final = 1.0  # seconds to wait for the turn of another prefix: long enough to see that its holder is stopped


class _Followed(Exception):
    """The log file that was synced has a successor of which the slot does not say where it comes from."""


class Published(Struct, frozen=True):
    """A commit that the next holder of the turn builds on, and that is not known to be durable yet."""

    state: int
    address: int  # its data is at [address, end)
    end: int
    incarnation: int
    number: int  # log file of its frame
    file_id: int  # page file that its data is in


class GroupSync(TurnTaking):
    """A prefix whose commits, published in turns, are waited for outside of them."""

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
                    self.acquire_turn(GLANCE)
                    self.yield_turn()
        if commit.state % _TIDY_EVERY == 0:
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
                if slot.log_number != number:
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
            if self._slot.log_number != number or self._slot.incarnation != commit.incarnation:
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
                    now = turns.slot.now()
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
