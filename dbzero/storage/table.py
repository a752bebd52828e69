"""The object table outside the engine: walking one that is in force, and building or changing one in a file that is not.

A copy and a compacted file come into being under another name, so their table pages may be changed where they stand
until the file gets its name. Layouts: ``csrc/reader.h``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

from . import format as fmt
from . import records as rec

_ENTRY: Final = struct.Struct("<IHI")
_POINTERS: Final = struct.Struct(f"<{rec.INNER_ENTRIES}Q")
_HEAD: Final = struct.Struct("<QIBBHQQ")
_U64: Final = struct.Struct("<Q")
_MOST_LEAVES: Final = 256  # changed leaves kept in memory


def newer(generation: int, than: int) -> bool:
    """Whether a page was born after checkpoint `than` (both cut to the bits that a pointer has)."""
    return 0 < (generation - than) & rec.GENERATION_MASK <= rec.GENERATION_MASK // 2


def walk(
    read: Callable[[int, int], bytes], uuid: int, root: int, depth: int, since: int | None = None
) -> Iterator[tuple[int, rec.TablePage]]:
    """(address, page) of a tree's pages, each before its children, in OID order.

    Args:
        read: ``read(address, length)`` gives page file bytes. uuid: of the prefix. root, depth: of the tree.
        since: leave out subtrees that a checkpoint up to this one wrote: they are in that checkpoint's tree as well.
    Raises:
        rec.Damage: a page is not what its pointer says. So it may be when a later checkpoint has used it anew.
    """
    if depth > rec.MAX_DEPTH or bool(depth) != bool(root & ~rec.ORPHANS):
        raise rec.Damage(f"the table has depth {depth} and root {root:#x}")
    todo = [(root, depth - 1)] if depth else []
    while todo:
        pointer, level = todo.pop()
        generation = rec.pointer_generation(pointer)
        if since is not None and not newer(generation, since):
            continue
        address = rec.pointer_page(pointer)
        page = rec.decode_page(read(address, fmt.PAGE), address, uuid)
        if page.generation & rec.GENERATION_MASK != generation:
            raise rec.Damage(f"page at {address} is of another checkpoint than its pointer says")
        if (page.kind, page.level) != (rec.INNER if level else rec.LEAF, level):
            raise rec.Damage(f"page at {address} has kind {page.kind} and level {page.level}, expected level {level}")
        yield address, page
        if level:
            todo.extend((child, level - 1) for child in reversed(page.pointers()) if child & ~rec.ORPHANS)


def walk_free(
    read: Callable[[int, int], bytes], uuid: int, head: int, count: int
) -> Iterator[tuple[int, rec.TablePage]]:
    """(address, page) of the pages of a free list with `count` entries. Raises rec.Damage."""
    pointer, pages, seen = head, 0, 0
    while pointer:
        address = rec.pointer_page(pointer)
        page = rec.decode_page(read(address, fmt.PAGE), address, uuid)
        if page.kind != rec.FREE or page.generation & rec.GENERATION_MASK != rec.pointer_generation(pointer):
            raise rec.Damage(f"page at {address} is not the free list page that its pointer says")
        yield address, page
        pages, seen = pages + 1, seen + page.used
        if seen > count or pages > -(-count // rec.INNER_ENTRIES) + 1:
            raise rec.Damage(f"free list page at {address} leads to more pages than are free")
        pointer = page.first


class Pages(Protocol):
    """Where a :class:`Table` has its pages."""

    def read(self, address: int, length: int) -> bytes: ...
    def write(self, address: int, data: bytes) -> None: ...
    def allocate(self) -> int:
        """Address of a page that nothing uses."""


class Entry(NamedTuple):
    """Where an object's newest record is, and its reference count (rec.GONE: deleted)."""

    address: int
    refcount: int


class Table:
    """An object table that may be changed in place.

    Args:
        file: its pages. uuid: of the prefix. generation: number of the checkpoint that will put it in force.
        root, depth: of the tree to start from; 0: none.

    Leaves are written when more than a few are changed, inner pages by :meth:`finish`.
    """

    def __init__(self, file: Pages, uuid: int, generation: int, root: int = 0, depth: int = 0) -> None:
        self._file = file
        self._uuid = uuid
        self._generation = generation
        self._root = root
        self._depth = depth
        self._leaves: dict[int, bytearray] = {}  # leaf number -> page, the changed ones and the one used last
        self._changed: set[int] = set()  # numbers of changed leaves
        self._inner: dict[tuple[int, int], list[int]] = {}  # (level, number) -> child pointers
        self._inner_changed: set[tuple[int, int]] = set()

    def get(self, oid: int) -> Entry | None:
        """The entry of an object, None when it has none."""
        if self._depth == 0 or oid >= rec.span(self._depth):
            return None
        low, high, refcount = _ENTRY.unpack_from(self._leaf(oid // rec.LEAF_ENTRIES), _place(oid))
        address = low | high << 32
        return Entry(address, refcount) if address else None

    def set(self, oid: int, address: int, refcount: int) -> None:
        """Put an entry in place of what there was."""
        while self._depth == 0 or oid >= rec.span(self._depth):
            self._grow()
        number = oid // rec.LEAF_ENTRIES
        _ENTRY.pack_into(self._leaf(number), _place(oid), address & 0xFFFFFFFF, address >> 32, refcount)
        self._changed.add(number)

    def finish(self) -> tuple[int, int]:
        """Write everything that changed; returns (root pointer, depth)."""
        self._write_leaves()
        for level in range(1, self._depth):
            for position in sorted(p for p in self._inner_changed if p[0] == level):
                children = self._inner[position]
                used = sum(1 for child in children if child & ~rec.ORPHANS)
                orphans = any(child & rec.ORPHANS for child in children)
                first = position[1] * rec.span(level + 1)
                self._write(level, position[1], rec.INNER, used, first, _POINTERS.pack(*children), orphans)
        self._inner_changed.clear()
        return self._root, self._depth

    # --- pages ------------------------------------------------------------------------------------------------------------------------

    def _grow(self) -> None:
        if self._root:
            children = [0] * rec.INNER_ENTRIES
            children[0] = self._root
            self._inner[self._depth, 0] = children
            self._inner_changed.add((self._depth, 0))
            self._root = 0
        self._depth += 1

    def _pointer(self, level: int, number: int) -> int:
        if level == self._depth - 1:
            return self._root
        parent, child = divmod(number, rec.INNER_ENTRIES)
        return self._children(level + 1, parent)[child]

    def _children(self, level: int, number: int) -> list[int]:
        found = self._inner.get((level, number))
        if found is None:
            pointer = self._pointer(level, number)
            page = self._load(pointer, rec.INNER, level)
            found = list(page.pointers()) if page else [0] * rec.INNER_ENTRIES
            self._inner[level, number] = found
        return found

    def _leaf(self, number: int) -> bytearray:
        found = self._leaves.get(number)
        if found is None:
            if len(self._changed) >= _MOST_LEAVES:
                self._write_leaves()
            for other in [n for n in self._leaves if n not in self._changed]:
                del self._leaves[other]
            page = self._load(self._pointer(0, number), rec.LEAF, 0)
            found = bytearray(page.raw if page else fmt.PAGE)
            self._leaves[number] = found
        return found

    def _load(self, pointer: int, kind: int, level: int) -> rec.TablePage | None:
        if not pointer & ~rec.ORPHANS:
            return None
        address = rec.pointer_page(pointer)
        page = rec.decode_page(self._file.read(address, fmt.PAGE), address, self._uuid)
        if (page.kind, page.level, page.generation & rec.GENERATION_MASK) != (
            kind,
            level,
            rec.pointer_generation(pointer),
        ):
            raise rec.Damage(f"page at {address} is not the one that its pointer says")
        return page

    def _write_leaves(self) -> None:
        for number in sorted(self._changed):
            raw = self._leaves.pop(number)
            used, orphans, oid = 0, False, number * rec.LEAF_ENTRIES
            for low, high, refcount in _ENTRY.iter_unpack(raw[32 : 32 + _ENTRY.size * rec.LEAF_ENTRIES]):
                if low or high:
                    used += 1
                    orphans = orphans or (refcount == 0 and oid >= fmt.FIRST_OID)
                oid += 1
            self._write(0, number, rec.LEAF, used, number * rec.LEAF_ENTRIES, bytes(raw[32:]), orphans)
        self._changed.clear()

    def _write(self, level: int, number: int, kind: int, used: int, first: int, body: bytes, orphans: bool) -> None:
        before = self._pointer(level, number)
        address = rec.pointer_page(before) if before & ~rec.ORPHANS else self._file.allocate()
        raw = _HEAD.pack(0, self._generation & 0xFFFFFFFF, kind, level, used, address, first) + body
        self._file.write(address, _U64.pack(fmt.xxh3(raw[8:], (self._uuid ^ address) & fmt.MASK64)) + raw[8:])
        pointer = rec.page_pointer(address, self._generation) | (rec.ORPHANS if orphans else 0)
        if level == self._depth - 1:
            self._root = pointer
            return
        parent, child = divmod(number, rec.INNER_ENTRIES)
        self._children(level + 1, parent)[child] = pointer
        self._inner_changed.add((level + 1, parent))


def _place(oid: int) -> int:
    return 32 + _ENTRY.size * (oid % rec.LEAF_ENTRIES)
