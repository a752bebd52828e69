"""Snapshots where processes come and go: forks, writers that are killed or replaced, compactions in another process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

import dbzero as db0
from tests.session.forks import Forked
from tests.worker import RemoteError, Worker

SETUP = """
import dbzero as db0
from tests.session.test_snapshots_processes import Held, Part, check, fill
db0.init(root, autocommit=False)
"""
PARTS = 30


@db0.memo(id="snapshots-processes/part")
class Part:
    def __init__(self, value: int) -> None:
        self.value = value


@db0.memo(id="snapshots-processes/held", singleton=True)
class Held:
    def __init__(self) -> None:
        self.count = 0
        self.parts = [Part(0) for _ in range(PARTS)]
        self.table: dict[str, int] = {}


def fill(count: int) -> int:
    """Commit a state in which everything says `count`; returns its number."""
    held = Held()
    held.count = count
    for part in held.parts:
        part.value = count
    held.table[f"k{count}"] = count
    db0.tags(held.parts[count % PARTS]).add(f"t{count}")
    db0.commit()
    return db0.get_state_num(finalized=True)


def check(past: Any, count: int) -> bool:
    """Whether everything in a snapshot says `count`."""
    held = past.fetch(Held)
    return (
        held.count == count
        and [part.value for part in held.parts] == [count] * PARTS
        and dict(held.table) == {f"k{n}": n for n in range(1, count + 1)}
        and len(past.find(Part)) == PARTS
        and len(past.find(f"t{count}")) == 1
        and len(past.find(f"t{count + 1}")) == 0
    )


# --- forks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loaded", [False, True])
def test_a_snapshot_is_read_in_a_forked_child(store: str, loaded: bool) -> None:
    fill(1)
    state = fill(2)
    fill(3)
    past = db0.snapshot(state)
    if loaded:
        assert check(past, 2)
    asked, ask = os.pipe()

    def child(send: Callable[[Any], None]) -> None:
        os.close(ask)
        os.read(asked, 1)
        send(check(past, 2))
        other = db0.get_snapshot_of(past.fetch(Held))
        past.close()
        send(check(other, 2))

    process = Forked(child)
    try:
        for count in range(4, 30):
            fill(count)
        db0.snapshot()  # what the parent does with its own is its own affair
        os.write(ask, b"x")
        assert process.drain() == [True, True] and process.wait() == 0
    finally:
        process.kill()
        os.close(asked)
        os.close(ask)
    assert check(past, 2)


def test_a_child_keeps_its_snapshot_when_the_parent_lets_go_and_compacts(store: str) -> None:
    fill(1)
    state = fill(2)
    past = db0.snapshot(state)
    asked, ask = os.pipe()

    def child(send: Callable[[Any], None]) -> None:
        os.close(ask)
        send(past.fetch(Held).count)
        os.read(asked, 1)
        send(check(past, 2))

    process = Forked(child)
    try:
        assert process.receive() == 2
        for count in range(3, 10):
            fill(count)
        past.close()
        db0.compact(keep_states=1)
        fill(10)
        os.write(ask, b"x")
        assert process.drain() == [True] and process.wait() == 0
    finally:
        process.kill()
        os.close(asked)
        os.close(ask)
    with db0.snapshot() as now:
        assert check(now, 10)


# --- writers that are killed or replaced -------------------------------------------------------------------------------------


def test_a_readers_snapshot_outlives_its_writer(root: str) -> None:
    """The next writer begins the slot anew, and makes a checkpoint; the snapshot's objects are loaded after that."""
    with Worker(root=root) as writer, Worker(root=root) as successor:
        writer.run(SETUP + "db0.open('main'); states = [fill(n) for n in range(1, 8)]")
        states = writer.run("result = states")
        db0.init(root)
        db0.open("main", "r")
        past, newest = db0.snapshot(states[2]), db0.snapshot()
        assert past.fetch(Held).count == 3
        writer.kill()
        successor.run(SETUP + "db0.open('main'); [fill(n) for n in range(8, 12)]")
        assert check(past, 3) and check(newest, 7)
        successor.run("db0.close()")
        with db0.snapshot(states[4]) as again:
            assert check(again, 5)
        assert check(past, 3) and check(newest, 7)
        db0.refresh()
        with db0.snapshot() as now:
            assert check(now, 11)


def test_a_readers_snapshot_outlives_a_compaction_by_the_writer(root: str) -> None:
    with Worker(root=root) as writer:
        writer.run(SETUP + "db0.open('main'); states = [fill(n) for n in range(1, 8)]")
        states = writer.run("result = states")
        db0.init(root)
        db0.open("main", "r")
        past = db0.snapshot(states[2])
        assert writer.run("result = db0.compact(keep_states=1).oldest_state") == states[2]
        writer.run("[fill(n) for n in range(8, 12)]")
        assert check(past, 3)
        db0.refresh()
        with db0.snapshot(states[4]) as again:
            assert check(again, 5)
        assert check(past, 3)
        past.close()
        assert writer.run("result = db0.compact(keep_states=1).oldest_state") > states[6]
        with pytest.raises(db0.StateNotKeptError):
            db0.refresh()
            db0.snapshot(states[2]).fetch(Held)


def test_the_snapshots_of_a_replaced_writer(root: str) -> None:
    """It may not write any more, and what it read stays right: its snapshots and the successor's are of one history."""
    with Worker(root=root) as holder, Worker(root=root) as successor:
        holder.run(SETUP + "db0.open('main'); states = [fill(n) for n in range(1, 8)]; past = db0.snapshot(states[2])")
        states = holder.run("result = states")
        os.kill(holder.pid, signal.SIGSTOP)
        successor.run(SETUP + "db0.open('main', lock_flags={'force_unlock': True})")
        successor.run(f"[fill(n) for n in range(8, 12)]; past = db0.snapshot({states[2]})")
        os.kill(holder.pid, signal.SIGCONT)
        with pytest.raises(RemoteError) as refused:
            holder.run("Held().count = 99; db0.commit()")
        assert refused.value.kinds[0] == "FencedError"
        assert holder.run("result = check(past, 3)") and successor.run("result = check(past, 3)")
        assert successor.run("now = db0.snapshot(); result = check(now, 11)")
