"""The lock file of a prefix: the write lease, and the locks for checkpoints and for creation.

Shared writers have the lease together: each holds a read lock on its byte, so they and an exclusive writer keep each other
out. Which segment they share stands in the content: the turn that decides between them is a word in it.

Every lock is an open-file-description lock on one byte, so that it dies with its process. The lease's byte moves on
with every forced takeover; the *generation* in the file's content says which it is. Beside that the content names the
newest epoch and who wrote it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Final

from .. import errors
from . import names
from .syscalls import System, read_exact, storage_error, typed, write_all

_CHECKPOINT_BYTE: Final = 1
_CREATE_BYTE: Final = 2
_GATE_BYTE: Final = 3  # shared writers come and go one at a time, so that there is a first and a last
_COMPACT_BYTE: Final = 4  # a shared writer compacts: pages that checkpoints free are not used anew
_GATE_PATIENCE: Final = 60.0
_LEASE_BYTE: Final = 16  # plus the generation
_LONGEST_SLEEP: Final = 0.02


class FileLease:
    """One store's hold on its prefix's lock file, which is opened (and made) when first needed."""

    def __init__(self, system: System, prefix: str, base: str) -> None:
        self.prefix: Final = prefix
        self.path: Final = names.page_path(base)  # what errors name where the lock file itself is not at fault
        self.lock_path: Final = names.lock_path(base)
        self.fd = -1
        self.generation = -1  # of the lease byte held
        self.segment = ""  # shared writers: which segment they share; goes into the file
        self._system: Final = system

    def _fail(self, exc: OSError, action: str) -> errors.StorageError:
        return storage_error(exc, self.prefix, self.lock_path, action)

    def _open(self) -> None:
        if self.fd < 0:
            try:
                self.fd = self._system.open(self.lock_path, os.O_RDWR | os.O_CREAT)
            except OSError as exc:
                raise self._fail(exc, "open") from exc

    # --- the lease ----------------------------------------------------------------------------------------------------

    def acquire(
        self,
        *,
        blocking: bool,
        timeout: float | None,
        fence: Callable[[], None] | None,
        check: Callable[[], None] = lambda: None,
    ) -> int:
        """Take the lease byte; nothing is written unless a holder is replaced.

        Args:
            blocking: wait for a live holder. timeout: at most this many seconds (None: for ever).
            fence: replace a live holder at once, and call this while no other process can do the same. It must keep
                the holder from acknowledging anything any more.
            check: called before a live holder is replaced, when no other process can rename the page file; may raise.
        Returns:
            the newest epoch that the file tells of.
        Raises:
            LeaseError: held by a live process, which the message names. OSError, StorageError.
        """
        self._open()
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = 0.0005
        while True:
            known, generation, holder = self._read()
            if self._system.try_lock(self.fd, _LEASE_BYTE + generation):
                if self._read()[1] == generation and self._system.same_file(self.fd, self.lock_path):
                    break
                self._system.unlock(self.fd, _LEASE_BYTE + generation)
                if not self._system.same_file(self.fd, self.lock_path):
                    self._system.close(self.fd)
                    self.fd = -1
                    self._open()
                continue
            if fence is not None:
                generation = self._take_over(fence, check)
                break
            if not blocking or (deadline is not None and time.monotonic() >= deadline):
                raise errors.LeaseError(
                    f"prefix {self.prefix!r} is being written by {holder or 'another process'}; wait for it, open read-only, or open with a lock timeout"
                )
            self._system.sleep(pause)
            pause = min(2 * pause, _LONGEST_SLEEP)
        self.generation = generation
        return known

    def share(self, *, blocking: bool, timeout: float | None, fence: Callable[[], None] | None) -> tuple[bool, int]:
        """Take the lease together with others, under :meth:`gate`. `self.segment` names the segment that we share.

        Args: as :meth:`acquire`.
        Returns:
            Whether we are the first, who then holds the lease alone until :meth:`let_in`; and the newest epoch known.
        Raises:
            LeaseError: an exclusive writer has it, or processes that share another segment do.
        """
        self._open()
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            known, generation, holder = self._read()
            byte = _LEASE_BYTE + generation
            if self._system.try_lock(self.fd, byte):
                self._system.unlock(self.fd, byte)
                return True, self.acquire(blocking=False, timeout=None, fence=fence)
            if self._system.try_lock_shared(self.fd, byte):
                if self._read()[1] == generation and self._system.same_file(self.fd, self.lock_path):
                    self.generation = generation
                    if self._shared_segment(holder) == self.segment:
                        return False, known
                self._system.unlock(self.fd, byte)
                self.generation = -1
                if self._shared_segment(holder) != self.segment and fence is None:
                    raise errors.LeaseError(
                        f"prefix {self.prefix!r} is open in {holder}, which has other shared memory (/dev/shm) than this process; "
                        "shared writers must have the same one (docker: --ipc). Open it read-only here, which follows their commits"
                    )
            if fence is not None:
                return True, self.acquire(blocking=False, timeout=None, fence=fence)
            if not blocking or (deadline is not None and time.monotonic() >= deadline):
                raise errors.LeaseError(
                    f"prefix {self.prefix!r} is open for exclusive writing by {holder or 'another process'}; wait for it, open it "
                    "shared=True there too, open read-only, or open with a lock timeout"
                )
            self._system.sleep(_LONGEST_SLEEP)

    def share_again(self) -> bool:
        """In a forked child, whose parent's locks are not its own. False when the lease has gone to somebody else."""
        self._open()
        _, generation, holder = self._read()
        if self._shared_segment(holder) != self.segment:
            return False
        if self._system.try_lock_shared(self.fd, _LEASE_BYTE + generation):
            self.generation = generation
        return self.still_shared()

    def let_in(self) -> None:
        """The first of the shared writers has recovered the prefix: others may come."""
        if not self._system.try_lock_shared(self.fd, _LEASE_BYTE + self.generation):
            raise errors.LeaseError(f"prefix {self.prefix!r}: the lock on {self.lock_path} was lost; reopen the prefix")

    def shut_out(self) -> bool:
        """Hold the lease alone again if no other shared writer is left, under :meth:`gate`. False: there is one."""
        return self.fd >= 0 and self._system.try_lock(self.fd, _LEASE_BYTE + self.generation)

    def still_shared(self) -> bool:
        """Whether the lease that we share is still the prefix's. After a forced takeover by an exclusive writer it is not."""
        return self.fd >= 0 and self.generation >= 0 and self._read()[1] == self.generation

    def shared_in(self, segment: str) -> bool:
        """Whether the lease is held, and by processes that share the writing in that segment."""
        try:
            fd = self._system.open(self.lock_path, os.O_RDONLY)
        except OSError:
            return False
        try:
            _, generation, holder = self._read(fd)
            return self._shared_segment(holder) == segment and self._system.lock_taken(fd, _LEASE_BYTE + generation)
        finally:
            self._system.close(fd)

    @staticmethod
    def _shared_segment(holder: str) -> str:
        _, found, rest = holder.partition("[segment ")
        return rest.partition("]")[0] if found else ""

    def leased(self) -> bool:
        """Whether another process holds the write lease, in whatever container or segment it works."""
        try:
            fd = self._system.open(self.lock_path, os.O_RDONLY)
        except OSError:
            return False  # nobody ever wrote here, or we may not look
        try:
            generation = self._read(fd)[1]
            return self._system.lock_taken(fd, _LEASE_BYTE + generation)
        finally:
            self._system.close(fd)

    def known_epoch(self) -> int:
        """The newest epoch that the file tells of."""
        return self._read()[0]

    def record(self, epoch: int) -> None:
        """Write into the file that this process holds the lease, at `epoch`."""
        try:
            self._write(epoch, self.generation)
        except OSError as exc:
            raise self._fail(exc, "write") from exc

    def release(self) -> None:
        """Give the lease byte back."""
        generation, self.generation = self.generation, -1
        if self.fd >= 0:
            self._system.unlock(self.fd, _LEASE_BYTE + generation)

    def at_epoch(self, epoch: int) -> bool:
        """Whether the lease is still this process's, and nobody has begun a newer epoch. To be asked under :meth:`creation_lock` if
        it is to stay so."""
        known, generation, _ = self._read()
        return (known, generation) == (epoch, self.generation)

    def held(self) -> bool:
        """Whether the lease is still this process's: nobody has moved it on. To be asked under :meth:`creation_lock`."""
        return self.generation >= 0 and self._read()[1] == self.generation

    def _take_over(self, fence: Callable[[], None], check: Callable[[], None]) -> int:
        """Move the lease to a fresh lock byte and fence the log; returns the generation."""
        with self.creation_lock():
            check()
            try:
                epoch, generation, _ = self._read()
                generation += 1
                while not self._system.try_lock(self.fd, _LEASE_BYTE + generation):
                    generation += 1
                self._write(epoch, generation)
                fence()
                return generation
            except OSError as exc:
                raise self._fail(exc, "take over") from exc

    def _read(self, fd: int = -1) -> tuple[int, int, str]:
        """(newest epoch, generation of the lease byte, who wrote that) as the lock file says; anything unreadable
        counts as nothing.
        """
        try:
            text = read_exact(self._system, self.fd if fd < 0 else fd, 512, 0).decode("utf-8", "replace")
        except OSError as exc:
            raise self._fail(exc, "read") from exc
        fields = text.split(" ", 2)
        try:
            epoch, generation = int(fields[0]), int(fields[1])
        except (ValueError, IndexError):
            return 0, 0, ""
        if not (0 <= epoch < 1 << 40 and 0 <= generation < 1 << 30):
            return 0, 0, ""
        return epoch, generation, fields[2].strip() if len(fields) > 2 else ""

    def _write(self, epoch: int, generation: int) -> None:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        who = f"process {os.getpid()} on {os.uname().nodename} since {since} UTC"
        if self.segment:
            who = f"shared writers [segment {self.segment}], the last to recover it being {who}"
        text = f"{epoch} {generation} {who}\n".encode()
        write_all(self._system, self.fd, [text.ljust(512)], 0)

    # --- other locks --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def creation_lock(self) -> Iterator[None]:
        """Wait for the lock under which a page file is made or a lease is moved, and hold it."""
        self._open()
        self._wait(_CREATE_BYTE, None)
        try:
            yield
        finally:
            self._system.unlock(self.fd, _CREATE_BYTE)

    @contextlib.contextmanager
    def gate(self) -> Iterator[None]:
        """The lock under which shared writers come and go. LeaseError when it is not to be had for a minute."""
        self._open()
        if not self._wait(_GATE_BYTE, _GATE_PATIENCE):
            raise errors.LeaseError(
                f"prefix {self.prefix!r}: another process has been opening or closing it for {_GATE_PATIENCE:g} s and may be stopped; "
                "end or continue it, then try again"
            )
        try:
            yield
        finally:
            if self.fd >= 0:
                self._system.unlock(self.fd, _GATE_BYTE)

    @contextlib.contextmanager
    def checkpoint_lock(self, timeout: float | None) -> Iterator[bool]:
        """Hold the lock that lets one process put checkpoints in force; yields whether it was got within `timeout`
        seconds (None: wait).
        """
        self._open()
        got = self._wait(_CHECKPOINT_BYTE, timeout)
        try:
            yield got
        finally:
            if got and self.fd >= 0:
                self._system.unlock(self.fd, _CHECKPOINT_BYTE)

    @typed("lock")
    def begin_compaction(self) -> bool:
        """Take the lock of who compacts a prefix that is open shared. False: another process has it."""
        self._open()
        return self._system.try_lock(self.fd, _COMPACT_BYTE)

    def end_compaction(self) -> None:
        """Give it back. Not held: nothing."""
        if self.fd >= 0:
            self._system.unlock(self.fd, _COMPACT_BYTE)

    @typed("look at the locks of")
    def compacted_elsewhere(self) -> bool:
        """Whether another process has it."""
        self._open()
        return self._system.lock_taken(self.fd, _COMPACT_BYTE)

    @typed("lock")
    def _wait(self, byte: int, timeout: float | None) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = 0.0005
        while not self._system.try_lock(self.fd, byte):
            if deadline is not None and time.monotonic() >= deadline:
                return False
            self._system.sleep(pause)
            pause = min(2 * pause, _LONGEST_SLEEP)
        return True

    def close(self) -> None:
        """Close the file, and with its last descriptor every lock dies. Safe to call again."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            self._system.close(fd)

    def forget(self) -> None:
        """In a forked child: drop the descriptor inherited, whose locks are the parent's."""
        self.generation = -1
        self.close()
