"""The page file of a prefix: what it consists of, where it may be, and how it comes into being complete or not at all."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable
from typing import Final

from .. import errors
from . import format as fmt
from . import log, names
from .filelease import FileLease
from .store import Identity, Meta
from .syscalls import NETWORK_FILE_SYSTEMS, System, read_exact, storage_error, typed, write_all

DATA_STEP: Final = 1 << 20  # page file space is reserved in units of this, doubled up to 64 times of it


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def random64() -> int:
    """A random number from 1 to 2**63."""
    return (int.from_bytes(os.urandom(8), "little") >> 1) + 1


class PageFile:
    """A prefix's page file, opened: its header and meta slots, its bytes, and its space."""

    def __init__(self, system: System, prefix: str, path: str) -> None:
        self.prefix: Final = prefix
        self.path = path
        self.fd = -1
        self.identity: Identity
        self._system: Final = system
        self._allocated = 0
        self._step = DATA_STEP
        self._shown: dict[int, bytes] = {}  # page number -> what readers see instead of the file's

    def _fail(self, exc: OSError, action: str) -> errors.StorageError:
        return storage_error(exc, self.prefix, self.path, action)

    def open(self, flags: int) -> None:
        """Open the file; ``OSError`` as the kernel says it."""
        self.fd = self._system.open(self.path, flags)

    def close(self) -> None:
        """Close the file. Safe to call again."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            self._system.close(fd)

    def read_header(self) -> None:
        """Read :attr:`identity`. NotAStoreError, FormatVersionError, CorruptError, StorageError."""
        try:
            page = read_exact(self._system, self.fd, fmt.PAGE, 0)
        except IsADirectoryError as exc:
            raise errors.NotAStoreError(
                f"{self.path} is a directory, not a dbzero file; choose another prefix name"
            ) from exc
        except OSError as exc:
            raise self._fail(exc, "read") from exc
        self.identity = fmt.decode_header(page, self.path)

    # --- bytes --------------------------------------------------------------------------------------------------------

    def read(self, address: int, length: int) -> bytes:
        """Page file bytes; short when the file ends."""
        if self.fd < 0:
            raise errors.ClosedError(f"prefix {self.prefix!r} is closed; open it again")
        try:
            data = read_exact(self._system, self.fd, length, address)
        except OSError as exc:
            raise self._fail(exc, "read") from exc
        return self._patched(address, length, data) if self._shown else data

    def fileno(self) -> int:
        """Descriptor from which C may read page file bytes, -1 when it must ask :meth:`read`."""
        return -1 if self._shown or self.fd < 0 else self._system.real_fd(self.fd)

    def overlay(self, address: int, data: bytes | memoryview) -> None:
        """Show `data` at `address` to this instance's readers without writing it."""
        position = 0
        while position < len(data):
            page = (address + position) // fmt.PAGE
            within = (address + position) % fmt.PAGE
            n = min(fmt.PAGE - within, len(data) - position)
            old = self._shown.get(page)
            if old is None:
                old = read_exact(self._system, self.fd, fmt.PAGE, page * fmt.PAGE)
            old = old.ljust(within + n, b"\0")
            self._shown[page] = old[:within] + bytes(data[position : position + n]) + old[within + n :]
            position += n

    def _patched(self, address: int, length: int, data: bytes) -> bytes:
        out = bytearray(data)
        for page in range(address // fmt.PAGE, (address + length + fmt.PAGE - 1) // fmt.PAGE):
            patch = self._shown.get(page)
            if patch is None:
                continue
            start = page * fmt.PAGE
            low, high = max(start, address), min(start + len(patch), address + length)
            if low >= high:
                continue
            if len(out) < high - address:
                out.extend(bytes(high - address - len(out)))
            out[low - address : high - address] = patch[low - start : high - start]
        return bytes(out)

    def write(self, address: int, data: bytes | memoryview) -> None:
        """Write bytes. Not synced."""
        try:
            write_all(self._system, self.fd, [data], address)
        except OSError as exc:
            raise self._fail(exc, "write to") from exc

    def sync(self) -> None:
        """Make all bytes durable; ``OSError`` when that failed."""
        self._system.fdatasync(self.fd)

    # --- space --------------------------------------------------------------------------------------------------------

    def reserve(self, data_end: int, data_base: int, data_limit: int) -> None:
        """Make sure that bytes up to `data_end` can be written, and with room to spare some more of the region
        [`data_base`, `data_limit`). DiskFullError leaves everything as it was.
        """
        if data_end <= self._allocated:
            return
        try:
            size = max(self._allocated, self._system.size(self.fd))
            if data_end > size:
                target = fmt.align_page(max(data_end, min(size + self._step, data_limit)))
                start = max(size, data_base)  # a gap left for a replaced writer stays a hole
                try:
                    self._system.fallocate(self.fd, start, target - start)
                except OSError:
                    if target == fmt.align_page(data_end):
                        raise
                    target = fmt.align_page(data_end)  # a smaller step may still fit
                    self._system.fallocate(self.fd, start, target - start)
                size = target
                self._step = min(2 * self._step, 64 * DATA_STEP)
            self._allocated = size
        except OSError as exc:
            raise self._fail(exc, "extend") from exc

    def trim(self) -> None:
        """Give space behind the data of the checkpoint in force back."""
        meta = self.read_meta()
        try:
            if self._system.size(self.fd) > meta.data_end:
                self._system.ftruncate(self.fd, meta.data_end)
                self._allocated = 0
        except OSError as exc:
            raise self._fail(exc, "trim") from exc

    # --- meta slots ---------------------------------------------------------------------------------------------------

    @typed("read")
    def read_meta(self) -> Meta:
        """The newest valid checkpoint. CorruptError when none is, or when the page file is shorter than it says."""
        slots = self._slots()
        valid = [m for m in slots if m is not None]
        if not valid:
            raise errors.CorruptError(
                f"prefix {self.prefix!r}: both meta slots of {self.path} are damaged (addresses 4096 and 8192); restore it from a copy"
            )
        meta = max(valid, key=lambda m: m.checkpoint)
        size = self._system.size(self.fd)
        if size < meta.data_end:
            raise errors.CorruptError(
                f"prefix {self.prefix!r}: {self.path} is cut short: {size} bytes, "
                f"checkpoint {meta.checkpoint} at state {meta.state} ends at {meta.data_end}; restore it from a copy"
            )
        return meta

    def _slots(self) -> list[Meta | None]:
        if self.fd < 0:
            raise errors.ClosedError(f"prefix {self.prefix!r} is closed; open it again")
        try:
            return [
                fmt.decode_meta(read_exact(self._system, self.fd, fmt.PAGE, slot), self.identity.file_id)
                for slot in fmt.META_SLOTS
            ]
        except OSError as exc:
            raise self._fail(exc, "read") from exc

    def put_meta(self, meta: Meta, sync: Callable[[], None]) -> None:
        """Put `meta` in force, see :meth:`dbzero.storage.filestore.LocalFileStore.put_meta`; `sync` calls :meth:`sync`,
        and deals with its failure."""
        slots = self._slots()
        current = max((m for m in slots if m is not None), key=lambda m: m.checkpoint, default=None)
        if meta == current and slots[0] == slots[1]:
            return
        if meta != current and meta.checkpoint != (current.checkpoint if current else 0) + 1:
            raise errors.FencedError(
                f"prefix {self.prefix!r}: checkpoint {meta.checkpoint} does not follow the one in force, which another process has put there; reopen the prefix"
            )
        page = fmt.encode_meta(meta, self.identity.file_id)
        # The file's size counts as written only with a page at its end: after a failed sync an unchanged size would not be written again.
        last = meta.data_end - 1
        self.write(last, self._system.pread(self.fd, 1, last) or b"\0")
        sync()
        # The slot that is not the one in force goes first: that one stays valid whatever happens to this write.
        for index in sorted(range(2), key=lambda i: (slots[i] == meta, slots[i] is not None and slots[i] == current)):
            if slots[index] != meta:
                self.write(fmt.META_SLOTS[index], page)
                sync()


def check_file_system(system: System, root: str, prefix: str) -> None:
    """UnsupportedFileSystemError when `root` is where no writer may be."""
    try:
        magic = system.file_system(root)
    except OSError as exc:
        raise storage_error(exc, prefix, root, "inspect the file system of") from exc
    if magic in NETWORK_FILE_SYSTEMS:
        raise errors.UnsupportedFileSystemError(
            f"prefix {prefix!r}: {root} is on a network file system ({NETWORK_FILE_SYSTEMS[magic]}), whose locks and syncs cannot keep dbzero's "
            "promises; use a local directory, or open read-only"
        )


def create(system: System, root: str, prefix: str, base: str, lease: FileLease, prefix_uuid: int | None) -> None:
    """Put a complete page file in place under its name, or find that another process just did.

    Args:
        prefix_uuid: 64 bits, None: random ones.
    Raises:
        OSError, StorageError: nothing stands under the page file's name.
    """
    directory, path = os.path.dirname(base), names.page_path(base)
    _make_directories(system, root, directory)
    with lease.creation_lock():
        if system.exists(path):
            return
        leftover = log.inventory_numbers(system, base)
        identity = Identity(
            random64(), prefix_uuid if prefix_uuid is not None else random64(), fmt.PAGE, fmt.FORMAT_VERSION
        )
        meta = fmt.first_meta(now_us())
        temporary = base + ".db0.new"
        fd = system.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            slot = fmt.encode_meta(meta, identity.file_id)
            write_all(system, fd, [fmt.encode_header(identity, now_us()), slot, slot], 0)
            system.fsync(fd)
        finally:
            system.close(fd)
        for number in leftover:  # a deleted page file's log: its file id differs, but out of the way is clearer
            set_aside(system, prefix, names.redo_path(base, number))
        with contextlib.suppress(FileExistsError):
            system.link(temporary, path)
        system.unlink(temporary)
        system.sync_dir(directory)


def _make_directories(system: System, root: str, directory: str) -> None:
    missing = []
    while len(directory) > len(root) and not system.is_dir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):
            system.mkdir(path)
        system.sync_dir(os.path.dirname(path))


def set_aside(system: System, prefix: str, path: str) -> None:
    """Rename a log file that belongs to another page file, and warn."""
    target = log.set_aside(system, prefix, path)
    warnings.warn(
        f"prefix {prefix!r}: log file {path} belongs to another page file; it was not replayed and is now {target}",
        RuntimeWarning,
        stacklevel=2,
    )
