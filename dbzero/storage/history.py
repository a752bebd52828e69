"""Bounding the history of a prefix: which states to keep, and compaction of an open prefix down to them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from msgspec import Struct

from dbzero import errors
from dbzero.runtime import osthreads
from dbzero.runtime.reader import Reader
from dbzero.storage.compaction import Compaction, Full
from dbzero.storage.newfile import Progress
from dbzero.storage.prefix import Prefix

_ROUNDS: Final = 8  # catching up beside commits before they have to wait
_ATTEMPTS: Final = 3
_FEW: Final = 2000  # versions that are brought over fast enough for commits to wait for it
WORTH: Final = 4 << 20  # bytes a file must have grown by before it is compacted by itself


class Compacted(NamedTuple):
    """What a compaction did: the oldest state that is kept now, and the file's size in bytes before and after."""

    oldest_state: int
    before: int
    after: int


class Retention(Struct, frozen=True):
    """How much history a prefix keeps by itself.

    states: the newest so many; seconds: those of the last so many seconds. None: no bound. With both, a state stays
    that either of them keeps.
    """

    states: int | None = None
    seconds: float | None = None


class Cancelled(Exception):
    """The prefix is being closed: a compaction in the background gives up."""


def oldest_to_keep(prefix: Prefix, states: int | None, since: float | None) -> int:
    """The oldest state that a bound keeps.

    Args:
        states: keep the newest so many states, at least 1. since: keep what was current at that time (seconds since
            1970) or later. None: no bound; both: what either of them keeps.
    """
    newest = prefix.head()
    oldest = prefix.oldest_state
    wanted = [max(oldest, newest - states + 1)] if states is not None else []
    if since is not None:
        wanted.append(_current_at(prefix, since, oldest, newest))
    return min(wanted, default=oldest)


def _current_at(prefix: Prefix, moment: float, oldest: int, newest: int) -> int:
    """The newest state committed at or before a time; `oldest` when none was."""
    reader = prefix.make_reader()
    try:
        low, high = oldest, newest  # the state at `low` is old enough, or the oldest there is
        while low < high:
            middle = (low + high + 1) // 2
            found = reader.changes(middle)
            if found is not None and found[1] / 1e6 > moment:
                high = middle - 1
            else:
                low = middle
        return low
    finally:
        reader.close()


def compact(
    prefix: Prefix,
    keep: Callable[[], int],
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Compacted:
    """Drop old states from a prefix that this process writes, alone or with others, and give their space back.

    Readers and commits go on meanwhile; commits wait for the last step, which takes as long as what was committed
    during the step before. States that somebody has pinned are kept, and all that are newer.

    Args:
        keep: gives the oldest state to keep; called while nobody commits. progress: called with (OIDs done, OIDs in all);
            what it raises ends the compaction. stop: asked now and then, while commits of other processes are waited for,
            whether to give up.
    Raises:
        CorruptError: the file is damaged. DiskFullError: there is no space for the copy; nothing has changed.
        LeaseError: the prefix is being compacted already. TurnTimeoutError: `stop` said so. FencedError, StorageError.
    """
    if not (prefix.writable or prefix.shared):
        raise errors.ReadOnlyError(f"prefix {prefix.name!r} is open read-only here: its writer can compact it")
    lock = prefix.compaction_lock
    if not lock.acquire(timeout=60):
        raise errors.LeaseError(f"prefix {prefix.name!r} is being compacted already; wait until that is done")
    try:
        for _ in range(_ATTEMPTS):
            incarnation = prefix.incarnation
            try:
                return _compact(prefix, keep, progress, stop)
            except errors.Error:
                # A shared writer may find that others had to begin anew, and what it has copied is of no use.
                if not (prefix.shared and prefix.moved_on(incarnation)):
                    raise
        return _compact(prefix, keep, progress, stop)
    finally:
        lock.release()


def _compact(prefix: Prefix, keep: Callable[[], int], progress: Progress | None, stop: Callable[[], bool]) -> Compacted:
    store = prefix.store
    with contextlib.ExitStack() as ending:
        with prefix.upkeep(stop):
            prefix.begin_compaction()
            ending.callback(prefix.end_compaction)
            before = os.path.getsize(store.path)
            incarnation = prefix.incarnation
            prefix.checkpoint()
            meta = store.read_meta()
            kept = prefix.raise_floor(min(keep(), meta.state))
            job = Compaction(store, kept, lambda address: reader.full(address), progress)
            ending.callback(job.close)
            reader = _Source(prefix)
            ending.callback(reader.close)
        job.copy(meta)
        for _ in range(_ROUNDS):
            if job.moved <= _FEW:
                break
            with prefix.upkeep(stop):
                prefix.checkpoint()
                meta = store.read_meta()
            job.copy(meta)
        with prefix.upkeep(stop):
            if prefix.moved_on(incarnation):
                raise errors.FencedError(
                    f"prefix {prefix.name!r}: another process had to recover it while it was compacted; compact it again"
                )
            prefix.checkpoint()
            meta = store.read_meta()
            job.copy(meta)
            made = job.finish(meta, redo=meta.redo + 1, epoch=store.epoch)
            reader.close()
            prefix.replace_file(job.path, job.file_id, made)
    return Compacted(kept, before, made.data_end)


class _Source:
    """Whole versions out of the old file."""

    def __init__(self, prefix: Prefix) -> None:
        self._reader: Reader | None = prefix.make_reader()

    def full(self, address: int) -> Full:
        assert self._reader is not None
        found = self._reader.get_at(address)
        return Full(found.payload, found.refs)

    def close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()


class Retainer:
    """Compacts one prefix by itself, in a thread of its own, when its file has more than its retention keeps.

    Looked at after each checkpoint. A compaction is worth its while when at least half of the states are to go, and the
    file has doubled since the one before, and grown by :data:`WORTH`.
    """

    def __init__(self, prefix: Prefix, retention: Retention, failed: Callable[[Exception], None]) -> None:
        self._prefix = prefix
        self._retention = retention
        self._failed = failed
        self._lock = osthreads.Lock()
        self._thread: osthreads.Thread | None = None  # started, when it is seen outside of the lock
        self._stopping = False
        self._size = 0  # of the file after the last compaction
        self._file = 0  # the file id of then; another shared writer may have compacted it since

    def look(self) -> None:
        """After a checkpoint: start compacting when it is time."""
        with self._lock:
            if self._stopping or (self._thread is not None and self._thread.is_alive()):
                return
            thread = osthreads.thread(self._run, f"dbzero-retain-{self._prefix.name}")
            thread.start()
            self._thread = thread

    def due(self) -> int | None:
        """The oldest state to keep when it is time to compact, else None."""
        prefix, retention = self._prefix, self._retention
        store = prefix.store
        size = store.read_meta().data_end
        if store.identity.file_id != self._file:
            self._file, self._size = store.identity.file_id, size if self._file else self._size
        if size < 2 * self._size or size - self._size < WORTH:
            return None
        since = None if retention.seconds is None else time.time() - retention.seconds
        # With others it is a turn that keeps the file where it is; alone, only this thread replaces it.
        with prefix.upkeep(lambda: self._stopping) if prefix.shared else contextlib.nullcontext():
            keep = oldest_to_keep(prefix, retention.states, since)
            newest, oldest = prefix.head(), prefix.oldest_state
        return keep if keep - oldest > (newest - oldest) // 2 else None

    def _run(self) -> None:
        try:
            floor = self.due()
            if floor is not None:
                done = compact(self._prefix, lambda: floor, self._progress, lambda: self._stopping)
                self._size, self._file = done.after, self._prefix.store.identity.file_id
        except Cancelled:
            pass
        except Exception as error:
            others = self._prefix.shared and isinstance(error, errors.LeaseError)  # one of them is at it
            if not self._stopping and not others:
                self._failed(error)

    def _progress(self, done: int, total: int) -> None:
        if self._stopping:
            raise Cancelled

    def stop(self) -> None:
        """Give up what is under way, and wait for the thread."""
        with self._lock:
            self._stopping = True
        if self._thread is not None and not osthreads.is_current(self._thread):
            self._thread.join()
