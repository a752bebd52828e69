"""A page file that comes into being under another name: nobody reads it before it is complete, synced and renamed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from .. import errors
from . import format as fmt
from .pagefile import now_us
from .store import Identity, Meta
from .syscalls import System, read_exact, storage_error, write_all

_BUFFER: Final = 1 << 20
_EXTENT: Final = 64  # table pages that stand together, so that records are not torn apart by single ones


class NewFile:
    """A page file in the making. Every failed call is a typed error that names the file.

    Attributes: path; fd; end: first address that nothing uses yet.
    """

    def __init__(self, system: System, prefix: str, path: str, fd: int, *, end: int = fmt.FIRST_DATA) -> None:
        self.prefix: Final = prefix
        self.path: Final = path
        self.fd = fd
        self.end = end
        self.spare: list[int] = []  # pages that :meth:`allocate` has set apart and not given out
        self._system: Final = system
        self._buffer = bytearray()  # data that stands right before `end`, not written yet
        self._leaves = 0  # how many more leaves are to be expected at most

    def _fail(self, exc: OSError, action: str) -> errors.StorageError:
        return storage_error(exc, self.prefix, self.path, action)

    def read(self, address: int, length: int) -> bytes:
        """Bytes, short at the end of the file."""
        if address + length > self.end - len(self._buffer):
            self.flush()
        try:
            return read_exact(self._system, self.fd, length, address)
        except OSError as exc:
            raise self._fail(exc, "read") from exc

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write bytes in place. Not synced."""
        try:
            write_all(self._system, self.fd, [data], address)
        except OSError as exc:
            raise self._fail(exc, "write to") from exc

    def append(self, data: bytes) -> None:
        """Put bytes at :attr:`end`, which moves on."""
        self._buffer += data
        self.end += len(data)
        if len(self._buffer) >= _BUFFER:
            self.flush()

    def flush(self) -> None:
        """Hand appended bytes to the kernel."""
        if self._buffer:
            self.write(self.end - len(self._buffer), self._buffer)
            self._buffer = bytearray()

    def expect(self, leaves: int) -> None:
        """How many leaves are to come at most."""
        self._leaves = leaves

    def allocate(self) -> int:
        """Address of a page that nothing uses."""
        if not self.spare:
            self.flush()
            count = max(1, min(_EXTENT, self._leaves))
            start = fmt.align_page(self.end)
            self.end = start + count * fmt.PAGE
            self.spare = list(range(start, self.end, fmt.PAGE))
        self._leaves -= 1
        return self.spare.pop(0)

    def sync(self) -> None:
        """Make everything written durable."""
        self.flush()
        try:
            self._system.fsync(self.fd)
        except OSError as exc:
            raise self._fail(exc, "sync") from exc

    def finish(self, identity: Identity, meta: Meta) -> None:
        """Write header and meta slots, and sync: the file is complete then."""
        self.flush()
        slot = fmt.encode_meta(meta, identity.file_id)
        try:
            if self._system.size(self.fd) != meta.data_end:
                self._system.ftruncate(self.fd, meta.data_end)
        except OSError as exc:
            raise self._fail(exc, "extend") from exc
        self.write(0, fmt.encode_header(identity, now_us()) + slot + slot)
        self.sync()

    def close(self) -> None:
        """Close the file. Safe to call again."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            self._system.close(fd)


def remove(system: System, path: str) -> None:
    """Delete a file that never became one, if it is there. ``OSError`` as the kernel says it."""
    try:
        system.unlink(path)
    except FileNotFoundError:
        return


def sync_parent(system: System, path: str) -> None:
    """Make the name of a file durable."""
    system.sync_dir(os.path.dirname(path) or ".")


Progress = Callable[[int, int], None]  # (done, in all), in bytes or objects
