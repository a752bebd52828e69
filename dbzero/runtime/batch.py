"""Building a commit and merging a delta into table pages: the typed face of ``csrc/batch.h``.

All in private memory; nothing here is shared or written.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from msgspec import Struct

from dbzero import errors
from dbzero._engine import ffi, lib
from dbzero.runtime import codes
from dbzero.runtime.reader import PAGE, ROOM, Entry, Reader

_NONE: Any = ffi.NULL
FREE_ITEMS = 508  # on one free list page


class Body(NamedTuple):
    """Head of a commit frame's body."""

    data_address: int
    data_length: int
    data_sum: int  # xxh3_64 of the data, seed 0
    in_place: bool  # the data bytes are not part of the body
    data_offset: int  # where they start in the body when they are


class Entries(Struct, frozen=True):
    """Delta entries: a C array and their number. Iterating gives :class:`Entry` tuples."""

    array: Any
    count: int

    def __iter__(self) -> Iterator[Entry]:
        for i in range(self.count):
            e = self.array[i]
            yield Entry(e.oid, e.state, e.addr, e.refcount)


_NO_BYTES: Final = memoryview(b"")
_NO_ENTRIES: Final = Entries(ffi.NULL, 0)


class Batch:
    """What one commit writes: new versions, tombstones and refcounts, built on the versions visible at `base`.

    Args:
        reader: reader of the prefix; not used by anybody else while the batch lives in the middle of a call.
        state: the state the commit will make; `base` is the one it builds on (default: state - 1).
        address: where the commit's data will stand.
        fresh: promise that no OID from this one on is stored yet (0: no promise); saves looking new objects up.

    After :meth:`seal`, until :meth:`close`: body (of the frame) and data are its bytes, entries what goes to the delta index, end
    the address behind its data.

    After an error the batch is as before the call, unless the docstring says otherwise.
    """

    __slots__ = ("_handle", "_keep", "address", "body", "data", "end", "entries", "reader", "size", "state")

    def __init__(self, reader: Reader, state: int, address: int, *, base: int | None = None, fresh: int = 0) -> None:
        out = ffi.new("dbz_batch **")
        handle = reader.handle
        rc = lib.dbz_batch_new(handle, state - 1 if base is None else base, state, address, out)
        if rc == codes.NOMEM:
            raise MemoryError
        if rc:
            raise ValueError(f"state {state} on base {base}, address {address}")
        self._handle = ffi.gc(out[0], lib.dbz_batch_free)
        self._keep = handle  # the batch points to it
        self.reader = reader
        self.state = state
        self.address = address
        self.size = 0  # bytes of payload put
        self.body = self.data = _NO_BYTES
        self.entries = _NO_ENTRIES
        self.end = address
        if fresh:
            lib.dbz_batch_fresh(self._handle, fresh)

    def close(self) -> None:
        """Free its memory; `body`, `data` and `entries` end with it."""
        handle, self._handle = self._handle, None
        self.body = self.data = _NO_BYTES
        self.entries = _NO_ENTRIES
        if handle is not None:
            ffi.release(handle)

    def put(self, oid: int, payload: bytes, refs: Sequence[int] = ()) -> None:
        """Write a new version of `oid` that holds the objects `refs` strongly (duplicates count)."""
        self.size += len(payload)
        rc = lib.dbz_batch_put(self._handle, oid, payload, len(payload), refs or _NONE, len(refs))
        while rc:
            if self.reader.settle(rc, f"writing object {oid}, state {self.state}"):
                rc = lib.dbz_batch_put(self._handle, oid, payload, len(payload), refs or _NONE, len(refs))

    def put_many(self, items: Iterable[tuple[int, bytes, Sequence[int]]]) -> None:
        """:meth:`put` for many (oid, payload, refs) in one call. After an error some of them have been put."""
        oids, lens, counts, refs = array("Q"), array("Q"), array("Q"), array("Q")
        payloads = []
        for oid, payload, held in items:
            oids.append(oid)
            payloads.append(payload)
            lens.append(len(payload))
            counts.append(len(held))
            refs.extend(held)
        if oids:
            self._put_block(oids, lens, counts, refs, b"".join(payloads))

    def put_packed(self, oids: bytes, lens: bytes, counts: bytes, refs: bytes, payloads: bytes) -> None:
        """:meth:`put_many` of what is packed already: native 64-bit words (OIDs, payload lengths, numbers of references, references) and the payloads."""
        if oids:
            sizes, held, targets = (memoryview(part).cast("Q") for part in (lens, counts, refs))
            self._put_block(memoryview(oids).cast("Q"), sizes, held, targets, payloads)

    def _put_block(self, oids: Any, lens: Any, counts: Any, refs: Any, blob: bytes) -> None:
        done = ffi.new("uint32_t *")
        self.size += len(blob)
        all_refs = ffi.from_buffer("uint64_t[]", refs)
        base = ffi.from_buffer("uint8_t[]", blob)
        at = at_ref = skipped = 0
        while True:
            rc = lib.dbz_batch_put_many(
                self._handle,
                len(oids),
                ffi.from_buffer("uint64_t[]", oids),
                base + at,
                ffi.from_buffer("uint64_t[]", lens),
                all_refs + at_ref,
                ffi.from_buffer("uint64_t[]", counts),
                done,
            )
            if rc == 0:
                return
            self.reader.settle(rc, f"writing object {oids[done[0]]}, state {self.state}")
            at += sum(lens[skipped : done[0]])
            at_ref += sum(counts[skipped : done[0]])
            skipped = done[0]

    def delete(self, oid: int) -> bool:
        """Delete a stored object (a tombstone) or forget one put in this batch. False when there is none."""
        rc = lib.dbz_batch_delete(self._handle, oid)
        while rc:
            if rc == codes.NOTFOUND:
                return False
            if self.reader.settle(rc, f"deleting object {oid}, state {self.state}"):
                rc = lib.dbz_batch_delete(self._handle, oid)
        return True

    def zero(self) -> list[int]:
        """Objects whose count is 0 by this batch and that were not reported before.

        To be repeated, with deletions between, until it is empty."""
        found: list[int] = []
        room = self.reader.room()
        while True:
            n = lib.dbz_batch_zero(self._handle, room, ROOM)
            if n > 0:
                found += ffi.unpack(room, n)
            elif n == 0:
                return found
            else:
                self.reader.settle(n, f"counting references, state {self.state}")

    def refcount(self, oid: int) -> int | None:
        """References to `oid` as of this batch; None when it doesn't exist."""
        out = ffi.new("uint64_t *")
        rc = lib.dbz_batch_refcount(self._handle, oid, out)
        while rc:
            if rc == codes.NOTFOUND:
                return None
            if self.reader.settle(rc, f"counting references to object {oid}, state {self.state}"):
                rc = lib.dbz_batch_refcount(self._handle, oid, out)
        return int(out[0])

    @property
    def records(self) -> int:
        """How many records it has so far, the commit log's left out."""
        return int(lib.dbz_batch_records(self._handle))

    def seal(self, time_us: int, *, in_place: bool = False) -> None:
        """Encode everything. Afterwards nothing can be put any more.

        Args:
            time_us: commit time, microseconds since 1970.
            in_place: leave the data out of the body, because it is written and synced at its place before the frame is.

        Raises CorruptError when a reference leads to an object that is neither stored nor put."""
        rc = lib.dbz_batch_seal(self._handle, time_us, in_place)
        while rc:
            if self.reader.settle(rc, f"commit of state {self.state}"):
                rc = lib.dbz_batch_seal(self._handle, time_us, in_place)
        made = ffi.new("dbz_sealed *")
        lib.dbz_batch_sealed(self._handle, made)
        self.body = memoryview(ffi.buffer(made.body, made.body_len))
        self.data = memoryview(ffi.buffer(made.data, made.data_len))
        self.entries = Entries(made.entries, made.entry_count)
        self.end = self.address + made.data_len


def body_entries(body: bytes | memoryview, state: int) -> tuple[Body, Entries]:
    """Head and delta entries of a commit frame's body.

    CorruptError when it is malformed; the caller knows the file's name and adds it."""
    view = ffi.from_buffer("uint8_t[]", body)
    head = ffi.new("dbz_body *")
    n = lib.dbz_body_entries(view, len(view), state, ffi.NULL, 0, head)
    if n < 0:
        raise errors.CorruptError(f"the body of the commit frame of state {state} is malformed")
    out = ffi.new("dbz_entry[]", max(n, 1))
    rc = lib.dbz_body_entries(view, len(view), state, out, n, head)
    if rc < 0:
        raise errors.CorruptError(f"the body of the commit frame of state {state} changed while it was read")
    in_place = bool(head.flags & 1)
    offset = len(view) - (0 if in_place else head.data_len)
    return Body(head.data_addr, head.data_len, head.data_sum, in_place, offset), Entries(out, n)


class Merged(NamedTuple):
    """A table after a merge. `pages` are new and not written yet; `freed` pages belonged to the old tree only."""

    root: int
    depth: int
    pages: list[tuple[int, bytes]]  # (address, PAGE bytes)
    freed: list[int]  # addresses


def merge(
    reader: Reader, root: int, depth: int, generation: int, entries: Entries, allocate: Callable[[int], Sequence[int]]
) -> Merged:
    """Merge delta entries (any order, the newest state of each OID wins) into the table under `root`, copy-on-write.

    Args:
        generation: number of the checkpoint that will put the result in force.
        allocate: ``allocate(n)`` gives the addresses of n free pages; called at most once.

    Raises CorruptError for a damaged table page, StorageError when `allocate` gave too few."""
    out = ffi.new("dbz_merge **")
    npages = ffi.new("uint32_t *")
    pages: Any = ffi.NULL
    have = 0
    while True:
        npages[0] = have
        rc = lib.dbz_merge_new(reader.handle, root, depth, generation, entries.array, entries.count, pages, npages, out)
        if rc == 0:
            break
        if rc == codes.NOSPACE and pages == ffi.NULL and npages[0]:
            addresses = allocate(npages[0])
            pages, have = ffi.new("uint64_t[]", list(addresses)), len(addresses)
        else:
            reader.settle(rc, f"object table, checkpoint {generation}")
    handle = ffi.gc(out[0], lib.dbz_merge_free)
    try:
        pointer, levels, address = ffi.new("uint64_t *"), ffi.new("uint32_t *"), ffi.new("uint64_t *")
        lib.dbz_merge_root(handle, pointer, levels)
        made = []
        for i in range(npages[0]):
            page = lib.dbz_merge_page(handle, i, address)
            made.append((address[0], ffi.buffer(page, PAGE)[:]))
        freed = lib.dbz_merge_freed(handle, npages)
        return Merged(pointer[0], levels[0], made, ffi.unpack(freed, npages[0]) if npages[0] else [])
    finally:
        ffi.release(handle)


def write_free_page(address: int, generation: int, items: Sequence[int], following: int, uuid: int) -> bytes:
    """A free list page (kind 3) with at most FREE_ITEMS items, and the pointer of the next one."""
    if len(items) > FREE_ITEMS:
        raise ValueError(f"{len(items)} items do not fit a free list page")
    page = ffi.new("uint8_t[]", PAGE)
    lib.dbz_free_page_write(page, address, generation, list(items) or _NONE, len(items), following, uuid)
    return bytes(ffi.buffer(page))


def read_free_page(page: bytes, address: int, generation: int, uuid: int) -> tuple[list[int], int]:
    """Items of a free list page and the next one's pointer. CorruptError when it is not the page it should be."""
    items, following = ffi.new("uint64_t[]", FREE_ITEMS), ffi.new("uint64_t *")
    n = (
        lib.dbz_free_page_read(page, address, generation, uuid, items, following)
        if len(page) == PAGE
        else codes.CORRUPT
    )
    if n < 0:
        raise errors.CorruptError(f"the free list page at address {address} is damaged")
    return ffi.unpack(items, n) if n else [], following[0]
