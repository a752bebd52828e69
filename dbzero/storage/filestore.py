"""The store on local files: ``<root>/<prefix>.db0``, ``.db0.lock`` and ``.redo.<n>``.

What reads them is :mod:`dbzero.storage.prefixfiles`, who may write them :mod:`dbzero.storage.leasedfiles`; here they
are opened, written and closed.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable
from typing import Final

from .. import errors
from . import format as fmt
from . import log, pagefile
from .leasedfiles import LeasedFiles
from .pagefile import PageFile
from .store import Meta
from .syscalls import SYSTEM, System, typed

DATA_REGION: Final = 1 << 30  # address space a log file's frames may use unless its writer asks for more


class LocalFileStore(LeasedFiles):
    """:class:`dbzero.storage.store.Store` over local files. Open one with :meth:`open`.

    Appending, reserving and reading may be called from several threads. The lease, and everything that needs it,
    belongs to one instance.
    """

    # --- opening ------------------------------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        root: str | os.PathLike[str],
        prefix: str,
        *,
        writable: bool = True,
        create: bool = True,
        system: System = SYSTEM,
        prefix_uuid: int | None = None,
    ) -> LocalFileStore:
        """Open a prefix's files.

        Args:
            root: existing directory.
            prefix: name, see :mod:`dbzero.storage.names`.
            writable: whether :meth:`acquire` will be called; refused on network file systems.
            create: make a fresh page file when there is none (needs `writable`).
            prefix_uuid: 64 bits for a created file, random by default.
        Raises:
            PrefixError: bad name, or no such prefix. NotAStoreError, FormatVersionError, CorruptError,
            UnsupportedFileSystemError, StorageError.
        """
        store = cls(system, os.fspath(root), prefix, writable=writable)
        try:
            store._open(create and writable, prefix_uuid)
        except BaseException:
            store.close()
            raise
        _stores.add(store)
        return store

    @classmethod
    def at_path(cls, system: System, prefix: str, path: str) -> LocalFileStore:
        """Open a page file that stands anywhere, under any name, read-only and without a log. Errors as :meth:`open`."""
        store = cls(system, os.path.dirname(path), prefix, writable=False, path=path)
        try:
            store._open(False, None)
        except BaseException:
            store.close()
            raise
        _stores.add(store)
        return store

    @typed("open")
    def _open(self, create: bool, prefix_uuid: int | None) -> None:
        system = self._system
        flags = os.O_RDWR if self.writable else os.O_RDONLY
        if not system.is_dir(self.root):
            raise errors.StorageError(
                f"root directory {self.root} does not exist or is no directory; create it or pass another one"
            )
        if self.writable:
            pagefile.check_file_system(system, self.root, self.prefix)
        try:
            if create and not system.exists(self.path):
                pagefile.create(system, self.root, self.prefix, self.base, self._lease, prefix_uuid)
            self._page.open(flags)
        except FileNotFoundError:
            raise errors.PrefixError(f"prefix {self.prefix!r} does not exist: there is no file {self.path}") from None
        except IsADirectoryError as exc:
            raise errors.NotAStoreError(
                f"{self.path} is a directory, not a dbzero file; choose another prefix name"
            ) from exc
        except OSError as exc:
            raise self._fail(exc, "open") from exc
        self._page.read_header()
        self.read_meta()

    # --- the log, appending -------------------------------------------------------------------------------------------

    @property
    def position(self) -> tuple[int, int, int]:
        """(log file number, state, chain checksum) behind the frame appended last."""
        writer = self._need_writer()
        return writer.header.number, writer.state, writer.chain

    @property
    def appended(self) -> int:
        """State behind the frame appended last."""
        return self._need_writer().state

    @property
    def log_size(self) -> int:
        """Bytes of frames in the current log file."""
        writer = self._log.writer
        return writer.end - fmt.PAGE if writer else 0

    @typed("begin a log file of")
    def begin_log(self, *, epoch: int, state: int, chain: int, data_base: int, data_limit: int) -> int:
        """Open the next numbered log file; returns its number. What was appended before is durable afterwards.

        Raises:
            FencedError: another writer has taken over. DiskFullError: the current log file stays in use.
        """
        with self._log.sync_lock, self._log.lock:
            self._need_lease(epoch)
            old = self._log.writer
            if data_base % fmt.PAGE or data_limit < data_base:
                raise ValueError(f"data region [{data_base}, {data_limit}) is not page aligned or empty")
            if old is not None:
                if (state, chain) != (old.state, old.chain):
                    raise ValueError(f"log is at state {old.state}, not {state}")
                self._log.sync(old)
                self._log.check_fence(old)
                previous, following = old.header.number, old.header.number + 1
            else:
                previous, following = self._find_position(state, chain)
                if previous:
                    self._log.sync_predecessor(previous)
            return self._log.begin(
                following,
                file_id=self._page.identity.file_id,
                epoch=epoch,
                state=state,
                chain=chain,
                data_base=data_base,
                data_limit=data_limit,
                previous=previous,
            )

    def reserve(self, *, log_bytes: int, data_end: int) -> None:
        """Make sure that a frame body of `log_bytes` and page file bytes up to `data_end` can be written.
        DiskFullError leaves everything as it was.
        """
        with self._log.lock:
            writer = self._need_writer()
            if data_end > writer.header.data_limit:
                raise errors.StorageError(
                    f"prefix {self.prefix!r}: data up to {data_end} is beyond the region of log file {writer.path} "
                    f"({writer.header.data_limit}); begin a new log file"
                )
            writer.reserve(log_bytes)
            self._page.reserve(data_end, writer.header.data_base, writer.header.data_limit)

    def append(
        self, *, kind: int, epoch: int, state: int, durable: int, next_oid: int, body: bytes | memoryview
    ) -> int:
        """Append a frame; returns its chain checksum. Not synced.

        Raises:
            FencedError: `epoch` is not the lease's. ValueError: `state` does not follow. DiskFullError, StorageError:
            nothing was appended.
        """
        with self._log.lock:
            self._need_lease(epoch)
            writer = self._need_writer()
            if state != writer.state + 1 and (kind == fmt.COMMIT or state != writer.state):
                raise ValueError(f"prefix {self.prefix!r}: frame of state {state} does not follow state {writer.state}")
            if kind not in (fmt.COMMIT, fmt.PREPARE, fmt.DECISION):
                raise ValueError(f"frame kind {kind} cannot be appended")
            chain = writer.append(kind, epoch, state, durable, next_oid, body)
            self._log.next_oid = next_oid
            return chain

    def rewind(self) -> None:
        """Take back the commit frame appended last (its commit failed before publication). :attr:`position` tells the
        new chain.

        Raises:
            PoisonedError: whether the frame is taken back is unknown.
        """
        with self._log.sync_lock, self._log.lock:
            writer = self._need_writer()
            try:
                writer.void(self._epoch, writer.state - 1, self._log.next_oid)
            except errors.StorageError as exc:
                self._log.poisoned = True
                raise errors.PoisonedError(
                    f"prefix {self.prefix!r}: the failed commit could not be taken back from {writer.path} ({exc}); close and reopen the prefix"
                ) from exc
            self._log.sync(writer)

    def sync_log(self) -> None:
        """Make every appended frame durable.

        Raises:
            PoisonedError: now and from now on. FencedError: another writer has taken over meanwhile; the outcome of
            the commit is unknown.
        """
        with self._log.sync_lock:
            writer = self._need_writer()
            self._log.sync(writer)
            self._log.check_fence(writer)

    def mark_durable(self, state: int) -> None:
        """Note behind the last frame, unsynced, that `state` is durable. Best effort."""
        with self._log.lock:
            if self._log.writer is not None and not self._log.poisoned:
                self._log.writer.mark(self._epoch, state, self._log.next_oid)

    def mark_shared(self, epoch: int, state: int) -> None:
        """:meth:`mark_durable` between turns, by a shared writer that nobody can overtake just now."""
        with self._log.lock:
            if self._log.writer is not None and not self._log.poisoned:
                self._log.writer.mark(epoch, state, self._log.next_oid)

    def poison(self) -> None:
        """Refuse every further write."""
        self._log.poisoned = True

    def truncate_log(self, upto: int) -> None:
        """Delete log files with a number below `upto`."""
        self.check_alive()
        log.delete(self._system, self.prefix, self.base, upto)

    # --- the page file, writing ---------------------------------------------------------------------------------------

    def write_data(self, address: int, data: bytes | memoryview) -> None:
        """Write page file bytes inside the current log file's region. Not synced."""
        header = self._need_writer().header
        if not (header.data_base <= address and address + len(data) <= header.data_limit):
            raise errors.StorageError(
                f"prefix {self.prefix!r}: data at {address} is outside the region [{header.data_base}, {header.data_limit}) of this writer"
            )
        self._page.write(address, data)

    def rewrite_data(self, address: int, data: bytes | memoryview) -> None:
        """Write again what a replayed frame says stands at `address` (recovery, under the lease and the checkpoint lock)."""
        self.check_alive()
        if address < fmt.FIRST_DATA:
            raise errors.CorruptError(
                f"prefix {self.prefix!r}: a frame places data at {address}, inside the header of {self.path}"
            )
        self._page.write(address, data)

    def write_pages(self, pages: Iterable[tuple[int, bytes]]) -> None:
        """Write table pages (not reachable from any checkpoint that is in force). Not synced."""
        self.check_alive()
        for address, data in pages:
            if address < fmt.FIRST_DATA or address % fmt.PAGE or len(data) != fmt.PAGE:
                raise ValueError(f"no table page: {len(data)} bytes at {address}")
            self._page.write(address, data)

    def sync_data(self) -> None:
        """Make all page file bytes durable. A failure poisons the store."""
        self.check_alive()
        self._sync_page_file()

    def _sync_page_file(self) -> None:
        try:
            self._page.sync()
        except OSError as exc:
            raise self._log.poison(exc, self.path) from exc

    @typed("put a checkpoint in force in")
    def put_meta(self, meta: Meta) -> None:
        """Sync the page file, then put `meta` in force: one slot, sync, the other slot, sync. Needs the checkpoint
        lock.

        The one that is in force already can be put again; slots that differ from it are mended.

        Raises:
            FencedError: another checkpoint with this number is in force. PoisonedError: a sync failed.
        """
        self.check_alive()
        self._page.put_meta(meta, self._sync_page_file)

    def trim(self) -> None:
        """Give reserved but unused space of the page file back (clean close: after the last checkpoint, under the lease)."""
        self.check_alive()
        self._page.trim()

    # --- another page file under the same name ------------------------------------------------------------------------

    @typed("put a compacted file in place of")
    def replace_file(self, path: str) -> PageFile:
        """Give the page file at `path`, complete and synced, this prefix's name, and go on with it: it must hold all
        that is in this one and in the log. Needs the lease, and nothing may be in the middle of a commit.

        Afterwards no log file is begun; those of the old page file can be deleted.
        Returns:
            the old page file, still open for those who read it.
        Raises:
            FencedError: another process has taken over; the name is as it was. PoisonedError: which of the two files
            has the name after a power loss is unknown; both hold everything.
        """
        with self._log.sync_lock, self._log.lock:
            writer = self._need_writer()
            self._log.sync(writer)
            self._log.check_fence(writer)
            page = PageFile(self._system, self.prefix, path)
            page.open(os.O_RDWR)
            try:
                page.read_header()
                page.read_meta()
                # A forced takeover moves the lease under this lock. So either it comes first and is seen here, or it
                # finds the new file under the name.
                with self._lease.creation_lock():
                    if not self._lease.held():
                        raise errors.FencedError(
                            f"prefix {self.prefix!r}: another process has taken over writing; reopen the prefix"
                        )
                    self._log.check_fence(writer)
                    self.check_name()
                    self._system.copy_mode(page.fd, self._page.fd)
                    self._system.rename(path, self.path)
                    try:
                        self._system.sync_dir(os.path.dirname(self.base))
                    except OSError as exc:
                        raise self._log.poison(exc, self.path, "sync the directory of") from exc
            except BaseException:
                page.close()
                raise
            page.path = self.path
            old = self._go_on_with(page)
            writer.close()
            self._log.writer = None
            return old

    @typed("open")
    def follow_name(self) -> PageFile | None:
        """While :meth:`quiet`, outside of a turn: go on with the compacted page file that has taken this one's place.

        Returns:
            the one before, to be closed when nobody reads it; None: nothing has taken its place.
        Raises:
            FileReplacedError: what has the name now is not a later one of the same prefix.
        """
        with self._log.lock:
            if not self.replaced():
                return None
            page = self._newer_under_name()
            self._log.forget()
            return self._go_on_with(page)

    # --- closing ------------------------------------------------------------------------------------------------------

    @typed("close")
    def close(self) -> None:
        """Release the lease and every descriptor. Safe to call again."""
        self.close_writing()
        self._page.close()

    def close_writing(self) -> None:
        """Release the lease, and every descriptor but the page file's, which can be read until :meth:`close`."""
        if self._epoch:
            self.release()
        self._close_all_but_page()

    def _close_all_but_page(self) -> None:
        self._stop_watching()
        self._log.forget()
        self._lease.close()

    def _after_fork(self) -> None:
        """In a forked child: drop the inherited lease and log, which are the parent's. The lock dies only with its
        last descriptor, so it must go.
        """
        self._epoch = 0
        self._lease.forget()
        self._log.after_fork()
        self._stop_watching()


_stores: Final[weakref.WeakSet[LocalFileStore]] = weakref.WeakSet()


def _fork_child() -> None:
    for store in list(_stores):
        store._after_fork()


os.register_at_fork(after_in_child=_fork_child)
