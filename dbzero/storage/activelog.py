"""The log file that a store appends to: how one is begun, made durable and given up, and how its writer notices that
it was replaced.

Who takes over creates the next log file before it reads this one. So a writer that finds one behind its own, after its
sync, may not acknowledge anything any more.
"""

from __future__ import annotations

import os
from typing import Final

from dbzero.runtime import osthreads

from .. import errors
from . import format as fmt
from . import log, names
from .pagefile import now_us, random64
from .syscalls import System, storage_error


class ActiveLog:
    """One store's log file in use, if it has one.

    Attributes:
        lock: held while the position in the log, or the lease, changes. sync_lock: held while the log file is being
            synced or replaced; taken before `lock`.
        writer: of the file in use. begun_fd, begun_number: a file that is this writer's but has no header yet.
        next_oid: of the frame appended last. poisoned: a sync failed, and nothing may be written any more.
    """

    def __init__(self, system: System, prefix: str, base: str) -> None:
        self.prefix: Final = prefix
        self.base: Final = base
        self.lock = osthreads.RLock()
        self.sync_lock = osthreads.Lock()
        self.writer: log.LogWriter | None = None
        self.begun_fd = -1
        self.begun_number = 0
        self.next_oid = fmt.FIRST_OID
        self.poisoned = False
        self._system: Final = system
        self._looked_for = 0, b"", b""  # log file number, names of the one behind it and of its own

    # --- which file it is ---------------------------------------------------------------------------------------------

    def create(self, number: int) -> None:
        """Create log file `number`, which the next :meth:`begin` completes. Whoever wrote before acknowledges nothing
        any more.
        """
        self.begun_fd = log.create(self._system, self.prefix, self.base, number)
        self.begun_number = number
        self._system.sync_dir(os.path.dirname(self.base))

    def begin(
        self,
        following: int,
        *,
        file_id: int,
        epoch: int,
        state: int,
        chain: int,
        data_base: int,
        data_limit: int,
        previous: int,
    ) -> int:
        """Go on in the file that :meth:`create` made, or else in a new one, number `following`; returns its number.

        Raises:
            FencedError: another writer has made one of that number. DiskFullError, StorageError: the file before stays
            in use.
        """
        if self.begun_fd >= 0:
            fd, number = self.begun_fd, self.begun_number
        else:
            number = following
            fd = log.create(self._system, self.prefix, self.base, number)
        header = fmt.RedoHeader(
            file_id, number, epoch, random64(), state, chain, data_base, data_limit, now_us(), previous
        )
        try:
            writer = log.LogWriter.begin(self._system, self.prefix, self.base, fd, header)
        except BaseException:
            if fd != self.begun_fd:
                self._abandon(fd, number)
            raise
        self.begun_fd = -1
        old, self.writer = self.writer, writer
        if old is not None:
            old.close()
        return number

    def _abandon(self, fd: int, number: int) -> None:
        """A log file that could not be begun: take its name away, or keep it for the next attempt."""
        try:
            self._system.unlink(names.redo_path(self.base, number))
        except OSError:
            self.begun_fd, self.begun_number = fd, number
        else:
            self._system.close(fd)

    def join(self, file_id: int, number: int) -> None:
        """Go on in the file that another process of the same epoch began. Errors as :meth:`log.LogWriter.join`."""
        self.forget()
        self.writer = log.LogWriter.join(self._system, self.prefix, self.base, file_id, number)

    def forget(self) -> None:
        """Close what is open. The files stay as they are."""
        writer, self.writer = self.writer, None
        if writer is not None:
            writer.close()
        if self.begun_fd >= 0:
            fd, self.begun_fd = self.begun_fd, -1
            self._system.close(fd)

    def after_fork(self) -> None:
        """In a forked child: the file is the parent's, and nobody here holds the locks."""
        self.lock, self.sync_lock = osthreads.RLock(), osthreads.Lock()
        self.forget()

    # --- making durable -----------------------------------------------------------------------------------------------

    def sync(self, writer: log.LogWriter) -> None:
        """Make what was appended durable, under `sync_lock`. PoisonedError."""
        try:
            self._system.fdatasync(writer.fd)
        except OSError as exc:
            raise self.poison(exc, writer.path) from exc

    def sync_predecessor(self, number: int) -> None:
        """Make log file `number` durable: its writer may have died before its own sync. A failure poisons the store."""
        path = names.redo_path(self.base, number)
        try:
            fd = self._system.open(path, os.O_RDWR)
            try:
                self._system.fdatasync(fd)
            finally:
                self._system.close(fd)
        except OSError as exc:
            self.poisoned = True
            raise storage_error(exc, self.prefix, path, "sync") from exc

    def check_fence(self, writer: log.LogWriter) -> None:
        """After a sync: whether it may be acknowledged. FencedError, PoisonedError."""
        following = names.redo_path(self.base, writer.header.number + 1)
        try:  # in this order: log files are deleted in ascending order, so that a following one that came and went took this one along
            mine = self.begun_fd >= 0 and self.begun_number == writer.header.number + 1
            fenced = (not mine and self._system.exists(following)) or not self._system.same_file(writer.fd, writer.path)
        except OSError as exc:
            raise self.poison(exc, following, "look for") from exc  # synced, but perhaps behind a successor's back
        if fenced:
            raise errors.FencedError(
                f"prefix {self.prefix!r}: another process has taken over writing ({following}); what was not acknowledged is void. Reopen the prefix"
            )

    def followed(self, number: int) -> bool:
        """Whether log file `number` has a successor, whoever made that, or is gone."""
        known, following, own = self._looked_for
        if known != number:
            following, own = (os.fsencode(names.redo_path(self.base, n)) for n in (number + 1, number))
            self._looked_for = number, following, own
        try:
            return self._system.followed(following, own)
        except OSError as exc:
            raise self.poison(exc, os.fsdecode(following), "look for") from exc

    def poison(self, exc: OSError, path: str, action: str = "sync") -> errors.PoisonedError:
        """Refuse every further write; returns the error to raise for the call that failed."""
        self.poisoned = True
        return errors.PoisonedError(
            f"prefix {self.prefix!r}: cannot {action} {path}: {os.strerror(exc.errno) if exc.errno else exc}. "
            "Whether the last commit is durable is unknown: close and "
            "reopen the prefix, and check the device"
        )
