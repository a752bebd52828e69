"""Copies: of a store at rest and of one that is written to, interrupted at every write, of damaged files."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from dbzero import errors
from dbzero.storage import copying
from dbzero.storage.filestore import LocalFileStore
from dbzero.storage.verify import check
from tests.storage.engine import Db, Segment
from tests.storage.memstore import MemoryDisk, PowerCut
from tests.storage.test_crash import OIDS, WRITES, World, images, run

OUTPUT = "/copies/deep/memory.db0"


@pytest.fixture(scope="module")
def segments() -> Iterator[tuple[Segment, Segment]]:
    pair = Segment(), Segment()
    yield pair
    for s in pair:
        s.close()


def copy(disk: MemoryDisk, **options: object) -> copying.Copied:
    return copying.copy("/root", "memory", OUTPUT, system=disk, **options)  # type: ignore[arg-type]


def examine(disk: MemoryDisk, world: World, segment: Segment, where: str = "") -> int:
    """Hold a copy against the model, state by state, and write to it; returns its newest state."""
    store = LocalFileStore.open("/copies/deep", "memory", system=disk)
    assert check(store) == [], where
    db = Db(store, segment, region=1 << 18)
    state, floor = db.state, db.meta.floor
    for at in range(max(floor, 1), state + 1):
        assert db.dump(OIDS, at) == world.history[at], f"{where}: state {at}"
    db.commit({16: (b"in the copy", [])})
    db.checkpoint()
    assert db.get(16) == b"in the copy"
    assert check(store) == [], where
    db.close()
    return state


PROGRAM = ["commit", "commit", "in place", "checkpoint", "commit", "checkpoint", "follow", "commit"]


@pytest.mark.parametrize("last", ["commit", "checkpoint", "in place", "reopen", "compact 2"])
def test_a_copy_has_every_state(segments: tuple[Segment, Segment], last: str) -> None:
    world = World(MemoryDisk(), segments[0])
    run(world, [*PROGRAM, last], 3)
    copied = copy(world.disk)
    assert copied.state == world.acknowledged
    source = world.open().store.identity
    assert examine(world.disk, world, segments[1]) == world.acknowledged
    made = LocalFileStore.open("/copies/deep", "memory", system=world.disk, writable=False)
    assert made.identity.prefix_uuid == source.prefix_uuid
    assert made.identity.file_id != source.file_id
    made.close()
    assert not [path for path in world.disk.files() if path.endswith(".partial")]
    with pytest.raises(FileExistsError):
        copy(world.disk)
    world.close()


def test_of_an_empty_store_and_of_none(segments: tuple[Segment, Segment]) -> None:
    world = World(MemoryDisk(), segments[0])
    with pytest.raises(errors.PrefixError, match="does not exist"):
        copy(world.disk)
    world.open()
    assert copy(world.disk).state == 1
    assert examine(world.disk, world, segments[1]) == 1
    world.close()


def test_what_a_dead_writer_left_counts(segments: tuple[Segment, Segment]) -> None:
    """Frames of a killed writer are part of the history, acknowledged or not: so would recovery have it."""
    world = World(MemoryDisk(), segments[0])
    run(world, PROGRAM, 5)
    assert world.db is not None
    world.commit(world.db, random.Random(1), sync=False)
    state = world.db.state
    disk = world.disk.kill()
    assert copy(disk).state == state
    assert examine(disk, world, segments[1]) == state


def test_what_a_live_writer_has_not_made_durable_does_not(segments: tuple[Segment, Segment]) -> None:
    world = World(MemoryDisk(), segments[0])
    run(world, PROGRAM, 5)
    assert world.db is not None
    world.commit(world.db, random.Random(1), sync=False)
    assert copy(world.disk).state == world.acknowledged == world.db.state - 1
    assert examine(world.disk, world, segments[1]) == world.acknowledged
    world.close()


@pytest.mark.parametrize("seed", range(12))
def test_beside_a_writer(segments: tuple[Segment, Segment], seed: int) -> None:
    """Commits, checkpoints, reopening and compaction between any two steps: table pages are freed and used anew."""
    world, rng = World(MemoryDisk(), segments[0]), random.Random(seed)
    run(world, PROGRAM, seed)
    begun = world.acknowledged

    def write(done: int, total: int) -> None:
        if world.acknowledged > begun + 60:
            return
        for _ in range(rng.randrange(4)):
            world.step(rng.choice(["commit", "commit", "checkpoint", "checkpoint", "in place", "reopen"]), rng)

    real = copying._Copy.pages

    def pages(self: copying._Copy, meta: object) -> None:
        write(0, 0)
        real(self, meta)  # type: ignore[arg-type]
        write(0, 0)

    copying._Copy.pages = pages  # type: ignore[assignment, method-assign]
    try:
        state = copy(world.disk, step=4096, progress=write).state
    finally:
        copying._Copy.pages = real  # type: ignore[method-assign]
    assert begun <= state <= world.acknowledged
    assert examine(world.disk, world, segments[1]) == state
    world.close()


@pytest.mark.parametrize("half", [False, True])
def test_a_power_cut_at_every_write(segments: tuple[Segment, Segment], half: bool) -> None:
    """Either there is a whole copy afterwards, or the next call makes one."""
    call, finished = 1, False
    while not finished:
        world = World(MemoryDisk(), segments[0])
        run(world, PROGRAM, 7)
        world.disk.fail(call, None, only=WRITES, half=half)
        try:
            copy(world.disk, step=8192)
            finished = True
        except PowerCut:
            pass
        for name, image in images(world.disk, call, 2):
            if OUTPUT not in image.files():
                copy(image, step=8192)
            assert examine(image, world, segments[1], f"cut at write {call}, image {name}") == world.acknowledged
        call += 1
    assert call > 8


@pytest.mark.parametrize("code", [28, 5])
def test_every_call_fails(segments: tuple[Segment, Segment], code: int) -> None:
    call, finished = 1, False
    while not finished:
        world = World(MemoryDisk(), segments[0])
        run(world, PROGRAM, 9)
        world.disk.fail(call, code, half=bool(call % 2))
        before = world.disk.calls
        try:
            copy(world.disk, step=8192)
        except errors.Error as exc:
            assert "memory" in str(exc)
        finished = world.disk.calls - before < call
        world.disk.heal()
        if OUTPUT not in world.disk.files():
            copy(world.disk, step=8192)
        assert examine(world.disk, world, segments[1], f"call {call} failed") == world.acknowledged
        world.close()
        call += 1
    assert call > 20


def test_an_interrupted_copy_is_gone_on_with(
    segments: tuple[Segment, Segment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_JOURNAL_STEP", 8192)
    world = World(MemoryDisk(), segments[0])
    run(world, [*PROGRAM, *PROGRAM, "checkpoint"], 11)

    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise Stop

    with pytest.raises(Stop):
        copy(world.disk, step=4096, progress=stop)
    assert OUTPUT not in world.disk.files()
    run(world, ["commit", "checkpoint", "commit", "checkpoint", "checkpoint", "checkpoint", "commit"], 12)
    first: list[int] = []
    copy(world.disk, step=4096, progress=lambda done, total: first.append(done))
    assert first[0] > 8192 * 2
    assert examine(world.disk, world, segments[1]) == world.acknowledged
    world.close()


def test_one_of_another_file_is_not(segments: tuple[Segment, Segment], monkeypatch: pytest.MonkeyPatch) -> None:
    """The prefix was compacted meanwhile: nothing that was copied stands where it did."""
    monkeypatch.setattr(copying, "_JOURNAL_STEP", 8192)
    world = World(MemoryDisk(), segments[0])
    run(world, [*PROGRAM, *PROGRAM, "checkpoint"], 11)

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(world.disk, step=4096, progress=stop)
    run(world, ["compact 3", "commit"], 12)
    copy(world.disk)
    assert examine(world.disk, world, segments[1]) == world.acknowledged
    world.close()


def test_damage_is_not_copied_in_silence(segments: tuple[Segment, Segment]) -> None:
    world = World(MemoryDisk(), segments[0])
    run(world, [*PROGRAM, "checkpoint"], 13)
    content = world.disk.files()["/root/memory.db0"]
    used = [at for at in range(3 * 4096, len(content)) if content[at]]
    found = 0
    rng = random.Random(4)
    for _ in range(40):
        disk = world.disk.crash(lambda n: n - 1)
        at = rng.choice(used)
        disk.poke("/root/memory.db0", at, bytes([content[at] ^ 0x10]))
        try:
            copy(disk)
        except errors.CorruptError:
            found += 1
            assert not [path for path in disk.files() if path.startswith(OUTPUT)]
        else:  # in a page that nothing uses
            assert examine(disk, world, segments[1], f"byte {at}") == world.acknowledged
    assert found > 20
    world.close()
