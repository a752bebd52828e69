"""Sleeping until something was committed: by a process of this segment (futex), or by one that shares none (inotify
on the log files)."""

from __future__ import annotations

import os
import time
from typing import Any, Final

from dbzero import errors
from dbzero._engine import ffi, lib
from dbzero.runtime import codes
from dbzero.runtime.native import persistent
from dbzero.runtime.slot import PrefixSlot

_SLICE: Final = 3600.0


def wait_durable(slot: PrefixSlot, state: int, incarnation: int, timeout: float | None = None) -> bool:
    """Sleep until a state newer than `state` is durable or the incarnation is another one. False on timeout (seconds).

    Sleeps in the kernel without the GIL; signals are handled (KeyboardInterrupt comes
    through). ClosedError when the segment is closed meanwhile.
    :meth:`PrefixSlot.wake` does not end it: use :class:`Waiter` for that.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    while slot.durable <= state and slot.incarnation == incarnation:
        left = _SLICE if deadline is None else deadline - time.monotonic()
        if left <= 0:
            return False
        with slot.segment.sleeping(slot.index) as handle:
            lib.dbz_wait(handle, slot.index, state, incarnation, int(left * 1e9))
    return True


class Waiter:
    """For a thread that follows a prefix until it is told to stop.

    `waiter.ready(); if stop: break; waiter.sleep(...)`: a :meth:`PrefixSlot.wake` after `ready` ends the sleep at
    once, whether it has begun or not.
    """

    __slots__ = ("_seen", "_ticket", "slot")

    def __init__(self, slot: PrefixSlot, seen: Any = None) -> None:
        """seen: of a process that makes states itself: a cffi `uint64_t *` to the newest it made. Those do not end the sleep."""
        self.slot: Final = slot
        self._seen = seen
        self._ticket = 0
        self.ready()

    def ready(self) -> None:
        """Note the wake-ups there have been."""
        self._ticket = persistent.ticket(self.slot.segment.words, self.slot.index)

    def sleep(self, state: int, incarnation: int, timeout: float | None = None, pause: float = 0.0) -> bool:
        """Sleep until durable > `state`, another incarnation, a wake-up since :meth:`ready`, a signal, or the
        timeout. False only for the timeout.

        pause: seconds to sleep first whatever happens, so that commits one behind the other wake it once."""
        nanoseconds = -1 if timeout is None else max(0, int(timeout * 1e9))
        seen = ffi.NULL
        if self._seen is not None:
            seen = self._seen
            seen[0] = max(seen[0], state)
        slot = self.slot
        with slot.segment.sleeping(slot.index) as handle:
            code = lib.dbz_follow(
                handle, slot.index, self._ticket, state, seen, incarnation, int(pause * 1e9), nanoseconds
            )
        return bool(code != codes.TIMEOUT)


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
