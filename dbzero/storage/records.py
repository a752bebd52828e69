"""Records, table pages and frame bodies decoded in Python, for verification and recovery.

Written from the layouts in ``csrc/reader.h`` and ``csrc/batch.h`` and independent of the C code, so that verifying a
file checks the engine too. Every decoder checks what it reads and raises :class:`Damage`, never anything else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from .format import FIRST_DATA, MASK64, PAGE, xxh3

INNER: Final = 1
LEAF: Final = 2
FREE: Final = 3
LEAF_ENTRIES: Final = 406
INNER_ENTRIES: Final = 508
PAGE_MASK: Final = (1 << 40) - 1
GENERATION_MASK: Final = (1 << 23) - 1
ORPHANS: Final = 1 << 63
MAX_DEPTH: Final = 7
MAX_ADDRESS: Final = 1 << 48
GONE: Final = 0xFFFFFFFF  # refcount of a table entry whose newest record is a tombstone

FULL: Final = 1
DELTA: Final = 2
TOMBSTONE: Final = 4
HAS_PREV: Final = 8
HAS_SKIP: Final = 16
HAS_REFS: Final = 32
RECORD_MAX: Final = 1 << 31
DELTAS_IN_A_ROW: Final = 8

CHANGE_TOMBSTONE: Final = 1
CHANGE_REFONLY: Final = 2
IN_PLACE: Final = 1

_TABLE: Final = struct.Struct("<QIBBHQQ")
_ENTRY: Final = struct.Struct("<IHI")
_BODY: Final = struct.Struct("<QQQII")
_CHANGE: Final = struct.Struct("<QQII")
_POINTERS: Final = struct.Struct(f"<{INNER_ENTRIES}Q")


class Damage(Exception):
    """Bytes that are not what they should be; the message says what is wrong with them."""


# --- table pages -------------------------------------------------------------------------------------------------------------------------------


class TablePage(Struct, frozen=True):
    """A verified page of the object table or of the free list."""

    kind: int
    level: int
    generation: int
    used: int
    first: int  # first OID covered; free list: pointer of the next page
    raw: bytes

    def pointers(self) -> tuple[int, ...]:
        """Inner page: child pointers. Free list page: its entries (only the first `used` count)."""
        values: tuple[int, ...] = _POINTERS.unpack_from(self.raw, 32)
        return values

    def entries(self) -> Iterator[tuple[int, int, int]]:
        """Leaf: (OID, record address, refcount) of every object in it."""
        for index in range(LEAF_ENTRIES):
            low, high, count = _ENTRY.unpack_from(self.raw, 32 + 10 * index)
            if low or high:
                yield self.first + index, low | high << 32, count


def decode_page(raw: bytes, address: int, uuid: int) -> TablePage:
    """Check a table page that was read at `address`."""
    if len(raw) < PAGE:
        raise Damage(f"page at {address} is beyond the end of the file")
    checksum, generation, kind, level, used, own, first = _TABLE.unpack_from(raw)
    if checksum != xxh3(raw[8:PAGE], (uuid ^ address) & MASK64):
        raise Damage(f"page at {address}: checksum does not match")
    if own != address:
        raise Damage(f"page at {address} says it stands at {own}")
    if kind not in (INNER, LEAF, FREE):
        raise Damage(f"page at {address}: unknown kind {kind}")
    return TablePage(kind, level, generation, used, first, raw)


def encode_free_page(entries: list[int], address: int, generation: int, following: int, uuid: int) -> bytes:
    """A page of the free list holding `entries` (page number | checkpoint that freed it << 40)."""
    values = entries + [0] * (INNER_ENTRIES - len(entries))
    raw = _TABLE.pack(0, generation, FREE, 0, len(entries), address, following) + _POINTERS.pack(*values)
    return struct.pack("<Q", xxh3(raw[8:], (uuid ^ address) & MASK64)) + raw[8:]


def page_pointer(address: int, generation: int) -> int:
    """Pointer to a page without the orphan bit."""
    return address // PAGE | (generation & GENERATION_MASK) << 40


def pointer_page(pointer: int) -> int:
    """Address of the page a pointer leads to."""
    return (pointer & PAGE_MASK) * PAGE


def pointer_generation(pointer: int) -> int:
    return pointer >> 40 & GENERATION_MASK


def span(level: int) -> int:
    """OIDs that one child of an inner page of `level` covers; level 0: one."""
    return 1 if level == 0 else LEAF_ENTRIES * INNER_ENTRIES ** (level - 1)


# --- records -----------------------------------------------------------------------------------------------------------------------------------


class Record(Struct, frozen=True):
    """A verified record, DELTA not resolved."""

    address: int
    size: int  # bytes it takes in the file
    oid: int
    state: int
    flags: int
    ordinal: int
    prev: int
    skip: int
    refs: tuple[int, ...]
    head: int
    tail: int
    body: bytes


def varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """(value, next index) of the LEB128 number at `at`."""
    value = shift = 0
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > MASK64:
                break
            return value, at
        shift += 7
        if shift > 63:
            break
    raise Damage("a number runs over its end")


def record_size(data: bytes) -> int:
    """Whole size of the record whose first (at least 16) bytes these are."""
    try:
        length, at = varint(data, 4, min(len(data), 14))
    except Damage:
        raise Damage("record length is damaged") from None
    if not 3 <= length <= RECORD_MAX:
        raise Damage(f"record length {length} is out of range")
    return at + length


def decode_record(data: bytes, address: int, uuid: int) -> Record:
    """Check and take apart the record that `data` is exactly."""
    if record_size(data[:16]) != len(data):
        raise Damage("record length is damaged")
    if int.from_bytes(data[:4], "little") != xxh3(data[4:], (uuid ^ address) & MASK64) & 0xFFFFFFFF:
        raise Damage("record checksum does not match")
    end = len(data)
    _, at = varint(data, 4, end)
    flags = data[at]
    form = flags & (FULL | DELTA | TOMBSTONE)
    if flags & 0xC0 or form not in (FULL, DELTA, TOMBSTONE):
        raise Damage(f"record flags {flags:#x} do not exist")
    if flags & (DELTA | HAS_SKIP) and not flags & HAS_PREV:
        raise Damage("record has no previous version but refers to it")
    oid, at = varint(data, at + 1, end)
    state, at = varint(data, at, end)
    prev = ordinal = skip = head = tail = 0
    if flags & HAS_PREV:
        distance, at = varint(data, at, end)
        ordinal, at = varint(data, at, end)
        prev = address - distance
        if distance == 0 or prev < FIRST_DATA or ordinal == 0:
            raise Damage("address of the previous version is out of range")
    if flags & HAS_SKIP:
        distance, at = varint(data, at, end)
        skip = address - distance
        if distance == 0 or skip < FIRST_DATA:
            raise Damage("skip address is out of range")
    refs: list[int] = []
    if flags & HAS_REFS:
        count, at = varint(data, at, end)
        if count > end - at:
            raise Damage("more references than bytes")
        before = oid
        for _ in range(count):
            zigzag, at = varint(data, at, end)
            before = (before + (zigzag >> 1 ^ -(zigzag & 1))) & MASK64
            refs.append(before)
    if flags & DELTA:
        head, at = varint(data, at, end)
        tail, at = varint(data, at, end)
    if flags & TOMBSTONE and (at != end or refs):
        raise Damage("a tombstone holds something")
    return Record(address, end, oid, state, flags, ordinal, prev, skip, tuple(refs), head, tail, data[at:])


def skip_ordinal(ordinal: int) -> int:
    """Ordinal of the version that version `ordinal` skips to (Myers' jump pointers, skew-binary numbers)."""
    rest, weight = ordinal, 1
    while rest:
        weight = (1 << rest.bit_length()) - 1
        if weight > rest:
            weight >>= 1
        rest -= weight
    return ordinal - weight if ordinal else 0


# --- frame bodies ------------------------------------------------------------------------------------------------------------------------------


class Body(Struct, frozen=True):
    """A verified commit frame body."""

    data_address: int
    data_length: int
    data_sum: int
    in_place: bool
    changes: tuple[tuple[int, int, int, int], ...]  # (OID, record address, refcount, flags), ascending OID
    data: memoryview  # empty when in place


def decode_body(body: bytes) -> Body:
    """Check the structure of a commit frame's body, and the checksum of the data in it."""
    if len(body) < _BODY.size:
        raise Damage("frame body is too short")
    address, length, checksum, count, flags = _BODY.unpack_from(body)
    data_at = _BODY.size + count * _CHANGE.size
    if flags & ~IN_PLACE or data_at > len(body):
        raise Damage("frame body has unknown flags or is too short for its entries")
    if address < FIRST_DATA or address + length > MAX_ADDRESS:
        raise Damage(f"frame body places data at {address}, out of range")
    in_place = bool(flags & IN_PLACE)
    if len(body) - data_at != (0 if in_place else length):
        raise Damage("frame body has another length than it says")
    data = memoryview(body)[data_at:]
    if not in_place and xxh3(data) != checksum:
        raise Damage("checksum of the data in a frame body does not match")
    return Body(address, length, checksum, in_place, tuple(_CHANGE.iter_unpack(body[_BODY.size : data_at])), data)


def decode_changes(payload: bytes) -> tuple[int, list[int]]:
    """(commit time in microseconds, OIDs it changed) from a version of the commit log."""
    if len(payload) < 9:
        raise Damage("commit log entry is too short")
    at, end = 8, len(payload)
    count, at = varint(payload, at, end)
    oids: list[int] = []
    oid = 0
    for _ in range(count):
        gap, at = varint(payload, at, end)
        if gap == 0:
            raise Damage("commit log entry is out of order")
        oid += gap
        oids.append(oid)
    if at != end:
        raise Damage("commit log entry has bytes left over")
    return int.from_bytes(payload[:8], "little"), oids
