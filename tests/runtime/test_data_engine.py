"""The data engine against a plain model: random programs of commits, checkpoints and reads of every state."""

from __future__ import annotations

import os
import random
from array import array

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbzero import errors
from dbzero._engine import ffi, lib
from dbzero.runtime import codes
from dbzero.runtime.batch import Batch, Entries, body_entries, merge, read_free_page, write_free_page
from dbzero.runtime.native import persistent
from dbzero.runtime.reader import OID_LOG, REF_TOMBSTONE, Reader

PAGE = 4096
ROOT = bytes(range(16))
CALM = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


class Store:
    """A segment and a page file in memory, with commits and checkpoints as docs/design.md has them."""

    def __init__(self, *, cache: int = 1 << 20, by_descriptor: bool = True) -> None:
        self.seg_fd = os.memfd_create("segment")
        self.fd = os.memfd_create("pages")
        os.fchmod(self.seg_fd, 0o600)
        arena = 8 << 20
        os.ftruncate(self.seg_fd, lib.dbz_seg_size(cache, arena))
        assert lib.dbz_seg_format(self.seg_fd, cache, arena, ROOT, 1, 2, ROOT) == 0
        out = ffi.new("dbz_seg **")
        assert lib.dbz_seg_map(self.seg_fd, -1, ROOT, 1, 2, ROOT, out) == 0
        self.seg = out[0]
        self.prefix = lib.dbz_prefix_find(self.seg, ROOT, b"p")
        assert self.prefix >= 0
        lib.dbz_prefix_reset(self.seg, self.prefix, 5, 0x1234567890)
        self.state, self.data_end, self.checkpoints, self.root, self.depth = 1, 3 * PAGE, 0, 0, 0
        assert lib.dbz_prefix_start(self.seg, self.prefix, 1, 1, self.data_end, 16, 0) == 0
        assert lib.dbz_lease_take(self.seg, self.prefix, 1, 1) == 0
        self.freed: list[tuple[int, int]] = []
        self.supplied = 0
        self.reader = self.open(by_descriptor=by_descriptor)

    def open(self, *, by_descriptor: bool = True) -> Reader:
        if by_descriptor:
            return Reader(self.seg, self.prefix, name="p", path="p.db0", fd=self.fd)
        return Reader(self.seg, self.prefix, name="p", path="p.db0", supply=self.supply)

    def supply(self, address: int, length: int) -> bytes:
        self.supplied += 1
        return os.pread(self.fd, length, address)

    def begin(self, **options: int) -> Batch:
        return Batch(self.reader, self.state + 1, self.data_end, **options)

    def commit(self, batch: Batch, *, in_place: bool = False) -> list:
        batch.seal(self.state * 10, in_place=in_place)
        body, data, entries = batch.body, batch.data, batch.entries
        head, again = body_entries(bytes(body), self.state + 1)
        assert list(again) == list(entries)
        assert (head.data_address, head.data_length, head.in_place) == (self.data_end, len(data), in_place)
        assert in_place or bytes(body[head.data_offset :]) == bytes(data)
        assert os.pwrite(self.fd, data, self.data_end) == len(data)
        assert lib.dbz_delta_reserve(self.seg, self.prefix, entries.count) == 0
        assert lib.dbz_delta_apply(self.seg, self.prefix, entries.array, entries.count) == 0
        self.data_end += len(data)
        lib.dbz_advance(self.seg, self.prefix, self.data_end, 16)
        assert lib.dbz_publish(self.seg, self.prefix, 1, self.state, self.state + 1) == 0
        self.state += 1
        written = list(entries)
        batch.close()
        return written

    def allocate(self, n: int) -> list[int]:
        free = [page for page, at in self.freed if at + 2 <= self.checkpoints][:n]
        self.freed = [(page, at) for page, at in self.freed if page not in free]
        while len(free) < n:
            self.data_end += -self.data_end % PAGE
            free.append(self.data_end)
            self.data_end += PAGE
        return free

    def checkpoint(self) -> None:
        n = lib.dbz_delta_count(self.seg, self.prefix, 0)
        assert lib.dbz_delta_rotate(self.seg, self.prefix, self.state, n) == 0
        entries = ffi.new("dbz_entry[]", max(n, 1))
        assert lib.dbz_delta_copy(self.seg, self.prefix, 1, entries, n) == n
        self.checkpoints += 1
        merged = merge(self.reader, self.root, self.depth, self.checkpoints, Entries(entries, n), self.allocate)
        for address, page in merged.pages:
            assert os.pwrite(self.fd, page, address) == PAGE
        lib.dbz_advance(self.seg, self.prefix, self.data_end, 16)
        self.freed += [(page, self.checkpoints) for page in merged.freed]
        self.root, self.depth = merged.root, merged.depth
        lib.dbz_root_install(self.seg, self.prefix, self.root, self.depth, self.state)
        lib.dbz_delta_retire(self.seg, self.prefix)

    def close(self) -> None:
        self.reader.close()
        lib.dbz_seg_unmap(self.seg)
        os.close(self.seg_fd)
        os.close(self.fd)


@pytest.fixture
def store():
    s = Store()
    yield s
    s.close()


class Model:
    """Every version of every object, and current counts recomputed from scratch from the references."""

    def __init__(self) -> None:
        self.history: list[dict[int, tuple[bytes, tuple[int, ...]]]] = [{}, {}]
        self.changed: list[list[int]] = [[], []]

    @property
    def now(self) -> dict[int, tuple[bytes, tuple[int, ...]]]:
        return self.history[-1]

    def counts(self, objects: dict[int, tuple[bytes, tuple[int, ...]]]) -> dict[int, int]:
        counts = dict.fromkeys(objects, 0)
        for _, refs in objects.values():
            for r in refs:
                if r in counts:
                    counts[r] += 1
        return counts


def run(seed: int, commits: int, *, by_descriptor: bool, cache: int) -> None:
    rng = random.Random(seed)
    s = Store(cache=cache, by_descriptor=by_descriptor)
    try:
        model, fresh = Model(), 16
        for _ in range(commits):
            batch = s.begin(fresh=fresh if rng.random() < 0.5 else 0)
            before, objects = model.now, dict(model.now)
            first, touched = fresh, set()
            for _ in range(rng.randrange(12)):
                if objects and rng.random() < 0.6:
                    oid = rng.choice(list(objects))
                else:
                    oid = fresh
                    fresh += rng.choice([1, 1, 1, 5, 500, 300_000])
                if rng.random() < 0.15 and oid in objects:
                    assert batch.delete(oid)
                    assert not batch.delete(oid)
                    del objects[oid]
                    touched.add(oid)
                    continue
                if oid in objects and rng.random() < 0.7:
                    old = objects[oid][0]
                    at = rng.randrange(len(old) + 1)
                    payload = old[:at] + rng.randbytes(rng.randrange(5)) + old[at + rng.randrange(4) :]
                else:
                    payload = rng.randbytes(rng.choice([0, 3, 40, 400, 5000, 70_000 if rng.random() < 0.1 else 9]))
                held = tuple(rng.choices(list(objects), k=rng.randrange(4))) if objects else ()
                batch.put(oid, payload, held)
                objects[oid] = (payload, held)
                touched.add(oid)
            dead = set()
            while zero := batch.zero():
                counts = model.counts(objects)
                for oid in zero:
                    assert objects[oid] is not None and counts[oid] == 0
                for oid in zero:
                    if rng.random() < 0.6:
                        assert batch.delete(oid)
                        del objects[oid]
                        dead.add(oid)
            counts = model.counts(objects)
            assert all(batch.refcount(oid) == counts[oid] for oid in objects)
            assert all(batch.refcount(oid) is None for oid in dead)
            written = [o for o in sorted(touched | dead) if o in objects or o in before]
            assert batch.records == len(written)
            s.commit(batch, in_place=rng.random() < 0.3)
            model.history.append(objects)
            model.changed.append(written)
            assert first <= fresh
            if rng.random() < 0.3:
                s.checkpoint()
            if rng.random() < 0.1:
                s.reader.close()
                s.reader = s.open(by_descriptor=by_descriptor)
        for last in range(2):
            counts = model.counts(model.now)
            everything = sorted({oid for objects in model.history for oid in objects})
            for state in range(1, s.state + 1):
                objects = model.history[state]
                for oid in everything:
                    got = s.reader.get(oid, state)
                    if oid in objects:
                        assert got is not None and not got.deleted
                        assert (got.payload, got.refs) == objects[oid]
                        assert s.reader.read(oid, state)[0] == got.payload
                        assert s.reader.get_at(got.address)[8:] == got[8:]
                        assert s.reader.entry(oid, state).address == got.address
                    else:
                        assert got is None or got.deleted
                        assert s.reader.read(oid, state) is None
                changes = s.reader.changes(state)
                assert changes == (None if state == 1 else (model.changed[state], (state - 1) * 10))
            for after in {1, s.state // 2 + 1, s.state}:
                listed = [oid for state in range(after + 1, s.state + 1) for oid in model.changed[state]]
                assert s.reader.changes_since(after, s.state) == set(listed)
            if s.state > 1:
                assert s.reader.changes_since(0, s.state) is None, "state 1 has no commit"
            assert all(s.reader.refcount(oid, s.state) == counts.get(oid, 0) for oid in everything)
            if last:
                table = [e for e in s.reader.scan(s.root, s.depth) if e.oid != OID_LOG]
                assert [e.oid for e in table] == everything
                assert all(e.refcount == counts.get(e.oid, REF_TOMBSTONE) for e in table)
                orphans = [e.oid for e in s.reader.scan(s.root, s.depth, orphans=True)]
                assert orphans == [oid for oid in everything if counts.get(oid) == 0]
                some = everything[len(everything) // 2] if everything else 16
                from_there = [e.oid for e in s.reader.scan(s.root, s.depth, start=some)]
                assert from_there == [oid for oid in everything if oid >= some]
            s.checkpoint()
        if not by_descriptor:
            assert s.supplied
    finally:
        s.close()


@CALM
@given(st.integers(0, 1 << 32), st.integers(1, 25), st.booleans(), st.sampled_from([64 << 10, 4 << 20]))
def test_random_programs(seed: int, commits: int, by_descriptor: bool, cache: int) -> None:
    run(seed, commits, by_descriptor=by_descriptor, cache=cache)


def test_a_small_change_to_a_big_payload_is_small_on_disk(store: Store) -> None:
    batch = store.begin()
    payload = bytearray(os.urandom(4000))
    batch.put(16, bytes(payload))
    store.commit(batch)
    sizes = []
    for i in range(30):
        payload[i * 7] ^= 1
        batch = store.begin()
        batch.put(16, bytes(payload))
        before = store.data_end
        store.commit(batch)
        sizes.append(store.data_end - before)
    assert sum(size > 4000 for size in sizes) == 3, "every ninth version stands whole"
    assert sum(size < 128 for size in sizes) == 27
    assert store.reader.read(16, store.state) == (bytes(payload), 0)


def test_old_states_cost_a_logarithm(store: Store) -> None:
    for i in range(2000):
        batch = store.begin()
        batch.put(16, b"%d" % i)
        store.commit(batch)
    store.checkpoint()
    reader = store.open(by_descriptor=False)
    assert reader.read(16, 2)[0] == b"0"
    version, steps = store.reader.get(16, store.state), 0
    while version.ordinal:
        version, steps = store.reader.get_at(version.skip or version.prev), steps + 1
    assert steps <= 2 * 11
    reader.close()


def test_put_many_equals_put(store: Store) -> None:
    items = [(16 + i, b"x" * (i % 50), tuple(range(16, 16 + i % 3))) for i in range(3000)]
    batch = store.begin(fresh=16)
    batch.put_many(items)
    batch.put_many([])
    store.commit(batch)
    for oid, payload, refs in items:
        got = store.reader.get(oid, store.state)
        assert (got.payload, got.refs) == (payload, refs)


def test_put_many_supplies_pages_and_goes_on() -> None:
    s = Store(cache=64 << 10, by_descriptor=False)
    for n in range(3):
        batch = s.begin()
        batch.put_many([(16 + i, b"%d" % (i * n) * 20, (16 + i,)) for i in range(2000)])
        s.commit(batch)
        s.checkpoint()
    assert s.supplied
    assert all(s.reader.read(16 + i, s.state) == (b"%d" % (i * 2) * 20, 1) for i in range(2000))
    s.close()


def test_references_to_nothing_are_refused_and_the_batch_goes_on(store: Store) -> None:
    batch = store.begin()
    batch.put(16, b"", (999,))
    with pytest.raises(errors.CorruptError, match="object 999"):
        batch.seal(1)
    batch.put(999, b"")
    store.commit(batch)
    assert store.reader.refcount(999, store.state) == 1


@pytest.mark.parametrize("cache", [64 << 10, 64 << 20])
def test_a_big_payload_is_supplied_at_once(cache: int) -> None:
    s = Store(cache=cache)
    payload = os.urandom(10_000_000)
    batch = s.begin()
    batch.put(16, payload)
    s.commit(batch)
    reader = s.open(by_descriptor=False)
    assert reader.read(16, 2) == (payload, 0)
    assert s.supplied < 5
    os.ftruncate(s.fd, 9_000_000)
    reader = s.open(by_descriptor=False)
    s.supplied = 0
    lib.dbz_prefix_reset(s.seg, s.prefix, 5, 6)
    assert lib.dbz_prefix_start(s.seg, s.prefix, 1, s.state, s.data_end, 16, 0) == 0
    with pytest.raises(errors.CorruptError, match="address leads outside the file"):
        s.open(by_descriptor=False).bytes_at(4 * PAGE, 9_500_000)
    assert s.supplied < 15
    s.close()


def test_damage_is_named(store: Store) -> None:
    batch = store.begin()
    batch.put(16, b"precious" * 10)
    store.commit(batch)
    address = store.reader.get(16, store.state).address
    byte = os.pread(store.fd, 1, address + 30)
    os.pwrite(store.fd, bytes([byte[0] ^ 4]), address + 30)
    uncached = Store.open(store)
    lib.dbz_prefix_reset(store.seg, store.prefix, 5, 0x1234567890)  # drops the cache
    with pytest.raises(errors.StaleViewError):
        uncached.read(16, store.state)
    with pytest.raises(errors.CorruptError, match=rf"prefix 'p' \(p.db0\).*record.*address {address}"):
        assert lib.dbz_prefix_start(store.seg, store.prefix, 1, store.state, store.data_end, 16, 0) == 0
        store.open().get_at(address)


def test_a_closed_reader_says_so(store: Store) -> None:
    reader = store.open()
    reader.close()
    with pytest.raises(errors.ClosedError):
        reader.get(16, 1)
    with pytest.raises(errors.ClosedError):
        reader.read(16, 1)


def fill(store: Store, objects: int) -> None:
    batch = store.begin()
    batch.put_many((16 + n, b"%d" % n * 20, ()) for n in range(objects))
    store.commit(batch)


def test_reads_that_hold_the_gil_leave_the_file_alone(store: Store) -> None:
    fill(store, 500)
    store.checkpoint()
    reader = store.open()
    quick = reader.quick()
    first = persistent.read(quick, 16, store.state)
    assert first == codes.MISS  # its table page is in no frame
    assert reader.read(16, store.state) == (b"0" * 20, 0)  # nor was its data page
    assert persistent.read(quick, 16, store.state) == (b"0" * 20, 0)
    batch = store.begin()
    batch.put(17, b"last")
    store.commit(batch)
    assert persistent.read(quick, 17, store.state) == (b"last", 0)  # on the last page, which no frame can hold
    assert persistent.read(quick, 17, store.state - 1) == (b"1" * 20, 0)
    assert persistent.read(quick, 9999, store.state) is None
    with pytest.raises(TypeError):
        persistent.read(quick, 17)
    with pytest.raises(OverflowError):
        persistent.read(quick, -1, 1)
    reader.close()
    assert persistent.read(quick, 17, store.state) == codes.MISS  # its descriptor may be another file's by now
    assert persistent.changes_since(quick, 1, 2) == codes.MISS
    with pytest.raises(errors.ClosedError):
        reader.quick()


@pytest.mark.parametrize("by_descriptor", [True, False])
def test_changes_are_listed_the_same_with_and_without_the_gil(store: Store, by_descriptor: bool) -> None:
    wanted: list[set[int]] = []
    for n in range(150):
        batch = store.begin()
        oids = {16 + n % 7, 100 + n, *(range(300) if n == 70 else ())} - set(range(16))
        batch.put_many((oid, b"%d" % n, ()) for oid in sorted(oids))
        store.commit(batch)
        wanted.append(oids)
    reader = store.open(by_descriptor=by_descriptor)
    for after, upto in ((1, 2), (1, 60), (60, 90), (1, 151), (149, 151), (151, 151)):
        assert reader.changes_since(after, upto) == set().union(*wanted[after - 1 : upto - 1])
    assert reader.changes_since(140, 152) is None
    reader.close()
    with pytest.raises(errors.ClosedError):
        reader.changes_since(1, 2)


def test_what_is_cached_takes_the_memory_that_it_needs() -> None:
    s = Store(cache=256 << 20)
    fill(s, 40_000)  # 8 MB of records
    s.checkpoint()
    info = ffi.new("dbz_seg_info *")
    lib.dbz_seg_status(s.seg, info)
    before = info.reserved
    reader = s.open()
    for oid in random.Random(1).sample(range(16, 40_016), 20_000):
        assert reader.read(oid, s.state) is not None
    lib.dbz_seg_status(s.seg, info)
    used = s.data_end
    assert used > 4 << 20
    assert info.reserved - before < 2 * used + (4 << 20)
    assert info.misses < used // PAGE * 2
    s.close()


def test_a_batch_outlives_its_readers_close(store: Store) -> None:
    reader = store.open()
    batch = Batch(reader, store.state + 1, store.data_end)
    reader.close()
    del reader
    batch.put(16, b"x")
    batch.seal(1)
    assert batch.entries.count == 2


def test_malformed_bodies_are_refused(store: Store) -> None:
    batch = store.begin()
    batch.put(16, b"abc")
    batch.seal(1)
    body = bytes(batch.body)
    assert body_entries(body, 2)[1].count == 2
    for cut in range(len(body)):
        with pytest.raises(errors.CorruptError):
            body_entries(body[:cut], 2)


@CALM
@given(st.lists(st.integers(0, 2**63), max_size=508), st.integers(0, 2**62), st.integers(0, 8 * 4096 - 1))
def test_free_list_pages(items: list[int], following: int, flip: int) -> None:
    page = write_free_page(40 * PAGE, 7, items, following, 99)
    assert read_free_page(page, 40 * PAGE, 7, 99) == (items, following)
    bad = bytearray(page)
    bad[flip // 8] ^= 1 << flip % 8
    for wrong in (bytes(bad), page[:-1]):
        with pytest.raises(errors.CorruptError):
            read_free_page(wrong, 40 * PAGE, 7, 99)
    with pytest.raises(errors.CorruptError):
        read_free_page(page, 41 * PAGE, 7, 99)
    with pytest.raises(errors.CorruptError):
        read_free_page(page, 40 * PAGE, 8, 99)
    with pytest.raises(ValueError):
        write_free_page(40 * PAGE, 7, list(array("Q", range(509))), 0, 99)
