"""Reading one prefix: the typed face of ``csrc/reader.h``.

A :class:`Reader` looks objects up at any state through the shared page cache. It belongs to one thread at a time. What
a call returns is copied: nothing here hands out memory that a later call would change.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

from dbzero import errors
from dbzero._engine import ffi, lib
from dbzero.runtime import codes
from dbzero.runtime.native import persistent

PAGE = 4096
ROOM = 256  # OIDs that one call lists without an allocation
FULL, DELTA, TOMBSTONE = 1, 2, 4  # record flags
OID_ROOT, OID_LOG, OID_FIRST = 1, 2, 16
REF_TOMBSTONE = 0xFFFFFFFF  # refcount of an entry that leads to a tombstone


_FEW = 64  # commits whose changes are listed without letting go of the GIL

_FAULTS = {
    1: "the checksum of a record is wrong",
    2: "a record is malformed",
    3: "the checksum of a table page is wrong",
    4: "a table page is not the one that should stand there",
    5: "an address leads outside the file",
    6: "a record belongs to another object",
    7: "stored reference counts do not add up",
    8: "a reference leads to an object that was never stored",
}


class Version(NamedTuple):
    """One version of an object.

    ``refcount`` is that of the newest entry known for the asked state (current when it comes from the table)."""

    oid: int
    state: int
    address: int
    ordinal: int  # how many older versions there are
    prev: int  # address of the version before, 0: none
    skip: int
    flags: int
    refcount: int
    payload: bytes
    refs: tuple[int, ...]  # OIDs held strongly, duplicates count

    @property
    def deleted(self) -> bool:
        return bool(self.flags & TOMBSTONE)


class Entry(NamedTuple):
    """An entry of the object table. ``refcount`` is REF_TOMBSTONE for a deleted object."""

    oid: int
    state: int
    address: int
    refcount: int


class Reader:
    """Handle for reading one prefix through a mapped segment.

    Args:
        seg: the ``dbz_seg *`` of the mapping; the caller closes every reader before it unmaps.
        prefix: index of the prefix slot.
        name: prefix name, for error messages.
        path: page file, for error messages.
        fd: descriptor of the page file (borrowed), or -1 to read pages through `supply`.
        supply: ``supply(address, length) -> bytes`` reads whole pages, short where the file ends; for `fd` -1.
    """

    __slots__ = ("_entry", "_handle", "_quick", "_record", "_room", "fd", "name", "path", "prefix", "seg", "supply")

    def __init__(
        self,
        seg: Any,
        prefix: int,
        *,
        name: str,
        path: str,
        fd: int = -1,
        supply: Callable[[int, int], bytes] | None = None,
    ) -> None:
        self.seg = seg
        self.prefix = prefix
        self.name = name
        self.path = path
        self.fd = fd
        self.supply = supply
        out = ffi.new("dbz_reader **")
        rc = lib.dbz_reader_new(seg, prefix, fd, out)
        if rc == codes.NOMEM:
            raise MemoryError
        if rc:
            raise errors.SegmentError(f"prefix {name!r} has no slot {prefix} in the segment; close and open it again")
        self._handle = ffi.gc(out[0], lib.dbz_reader_free)
        self._record = ffi.new("dbz_record *")
        self._entry = ffi.new("dbz_entry *")
        self._quick: Any = None
        self._room: Any = None

    @property
    def handle(self) -> Any:
        """The ``dbz_reader *``. ClosedError after :meth:`close`."""
        if self._handle is None:
            raise errors.ClosedError(f"prefix {self.name!r} has been closed")
        return self._handle

    def close(self) -> None:
        """Let go of the handle; a batch that is still being built keeps it until it ends. The descriptor stays open, for the
        caller to close."""
        quick, self._handle, self._quick = self._quick, None, None
        if quick is not None:
            persistent.shut_reader(quick)

    def quick(self) -> Any:
        """For the functions of the C module that read while they hold the GIL: a reader of its own, so that it is in nobody's way.
        After :meth:`close` they find nothing in it."""
        if self._quick is None:
            out = ffi.new("dbz_reader **")
            _ = self.handle
            if lib.dbz_reader_new(self.seg, self.prefix, self.fd, out):
                raise MemoryError
            self._quick = persistent.reader(int(ffi.cast("uintptr_t", out[0])))
        return self._quick

    def room(self) -> Any:
        """A cffi `uint64_t[]` for ROOM OIDs and two words more, for one call."""
        if self._room is None:
            self._room = ffi.new("uint64_t[]", ROOM + 2)
        return self._room

    def settle(self, rc: int, what: str) -> bool:
        """Deal with a call's negative result: True when it is to be repeated (a page was supplied), else it raises.

        Args:
            rc: the DBZ_E_* code.
            what: what was being done, for the message.
        """
        if rc == codes.MISS and self.supply is not None:
            handle = self.handle
            address = lib.dbz_reader_missing(handle)
            wanted = lib.dbz_reader_missing_bytes(handle)
            read = self.supply(address, -(-wanted // PAGE) * PAGE)
            for at in range(0, max(len(read), 1), PAGE):
                page = read[at : at + PAGE]
                rc = lib.dbz_page_supply(handle, address + at, page, len(page))
                if rc:
                    break
            else:
                return True
        self._raise(rc, what)

    def _raise(self, rc: int, what: str) -> NoReturn:
        where = f"prefix {self.name!r} ({self.path}), {what}"
        if rc == codes.NOMEM:
            raise MemoryError(where)
        if rc in (codes.CORRUPT, codes.NOTFOUND):
            fault = lib.dbz_reader_fault(self.handle)
            kind = _FAULTS.get(fault.what, "damaged")
            place = f"object {fault.oid}, state {fault.state}, address {fault.address}"
            if rc == codes.NOTFOUND or fault.what == 8:
                raise errors.CorruptError(
                    f"{where}: {kind} (object {fault.oid}); nothing was written: cancel the transaction"
                )
            raise errors.CorruptError(f"{where}: {kind}: {place}; run `python -m dbzero check` and restore a copy")
        if rc == codes.RETRY:
            raise errors.StaleViewError(f"{where}: the prefix was taken over by another process; refresh and repeat")
        if rc == codes.IO:
            number = lib.dbz_reader_errno(self.handle)
            raise errors.StorageError(f"{where}: cannot read the file: {os.strerror(number)}")
        if rc == codes.NOSPACE:
            raise errors.StorageError(f"{where}: the transaction is too large for one commit; commit in smaller steps")
        if rc == codes.MISS:
            raise errors.StorageError(f"{where}: page {lib.dbz_reader_missing(self.handle)} cannot be read")
        raise errors.StorageError(f"{where}: internal error {rc}")

    def read(self, oid: int, state: int) -> tuple[bytes, int] | None:
        """Payload and refcount of the newest version at or below `state`; None when there is none or it is deleted.

        Raises CorruptError, StaleViewError, StorageError."""
        version = self.get(oid, state)
        return None if version is None or version.flags & TOMBSTONE else (version.payload, version.refcount)

    def get(self, oid: int, state: int) -> Version | None:
        """The newest version at or below `state`, a tombstone included; None when there is none."""
        rc = lib.dbz_get(self.handle, oid, state, self._record)
        while rc:
            if rc == codes.NOTFOUND:
                return None
            if self.settle(rc, f"object {oid}, state {state}"):
                rc = lib.dbz_get(self.handle, oid, state, self._record)
        return self._version()

    def get_at(self, address: int) -> Version:
        """The version whose record stands at `address`."""
        rc = lib.dbz_get_at(self.handle, address, self._record)
        while rc:
            if self.settle(rc, f"record at address {address}"):
                rc = lib.dbz_get_at(self.handle, address, self._record)
        return self._version()

    def _version(self) -> Version:
        r = self._record
        refs = tuple(ffi.unpack(r.refs, r.ref_count)) if r.ref_count else ()
        payload = ffi.buffer(r.payload, r.payload_len)[:]
        return Version(r.oid, r.state, r.addr, r.ordinal, r.prev, r.skip, r.flags, r.refcount, payload, refs)

    def entry(self, oid: int, state: int) -> Entry | None:
        """Address and refcount of the newest version at or below `state`, without its payload."""
        rc = lib.dbz_get_entry(self.handle, oid, state, self._entry)
        while rc:
            if rc == codes.NOTFOUND:
                return None
            if self.settle(rc, f"object {oid}, state {state}"):
                rc = lib.dbz_get_entry(self.handle, oid, state, self._entry)
        e = self._entry
        return Entry(e.oid, e.state, e.addr, e.refcount)

    def refcount(self, oid: int, state: int) -> int:
        """References to a live object; 0 when it doesn't exist."""
        found = self.entry(oid, state)
        return 0 if found is None or found.refcount == REF_TOMBSTONE else found.refcount

    def bytes_at(self, address: int, length: int) -> bytes:
        """Raw bytes of the data area."""
        out = ffi.new("uint8_t[]", max(length, 1))
        rc = lib.dbz_get_bytes(self.handle, address, out, length)
        while rc:
            if self.settle(rc, f"{length} bytes at address {address}"):
                rc = lib.dbz_get_bytes(self.handle, address, out, length)
        return bytes(ffi.buffer(out, length))

    def changes(self, state: int) -> tuple[list[int], int] | None:
        """OIDs whose record the commit of `state` wrote, ascending, and its time (microseconds since 1970).

        None when no such commit is known."""
        count = ffi.new("uint64_t *")
        time_us = ffi.new("uint64_t *")
        capacity = 64
        while True:
            oids = ffi.new("uint64_t[]", capacity)
            count[0] = capacity
            rc = lib.dbz_get_changes(self.handle, state, oids, count, time_us)
            if rc == 0:
                return ffi.unpack(oids, count[0]), time_us[0]
            if rc == codes.NOSPACE:
                capacity = count[0]
            elif rc == codes.NOTFOUND:
                return None
            else:
                self.settle(rc, f"changes of state {state}")

    def changes_since(self, after: int, upto: int) -> set[int] | None:
        """OIDs of the records that the commits of states `after` + 1 to `upto` wrote. None when one of them is not known."""
        if upto - after <= _FEW:
            quick = persistent.changes_since(self.quick(), after, upto)
            if quick.__class__ is not int:
                return quick  # type: ignore[no-any-return]
        oids, capacity = self.room(), ROOM
        count, done = oids + capacity, oids + capacity + 1
        found: set[int] = set()
        while after < upto:
            count[0] = capacity
            rc = lib.dbz_get_changes_since(self.handle, after, upto, oids, count, done)
            if rc == 0:
                found.update(ffi.unpack(oids, count[0]))
                after = done[0]
            elif rc == codes.NOSPACE:
                capacity = count[0]
                oids = ffi.new("uint64_t[]", capacity)
            elif rc == codes.NOTFOUND:
                return None
            else:
                self.settle(rc, f"changes of state {after + 1}")
        return found

    def scan(self, root: int, depth: int, *, start: int = 0, orphans: bool = False) -> Iterator[Entry]:
        """Entries of the checkpointed table under `root` in OID order (their state is 0), the delta left out.

        Args:
            root: table page pointer; depth: of the tree.
            start: first OID of interest.
            orphans: only live objects that nothing refers to.
        """
        capacity = 512
        out = ffi.new("dbz_entry[]", capacity)
        following = ffi.new("uint64_t *")
        while True:
            n = lib.dbz_table_scan(self.handle, root, depth, start, orphans, out, capacity, following)
            if n < 0:
                self.settle(n, f"object table from object {start}")
                continue
            for i in range(n):
                e = out[i]
                yield Entry(e.oid, e.state, e.addr, e.refcount)
            start = following[0]
            if not start:
                return
