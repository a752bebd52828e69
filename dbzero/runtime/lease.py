"""The write lease as the segment sees it, and locks on open file descriptions.

What decides who may write is the lock on the prefix's lock file (it works across segments and dies with its holder);
the store takes it. The word in the slot fences: a
holder that was replaced cannot publish any more.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Final

from dbzero import errors
from dbzero._engine import ffi, lib
from dbzero.runtime import codes, fork
from dbzero.runtime.slot import PrefixSlot

NO_SLOT: Final = 0xFFFF
GROUP: Final = 0xFFFE  # shared writers hold it together, see dbzero.runtime.turns
_SLICE: Final = 0.2  # seconds of sleep between looks at signals and a closing segment


class SlotLease:
    """The lease word of one prefix slot. Take it after the file lock, drop it before."""

    __slots__ = ("slot",)

    def __init__(self, slot: PrefixSlot) -> None:
        self.slot: Final = slot

    def take(self, epoch: int, *, force: bool = False) -> None:
        """Take the word for `epoch` and move the published word to it.

        Args:
            epoch: greater than every earlier one; the same again after a clean hand-over.
            force: replace a holder that is not known to be dead (afterwards: :meth:`PrefixSlot.retire`, not this
                slot again).
        Raises:
            LeaseError: a live process holds it. FencedError: a newer epoch is there.
        """
        slot = self.slot
        code = lib.dbz_lease_take(slot.segment.handle, slot.index, epoch, force)
        if code == codes.BUSY:
            raise errors.LeaseError(
                f"prefix {slot.prefix!r}: {self.holder()} holds the write lease; close it there, wait, "
                "or take it over with force"
            )
        codes.check(code, f"prefix {slot.prefix!r}: take the lease for epoch {epoch}")

    def drop(self, epoch: int) -> bool:
        """Give the word back and wake who waits for it. False when it was not (any more) this epoch's and this
        process's."""
        return bool(lib.dbz_lease_drop(self.slot.segment.handle, self.slot.index, epoch) == codes.OK)

    @property
    def word(self) -> int:
        """Epoch << 16 | process slot + 1."""
        return int(lib.dbz_lease_word(self.slot.segment.handle, self.slot.index))

    @property
    def epoch(self) -> int:
        return self.word >> 16

    @property
    def owner(self) -> int:
        """Process slot of the holder; -1: free, 65534: a process without a slot. It may be dead."""
        return (self.word & 0xFFFF) - 1

    def holder(self) -> str:
        """The holder in words, for messages."""
        owner = self.word & 0xFFFF
        if owner == 0:
            return "nobody"
        if owner == NO_SLOT:
            return "a process"
        if owner == GROUP:
            return "a group of shared writers"
        info = ffi.new("dbz_proc_info *")
        if lib.dbz_proc_status(self.slot.segment.handle, owner - 1, info) != codes.OK or not info.live:
            return "a process that has ended"
        return f"process {info.pid}"

    def wait(self, timeout: float) -> bool:
        """Sleep until the word is dropped or taken by another, at most `timeout` seconds. True when it moved.

        A holder's death moves nothing: wait in slices, and try the file lock in between.
        """
        word, deadline = self.word, time.monotonic() + timeout
        while word & 0xFFFF != 0 and self.word == word:
            left = min(deadline - time.monotonic(), _SLICE)
            if left <= 0:
                return False
            with self.slot.segment.sleeping(self.slot.index) as handle:
                lib.dbz_lease_wait(handle, self.slot.index, word, int(left * 1e9))
        return True


class LockFile:
    """Byte locks on an open file description of its own. Dropped by the kernel when the process ends; not inherited
    by forked children.

    Args of :meth:`open`: `path`; created with mode 0666 less the umask when missing.
    """

    def __init__(self, path: str, fd: int) -> None:
        self.path: Final = path
        self._fd = fd
        self._depth: Final = fork.depth()

    @classmethod
    def open(cls, path: str) -> LockFile:
        """StorageError when the file can't be opened for writing."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as exc:
            raise errors.StorageError(f"lock file {path}: {exc.strerror}") from exc
        try:
            fork.guard(fd)
        except BaseException:
            os.close(fd)
            raise
        return cls(path, fd)

    @property
    def fd(self) -> int:
        """The descriptor; ForkedError in a forked child, where it is closed."""
        if self._depth != fork.depth():
            raise errors.ForkedError(
                f"lock file {self.path} was opened before the fork: open the prefix again in the child"
            )
        return self._fd

    def acquire(self, byte: int = 0, *, shared: bool = False, timeout: float | None = 0.0) -> bool:
        """Lock one byte. Waits at most `timeout` seconds (None: for ever), in slices, so that signals are handled.
        False when it stays taken."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _SLICE if deadline is None else min(_SLICE, max(0.0, deadline - time.monotonic()))
            code = lib.dbz_lock_wait(self.fd, byte, 1, not shared, int(left * 1e9))
            if code == codes.OK:
                return True
            if code != codes.TIMEOUT:
                raise errors.StorageError(
                    f"lock file {self.path}: {os.strerror(ffi.errno)}; use a file system that can lock"
                )
            if deadline is not None and time.monotonic() >= deadline:
                return False

    def release(self, byte: int = 0) -> None:
        """Unlock one byte."""
        lib.dbz_lock_drop(self.fd, byte, 1)

    def taken(self, byte: int = 0) -> bool:
        """Whether somebody else holds a lock on the byte."""
        return bool(lib.dbz_lock_taken(self.fd, byte, 1) == 1)

    def close(self) -> None:
        """Drop all locks and close. Idempotent; nothing happens in a forked child."""
        fd, self._fd = self._fd, -1
        if fd >= 0 and self._depth == fork.depth():
            fork.unguard(fd)
            with contextlib.suppress(OSError):
                os.close(fd)

    def __enter__(self) -> LockFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
