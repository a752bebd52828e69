"""A simulated disk: the system calls of :class:`dbzero.storage.syscalls.System` over memory, with faults and crashes.

The memory store is the file store on such a disk, so that what the fault tests prove holds for the code that runs in
production.

Model of durability, cell by cell. A cell is a 512-byte sector of a file, a file's size, or a name in a directory.
Each cell remembers every value it had since it was last synced. A crash leaves in each cell, independently, one of
these values: any subset and reordering of unsynced writes, torn at sector boundaries. A sync of the file (of the
directory, for names) keeps the newest value only. After a *failed* sync the values stay open but count as clean, as
in Linux: a later successful sync does not make them durable unless they were written again.
"""

from __future__ import annotations

import errno
import os
import posixpath
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from dbzero.storage.filestore import LocalFileStore
from dbzero.storage.syscalls import Buffer, System, Watch

SECTOR: Final = 512
_EMPTY: Final = bytes(SECTOR)


class PowerCut(BaseException):
    """The simulated machine lost power at this call. No ``except Exception`` may swallow it."""


class _File:
    """An inode: sectors now, and the older values that a crash could bring back."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.old: dict[int, list[bytes]] = {}  # sector -> possible older values, oldest first
        self.old_sizes: list[int] = []
        self.dirty: set[int] = set()  # sectors written since the last sync, failed ones included
        self.size_dirty = False
        self.locks: dict[int, int] = {}  # byte -> descriptor
        self.shared_locks: dict[int, set[int]] = {}  # byte -> descriptors

    def sector(self, index: int) -> bytes:
        return bytes(self.data[index * SECTOR : (index + 1) * SECTOR]).ljust(SECTOR, b"\0")

    def resize(self, size: int) -> None:
        if size == len(self.data):
            return
        self.old_sizes.append(len(self.data))
        self.size_dirty = True
        if size < len(self.data):
            for index in range(size // SECTOR, (len(self.data) + SECTOR - 1) // SECTOR):
                self._remember(index)
            del self.data[size:]
        else:
            self.data.extend(bytes(size - len(self.data)))

    def write(self, offset: int, data: bytes) -> None:
        if not data:
            return
        if offset + len(data) > len(self.data):
            self.resize(offset + len(data))
        self.size_dirty = True  # writing a page back brings the size on disk up to it
        for index in range(offset // SECTOR, (offset + len(data) - 1) // SECTOR + 1):
            self._remember(index)
        self.data[offset : offset + len(data)] = data

    def _remember(self, index: int) -> None:
        self.old.setdefault(index, []).append(self.sector(index))
        self.dirty.add(index)

    def sync(self, works: bool) -> None:
        if works:
            for index in self.dirty:
                self.old.pop(index, None)
            if self.size_dirty:
                self.old_sizes.clear()
        self.dirty.clear()
        self.size_dirty = False

    def after_crash(self, choose: Callable[[int], int]) -> _File:
        """`choose(n)` picks one of n values; n - 1 is the newest."""
        out = _File()
        sizes = [*self.old_sizes, len(self.data)]
        size = sizes[choose(len(sizes))]
        out.data = bytearray(self.data[:size].ljust(size, b"\0"))
        for index in sorted(self.old):
            values = [*self.old[index], self.sector(index)]
            value = values[choose(len(values))]
            start = index * SECTOR
            if start < size:
                out.data[start : min(start + SECTOR, size)] = value[: min(SECTOR, size - start)]
        return out


class _Directory:
    def __init__(self) -> None:
        self.names: dict[str, _File | _Directory] = {}
        self.old: dict[str, list[_File | _Directory | None]] = {}

    def put(self, name: str, node: _File | _Directory | None) -> None:
        self.old.setdefault(name, []).append(self.names.get(name))
        if node is None:
            del self.names[name]
        else:
            self.names[name] = node


class MemoryDisk(System):
    """A simulated file system under ``/``; every method is one call that can fail.

    Args:
        root: directory that exists from the start.
        capacity: bytes all files may take together (ENOSPC beyond), None: unlimited.
    Attributes:
        calls: number of calls made so far that can fail; the i-th call is number i, from 1.
        kinds: method name of each call, in order.
    """

    def __init__(self, root: str = "/root", capacity: int | None = None) -> None:
        self._top = _Directory()
        self._open: dict[int, tuple[_File | _Directory, str, bool]] = {}
        self._next_fd = 1000
        self._mutex = threading.RLock()
        self._changed = threading.Condition(self._mutex)
        self._version = 0
        self.capacity = capacity
        self.calls = 0
        self.kinds: list[str] = []
        self._fault: tuple[int, int | None, bool, frozenset[str] | None] | None = None
        self._half = False
        self._half_code: int | None = None
        self._dead = False
        self.root: Final = root
        node = self._top
        for part in root.strip("/").split("/"):
            child = _Directory()
            node.names[part] = child
            node = child

    # --- faults ------------------------------------------------------------------------------------------------------------------------

    def fail(
        self,
        call: int,
        code: int | None,
        *,
        forever: bool = False,
        only: frozenset[str] | None = None,
        half: bool = False,
    ) -> None:
        """Let the `call`-th call from now (1: the next) fail with errno `code`; None: power cut.

        Args:
            forever: so do all later ones. only: count and fail only calls of these methods. half: a failing write has
                written its first half.
        """
        self._fault = (call, code, forever, only)
        self._half = half
        self._half_code = code

    def heal(self) -> None:
        """No more faults."""
        self._fault = None

    def _call(self, kind: str) -> bool:
        """Count a call; raises what was planned. True: fail after doing half of the write."""
        if self._dead:
            raise PowerCut
        self.calls += 1
        self.kinds.append(kind)
        if self._fault is None:
            return False
        left, code, forever, only = self._fault
        if only is not None and kind not in only:
            return False
        left -= 1
        self._fault = (max(left, 0), code, forever, only)
        if left > 0:
            return False
        if left == 0 or forever:
            if code is None:
                if kind == "pwritev" and self._half:
                    return True
                self._dead = True
                raise PowerCut
            if not forever:
                self._fault = None
            if kind == "pwritev" and self._half:
                return True
            raise OSError(code, os.strerror(code), kind)
        return False

    def crash(self, choose: Callable[[int], int] | random.Random | None = None) -> MemoryDisk:
        """The disk as a power cut now could leave it.

        Args:
            choose: picks one of n values of a cell (n - 1: newest); a Random for any; None: oldest everywhere.
        """
        pick: Callable[[int], int]
        if choose is None:
            pick = _oldest
        elif isinstance(choose, random.Random):
            pick = choose.randrange
        else:
            pick = choose
        with self._mutex:
            seen: dict[int, _File] = {}

            def copy(node: _File | _Directory) -> _File | _Directory:
                if isinstance(node, _File):
                    if id(node) not in seen:
                        seen[id(node)] = node.after_crash(pick)
                    return seen[id(node)]
                out = _Directory()
                for name in sorted({*node.names, *node.old}):
                    values = [*node.old.get(name, []), node.names.get(name)]
                    value = values[pick(len(values))] if len(values) > 1 else values[0]
                    if value is not None:
                        out.names[name] = copy(value)
                return out

            disk = MemoryDisk(self.root, self.capacity)
            top = copy(self._top)
            assert isinstance(top, _Directory)
            disk._top = top
            return disk

    def kill(self) -> MemoryDisk:
        """The disk as it stands when all processes die but the machine lives: everything written is there, synced or not yet."""
        with self._mutex:
            disk = MemoryDisk(self.root, self.capacity)
            disk._top = self._top
            disk._next_fd = self._next_fd + (
                1 << 20
            )  # a descriptor of a dead process never releases a lock of a live one
            self._dead = True
            for node in self._walk(self._top):
                node.locks.clear()
                node.shared_locks.clear()
            return disk

    def _walk(self, node: _Directory) -> list[_File]:
        out: list[_File] = []
        for child in node.names.values():
            if isinstance(child, _File):
                out.append(child)
            else:
                out.extend(self._walk(child))
        return out

    def files(self) -> dict[str, bytes]:
        """Path -> content of every file, as a running process sees it."""
        out: dict[str, bytes] = {}

        def walk(node: _Directory, path: str) -> None:
            for name, child in node.names.items():
                if isinstance(child, _File):
                    out[f"{path}/{name}"] = bytes(child.data)
                else:
                    walk(child, f"{path}/{name}")

        walk(self._top, "")
        return out

    def poke(self, path: str, offset: int, data: bytes) -> None:
        """Change bytes of a file behind everybody's back (bit rot); durable at once."""
        node = self._find(path)
        assert isinstance(node, _File)
        node.data[offset : offset + len(data)] = data

    # --- names -------------------------------------------------------------------------------------------------------------------------

    def _find(self, path: str) -> _File | _Directory | None:
        node: _File | _Directory = self._top
        for part in posixpath.normpath(path).strip("/").split("/"):
            if not part:
                continue
            if not isinstance(node, _Directory):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            child = node.names.get(part)
            if child is None:
                return None
            node = child
        return node

    def _parent(self, path: str) -> tuple[_Directory, str]:
        directory, name = posixpath.split(path)
        node = self._find(directory)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if not isinstance(node, _Directory):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return node, name

    def _file(self, fd: int) -> _File:
        if fd not in self._open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        node = self._open[fd][0]
        if isinstance(node, _Directory):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return node

    def _touch(self) -> None:
        self._version += 1
        self._changed.notify_all()

    # --- the calls ---------------------------------------------------------------------------------------------------------------------

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        with self._mutex:
            self._call("open")
            node = self._find(path)
            if node is None:
                if not flags & os.O_CREAT:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
                directory, name = self._parent(path)
                node = _File()
                directory.put(name, node)
                self._touch()
            elif flags & os.O_EXCL and flags & os.O_CREAT:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            elif isinstance(node, _Directory) and flags & os.O_ACCMODE != os.O_RDONLY:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            elif isinstance(node, _File) and flags & os.O_TRUNC:
                node.resize(0)
            fd = self._next_fd
            self._next_fd += 1
            self._open[fd] = (node, path, flags & os.O_ACCMODE != os.O_RDONLY)
            return fd

    def close(self, fd: int) -> None:
        with self._mutex:
            if fd not in self._open:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            node = self._open.pop(fd)[0]
            if isinstance(node, _File):
                for byte in [b for b, owner in node.locks.items() if owner == fd]:
                    del node.locks[byte]
                for readers in node.shared_locks.values():
                    readers.discard(fd)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        with self._mutex:
            self._call("pread")
            return bytes(self._file(fd).data[offset : offset + length])

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        with self._mutex:
            half = self._call("pwritev")
            file = self._file(fd)
            if not self._open[fd][2]:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            data = b"".join(buffers)
            if half:
                file.write(offset, data[: len(data) // 2])
                if self._half_code is None:
                    self._dead = True
                    raise PowerCut
                raise OSError(self._half_code, os.strerror(self._half_code))
            self._room(file, offset + len(data))
            file.write(offset, data)
            self._touch()
            return len(data)

    def _room(self, file: _File, size: int) -> None:
        if self.capacity is not None and size > len(file.data):
            used = sum(len(f.data) for f in self._walk(self._top))
            if used + size - len(file.data) > self.capacity:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fdatasync(self, fd: int) -> None:
        self._sync(fd, "fdatasync")

    def fsync(self, fd: int) -> None:
        self._sync(fd, "fsync")

    def _sync(self, fd: int, kind: str) -> None:
        with self._mutex:
            file = self._file(fd)
            try:
                self._call(kind)
            except OSError:
                file.sync(works=False)
                raise
            file.sync(works=True)

    def fallocate(self, fd: int, offset: int, length: int) -> None:
        with self._mutex:
            self._call("fallocate")
            file = self._file(fd)
            if offset + length > len(file.data):
                self._room(file, offset + length)
                file.resize(offset + length)

    def ftruncate(self, fd: int, length: int) -> None:
        with self._mutex:
            self._call("ftruncate")
            self._file(fd).resize(length)
            self._touch()

    def size(self, fd: int) -> int:
        with self._mutex:
            return len(self._file(fd).data)

    def same_file(self, fd: int, path: str) -> bool:
        with self._mutex:
            return self._find(path) is self._open[fd][0]

    def exists(self, path: str) -> bool:
        with self._mutex:
            self._call("exists")
            try:
                return self._find(path) is not None
            except NotADirectoryError:
                return False

    def followed(self, following: bytes, own: bytes) -> bool:
        return self.exists(os.fsdecode(following)) or not self.exists(os.fsdecode(own))

    def is_dir(self, path: str) -> bool:
        with self._mutex:
            try:
                return isinstance(self._find(path), _Directory)
            except NotADirectoryError:
                return False

    def listdir(self, path: str) -> list[str]:
        with self._mutex:
            self._call("listdir")
            node = self._find(path)
            if node is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            if not isinstance(node, _Directory):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            return list(node.names)

    def mkdir(self, path: str) -> None:
        with self._mutex:
            self._call("mkdir")
            directory, name = self._parent(path)
            if name in directory.names:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            directory.put(name, _Directory())

    def unlink(self, path: str) -> None:
        with self._mutex:
            self._call("unlink")
            directory, name = self._parent(path)
            if name not in directory.names:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            directory.put(name, None)
            self._touch()

    def copy_mode(self, fd: int, source: int) -> None:
        with self._mutex:
            self._file(fd)
            self._file(source)

    def rename(self, source: str, target: str) -> None:
        with self._mutex:
            self._call("rename")
            directory, name = self._parent(source)
            if name not in directory.names:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
            there, new = self._parent(target)
            there.put(new, directory.names[name])
            directory.put(name, None)

    def link(self, source: str, target: str) -> None:
        with self._mutex:
            self._call("link")
            node = self._find(source)
            if node is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
            directory, name = self._parent(target)
            if name in directory.names:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
            directory.put(name, node)
            self._touch()

    def sync_dir(self, path: str) -> None:
        with self._mutex:
            self._call("sync_dir")
            node = self._find(path)
            if not isinstance(node, _Directory):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            node.old.clear()

    def try_lock(self, fd: int, byte: int) -> bool:
        with self._mutex:
            self._call("try_lock")
            file = self._file(fd)
            if file.shared_locks.get(byte, set()) - {fd} or file.locks.setdefault(byte, fd) != fd:
                return False
            file.shared_locks.pop(byte, None)
            return True

    def try_lock_shared(self, fd: int, byte: int) -> bool:
        with self._mutex:
            self._call("try_lock")
            file = self._file(fd)
            if file.locks.get(byte, fd) != fd:
                return False
            file.locks.pop(byte, None)
            file.shared_locks.setdefault(byte, set()).add(fd)
            return True

    def lock_taken(self, fd: int, byte: int) -> bool:
        with self._mutex:
            self._call("lock_taken")
            file = self._file(fd)
            return file.locks.get(byte, fd) != fd or bool(file.shared_locks.get(byte, set()) - {fd})

    def unlock(self, fd: int, byte: int) -> None:
        with self._mutex:
            locks = self._file(fd).locks
            if locks.get(byte) == fd:
                del locks[byte]
            self._file(fd).shared_locks.get(byte, set()).discard(fd)

    def file_system(self, path: str) -> int:
        with self._mutex:
            self._call("file_system")
            return 0xEF53

    def real_fd(self, fd: int) -> int:
        return -1

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def watch(self, directory: str) -> Watch:
        return _MemoryWatch(self)


class _MemoryWatch(Watch):
    def __init__(self, disk: MemoryDisk) -> None:
        self._disk = disk
        self._seen = disk._version

    def wait(self, prefix: str, timeout: float | None) -> bool:
        with self._disk._mutex:
            changed = self._disk._changed.wait_for(lambda: self._disk._version != self._seen, timeout)
            self._seen = self._disk._version
            return changed

    def close(self) -> None:
        return


def _oldest(n: int) -> int:
    return 0


class MemoryStore(LocalFileStore):
    """The store over a simulated disk, which `disk` gives access to."""

    @property
    def disk(self) -> MemoryDisk:
        assert isinstance(self._system, MemoryDisk)
        return self._system

    @classmethod
    def on(cls, disk: MemoryDisk, prefix: str = "memory", *, writable: bool = True, create: bool = True) -> MemoryStore:
        """Open (or create) a prefix on a disk."""
        store = cls.open(disk.root, prefix, writable=writable, create=create, system=disk)
        assert isinstance(store, MemoryStore)
        return store
