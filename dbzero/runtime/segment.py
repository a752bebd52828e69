"""The shared-memory segment of a root directory: attach, create, remove; or a private one when sharing isn't to be had.

Its name follows from the root's identity (random id, device, inode, boot), never from the path. Attach, create and
remove happen under the root's file lock. A segment that no
live process is attached to is never reused: what the dead left in it isn't worth trusting, and the files have
everything.

Every attached process holds a read lock on the segment object itself. So leftovers of processes that were all killed
can be told from segments in use, even
when the root directory they belonged to is gone; they are removed whenever a segment is created.
"""

from __future__ import annotations

import contextlib
import errno
import os
import warnings
from collections.abc import Iterator
from typing import Any, Final

import posix_ipc
import xxhash
from msgspec import Struct

from dbzero import errors
from dbzero._engine import ffi, lib
from dbzero.runtime import codes, fork, osthreads
from dbzero.runtime.native import persistent
from dbzero.runtime.root import NAME as ROOT_FILE
from dbzero.runtime.root import Identity, RootFile, locked

SHM_DIRECTORY: Final = "/dev/shm"
_NAME_PREFIX: Final = "dbzero-"
_USE_BYTE: Final = 0  # of the segment object; read-locked by everyone attached
_AWAKENING: Final = 0.0005  # seconds until a sleeper that was woken is looked for again
_TRIES: Final = 5
MINIMUM_CACHE: Final = 1 << 20
_SHARE_OF_FREE: Final = 0.8  # of what /dev/shm has left


class SegmentStatus(Struct, frozen=True):
    """Sizes in bytes, counters since creation."""

    size: int  # virtual
    reserved: int  # backed by memory
    cache_bytes: int  # capacity of the page cache
    hits: int
    misses: int
    evictions: int
    arena_bytes: int  # capacity of the delta index
    arena_used: int
    processes: int
    prefixes: int


def segment_name(identity: Identity) -> str:
    """POSIX shared memory name (with its slash) of a root's segment."""
    where = identity.device.to_bytes(8, "little") + identity.inode.to_bytes(8, "little")
    return f"/{_NAME_PREFIX}{xxhash.xxh3_128_hexdigest(identity.root_id + identity.boot_id + where)[:24]}"


def arena_for(cache_size: int) -> int:
    """Bytes of delta arena for a cache size: half of it, between 8 MiB and 2 GiB (virtual; memory is reserved as it
    is used)."""
    return min(max(cache_size // 2, 8 << 20), 2 << 30)


class Segment:
    """This process's handle on a root's segment.

    Attributes:
        root: directory.
        shared: False for a private fallback, which no other process sees.
        name: POSIX name, empty when private.

    In a forked child it is the parent's (:attr:`inherited`), good for reading only, until :meth:`rejoin`.
    """

    def __init__(self, root: str, handle: Any, name: str) -> None:
        self.root: Final = root
        # The mapping goes with the last reference to the handle, not with close(): calls run without the GIL, and each holds its arguments.
        lib.dbz_seg_hold(handle)
        self._handle: Any = ffi.gc(handle, lib.dbz_seg_drop)
        self.words: Final = persistent.Words(int(ffi.cast("uintptr_t", handle)), root)  # what slots are made of
        self._sleepers: dict[Sleeper, tuple[int, ...]] = {}  # threads that sleep on prefix slots -> their numbers
        self.reclaim_at = 0.0  # monotonic time before which looking for dead processes is not worth it
        self.name: Final = name
        self.shared: Final = bool(name)
        self._depth = fork.depth()

    # --- opening ------------------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, root: str | os.PathLike[str], cache_size: int, *, private: bool = False) -> Segment:
        """Attach to the root's segment or create it, and register this process.

        Args:
            root: existing directory.
            cache_size: bytes of page cache if the segment has to be created, clipped with a warning to what
                shared memory has left.
            private: don't share (for tests, and for following another container's writer).
        Raises:
            StorageError: the root is missing or can't be locked. NotAStoreError: `.dbzero` is something else.
            SegmentError: not even private memory can be had.
        A root that can't be written, and shared memory that can't be had, give a private segment and a RuntimeWarning.
        """
        directory = os.fspath(root)
        if not os.path.isdir(directory):
            raise errors.StorageError(
                f"root directory {directory} does not exist or is no directory; create it or pass another one"
            )
        if private:
            return cls._private(directory, cache_size)
        try:
            root_file = RootFile.open(directory)
        except PermissionError as exc:
            _warn(
                directory,
                f"{exc.filename} cannot be written ({exc.strerror}); this process reads alone, following the log files",
            )
            return cls._private(directory, cache_size)
        try:
            try:
                with root_file.locked():
                    handle, name = cls._join(directory, root_file, cache_size)
                    codes.check(lib.dbz_proc_register(handle), f"root {directory}: register this process", ffi.errno)
                return cls(directory, handle, name)
            except _NotShareable as exc:
                root_file.close()
                _warn(directory, str(exc))
                return cls._private(directory, cache_size)
        except BaseException:
            root_file.close()
            raise

    @classmethod
    def look(cls, root: str | os.PathLike[str]) -> Segment | None:
        """The segment of a root that is in use, to look at; this process is not registered in it. None when nobody uses
        the root, or it cannot be looked at."""
        directory = os.fspath(root)
        if not os.path.exists(os.path.join(directory, ROOT_FILE)):
            return None
        try:
            root_file = RootFile.open(directory)
        except (PermissionError, errors.Error):
            return None
        try:
            with root_file.locked():
                if not root_file.anyone_alive():
                    return None
                name = segment_name(root_file.identity)
                shm = posix_ipc.SharedMemory(name)
                try:
                    code, handle = _map(shm.fd, root_file.fd, root_file.identity)
                finally:
                    shm.close_fd()
                if code != codes.OK:
                    return None
                root_file.fd = -1  # the engine's now
                return cls(directory, handle, name)
        except (posix_ipc.Error, OSError):
            return None
        finally:
            root_file.close()

    @classmethod
    def _join(cls, root: str, root_file: RootFile, cache_size: int) -> tuple[Any, str]:
        for _ in range(_TRIES):
            try:
                return cls._attach(root, root_file, cache_size)
            except _Removed:
                osthreads.sleep(0.01)
        raise _NotShareable("its shared memory keeps being removed by another program")

    @classmethod
    def _attach(cls, root: str, root_file: RootFile, cache_size: int) -> tuple[Any, str]:
        name = segment_name(root_file.identity)
        others = root_file.anyone_alive()
        try:
            shm = posix_ipc.SharedMemory(name)
        except posix_ipc.ExistentialError:
            shm = None
        except (posix_ipc.PermissionsError, OSError) as exc:
            raise _NotShareable(
                f"its shared memory {name} is another user's ({exc}); this process reads alone, following the log files"
            ) from exc
        if shm is not None:
            try:
                if others:
                    code, handle = _map(shm.fd, root_file.fd, root_file.identity)
                    if code == codes.OK:
                        _use(shm.fd, name)
                        root_file.fd = -1  # the engine's now
                        return handle, name
                    raise _NotShareable(
                        f"its shared memory {name} is in use by another version of dbzero or was damaged "
                        f"(engine code {code}); close the processes that use it. Until then this process works alone"
                    )
            finally:
                shm.close_fd()
            with contextlib.suppress(posix_ipc.ExistentialError):
                posix_ipc.unlink_shared_memory(name)
        remove_leftovers()
        return cls._create(root, root_file, cache_size, name), name

    @classmethod
    def _create(cls, root: str, root_file: RootFile, cache_size: int, name: str) -> Any:
        cache = _clip(root, cache_size)
        arena = arena_for(cache)
        size = int(lib.dbz_seg_size(cache, arena))
        try:
            shm = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600, size=size)
        except (posix_ipc.Error, OSError, ValueError) as exc:
            raise _NotShareable(f"shared memory cannot be created ({exc})") from exc
        try:
            _use(shm.fd, name)
            code, handle = _format(shm.fd, cache, arena, root_file.identity, root_file.fd)
            if code != codes.OK:
                posix_ipc.unlink_shared_memory(name)
                raise _NotShareable(
                    "shared memory is full"
                    if code == codes.NOSPACE
                    else f"shared memory cannot be used (engine code {code})"
                )
            root_file.fd = -1
            return handle
        finally:
            shm.close_fd()

    @classmethod
    def _private(cls, root: str, cache_size: int) -> Segment:
        """Memory without a name. Its process slots are locked on a memory file too, so that everything above works
        the same."""
        identity = Identity(os.urandom(16), 0, 0, bytes(16))
        cache = max(cache_size, MINIMUM_CACHE)
        arena = arena_for(cache)
        fd = lock_fd = -1
        try:
            fd = os.memfd_create("dbzero", os.MFD_CLOEXEC)
            os.fchmod(fd, 0o600)
            os.ftruncate(fd, int(lib.dbz_seg_size(cache, arena)))
            lock_fd = os.memfd_create("dbzero-lock", os.MFD_CLOEXEC)
            code, handle = _format(fd, cache, arena, identity, lock_fd)
            if code != codes.OK:
                raise codes.failure(code, f"root {root}: private memory", ffi.errno)
            lock_fd = -1
        except OSError as exc:
            raise errors.SegmentError(f"root {root}: no memory can be had, shared or private: {exc.strerror}") from exc
        finally:
            for unused in (fd, lock_fd):
                if unused >= 0:
                    os.close(unused)
        codes.check(lib.dbz_proc_register(handle), f"root {root}: register this process", ffi.errno)
        return cls(root, handle, "")

    # --- using --------------------------------------------------------------------------------------------------------

    @property
    def inherited(self) -> bool:
        """Whether this handle came over a fork: its slot, pins and locks are the parent's."""
        return self._depth != fork.depth()

    def rejoin(self) -> bool:
        """In a forked child: register this process, which makes the inherited handle its own. False when that cannot
        be: the segment is a private one, or was removed meanwhile.
        """
        if not self.inherited or self._handle is None:
            return self._handle is not None
        if not self.shared:
            return False
        handle, file = self._handle, RootFile.open(self.root)
        try:
            with file.locked():
                if not _still_named(int(handle.fd), self.name):
                    return False
                codes.check(lib.dbz_seg_rejoin(handle, file.fd), f"root {self.root}: rejoin the segment")
                file.fd = -1  # the engine's now
                codes.check(lib.dbz_proc_register(handle), f"root {self.root}: register this process", ffi.errno)
        finally:
            file.close()
        self._sleepers = {}
        self._depth = fork.depth()
        return True

    @property
    def closed(self) -> bool:
        return self._handle is None

    @property
    def handle(self) -> Any:
        """The engine's `dbz_seg *` (cffi). ClosedError once closed. Whoever keeps it keeps the mapping."""
        if self._handle is None:
            raise errors.ClosedError(f"root {self.root}: its segment is closed; open it again")
        return self._handle

    def sleeping(self, *prefixes: int) -> Sleeper:
        """Around a call that sleeps on prefix slots; gives the handle. :meth:`close` wakes the sleeper and waits
        for it to leave."""
        return Sleeper(self, prefixes)

    def fall_asleep(self, sleeper: Sleeper) -> Any:
        """The handle, for a call that :meth:`wake_up` follows."""
        # In this order, against the opposite one in _end_sleep(): either that sees the sleeper, or this sees that it is closed.
        self._sleepers[sleeper] = sleeper.prefixes
        return self.handle

    def wake_up(self, sleeper: Sleeper) -> None:
        """The call has returned, or never began."""
        self._sleepers.pop(sleeper, None)

    def _end_sleep(self) -> Any:
        """Take the handle away and get everybody off the mapping."""
        handle, self._handle = self._handle, None
        self.words.shut()
        while handle is not None and not self.inherited:  # those of a forked child are threads of the parent
            asleep = list(self._sleepers.values())
            if not asleep:
                break
            for prefix in {prefix for prefixes in asleep for prefix in prefixes}:
                lib.dbz_wake(handle, prefix)
            osthreads.sleep(_AWAKENING)
        return handle

    @property
    def identity(self) -> str:
        """Names this very memory, among all there is on the machine: what processes have in common that share it."""
        memory = os.fstat(int(self.handle.fd))
        return f"{memory.st_dev:x}-{memory.st_ino:x}"

    @property
    def slot(self) -> int:
        """Number of this process's slot; -1 when the table was full."""
        return int(self.handle.slot)

    def errno(self) -> int:
        """System error number of the last failed call."""
        return int(self.handle.error)

    def root_lock(self) -> contextlib.AbstractContextManager[None]:
        """The root's file lock, a context manager. Held while prefix slots are assigned or retired. Nothing to lock
        when private."""
        return _locked_again(self.handle.lock_fd) if self.shared else contextlib.nullcontext()

    def status(self) -> SegmentStatus:
        """Sizes and counters."""
        info = ffi.new("dbz_seg_info *")
        codes.check(lib.dbz_seg_status(self.handle, info), f"root {self.root}: status")
        chunk = 1 << 18
        return SegmentStatus(
            size=info.size,
            reserved=info.reserved,
            cache_bytes=info.cache_bytes,
            hits=info.hits,
            misses=info.misses,
            evictions=info.evictions,
            arena_bytes=info.arena_chunks * chunk,
            arena_used=info.arena_used * chunk,
            processes=info.processes,
            prefixes=info.prefixes,
        )

    def close(self) -> None:
        """Leave. The last process out removes the name. In a forked child only the mapping goes. Idempotent.

        Sleepers are woken; readers (:mod:`dbzero.runtime.reader`) must have been closed.
        """
        handle = self._end_sleep()
        if handle is None:
            return
        if self.inherited or not self.shared:
            lib.dbz_seg_unmap(handle)
            return
        try:
            with _locked_again(handle.lock_fd):
                alone = bool(lib.dbz_proc_alone(handle))
                lib.dbz_seg_unmap(handle)
                handle = None
                if alone:
                    with contextlib.suppress(posix_ipc.Error, OSError):
                        posix_ipc.unlink_shared_memory(self.name)
        except (errors.Error, OSError):
            # Somebody is stopped inside the lock: leave; whoever creates a segment next finds the name as a leftover.
            if handle is not None:
                lib.dbz_seg_unmap(handle)

    def __enter__(self) -> Segment:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Sleeper:
    """What :meth:`Segment.sleeping` returns."""

    __slots__ = ("_segment", "prefixes")

    def __init__(self, segment: Segment, prefixes: tuple[int, ...]) -> None:
        self._segment = segment
        self.prefixes = prefixes

    def __enter__(self) -> Any:
        try:
            return self._segment.fall_asleep(self)
        except BaseException:  # a signal's handler may raise anywhere in it
            self._segment.wake_up(self)
            raise

    def __exit__(self, *exc: object) -> None:
        self._segment.wake_up(self)


class _NotShareable(Exception):
    """Why a private segment has to do."""


class _Removed(Exception):
    """The object lost its name while we attached: somebody took it for a leftover. Look again."""


def _warn(root: str, why: str) -> None:
    warnings.warn(f"dbzero: root {root}: {why}", RuntimeWarning, stacklevel=4)


@contextlib.contextmanager
def _locked_again(lock_fd: int) -> Iterator[None]:
    """The root's file lock on a new description, so that threads of one process exclude each other too.

    Opened through the descriptor: the root may have been renamed or removed meanwhile.
    """
    path = f"/proc/self/fd/{lock_fd}"
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        with locked(fd, path):
            yield
    finally:
        os.close(fd)


def _map(fd: int, lock_fd: int, identity: Identity) -> tuple[int, Any]:
    out = ffi.new("dbz_seg **")
    code = lib.dbz_seg_map(fd, lock_fd, identity.root_id, identity.device, identity.inode, identity.boot_id, out)
    return code, out[0]


def _format(fd: int, cache: int, arena: int, identity: Identity, lock_fd: int) -> tuple[int, Any]:
    code = lib.dbz_seg_format(fd, cache, arena, identity.root_id, identity.device, identity.inode, identity.boot_id)
    return (code, None) if code != codes.OK else _map(fd, lock_fd, identity)


def _use(fd: int, name: str) -> None:
    if lib.dbz_lock_try(fd, _USE_BYTE, 1, 0) != codes.OK or not _still_named(fd, name):
        raise _Removed


def _still_named(fd: int, name: str) -> bool:
    try:
        named = os.stat(SHM_DIRECTORY + name)
    except OSError:
        return False
    st = os.fstat(fd)
    return (named.st_dev, named.st_ino) == (st.st_dev, st.st_ino)


def _clip(root: str, cache_size: int) -> int:
    """`cache_size` cut to what /dev/shm can still back, so that nobody's cache grows into a full file system."""
    cache = max(cache_size, MINIMUM_CACHE)
    try:
        st = os.statvfs(SHM_DIRECTORY)
    except OSError as exc:
        raise _NotShareable(f"{SHM_DIRECTORY} cannot be used ({exc.strerror})") from exc
    room = int(st.f_bavail * st.f_frsize * _SHARE_OF_FREE)
    fixed = int(lib.dbz_seg_size(0, 0))
    if st.f_blocks == 0 or room >= fixed + cache:  # no blocks: a tmpfs without a limit
        return cache
    if room < fixed + MINIMUM_CACHE:
        raise _NotShareable(f"{SHM_DIRECTORY} has no room ({room >> 20} MiB)")
    clipped = room - fixed
    _warn(
        root,
        f"cache_size cut from {cache >> 20} to {clipped >> 20} MiB, which is what {SHM_DIRECTORY} has room for; "
        "enlarge it (docker: --shm-size) for more",
    )
    return clipped


def remove_leftovers() -> int:
    """Remove this user's segments that no live process is attached to (all of them were killed). Returns how many."""
    removed = 0
    try:
        candidates = [entry for entry in os.scandir(SHM_DIRECTORY) if entry.name.startswith(_NAME_PREFIX)]
    except OSError:
        return 0
    for entry in candidates:
        try:
            fd = os.open(entry.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            name = "/" + entry.name
            if (
                os.fstat(fd).st_uid == os.geteuid()
                and lib.dbz_lock_try(fd, _USE_BYTE, 1, 1) == codes.OK
                and _still_named(fd, name)
            ):
                posix_ipc.unlink_shared_memory(name)
                removed += 1
        except (posix_ipc.Error, OSError) as exc:
            if isinstance(exc, OSError) and exc.errno not in (errno.ENOENT, errno.EACCES):
                raise
        finally:
            os.close(fd)
    return removed
