"""Transactions across prefixes of which one or both are open shared: all of it or nothing, whoever dies when, whoever looks."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dbzero as db0
from dbzero.session.workspace import active
from dbzero.storage import format as fmt
from dbzero.storage import sharing
from dbzero.storage.verify import check_root
from tests.session.forks import Forked, kill_at
from tests.worker import RemoteError, Worker

Send = Callable[[Any], None]
CACHE = 64 << 20
NAMES = ("left", "right")


@db0.memo(singleton=True, prefix="left", id="tests/shared-together/Left")
class Left:
    def __init__(self) -> None:
        self.serial = 0
        self.table: dict[int, int] = {}


@db0.memo(singleton=True, prefix="right", id="tests/shared-together/Right")
class Right:
    def __init__(self) -> None:
        self.serial = 0
        self.numbers = [0] * 5


def init(root: str, shared: tuple[str, ...] = NAMES, others: bool = True) -> None:
    """Open the shared ones, and the others too if that is asked for."""
    db0.init(root, cache_size=CACHE, autocommit=False)
    for name in NAMES:
        if name in shared or others:
            db0.open(name, shared=name in shared)


def make(root: str, shared: tuple[str, ...] = NAMES, others: bool = True) -> None:
    init(root, shared, others)
    with db0.atomic(commit=True):
        for name, kind in zip(NAMES, (Left, Right), strict=True):
            if name in active().open_prefixes:
                kind()


def write() -> int:
    left, right = Left(), Right()
    serial = left.serial + 1
    left.serial = right.serial = serial
    left.table[serial % 7] = serial
    right.numbers[:] = [serial] * 5
    return serial


def same() -> int:
    left, right = db0.fetch(Left), db0.fetch(Right)
    assert left.serial == right.serial, (left.serial, right.serial)
    assert set(right.numbers) == {right.serial}
    return int(left.serial)


def seen() -> tuple[int, int]:
    with db0.snapshot() as past:
        return past.fetch(Left).serial, past.fetch(Right).serial


# --- what is promised --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [NAMES, ("left",), ("right",)])
def test_one_transaction(root: str, shared: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes through the log as one: prepared in one prefix, decided in a shared one."""
    make(root, shared)
    kinds: list[tuple[str, int]] = []
    for name in NAMES:
        store = active().get(name).prefix.store
        real = store.append

        def append(name: str = name, real: Any = real, **options: Any) -> int:
            kinds.append((name, options["kind"]))
            return int(real(**options))

        monkeypatch.setattr(store, "append", append)
    with db0.atomic(commit=True):
        write()
    assert [kind for _, kind in kinds] == [fmt.PREPARE, fmt.DECISION]
    assert kinds[1][0] in shared
    kinds.clear()
    with db0.atomic(commit=True):
        Left().serial = 1
        Left().table[100] = 1
    assert kinds == [("left", fmt.COMMIT)]
    monkeypatch.undo()
    with Worker(root=root) as reader:
        reader.run("import dbzero as db0; db0.init(root); db0.open('left', 'r'); db0.open('right', 'r')")
        assert reader.run("result = [db0.get_state_num(name) for name in ('left', 'right')]") == [
            db0.get_state_num(name, finalized=True) for name in NAMES
        ]
    db0.close()
    assert check_root(root) == []
    init(root)
    with db0.atomic():
        assert same() == 1


def test_many_processes_and_vectors(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers of both, of one or the other, with checkpoints and compactions in between; snapshots never show a half."""
    monkeypatch.setattr(sharing, "LOG_LIMIT", 30_000)
    make(root)

    def work(who: int) -> Callable[[Send], None]:
        def body(send: Send) -> None:
            for n in range(80):
                with db0.atomic():
                    same()
                    write()
                if n % 3 == who:
                    with db0.atomic():
                        Left().table[1000 + who] = n
                if n % 20 == who:
                    try:
                        db0.compact(NAMES[n % 2], keep_states=5)
                    except db0.LeaseError:
                        pass
                one, other = seen()
                assert one == other
            send("done")

        return body

    def look(send: Send) -> None:
        last = looks = 0
        end = time.monotonic() + 30
        while last < 240 and time.monotonic() < end:
            one, other = seen()
            assert one == other >= last
            last, looks = one, looks + 1
        send(looks)

    children = [Forked(body) for body in (work(0), work(1), work(2), look)]
    try:
        sent = [child.drain(60) for child in children]
        assert [child.wait() for child in children] == [0] * 4, sent
    finally:
        for child in children:
            child.kill()
    assert sent[3][0] > 50
    with db0.atomic():
        assert same() == 240
    db0.close()
    assert check_root(root) == []


@pytest.mark.parametrize("shared", [NAMES, ("left",), ("right",)])
def test_nothing_when_one_cannot(root: str, shared: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    make(root, shared)
    with db0.atomic(commit=True):
        write()
    states = [db0.get_state_num(name, finalized=True) for name in NAMES]

    def fail(**options: Any) -> int:
        raise db0.DiskFullError("no space for a test")

    for name in NAMES:
        with monkeypatch.context() as patch:
            patch.setattr(active().get(name).prefix.store, "append", fail)
            with pytest.raises(db0.DiskFullError), db0.atomic(commit=True):
                write()
        assert same() == 1
        db0.commit()  # of an exclusive one: there is nothing left of it
        assert [db0.get_state_num(name, finalized=True) for name in NAMES] == states
    with db0.atomic(commit=True):
        assert write() == 2
    db0.close()
    init(root)
    with db0.atomic():
        assert same() == 2


def test_what_was_pending_before_is_no_part_of_it(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make(root, ("left",))
    Right().numbers[0] = 77

    def fail(**options: Any) -> int:
        raise db0.DiskFullError("no space for a test")

    with db0.atomic(commit=True) as _:
        Left().serial = 5  # alone
    with pytest.raises(db0.DiskFullError), db0.atomic(commit=True):
        monkeypatch.setattr(active().get("left").prefix.store, "append", fail)
        Right().numbers[1] = 88
        Left().serial = 6
    monkeypatch.undo()
    db0.commit()
    assert list(Right().numbers)[:2] == [77, 0] and Left().serial == 5


# --- writers that end badly --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["before", "after", "torn"])
@pytest.mark.parametrize("first", NAMES)
def test_killed_at_every_step(root: str, how: str, first: str) -> None:
    """Both shared: whoever comes next, by whichever prefix, finds both or none, within a second."""
    make(root)
    value = number = 0
    while True:
        number += 1

        def body(send: Send, number: int = number) -> None:
            kill_at(number, how)
            with db0.atomic():
                send(write())

        child = Forked(body)
        child.drain()
        child.wait()
        begun = time.monotonic()
        prefix: Any = active().get(first).prefix
        prefix.acquire_turn(20)  # this one is recovered first
        prefix.yield_turn()
        one, other = seen()
        assert one == other
        with db0.atomic():
            assert value <= same() <= value + 1
            value = write()
        assert time.monotonic() - begun < 5
        if child.status == 0:
            break
    assert number > 5
    db0.close()
    assert check_root(root) == []


@pytest.mark.parametrize("how", ["before", "after"])
@pytest.mark.parametrize("first", ["open", "turn"])
@pytest.mark.parametrize("shared", NAMES)
def test_killed_at_every_step_beside_an_exclusive_one(root: str, how: str, first: str, shared: str) -> None:
    """One is shared with us; the other is the dying process's own, and opened by the next."""
    (alone,) = set(NAMES) - {shared}
    make(root)
    db0.close()
    init(root, (shared,), others=False)
    kind: Any = Left if shared == "left" else Right
    value = number = 0
    while True:
        number += 1

        def body(send: Send, number: int = number) -> None:
            db0.open(alone)
            kill_at(number, how)
            with db0.atomic(commit=True):
                send(write())

        child = Forked(body)
        child.drain()
        child.wait()
        begun = time.monotonic()
        if first == "turn":
            with db0.atomic():
                assert value <= kind().serial <= value + 1
        db0.open(alone)
        one, other = seen()
        assert one == other
        with db0.atomic(commit=True):
            assert value <= same() <= value + 1
            value = write()
        db0.close(alone)
        assert time.monotonic() - begun < 5
        if child.status == 0:
            break
    assert number > 5
    db0.close()
    assert check_root(root) == []


FREEZE = """
import os, signal, time
import dbzero as db0
from dbzero.storage.prefix import Prefix
from tests.session.test_shared_together import Left, Right, init, write, same, NAMES
init(root, {shared})
real = Prefix.append_batch
def append(self, batch, kind, head):
    if kind == 3 and {before}:
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(0.1)  # it is another thread that stops at once
    real(self, batch, kind, head)
    if kind == 3 and not {before}:
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(0.1)  # it is another thread that stops at once
Prefix.append_batch = append
"""


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("first", NAMES)
def test_stopped_around_the_decision(root: str, before: bool, first: str) -> None:
    """Others replace it in both prefixes, and agree on what became of it; when it goes on it hears that it was replaced."""
    make(root)
    with Worker(root=root) as frozen:
        frozen.run(FREEZE.format(shared=NAMES, before=before))
        frozen.send("with db0.atomic():\n    write()")
        end = time.monotonic() + 10
        while Path(f"/proc/{frozen.pid}/stat").read_text().split()[2] != "T":
            assert time.monotonic() < end
            time.sleep(0.005)
        prefix: Any = active().get(first).prefix
        prefix.acquire_turn(20)
        prefix.yield_turn()
        with db0.atomic():
            value = same()
            assert value in ((0,) if before else (0, 1))
            write()
        assert seen() == (value + 1, value + 1)
        os.kill(frozen.pid, signal.SIGCONT)
        with pytest.raises(RemoteError) as caught:
            frozen.receive()
        assert "FencedError" in caught.value.kinds or "PoisonedError" in caught.value.kinds
        frozen.run("Prefix.append_batch = real\nwith db0.atomic():\n    same(); write()")
        with db0.atomic():
            assert same() == value + 2


def test_a_failed_sync_of_the_decision(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it was made is unknown; the next transaction, of whatever process, finds out and shows both or none."""
    make(root)
    with Worker(root=root) as failing:
        failing.run(
            "import dbzero as db0\n"
            "from dbzero.storage.syscalls import System\n"
            "from tests.session.test_shared_together import *\n"
            "init(root)\n"
            "count = [0]\n"
            "real = System.fdatasync\n"
            "def fail(self, fd):\n"
            "    count[0] += 1\n"
            "    if count[0] == 2:\n"
            "        raise OSError(5, 'Input/output error')\n"
            "    return real(self, fd)\n"
            "System.fdatasync = fail\n"
        )
        with pytest.raises(RemoteError) as caught:
            failing.run("with db0.atomic():\n    write()")
        assert "PoisonedError" in caught.value.kinds
        with db0.atomic():
            value = same()
            assert value in (0, 1)
            write()
        assert seen() == (value + 1, value + 1)
        failing.run("db0.close(); init(root)\nwith db0.atomic():\n    same(); write()")
        with db0.atomic():
            assert same() == value + 2


def test_no_deadlock_whatever_the_order(root: str) -> None:
    """Processes open the prefixes in different orders and compact them meanwhile."""
    make(root)
    db0.close()

    def work(who: int) -> Callable[[Send], None]:
        def body(send: Send) -> None:
            db0.init(root, cache_size=CACHE, autocommit=False)
            for name in NAMES if who else reversed(NAMES):
                db0.open(name, shared=True)
            for n in range(100):
                with db0.atomic(wait=20):
                    write()
                if n % 10 == 0:
                    try:
                        db0.compact(NAMES[who], keep_states=2)
                    except db0.LeaseError:
                        pass
            send("done")
            db0.close()

        return body

    children = [Forked(work(who)) for who in range(2)]
    try:
        assert [child.drain(60) for child in children] == [["done"]] * 2
    finally:
        for child in children:
            child.kill()
    init(root)
    with db0.atomic():
        assert same() == 200
