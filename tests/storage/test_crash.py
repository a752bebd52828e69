"""Power cuts and kills at every call: recovery gives exactly a prefix of the commit sequence with every acknowledged
commit.

The real engine and the real file store run on the simulated disk. At a chosen call the power goes; what the disk may
hold then is any choice of unsynced writes, torn at sector boundaries. Each such image is recovered, verified,
compared with the model, written to again, and recovered once more.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbzero import errors
from dbzero.storage.verify import check
from tests.storage.engine import Db, Segment
from tests.storage.memstore import MemoryDisk, MemoryStore, PowerCut

OIDS = range(16, 40)
WRITES = frozenset(
    {"pwritev", "fdatasync", "fsync", "ftruncate", "fallocate", "open", "unlink", "link", "sync_dir", "rename", "mkdir"}
)
REGION = 1 << 18

Changes = dict[int, tuple[bytes, list[int]] | None]


class World:
    """A program running against a disk, and what it may leave behind."""

    def __init__(self, disk: MemoryDisk, segment: Segment) -> None:
        self.disk, self.segment = disk, segment
        self.db: Db | None = None
        self.history: dict[int, dict[int, bytes]] = {
            1: {}
        }  # state -> content, also of commits whose outcome is unknown
        self.acknowledged = 1

    def open(self) -> Db:
        if self.db is None:
            store = MemoryStore.on(self.disk)
            try:
                self.db = Db(store, self.segment, region=REGION)
            except BaseException:
                store.close()
                raise
        return self.db

    def close(self) -> None:
        db, self.db = self.db, None
        if db is not None:
            db.close()

    def step(self, what: str, rng: random.Random) -> None:
        db = self.open()
        if what == "reopen":
            self.close()
            self.open()
        elif what == "checkpoint":
            db.checkpoint()
        elif what.startswith("compact"):
            keep = int(what.split()[1])
            db.compact(max(1, db.state + 1 - keep), lambda: self.commit(db, rng))
        elif what == "follow":  # commits that share one sync
            for _ in range(3):
                self.commit(db, rng, sync=False)
            db.sync()
            self.acknowledged = db.state
        else:
            self.commit(db, rng, in_place=what == "in place")

    def commit(self, db: Db, rng: random.Random, *, in_place: bool = False, sync: bool = True) -> None:
        content = dict(self.history[db.state])
        changes: Changes = {}
        for oid in rng.sample(list(OIDS), rng.randint(1, 4)):
            if oid in content and oid % 3 and rng.random() < 0.3:
                changes[oid] = None
                del content[oid]
            else:
                fixed = [o for o in content if o % 3 == 0]
                payload = rng.randbytes(rng.choice([3, 60, 700]))
                changes[oid] = (payload, rng.sample(fixed, min(len(fixed), 2)))
                content[oid] = payload
        self.history[db.state + 1] = content
        state = db.commit(changes, in_place=in_place, sync=sync)
        if sync:
            self.acknowledged = state


def run(world: World, program: list[str], seed: int) -> None:
    for position, what in enumerate(program):
        world.step(what, random.Random(seed * 1000 + position))


def verify(disk: MemoryDisk, world: World, segment: Segment, where: str) -> int:
    """Recover an image and hold it against the model; returns the state."""
    store = MemoryStore.on(disk)
    assert check(store) == [], where
    db = Db(store, segment, region=REGION)
    state = db.state
    assert world.acknowledged <= state, f"{where}: acknowledged state {world.acknowledged} is lost, recovered {state}"
    assert state in world.history, f"{where}: state {state} was never attempted"
    assert db.dump(OIDS) == world.history[state], where
    middle = max((1 + state) // 2, db.meta.floor)
    assert db.dump(OIDS, middle) == world.history[middle], where
    payload = b"after the crash"
    db.commit({16: (payload, [])})
    if state % 2:
        db.checkpoint()
    disk = disk.kill() if state % 3 else disk.crash()
    db.close()
    store = MemoryStore.on(disk)
    db = Db(store, segment, region=REGION)
    assert db.state == state + 1 and db.get(16) == payload, where
    assert db.dump(OIDS) == {**world.history[state], 16: payload}, where
    assert check(store) == [], where
    db.close()
    return state


def images(disk: MemoryDisk, seed: int, count: int) -> Iterator[tuple[str, MemoryDisk]]:
    """What a crash now may leave: nothing unsynced, everything, and random choices."""
    yield "oldest", disk.crash()
    yield "newest", disk.crash(lambda n: n - 1)
    for k in range(count):
        yield f"random {seed + k}", disk.crash(random.Random(seed + k))
    rng = random.Random(seed)
    yield "mostly new", disk.crash(lambda n: n - 1 if rng.random() < 0.8 else rng.randrange(n))


@pytest.fixture(scope="module")
def segments() -> Iterator[tuple[Segment, Segment]]:
    pair = Segment(), Segment()
    yield pair
    for s in pair:
        s.close()


def crash_at(
    call: int, program: list[str], seed: int, segments: tuple[Segment, Segment], half: bool, count: int
) -> bool:
    """Run `program` with the power cut at the `call`-th write; False when it ended before."""
    world = World(MemoryDisk(), segments[0])
    world.disk.fail(call, None, only=WRITES, half=half)
    try:
        run(world, program, seed)
        ended = True
    except PowerCut:
        ended = False
    for name, image in images(world.disk, call * 31 + seed, count):
        verify(image, world, segments[1], f"crash at write {call} ({world.disk.kinds[-1]}, half {half}), image {name}")
    return not ended


PROGRAM = [
    "commit",
    "commit",
    "in place",
    "checkpoint",
    "follow",
    "commit",
    "reopen",
    "commit",
    "checkpoint",
    "commit",
    "in place",
    "checkpoint",
    "commit",
]


FAILING = ["commit", "in place", "checkpoint", "commit", "reopen", "follow", "checkpoint", "commit"]
COMPACTING = ["commit", "in place", "commit", "commit", "compact 2", "commit", "reopen", "compact 1", "commit"]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("program", [PROGRAM, COMPACTING], ids=["plain", "compacting"])
def test_crash_at_every_write(segments: tuple[Segment, Segment], program: list[str], half: bool) -> None:
    call = 1
    while crash_at(call, program, 1, segments, half, 1):
        call += 1
    assert call > 80


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    program=st.lists(
        st.sampled_from(["commit", "commit", "commit", "in place", "follow", "checkpoint", "reopen"]),
        min_size=1,
        max_size=12,
    ),
    seed=st.integers(0, 1000),
    call=st.integers(1, 200),
    half=st.booleans(),
)
def test_random_programs(
    segments: tuple[Segment, Segment], program: list[str], seed: int, call: int, half: bool
) -> None:
    crash_at(call, program, seed, segments, half, 2)


@pytest.mark.parametrize("killed", [False, True])
def test_crash_during_recovery(segments: tuple[Segment, Segment], killed: bool) -> None:
    """The power goes again while the log is being replayed, at every write of it.

    Killed: the first crash left frames in the kernel's cache that were never synced; what continues from them must
    make them durable first.
    """
    call = 1
    while True:
        world = World(MemoryDisk(), segments[0])
        run(world, ["commit", "follow", "checkpoint", "commit", "in place", "commit"], 2)
        assert world.db is not None
        for k in range(2):
            world.commit(world.db, random.Random(k), sync=False)
        world.disk = world.disk.kill() if killed else world.disk.crash(random.Random(call))
        world.db = None
        world.disk.fail(call, None, only=WRITES, half=bool(call % 2))
        try:
            db = world.open()
            assert not killed or db.state == world.acknowledged + 2
            world.history[db.state + 1] = {**world.history[db.state], 17: b"later"}
            db.commit({17: (b"later", [])})
            break
        except PowerCut:
            pass
        for name, image in images(world.disk, call, 6):
            verify(image, world, segments[1], f"second crash at write {call}, image {name}")
        call += 1
    assert call > 10


def test_rotation_makes_what_it_continues_from_durable(segments: tuple[Segment, Segment]) -> None:
    for seed in range(30):
        world = World(MemoryDisk(), segments[0])
        db = world.open()
        world.commit(db, random.Random(seed), sync=False)
        world.commit(db, random.Random(seed), sync=False)
        _, state, chain = db.store.position
        base = (db.data_end + 4095) & ~4095
        db.store.begin_log(epoch=db.store.epoch, state=state, chain=chain, data_base=base, data_limit=base + REGION)
        for name, image in images(world.disk, seed, 1):
            assert verify(image, world, segments[1], f"image {name}") == 3


def test_what_was_taken_back_stays_away(segments: tuple[Segment, Segment]) -> None:
    """A commit that was reported as failed does not come back after a power cut."""
    for seed in range(30):
        world = World(MemoryDisk(), segments[0])
        world.step("commit", random.Random(seed))
        db = world.open()
        world.commit(db, random.Random(seed + 1), sync=False)
        db.store.rewind()
        for name, image in images(world.disk, seed, 2):
            assert verify(image, world, segments[1], f"image {name}") == 2


@pytest.mark.parametrize("forever", [False, True])
@pytest.mark.parametrize("code", [28, 5])
@pytest.mark.parametrize("program", [FAILING, ["commit", "commit", "compact 1", "commit"]], ids=["plain", "compacting"])
def test_every_call_fails(segments: tuple[Segment, Segment], program: list[str], code: int, forever: bool) -> None:
    """The i-th system call fails, once or from then on: a typed error, nothing acknowledged lost, and work goes on afterwards."""
    call, finished = 1, False
    while not finished:
        world = World(MemoryDisk(), segments[0])
        world.disk.fail(call, code, forever=forever, half=bool(call % 2))
        where = f"call {call} fails"
        failures = 0
        for position, what in enumerate(program):
            for attempt in range(3):
                try:
                    world.step(what, random.Random(position))
                    break
                except errors.Error as exc:
                    failures += 1
                    assert "memory" in str(exc) or "/root" in str(exc), f"{where}: {exc} names neither prefix nor file"
                    lost = isinstance(exc, (errors.PoisonedError, errors.FencedError))
                    db = world.db
                    if db is not None and not lost and not db.store.poisoned:
                        if what != "follow":
                            assert db.state == world.acknowledged, where
                        world.disk.heal()
                        assert db.dump(OIDS) == world.history[db.state], (
                            f"{where}: the last commit is not readable after {exc}"
                        )
                    if attempt == 0 and forever and not lost:
                        world.disk.fail(1, code, forever=True)  # still failing
                        continue
                    world.disk.heal()
                    if lost or db is None or db.store.poisoned:
                        world.db = None
                        if db is not None:
                            db.close()
                        reopened = world.open()
                        assert world.acknowledged <= reopened.state
                        world.acknowledged = reopened.state
            else:
                raise AssertionError(f"{where}: {what} does not work after the fault is gone")
        finished = world.disk.calls < call
        assert failures == 0 or not finished
        world.disk.heal()
        world.close()
        verify(world.disk.crash(), world, segments[1], where)
        call += 1
    assert call > 100


def test_failed_sync_poisons_and_loses_nothing_acknowledged(segments: tuple[Segment, Segment]) -> None:
    """After a failed sync the kernel forgets the dirty data: reopening must write it again, whatever a later sync says."""
    for skipped in range(1, 12):
        world = World(MemoryDisk(), segments[0])
        for _ in range(3):
            world.step("commit", random.Random(skipped))
        world.disk.fail(1, 5, only=frozenset({"fdatasync"}))
        with pytest.raises(errors.PoisonedError):
            world.step("commit", random.Random(9))
        db = world.db
        assert db is not None
        store = db.store
        for call in (
            partial(store.append, kind=1, epoch=1, state=9, durable=1, next_oid=1, body=b""),
            store.sync_log,
            store.sync_data,
            db.checkpoint,
            partial(store.reserve, log_bytes=1, data_end=1),
        ):
            with pytest.raises(errors.PoisonedError):
                call()
        world.close()
        reopened = world.open()
        world.acknowledged = reopened.state  # what was recovered must stay: it was shown
        for name, image in images(world.disk, skipped, 3):
            verify(image, world, segments[1], f"image {name}")
        world.close()
