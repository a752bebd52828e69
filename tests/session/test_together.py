"""commit() of several prefixes: all of it or nothing, whoever dies when, and whoever looks from where."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dbzero as db0
from dbzero.session.together import consistent_states
from dbzero.session.workspace import active
from dbzero.storage import together
from dbzero.storage.verify import check_root
from tests.session.forks import Forked, kill_at
from tests.worker import RemoteError, Worker

Send = Callable[[Any], None]


@db0.memo(singleton=True, prefix="left", id="tests/together/Left")
class Left:
    def __init__(self) -> None:
        self.table: dict[int, int] = {}
        self.stamp = bytes(8)


@db0.memo(singleton=True, prefix="right", id="tests/together/Right")
class Right:
    def __init__(self) -> None:
        self.numbers = [0] * 10
        self.stamp = bytes(8)


def write(serial: int) -> None:
    left, right = Left(), Right()
    left.table[serial % 20] = serial
    left.stamp = serial.to_bytes(8, "little")
    right.numbers[:] = [serial] * 10
    right.stamp = serial.to_bytes(8, "little")


def read() -> tuple[int, int]:
    """The serial in either prefix. (Fetched: to construct a singleton would open its prefix for writing.)"""
    right = db0.fetch(Right)
    serial = int.from_bytes(right.stamp, "little")
    assert set(right.numbers) == {serial}
    return int.from_bytes(db0.fetch(Left).stamp, "little"), serial


def stamp(name: str, oid: int, state: int) -> int:
    """The serial in one prefix at one state."""
    found = active().get(name).prefix.read(oid, state)
    assert found is not None
    return int.from_bytes(found[0][-8:], "little")


# --- in one process --------------------------------------------------------------------------------------------------------------------------


def test_all_or_nothing_when_one_cannot(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    db0.init(root, autocommit=False)
    write(1)
    db0.commit()
    states = db0.get_state_num("left"), db0.get_state_num("right")
    write(2)
    first = min(("left", "right"), key=lambda name: active().get(name).prefix.uuid)
    store = active().get(first).prefix.store

    def fail(**options: Any) -> int:
        raise db0.DiskFullError("no space for a test")

    for failing in (active().get("left").prefix.store, active().get("right").prefix.store):
        with monkeypatch.context() as patch:
            patch.setattr(failing, "append", fail)
            with pytest.raises(db0.DiskFullError):
                db0.commit()
        assert (db0.get_state_num("left"), db0.get_state_num("right")) == states
        assert read() == (2, 2)  # still pending
    assert store.position[1] == db0.get_state_num(first, finalized=True)
    db0.commit()
    assert (db0.get_state_num("left"), db0.get_state_num("right")) == (states[0] + 1, states[1] + 1)
    db0.close()
    db0.init(root)
    assert read() == (2, 2)


def test_one_prefix_alone_is_as_ever(root: str) -> None:
    db0.init(root, autocommit=False)
    write(1)
    db0.commit()
    before = db0.get_state_num("right", finalized=True)
    Left().stamp = bytes(8)
    db0.commit()
    assert db0.get_state_num("right", finalized=True) == before
    write(2)
    db0.commit("left")
    assert db0.get_state_num("right", finalized=True) == before
    db0.commit()
    assert db0.get_state_num("right", finalized=True) == before + 1
    db0.commit()
    assert db0.get_state_num("right", finalized=True) == before + 1


def test_autocommit_and_the_end_commit_as_one(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = together.commit
    monkeypatch.setattr(together, "commit", lambda shares, *rest: (made.append(len(shares)), real(shares, *rest)))
    db0.init(root, autocommit_interval=30)
    write(1)
    end = time.monotonic() + 10
    while (not made or active().get("left").view.has_changes()) and time.monotonic() < end:
        time.sleep(0.01)
    assert made and made[-1] == 2
    db0.close()
    db0.init(root, autocommit=False)
    write(2)
    count = len(made)
    db0.close()
    assert made[count:] == [2]
    db0.init(root)
    assert read() == (2, 2)


def test_a_transaction_that_does_not_fit_into_the_segment(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dbzero.runtime.slot import PrefixSlot

    db0.init(root, autocommit=False)
    write(1)
    db0.commit()
    real, refusals = PrefixSlot.delta_reserve, [4]

    def refuse(self: PrefixSlot, n: int) -> bool:
        refusals[0] -= 1
        return False if refusals[0] >= 0 else real(self, n)

    monkeypatch.setattr(PrefixSlot, "delta_reserve", refuse)
    write(2)
    db0.commit()
    write(3)
    db0.commit()
    assert read() == (3, 3)


def test_signals_wait(root: str) -> None:
    db0.init(root, autocommit=False)
    write(0)
    db0.commit()

    class Ring(Exception):
        pass

    def ring(number: int, frame: object) -> None:
        raise Ring

    old = signal.signal(signal.SIGALRM, ring)
    rung = serial = 0
    try:
        for _ in range(150):
            serial += 1
            try:
                write(serial)
            except Ring:
                continue
            signal.setitimer(signal.ITIMER_REAL, 0.0002 * (serial % 20 + 1))
            try:
                db0.commit()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Ring:
                rung += 1
            left = active().get("left").prefix
            right = active().get("right").prefix
            found = consistent_states([left, right], root)
            assert stamp("left", Left()._p_oid, found["left"]) == stamp("right", Right()._p_oid, found["right"])
    except Ring:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert rung > 10
    write(9999)
    db0.commit()
    assert read() == (9999, 9999)


def test_threads_that_look_at_both(root: str) -> None:
    db0.init(root, autocommit=False)
    write(0)
    db0.commit()
    oids = Left()._p_oid, Right()._p_oid
    prefixes = [active().get(name).prefix for name in ("left", "right")]
    stop, errors, looks = threading.Event(), [], [0]

    def look() -> None:
        try:
            last = 0
            while not stop.is_set():
                found = consistent_states(prefixes, root)
                one, other = (stamp(p.name, oid, found[p.name]) for p, oid in zip(prefixes, oids, strict=True))
                assert one == other >= last, (one, other, last)
                last = one
                looks[0] += 1
                with db0.snapshot() as snapshot:
                    both = [snapshot.fetch(cls).stamp for cls in (Left, Right)]
                    assert both[0] == both[1], both
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for serial in range(1, 200):
        write(serial)
        db0.commit()
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert looks[0] > 100


# --- kills -----------------------------------------------------------------------------------------------------------------------------------


def writer_life(root: str, order: tuple[str, str]) -> Callable[[Send], None]:
    def body(send: Send) -> None:
        db0.init(root, autocommit=False)
        for name in order:
            db0.open(name)
        one, other = read()
        assert one == other, f"the writer found {one} and {other}"
        send(("found", one))
        for serial in range(one + 1, one + 6):
            write(serial)
            db0.commit()
            send(("ack", serial))
            if serial % 3 == 0:
                active().get(order[serial % 2]).prefix.checkpoint()
        db0.close()

    return body


def reader_life(root: str, orders: int) -> Callable[[Send], None]:
    """Look at both prefixes at once until told how far the writers came."""

    def body(send: Send) -> None:
        db0.init(root)
        db0.open("left", "r")
        db0.open("right", "r")
        oids = db0.fetch(Left)._p_oid, db0.fetch(Right)._p_oid
        prefixes = [active().get(name).prefix for name in ("left", "right")]
        send("ready")
        os.set_blocking(orders, False)
        last, goal, looks, deadline = 0, -1, 0, 0.0
        while goal < 0 or last < goal:
            db0.refresh()
            found = consistent_states(prefixes, root)
            one, other = (stamp(p.name, oid, found[p.name]) for p, oid in zip(prefixes, oids, strict=True))
            assert one == other >= last, f"{one} and {other}, after {last}"
            last, looks = one, looks + 1
            if goal < 0:
                try:
                    goal = int.from_bytes(os.read(orders, 4), "little")
                    deadline = time.monotonic() + 10
                except BlockingIOError:
                    pass
            assert goal < 0 or time.monotonic() < deadline, f"still at {last}, not at {goal}"
            time.sleep(0.0005)
        send(("last", last, looks))

    return body


class Rounds:
    def __init__(self, root: str) -> None:
        self.root = root
        self.least = 0

        def first(send: Send) -> None:
            db0.init(root, autocommit=False)
            write(0)
            db0.close()

        assert Forked(first).wait() == 0

    def one(self, number: int, how: str) -> bool:
        """Kill a writer at its `number`-th durable call. False when it has fewer."""
        order = ("left", "right") if number % 2 else ("right", "left")
        receive, give = os.pipe()
        reader = Forked(reader_life(self.root, receive)) if number % 3 else None
        try:
            if reader is not None:
                assert reader.receive() == "ready"

            def life(send: Send) -> None:
                kill_at(number, how)
                writer_life(self.root, order)(send)

            writer = Forked(life)
            sent = writer.drain()
            status = writer.wait()
            assert status in (0, -9), sent
            for kind, serial in sent:
                assert serial in ((self.least, self.least + 1) if kind == "found" else (self.least + 1,)), sent
                self.least = serial
            late = Forked(lambda send: send(self.look(order[::-1])))
            (seen,) = late.drain()
            assert late.wait() == 0
            assert seen in (self.least, self.least + 1)
            successor = Forked(lambda send: send(self.succeed(order if number % 4 < 2 else order[::-1])))
            (found,) = successor.drain()
            assert successor.wait() == 0
            assert found in (self.least, self.least + 1) and found >= seen
            self.least = found + 1
            if reader is not None:
                os.write(give, self.least.to_bytes(4, "little"))
                assert reader.drain()[-1][:2] == ("last", self.least)
                assert reader.wait() == 0
            assert check_root(self.root) == []
            return status == -9
        finally:
            if reader is not None:
                reader.kill()
            os.close(receive)
            os.close(give)

    def look(self, order: tuple[str, str]) -> int:
        db0.init(self.root)
        for name in order:
            db0.open(name, "r")
        oids = {"left": db0.fetch(Left)._p_oid, "right": db0.fetch(Right)._p_oid}
        found = consistent_states([active().get(name).prefix for name in oids], self.root)
        one, other = (stamp(name, oid, found[name]) for name, oid in oids.items())
        assert one == other, f"a reader found {one} and {other}"
        db0.close()
        return one

    def succeed(self, order: tuple[str, str]) -> int:
        db0.init(self.root, autocommit=False)
        for name in order:
            db0.open(name)
        one, other = read()
        assert one == other, f"a successor found {one} and {other}"
        write(one + 1)
        db0.commit()
        db0.close()
        return one


@pytest.mark.parametrize(("how", "start"), [("before", 1), ("torn", 4), ("after", 7)])
def test_kill_at_durable_calls(tmp_path: Path, how: str, start: int) -> None:
    """A few of them; DBZERO_EVERY_CALL=1 takes each."""
    every = bool(os.environ.get("DBZERO_EVERY_CALL"))
    rounds = Rounds(str(tmp_path / "root"))
    number = 1 if every else start
    while rounds.one(number, how):
        number += 1 if every else 9
        assert number < 2000
    assert number > 60


# --- takeovers -------------------------------------------------------------------------------------------------------------------------------

WRITER = """
import os, signal, time
import dbzero as db0
from dbzero.session.workspace import active
from dbzero.storage import together
from tests.session.test_together import Left, Right, read, write
db0.init(root, autocommit=False)
write(1)
db0.commit()
def freeze(*arguments):
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(0.2)  # another thread may be the one to stop first
"""

SUCCESSOR = """
import dbzero as db0
from tests.session.test_together import Left, Right, read, write
db0.init(root, autocommit=False)
force = {"force_unlock": True}
"""


def _frozen(worker: Worker) -> None:
    end = time.monotonic() + 10
    while Path(f"/proc/{worker.pid}/stat").read_text().split()[2] != "T":
        assert time.monotonic() < end
        time.sleep(0.005)


def _names(root: str) -> tuple[str, str]:
    """(coordinator, participant)."""
    db0.init(root)
    found = sorted(db0.get_prefixes(), key=lambda prefix: prefix.uuid)
    db0.close()
    return found[0].name, found[1].name


def test_frozen_before_the_decision(root: str) -> None:
    """Nobody knows what a frozen coordinator will do: the participant is in doubt until that one is taken over as well."""
    with Worker(root=root) as holder, Worker(root=root) as successor:
        holder.run(WRITER)
        first, second = _names(root)
        holder.run(
            "from dbzero.storage.prefix import Prefix; real = Prefix.append_batch\n"
            "def append(self, batch, kind, head):\n"
            "    if kind == 3: freeze()\n"
            "    real(self, batch, kind, head)\n"
            "Prefix.append_batch = append; write(2)"
        )
        holder.send("db0.commit()")
        _frozen(holder)
        successor.run(SUCCESSOR)
        with pytest.raises(RemoteError, match=f"prefix '{first}'") as caught:
            successor.run(f"db0.open({second!r}, lock_flags=force)")
        assert "InDoubtError" in caught.value.kinds
        successor.run(f"db0.open({first!r}, lock_flags=force); db0.open({second!r}, lock_flags=force)")
        assert successor.run("result = read()") == [1, 1]
        successor.run("write(3); db0.commit()")
        os.kill(holder.pid, signal.SIGCONT)
        with pytest.raises(RemoteError) as caught:
            holder.receive()
        assert {"FencedError", "PoisonedError"} & set(caught.value.kinds)
        successor.run("write(4); db0.commit(); db0.close()")
        with pytest.raises(RemoteError):
            holder.run("db0.close()")
    db0.init(root)
    assert read() == (4, 4)


def test_frozen_behind_the_decision(root: str) -> None:
    """The decision is on disk: a successor of either side finds the transaction made."""
    with Worker(root=root) as holder, Worker(root=root) as reader, Worker(root=root) as successor:
        holder.run(WRITER)
        reader.run(
            "import dbzero as db0\n"
            "from dbzero.session.together import consistent_states\n"
            "from dbzero.session.workspace import active\n"
            "from tests.session.test_together import Left, Right, stamp\n"
            "db0.init(root); db0.open('left', 'r'); db0.open('right', 'r')\n"
            "oids = {'left': db0.fetch(Left)._p_oid, 'right': db0.fetch(Right)._p_oid}\n"
            "def both():\n"
            "    found = consistent_states([active().get(n).prefix for n in oids], root)\n"
            "    return [stamp(n, oids[n], found[n]) for n in oids]\n"
        )
        _, second = _names(root)
        holder.run("together._show = freeze; write(2)")
        holder.send("db0.commit()")
        _frozen(holder)
        assert reader.run("result = both()") == [1, 1]
        successor.run(SUCCESSOR)
        successor.run(f"db0.open({second!r}, lock_flags=force)")  # shown here, and not yet in the other one
        reader.run("db0.refresh()")
        assert reader.run("result = both()") == [1, 1]
        name = "right" if second == "left" else "left"
        successor.run(f"db0.open({name!r}, lock_flags=force)")
        assert successor.run("result = read()") == [2, 2]
        reader.run("db0.refresh()")
        assert reader.run("result = both()") == [2, 2]
        successor.run("write(3); db0.commit(); db0.close()")
        reader.run("db0.close()")
        holder.kill()
    db0.init(root)
    assert read() == (3, 3)


def test_dropping_the_coordinator_settles_the_others_first(root: str) -> None:
    def life(send: Send) -> None:
        db0.init(root, autocommit=False)
        write(1)
        db0.commit()
        write(2)
        together._show = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        db0.commit()

    writer = Forked(life)
    writer.drain()
    assert writer.wait() == -9
    first, second = _names(root)
    db0.init(root, autocommit=False)
    db0.drop(first)
    db0.open(second)
    assert stamp(second, db0.fetch(Left if second == "left" else Right)._p_oid, active().get(second).prefix.head()) == 2


def test_a_block_commits_all_it_touched_or_nothing(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    db0.init(root, autocommit=False)
    write(1)
    db0.commit()
    made: list[int] = []
    real = together.commit
    monkeypatch.setattr(together, "commit", lambda shares, *rest: (made.append(len(shares)), real(shares, *rest)))
    with db0.atomic(commit=True):
        write(2)
    assert made == [2]
    assert not any(active().get(name).view.has_changes() for name in ("left", "right"))
    with pytest.raises(ZeroDivisionError), db0.atomic(commit=True):
        write(3)
        _ = 1 // 0
    assert read() == (2, 2) and made == [2]


def test_reopened_in_the_same_process_after_a_failed_sync(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    db0.init(root, autocommit=False)
    write(1)
    db0.commit()
    first, second = _sorted()
    for failing in (first, second, first):
        store = active().get(failing).prefix.store
        write(5)
        with monkeypatch.context() as patch:
            patch.setattr(store._log, "sync", _raise(store))
            with pytest.raises(db0.PoisonedError):
                db0.commit()
        for name in (second, first):
            with contextlib.suppress(db0.Error):
                active().close(name, commit=False)  # what is pending there is pending there alone
        for name in (second, first):
            db0.open(name)
        one, other = read()
        assert one == other
        write(one + 1)
        db0.commit()
        assert read() == (one + 1, one + 1)


def _sorted() -> tuple[str, str]:
    names = sorted(("left", "right"), key=lambda name: active().get(name).prefix.uuid)
    return names[0], names[1]


def _raise(store: Any) -> Callable[[Any], None]:
    def sync(writer: Any) -> None:
        raise store._log.poison(OSError(5, "a test"), writer.path)

    return sync
