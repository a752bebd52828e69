"""The seam: every durable system call of the project goes through a :class:`System`.

``System`` is the kernel's; :class:`tests.storage.memstore.MemoryDisk` is a simulated one that can fail any call and
compute what a crash would leave. Nothing above this file opens, writes, syncs, locks or deletes a file of a prefix by
itself. Methods raise ``OSError`` as the kernel says it; :func:`storage_error` turns that into a typed error at the
place that knows the prefix.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import select
import stat
import struct
import time
from collections.abc import Callable, Sequence
from typing import Concatenate, Final, ParamSpec, Protocol, TypeVar

from dbzero.runtime import osthreads

from .. import errors
from .._engine import lib

Buffer = bytes | bytearray | memoryview

_FLOCK: Final = struct.Struct("@hhqqi")  # struct flock: type, whence, start, length, pid (0 for OFD locks)
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

# statfs(2) magic numbers of file systems whose locks or syncs reach another machine; writers refuse them.
NETWORK_FILE_SYSTEMS: Final = {
    0x6969: "nfs",
    0x517B: "smb",
    0xFF534D42: "cifs",
    0xFE534D42: "smb2",
    0x73757245: "coda",
    0x5346414F: "afs",
    0x01021997: "9p",
    0x00C36400: "ceph",
    0x0BD00BD0: "lustre",
    0x47504653: "gpfs",
    0x19830326: "beegfs",
}


class Counts:
    """What went through :class:`System` in this process."""

    __slots__ = ("bytes_read", "bytes_written", "reads", "syncs", "writes")

    def __init__(self) -> None:
        self.reads = self.writes = self.syncs = self.bytes_read = self.bytes_written = 0


COUNTS = Counts()


class System:
    """The kernel's file calls, one method each. Stateless; safe to share between threads."""

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        return os.open(path, flags | os.O_CLOEXEC, mode)

    def close(self, fd: int) -> None:
        os.close(fd)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        found = os.pread(fd, length, offset)
        COUNTS.reads += 1
        COUNTS.bytes_read += len(found)
        return found

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        """Bytes written, possibly fewer than given."""
        done = os.pwritev(fd, buffers, offset)
        COUNTS.writes += 1
        COUNTS.bytes_written += done
        return done

    def fdatasync(self, fd: int) -> None:
        os.fdatasync(fd)
        COUNTS.syncs += 1

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def fallocate(self, fd: int, offset: int, length: int) -> None:
        """Reserve blocks; the file grows to at least ``offset + length``."""
        os.posix_fallocate(fd, offset, length)

    def ftruncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def same_file(self, fd: int, path: str) -> bool:
        """Whether `path` still names the file open as `fd`."""
        return self._answer(lib.dbz_same_file(fd, os.fsencode(path)), path)

    def copy_mode(self, fd: int, source: int) -> None:
        """Give a file the permissions of another one, and its owner where this process may."""
        there, here = os.fstat(source), os.fstat(fd)
        if (there.st_uid, there.st_gid) != (here.st_uid, here.st_gid):
            with contextlib.suppress(PermissionError):
                os.fchown(fd, there.st_uid, there.st_gid)
        os.fchmod(fd, stat.S_IMODE(there.st_mode))

    def exists(self, path: str) -> bool:
        return self._answer(lib.dbz_named(os.fsencode(path)), path)

    def followed(self, following: bytes, own: bytes) -> bool:
        """Whether there is a file `following`, or else none of the name `own`."""
        return self._answer(lib.dbz_log_followed(following, own), following)

    def _answer(self, code: int, path: str | bytes) -> bool:
        if code < 0:
            raise OSError(-code, os.strerror(-code), os.fsdecode(path))
        return code == 1

    def is_dir(self, path: str) -> bool:
        try:
            return stat.S_ISDIR(os.stat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def listdir(self, path: str) -> list[str]:
        return os.listdir(path)

    def mkdir(self, path: str) -> None:
        os.mkdir(path)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def link(self, source: str, target: str) -> None:
        """Second name for a file; FileExistsError when `target` exists (the atomic create of a complete file)."""
        os.link(source, target)

    def sync_dir(self, path: str) -> None:
        """Make the names in a directory durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def try_lock(self, fd: int, byte: int) -> bool:
        """Exclusive open-file-description lock on one byte, without waiting. It dies with the last descriptor of this
        open file.
        """
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
        except OSError as exc:
            if exc.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def try_lock_shared(self, fd: int, byte: int) -> bool:
        """The same, but others may have it shared as well. An exclusive lock held is turned into a shared one."""
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))
        except OSError as exc:
            if exc.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def lock_taken(self, fd: int, byte: int) -> bool:
        """Whether another open file description holds a lock on the byte. Takes nothing."""
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
        found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked)
        return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)

    def unlock(self, fd: int, byte: int) -> None:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, byte, 1, 0))

    def file_system(self, path: str) -> int:
        """statfs(2) magic number of the file system `path` is on."""
        magic = int(lib.dbz_fs_type(os.fsencode(path)))
        if magic < 0:
            raise OSError(-magic, os.strerror(-magic), path)
        return magic

    def real_fd(self, fd: int) -> int:
        """The descriptor as C may use it, -1 when there is none."""
        return fd

    def sleep(self, seconds: float) -> None:
        osthreads.sleep(seconds)

    def watch(self, directory: str) -> Watch:
        return Watch(directory)


class Watch:
    """Sleeps until a file in a directory is written, created or deleted (inotify; no polling)."""

    _EVENTS: Final = (
        0x2 | 0x40 | 0x80 | 0x100 | 0x200
    )  # IN_MODIFY | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
    _HEAD: Final = struct.Struct("@iIII")

    def __init__(self, directory: str) -> None:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0 or libc.inotify_add_watch(self._fd, os.fsencode(directory), ctypes.c_uint32(self._EVENTS)) < 0:
            code = ctypes.get_errno()
            self.close()
            raise OSError(code, os.strerror(code), directory)

    def wait(self, prefix: str, timeout: float | None) -> bool:
        """True once a name starting with `prefix` changed since the last call, False after `timeout` seconds (None:
        wait for ever).
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        wanted = os.fsencode(prefix)
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self._fd], [], [], left)
            if not ready:
                return False
            data = os.read(self._fd, 65536)
            offset, hit = 0, False
            while offset < len(data):
                _, mask, _, length = self._HEAD.unpack_from(data, offset)
                name = data[offset + 16 : offset + 16 + length].rstrip(b"\0")
                hit = hit or name.startswith(wanted) or bool(mask & 0x4000)  # IN_Q_OVERFLOW
                offset += 16 + length
            if hit:
                return True

    def close(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()


SYSTEM: Final = System()


def write_all(system: System, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
    """Write everything, going on after short writes. The buffers are of bytes."""
    done = system.pwritev(fd, buffers, offset)
    if done != sum(map(len, buffers)):
        _write_rest(system, fd, buffers, offset, done)


def _write_rest(system: System, fd: int, buffers: Sequence[Buffer], offset: int, done: int) -> None:
    left = [memoryview(b).cast("B") for b in buffers if len(b)]
    while True:
        offset += done
        while left and done >= len(left[0]):
            done -= len(left[0])
            left.pop(0)
        if not left:
            return
        left[0] = left[0][done:]
        done = system.pwritev(fd, left, offset)


def read_exact(system: System, fd: int, length: int, offset: int) -> bytes:
    """Up to `length` bytes; fewer only at the end of the file."""
    data = system.pread(fd, length, offset)
    if len(data) == length or not data:
        return data
    parts = [data]
    got = len(data)
    while got < length:
        data = system.pread(fd, length - got, offset + got)
        if not data:
            break
        parts.append(data)
        got += len(data)
    return b"".join(parts)


def storage_error(exc: OSError, prefix: str, path: str, action: str) -> errors.StorageError:
    """The typed error for a failed call, naming the prefix, the file and the way out. One that is typed already is
    returned as it is.
    """
    if isinstance(exc, errors.StorageError):
        return exc
    reason = os.strerror(exc.errno) if exc.errno else str(exc)
    where = f"prefix {prefix!r}: cannot {action} {path}: {reason}"
    if exc.errno in _NO_SPACE:
        full = errors.DiskFullError(
            f"{where}. Nothing was changed; free some space (or raise the quota) and commit again."
        )
        full.errno = exc.errno
        return full
    if exc.errno in _DENIED:
        return errors.StorageError(
            f"{where}. Check owner and permissions of the file and its directory, or open the prefix read-only."
        )
    if exc.errno in (errno.ENOENT, errno.ENOTDIR):
        return errors.StorageError(f"{where}. Check that the directory exists and was not moved while in use.")
    return errors.StorageError(f"{where}. The last commit stays readable; check the device.")


class Named(Protocol):
    """Whose errors :func:`typed` words."""

    @property
    def prefix(self) -> str: ...
    @property
    def path(self) -> str: ...


_N = TypeVar("_N", bound=Named)
_P = ParamSpec("_P")
_R = TypeVar("_R")


def typed(action: str) -> Callable[[Callable[Concatenate[_N, _P], _R]], Callable[Concatenate[_N, _P], _R]]:
    """Decorator of a method: whatever system call fails inside, the caller gets a typed error that says what `action`
    failed on the call's file, or else on the object's `path`."""

    def decorate(method: Callable[Concatenate[_N, _P], _R]) -> Callable[Concatenate[_N, _P], _R]:
        @functools.wraps(method)
        def wrapper(self: _N, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
            try:
                return method(self, *args, **kwargs)
            except OSError as exc:
                if isinstance(exc, errors.Error):
                    raise
                raise storage_error(exc, self.prefix, exc.filename or self.path, action) from exc

        return wrapper

    return decorate
