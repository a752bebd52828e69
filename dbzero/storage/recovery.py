"""Opening a prefix whose last writer left a log: by the next writer (:func:`recover`), or in memory by a reader
(:func:`replay_into`).

The cases are argued in docs/design.md, "Recovery, case by case".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from .. import errors
from .._engine import lib
from ..runtime import batch
from ..runtime.reader import Reader
from . import decisions
from . import format as fmt
from . import merge as mrg
from .filestore import DATA_REGION, LocalFileStore
from .pagefile import now_us
from .store import Frame, Meta

MERGE_AT: Final = 1 << 20  # entries kept in memory before they are merged
LOCK_TIMEOUT: Final = 10.0  # seconds to wait for a checkpoint that somebody else is finishing


class Recovered(Struct, frozen=True):
    """Where a prefix stands after its log was read."""

    meta: Meta  # checkpoint in force
    state: int
    chain: int
    next_oid: int
    data_end: int  # first address that new data may use (writer), or end of the data (reader)
    redo: int  # log file begun, 0 for a reader
    frames: int  # replayed
    merged: bool  # the log is merged into the page file; False: into the delta index
    last: tuple[
        decisions.Together, ...
    ] = ()  # the transaction across prefixes that the newest commit is part of, if any


class _Commit(Struct, frozen=True):
    frame: Frame
    head: batch.Body
    entries: batch.Entries
    data: memoryview  # empty when in place


def _commits(
    store: LocalFileStore, meta: Meta, decide: decisions.Decide, last: list[decisions.Together]
) -> Iterator[_Commit]:
    """The commits after `meta`, bodies checked. decide, last: see :func:`decisions.commits`."""
    for frame in decisions.commits(store, meta, decide, last):
        try:
            head, entries = batch.body_entries(frame.body, frame.state)
        except errors.CorruptError as exc:
            raise errors.CorruptError(
                f"prefix {store.prefix!r}: log file {frame.redo}: {exc}; restore the files from a copy"
            ) from None
        yield _Commit(frame, head, entries, memoryview(frame.body)[head.data_offset :])


def _check_in_place(store: LocalFileStore, commit: _Commit) -> None:
    """Data that was synced before its frame was written must be there."""
    if fmt.xxh3(store.read_page(commit.head.data_address, commit.head.data_length)) != commit.head.data_sum:
        raise errors.CorruptError(
            f"prefix {store.prefix!r}: data of state {commit.frame.state} at address {commit.head.data_address} of {store.path} is "
            "damaged; restore the files from a copy"
        )


def replay_into(
    store: LocalFileStore, seg: Any, index: int, meta: Meta, *, after: int = 0, durable_only: bool = False
) -> Recovered:
    """Fill the delta index of a prefix slot from the log, without writing to disk.

    The slot has the checkpoint's root installed. Data that the page file lacks (after a power loss) is laid over it
    for this process, see :meth:`LocalFileStore.overlay`.

    Args:
        seg, index: segment handle and prefix slot. meta: checkpoint in force. after: states up to this one are in the
        delta already.
        durable_only: stop at the newest state known to be durable (following a live writer, which may yet take back
        what is not).
    Raises:
        SegmentError: the log is too long for the shared segment. CheckpointMovedError: read the meta again.
    """
    state, chain, next_oid, end, frames = meta.state, meta.chain, meta.next_oid, meta.data_end, 0
    waiting: list[_Commit] = []
    last: list[decisions.Together] = []
    commits = _commits(store, meta, _not_yet if durable_only else decisions.look, last)
    while True:
        commit = next(commits, None)
        if commit is not None:
            waiting.append(commit)
            if durable_only:
                continue  # what is durable is known when all was read
        durable = store.tail.durable if commit is None and store.tail is not None else 0
        for ready in waiting:
            if durable_only and ready.frame.state > durable:
                break
            if ready.frame.state > after:
                _apply(store, seg, index, ready)
            state, chain = ready.frame.state, ready.frame.chain
            next_oid = max(next_oid, ready.frame.next_oid)
            end = max(end, ready.head.data_address + ready.head.data_length)
            frames += 1
        waiting.clear()
        if commit is None:
            return Recovered(meta, state, chain, next_oid, end, 0, frames, False, tuple(last))


def _not_yet(store: LocalFileStore, said: decisions.Together) -> bool:
    """For who follows a live writer: what is in doubt is not durable."""
    return False


def _apply(store: LocalFileStore, seg: Any, index: int, commit: _Commit) -> None:
    if commit.head.in_place:
        _check_in_place(store, commit)
    elif store.read_page(commit.head.data_address, commit.head.data_length) != commit.data:
        store.overlay(commit.head.data_address, commit.data)
    code = lib.dbz_delta_reserve(seg, index, commit.entries.count)
    if code == mrg.NO_SPACE:
        raise errors.SegmentError(
            f'prefix {store.prefix!r}: its log is too long to be kept in shared memory; open the prefix "rw" once, or raise the size of the segment'
        )
    mrg.check_segment(code, store, "filling the delta index")
    mrg.check_segment(
        lib.dbz_delta_apply(seg, index, commit.entries.array, commit.entries.count), store, "filling the delta index"
    )


def recover(
    store: LocalFileStore,
    seg: Any,
    index: int,
    reader: Reader,
    *,
    forced: bool = False,
    region: int = DATA_REGION,
    settle: decisions.Decide = decisions.settle,
) -> Recovered:
    """Bring a prefix into a state from which its new lease holder may write, and begin its log file.

    Every frame's data is written again at its address, so that it is dirty in the kernel's cache and really written
    by the next sync, whatever an earlier failed sync left behind; entries are merged; then a checkpoint is put in
    force. When the checkpoint lock is held by a process that was replaced alive, the log goes into the delta index
    instead and stays.

    Args:
        store: with the lease held. seg, index: segment handle and slot, which is reset (no root, no delta). reader:
        made after that reset.
        forced: the lease was taken from a process that may still live: data space begins behind what that one may
        use. settle: says whether a transaction across prefixes that is in doubt was made.
    Returns:
        where the prefix stands; the slot's root is installed.
    Raises:
        CorruptError, StaleFileError: the files cannot be trusted. DiskFullError: recovery needs space; nothing is
        lost. PoisonedError.
    """
    with store.checkpoint_lock(0.0 if forced else LOCK_TIMEOUT) as mine:
        meta = store.read_meta()
        if not mine:
            if not forced:
                raise errors.LeaseError(
                    f"prefix {store.prefix!r}: another process has been writing a checkpoint for {LOCK_TIMEOUT:g} s; try again, or open with force"
                )
            lib.dbz_advance(seg, index, meta.data_end, meta.next_oid)
            lib.dbz_root_install(seg, index, meta.root, meta.depth, meta.state)
            found = replay_into(store, seg, index, meta)
            base = _base(store, found.data_end, True)
            with store.unfenced():
                redo = store.begin_log(
                    epoch=store.epoch, state=found.state, chain=found.chain, data_base=base, data_limit=base + region
                )
            return replace(found, data_end=base, redo=redo)
        # Who takes over from here on finds the checkpoint lock taken, and keeps off the pages and addresses that we write to.
        store.check_epoch()
        return _recover(store, seg, index, reader, meta, forced, region, settle)


def _base(store: LocalFileStore, end: int, forced: bool) -> int:
    """First page address that belongs to nobody."""
    tail = store.tail
    if tail is not None:
        end = max(end, tail.data_limit if forced else tail.data_base)
    return fmt.align_page(end)


def _recover(
    store: LocalFileStore,
    seg: Any,
    index: int,
    reader: Reader,
    meta: Meta,
    forced: bool,
    region: int,
    settle: decisions.Decide,
) -> Recovered:
    entries, work = mrg.Pile(), _Merger(store, reader, meta)
    state, chain, next_oid, end, frames = meta.state, meta.chain, meta.next_oid, meta.data_end, 0
    last: list[decisions.Together] = []
    for commit in _commits(store, meta, settle, last):
        if commit.head.in_place:
            _check_in_place(store, commit)
        else:
            store.rewrite_data(commit.head.data_address, commit.data)
        entries.add(commit.entries)
        state, chain = commit.frame.state, commit.frame.chain
        next_oid = max(next_oid, commit.frame.next_oid)
        end = max(end, commit.head.data_address + commit.head.data_length)
        frames += 1
        if len(entries) >= MERGE_AT:
            work.batches.append(entries)
            entries = mrg.Pile()
    if len(entries):
        work.batches.append(entries)
    base = _base(store, end, forced)
    if frames:
        base = work.run(base)
    # A successor's log file must not be deleted: it comes before this, and is seen, or finds all of it done.
    with store.unfenced():
        redo = store.begin_log(epoch=store.epoch, state=state, chain=chain, data_base=base, data_limit=base + region)
        if frames:
            head, free = work.space.write_list(store)
            meta = replace(
                meta,
                checkpoint=meta.checkpoint + 1,
                state=state,
                root=work.root,
                depth=work.depth,
                next_oid=next_oid,
                data_end=base,
                redo=redo,
                epoch=store.epoch,
                chain=chain,
                free_head=head,
                free_count=free,
                time_us=now_us(),
            )
        store.put_meta(
            meta
        )  # without frames: mends a slot that a crash left behind, before the log it needs is deleted
        store.truncate_log(redo)
    lib.dbz_advance(
        seg, index, base, next_oid
    )  # first: readers of older states go back from records that the new table leads to
    lib.dbz_root_install(seg, index, meta.root, meta.depth, meta.state)
    return Recovered(meta, state, chain, next_oid, base, redo, frames, True, tuple(last))


class _Merger:
    """Merges batches of entries into the table, taking pages behind everything in use as needed."""

    def __init__(self, store: LocalFileStore, reader: Reader, meta: Meta) -> None:
        self.store, self.reader = store, reader
        self.root, self.depth = meta.root, meta.depth
        self.space = mrg.Space.read(store, meta)
        self.batches: list[mrg.Pile] = []
        self._base = 0

    def run(self, base: int) -> int:
        """Merge everything, with pages from `base` on where no free ones are left; returns the first address behind those."""
        self._base = base
        for pile in self.batches:
            self.root, self.depth = mrg.merge(
                self.store, self.reader, self.root, self.depth, self.space, pile.entries(), self._extend
            )
        self._extend(self.space.list_pages() - len(self.space.pool))
        return self._base

    def _extend(self, pages: int) -> None:
        if pages > 0:
            self.space.grant(self._base, pages)
            self._base += pages * fmt.PAGE
