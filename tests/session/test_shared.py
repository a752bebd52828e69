"""Prefixes that several processes write, one transaction at a time."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import dbzero as db0
from dbzero.session.workspace import active
from dbzero.storage import sharing
from dbzero.storage.syscalls import System
from tests.scripts import run
from tests.session.forks import Forked, kill_at
from tests.session.test_processes import _segment_file
from tests.worker import RemoteError, Worker

CACHE = 64 << 20
SETUP = """
import os, signal, time
import dbzero as db0
@db0.memo(id="tests/shared/Item")
class Item:
    def __init__(self, who, n):
        self.who, self.n = who, n
@db0.memo(singleton=True, id="tests/shared/Board")
class Board:
    def __init__(self):
        self.value = 0
        self.items = []
def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return bool(condition())
"""
SHARED = (
    SETUP + 'db0.init(root, prefix="p", shared=True, cache_size=64 << 20)\nwith db0.atomic():\n    board = Board()\n'
)
BUMP = "with db0.atomic(timeout={timeout}):\n    board.value += 1\n"


@db0.memo(id="tests/shared/Item")
class Item:
    def __init__(self, who: int, n: int) -> None:
        self.who = who
        self.n = n


@db0.memo(singleton=True, id="tests/shared/Board")
class Board:
    def __init__(self) -> None:
        self.value = 0
        self.items: Any = []


def init(root: str, **settings: Any) -> Any:
    db0.init(root, prefix="p", shared=True, cache_size=CACHE, **settings)
    with db0.atomic():
        return Board()


def raised(code: Callable[[], object]) -> tuple[str, str]:
    try:
        code()
    except RemoteError as error:
        return error.kinds[0], error.text
    return "", ""


def together(*bodies: Callable[[Callable[[Any], None]], object], timeout: float = 60) -> list[list[Any]]:
    """Run every body in a process of its own; what each sent."""
    children = [Forked(body) for body in bodies]
    try:
        sent = [child.drain(timeout) for child in children]
        assert [child.wait() for child in children] == [0] * len(children), sent
        return sent
    finally:
        for child in children:
            child.kill()


@db0.transaction
def bump() -> int:
    board = Board()
    board.value += 1
    return int(board.value)


# --- what is promised --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [16 << 20, 20_000])
def test_no_update_is_lost(root: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters, new objects and their ids, failing transactions in between; with and without checkpoints on the way."""
    monkeypatch.setattr(sharing, "LOG_LIMIT", limit)

    def work(who: int) -> Callable[[Callable[[Any], None]], object]:
        def body(send: Callable[[Any], None]) -> None:
            board = init(root)
            seen = -1
            for n in range(60):
                assert board.value >= seen
                with db0.atomic():
                    board.value += 1
                    seen = board.value
                    board.items.append(Item(who, n))
                if n % 7 == 0:
                    with pytest.raises(ZeroDivisionError), db0.atomic():
                        board.value += 100
                        board.items.append(Item(who, -1))
                        board.extra = Item(who, 1 / 0)
                assert board.value >= seen
            send(seen)
            db0.close()

        return body

    sent = together(*(work(who) for who in range(3)))
    assert max(seen for (seen,) in sent) <= 180
    board = init(root)
    assert board.value == 180
    pairs = [(item.who, item.n) for item in board.items]
    assert sorted(pairs) == [(who, n) for who in range(3) for n in range(60)]
    assert len({db0.uuid(item) for item in board.items}) == 180
    assert [n for who, n in pairs if who == 1] == list(range(60))
    db0.close()
    assert not [name for name in os.listdir(root) if ".redo." in name]


def test_a_write_outside_a_transaction_is_refused(root: str) -> None:
    board = init(root)
    numbers = board.items

    def construct() -> None:
        Item(1, 1)

    def assign() -> None:
        board.value = 1

    def delete() -> None:
        db0.delete(board)

    for write in (construct, assign, delete, lambda: numbers.append(1), lambda: db0.dict({"a": 1})):
        with pytest.raises(db0.OutsideTransactionError, match=r"prefix 'p' is open shared.*db0.atomic"):
            write()
    db0.commit()
    assert (board.value, len(numbers)) == (0, 0)
    with db0.atomic():
        board.value = 1
        numbers.append(2)
    assert (board.value, list(numbers)) == (1, [2])
    with pytest.raises(db0.OutsideTransactionError):
        board.value = 2
    state = db0.get_state_num()
    with db0.atomic():
        assert board.value == 1
    assert db0.get_state_num() == state


def test_what_needs_a_prefix_for_itself_says_so(root: str) -> None:
    init(root)
    with pytest.raises(db0.PrefixError, match="shared"):
        db0.collect_cycles()


def test_tags_and_finds_are_everybody_s(root: str) -> None:
    def work(who: int) -> Callable[[Callable[[Any], None]], object]:
        def body(send: Callable[[Any], None]) -> None:
            init(root)
            for n in range(20):
                with db0.atomic():
                    before = len(db0.find(Item, "even"))
                    item = Item(who, n)
                    db0.tags(item).add("odd" if n % 2 else "even", f"by{who}")
                    assert len(db0.find(Item, "even")) == before + (n % 2 == 0)
                with pytest.raises(ZeroDivisionError), db0.atomic():
                    db0.tags(Item(who, 100)).add("even")
                    1 / 0
            db0.close()

        return body

    together(work(0), work(1), work(2))
    init(root)
    assert [len(db0.find(Item, *tags)) for tags in ((), ("even",), ("odd",), ("by1", "even"))] == [60, 30, 30, 10]


def test_an_exception_leaves_everything_as_it_was(root: str) -> None:
    board = init(root)
    with db0.atomic():
        board.items.append(Item(1, 1))
    item = board.items[0]
    with pytest.raises(KeyError), db0.atomic():
        board.items.clear()
        board.value = 9
        db0.delete(item)
        made = Item(2, 2)
        with db0.atomic():
            board.other = made
        raise KeyError
    assert (board.value, [i.n for i in board.items], item.n) == (0, [1], 1)
    with pytest.raises(db0.ReferenceError):
        made.n
    with pytest.raises(AttributeError):
        board.other
    with db0.atomic():
        board.items.append(Item(3, 3))
    assert [i.n for i in board.items] == [1, 3]


def test_everybody_sees_and_follows(root: str) -> None:
    with Worker(root=root) as one, Worker(root=root) as two, Worker(root=root) as reader:
        one.run(SHARED)
        two.run(SHARED)
        reader.run(SETUP + 'db0.init(root, prefix="p", read_write=False); board = Board()')
        for n in range(1, 20):
            (one, two)[n % 2].run("with db0.atomic(): board.value += 1; board.items.append(Item(1, board.value))")
            for other in (one, two, reader):
                assert other.run(f"result = until(lambda: board.value == {n}), len(board.items)") == [True, n]
        assert one.run("result = next(iter(db0.get_mutable_prefixes())).name") == "p"


def test_shared_and_exclusive_keep_each_other_out(root: str) -> None:
    with Worker(root=root) as shared, Worker(root=root) as other:
        shared.run(SHARED)
        other.run(SETUP + "db0.init(root)")
        kind, text = raised(lambda: other.run("db0.open('p')"))
        assert kind == "LeaseError" and str(shared.pid) in text and "shared" in text
        assert other.run("db0.open('p', shared=True); db0.close('p'); result = 1") == 1
        shared.run("db0.close()")
        other.run("db0.open('p')")
        kind, text = raised(lambda: shared.run(SHARED))
        assert kind == "LeaseError" and str(other.pid) in text
        shared.run("db0.close()")
        assert raised(lambda: other.run("db0.open('p', shared=True)"))[0] == "PrefixError"
        shared.send(SHARED.replace("shared=True", "shared=True, lock_flags={'blocking': True, 'timeout': 20}"))
        time.sleep(0.1)
        other.run("db0.close()")
        shared.receive()
        shared.run(BUMP.format(timeout=10))


def test_the_last_to_leave_leaves_one_clean_file(root: str) -> None:
    board = init(root)
    with Worker(root=root) as other:
        other.run(SHARED)
        other.run(BUMP.format(timeout=10))
        db0.close()
        assert [name for name in os.listdir(root) if ".redo." in name]
        other.run(BUMP.format(timeout=10))
    assert sorted(os.listdir(root)) == [".dbzero", "p.db0", "p.db0.lock"]
    db0.init(root, prefix="p")
    board = Board()
    assert board.value == 2
    board.value = 3
    db0.close()
    assert init(root).value == 3


# --- holders that end badly --------------------------------------------------------------------------------------------


def test_a_killed_holder_is_replaced_within_a_second(root: str) -> None:
    board = init(root)
    with Worker(root=root) as holder:
        holder.run(SHARED)
        holder.run("block = db0.begin_atomic(); board.value = 77; board.items.append(Item(1, 1))")
        with pytest.raises(db0.TurnTimeoutError, match=str(holder.pid)), db0.atomic(wait=0.2):
            pass
        holder.kill()
        before = time.monotonic()
        with db0.atomic():
            board.value += 1
        assert time.monotonic() - before < 1
        assert (board.value, len(board.items)) == (1, 0)


@pytest.mark.parametrize("how", ["before", "after", "torn"])
def test_killed_at_every_step_of_a_commit(root: str, how: str) -> None:
    """A process is killed at its n-th durable call; the others go on from exactly what was acknowledged, or one more."""
    board = init(root)
    value = 0
    for number in range(1, 12):

        def body(send: Callable[[Any], None], number: int = number) -> None:
            mine = Board()
            kill_at(number, how)
            with db0.atomic():
                mine.value += 1
                mine.items.append(Item(number, number))
            send(mine.value)
            with db0.atomic():
                mine.value += 1

        child = Forked(body)
        acknowledged = [v for v in child.drain() if isinstance(v, int)]
        child.wait()
        with db0.atomic():
            assert board.value >= max(acknowledged, default=value)
            assert board.value <= value + 2
            value = board.value = board.value + 1
        if child.status == 0:
            break
    assert len(board.items) <= number


def test_a_stopped_holder_is_fenced(root: str) -> None:
    board = init(root)
    with Worker(root=root) as holder:
        holder.run(SHARED)
        for n in range(3):
            holder.run("block = db0.atomic(timeout=0.3); block.begin(); board.value += 100")
            os.kill(holder.pid, signal.SIGSTOP)
            before = time.monotonic()
            with db0.atomic():
                board.value += 1
            assert 0.1 < time.monotonic() - before < 2
            os.kill(holder.pid, signal.SIGCONT)
            kind, text = raised(lambda: holder.run("block.close()"))
            assert kind == "FencedError" and "p" in text
            assert holder.run(f"result = until(lambda: board.value == {2 * n + 1})")
            holder.run("block = None\n" + BUMP.format(timeout=5))
            with db0.atomic():
                assert board.value == 2 * n + 2


def test_who_is_stopped_outside_a_transaction_holds_nobody_up(root: str) -> None:
    board = init(root)
    with Worker(root=root) as other:
        other.run(SHARED)
        other.run(BUMP.format(timeout=5))
        os.kill(other.pid, signal.SIGSTOP)
        before = time.monotonic()
        for _ in range(20):
            with db0.atomic():
                board.value += 1
        assert time.monotonic() - before < 2
        os.kill(other.pid, signal.SIGCONT)
        other.run(BUMP.format(timeout=5))
        assert board.value in (21, 22)
        with db0.atomic():
            assert board.value == 22


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_dead_and_stopped_waiters_are_passed_over(root: str, number: signal.Signals) -> None:
    board = init(root)
    with Worker(root=root) as first, Worker(root=root) as second:
        first.run(SHARED)
        second.run(SHARED)
        block = db0.begin_atomic()
        first.send(BUMP.format(timeout=5))
        waiting(1)
        second.send("began = time.monotonic()\n" + BUMP.format(timeout=5) + "result = time.monotonic() - began")
        waiting(2)
        os.kill(first.pid, number)
        board.value = 10
        before = time.monotonic()
        block.close()
        second.receive()
        assert time.monotonic() - before < 1
        with db0.atomic():
            assert board.value == 11
        if number == signal.SIGSTOP:
            os.kill(first.pid, signal.SIGCONT)
            first.receive()
            with db0.atomic():
                assert board.value == 12
        else:
            first.process.wait()


def waiting(n: int) -> None:
    """Sleep until `n` processes wait for the turn."""
    prefix = active().get("p").prefix
    assert isinstance(prefix, sharing.SharedPrefix)
    end = time.monotonic() + 10
    while prefix.turn_status().waiting != n:
        assert time.monotonic() < end
        time.sleep(0.002)


def test_turns_come_in_order_of_arrival(root: str) -> None:
    board = init(root)
    workers = [Worker(root=root) for _ in range(4)]
    try:
        for worker in workers:
            worker.run(SHARED)
        block = db0.begin_atomic()
        for place, worker in enumerate(workers):
            worker.send(f"with db0.atomic():\n    board.items.append({place})\n")
            waiting(place + 1)
        block.close()
        for worker in workers:
            worker.receive()
        with db0.atomic():
            assert list(board.items) == [0, 1, 2, 3]
    finally:
        for worker in workers:
            worker.stop()


def test_a_failed_sync_is_one_process_s_end_of_writing_and_nobody_else_s(root: str) -> None:
    with Worker(root=root) as failing, Worker(root=root) as other, Worker(root=root) as reader:
        failing.run(SHARED)
        other.run(SHARED)
        reader.run(SETUP + 'db0.init(root, prefix="p", read_write=False); board = Board()')
        other.run(BUMP.format(timeout=5))
        failing.run(
            """
            from dbzero.storage.syscalls import System
            def fail(self, fd):
                raise OSError(5, "Input/output error")
            real, System.fdatasync = System.fdatasync, fail
            """
        )
        assert raised(lambda: failing.run(BUMP.format(timeout=5)))[0] == "PoisonedError"
        other.run(BUMP.format(timeout=5))
        value = other.run("result = board.value")
        assert value in (2, 3)
        assert reader.run(f"result = until(lambda: board.value == {value})")
        assert raised(lambda: failing.run(BUMP.format(timeout=5)))[0] == "PoisonedError"
        assert failing.run(f"result = until(lambda: board.value == {value})")
        failing.run("System.fdatasync = real; db0.close()\n" + SHARED + BUMP.format(timeout=5))
        assert other.run(f"result = until(lambda: board.value == {value + 1})")


def test_an_exclusive_writer_can_take_over_by_force(root: str) -> None:
    with Worker(root=root) as shared, Worker(root=root) as exclusive:
        shared.run(SHARED)
        shared.run(BUMP.format(timeout=5))
        exclusive.run(SETUP + "db0.init(root, autocommit=False); db0.open('p', lock_flags={'force_unlock': True})")
        exclusive.run("board = Board(); board.value += 10; db0.commit()")
        assert raised(lambda: shared.run("with db0.atomic(wait=5): board.value += 100"))[0] == "FencedError"
        assert shared.run("result = until(lambda: board.value == 11)")
        assert raised(lambda: shared.run("db0.close()"))[0] == ""
        exclusive.run("db0.close()")
        shared.run(SHARED)
        assert shared.run("result = board.value") == 11


def test_other_shared_memory_is_told_apart(root: str) -> None:
    with Worker(root=root) as one, Worker(root=root) as other:
        one.run(SHARED)
        _segment_file(root).unlink()  # what another container has by nature
        other.run(SETUP + "db0.init(root)")
        kind, text = raised(lambda: other.run("db0.open('p', shared=True)"))
        assert kind == "LeaseError" and "shared memory" in text
        other.run("db0.open('p', 'r'); board = Board()")
        one.run(BUMP.format(timeout=5))
        assert other.run("result = until(lambda: board.value == 1)")
        one.run(BUMP.format(timeout=5))
        assert other.run("result = until(lambda: board.value == 2)")


# --- one sync for many -------------------------------------------------------------------------------------------------


def test_one_sync_serves_several_commits(root: str) -> None:
    """With a disk that takes 10 ms to sync, three writers need fewer syncs than commits, and each has its commit durable."""
    init(root)
    db0.close()

    def body(send: Callable[[Any], None]) -> None:
        board = init(root)
        real, count = System.fdatasync, [0]

        def slow(self: System, fd: int) -> None:
            count[0] += 1
            time.sleep(0.01)
            real(self, fd)

        with db0.atomic():
            board.items.append(os.getpid())
        while len(board.items) < 3:
            time.sleep(0.001)
        System.fdatasync = slow  # type: ignore[method-assign]
        for _ in range(30):
            with db0.atomic():
                board.value += 1
            assert active().get("p").prefix._slot.durable >= db0.get_state_num()
        send(count[0])
        os._exit(0)

    syncs = sum(sent[0] for sent in together(body, body, body))
    assert init(root).value == 90
    assert syncs < 75


# --- threads, tasks, forks ---------------------------------------------------------------------------------------------


def test_threads_take_turns_too(root: str) -> None:
    board = init(root)

    def work() -> None:
        for _ in range(30):
            bump()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    other = Forked(lambda send: [bump() for _ in range(30)])
    for thread in threads:
        thread.join()
    assert other.wait() == 0
    with db0.atomic():
        assert board.value == 120


def test_tasks_take_turns_too(root: str) -> None:
    board = init(root)

    @db0.transaction(timeout=5, wait=20)
    async def slow_bump() -> None:
        seen = board.value
        await asyncio.sleep(0.001)
        board.value = seen + 1

    async def main() -> float:
        longest, stop = 0.0, False

        async def heartbeat() -> None:
            nonlocal longest
            while not stop:
                before = time.monotonic()
                await asyncio.sleep(0)
                longest = max(longest, time.monotonic() - before)
                await asyncio.sleep(0.001)

        beat = asyncio.ensure_future(heartbeat())
        await asyncio.gather(*(slow_bump() for _ in range(20)))
        stop = True
        await beat
        return longest

    with Worker(root=root) as other:
        other.run(SHARED)
        other.send("with db0.atomic(timeout=5):\n    time.sleep(0.5); board.value += 1\n")
        time.sleep(0.1)
        assert asyncio.run(main()) < 0.3  # nobody's wait held the loop up
        other.receive()
    assert board.value == 21


def test_a_cancelled_task_gives_its_turn_back(root: str) -> None:
    board = init(root)

    async def main() -> None:
        async def wait_for_turn() -> None:
            async with db0.atomic():
                board.value = 99

        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(wait_for_turn(), 0.1)
        with pytest.raises(db0.TurnTimeoutError):
            async with db0.atomic(wait=0.05):
                pass

    with Worker(root=root) as other:
        other.run(SHARED)
        other.send("with db0.atomic(timeout=5):\n    time.sleep(0.4); board.value += 1\n")
        time.sleep(0.1)
        asyncio.run(main())
        other.receive()
        other.run(BUMP.format(timeout=5))
    with db0.atomic():
        assert board.value == 2


def test_handles_made_before_a_fork_write_in_the_child(root: str) -> None:
    board = init(root)
    with db0.atomic():
        board.items.append(Item(0, 0))
    item = board.items[0]

    def body(send: Callable[[Any], None]) -> None:
        for _ in range(20):
            with db0.atomic():
                item.n += 1
                board.items.append(Item(os.getpid(), item.n))
        send(board.value)

    sent = together(body, body, body)
    assert sent == [[0]] * 3
    with db0.atomic():
        assert item.n == 60
    assert [i.n for i in board.items] == [0 if n == 0 else n for n in range(61)] or sorted(
        i.n for i in list(board.items)[1:]
    ) == list(range(1, 61))
    assert len({db0.uuid(i) for i in board.items}) == 61


def test_a_forked_reader_follows(root: str) -> None:
    board = init(root)

    def body(send: Callable[[Any], None]) -> None:
        end = time.monotonic() + 10
        while board.value != 5 and time.monotonic() < end:
            time.sleep(0.001)
        send(board.value)

    child = Forked(body)
    with db0.atomic():
        board.value = 5
    assert child.receive() == 5
    assert child.wait() == 0


def test_a_child_of_an_exclusive_writer_follows_it(root: str) -> None:
    db0.init(root, prefix="p", autocommit=False)
    board = Board()
    db0.commit()

    def body(send: Callable[[Any], None]) -> None:
        end = time.monotonic() + 10
        while board.value != 5 and time.monotonic() < end:
            time.sleep(0.001)
        send(board.value)
        with pytest.raises(db0.ForkedError):
            board.value = 6
        with pytest.raises(db0.ForkedError):
            db0.commit()

    child = Forked(body)
    board.value = 5
    db0.commit()
    assert child.receive() == 5
    assert child.wait() == 0
    board.value = 7
    db0.commit()


def test_a_fork_within_a_transaction(root: str) -> None:
    board = init(root)
    with db0.atomic():
        board.value = 1

        def body(send: Callable[[Any], None]) -> None:
            send(board.value)
            with pytest.raises(db0.OutsideTransactionError):
                board.value = 50
            with db0.atomic(wait=10):
                board.value += 10
            send(board.value)

        child = Forked(body)
        assert child.receive() == 0
    assert child.receive() == 11
    assert child.wait() == 0
    with db0.atomic():
        assert board.value == 11


def _join(root: str) -> None:
    init(root)


def _bump(_: int) -> int:
    return bump()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_process_pools(root: str, method: str) -> None:
    board = init(root)
    context = multiprocessing.get_context(method)
    how: dict[str, Any] = {} if method == "fork" else {"initializer": _join, "initargs": (root,)}
    with context.Pool(2, **how) as pool:
        assert len(set(pool.map(_bump, range(10)))) == 10
    with ProcessPoolExecutor(2, mp_context=context, **how) as executor:
        assert len(set(executor.map(_bump, range(10)))) == 10
    with db0.atomic():
        assert board.value == 20


def test_more_waiters_than_places_in_the_line(root: str) -> None:
    board = init(root)
    prefix = active().get("p").prefix
    assert isinstance(prefix, sharing.SharedPrefix)
    turns = prefix._turns
    block = db0.begin_atomic()
    taken = [turns._join(0.0) for _ in range(64)]
    assert -1 not in taken and turns._join(0.0) == -1
    with Worker(root=root) as other:
        other.run(SHARED.replace("with db0.atomic():", "if True:"))
        other.send(BUMP.format(timeout=5))
        time.sleep(0.05)
        board.value = 1
        for entry in taken:
            active().segment.handle
            from dbzero._engine import lib

            lib.dbz_turn_leave(active().segment.handle, turns.slot.index, entry)
        block.close()
        other.receive()
    with db0.atomic():
        assert board.value == 2


# --- status ------------------------------------------------------------------------------------------------------------


def test_status_tells_who_is_there_and_whose_turn_it_is(root: str) -> None:
    board = init(root)
    with Worker(root=root) as waiter, Worker(root=root) as reader:
        waiter.run(SHARED)
        reader.run("import dbzero as db0; db0.init(root, prefix='p', read_write=False); s = db0.get_state_num()")
        with db0.atomic():
            board.value = 1
            waiter.send(BUMP.format(timeout=5))
            waiting(1)
            found = db0.status()
            assert {p["pid"] for p in found["processes"] if p["live"]} == {os.getpid(), waiter.pid, reader.pid}
            entry = found["prefixes"]["p"]
            assert (entry["writer"], entry["mode"], entry["turn_pid"]) == ("shared", "shared", os.getpid())
            assert entry["queue"] == [waiter.pid] and 5 < entry["turn_left"] <= 10 and entry["pending"] >= 1
        waiter.receive()
        assert reader.run("result = db0.wait('p', s + 2, 10000)")
        os.kill(reader.pid, signal.SIGSTOP)
        with db0.atomic():
            board.value += 1
        time.sleep(0.2)
        found = db0.status()
        (pin,) = (pin for p in found["processes"] if p["pid"] == reader.pid for pin in p["pins"])
        assert pin["prefix"] == "p" and pin["behind"] == 1 and 0.1 < pin["age"] < 60
        os.kill(reader.pid, signal.SIGCONT)
        entry = found["prefixes"]["p"]
        assert entry["turn_pid"] is None and entry["queue"] == [] and entry["published"] == entry["durable"]
        assert found["segment"]["reserved"] <= found["segment"]["size"] and found["root"] == root
        assert reader.run("result = db0.status()['prefixes']['p']['mode']") == "r"


def test_status_on_the_command_line(root: str) -> None:
    init(root)
    command = ("-m", "dbzero", "status", "--root", root)
    shown = run(*command, cwd=Path(root))
    assert str(os.getpid()) in shown and "shared" in shown and "Processes" in shown
    db0.close()
    assert "No process uses it." in run(*command, cwd=Path(root))


def test_a_fork_that_runs_no_hooks_is_told_so(root: str, tmp_path: Path) -> None:
    """Programs that embed Python, as uwsgi does, may fork without telling it."""
    script = tmp_path / "bare.py"
    script.write_text(
        SHARED.replace("root,", f"{root!r},")
        + """
import ctypes
child = ctypes.PyDLL(None).fork()
if child == 0:
    try:
        with db0.atomic():
            board.value += 1
    except db0.ForkedError as error:
        print("prefix 'p'" in str(error), "--py-call-uwsgi-fork-hooks" in str(error), flush=True)
    os._exit(0)
os.waitpid(child, 0)
with db0.atomic():
    board.value += 1
print(board.value)
"""
    )
    assert run(script, cwd=tmp_path) == "True True\n1\n"
