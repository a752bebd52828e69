"""Sleeping until something was committed: by a process of this segment (futex), or by one that shares none (inotify
on the log files)."""

from __future__ import annotations

import os
import time
from typing import Any, Final, NamedTuple

from dbzero import errors
from dbzero._engine import ffi, lib
from dbzero.runtime import codes
from dbzero.runtime.segment import Segment
from dbzero.runtime.slot import PrefixSlot

_SLICE: Final = 3600.0


def wait_durable(slot: PrefixSlot, state: int, incarnation: int, timeout: float | None = None) -> bool:
    """Sleep until a state newer than `state` is durable or the incarnation is another one. False on timeout (seconds).

    Sleeps in the kernel without the GIL; signals are handled (KeyboardInterrupt comes
    through). ClosedError when the segment is closed meanwhile.
    :meth:`PrefixSlot.wake` does not end it: use :class:`Followed` for that.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    while slot.durable <= state and slot.incarnation == incarnation:
        left = _SLICE if deadline is None else deadline - time.monotonic()
        if left <= 0:
            return False
        with slot.segment.sleeping(slot.index) as handle:
            lib.dbz_wait(handle, slot.index, state, incarnation, int(left * 1e9))
    return True


class Watched(NamedTuple):
    """What somebody who follows a prefix sleeps on."""

    slot: PrefixSlot
    made: Any = ffi.NULL  # a cffi `uint64_t *` to the newest state that this process made: those are nothing new to it
    rest: float = 0.0  # seconds for which it is left alone after one of those


class Followed:
    """Several prefixes of one segment for one thread that follows them: `note` each, then `sleep`, again and again.

    A :meth:`PrefixSlot.wake` after a prefix was noted ends the sleep at once, whether it has begun or not.
    """

    __slots__ = ("_count", "_first", "_items", "_kept", "_prefixes", "_segment")

    def __init__(self, segment: Segment, count: int) -> None:
        """count: of prefixes, at most :func:`most`."""
        self._segment = segment
        self._count = count
        self._first = 0
        self._prefixes: list[int] = []
        self._items = ffi.new("dbz_following[]", count)
        self._kept: list[Watched | None] = [None] * count

    def note(self, place: int, watched: Watched, shown: tuple[int, int], due: float, again: float) -> None:
        """Before anything is looked at: the prefix at a place, the (state, incarnation) that is shown, the monotonic time before which it
        is left alone, and the one from which it is news by itself."""
        slot, item = watched.slot, self._items[place]
        kept, self._kept[place] = self._kept[place], watched  # the words are not to go
        if kept is None or kept.slot is not slot:
            item.prefix = slot.index
            self._prefixes = [one.slot.index for one in self._kept if one is not None]
        item.ticket = slot.ticket
        item.durable = slot.durable
        item.made = watched.made
        item.state, item.incarnation = shown
        item.due, item.again, item.rest = int(due * 1e9), int(again * 1e9), int(watched.rest * 1e9)

    def sleep(self) -> int | None:
        """Until there is news; the place. None: there may be something else to do. ClosedError when the segment is closed.

        Sleeps in the kernel without the GIL.
        """
        with self._segment.sleeping(*self._prefixes) as handle:
            place = int(lib.dbz_follow(handle, self._items, self._count, self._first))
        if place >= 0:
            self._first = place + 1  # none with news all the time hides the others
            return place
        if place != codes.TIMEOUT:
            codes.check(place, f"root {self._segment.root}: follow {self._count} prefixes", self._segment.errno())
        return None


def most() -> int:
    """How many prefixes one thread can follow: 128, or 1 where the kernel does not know futex_waitv (Linux 5.16)."""
    return int(lib.dbz_follow_most())


class DirectoryWatch:
    """Notices that files in a directory change. Works between containers of one machine, not between machines."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Raises StorageError (no such directory, or the user's inotify limit is reached)."""
        self.directory: Final = os.fspath(directory)
        self._fd: int = lib.dbz_watch_open(ffi.new("char[]", os.fsencode(self.directory)))
        if self._fd < 0:
            raise errors.StorageError(f"watch directory {self.directory}: {os.strerror(ffi.errno)}")

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep until a file was written, created, renamed or deleted since the last call. False on timeout
        (seconds)."""
        if self._fd < 0:
            raise errors.ClosedError(f"the watch on {self.directory} is closed")
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = -1.0 if deadline is None else max(0.0, deadline - time.monotonic())
            code = lib.dbz_watch_wait(self._fd, -1 if left < 0 else int(left * 1e9))
            if code == codes.TIMEOUT:
                return False
            if code < 0:
                raise errors.StorageError(f"watch directory {self.directory}: {os.strerror(ffi.errno)}")
            return True

    def close(self) -> None:
        """Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> DirectoryWatch:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
