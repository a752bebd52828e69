"""Transactions across prefixes on the simulated disk: power cuts and failing calls at every write, opened from each side.

The real prefixes run on a private segment. After every crash all of them are opened, in every order, by readers and by
writers: each transaction is in all of them or in none, and an acknowledged one is in all.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dbzero import errors
from dbzero.runtime.segment import Segment
from dbzero.storage import decisions, names, together
from dbzero.storage import prefix as prefix_module
from dbzero.storage.committing import DeltaRoomMade
from dbzero.storage.filestore import LocalFileStore
from dbzero.storage.prefix import Prefix
from dbzero.storage.vector import Window, lowered
from dbzero.storage.verify import check
from tests.storage.memstore import MemoryDisk, MemoryStore, PowerCut
from tests.storage.test_crash import WRITES, images

NAMES = ("a", "b", "dir/c")
STEP = 1 if os.environ.get("DBZERO_EVERY_CALL") else 11  # a few of the calls; DBZERO_EVERY_CALL=1 takes each
UUIDS = {"a": 11, "b": 22, "dir/c": 33}
OID = 20


class World:
    """Prefixes open for writing on one disk, and what was committed."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tmp_path = tmp_path
        self.monkeypatch = monkeypatch
        self.disk = MemoryDisk()
        self.segment: Segment | None = None
        self.open_prefixes: dict[str, Prefix] = {}
        self.acknowledged = 0  # newest transaction of all prefixes
        self.attempted = 0

    def start(self, disk: MemoryDisk) -> None:
        """From now on, on this disk, with shared memory of its own."""
        self.abandon()
        self.disk = disk
        world = self

        class Store(MemoryStore):
            @classmethod
            def open(cls, root: Any, prefix: str, **options: Any) -> Any:
                options["system"] = world.disk
                options.setdefault("prefix_uuid", UUIDS[prefix])
                return super().open("/root", prefix, **options)

        self.monkeypatch.setattr(prefix_module, "LocalFileStore", Store)
        self.segment = Segment.open(self.tmp_path, 1 << 20, private=True)

    def abandon(self) -> None:
        """As a process that ends without a word."""
        for prefix in self.open_prefixes.values():
            with_no_words(prefix)
        self.open_prefixes.clear()
        if self.segment is not None:
            self.segment.close()
            self.segment = None

    def open(self, name: str, writable: bool = True) -> Prefix:
        assert self.segment is not None
        if name not in self.open_prefixes:
            self.open_prefixes[name] = Prefix.open(self.segment, "/root", name, writable=writable)
        return self.open_prefixes[name]

    def commit(self, wanted: tuple[str, ...], value: int) -> None:
        """One transaction that puts `value` into several prefixes."""
        prefixes = sorted((self.open(name) for name in wanted), key=lambda p: p.uuid)
        for prefix in prefixes:
            if prefix.oid_limit() <= OID + 1:
                prefix.reserve_oids(OID + 2 - prefix.oid_limit())
        while True:
            shares = []
            for prefix in prefixes:
                batch = prefix.begin()
                batch.put(OID, value.to_bytes(8, "little") * (1 + 40 * (value % 3)), [])
                shares.append(together.Share(prefix, batch))
            said = together.begin(prefixes)
            try:
                if len(shares) > 1:
                    together.keep(shares[0], said, self.settled)
                for share in shares:
                    share.prefix.seal(share.batch, value)
                if len(shares) > 1:
                    together.commit(shares, said, Window("/root", self.disk))
                else:
                    shares[0].prefix.commit(shares[0].batch)
                return
            except DeltaRoomMade:
                continue
            finally:
                for share in shares:
                    share.batch.close()

    def settled(self, part: decisions.Part) -> bool:
        found = self.open_prefixes.get(part.name)
        return found is not None and found.durable > part.state

    def all(self) -> None:
        self.attempted += 1
        self.commit(NAMES, self.attempted)
        self.acknowledged = self.attempted

    def value(self, name: str, state: int | None = None) -> int:
        prefix = self.open_prefixes[name]
        found = prefix.read(OID, prefix.head() if state is None else state)
        return 0 if found is None else int.from_bytes(found[0][:8], "little")

    def step(self, what: str) -> None:
        if what == "all":
            self.all()
        elif what == "one":  # in between, the same value again, so that the invariant stays as it is
            self.commit((NAMES[self.attempted % 3],), self.acknowledged)
        elif what == "checkpoint":
            self.open(NAMES[self.attempted % 3]).checkpoint()
        elif what == "reopen":
            for name in NAMES:
                self.open(name).close()
            self.open_prefixes.clear()
        elif what == "reopen one":
            name = NAMES[self.attempted % 3]
            self.open(name).close()
            del self.open_prefixes[name]
            self.open(name)


def with_no_words(prefix: Prefix) -> None:
    """Let go of a prefix's descriptors as a dying process does."""
    prefix._closed = True
    prefix._reader.close()
    if prefix._batch_reader is not None:
        prefix._batch_reader.close()
    try:
        prefix._store._close_all_but_page()
        prefix._store._page.close()
    except (OSError, errors.Error):
        pass


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    w = World(tmp_path, monkeypatch)
    yield w
    w.abandon()


ORDERS = list(itertools.permutations(NAMES))


def examine(world: World, disk: MemoryDisk, where: str, order: tuple[str, ...], how: str) -> int:
    """Open everything in an order, read-only or read-write, and hold it against what may be; returns the value found."""
    world.start(disk)
    names_ = [name for name in order if names.page_path(names.base_path("/root", name)) in disk.files()]
    for name in names_:
        store = MemoryStore.open("/root", name, system=disk, writable=False)
        assert check(store) == [], f"{where}: {name}"
        store.close()
    values = []
    for name in names_:
        world.open(name, writable=how != "r")
        values.append(world.value(name))
        if how == "one by one":  # closed before the next one is opened: its log is gone then
            world.open_prefixes.pop(name).close()
    if len(names_) < 3:
        assert world.acknowledged == 0, where
        return 0
    assert len(set(values)) == 1, f"{where}, {how}: {dict(zip(names_, values, strict=True))} after {world.acknowledged}"
    assert world.acknowledged <= values[0] <= world.attempted, f"{where}, {how}: {values} after {world.acknowledged}"
    return values[0]


PROGRAM = [
    "all",
    "one",
    "all",
    "checkpoint",
    "all",
    "all",
    "reopen one",
    "all",
    "one",
    "checkpoint",
    "checkpoint",
    "all",
]


def run(world: World, program: list[str]) -> None:
    for name in NAMES:
        world.open(name)
    for what in program:
        world.step(what)


@pytest.mark.parametrize("half", [False, True])
def test_a_power_cut_at_every_write(world: World, half: bool) -> None:
    call, finished = (1 + 5 * half) % STEP or 1, False
    while not finished:
        world.start(MemoryDisk())
        world.acknowledged = world.attempted = 0
        world.disk.fail(call, None, only=WRITES, half=half)
        try:
            run(world, PROGRAM)
            finished = True
        except PowerCut:
            pass
        crashed, before = world.disk, (world.acknowledged, world.attempted)
        for position, (name, image) in enumerate(images(crashed, call * 7, 1)):
            where = f"cut at write {call} ({crashed.kinds[-1]}), image {name}"
            world.acknowledged, world.attempted = before
            order = ORDERS[(call + position) % 6]
            read = examine(world, image, where, order, "r")
            assert examine(world, image.crash(), where, order, "rw") == read
            world.all()  # and it goes on
            world.step("one")
            world.abandon()
            image = world.disk.kill()
            examine(world, image, f"{where}, gone on with and killed", order[::-1], "rw")
        call += STEP
    assert call > 150


def test_killed_at_every_write(world: World) -> None:
    """The machine lives: everything written is there, synced or not. Who decides must see to it that it stays."""
    call, finished = 3, False
    while not finished:
        world.start(MemoryDisk())
        world.acknowledged = world.attempted = 0
        world.disk.fail(call, None, only=WRITES, half=bool(call % 2))
        try:
            run(world, PROGRAM)
            finished = True
        except PowerCut:
            pass
        world.abandon()
        left = world.disk.kill()
        order = ORDERS[call % 6]
        before = world.acknowledged
        found = examine(world, left, f"killed at write {call}", order, "one by one" if call % 2 else "rw")
        world.abandon()
        world.acknowledged = max(before, found)
        # What was shown once must survive a power cut right behind that.
        for name, image in images(world.disk, call, 1):
            examine(world, image, f"killed at write {call}, then cut, image {name}", order[::-1], "rw")
            world.abandon()
        call += STEP
    assert call > 150


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_in_doubt_is_asked_from_one_side_only(world: World, stop: int) -> None:
    """Only the participant is opened, before and after: the coordinator's files are asked, and not changed in their content."""
    for call in range(1, 60):
        world.start(MemoryDisk())
        world.acknowledged = world.attempted = 0
        run(world, ["all", "all"])
        world.disk.fail(call, None, only=WRITES)
        try:
            world.all()
            done = True
        except PowerCut:
            done = False
        image = world.disk.crash(random.Random(call * stop))
        world.start(image)
        last = world.open("dir/c")
        value = world.value("dir/c")
        assert world.acknowledged <= value <= world.attempted
        with_no_words(last)
        world.open_prefixes.clear()
        examine(world, world.disk.crash(random.Random(call)), f"call {call}", ORDERS[stop], "rw")
        if done:
            break
    assert call > 5


def test_the_coordinators_files_are_missing(world: World) -> None:
    """Never a guess: a typed error that says what to do, until they are back."""
    seen = 0
    for call in range(1, 60):
        world.start(MemoryDisk())
        world.acknowledged = world.attempted = 0
        run(world, ["all", "all"])
        world.disk.fail(call, None, only=WRITES)
        try:
            world.all()
        except PowerCut:
            pass
        else:
            break
        image = world.disk.crash(lambda n: n - 1)
        world.start(image)
        image.mkdir("/away")
        for path in [p for p in image.files() if p.startswith("/root/a.")]:
            image.rename(path, path.replace("/root/", "/away/"))
        try:
            world.open("b")
        except errors.InDoubtError as exc:
            seen += 1
            assert "/root/a.db0" in str(exc) and "Put" in str(exc)
        world.abandon()
        reader = None
        world.start(image.kill())
        reader = world.open("b", writable=False)  # who only reads sees what is certain
        assert world.value("b") in (2, 3)
        del reader
        world.abandon()
        for path in [p for p in world.disk.files() if p.startswith("/away/")]:
            world.disk.rename(path, path.replace("/away/", "/root/"))
        examine(world, world.disk.kill(), f"call {call}, back again", ORDERS[call % 6], "rw")
    assert seen > 0


def test_decisions_outlive_the_coordinators_log(world: World) -> None:
    """The participant is opened only after the coordinator was recovered, checkpointed, compacted and gone on with."""
    for call in range(1, 60):
        world.start(MemoryDisk())
        world.acknowledged = world.attempted = 0
        run(world, ["all", "all"])
        world.disk.fail(call, None, only=WRITES)
        try:
            world.all()
        except PowerCut:
            pass
        else:
            break
        world.start(world.disk.crash(lambda n: n - 1))
        coordinator = world.open("a")
        value = world.value("a")
        for _ in range(3):
            batch = coordinator.begin()
            batch.put(OID + 1, b"more", [])
            coordinator.seal(batch, 9)
            coordinator.commit(batch)
            batch.close()
            coordinator.checkpoint()
        from dbzero.storage.history import compact

        world.monkeypatch.setattr("os.path.getsize", lambda path: 0)
        compact(coordinator, coordinator.head)
        world.monkeypatch.undo()
        disk = world.disk
        world.abandon()
        world.start(disk.kill())
        for name in ("dir/c", "b"):
            world.open(name)
            assert world.value(name) == value, f"call {call}"
        world.abandon()


@pytest.mark.parametrize("code", [28, 5])
def test_every_call_fails(world: World, code: int) -> None:
    """A typed error, and either it goes on as if nothing had been, or the prefixes are poisoned and agree when reopened."""
    call, finished = 1, False
    while not finished:
        world.start(MemoryDisk())
        world.acknowledged = world.attempted = 0
        for name in NAMES:
            world.open(name)
        world.all()
        before = world.disk.calls
        world.disk.fail(call, code, half=bool(call % 2))
        for _ in range(3):
            try:
                world.all()
            except errors.Error:
                if world.disk.kinds[-1] and not any(world.open(n)._store.poisoned for n in NAMES):
                    assert len({world.value(n) for n in NAMES}) == 1, f"call {call}"
                    assert world.value("a") == world.acknowledged
        finished = world.disk.calls - before < call
        world.disk.heal()
        if not any(world.open(name)._store.poisoned for name in NAMES):
            world.all()
        world.abandon()
        examine(world, world.disk.crash(), f"call {call} failed", ORDERS[call % 6], "rw")
        world.all()
        world.abandon()
        examine(world, world.disk.kill(), f"call {call} failed, later", ORDERS[(call + 1) % 6], "rw")
        world.abandon()
        call += 1
    assert call > 30


def test_the_list_of_decisions_stays_short(world: World) -> None:
    world.start(MemoryDisk())
    run(world, ["all"] * 30)
    first = world.open("a")
    found = first.read(decisions.DECISIONS_OID, first.head())
    assert found is not None
    assert 1 <= len(decisions.decode_decisions(found[0])) <= 2
    version, noted = Window("/root", world.disk).read()
    assert version == 60 and noted == []


def test_vectors() -> None:
    one, two, three = (decisions.Part(n, u, 10, 5) for n, u in (("a", 1), ("b", 2), ("c", 3)))
    said = decisions.Together(decisions.DECIDED, b"x" * 16, (one, two, three))
    assert lowered({1: 10, 2: 10, 3: 10}, [said]) == {1: 10, 2: 10, 3: 10}
    assert lowered({1: 10, 2: 9, 3: 12}, [said]) == {1: 9, 2: 9, 3: 9}
    assert lowered({1: 10, 3: 12}, [said]) == {1: 10, 3: 12}
    before = decisions.Together(
        decisions.DECIDED, b"y" * 16, (decisions.Part("c", 3, 11, 5), decisions.Part("d", 4, 3, 5))
    )
    assert lowered({1: 10, 2: 9, 3: 12, 4: 7}, [before, said]) == {1: 9, 2: 9, 3: 9, 4: 2}
    encoded = said.encode() + b"body"
    back, rest = decisions.Together.decode(encoded)
    assert back == said and bytes(rest) == b"body"
    for cut in range(len(said.encode())):
        with pytest.raises(Exception, match="transaction"):
            decisions.Together.decode(encoded[:cut])


def test_a_damaged_window_file_is_mended(tmp_path: Path) -> None:
    window = Window(str(tmp_path))
    assert window.consistent(lambda: {1: 2}) == {1: 2}
    said = decisions.Together(
        decisions.DECIDED, b"x" * 16, (decisions.Part("a", 1, 2, 5), decisions.Part("b", 2, 3, 5))
    )
    window.note(said)
    assert window.consistent(lambda: {1: 2, 2: 2}) == {1: 1, 2: 2}
    version = window.read()[0]
    with open(window.path, "r+b") as file:  # a write that was torn
        file.seek((1 - version % 2) * (1 << 15))
        file.write(b"damage")
    assert window.read() == (version, [said])
    assert window.consistent(lambda: {1: 2, 2: 2}) == {1: 1, 2: 2}
    with open(window.path, "r+b") as file:
        file.write(b"damage")
        file.seek(1 << 15)
        file.write(b"damage")
    assert window.read() == (0, [])
    window.note(said)
    assert window.consistent(lambda: {1: 2, 2: 2}) == {1: 1, 2: 2}
    window.recovered(2, 3)
    assert window.consistent(lambda: {1: 2, 2: 2}) == {1: 1, 2: 2}
    window.recovered(2, 2)
    assert window.consistent(lambda: {1: 2, 2: 2}) == {1: 2, 2: 2}
    assert LocalFileStore is not None
