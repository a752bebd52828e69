"""Byte layouts of the page file's header and metas and of the log's header and frames (``docs/design.md``, section
1).

Pure functions over bytes: no file is touched here. Decoders verify magic, version, checksum and identity and raise
typed errors that name the file; nothing that was read is trusted before that.
"""

from __future__ import annotations

import struct
from typing import Final

import xxhash
from msgspec import Struct

from .._engine import ffi, lib
from ..errors import CorruptError, FormatVersionError, NotAStoreError
from .store import Identity, Meta

FORMAT_VERSION: Final = 1
PAGE: Final = 4096
FIRST_DATA: Final = 3 * PAGE  # page 0 is the header, 1 and 2 the meta slots
META_SLOTS: Final = (PAGE, 2 * PAGE)
FIRST_STATE: Final = 1
FIRST_OID: Final = 16
MASK64: Final = (1 << 64) - 1

COMMIT: Final = 1
PREPARE: Final = 2
DECISION: Final = 3
MARK: Final = 4
VOID: Final = 5  # the frame before it never happened

_PAGE_MAGIC: Final = b"DBZERO0\n"
_REDO_MAGIC: Final = b"DBZREDO\n"
_FRAME_MAGIC: Final = b"FRM1"
_HEADER: Final = struct.Struct("<8sIIQQQQ")
_META: Final = struct.Struct("<QQQQQIIQQQQQQQQQ")
_REDO: Final = struct.Struct("<8sIIQQQQQQQQQQ")
_FRAME: Final = struct.Struct("<4sIQQQQQQQ")
_FRAME_START: Final = struct.Struct("<4sI")
_FRAME_REST: Final = struct.Struct("<QQQQQ")
_U64: Final = struct.Struct("<Q")
FRAME_HEAD: Final = _FRAME.size
MAX_BODY: Final = 1 << 40
_CHECKED: Final = PAGE - 8


def xxh3(data: bytes | bytearray | memoryview, seed: int = 0) -> int:
    """xxh3_64 of a buffer."""
    return xxhash.xxh3_64_intdigest(data, seed)


def align8(n: int) -> int:
    return (n + 7) & ~7


def align_page(n: int) -> int:
    return (n + PAGE - 1) & ~(PAGE - 1)


# --- page file ---------------------------------------------------------------------------------------------------------------------------------


def encode_header(identity: Identity, time_us: int) -> bytes:
    """Page 0 of a page file."""
    body = _HEADER.pack(
        _PAGE_MAGIC,
        identity.format_version,
        identity.page_size,
        identity.file_id,
        identity.prefix_uuid,
        time_us,
        identity.replaces,
    ).ljust(_CHECKED, b"\0")
    return body + _U64.pack(xxh3(body))


def decode_header(page: bytes, path: str) -> Identity:
    """What page 0 says.

    Raises:
        NotAStoreError: no dbzero file. FormatVersionError: a newer dbzero wrote it. CorruptError: cut short or
        damaged.
    """
    if page[:8] != _PAGE_MAGIC:
        if (
            page[8:16]
            and len(page) == PAGE
            and xxh3(_PAGE_MAGIC + page[8:_CHECKED]) == _U64.unpack_from(page, _CHECKED)[0]
        ):
            raise CorruptError(f"{path}: the header's magic is damaged (address 0); restore the file from a copy")
        raise NotAStoreError(f"{path} is not a dbzero file; move it away or choose another prefix name or directory")
    if len(page) < PAGE:
        raise CorruptError(
            f"{path} is cut short: {len(page)} bytes, the header alone has {PAGE}; restore the file from a copy"
        )
    _, version, page_size, file_id, prefix_uuid, _, replaces = _HEADER.unpack_from(page)
    if xxh3(page[:_CHECKED]) != _U64.unpack_from(page, _CHECKED)[0]:
        raise CorruptError(f"{path}: the header's checksum does not match (address 0); restore the file from a copy")
    if version > FORMAT_VERSION:
        raise FormatVersionError(
            f"{path} has format version {version}, this dbzero reads up to {FORMAT_VERSION}; open it with a newer dbzero"
        )
    if version == 0 or page_size != PAGE:
        raise CorruptError(
            f"{path}: format version {version} with page size {page_size} does not exist; restore the file from a copy"
        )
    return Identity(file_id, prefix_uuid, page_size, version, replaces)


def encode_meta(meta: Meta, file_id: int) -> bytes:
    """One meta slot's page."""
    body = _META.pack(
        0,
        file_id,
        meta.checkpoint,
        meta.state,
        meta.root,
        meta.depth,
        0,
        meta.next_oid,
        meta.data_end,
        meta.redo,
        meta.epoch,
        meta.chain,
        meta.free_head,
        meta.free_count,
        meta.time_us,
        meta.floor,
    ).ljust(PAGE, b"\0")[8:]
    return _U64.pack(xxh3(body, file_id)) + body


def decode_meta(page: bytes, file_id: int) -> Meta | None:
    """The checkpoint in a meta slot, or None when the slot is damaged or another file's."""
    if len(page) < PAGE or _U64.unpack_from(page)[0] != xxh3(page[8:], file_id):
        return None
    (
        _,
        owner,
        checkpoint,
        state,
        root,
        depth,
        _,
        next_oid,
        data_end,
        redo,
        epoch,
        chain,
        free_head,
        free_count,
        time_us,
        floor,
    ) = _META.unpack_from(page)
    if owner != file_id or data_end < FIRST_DATA or data_end % PAGE:
        return None
    if floor > state:
        return None
    return Meta(
        checkpoint, state, root, depth, next_oid, data_end, redo, epoch, chain, free_head, free_count, time_us, floor
    )


def first_meta(time_us: int) -> Meta:
    """The checkpoint of a fresh prefix: state 1, no objects."""
    return Meta(1, FIRST_STATE, 0, 0, FIRST_OID, FIRST_DATA, 1, 0, 0, 0, 0, time_us)


# --- log ---------------------------------------------------------------------------------------------------------------------------------------


class RedoHeader(Struct, frozen=True):
    """First page of a log file."""

    file_id: int
    number: int
    epoch: int
    salt: int
    state: int  # continued from
    chain: int  # continued from
    data_base: int
    data_limit: int
    time_us: int
    previous: int  # number of the log file that (state, chain) stands in, 0: the page file's checkpoint


def encode_redo(header: RedoHeader) -> bytes:
    body = _REDO.pack(
        _REDO_MAGIC,
        FORMAT_VERSION,
        0,
        header.file_id,
        header.number,
        header.epoch,
        header.salt,
        header.state,
        header.chain,
        header.data_base,
        header.data_limit,
        header.time_us,
        header.previous,
    ).ljust(_CHECKED, b"\0")
    return body + _U64.pack(xxh3(body, header.file_id))


def decode_redo(page: bytes, path: str) -> RedoHeader | None:
    """What a log file's first page says, whoever's it is; None when it was never completed or is damaged.

    Raises:
        FormatVersionError: a newer dbzero wrote it.
    """
    if len(page) < PAGE or page[:8] != _REDO_MAGIC:
        return None
    (_, version, _, file_id, number, epoch, salt, state, chain, base, limit, time_us, previous) = _REDO.unpack_from(
        page
    )
    if _U64.unpack_from(page, _CHECKED)[0] != xxh3(page[:_CHECKED], file_id):
        return None
    if version > FORMAT_VERSION:
        raise FormatVersionError(
            f"{path} has format version {version}, this dbzero reads up to {FORMAT_VERSION}; open it with a newer dbzero"
        )
    return RedoHeader(file_id, number, epoch, salt, state, chain, base, limit, time_us, previous)


class FrameHead(Struct, frozen=True):
    """A frame's first 64 bytes."""

    kind: int
    chain: int
    epoch: int
    state: int
    durable: int
    length: int
    next_oid: int


def encode_frame(
    kind: int,
    epoch: int,
    state: int,
    durable: int,
    next_oid: int,
    body: bytes | memoryview,
    *,
    seed: int,
    salt: int,
    offset: int,
) -> tuple[memoryview, int]:
    """Header bytes and chain checksum of a frame that follows the one with chain `seed` and stands at `offset` of the
    file with `salt`.
    """
    head = ffi.new("uint8_t[64]")
    held = ffi.from_buffer("uint8_t[]", body)
    chain = lib.dbz_frame_head(head, kind, epoch, state, durable, next_oid, held, len(body), seed, salt, offset)
    return memoryview(ffi.buffer(head)), chain


def decode_frame_head(data: bytes | memoryview, at: int, *, salt: int, offset: int) -> FrameHead | None:
    """The frame header at index `at` of `data`, which stands at `offset` of the file; None when its own check fails."""
    if len(data) - at < FRAME_HEAD:
        return None
    magic, kind, chain, epoch, state, durable, length, next_oid, check = _FRAME.unpack_from(data, at)
    if magic != _FRAME_MAGIC or check != xxh3(
        _FRAME_START.pack(magic, kind) + _FRAME_REST.pack(epoch, state, durable, length, next_oid),
        (salt + offset) & MASK64,
    ):
        return None
    if not COMMIT <= kind <= VOID or length > MAX_BODY:
        return None
    return FrameHead(kind, chain, epoch, state, durable, length, next_oid)


def frame_chain(head: bytes | memoryview, body: bytes | memoryview, seed: int) -> int:
    """Chain checksum over a frame's 64 header bytes and body."""
    hasher = xxhash.xxh3_64(bytes(head[16:64]), seed)
    hasher.update(body)
    return hasher.intdigest()


def find_frame(data: bytes, start: int) -> int:
    """Index of the next frame magic at or after `start`, -1 when there is none."""
    return data.find(_FRAME_MAGIC, start)
