"""Copying a prefix into one self-contained file, beside whoever reads and writes it.

Bytes below a checkpoint's end never change, except for table pages that were freed and used anew. So:

1. The page file up to the end of checkpoint k is copied as it is, in whatever time that takes.
2. Then checkpoint m that is in force by now is looked at: what it has behind the end of k is copied, and of its table
   the pages that were born after k. All other pages of its table have stood in the file since k, so that step 1 found
   them whole.
3. The log behind m is read: the data of its durable frames is written to its place, and their changes into the copy's
   own table. If m is still in force afterwards, no frame was missed; otherwise 2 and 3 are repeated, which costs what
   has changed.

Until the end the copy is called ``<output>.partial`` and has a journal in place of its header: which file it copies, k,
and how far step 1 has come. An interrupted copy of the same file goes on from there.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from .. import errors
from . import decisions, newfile, table, verify
from . import format as fmt
from . import records as rec
from .filestore import LocalFileStore
from .newfile import NewFile, Progress
from .pagefile import now_us, random64
from .store import Identity, Meta
from .syscalls import SYSTEM, System, read_exact, storage_error

STEP: Final = 1 << 20  # bytes copied at a time
_JOURNAL_STEP: Final = 64 << 20  # bytes between two syncs of the journal
_ATTEMPTS: Final = 100  # checkpoints of the writer's that may come in between
_JOURNAL: Final = struct.Struct("<8sQQQ")
_MAGIC: Final = b"DBZCOPY\n"
_U64: Final = struct.Struct("<Q")


class Copied(Struct, frozen=True):
    """What a copy holds: its newest state, and its size in bytes."""

    state: int
    size: int


class _Journal(Struct):
    """How far an unfinished copy has come."""

    file_id: int  # of the page file copied
    since: int  # checkpoint that was in force when the copy began
    position: int  # bytes below are copied and durable

    def encode(self) -> bytes:
        body = _JOURNAL.pack(_MAGIC, self.file_id, self.since, self.position)
        return body + _U64.pack(fmt.xxh3(body))

    @classmethod
    def decode(cls, raw: bytes) -> _Journal | None:
        if len(raw) < _JOURNAL.size + 8 or raw[:8] != _MAGIC:
            return None
        if _U64.unpack_from(raw, _JOURNAL.size)[0] != fmt.xxh3(raw[: _JOURNAL.size]):
            return None
        return cls(*_JOURNAL.unpack_from(raw)[1:])


class _LogTail:
    """What the durable frames behind a checkpoint change."""

    def __init__(self, meta: Meta) -> None:
        self.state, self.chain, self.next_oid, self.end = meta.state, meta.chain, meta.next_oid, meta.data_end
        self.changes: dict[int, tuple[int, int]] = {}


class _Copy:
    def __init__(
        self, store: LocalFileStore, file: NewFile, journal: _Journal, step: int, progress: Progress | None
    ) -> None:
        self.store, self.file, self.journal, self.step, self.progress = store, file, journal, step, progress
        self.uuid = store.identity.prefix_uuid

    def run(self) -> Meta:
        """Bring everything into the file but its header; returns the meta to finish it with."""
        for _ in range(_ATTEMPTS):
            meta = self.store.read_meta()
            self.bytes(meta)
            try:
                self.pages(meta)
                tail = self.log(meta)
            except (rec.Damage, errors.StorageError) as exc:
                if self.store.read_meta().checkpoint != meta.checkpoint:
                    continue  # what was read had been given up by then
                if isinstance(exc, errors.StorageError):
                    raise
                raise errors.CorruptError(
                    f"prefix {self.store.prefix!r}: {self.store.path} cannot be copied: {exc}; restore the files from a copy"
                ) from None
            if self.store.read_meta().checkpoint == meta.checkpoint:
                return self.merge(meta, tail)
        raise errors.StorageError(
            f"prefix {self.store.prefix!r}: {self.store.path} got new checkpoints faster than they could be copied; "
            "try again when less is being written"
        )

    def bytes(self, meta: Meta) -> None:
        """Step 1: everything below the checkpoint's end that is not copied yet."""
        synced = self.journal.position
        while self.journal.position < meta.data_end:
            at = self.journal.position
            data = self.store.read_page(at, min(self.step, meta.data_end - at))
            if not data:
                raise errors.CorruptError(
                    f"prefix {self.store.prefix!r}: {self.store.path} ends at {at}, its checkpoint at {meta.data_end}; restore it from a copy"
                )
            self.file.write(at, data)
            self.journal.position = at + len(data)
            if self.journal.position - synced >= _JOURNAL_STEP:
                self.file.sync()
                self.file.write(0, self.journal.encode())
                synced = self.journal.position
            if self.progress:
                self.progress(self.journal.position, meta.data_end)
        self.file.end = max(self.file.end, meta.data_end)

    def pages(self, meta: Meta) -> None:
        """Step 2: table pages born since the copy began, and the free list."""
        read = self.store.read_page
        for address, page in table.walk(read, self.uuid, meta.root, meta.depth, self.journal.since):
            self.file.write(address, page.raw)
        for address, page in table.walk_free(read, self.uuid, meta.free_head, meta.free_count):
            self.file.write(address, page.raw)

    def log(self, meta: Meta) -> _LogTail:
        """Step 3: data of the frames behind the checkpoint."""
        store, found = self.store, _LogTail(meta)
        living = store.leased()  # a live writer may yet take back what is not durable; of a dead one everything counts
        waiting: list[tuple[int, int, int, rec.Body]] = []
        for frame in decisions.commits(store, meta, decisions.look):
            body = rec.decode_body(frame.body)
            data: bytes | memoryview = body.data
            if body.in_place:
                data = store.read_page(body.data_address, body.data_length)
                if fmt.xxh3(data) != body.data_sum:
                    raise rec.Damage(f"data of state {frame.state} at address {body.data_address} has a wrong checksum")
            self.file.write(body.data_address, data)
            waiting.append((frame.state, frame.chain, frame.next_oid, replace(body, data=memoryview(b""))))
        durable = store.tail.durable if store.tail is not None else 0
        for state, chain, next_oid, body in waiting:
            if living and state > durable:
                break
            found.state, found.chain, found.next_oid = state, chain, max(found.next_oid, next_oid)
            found.end = max(found.end, body.data_address + body.data_length)
            for oid, address, refcount, flags in body.changes:
                found.changes[oid] = (address, rec.GONE if flags & rec.CHANGE_TOMBSTONE else refcount)
        return found

    def merge(self, meta: Meta, tail: _LogTail) -> Meta:
        """The copy's own table, with the log's changes in it."""
        file, number = self.file, meta.checkpoint + 1
        file.write(0, bytes(fmt.PAGE))  # pages change in place from here on: an interrupted copy begins anew
        file.sync()
        file.end = max(file.end, fmt.align_page(tail.end))
        changed = table.Table(file, self.uuid, number, meta.root, meta.depth)
        for oid in sorted(tail.changes):
            changed.set(oid, *tail.changes[oid])
        root, depth = changed.finish()
        return replace(
            meta,
            checkpoint=number,
            state=tail.state,
            root=root,
            depth=depth,
            next_oid=tail.next_oid,
            data_end=fmt.align_page(file.end),
            redo=1,
            chain=tail.chain,
            time_us=now_us(),
        )


def copy(
    root: str,
    prefix: str,
    output: str,
    *,
    step: int = STEP,
    check: bool = True,
    progress: Progress | None = None,
    system: System = SYSTEM,
) -> Copied:
    """Copy a prefix's newest committed state, with its whole history, into the file `output`.

    Args:
        root, prefix: what to copy; open or not, in use by other processes or not.
        output: the copy's path; missing directories are made.
        step: bytes copied at a time.
        check: verify every record of the copy before it gets its name.
        progress: called with (bytes copied, bytes in all) now and then.
    Raises:
        FileExistsError: `output` exists. PrefixError: no such prefix. CorruptError: the prefix or the copy is damaged.
        StorageError: another process writes the same copy, or the file cannot be written. DiskFullError.
    """
    output = os.path.abspath(output)
    try:
        return _copy(root, prefix, output, step, check, progress, system)
    except FileExistsError:
        raise
    except OSError as exc:
        raise storage_error(exc, prefix, exc.filename or output, "copy to") from exc


def _copy(
    root: str, prefix: str, output: str, step: int, check: bool, progress: Progress | None, system: System
) -> Copied:
    if system.exists(output):
        raise FileExistsError(17, "a copy is never written over an existing file; choose another name", output)
    store = LocalFileStore.open(root, prefix, writable=False, system=system)
    try:
        partial = output + ".partial"
        with _open_partial(system, store, output, partial) as (file, journal):
            meta = _Copy(store, file, journal, step, progress).run()
            source = store.identity
            identity = Identity(random64(), source.prefix_uuid, source.page_size, source.format_version)
            file.finish(identity, meta)
            if check:
                _verify(system, store, partial)
            system.link(partial, output)
            system.unlink(partial)
            newfile.sync_parent(system, output)
            return Copied(meta.state, meta.data_end)
    finally:
        store.close()


@contextlib.contextmanager
def _open_partial(
    system: System, store: LocalFileStore, output: str, partial: str
) -> Iterator[tuple[NewFile, _Journal]]:
    """The unfinished copy, locked against others who write the same, and where to go on."""
    try:
        _make_directories(system, os.path.dirname(output))
        fd = system.open(partial, os.O_RDWR | os.O_CREAT)
    except OSError as exc:
        raise storage_error(exc, store.prefix, partial, "create") from exc
    file = NewFile(system, store.prefix, partial, fd)
    try:
        try:
            if not system.try_lock(fd, 0):
                raise errors.StorageError(
                    f"prefix {store.prefix!r}: another process is writing {partial} right now; wait for it, or choose another output"
                )
            if not system.same_file(fd, partial):
                raise errors.StorageError(
                    f"prefix {store.prefix!r}: another process has just finished {output}; choose another output"
                )
            journal = _Journal.decode(read_exact(system, fd, fmt.PAGE, 0))
            meta = store.read_meta()
            if journal is None or journal.file_id != store.identity.file_id or journal.since > meta.checkpoint:
                journal = _Journal(store.identity.file_id, meta.checkpoint, fmt.FIRST_DATA)
                system.ftruncate(fd, 0)
                file.write(0, journal.encode())
        except OSError as exc:
            raise storage_error(exc, store.prefix, partial, "begin") from exc
        yield file, journal
    finally:
        file.close()


def _make_directories(system: System, directory: str) -> None:
    missing = []
    while not system.is_dir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):
            system.mkdir(path)


def _verify(system: System, store: LocalFileStore, path: str) -> None:
    copied = LocalFileStore.at_path(system, store.prefix, path)
    try:
        problems = verify.check(copied)
    finally:
        copied.close()
    if problems:
        newfile.remove(system, path)
        raise errors.CorruptError(
            f"prefix {store.prefix!r}: the copy {path} was not sound and is deleted: {'; '.join(problems[:3])}. "
            "Run `python -m dbzero check` on the prefix; if that is sound, check the device that the copy was to be on"
        )
