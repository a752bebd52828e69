"""A prefix in miniature for these tests: store, private segment, commits through the real engine, and a model of what it should hold."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from dbzero import errors
from dbzero._engine import ffi, lib
from dbzero.storage import checkpoint as cp
from dbzero.storage import format as fmt
from dbzero.storage import recovery
from dbzero.storage.filestore import LocalFileStore

MISS = -1
NOT_FOUND = -2
ROOT = 1

History = dict[int, dict[int, bytes]]  # state -> OID -> payload


class Segment:
    """A private segment with one prefix slot."""

    def __init__(self, cache: int = 1 << 20, arena: int = 4 << 20) -> None:
        self.fd = os.memfd_create("test")
        os.fchmod(self.fd, 0o600)
        os.ftruncate(self.fd, lib.dbz_seg_size(cache, arena))
        ident = bytes(16)
        assert lib.dbz_seg_format(self.fd, cache, arena, ident, 1, 2, ident) == 0
        out = ffi.new("dbz_seg **")
        assert lib.dbz_seg_map(self.fd, -1, ident, 1, 2, ident, out) == 0
        self.seg = out[0]
        self.index = lib.dbz_prefix_find(self.seg, bytes(range(16)), b"test")
        assert self.index >= 0

    def close(self) -> None:
        lib.dbz_seg_unmap(self.seg)
        os.close(self.fd)


class Db:
    """An open prefix. Writers recover first, like the real thing."""

    def __init__(self, store: LocalFileStore, segment: Segment, *, force: bool = False, region: int = 1 << 20) -> None:
        self.store, self.segment, self.region = store, segment, region
        self.seg, self.index = segment.seg, segment.index
        identity = store.identity
        self.reader: Any = ffi.NULL
        if store.writable:
            store.acquire(force=force)
        lib.dbz_prefix_reset(self.seg, self.index, identity.file_id, identity.prefix_uuid)
        out = ffi.new("dbz_reader **")
        assert lib.dbz_reader_new(self.seg, self.index, store.fileno(), out) == 0
        self.reader = out[0]
        if store.writable:
            found = recovery.recover(store, self.seg, self.index, self.reader, forced=force, region=region)
        else:
            meta = store.read_meta()
            lib.dbz_root_install(self.seg, self.index, meta.root, meta.depth, meta.state)
            found = recovery.replay_into(store, self.seg, self.index, meta)
        assert lib.dbz_prefix_start(self.seg, self.index, store.epoch, found.state, found.data_end, found.next_oid, 0) == 0
        self.found = found
        self.meta = found.meta
        self.state, self.next_oid, self.data_end = found.state, found.next_oid, found.data_end
        self.cut: cp.Cut | None = None

    def close(self) -> None:
        if self.reader:
            lib.dbz_reader_free(self.reader)
            self.reader = ffi.NULL
        self.store.close()

    def call(self, function: Callable[..., int], *args: Any) -> int:
        """An engine call that may need pages."""
        for _ in range(10_000):
            code = int(function(*args))
            if code != MISS:
                return code
            address = lib.dbz_reader_missing(self.reader)
            page = self.store.read_page(address, 4096)
            assert lib.dbz_page_supply(self.reader, address, page, len(page)) == 0
        raise AssertionError("a page is missing for ever")

    def get(self, oid: int, state: int | None = None) -> bytes | None:
        out = ffi.new("dbz_record *")
        code = self.call(lib.dbz_get, self.reader, oid, self.state if state is None else state, out)
        if code == NOT_FOUND or (code == 0 and out.flags & 4):
            return None
        if code == -3:
            fault = lib.dbz_reader_fault(self.reader)
            raise errors.CorruptError(f"address {fault.address} what {fault.what}")
        assert code == 0, code
        return bytes(ffi.buffer(out.payload, out.payload_len)) if out.payload_len else b""

    def commit(self, changes: dict[int, tuple[bytes, list[int]] | None], *, in_place: bool = False, sync: bool = True) -> int:
        """Put (payload, references) or delete (None) objects; returns the state, acknowledged when `sync`."""
        out = ffi.new("dbz_batch **")
        assert self.call(lib.dbz_batch_new, self.reader, self.state, self.state + 1, self.data_end, out) == 0
        batch = out[0]
        try:
            for oid, change in changes.items():
                if change is None:
                    assert self.call(lib.dbz_batch_delete, batch, oid) == 0
                else:
                    payload, refs = change
                    assert self.call(lib.dbz_batch_put, batch, oid, payload, len(payload), refs, len(refs)) == 0
                self.next_oid = max(self.next_oid, oid + 1)
            assert self.call(lib.dbz_batch_seal, batch, 7, int(in_place)) == 0
            size, count = ffi.new("uint64_t *"), ffi.new("uint32_t *")
            data = bytes(ffi.buffer(lib.dbz_batch_data(batch, size), size[0]))
            body = bytes(ffi.buffer(lib.dbz_batch_body(batch, size), size[0]))
            self.store.reserve(log_bytes=len(body), data_end=self.data_end + len(data))
            self.store.write_data(self.data_end, data)
            if in_place:
                self.store.sync_data()
            entries = lib.dbz_batch_entries(batch, count)
            assert lib.dbz_delta_reserve(self.seg, self.index, count[0]) == 0
            self.store.append(
                kind=fmt.COMMIT, epoch=self.store.epoch, state=self.state + 1, durable=self.state, next_oid=self.next_oid, body=body
            )
            assert lib.dbz_delta_apply(self.seg, self.index, entries, count[0]) == 0
            self.data_end += len(data)
            self.state += 1
            lib.dbz_advance(self.seg, self.index, self.data_end, self.next_oid)
        finally:
            lib.dbz_batch_free(batch)
        if sync:
            self.store.sync_log()
            self.store.mark_durable(self.state)
        return self.state

    def checkpoint(self) -> None:
        """A whole checkpoint; after an error the next call goes on with the same cut."""
        if self.cut is None:
            self.cut = cp.cut(
                self.store, self.seg, self.index, meta=self.meta, data_end=self.data_end, next_oid=self.next_oid, region=self.region
            )
            self.data_end = self.cut.data_end
            lib.dbz_advance(self.seg, self.index, self.data_end, self.next_oid)
        self.meta = cp.checkpoint(self.store, self.seg, self.index, self.reader, self.cut)
        self.cut = None

    def dump(self, oids: range, state: int | None = None) -> dict[int, bytes]:
        """OID -> payload of what exists."""
        out = {}
        for oid in oids:
            payload = self.get(oid, state)
            if payload is not None:
                out[oid] = payload
        return out
