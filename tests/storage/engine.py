"""A prefix in miniature for these tests: store, private segment, commits through the real engine, and a model of what
it should hold.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from dbzero._engine import ffi, lib
from dbzero.runtime.batch import Batch
from dbzero.runtime.reader import Reader
from dbzero.storage import checkpoint as cp
from dbzero.storage import format as fmt
from dbzero.storage import recovery
from dbzero.storage.compaction import Compaction, Full
from dbzero.storage.filestore import LocalFileStore

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
        if store.writable:
            store.acquire(force=force)
        lib.dbz_prefix_reset(self.seg, self.index, identity.file_id, identity.prefix_uuid)
        self.reader = self.make_reader()
        if store.writable:
            found = recovery.recover(store, self.seg, self.index, self.reader, forced=force, region=region)
        else:
            meta = store.read_meta()
            lib.dbz_root_install(self.seg, self.index, meta.root, meta.depth, meta.state)
            found = recovery.replay_into(store, self.seg, self.index, meta)
        assert (
            lib.dbz_prefix_start(self.seg, self.index, store.epoch, found.state, found.data_end, found.next_oid, 0) == 0
        )
        self.found = found
        self.meta = found.meta
        self.state, self.next_oid, self.data_end = found.state, found.next_oid, found.data_end
        self.durable = self.state
        self.cut: cp.Cut | None = None

    def make_reader(self) -> Reader:
        store = self.store
        return Reader(
            self.seg,
            self.index,
            name=store.prefix,
            path=store.path,
            fd=store.fileno(),
            supply=store.read_page,
        )

    def close(self) -> None:
        self.reader.close()
        self.store.close()

    def get(self, oid: int, state: int | None = None) -> bytes | None:
        found = self.reader.read(oid, self.state if state is None else state)
        return None if found is None else found[0]

    def commit(
        self, changes: dict[int, tuple[bytes, list[int]] | None], *, in_place: bool = False, sync: bool = True
    ) -> int:
        """Put (payload, references) or delete (None) objects; returns the state, acknowledged when `sync`."""
        work = Batch(self.reader, self.state + 1, self.data_end)
        try:
            for oid, change in changes.items():
                if change is None:
                    assert work.delete(oid)
                else:
                    work.put(oid, *change)
                self.next_oid = max(self.next_oid, oid + 1)
            work.seal(7, in_place=in_place)
            data, body, entries = work.data, work.body, work.entries
            self.store.reserve(log_bytes=len(body), data_end=self.data_end + len(data))
            self.store.write_data(self.data_end, data)
            if in_place:
                self.store.sync_data()
            assert lib.dbz_delta_reserve(self.seg, self.index, entries.count) == 0
            self.store.append(
                kind=fmt.COMMIT,
                epoch=self.store.epoch,
                state=self.state + 1,
                durable=self.durable,
                next_oid=self.next_oid,
                body=body,
            )
            assert lib.dbz_delta_apply(self.seg, self.index, entries.array, entries.count) == 0
            self.data_end += len(data)
            self.state += 1
            lib.dbz_advance(self.seg, self.index, self.data_end, self.next_oid)
        finally:
            work.close()
        if sync:
            self.sync()
        return self.state

    def sync(self) -> None:
        """Acknowledge everything committed so far."""
        self.store.sync_log()
        self.durable = self.state
        self.store.mark_durable(self.state)

    def checkpoint(self) -> None:
        """A whole checkpoint; after an error the next call goes on with the same cut."""
        if self.cut is None:
            self.cut = cp.cut(
                self.store,
                self.seg,
                self.index,
                meta=self.meta,
                data_end=self.data_end,
                next_oid=self.next_oid,
                region=self.region,
            )
            self.data_end = self.cut.data_end
            lib.dbz_advance(self.seg, self.index, self.data_end, self.next_oid)
        self.meta = cp.checkpoint(self.store, self.seg, self.index, self.reader, self.cut)
        self.cut = None

    def compact(self, floor: int, between: Callable[[], None] = lambda: None) -> None:
        """A whole compaction; `between` is called when the first pass is done."""
        self.checkpoint()
        job = Compaction(self.store, floor, self._full)
        try:
            job.copy(self.meta)
            between()
            self.checkpoint()
            job.copy(self.meta)
            made = job.finish(self.meta, redo=self.meta.redo + 1, epoch=self.store.epoch)
            page = self.store.replace_file(job.path)
            try:
                self.meta = made
                identity = self.store.identity
                self.reader.close()
                lib.dbz_prefix_reset(self.seg, self.index, identity.file_id, identity.prefix_uuid)
                self.reader = self.make_reader()
                lib.dbz_root_install(self.seg, self.index, made.root, made.depth, made.state)
                self.data_end = made.data_end
                started = lib.dbz_prefix_start(
                    self.seg, self.index, self.store.epoch, made.state, self.data_end, self.next_oid, made.floor
                )
                assert started == 0
                self.store.truncate_log(made.redo)
                self.store.begin_log(
                    epoch=self.store.epoch,
                    state=made.state,
                    chain=made.chain,
                    data_base=made.data_end,
                    data_limit=made.data_end + self.region,
                )
            except BaseException:
                self.store.poison()
                raise
            finally:
                page.close()
        finally:
            job.close()

    def _full(self, address: int) -> Full:
        found = self.reader.get_at(address)
        return Full(found.payload, found.refs)

    def dump(self, oids: range, state: int | None = None) -> dict[int, bytes]:
        """OID -> payload of what exists."""
        out = {}
        for oid in oids:
            payload = self.get(oid, state)
            if payload is not None:
                out[oid] = payload
        return out
