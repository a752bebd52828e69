"""Commits, checkpoints and recovery through the real engine, on both stores."""

from __future__ import annotations

import pathlib
import random
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from dbzero import errors
from dbzero.storage import merge
from dbzero.storage import records as rec
from dbzero.storage.checkpoint import table_pages_needed
from dbzero.storage.filestore import LocalFileStore
from dbzero.storage.verify import _Check, check
from tests.storage.engine import Db, Segment
from tests.storage.memstore import MemoryDisk, MemoryStore


@pytest.fixture
def segment() -> Iterator[Segment]:
    s = Segment()
    yield s
    s.close()


@pytest.fixture(params=["file", "memory"])
def where(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Place:
    return Place(tmp_path if request.param == "file" else None)


class Place:
    """Opens stores on one directory or disk."""

    def __init__(self, root: pathlib.Path | None) -> None:
        self.root, self.disk = root, MemoryDisk()

    def open(self, *, writable: bool = True) -> LocalFileStore:
        if self.root is not None:
            return LocalFileStore.open(self.root, "p", writable=writable)
        return MemoryStore.on(self.disk, "p", writable=writable)


def sound(place: Place) -> None:
    store = place.open(writable=False)
    try:
        assert check(store) == []
    finally:
        store.close()


def graph(rng: random.Random, live: dict[int, bytes], oids: range) -> dict[int, tuple[bytes, list[int]] | None]:
    """A random change set: puts of objects that refer to nothing or to objects that are never deleted (OIDs divisible by 3)."""
    fixed = [o for o in live if o % 3 == 0]
    changes: dict[int, tuple[bytes, list[int]] | None] = {}
    for oid in rng.sample(list(oids), rng.randint(1, 6)):
        if oid in live and oid % 3 and rng.random() < 0.3:
            changes[oid] = None
        else:
            refs = rng.sample(fixed, min(len(fixed), rng.randint(0, 3)))
            changes[oid] = (rng.randbytes(rng.choice([0, 5, 40, 40, 300, 5000])), refs)
    return changes


def apply(live: dict[int, bytes], changes: dict[int, tuple[bytes, list[int]] | None]) -> None:
    for oid, change in changes.items():
        if change is None:
            del live[oid]
        else:
            live[oid] = change[0]


@pytest.mark.parametrize("seed", range(4))
def test_history(where: Place, segment: Segment, seed: int) -> None:
    """Every state reads back exactly, through checkpoints, clean reopening and recovery."""
    rng = random.Random(seed)
    oids = range(16, 16 + rng.choice([40, 2000]))
    live: dict[int, bytes] = {}
    history: dict[int, dict[int, bytes]] = {1: {}}
    db = Db(where.open(), segment)
    for step in range(60):
        changes = graph(rng, live, oids)
        apply(live, changes)
        history[db.commit(changes, in_place=rng.random() < 0.2)] = dict(live)
        what = rng.random()
        if what < 0.15:
            db.checkpoint()
        elif what < 0.25:
            db.close()
            db = Db(where.open(), segment)
        if step % 20 == 19:
            sound(where)
    assert db.state == max(history)
    for state, expected in history.items():
        if state % 5 == 0 or state == db.state:
            assert db.dump(oids, state) == expected
    db.checkpoint()
    db.close()
    sound(where)
    reader = Db(where.open(writable=False), segment)
    assert reader.found.frames == 0
    assert reader.dump(oids) == live
    reader.close()


def test_reader_replays_without_writing(where: Place, segment: Segment) -> None:
    db = Db(where.open(), segment)
    for i in range(10):
        db.commit({16 + i: (b"%d" % i, [])})
    reading = Segment()
    reader = Db(where.open(writable=False), reading)
    assert (reader.state, reader.found.frames, reader.found.merged) == (11, 10, False)
    assert reader.dump(range(16, 30)) == {16 + i: b"%d" % i for i in range(10)}
    reader.close()
    reading.close()
    db.close()


def test_grown_table(where: Place, segment: Segment) -> None:
    """Depth grows from 1 to 3 over checkpoints; OIDs in between stay absent."""
    db = Db(where.open(), segment)
    expected = {}
    for oid in (16, 405, 406, 406 * 508 - 1, 406 * 508, 406 * 508 * 3):
        expected[oid] = b"object %d" % oid
        db.commit({oid: (expected[oid], [])})
        db.checkpoint()
        assert {o: db.get(o) for o in expected} == expected
    assert db.meta.depth == 3
    assert db.get(407) is None
    db.close()
    sound(where)


def test_pages_are_reused_two_checkpoints_later(where: Place, segment: Segment) -> None:
    db = Db(where.open(), segment)
    db.commit({16 + i: (b"x", []) for i in range(4000)})
    db.checkpoint()
    sizes, metas = [], [db.meta]
    rng = random.Random(1)
    for _ in range(30):
        db.commit({rng.randrange(16, 4016): (b"y", []) for _ in range(20)})
        db.checkpoint()
        metas.append(db.meta)
        old = _Check(db.store, None)
        old.tree(metas[max(0, len(metas) - 3)])
        assert old.problems == [], "a reader two checkpoints behind finds pages overwritten"
        sizes.append(db.data_end)
    assert sizes[-1] - sizes[10] < 20 * 25 * 4096, "free pages are not reused"
    growth = [b - a for a, b in zip(sizes[-11:], sizes[-10:], strict=False)]
    assert max(growth) <= 3 * 4096, "in the steady state only records take new space"
    db.close()
    sound(where)


def test_grant_is_an_upper_bound(segment: Segment) -> None:
    """What cut() grants always suffices: checkpoints of random shapes never ask for more."""
    place = Place(None)
    db = Db(place.open(), segment)
    rng = random.Random(5)
    for _ in range(25):
        span = rng.choice([30, 406, 5000, 300_000, 500_000])
        for _ in range(rng.randint(1, 3)):
            db.commit({rng.randrange(16, 16 + span): (b"v", []) for _ in range(rng.randint(1, 150))})
        db.checkpoint()
    db.close()
    sound(place)


def test_bound_is_not_absurd() -> None:
    place = Place(None)
    meta = place.open().read_meta()
    assert table_pages_needed(meta, 0, 16) <= 6
    assert table_pages_needed(meta, 3, 100_000) <= 20
    assert table_pages_needed(meta, 100_000, 100_000) <= 300


def test_checkpoint_failing_goes_on_later(segment: Segment) -> None:
    """A disk that fills up during a checkpoint: commits go on, and the checkpoint is finished when there is space."""
    place = Place(None)
    db = Db(place.open(), segment)
    db.commit({16 + i: (b"x" * 100, []) for i in range(2000)})
    place.disk.fail(1, 28, only=frozenset({"pwritev"}))
    with pytest.raises(errors.DiskFullError):
        db.checkpoint()
    place.disk.heal()
    first_cut = db.cut
    place.disk.fail(2, 28, only=frozenset({"pwritev"}), forever=True)
    with pytest.raises(errors.DiskFullError):
        db.checkpoint()
    place.disk.heal()
    db.commit({16: (b"meanwhile", [])})
    db.checkpoint()
    assert first_cut is None
    assert db.get(16) == b"meanwhile" and db.get(17) == b"x" * 100
    db.close()
    sound(place)
    again = Db(place.open(), segment)
    assert again.get(16) == b"meanwhile" and again.get(2015) == b"x" * 100
    again.close()


def test_frozen_checkpointer_does_not_stop_a_takeover(segment: Segment) -> None:
    """Forced out while holding the checkpoint lock: the successor works from the log and never touches the
    predecessor's pages.
    """
    place = Place(None)
    old = Db(place.open(), segment)
    old.commit({16: (b"one", [])})
    with old.store.checkpoint_lock() as held:
        assert held
        other = Segment()
        new = Db(place.open(), other, force=True)
        assert not new.found.merged and new.state == 2
        assert new.data_end >= old.data_end + (1 << 20) - 4096
        new.commit({17: (b"two", [])})
        assert new.get(16) == b"one"
    with pytest.raises(errors.FencedError):
        old.commit({18: (b"void", [])})
    new.checkpoint()
    with pytest.raises(errors.FencedError):
        old.checkpoint()
    assert new.dump(range(16, 20)) == {16: b"one", 17: b"two"}
    old.close()
    new.close()
    sound(place)
    other.close()


def test_power_loss_of_data_is_replayed(segment: Segment) -> None:
    """The page file loses every unsynced byte; the log brings it back, for a reader as an overlay."""
    place = Place(None)
    db = Db(place.open(), segment)
    for i in range(20):
        db.commit({16 + i: (b"%d" % i * 50, [])})
    place.disk = place.disk.crash()
    sound(place)
    reading = Segment()
    reader = Db(place.open(writable=False), reading)
    expected = {16 + i: b"%d" % i * 50 for i in range(20)}
    assert reader.dump(range(16, 50)) == expected
    reader.close()
    reading.close()
    db = Db(place.open(), segment)
    assert db.dump(range(16, 50)) == expected
    db.close()
    sound(place)


def test_many_batches_merge_like_one(where: Place, segment: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbzero.storage.recovery.MERGE_AT", 50)
    db = Db(where.open(), segment)
    expected = {}
    for i in range(40):
        expected.update({16 + (i * 37 + k * 401) % 3000: b"%d-%d" % (i, k) for k in range(20)})
        db.commit({16 + (i * 37 + k * 401) % 3000: (b"%d-%d" % (i, k), []) for k in range(20)})
    db.close()
    db = Db(where.open(), segment)
    assert db.found.frames == 40 and db.found.merged
    assert db.dump(range(16, 3016)) == expected
    db.close()
    sound(where)


def test_verify_sees_damage(segment: Segment) -> None:
    """Every class of damage gives a problem: the checker can fail."""
    place = Place(None)
    db = Db(place.open(), segment)
    db.commit({16: (b"a" * 100, []), 17: (b"b", [16, 16])})
    db.commit({16: (b"a" * 99 + b"c", [])})
    db.checkpoint()
    db.commit({18: (b"late", [17])})
    meta = db.meta
    db.close()
    sound(place)
    path = "/root/p.db0"
    clean = place.disk.files()[path]
    for address, word in [
        (4096 + 20, "meta"),
        (12288 + 20, "checksum"),
        (rec.pointer_page(meta.root) + 50, "checksum"),
        (rec.pointer_page(meta.free_head) + 40, "checksum"),
    ]:
        place.disk.poke(path, address, bytes([clean[address] ^ 1]))
        store = place.open(writable=False)
        problems = check(store)
        store.close()
        assert problems and any(word in p for p in problems), (address, problems)
        place.disk.poke(path, address, clean[address : address + 1])
    sound(place)


@pytest.mark.parametrize("pages", [1, 2, 508, 509, 510, 511, 1017, 1018, 1019, 1020])
def test_free_list_of_any_length_reads_back(tmp_path: pathlib.Path, pages: int) -> None:
    """The story: the list's own pages come out of what it lists. With 510 pages free, 509 are too many for one list page, and the second one is left
    empty; the reader took an empty page for damage, and no checkpoint and no recovery of that store succeeded any more.
    """
    with_room = 3 * 4096
    store = LocalFileStore.open(str(tmp_path), "p")
    try:
        before = store.read_meta()
        space = merge.Space(before.checkpoint + 1)
        space.grant(with_room, pages)
        head, count = space.write_list(store)
        meta = replace(
            before,
            checkpoint=before.checkpoint + 1,
            free_head=head,
            free_count=count,
            data_end=with_room + pages * 4096,
        )
        again = merge.Space.read(store, meta)
        assert len(again.old_list) + count == pages
        assert len(again.pool) + len(again.waiting) == count
    finally:
        store.close()
