"""Checkpoint: make the page file complete up to a state, so that the log before it can go.

Three moments. :func:`cut`, under the commit lock, opens the next log file, whose header grants the table pages the
checkpoint may need, and freezes the delta. :func:`checkpoint`, beside readers and commits and in any thread or even a
later process, merges the frozen delta and puts the new meta in force. What a crash in between leaves is argued in
docs/design.md, "Checkpoint, case by case".
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from .. import errors
from .._engine import lib
from ..runtime.reader import Reader
from . import format as fmt
from . import merge as mrg
from . import records as rec
from .filestore import DATA_REGION, LocalFileStore
from .pagefile import now_us
from .store import Meta

LOCK_TIMEOUT: Final = 30.0  # seconds to wait for another process's checkpoint


class Cut(Struct, frozen=True):
    """Where a checkpoint cuts history, and what it may write to."""

    state: int
    chain: int
    redo: int  # log file that continues from here
    epoch: int
    next_oid: int
    grant: int  # address of the first page granted
    pages: int  # how many are granted
    data_end: int  # first address behind the grant


def table_pages_needed(meta: Meta, entries: int, next_oid: int) -> int:
    """Upper bound of the pages (table and free list) that merging `entries` table entries into checkpoint `meta` can
    write.

    Args:
        meta: checkpoint in force. entries: number of delta entries. next_oid: first OID not given out.
    """
    leaves = min(entries, -(-max(next_oid, 1) // rec.LEAF_ENTRIES))
    total = level = leaves
    depth = 1
    while depth < rec.MAX_DEPTH and (rec.span(depth) <= next_oid or depth < meta.depth):
        level = min(level, -(-max(next_oid, 1) // rec.span(depth + 1)))
        total += level + 1
        depth += 1
    free = meta.free_count + 2 * total
    return total + 2 * (-(-free // rec.INNER_ENTRIES)) + 2


def cut(
    store: LocalFileStore,
    seg: Any,
    index: int,
    *,
    meta: Meta,
    data_end: int,
    next_oid: int,
    region: int = DATA_REGION,
    extra: int = 0,
) -> Cut:
    """Begin a checkpoint at the state appended last. The caller holds the commit lock, and stores ``Cut.data_end`` as
    the slot's data end afterwards.

    Args:
        seg, index: segment handle and prefix slot. meta: checkpoint in force. data_end: end of the data of the commit
        appended last. region: bytes of page file space for the frames of the new log file. extra: entries that will
        be merged beside the delta's.
    Raises:
        DiskFullError and others of :meth:`LocalFileStore.begin_log`: the old log file stays in use. SegmentError: a
        frozen delta is still there.
    """
    if lib.dbz_delta_count(seg, index, 1):
        raise errors.SegmentError(f"prefix {store.prefix!r}: the checkpoint before is not finished")
    entries = int(lib.dbz_delta_count(seg, index, 0)) + extra
    pages = max(0, table_pages_needed(meta, entries, next_oid) - len(mrg.Space.read(store, meta).pool))
    start = fmt.align_page(data_end)
    base = start + pages * fmt.PAGE
    _, state, chain = store.position
    epoch = store.epoch
    number = store.begin_log(epoch=epoch, state=state, chain=chain, data_base=base, data_limit=base + region)
    mrg.check_segment(lib.dbz_delta_rotate(seg, index, state, entries), store, "freezing the delta index")
    return Cut(state, chain, number, epoch, next_oid, start, pages, base)


def checkpoint(
    store: LocalFileStore, seg: Any, index: int, reader: Reader, at: Cut, extra: mrg.Pile | None = None
) -> Meta:
    """Merge the frozen delta and put the checkpoint in force; the frozen delta and the log before the cut are gone
    afterwards.

    Runs beside readers and commits. After an error it can be called again with the same cut.

    Args:
        seg, index: segment handle and prefix slot. reader: for this thread alone. at: the cut. extra: entries of a
            transaction that does not fit into the delta, newer than all of it. extra: entries of a transaction that
            does not fit into the delta.
    Raises:
        LeaseError: another process is checkpointing. DiskFullError, StorageError: nothing changed. PoisonedError.
        FencedError: another process took over.
    """
    with store.checkpoint_lock(LOCK_TIMEOUT) as mine:
        if not mine:
            raise errors.LeaseError(
                f"prefix {store.prefix!r}: another process has been writing a checkpoint for {LOCK_TIMEOUT:g} s; try again"
            )
        before = store.read_meta()
        if (before.epoch, before.state, before.redo) == (
            at.epoch,
            at.state,
            at.redo,
        ):  # an earlier call failed after that
            store.put_meta(before)
            return _install(store, seg, index, before)
        if before.epoch > at.epoch or before.state > at.state:
            raise errors.FencedError(
                f"prefix {store.prefix!r}: another process has put checkpoint {before.checkpoint} in force; reopen the prefix"
            )
        pile = mrg.Pile()
        pile.add(mrg.frozen_entries(store, seg, index))
        if extra is not None:
            pile.add(extra.entries())
        space = mrg.Space.read(store, before)
        space.grant(at.grant, at.pages)
        root, depth = mrg.merge(store, reader, before.root, before.depth, space, pile.entries())
        head, free = space.write_list(store)
        meta = replace(
            before,
            checkpoint=before.checkpoint + 1,
            state=at.state,
            root=root,
            depth=depth,
            next_oid=max(at.next_oid, before.next_oid),
            data_end=at.data_end,
            redo=at.redo,
            epoch=at.epoch,
            chain=at.chain,
            free_head=head,
            free_count=free,
            time_us=now_us(),
        )
        store.put_meta(meta)
        return _install(store, seg, index, meta)


def _install(store: LocalFileStore, seg: Any, index: int, meta: Meta) -> Meta:
    lib.dbz_root_install(seg, index, meta.root, meta.depth, meta.state)
    lib.dbz_delta_retire(seg, index)
    store.truncate_log(meta.redo)
    return meta
