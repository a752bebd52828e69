"""Who may write a prefix's files, and at which epoch: the lease, the turns of writers that share it, and the locks for
checkpoints and compactions.

The lease stands in the lock file (:mod:`dbzero.storage.filelease`). A forced takeover moves it on to another byte there,
and creates the next redo file before it reads the log: the replaced writer, should it come back, finds that file after
its sync and acknowledges nothing any more (:mod:`dbzero.storage.activelog`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from .. import errors
from . import log, names, newfile, pagefile
from .activelog import ActiveLog
from .filelease import FileLease
from .prefixfiles import PrefixFiles
from .syscalls import System, typed


class LeasedFiles(PrefixFiles):
    """A prefix's files and the right to write them. That right, and everything that needs it, belongs to one instance.

    Attributes: keep_pages: pages freed by checkpoints after this one are not used anew, since somebody reads its table.
    """

    def __init__(self, system: System, root: str, prefix: str, *, writable: bool, path: str | None = None) -> None:
        super().__init__(system, root, prefix, writable=writable, path=path)
        self._lease: Final = FileLease(system, self.prefix, self.base)
        self._log: Final = ActiveLog(system, self.prefix, self.base)
        self._epoch = 0
        self.keep_pages: int | None = None

    @property
    def epoch(self) -> int:
        """Epoch of the lease held, 0 without it."""
        return self._epoch

    @property
    def poisoned(self) -> bool:
        return self._log.poisoned

    def check_alive(self) -> None:
        """ClosedError, PoisonedError."""
        if self._page.fd < 0:
            raise self._closed()
        if self._log.poisoned:
            raise errors.PoisonedError(
                f"prefix {self.prefix!r}: an earlier sync of its files failed, whether the last commit is durable is unknown; close and reopen the prefix"
            )

    def _need_writer(self) -> log.LogWriter:
        writer = self._log.writer
        if writer is None or self._log.poisoned or self._page.fd < 0:
            self.check_alive()
        if writer is None:
            raise errors.LeaseError(f"prefix {self.prefix!r}: no log file was begun under the write lease")
        return writer

    def _need_lease(self, epoch: int) -> None:
        if epoch == self._epoch != 0 and self._page.fd >= 0 and not self._log.poisoned:
            return
        self.check_alive()
        if not self._epoch:
            raise errors.LeaseError(f"prefix {self.prefix!r}: this process does not hold the write lease")
        if epoch != self._epoch:
            raise errors.FencedError(
                f"prefix {self.prefix!r}: epoch {epoch} is over, the lease is at epoch {self._epoch}"
            )

    # --- the lease, and epochs ----------------------------------------------------------------------------------------

    @typed("acquire the lease of")
    def acquire(self, *, blocking: bool = False, timeout: float | None = None, force: bool = False) -> int:
        """Take the write lease.

        Args:
            blocking: wait for a live holder. timeout: at most this many seconds (None: for ever). force: replace a
                live holder at once.
        Returns:
            the new epoch, greater than every earlier one.
        Raises:
            LeaseError: held by a live process, which the message names. ReadOnlyError: the store was opened
            read-only.
        """
        if not self.writable:
            raise errors.ReadOnlyError(f'prefix {self.prefix!r} is open read-only; open it with "rw" to write')
        self.check_alive()
        if self._epoch:
            raise errors.LeaseError(f"prefix {self.prefix!r}: this store holds the write lease already")
        known = self._lease.acquire(
            blocking=blocking, timeout=timeout, fence=self._fence if force else None, check=self.check_name
        )
        try:
            return self._start_epoch(known)
        except BaseException:
            self._drop_lease()
            raise

    def _start_epoch(self, known: int) -> int:
        self.check_name()
        self.remove_unfinished()
        meta = self.read_meta()
        found = self._inventory()
        self._put_strays_away(found)
        epoch = max([known, meta.epoch, *(f.header.epoch for f in found.files)]) + 1
        self._lease.record(epoch)
        self._epoch = epoch
        self._log.next_oid = meta.next_oid
        return epoch

    def _put_strays_away(self, found: log.Inventory) -> None:
        """Log files of another page file. What this one replaced has everything in it that they have."""
        for path, file_id in found.strays:
            if file_id == self._page.identity.replaces:
                newfile.remove(self._system, path)
            else:
                pagefile.set_aside(self._system, self.prefix, path)

    def _fence(self) -> None:
        """Create the next log file, so that a replaced writer acknowledges nothing any more."""
        found = self._inventory()
        number = max(found.highest, self.read_meta().redo - 1) + 1
        self._put_strays_away(found)
        self._log.create(number)

    def check_epoch(self) -> None:
        """FencedError when another process has taken over writing."""
        if not self._lease.at_epoch(self._epoch):
            raise errors.FencedError(
                f"prefix {self.prefix!r}: another process has taken over writing; what was not acknowledged is void. Reopen the prefix"
            )

    @contextlib.contextmanager
    def unfenced(self) -> Iterator[None]:
        """While nobody can take over writing. FencedError when somebody has."""
        with self._lease.creation_lock():
            self.check_epoch()
            yield

    @typed("release the lease of")
    def release(self) -> None:
        """Give the lease back; the log file stays as it is. No effect without the lease."""
        with self._log.sync_lock, self._log.lock:
            if self._epoch or self._lease.generation >= 0:
                self._drop_lease()

    def _drop_lease(self) -> None:
        self._log.forget()
        self._epoch = 0
        self._lease.release()

    def leased(self) -> bool:
        """Whether another process holds the write lease, in whatever container or segment it works."""
        return self._lease.leased()

    def checkpoint_lock(self, timeout: float | None = 0.0) -> contextlib.AbstractContextManager[bool]:
        """The lock that lets one process put checkpoints in force; yields whether it was got within `timeout` seconds
        (None: wait).
        """
        return self._lease.checkpoint_lock(timeout)

    # --- shared writers -----------------------------------------------------------------------------------------------

    @typed("share the lease of")
    def share(self, segment: str, *, blocking: bool = False, timeout: float | None = None, force: bool = False) -> bool:
        """Take the write lease together with other processes of one segment. Under :meth:`gate`.

        Args:
            segment: what names the segment. blocking, timeout, force: as :meth:`acquire`, against an exclusive writer.
        Returns:
            True for the first, who has a new epoch and recovers the prefix, then calls :meth:`let_in`. Others write at the epoch that
            the segment tells, in their turn (:meth:`enter`).
        Raises:
            LeaseError: an exclusive writer, or writers that share another segment.
        """
        self.check_alive()
        self._lease.segment = segment
        first, known = self._lease.share(blocking=blocking, timeout=timeout, fence=self._fence if force else None)
        try:
            if first:
                self._start_epoch(known)
            return first
        except BaseException:
            self._drop_lease()
            raise

    def share_again(self) -> bool:
        """In a forked child of one that shares the lease: share it ourselves. False when an exclusive writer has come."""
        return self._lease.share_again()

    def gate(self) -> contextlib.AbstractContextManager[None]:
        """The lock under which shared writers come and go."""
        return self._lease.gate()

    @typed("share the lease of")
    def let_in(self) -> None:
        """Let other shared writers in."""
        self._lease.let_in()

    @typed("close")
    def shut_out(self) -> bool:
        """Whether this is the last of the shared writers, under :meth:`gate`; then no other gets in."""
        return self._lease.shut_out()

    def shared_in(self, segment: str) -> bool:
        """Whether processes that share that segment hold the lease together."""
        return self._lease.shared_in(segment)

    @typed("begin an epoch of")
    def new_epoch(self, check: Callable[[], None], then: Callable[[int], None] | None = None) -> int:
        """A shared writer takes over from one that ended badly.

        Args:
            check: called while no other process can do the same; raises what speaks against it. then: the other one lives: fence
                its log file, and call this with the new epoch before anybody else can take over.
        Raises:
            FencedError: an exclusive writer has taken over. FileReplacedError: a compacted page file has the prefix's name.
        """
        with self._log.sync_lock, self._log.lock:
            self.check_alive()
            self._check_shared()
            with self._lease.creation_lock():
                check()
                self.check_name()
                self._log.forget()
                if then is not None:
                    self._fence()
                epoch = self._start_epoch(self._lease.known_epoch())
                if then is not None:
                    then(epoch)
                return epoch

    def _check_shared(self) -> None:
        if not self._lease.still_shared():
            raise errors.FencedError(
                f"prefix {self.prefix!r}: an exclusive writer has taken it over; close it here, and open it again when that one is done"
            )

    @typed("continue the log of")
    def enter(self, *, epoch: int, number: int, end: int, state: int, chain: int, next_oid: int) -> None:
        """A shared writer's turn begins: continue log file `number` at offset `end`, behind (state, chain).

        Raises:
            FencedError: an exclusive writer has taken over. CorruptError: there is no such log file.
        """
        self.check_alive()
        writer = self._log.writer
        if writer is None or writer.header.number != number or writer.header.epoch != epoch:
            with self._log.sync_lock, self._log.lock:
                self._check_shared()
                self._log.join(self._page.identity.file_id, number)
        with self._log.lock:
            assert self._log.writer is not None
            self._log.writer.seek(end, state, chain)
            self._epoch = epoch
            self._log.next_oid = next_oid

    def leave(self) -> None:
        """The turn is over. The log file stays open, to be synced."""
        with self._log.lock:
            self._epoch = 0

    @property
    def place(self) -> tuple[int, int, int]:
        """(log file number, offset behind the last frame, chain checksum), (0, 0, 0) without a log file."""
        writer = self._log.writer
        return (writer.header.number, writer.end, writer.chain) if writer is not None else (0, 0, 0)

    @property
    def data_limit(self) -> int:
        """End of the data region of the log file in use."""
        return self._need_writer().header.data_limit

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """While no thread of this process is in :meth:`syncing`."""
        with self._log.sync_lock:
            yield

    @contextlib.contextmanager
    def syncing(self) -> Iterator[tuple[int, Callable[[], None]]]:
        """While the log file in use stays what it is: its number, and what makes it durable (PoisonedError)."""
        with self._log.sync_lock:
            writer = self._need_writer()
            yield writer.header.number, lambda: self._log.sync(writer)

    def followed(self, number: int) -> bool:
        """Whether log file `number` has a successor, whoever made that, or is gone."""
        return self._log.followed(number)

    # --- compaction ---------------------------------------------------------------------------------------------------

    @typed("begin the compaction of")
    def begin_compaction(self) -> None:
        """In a turn: nobody else compacts until :meth:`end_compaction`, and no page that is in use now is used anew.

        Raises:
            LeaseError: another process is at it. FencedError: the turn is another's by now.
        """
        with self.unfenced():  # so that no successor is between a look at the free pages and their use
            if not self._lease.begin_compaction():
                raise errors.LeaseError(
                    f"prefix {self.prefix!r} is being compacted by another process; wait until that is done"
                )
            try:
                self.remove_unfinished()
                self.keep_pages = self.read_meta().checkpoint
            except BaseException:
                self._lease.end_compaction()
                raise

    @typed("end the compaction of")
    def end_compaction(self) -> None:
        """Free pages may be used again."""
        self.keep_pages = None
        self._lease.end_compaction()

    def keeps_page(self) -> Callable[[int], bool]:
        """Which free pages are not to be used anew because a compaction reads them, by the checkpoint that freed each."""
        mine, mask = self.keep_pages, (1 << 24) - 1
        if self.writable and self._lease.compacted_elsewhere():
            return lambda freed: True  # since when is not known; what is free beyond that comes back with the new file
        if mine is None:
            return lambda freed: False
        return lambda freed: 0 < (freed - mine) & mask <= mask // 2

    def remove_unfinished(self) -> None:
        """Delete what compactions left that came to no end, unless we or another process are at one."""
        if self.keep_pages is None and not self._lease.compacted_elsewhere():
            for unfinished in names.compact_paths(self._system, self.base):
                newfile.remove(self._system, unfinished)

    @contextlib.contextmanager
    def unreplaceable(self) -> Iterator[None]:
        """A compacted file has this one's name, and stays where it is meanwhile. FileReplacedError: it is none of this prefix."""
        with self._lease.creation_lock():
            self._newer_under_name().close()
            yield
