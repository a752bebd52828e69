"""Turns: which of the processes that share the writing of a prefix may write just now.

The words and the argument are in ``csrc/segment.h`` at dbz_prefix; here are their typed face and the waiting, in slices, so
that signals are handled and the dead are noticed.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Final

from msgspec import Struct

from dbzero import errors
from dbzero._engine import ffi, lib
from dbzero.runtime import codes, osthreads, registry
from dbzero.runtime.segment import Segment
from dbzero.runtime.slot import PrefixSlot

_SLICE: Final = 0.1  # seconds of sleep between looks at signals and at whether the holder lives
_STOPPED: Final = 0.5  # seconds to see a stopped process have the turn before it is replaced
_UNKNOWN: Final = 10.0  # seconds that a holder which never said how long it may stay is left alone
TORN: Final = 1
FORCED: Final = 2
_QUEUE: Final = 64


class TurnStatus(Struct, frozen=True):
    """The words of a slot that concern turns, each as of its own load."""

    word: int  # whose turn it is, 0: nobody's
    pid: int
    lives: bool  # the holder; True as well when there is none
    turns: int  # begun so far
    left: float | None  # seconds until the holder may be replaced (negative: it may be); None: it has not said
    waiting: int
    torn: int  # 0: the last holder gave the turn back in good order
    log_number: int
    log_end: int
    log_chain: int


def overrun(segment: Segment, turn: TurnStatus, seen: float) -> bool:
    """Whether the holder of a turn in a slot of `segment`, which has been seen to have it for `seen` seconds, may be replaced: its time is over, or it
    never said how much it has, or it is stopped."""
    if turn.left is None:
        return seen > _UNKNOWN
    return turn.left < 0 or (seen > _STOPPED and registry.is_stopped(segment, turn.pid))


class Outcome(Enum):
    """How a wait for the turn ended."""

    MINE = 1  # the turn is this process's
    OVERRUN = 2  # its holder lives, but has had it for longer than allowed
    RETIRED = 3  # the slot is not the prefix's any more
    TIMEOUT = 4


class Turns:
    """The turn of one prefix slot, as one thread of this process at a time wants it."""

    __slots__ = ("slot",)

    def __init__(self, slot: PrefixSlot) -> None:
        self.slot: Final = slot

    def status(self) -> TurnStatus:
        i = ffi.new("dbz_turn_info *")
        slot = self.slot
        code = lib.dbz_turn_status(slot.segment.handle, slot.index, i)
        if code:
            codes.check(code, f"prefix {slot.prefix!r}: turn")
        left = (i.until - i.now) / 1e9 if i.until else None
        return TurnStatus(
            i.turn, i.pid, i.holder != 2, i.turns, left, i.waiting, i.torn, i.log_number, i.log_end, i.log_chain
        )

    def queue(self) -> list[int]:
        """Process ids of those that wait, the earliest first."""
        out = ffi.new("uint32_t[]", _QUEUE)
        n = lib.dbz_turn_queue(self.slot.segment.handle, self.slot.index, out, _QUEUE)
        return ffi.unpack(out, n) if n > 0 else []

    def try_take(self, allowed: float) -> bool:
        """Take the turn if it is free and nobody waits for it. allowed: seconds it may be kept."""
        code = self.slot.turn_try(int(allowed * 1e9))
        return code == codes.OK or (code not in (codes.BUSY, codes.FENCED) and self._failed(code))

    def seize(self, word: int, allowed: float) -> bool:
        """Take the turn from a process found dead (`word`), or from nobody (0), past those who wait."""
        code = lib.dbz_turn_seize(self.slot.segment.handle, self.slot.index, word, int(allowed * 1e9))
        return code == codes.OK or (code != codes.BUSY and self._failed(code))

    def extend(self, allowed: float) -> None:
        """Be allowed `allowed` seconds from now on. FencedError: it is not our turn."""
        self._failed(lib.dbz_turn_extend(self.slot.segment.handle, self.slot.index, int(allowed * 1e9)))

    def drop(self) -> bool:
        """Give the turn back and wake the next. False: it was not ours any more."""
        return bool(lib.dbz_turn_drop(self.slot.segment.handle, self.slot.index) == codes.OK)

    def end(self, number: int, end: int, chain: int) -> bool:
        """:meth:`drop` in good order: the log ends there, and the next holder has nothing to recover."""
        return bool(self.slot.turn_end(number, end, chain) == codes.OK)

    def set_torn(self, torn: int) -> None:
        """Note that the next holder has to recover (0: has not to)."""
        self.slot.turn_torn(torn)

    def set_place(self, number: int, end: int, chain: int) -> None:
        """Where the log ends."""
        lib.dbz_log_place(self.slot.segment.handle, self.slot.index, number, end, chain)

    @property
    def own_word(self) -> int:
        """The word of a turn that this process has; 0: it has no slot."""
        handle = self.slot.segment.handle
        return handle.generation << 16 | (handle.slot + 1) if handle.slot >= 0 else 0

    def share_lease(self, epoch: int, on: bool) -> None:
        """Hand the lease word that we hold to all shared writers, or take it back. FencedError."""
        self._failed(lib.dbz_lease_share(self.slot.segment.handle, self.slot.index, epoch, on))

    def _failed(self, code: int) -> bool:
        if code == codes.FULL and self.slot.segment.inherited:
            raise errors.ForkedError(
                f"prefix {self.slot.prefix!r}: this process was forked from one that has it open, and could not become a writer: the fork "
                "did not run Python's hooks (uwsgi runs them with --py-call-uwsgi-fork-hooks, and needs none with --lazy-apps), or the shared "
                "segment is gone; call db0.close() and db0.init() here"
            )
        if code == codes.FULL:
            raise errors.SegmentError(
                f"prefix {self.slot.prefix!r}: this process has no slot in the shared segment (4096 processes are attached), "
                "so it cannot write; close some of them"
            )
        codes.check(code, f"prefix {self.slot.prefix!r}: take the turn", self.slot.segment.errno())
        return False

    # --- waiting ------------------------------------------------------------------------------------------------------

    def wait(self, deadline: float | None, allowed: float, stop: Callable[[], bool] = lambda: False) -> Outcome:
        """Line up and sleep until the turn is ours.

        Args:
            deadline: monotonic time to give up at, None: never. allowed: seconds it may be kept. stop: asked now and then whether
                to give up.
        Sleeps in the kernel without the GIL, on a word that is woken for this waiter alone. A dead holder's turn is taken at once when
        that is noticed (within 0.1 s).
        """
        if self.try_take(allowed):
            return Outcome.MINE
        slot = self.slot
        entry = self._join(deadline)
        if entry < 0:
            return Outcome.TIMEOUT
        first_seen: tuple[int, int] | None = None
        since = 0.0
        try:
            while True:
                left = _SLICE if deadline is None else min(_SLICE, max(0.0, deadline - time.monotonic()))
                with slot.segment.sleeping(slot.index) as handle:
                    code = lib.dbz_turn_wait(handle, slot.index, entry, int(allowed * 1e9), int(left * 1e9))
                if code == codes.OK:
                    entry = -1
                    return Outcome.MINE
                if code == codes.FENCED:
                    return Outcome.RETIRED
                if code != codes.TIMEOUT:
                    self._failed(code)
                now = self.status()
                if now.word and not now.lives and self.seize(now.word, allowed):
                    return Outcome.MINE
                if now.word and (now.word, now.turns) != first_seen:
                    first_seen, since = (now.word, now.turns), time.monotonic()
                if now.word and overrun(self.slot.segment, now, time.monotonic() - since):
                    return Outcome.OVERRUN
                if stop() or (deadline is not None and time.monotonic() >= deadline):
                    return Outcome.TIMEOUT
                lib.dbz_turn_sweep(slot.segment.handle, slot.index)
        finally:
            if entry >= 0 and not slot.segment.closed:
                lib.dbz_turn_leave(slot.segment.handle, slot.index, entry)

    def _join(self, deadline: float | None) -> int:
        """A place in the line; with more than 64 processes in it the rest waits for one without order. -1: timeout."""
        while True:
            entry = int(lib.dbz_turn_join(self.slot.segment.handle, self.slot.index))
            if entry >= 0:
                return entry
            if entry != codes.FULL or self.slot.segment.slot < 0:
                self._failed(entry)
            if deadline is not None and time.monotonic() >= deadline:
                return -1
            lib.dbz_turn_sweep(self.slot.segment.handle, self.slot.index)
            osthreads.sleep(0.005)

    # --- durability for everybody -------------------------------------------------------------------------------------

    def sync_begin(self, state: int, incarnation: int, patience: float) -> int:
        """0: sync now, for everybody, then :meth:`sync_end`. 1: `state` is durable. 2: the slot was poisoned or began anew."""
        slot = self.slot
        with slot.segment.sleeping(slot.index) as handle:
            code = int(lib.dbz_sync_begin(handle, slot.index, state, incarnation, int(patience * 1e9)))
        return code if code >= 0 else int(self._failed(code))

    def sync_end(self, state: int) -> None:
        """`state` is durable (0: the sync failed): wake who waits for it."""
        lib.dbz_sync_end(self.slot.segment.handle, self.slot.index, state)


class FairLock:
    """A mutex whose waiters get it in order of arrival. Not reentrant."""

    def __init__(self) -> None:
        self._guard = osthreads.Lock()
        self._taken = False
        self._line: deque[threading.Lock] = deque()

    def acquire(self, deadline: float | None, stop: Callable[[], bool] = lambda: False) -> bool:
        """Wait until the monotonic time `deadline` (None: for ever), or until `stop`, asked now and then, says so. False: it is taken
        still."""
        with self._guard:
            if not self._taken:
                self._taken = True
                return True
            if deadline is not None and deadline <= time.monotonic():
                return False
            mine = osthreads.Lock()
            mine.acquire()
            self._line.append(mine)
        try:
            got = False
            while not got and not stop():
                left = _SLICE if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    break
                got = mine.acquire(timeout=min(_SLICE, left))
        except BaseException:
            self._give_up(mine)
            raise
        return got or not self._give_up(mine, keep=True)

    def _give_up(self, mine: threading.Lock, *, keep: bool = False) -> bool:
        """Out of the line. False: it was handed over meanwhile (`keep`: then we have it; else it is passed on)."""
        with self._guard:
            if mine in self._line:
                self._line.remove(mine)
                return True
        if not keep:
            self.release()
        return False

    def release(self) -> None:
        with self._guard:
            if self._line:
                self._line.popleft().release()
            else:
                self._taken = False
