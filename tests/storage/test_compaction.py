"""Compaction at the level of records: every state that is kept looks as before, the file is sound, and nothing else stays.

Power cuts and failing calls are in test_crash.py, readers and other processes in tests/session/test_history.py.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbzero.storage import records as rec
from dbzero.storage import table
from dbzero.storage.verify import check
from tests.storage.engine import Db, Segment
from tests.storage.memstore import MemoryDisk, MemoryStore

OIDS = range(16, 60)
FIXED = range(16, 22)  # never deleted: what others may hold


@pytest.fixture(scope="module")
def segment() -> Iterator[Segment]:
    s = Segment()
    yield s
    s.close()


class History:
    """A store, and its content at every state."""

    def __init__(self, segment: Segment, seed: int) -> None:
        self.disk = MemoryDisk()
        self.db = Db(MemoryStore.on(self.disk), segment)
        self.rng = random.Random(seed)
        self.states: dict[int, dict[int, bytes]] = {1: {}}
        self.gone: set[int] = set()

    def commit(self, count: int = 1) -> None:
        rng = self.rng
        for _ in range(count):
            content = dict(self.states[self.db.state])
            changes: dict[int, tuple[bytes, list[int]] | None] = {}
            for oid in rng.sample(OIDS, rng.randint(1, 6)):
                if oid in self.gone:
                    continue
                if oid in content and oid not in FIXED and rng.random() < 0.15:
                    changes[oid] = None
                    del content[oid]
                    self.gone.add(oid)
                    continue
                old = content.get(oid, b"")
                if len(old) > 200 and rng.random() < 0.8:  # a small change to a big object: DELTA records
                    at = rng.randrange(len(old))
                    payload = old[:at] + rng.randbytes(rng.randint(0, 3)) + old[at + 1 :]
                else:
                    payload = rng.randbytes(rng.choice([1, 30, 400, 5000]))
                held = [o for o in FIXED if o in content]
                changes[oid] = (payload, [rng.choice(held) for _ in range(rng.randint(0, 3))] if held else [])
                content[oid] = payload
            if changes:
                self.states[self.db.state + 1] = content
                self.db.commit(changes)

    def verify(self) -> None:
        assert check(self.db.store) == []
        for state in range(max(1, self.db.meta.floor), self.db.state + 1):
            assert self.db.dump(OIDS, state) == self.states[state], f"state {state}"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1 << 30),
    rounds=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 30), st.integers(0, 5)), min_size=1, max_size=4),
)
def test_every_kept_state_is_as_before(segment: Segment, seed: int, rounds: list[tuple[int, int, int]]) -> None:
    h = History(segment, seed)
    for commits, keep, meanwhile in rounds:
        h.commit(commits)
        floor = max(1, h.db.meta.floor, h.db.state + 1 - keep)
        h.db.compact(floor, lambda n=meanwhile: h.commit(n))  # type: ignore[misc]
        assert h.db.meta.floor == floor
        h.verify()
    h.commit(3)
    h.db.checkpoint()
    h.verify()
    h.db.close()
    h.db = Db(MemoryStore.on(h.disk), segment)
    h.verify()
    h.db.close()


def test_a_long_chain_keeps_its_shape(segment: Segment) -> None:
    """Thousands of versions of one object, brought over in one piece and in addition: skip pointers lead where they should."""
    h = History(segment, 1)
    for n in range(900):
        h.states[h.db.state + 1] = {16: n.to_bytes(4, "little") * 50}
        h.db.commit({16: (h.states[h.db.state + 1][16], [])})

    def more() -> None:
        for n in range(1000, 1150):
            h.states[h.db.state + 1] = {16: n.to_bytes(4, "little") * 50}
            h.db.commit({16: (h.states[h.db.state + 1][16], [])})

    h.db.compact(150, more)
    h.verify()
    more()
    h.db.compact(400, more)
    h.verify()
    newest = h.db.reader.get(16, h.db.state)
    assert newest is not None and newest.ordinal == h.db.state - 400
    h.db.close()


def test_what_was_deleted_before_the_floor_is_gone(segment: Segment) -> None:
    h = History(segment, 1)
    h.db.commit({oid: (b"x" * 3000, []) for oid in OIDS})
    h.states[2] = {oid: b"x" * 3000 for oid in OIDS}
    h.db.commit(dict.fromkeys(OIDS))
    h.states[3] = {}
    h.db.commit({60: (b"y", [])})
    h.states[4] = {}
    h.db.compact(3)
    h.verify()
    meta, store = h.db.meta, h.db.store
    pages = list(table.walk(store.read_page, store.identity.prefix_uuid, meta.root, meta.depth))
    oids = [entry[0] for _, page in pages if page.kind == rec.LEAF for entry in page.entries()]
    assert oids == [2, 60]
    assert meta.data_end < 40_000
    h.db.commit({61: (b"z", [60])})  # counts and numbers go on
    assert h.db.reader.refcount(60, h.db.state) == 1
    assert check(store) == []
    h.db.close()


def test_only_counts_changed(segment: Segment) -> None:
    """A change of an object's count alone writes no record: it has to be brought over all the same."""
    h = History(segment, 1)
    h.db.commit({16: (b"held", []), 17: (b"holder", [])})

    def hold() -> None:
        h.db.commit({17: (b"holder", [16, 16])})

    h.db.compact(2, hold)
    assert check(h.db.store) == []
    assert h.db.reader.refcount(16, h.db.state) == 2
    h.db.close()


def test_many_objects(segment: Segment) -> None:
    """Several levels of table pages, holes in the OIDs, orphans."""
    h = History(segment, 1)
    for start in (16, 2_000, 500_000):
        h.db.commit({oid: (b"%d" % oid, []) for oid in range(start, start + 900)})
    h.db.compact(3, lambda: h.db.commit({oid: (b"new", []) for oid in range(900_000, 900_010)}) and None)
    assert check(h.db.store) == []
    for oid in (16, 915, 2_000, 500_899, 900_009):
        assert h.db.get(oid) is not None
    for oid in (916, 1_999, 499_999, 900_010):
        assert h.db.get(oid) is None
    h.db.close()


def test_a_failed_one_leaves_everything(segment: Segment) -> None:
    h = History(segment, 3)
    h.commit(20)
    h.db.checkpoint()

    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        h.db.compact(10, fail)
    assert not [path for path in h.disk.files() if path.endswith(".compact")]
    h.commit(5)
    h.db.checkpoint()
    h.verify()
    h.db.close()
