"""Compaction: the versions that are kept, written into a new page file that then takes the old one's name.

Kept are the versions above a *floor*, and of each object the newest one at or below it: every state from the floor on
looks as before. The lease holder does it, beside its own commits and everybody's reads:

1. After a checkpoint k, the whole table of k is walked and what is kept is written, object by object, into
   ``<prefix>.db0.compact.<epoch>``. Nothing that k's table leads to is written anew meanwhile
   (:attr:`LocalFileStore.keep_pages`).
2. A few more checkpoints, each followed by a walk over the leaves born since the one before: each brings over what was
   committed meanwhile, which is less every time.
3. While commits wait: a last checkpoint, a last walk; header and metas are written, all is synced, and a rename puts
   the file in the old one's place (:meth:`LocalFileStore.replace_file`). The log files of the old one hold nothing
   that is not in the new one, and are deleted.

What a crash leaves is argued in docs/design.md, "Compaction, case by case".
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

import xxhash
from msgspec.structs import replace

from .. import errors
from . import format as fmt
from . import names, newfile, table
from . import records as rec
from .filestore import LocalFileStore
from .newfile import NewFile, Progress
from .pagefile import now_us, random64
from .store import Identity, Meta
from .syscalls import System, storage_error

_FIRST_READ: Final = 512  # bytes read of a record whose size is not known
_HELD: Final = 1 << 20  # bytes of one object's versions kept in memory between the two passes over its chain
_FREED_MASK: Final = (1 << 24) - 1
_U32: Final = struct.Struct("<I")
_xxh3 = xxhash.xxh3_64_intdigest
_FORMS: Final = rec.FULL | rec.DELTA | rec.TOMBSTONE


class Full(NamedTuple):
    """A version with its payload whole, whatever form its record has."""

    payload: bytes
    refs: tuple[int, ...]


class _Version(NamedTuple):
    """What is to be known of a record to write it again elsewhere."""

    oid: int
    state: int
    flags: int
    ordinal: int
    prev: int
    skip: int
    rest: int  # index of what depends on no address: references and payload


def put_varint(value: int) -> bytes:
    """LEB128."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def put_refs(oid: int, refs: tuple[int, ...]) -> bytes:
    """A record's reference list: count, then the zigzag distances."""
    out = bytearray(put_varint(len(refs)))
    before = oid
    for target in refs:
        distance = target - before
        out += put_varint(distance << 1 if distance >= 0 else (-distance << 1) - 1)
        before = target
    return bytes(out)


def take_apart(data: bytes, address: int, uuid: int) -> _Version:
    """Check the record that `data` is exactly, as far as it will be used. Raises rec.Damage."""
    if int.from_bytes(data[:4], "little") != _xxh3(data[4:], (uuid ^ address) & fmt.MASK64) & 0xFFFFFFFF:
        raise rec.Damage("record checksum does not match")
    end = len(data)
    _, at = rec.varint(data, 4, end)
    flags = data[at]
    oid, at = rec.varint(data, at + 1, end)
    state, at = rec.varint(data, at, end)
    prev = ordinal = skip = 0
    if flags & rec.HAS_PREV:
        distance, at = rec.varint(data, at, end)
        ordinal, at = rec.varint(data, at, end)
        prev = address - distance
        if distance == 0 or prev < fmt.FIRST_DATA or ordinal == 0:
            raise rec.Damage("address of the previous version is out of range")
    if flags & rec.HAS_SKIP:
        distance, at = rec.varint(data, at, end)
        skip = address - distance
        if distance == 0 or skip < fmt.FIRST_DATA:
            raise rec.Damage("skip address is out of range")
    if flags & _FORMS not in (rec.FULL, rec.DELTA, rec.TOMBSTONE) or flags & 0xC0:
        raise rec.Damage(f"record flags {flags:#x} do not exist")
    return _Version(oid, state, flags, ordinal, prev, skip, at)


def put_together(
    address: int, uuid: int, flags: int, oid: int, state: int, prev: int, ordinal: int, skip: int, rest: bytes
) -> bytes:
    """The record that stands at `address`. flags: form and REFS; prev, skip: addresses, 0 for none."""
    head = bytearray((flags | (rec.HAS_PREV if prev else 0) | (rec.HAS_SKIP if skip else 0),))
    head += put_varint(oid)
    head += put_varint(state)
    if prev:
        head += put_varint(address - prev)
        head += put_varint(ordinal)
    if skip:
        head += put_varint(address - skip)
    tail = put_varint(len(head) + len(rest)) + bytes(head) + rest
    return _U32.pack(_xxh3(tail, (uuid ^ address) & fmt.MASK64) & 0xFFFFFFFF) + tail


class Compaction:
    """One compacted file in the making.

    Args:
        store: of the lease holder.
        floor: oldest state that is kept.
        full: ``full(address)`` gives the whole version whose record stands at an address of the old file.
        progress: called with (OIDs done, OIDs in all) now and then.
    """

    def __init__(
        self,
        store: LocalFileStore,
        floor: int,
        full: Callable[[int], Full],
        progress: Progress | None = None,
    ) -> None:
        self.store = store
        self.floor = max(floor, fmt.FIRST_STATE)
        self.path = names.compact_path(store.base, store.epoch)
        self.state = 0  # versions up to this state are in the file
        self.moved = 0  # versions written by the last :meth:`copy`
        self.file_id = random64()  # of the new file
        self._full = full
        self._progress = progress
        self._since: int | None = None  # checkpoint whose table was walked last
        self._uuid = store.identity.prefix_uuid
        self._system: System = store.system
        try:
            newfile.remove(self._system, self.path)
            fd = self._system.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except OSError as exc:
            raise storage_error(exc, store.prefix, self.path, "create") from exc
        self.file = NewFile(self._system, store.prefix, self.path, fd)
        self._table: table.Table | None = None

    def copy(self, meta: Meta) -> int:
        """Bring over what checkpoint `meta`, which is in force, has and the file has not; returns the number of versions.

        Raises:
            CorruptError: the old file is damaged. DiskFullError, StorageError.
        """
        store = self.store
        if self._table is None:
            store.keep_pages = meta.checkpoint
            self._table = table.Table(self.file, self._uuid, 1)
            self.file.expect(-(-meta.next_oid // rec.LEAF_ENTRIES))
        self.moved = 0
        try:
            for _, page in table.walk(store.read_page, self._uuid, meta.root, meta.depth, self._since):
                if page.kind != rec.LEAF:
                    continue
                for oid, address, refcount in page.entries():
                    try:
                        self._object(oid, address, refcount)
                    except rec.Damage as exc:
                        raise rec.Damage(f"object {oid}, newest record at {address}: {exc}") from None
                if self._progress:
                    self._progress(min(page.first + rec.LEAF_ENTRIES, meta.next_oid), meta.next_oid)
        except rec.Damage as exc:
            raise errors.CorruptError(
                f"prefix {store.prefix!r}: {store.path} cannot be compacted: {exc}; run `python -m dbzero check` and restore a copy"
            ) from None
        self.file.sync()
        self._since, self.state = meta.checkpoint, meta.state
        return self.moved

    def finish(self, meta: Meta, *, redo: int, epoch: int) -> Meta:
        """Complete the file as of `meta`, whose state :meth:`copy` has reached; returns the meta it has. Synced.

        Args:
            redo: number of the log file that will continue from it. epoch: of the lease.
        """
        assert self._table is not None and self.state == meta.state
        file, source = self.file, self.store.identity
        root, depth = self._table.finish()
        number, free = meta.checkpoint + 1, [a // fmt.PAGE for a in file.spare[1:]]
        head = 0
        if free:
            home = file.spare[0]
            entries = [page | ((number - 2) & _FREED_MASK) << 40 for page in free]
            file.write(home, rec.encode_free_page(entries, home, number, 0, self._uuid))
            head = rec.page_pointer(home, number)
        made = replace(
            meta,
            checkpoint=number,
            root=root,
            depth=depth,
            data_end=fmt.align_page(file.end),
            redo=redo,
            epoch=epoch,
            free_head=head,
            free_count=len(free),
            time_us=now_us(),
            floor=max(self.floor, meta.floor),
        )
        file.finish(
            Identity(self.file_id, source.prefix_uuid, source.page_size, source.format_version, source.file_id), made
        )
        return made

    def close(self) -> None:
        """Let go of the file; one that did not get its name is deleted."""
        self.store.keep_pages = None
        self.file.close()
        with contextlib.suppress(OSError):  # the next writer or compaction deletes what is left
            newfile.remove(self._system, self.path)

    # --- one object -------------------------------------------------------------------------------------------------------------------

    def _read(self, address: int) -> bytes:
        """The record at an address of the old file."""
        data = self.store.read_page(address, _FIRST_READ)
        size = rec.record_size(data[:16])
        return data[:size] if size <= len(data) else self.store.read_page(address, size)

    def _object(self, oid: int, address: int, refcount: int) -> None:
        """Bring over the versions of one object that are kept and not there yet, and its table entry."""
        assert self._table is not None
        before = self._table.get(oid) if self._since is not None else None
        chain: list[tuple[int, bytes | None]] = []  # newest first; what is long is read again
        held = 0
        at, expected = address, -1
        while at:
            data = self._read(at)
            version = take_apart(data, at, self._uuid)
            if version.oid != oid or (expected >= 0 and version.ordinal != expected):
                raise rec.Damage(f"the record at {at} is not the version that the next one says")
            if version.state <= self.state:
                break
            gone = version.flags & rec.TOMBSTONE and version.state <= self.floor
            if not gone:
                chain.append((at, data if held < _HELD else None))
                held += len(data)
            if version.state <= self.floor:
                break
            at, expected = version.prev, version.ordinal - 1
        if not chain:
            if before is not None and before.refcount != refcount:
                self._table.set(oid, before.address, refcount)
            return
        self._table.set(oid, self._append(oid, chain, before.address if before else 0), refcount)

    def _append(self, oid: int, chain: list[tuple[int, bytes | None]], prev: int) -> int:
        """Write versions, oldest first, behind the one at `prev` of the new file; returns the newest one's address."""
        uuid, file = self._uuid, self.file
        made: list[int] = []  # addresses of what is written here
        first = 0  # ordinal of the first of them
        if prev:
            first = self._at(prev).ordinal + 1
        for where, raw in reversed(chain):
            data = raw if raw is not None else self._read(where)
            address = file.end
            if not prev and data[rec.varint(data, 4, 14)[1]] & (_FORMS | rec.HAS_PREV) == rec.FULL:
                file.append(_U32.pack(_xxh3(data[4:], (uuid ^ address) & fmt.MASK64) & 0xFFFFFFFF) + data[4:])
            else:
                version = take_apart(data, where, uuid)
                flags, rest = version.flags & (_FORMS | rec.HAS_REFS), data[version.rest :]
                if not prev and flags & rec.DELTA:
                    whole = self._full(where)
                    flags = rec.FULL | (rec.HAS_REFS if whole.refs else 0)
                    rest = (put_refs(oid, whole.refs) if whole.refs else b"") + whole.payload
                ordinal = first + len(made)
                skip = self._skip(ordinal, first, made, prev) if prev else 0
                file.append(put_together(address, uuid, flags, oid, version.state, prev, ordinal, skip, rest))
            made.append(address)
            prev = address
        self.moved += len(made)
        return prev

    def _at(self, address: int) -> _Version:
        """A record of the new file."""
        data = self.file.read(address, _FIRST_READ)
        size = rec.record_size(data[:16])
        return take_apart(data[:size] if size <= len(data) else self.file.read(address, size), address, self._uuid)

    def _skip(self, ordinal: int, first: int, made: list[int], prev: int) -> int:
        """Address that version `ordinal` skips to, 0 when that is the version before it."""
        target = rec.skip_ordinal(ordinal)
        if target == ordinal - 1:
            return 0
        if target >= first:
            return made[target - first]
        address = made[0] if made else prev
        version = self._at(address)
        while version.ordinal != target:
            jump = rec.skip_ordinal(version.ordinal)
            address = version.skip if version.skip and jump >= target else version.prev
            version = self._at(address)
        return address
