"""Merging table entries into new table pages: the engine's merge over a store, and the page file space it goes to.

Page space comes from pages that an earlier checkpoint freed, and from a run of pages behind everything in use. A page
freed by checkpoint k is used again from k + 2 on: a reader that is one checkpoint behind still finds every page it
may follow a pointer to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Struct

from .. import errors
from .._engine import ffi, lib
from ..runtime import batch
from ..runtime.reader import Reader
from . import format as fmt
from . import records as rec
from .filestore import LocalFileStore
from .store import Meta

ENTRY_SIZE: Final = 32  # sizeof(dbz_entry)
NO_SPACE: Final = -6
_FREED_MASK: Final = (1 << 24) - 1


def check_segment(code: int, store: LocalFileStore, doing: str) -> int:
    """Raise the typed error for a negative engine code of a delta call; other codes are returned."""
    if code >= 0:
        return code
    where = f"prefix {store.prefix!r}: {doing}"
    if code == NO_SPACE:
        raise errors.SegmentError(f"{where}: the shared segment is full; give it more memory, or close other prefixes")
    raise errors.SegmentError(f"{where}: engine error {code}; close all processes that use {store.root} and reopen")


class Pile:
    """Table entries in the engine's layout, growing."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def __len__(self) -> int:
        return len(self._bytes) // ENTRY_SIZE

    def add(self, entries: batch.Entries) -> None:
        self._bytes += ffi.buffer(entries.array, entries.count * ENTRY_SIZE)

    def entries(self) -> batch.Entries:
        """All of them; the pile must not grow while this is in use."""
        return batch.Entries(ffi.from_buffer("dbz_entry[]", self._bytes), len(self))


def frozen_entries(store: LocalFileStore, seg: Any, index: int) -> batch.Entries:
    """The entries of the frozen delta generation of a prefix slot."""
    count = int(lib.dbz_delta_count(seg, index, 1))
    array = ffi.new("dbz_entry[]", max(count, 1))
    got = (
        check_segment(lib.dbz_delta_copy(seg, index, 1, array, count), store, "reading the delta index") if count else 0
    )
    if got != count:
        raise errors.SegmentError(
            f"prefix {store.prefix!r}: the delta index of the shared segment is damaged; close all processes and reopen"
        )
    return batch.Entries(array, count)


class Space(Struct):
    """Pages a checkpoint may write to, and what becomes free by it.

    Attributes:
        number: of the checkpoint. pool: addresses that may be used, in the order they are taken. waiting: (page
        number, checkpoint that freed it) not usable yet.
        old_list: pages of the free list in force, free once this checkpoint is.
    """

    number: int
    pool: list[int] = []
    origin: dict[int, int] = {}  # address -> checkpoint that freed it, of the pages in pool
    waiting: list[tuple[int, int]] = []
    old_list: list[int] = []

    @classmethod
    def read(cls, store: LocalFileStore, meta: Meta) -> Space:
        """The free list of the checkpoint in force."""
        space = cls(meta.checkpoint + 1)
        kept = store.keeps_page()
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
                # A page may be empty: the list's own pages come out of what it lists. So pages are counted as well, or a damaged list could be endless.
                if seen > meta.free_count or len(space.old_list) > -(-meta.free_count // rec.INNER_ENTRIES):
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
                if (space.number - freed) & _FREED_MASK >= 2 and not kept(freed):
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
            raise errors.StorageError(
                f"prefix {store.prefix!r}: too few pages were granted to the free list of checkpoint {self.number}"
            )
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


def merge(
    store: LocalFileStore,
    reader: Reader,
    root: int,
    depth: int,
    space: Space,
    entries: batch.Entries,
    extend: Callable[[int], None] | None = None,
) -> tuple[int, int]:
    """Merge `entries` into the table under (`root`, `depth`), write the new pages; returns the new (root, depth).

    Pages are taken from `space`; pages the new tree no longer uses are released to it. ``extend(n)`` adds n pages to
    the space when it has too few.
    """
    if not entries.count:
        return root, depth

    def allocate(n: int) -> list[int]:
        if n > len(space.pool) and extend is not None:
            extend(n - len(space.pool))
        return space.pool[:n]

    merged = batch.merge(reader, root, depth, space.number, entries, allocate)
    space.take(len(merged.pages))
    store.write_pages(merged.pages)
    space.release(merged.freed)
    return merged.root, merged.depth
