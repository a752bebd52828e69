"""The root directory's identity file, `<root>/.dbzero`, and the byte locks on it.

Its content is the root's random id; byte i below 4096 is the proof of life of process slot i, byte 4096 of processes
without a slot, and one far byte is the lock under which
segments are attached, created and removed. Locks belong to the open file description: the kernel drops them with the
process.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from dbzero import errors
from dbzero._engine import ffi, lib
from dbzero.runtime import codes

NAME: Final = ".dbzero"
SLOT_BYTES: Final = 4097  # process slots and the overflow byte
_FILE_LOCK: Final = 1 << 20
_PATIENCE: Final = 30.0  # seconds to wait for the file lock; it is held for a few milliseconds


class Identity(Struct, frozen=True):
    """Names one root directory of one boot of one machine."""

    root_id: bytes  # 16 random bytes from the file
    device: int
    inode: int  # of the identity file, so that a copied root is another root
    boot_id: bytes  # 16 bytes


def boot_id() -> bytes:
    """16 bytes that change with every boot of the machine; zeros when the system doesn't tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return bytes.fromhex(file.read().strip().replace("-", ""))[:16].ljust(16, b"\0")
    except (OSError, ValueError):
        return bytes(16)


class RootFile:
    """The identity file, open with a file description of its own.

    Args of :meth:`open`: `root`, the directory, which must exist.
    """

    def __init__(self, path: str, fd: int, identity: Identity) -> None:
        self.path: Final = path
        self.fd = fd
        self.identity: Final = identity

    @classmethod
    def open(cls, root: str) -> RootFile:
        """Open, or create with a fresh id.

        Raises:
            StorageError: the directory is missing or not accessible, locks don't work there.
            PermissionError: the file can't be opened for writing (the caller falls back to a private segment).
            NotAStoreError: the file holds something else.
        """
        path = os.path.join(root, NAME)
        while True:
            fd = cls._open_fd(root, path)
            try:
                with locked(fd, path):
                    st = os.fstat(fd)
                    # Deleted or replaced between open and lock: whoever comes next would see another file.
                    if not _same_file(path, st):
                        os.close(fd)
                        fd = -1
                        continue
                    root_id = cls._read_id(fd, path)
                return cls(path, fd, Identity(root_id, st.st_dev, st.st_ino, boot_id()))
            except BaseException:
                if fd >= 0:
                    os.close(fd)
                raise

    @staticmethod
    def _open_fd(root: str, path: str) -> int:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except PermissionError:
            raise
        except OSError as exc:
            if exc.errno == errno.EROFS:
                raise PermissionError(exc.errno, exc.strerror, path) from exc
            if exc.errno in (errno.ENOENT, errno.ENOTDIR):
                raise errors.StorageError(
                    f"root directory {root} does not exist or is no directory; create it or pass another one"
                ) from exc
            if exc.errno == errno.EISDIR:
                raise errors.NotAStoreError(
                    f"{path} is a directory, but dbzero keeps the root's identity there; remove it"
                ) from exc
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                raise errors.DiskFullError(
                    f"{path}: no space left to create the root's identity file; free some and try again"
                ) from exc
            raise errors.StorageError(f"{path}: {exc.strerror}") from exc

    @staticmethod
    def _read_id(fd: int, path: str) -> bytes:
        text = os.pread(fd, 64, 0)
        if not text:
            root_id = os.urandom(16)
            try:
                os.pwrite(fd, root_id.hex().encode() + b"\n", 0)
                os.fsync(fd)
            except OSError as exc:
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, 0)
                kind = errors.DiskFullError if exc.errno in (errno.ENOSPC, errno.EDQUOT) else errors.StorageError
                raise kind(f"{path}: cannot write the root's identity: {exc.strerror}") from exc
            return root_id
        try:
            root_id = bytes.fromhex(text.decode("ascii").strip())
        except ValueError:
            root_id = b""
        if len(root_id) != 16:
            raise errors.NotAStoreError(
                f"{path} does not hold a root's identity; if no process uses this directory, delete that file: "
                "it only names shared memory, no data is in it"
            )
        return root_id

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the root's file lock: attaching, creating and removing the segment, assigning prefix slots. Not
        reentrant."""
        with locked(self.fd, self.path):
            yield

    def anyone_alive(self) -> bool:
        """Whether another process of this root holds a slot byte (in this segment or one whose name was deleted)."""
        return bool(lib.dbz_lock_taken(self.fd, 0, SLOT_BYTES))

    def close(self) -> None:
        """Close the description, and with it all its locks. Don't call once the engine owns the descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _same_file(path: str, st: os.stat_result) -> bool:
    try:
        now = os.stat(path)
    except FileNotFoundError:
        return False
    return (now.st_dev, now.st_ino) == (st.st_dev, st.st_ino)


@contextlib.contextmanager
def locked(fd: int, path: str) -> Iterator[None]:
    """Hold the root's file lock by the description behind `fd`. SegmentError when that takes too long, StorageError
    when locks don't work."""
    code = lib.dbz_lock_wait(fd, _FILE_LOCK, 1, 1, int(_PATIENCE * 1e9))
    if code == codes.TIMEOUT:
        raise errors.SegmentError(
            f"{path}: its lock has been held for {_PATIENCE:.0f} s, by a process that is stopped while opening or "
            "closing this root; end or continue it"
        )
    if code < 0:
        raise errors.StorageError(
            f"{path}: this file system cannot lock files ({os.strerror(ffi.errno)}); use a local directory"
        )
    try:
        yield
    finally:
        lib.dbz_lock_drop(fd, _FILE_LOCK, 1)
