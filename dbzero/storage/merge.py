"""Merging table entries into new table pages: the engine's merge over a store, and the page file space it goes to.

Page space comes from pages that an earlier checkpoint freed, and from a run of pages behind everything in use. A page freed by checkpoint k is used again from k + 2 on: a reader that is
one checkpoint behind still finds every page it may follow a pointer to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .. import errors
from .._engine import ffi, lib  # type: ignore[import-not-found, import-untyped, unused-ignore]
from . import format as fmt
from . import records as rec
from .filestore import LocalFileStore
from .store import Meta

ENTRY_SIZE: Final = 32  # sizeof(dbz_entry)
_FREED_MASK: Final = (1 << 24) - 1

OK: Final = 0
MISS: Final = -1
CORRUPT: Final = -3
IO: Final = -4
NO_MEMORY: Final = -5
NO_SPACE: Final = -6
FENCED: Final = -7
BUSY: Final = -8
ARGUMENT: Final = -12


def check_engine(code: int, store: LocalFileStore, doing: str, reader: Any = None) -> int:
    """Raise the typed error for a negative engine code; other codes are returned."""
    if code >= 0:
        return code
    where = f"prefix {store.prefix!r}: {doing}"
    if code in (CORRUPT, ARGUMENT):
        at = ""
        if code == CORRUPT and reader is not None:
            fault = lib.dbz_reader_fault(reader)
            at = f" (address {fault.address}, object {fault.oid}, state {fault.state})"
        raise errors.CorruptError(f"{where}: {store.path} is damaged{at}; restore the files from a copy")
    if code == IO:
        raise errors.StorageError(f"{where}: reading {store.path} failed; check the device")
    if code == NO_MEMORY:
        raise MemoryError(where)
    if code == NO_SPACE:
        raise errors.SegmentError(f"{where}: the shared segment is full; raise shared memory or cache_size, or close other prefixes")
    if code == FENCED:
        raise errors.FencedError(f"{where}: another process has taken over writing; reopen the prefix")
    raise errors.StorageError(f"{where}: engine error {code}")


class Entries:
    """Table entries in the engine's layout, growing."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def __len__(self) -> int:
        return len(self._bytes) // ENTRY_SIZE

    def add(self, array: Any, count: int) -> None:
        """Copy `count` dbz_entry from cdata."""
        self._bytes += ffi.buffer(array, count * ENTRY_SIZE)

    def cdata(self) -> Any:
        """dbz_entry[]; the object must not grow while this is in use."""
        return ffi.from_buffer("dbz_entry[]", self._bytes)

    def clear(self) -> None:
        self._bytes = bytearray()


def frozen_entries(store: LocalFileStore, seg: Any, index: int) -> Entries:
    """The entries of the frozen delta generation of a prefix slot."""
    out = Entries()
    count = lib.dbz_delta_count(seg, index, 1)
    if count:
        array = ffi.new("dbz_entry[]", count)
        got = check_engine(lib.dbz_delta_copy(seg, index, 1, array, count), store, "reading the delta index")
        if got != count:
            raise errors.SegmentError(f"prefix {store.prefix!r}: the delta index of the shared segment is damaged; close all processes and reopen")
        out.add(array, count)
    return out


@dataclass
class Space:
    """Pages a checkpoint may write to, and what becomes free by it.

    Attributes:
        number: of the checkpoint. pool: addresses that may be used, in the order they are taken. waiting: (page number, checkpoint that freed it) not usable yet.
        old_list: pages of the free list in force, free once this checkpoint is.
    """

    number: int
    pool: list[int] = field(default_factory=list)
    origin: dict[int, int] = field(default_factory=dict)  # address -> checkpoint that freed it, of the pages in pool
    waiting: list[tuple[int, int]] = field(default_factory=list)
    old_list: list[int] = field(default_factory=list)

    @classmethod
    def read(cls, store: LocalFileStore, meta: Meta) -> Space:
        """The free list of the checkpoint in force."""
        space = cls(meta.checkpoint + 1)
        pointer, seen = meta.free_head, 0
        while pointer:
            address = rec.pointer_page(pointer)
            try:
                page = rec.decode_page(store.read_page(address, fmt.PAGE), address, store.identity.prefix_uuid)
                if page.kind != rec.FREE or page.used > rec.INNER_ENTRIES:
                    raise rec.Damage(f"page at {address} is no free list page")
                if page.generation & rec.GENERATION_MASK != rec.pointer_generation(pointer):
                    raise rec.Damage(f"page at {address} is of another checkpoint")
                seen += page.used
                if seen > meta.free_count or not page.used:
                    raise rec.Damage(f"free list page at {address} leads to more pages than are free")
            except rec.Damage as exc:
                raise errors.CorruptError(
                    f"prefix {store.prefix!r}: the free list of {store.path} is damaged: {exc}; restore the files from a copy"
                ) from None
            space.old_list.append(address)
            for entry in page.pointers()[: page.used]:
                number, freed = entry & rec.PAGE_MASK, entry >> 40
                where = number * fmt.PAGE
                if where < fmt.FIRST_DATA or where + fmt.PAGE > meta.data_end:
                    raise errors.CorruptError(
                        f"prefix {store.prefix!r}: the free list of {store.path} names page {number}, out of range; restore the files from a copy"
                    )
                if (space.number - freed) & _FREED_MASK >= 2:
                    space.pool.append(where)
                    space.origin[where] = freed
                else:
                    space.waiting.append((number, freed))
            pointer = page.first
        space.pool.sort()
        return space

    def grant(self, start: int, pages: int) -> None:
        """Add a run of never used pages."""
        for address in range(start, start + pages * fmt.PAGE, fmt.PAGE):
            self.pool.append(address)
            self.origin[address] = (self.number - 2) & _FREED_MASK

    def take(self, count: int) -> list[int]:
        taken, self.pool = self.pool[:count], self.pool[count:]
        for address in taken:
            del self.origin[address]
        return taken

    def release(self, addresses: Sequence[int]) -> None:
        """Pages that nothing refers to once this checkpoint is in force."""
        self.waiting.extend((a // fmt.PAGE, self.number & _FREED_MASK) for a in addresses)

    def list_pages(self) -> int:
        """Pages the new free list takes at most (when none of them came from the pool)."""
        free = len(self.waiting) + len(self.pool) + len(self.old_list)
        return -(-free // rec.INNER_ENTRIES)

    def write_list(self, store: LocalFileStore) -> tuple[int, int]:
        """Write the new free list; returns (head pointer, number of free pages). The pool must hold :meth:`list_pages` pages."""
        self.release(self.old_list)
        self.old_list = []
        free = len(self.waiting) + len(self.pool)
        count = 0
        while count * rec.INNER_ENTRIES < free - count:  # each page taken for the list is one less in it
            count += 1
        homes = self.take(count)
        if len(homes) < count:
            raise errors.StorageError(f"prefix {store.prefix!r}: too few pages were granted to the free list of checkpoint {self.number}")
        entries = [number | freed << 40 for number, freed in self.waiting]
        entries += [a // fmt.PAGE | self.origin[a] << 40 for a in self.pool]
        pages: list[tuple[int, bytes]] = []
        following = 0
        for position, home in enumerate(homes):
            part = entries[position * rec.INNER_ENTRIES : (position + 1) * rec.INNER_ENTRIES]
            pages.append((home, rec.encode_free_page(part, home, self.number, following, store.identity.prefix_uuid)))
            following = rec.page_pointer(home, self.number)
        store.write_pages(pages)
        return following, len(entries)


def pages_needed(store: LocalFileStore, reader: Any, root: int, depth: int, generation: int, entries: Entries) -> int:
    """How many table pages merging `entries` will write."""
    count = ffi.new("uint32_t *", 0)
    out = ffi.new("dbz_merge **")
    code = _merge_new(store, reader, root, depth, generation, entries.cdata(), len(entries), ffi.NULL, count, out)
    if code == OK:
        lib.dbz_merge_free(out[0])
        return 0
    if code != NO_SPACE:
        check_engine(code, store, "counting table pages", reader)
    return int(count[0])


def merge(
    store: LocalFileStore, reader: Any, root: int, depth: int, space: Space, entries: Entries
) -> tuple[int, int]:
    """Merge `entries` into the table under (`root`, `depth`), write the new pages; returns the new (root, depth).

    Pages are taken from `space`; pages the new tree no longer uses are released to it.
    """
    if not len(entries):
        return root, depth
    count = ffi.new("uint32_t *", len(space.pool))
    out = ffi.new("dbz_merge **")
    pool = ffi.new("uint64_t[]", space.pool)
    code = _merge_new(store, reader, root, depth, space.number, entries.cdata(), len(entries), pool, count, out)
    check_engine(code, store, "merging the table", reader)
    result = out[0]
    try:
        used = int(count[0])
        space.take(used)
        address = ffi.new("uint64_t *")
        for i in range(used):
            page = lib.dbz_merge_page(result, i, address)
            store.write_pages([(int(address[0]), bytes(ffi.buffer(page, fmt.PAGE)))])
        freed_count = ffi.new("uint32_t *")
        freed = lib.dbz_merge_freed(result, freed_count)
        space.release([int(freed[i]) for i in range(freed_count[0])])
        new_root, new_depth = ffi.new("uint64_t *"), ffi.new("uint32_t *")
        lib.dbz_merge_root(result, new_root, new_depth)
        return int(new_root[0]), int(new_depth[0])
    finally:
        lib.dbz_merge_free(result)


def _merge_new(
    store: LocalFileStore,
    reader: Any,
    root: int,
    depth: int,
    generation: int,
    entries: Any,
    n: int,
    pages: Any,
    count: Any,
    out: Any,
) -> int:
    """dbz_merge_new, supplying pages that the engine cannot read by itself."""
    available = count[0]
    while True:
        count[0] = available
        code = int(lib.dbz_merge_new(reader, root, depth, generation & 0xFFFFFFFF, entries, n, pages, count, out))
        if code != MISS:
            return code
        address = int(lib.dbz_reader_missing(reader))
        data = store.read_page(address, fmt.PAGE)
        check_engine(int(lib.dbz_page_supply(reader, address, data, len(data))), store, "reading the table", reader)
