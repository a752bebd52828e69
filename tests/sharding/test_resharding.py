"""``reshard``: what moves, what is refused, kill -9 at every durable call, readers and writers meanwhile."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dbzero as db0
from dbzero.model import scope
from dbzero.query.check import check_index
from dbzero.session import snapshots
from dbzero.sharding import resharding
from dbzero.storage.verify import check_root
from tests.scripts import environment
from tests.session.forks import Forked, kill_at
from tests.sharding.model import Branch, Holder, Note, Program, check
from tests.worker import Worker

MANY = 60


@pytest.fixture
def bank(root: str) -> Iterator[str]:
    db0.init(root, prefix="bank", autocommit=False)
    yield root


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resharding, "BATCH", 4)


def layout(root: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(root, "bank", "tests%2Fsharding%2FHolder", "shards.json").read_text())
    return found


def test_what_moves_and_what_it_takes_along(bank: str, small: None) -> None:
    program = Program(3)
    program.run(120)
    db0.commit()
    shards = {one.owner: db0.shard_of(one) for one in db0.find(Holder)}
    moved = db0.reshard(Holder, 5)
    now = {one.owner: db0.shard_of(one) for one in db0.find(Holder)}
    assert moved == sum(shards[owner] != now[owner] for owner in shards) > 0
    assert all(now[owner] in (shards[owner], 3, 4) for owner in shards), "only new shards get anything"
    check(program.model)
    assert layout(bank)["shards"] == 5 and not layout(bank)["moving"]
    assert db0.reshard(Holder, 5) == 0
    program.run(40)
    db0.reshard(Holder, 1)
    check(program.model)
    assert {db0.shard_of(one) for one in db0.find(Holder)} == {0}
    db0.close()
    db0.init(bank, prefix="bank", autocommit=False)
    check(program.model)


def test_identities_change_and_weak_references_end(bank: str) -> None:
    holders = [Holder(f"o{number}", number, None) for number in range(20)]
    links = db0.list([db0.weak_proxy(one) for one in holders])
    db0.tags(*[one for one in db0.find(Holder, "holder")]).add("linked")
    keeper = Note("bank", "links")
    keeper.links = links
    db0.tags(keeper).add("kept")
    stays = {one.owner: db0.uuid(one) for one in holders if db0.shard_of(one) == 0}
    db0.reshard(Holder, 1)
    for one in holders:
        if db0.expired(one):
            with pytest.raises(db0.ReferenceError):
                one.balance
        else:
            assert db0.uuid(one) == stays[one.owner]
    assert sum(not db0.expired(link) for link in links) == len(stays)
    assert len(db0.find(Holder, "linked")) == 20


def test_objects_that_cannot_move(bank: str) -> None:
    def refused(text: str) -> None:
        db0.commit()
        before = {db0.uuid(one) for one in db0.find(Holder)}
        with pytest.raises(db0.Error, match=text):
            db0.reshard(Holder, 1)
        assert {db0.uuid(one) for one in db0.find(Holder)} == before
        assert layout(bank)["shards"] == 3 and not layout(bank)["moving"]

    holders = [Holder(f"o{number}", number, None) for number in range(30)]
    away = [one for one in holders if db0.shard_of(one)]
    one = away[0]
    home = db0.get_prefix_of(one).name

    keeper = Note(home, "keeper")
    keeper.kept = one
    db0.tags(keeper).add("keeper")
    refused(r"the Holder \w+ is held by the Note \w+ in prefix 'bank/")
    keeper.kept = one.notes
    refused(r"a dict \(object \d+\) is held by the Note")
    keeper.kept = None

    friend = next(two for two in away[1:] if db0.shard_of(two) == db0.shard_of(one))
    one.friend = friend
    refused("refers strongly to the Holder")
    one.friend = db0.weak_proxy(friend)

    db0.tags(one).remove("holder", Branch.NORTH)
    refused("by nothing stored: tag it")
    db0.tags(one).add("holder")
    assert db0.reshard(Holder, 1) == len(away)
    assert len(db0.find(Holder)) == 30


def test_tags_that_are_changed_while_it_runs(bank: str, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        Holder(f"o{number}", number, None)
    real = resharding._Resharding._move_some
    rounds = [0]

    def move(self: Any, *args: Any) -> None:
        rounds[0] += 1
        for one in db0.find(Holder):
            (db0.tags(one).add if (one.balance + rounds[0]) % 2 else db0.tags(one).remove)("odd")
        if rounds[0] == 3:
            with pytest.raises(KeyError), db0.atomic():
                db0.tags(db0.find(Holder)).add("never")
                raise KeyError
        real(self, *args)

    monkeypatch.setattr(resharding._Resharding, "_move_some", move)
    db0.reshard(Holder, 1)
    assert rounds[0] > 5
    assert sorted(one.balance for one in db0.find(Holder, "odd")) == [n for n in range(40) if (n + rounds[0]) % 2]
    assert not db0.find(Holder, "never")


def test_a_failure_in_a_batch_leaves_it_where_it_was(bank: str, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(5)
    program.run(80)
    db0.commit()
    from dbzero.sharding.moving import Copier

    real = Copier._fill
    left = [30]

    def fill(self: Any, *args: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise MemoryError
        real(self, *args)

    monkeypatch.setattr(Copier, "_fill", fill)
    with pytest.raises(MemoryError):
        db0.reshard(Holder, 6)
    assert layout(bank) | {"shards": 6, "moving": True} == layout(bank)
    found = [one.owner for one in db0.find(Holder)]
    assert sorted(found) == sorted(program.model)
    assert db0.reshard(Holder, 6) > 0
    check(program.model)


# --- other threads ---------------------------------------------------------------------------------------------------


def test_threads_write_while_it_runs(bank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resharding, "BATCH", 16)
    for number in range(MANY):
        Holder(f"o{number}", 0, None)
    db0.commit()
    over = threading.Event()
    errors: list[BaseException] = []
    created = [0]

    def create() -> None:
        try:
            while not over.is_set() and created[0] < MANY:
                Holder(f"new{created[0]}", 1, None)
                created[0] += 1
                time.sleep(0.01)
        except BaseException as error:
            errors.append(error)

    def change() -> None:
        try:
            while not over.is_set():
                with db0.atomic():
                    for one in db0.find(Holder, "holder"):
                        one.balance += 1
                time.sleep(0.01)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=job, daemon=True) for job in (create, change)]
    for thread in threads:
        thread.start()
    try:
        for shards in (5, 2, 3):
            db0.reshard(Holder, shards)
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert not errors
    db0.reshard(Holder, 3)
    found = list(db0.find(Holder))
    assert sorted(one.owner for one in found) == sorted(
        [f"o{n}" for n in range(MANY)] + [f"new{n}" for n in range(created[0])]
    )
    assert all(db0.shard_of(one) == db0.shard_of(Holder, one.owner) for one in found)
    assert len({one.balance for one in found if one.owner.startswith("o")}) == 1, "no change was lost"


# --- other processes -------------------------------------------------------------------------------------------------

Send = Callable[[Any], None]


def build(root: str) -> Callable[[Send], None]:
    def body(send: Send) -> None:
        db0.init(root, prefix="bank", autocommit=False)
        for number in range(MANY):
            Holder(f"o{number}", number, ["rome", None][number % 2])
        db0.close()

    return body


def look(context: Any) -> None:
    """Everything is there once, whole."""
    found = list(context.find(Holder))
    assert sorted(one.balance for one in found) == list(range(MANY)), len(found)
    assert all(one.log[1][0] == one.owner and one.notes[one.owner].text == one.owner for one in found)
    assert len(context.find(Holder, "holder")) == len(context.find(Holder, Branch.NORTH)) == MANY
    assert len(context.find(Holder, "rome")) == MANY // 2
    assert [one.balance for one in context.index_of(Holder, "balance").sort(context.find(Holder))[:7]] == list(range(7))


def reshard_life(root: str, number: int, how: str, shards: int) -> Callable[[Send], None]:
    def body(send: Send) -> None:
        resharding.BATCH = 5
        db0.init(root, prefix="bank", autocommit=False)
        count = kill_at(number, how)
        db0.reshard(Holder, shards)
        send(count[0])

    return body


def after_life(root: str, writer: bool) -> Callable[[Send], None]:
    def body(send: Send) -> None:
        db0.init(root, autocommit=False)
        db0.open("bank", "rw" if writer else "r")
        look(db0)
        with db0.snapshot() as now:
            look(now)
        if writer:  # places by the number in force
            one = Holder("extra", -1, None)
            assert db0.shard_of(one) == db0.shard_of(Holder, "extra")
            db0.tags(one).remove("holder", Branch.NORTH)
            db0.delete(one)
            db0.commit()
        send(db0.shard_of(Holder, "o1"))
        db0.close()

    return body


def watch_life(root: str, seconds: float) -> Callable[[Send], None]:
    """Looks at snapshots only."""

    def body(send: Send) -> None:
        db0.init(root, autocommit=False)
        db0.open("bank", "r")
        looks = 0
        end = time.monotonic() + seconds
        send("ready")
        while time.monotonic() < end:
            with db0.snapshot() as now:
                look(now)
            looks += 1
        send(looks)
        db0.close()

    return body


def ended(process: Forked) -> list[Any]:
    values = process.drain(60)
    assert process.wait() in (0, -9), values
    return values


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["before", "torn", "after"])
def test_kill_9_at_durable_calls(tmp_path: Path, how: str) -> None:
    root = str(tmp_path / "root")
    ended(Forked(build(root)))
    (calls,) = ended(Forked(reshard_life(root, 0, how, 3)))
    (calls,) = ended(Forked(reshard_life(root, 0, how, 6)))
    killed = 0
    offset = {"before": 0, "torn": 2, "after": 5}[how]
    for turn, number in enumerate(range(1 + offset, calls, max(calls // 22, 1))):
        process = Forked(reshard_life(root, number, how, (2, 6, 4)[turn % 3]))
        process.drain(60)
        killed += process.wait() == -9
        ended(Forked(after_life(root, writer=turn % 2 == 1)))
        if turn % 4 == 3:  # what was begun is finished by whoever calls again
            ended(Forked(reshard_life(root, 0, how, (2, 6, 4)[turn % 3])))
            assert not layout(root)["moving"] and layout(root)["shards"] == (2, 6, 4)[turn % 3]
    assert killed > 12
    ended(Forked(reshard_life(root, 0, how, 5)))
    assert check_root(root) == []
    db0.init(root, prefix="bank", autocommit=False)
    look(db0)
    assert all(db0.shard_of(one) == db0.shard_of(Holder, one.owner) for one in db0.find(Holder))
    for prefix in list(db0.get_prefixes()):
        db0.open(prefix.name, "rw")
        assert check_index(scope.current_view(False)) == []
    db0.close()
    gc.collect()


@pytest.mark.timeout(300)
def test_snapshots_of_other_processes_show_everything_once(tmp_path: Path) -> None:
    root = str(tmp_path / "root")
    ended(Forked(build(root)))
    readers = [Forked(watch_life(root, 6)) for _ in range(2)]
    assert [reader.receive() for reader in readers] == ["ready"] * 2
    end = time.monotonic() + 5
    turns = 0
    while time.monotonic() < end:
        ended(Forked(reshard_life(root, 0, "before", (8, 1, 5, 2)[turns % 4])))
        turns += 1
    looks = [ended(reader)[-1] for reader in readers]
    assert turns >= 2 and all(n > 5 for n in looks), (turns, looks)
    assert check_root(root) == []


def writer_life(root: str, shard: int, rounds: int) -> Callable[[Send], None]:
    """Changes and creates holders of one shard, whose lease it has; the base is read-only."""

    def body(send: Send) -> None:
        db0.init(root, autocommit=False)
        db0.open(f"bank/tests%2Fsharding%2FHolder/shard-{shard}", "rw")
        db0.open("bank", "r")
        mine = [f"w{n}" for n in range(400) if db0.shard_of(Holder, f"w{n}") == shard][:rounds]
        send("ready")
        for owner in mine:
            Holder(owner, 1000, None)
            for one in db0.find(Holder, "holder", prefix=f"bank/tests%2Fsharding%2FHolder/shard-{shard}"):
                one.log.append(shard)
            db0.commit()
        send(len(mine))
        db0.close()

    return body


def test_two_processes_write_a_shard_each(tmp_path: Path) -> None:
    root = str(tmp_path / "root")
    ended(Forked(build(root)))
    writers = [Forked(writer_life(root, shard, 25)) for shard in (0, 2)]
    assert [writer.receive() for writer in writers] == ["ready"] * 2
    made = [ended(writer)[-1] for writer in writers]
    assert made == [25, 25]
    db0.init(root, autocommit=False)
    db0.open("bank", "r")
    assert len(db0.find(Holder)) == MANY + 50
    for one in db0.find(Holder):
        tail = list(one.log)[2:]
        assert set(tail) <= {db0.shard_of(one)}
        if one.owner.startswith("o"):
            assert len(tail) == (25 if db0.shard_of(one) in (0, 2) else 0)
    db0.close()
    gc.collect()
    assert check_root(root) == []


def test_a_progress_bar_on_a_terminal(tmp_path: Path) -> None:
    root = str(tmp_path / "root")
    ended(Forked(build(root)))
    ours, theirs = os.openpty()
    code = (
        "import dbzero as db0\nfrom tests.sharding.model import Holder\n"
        f"db0.init({root!r}, prefix='bank')\nprint(db0.reshard(Holder, 7))\ndb0.close()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env={**environment(), "TERM": "xterm"},
    )
    os.close(theirs)
    output, _ = process.communicate(timeout=60)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal ends
        while part := os.read(ours, 65536):
            shown += part
    os.close(ours)
    moved = int(output)
    assert moved > 0 and f"{moved}/{moved}".encode() in shown and b"reshard" in shown


def test_shards_that_come_while_a_snapshot_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at which shards there are and the vector another process moves instances into new ones."""
    root = str(tmp_path / "root")
    ended(Forked(build(root)))
    real = snapshots.consistent_states
    with Worker(root=root) as worker:
        worker.run("import dbzero as db0\nfrom tests.sharding.model import Holder\ndb0.init(root, prefix='bank')")
        db0.init(root, autocommit=False)
        db0.open("bank", "r")
        shards = [5, 9]

        def states(*args: Any) -> dict[str, int]:
            if shards:
                worker.run(f"result = db0.reshard(Holder, {shards.pop(0)})", 60)
            return real(*args)

        monkeypatch.setattr(snapshots, "consistent_states", states)
        with db0.snapshot() as now:
            look(now)
        assert not shards
        db0.close()
    gc.collect()
    assert check_root(root) == []
