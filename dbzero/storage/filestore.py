"""The store on local files: ``<root>/<prefix>.db0``, ``.db0.lock`` and ``.redo.<n>``.

The lease stands in the lock file (:mod:`dbzero.storage.filelease`). A forced takeover moves it on to another byte there,
and creates the next redo file before it reads the log: the replaced writer, should it come back, finds that file after
its sync and acknowledges nothing any more.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from .. import errors
from . import format as fmt
from . import log, names, newfile, pagefile
from .activelog import ActiveLog
from .filelease import FileLease
from .pagefile import PageFile
from .store import Frame, Identity, Meta
from .syscalls import SYSTEM, System, Watch, storage_error, typed

DATA_REGION: Final = 1 << 30  # address space a log file's frames may use unless its writer asks for more

_READ_ATTEMPTS: Final = 3


class LocalFileStore:
    """:class:`dbzero.storage.store.Store` over local files. Open one with :meth:`open`.

    Appending, reserving and reading may be called from several threads. The lease, and everything that needs it,
    belongs to one instance.
    """

    def __init__(self, system: System, root: str, prefix: str, *, writable: bool, path: str | None = None) -> None:
        self.prefix: Final = names.normalize(prefix)
        self.root: Final = root
        self.base: Final = names.base_path(root, prefix) if path is None else path
        self.path: Final = names.page_path(self.base) if path is None else path
        self.writable: Final = writable
        self._system: Final = system
        self._page = PageFile(system, self.prefix, self.path)
        self._tail: log.Tail | None = None
        self._watch: Watch | None = None
        self._lease: Final = FileLease(system, self.prefix, self.base)
        self._log: Final = ActiveLog(system, self.prefix, self.base)
        self._epoch = 0
        self.keep_pages: int | None = (
            None  # pages freed by checkpoints after this one are not used anew: somebody reads its table
        )

    @property
    def identity(self) -> Identity:
        return self._page.identity

    @property
    def system(self) -> System:
        """What its files are reached through."""
        return self._system

    def _fail(self, exc: OSError, action: str, path: str | None = None) -> errors.StorageError:
        return storage_error(exc, self.prefix, path or self.path, action)

    def _closed(self) -> errors.ClosedError:
        return errors.ClosedError(f"prefix {self.prefix!r} is closed; open it again")

    # --- the page file ------------------------------------------------------------------------------------------------

    def read_meta(self) -> Meta:
        """The newest valid checkpoint. CorruptError when none is, or when the page file is shorter than it says."""
        return self._page.read_meta()

    def read_page(self, address: int, length: int) -> bytes:
        """Page file bytes; short when the file ends."""
        return self._page.read(address, length)

    def fileno(self) -> int:
        """Descriptor from which C may read page file bytes, -1 when it must ask :meth:`read_page`."""
        return self._page.fileno()

    @typed("read")
    def overlay(self, address: int, data: bytes | memoryview) -> None:
        """Show `data` at `address` to this instance's readers without writing (a reader that may not write replays the log)."""
        self._page.overlay(address, data)

    def replaced(self) -> bool:
        """Whether the prefix's name leads to another page file than the one open here."""
        return not self._system.same_file(self._page.fd, self.path)

    def check_name(self) -> None:
        """FileReplacedError when the prefix's name leads to another page file than the one open here."""
        if self.replaced():
            raise errors.FileReplacedError(
                f"prefix {self.prefix!r}: {self.path} was replaced by another file while it was open; close the prefix and open it again"
            )

    def _newer_under_name(self) -> PageFile:
        """The page file that has the prefix's name now, open: a compacted one that has everything of the one open here."""
        page = PageFile(self._system, self.prefix, self.path)
        try:
            page.open(os.O_RDWR if self.writable else os.O_RDONLY)
            page.read_header()
            if (
                page.identity.prefix_uuid != self.identity.prefix_uuid
                or page.read_meta().state < self.read_meta().state
            ):
                self.check_name()
        except FileNotFoundError:
            page.close()
            self.check_name()
            raise
        except BaseException:
            page.close()
            raise
        return page

    def _go_on_with(self, page: PageFile) -> PageFile:
        """Go on with a page file that holds everything of the one before; returns that."""
        old, self._page = self._page, page
        self._tail = None
        return old

    # --- the log ------------------------------------------------------------------------------------------------------

    def read_log(self, meta: Meta) -> Iterator[Frame]:
        """The frames after `meta`, in order, fenced-off and taken-back ones left out. Ends at a torn tail.

        Raises:
            CorruptError: damage before the end. StaleFileError: the page file is older than its log.
            CheckpointMovedError: read the meta again.
        """
        if self._page.fd < 0:
            raise self._closed()
        for attempt in range(_READ_ATTEMPTS):
            tail = log.Tail(0, meta.state, meta.chain, 0, meta.data_end, meta.data_end)
            begun = False
            try:
                for frame in log.read_frames(
                    self._system, self.prefix, self.base, self._page.identity.file_id, meta, tail
                ):
                    begun = True
                    yield frame
                self._tail = tail
                return
            except errors.StorageError as exc:
                if self.read_meta().checkpoint != meta.checkpoint:
                    raise errors.CheckpointMovedError(
                        f"prefix {self.prefix!r}: a checkpoint was put in force while the log behind checkpoint "
                        f"{meta.checkpoint} was read; read the meta again"
                    ) from exc
                if begun or attempt == _READ_ATTEMPTS - 1:
                    raise  # otherwise a log file that held nothing may just have been deleted

    @property
    def tail(self) -> log.Tail | None:
        """Where the newest complete :meth:`read_log` ended."""
        return self._tail

    def begun_epoch(self) -> int:
        """The newest epoch of which there is a log file, 0 without any."""
        found = self._inventory()
        return max((file.header.epoch for file in found.files), default=0)

    def open_end(self) -> bool:
        """Whether a log file was created behind the newest one that was begun."""
        found = self._inventory()
        return found.highest > max((file.number for file in found.files), default=0)

    def _inventory(self) -> log.Inventory:
        return log.inventory(self._system, self.prefix, self.base, self._page.identity.file_id)

    def _find_position(self, state: int, chain: int) -> tuple[int, int]:
        """(number of the log file in which (state, chain) stands - 0: the checkpoint -, next free number)."""
        meta = self.read_meta()
        found = self._inventory()
        following = max(found.highest, meta.redo - 1) + 1
        if (state, chain) == (meta.state, meta.chain):
            return 0, following
        tail = self._tail
        if tail is None or (tail.state, tail.chain) != (state, chain):
            for frame in self.read_log(meta):
                if (frame.state, frame.chain) == (state, chain):
                    tail = log.Tail(frame.redo, state, chain, 0, 0, 0)
                    break
            else:
                tail = self._tail
        if tail is None or (tail.state, tail.chain) != (state, chain):
            raise errors.StorageError(
                f"prefix {self.prefix!r}: state {state} with chain {chain:#x} stands neither in the log nor in the checkpoint; reopen the prefix"
            )
        return tail.number, following

    # --- following ----------------------------------------------------------------------------------------------------

    def watch(self, timeout: float | None) -> bool:
        """Sleep until a file of this prefix changed since the last call. False after `timeout` seconds (None: wait for ever)."""
        if self._page.fd < 0:
            raise self._closed()
        directory, stem = os.path.split(self.base)
        try:
            if self._watch is None:
                self._watch = self._system.watch(directory)
            return self._watch.wait(stem + ".redo.", timeout)
        except OSError as exc:
            raise self._fail(exc, "watch", directory) from exc

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

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
        self.check_alive()
        writer = self._log.writer
        if writer is None:
            raise errors.LeaseError(f"prefix {self.prefix!r}: no log file was begun under the write lease")
        return writer

    def _need_lease(self, epoch: int) -> None:
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
