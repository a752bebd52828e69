"""A holder that is stopped, poisoned or killed, who comes after it, and who watches."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

import dbzero as db0
from dbzero.runtime import registry
from dbzero.session.workspace import active
from tests.session.test_processes import READER, SETUP, WRITER
from tests.worker import RemoteError, Worker


def raised(code: Callable[[], object]) -> str:
    try:
        code()
    except RemoteError as error:
        return error.kinds[0]
    return ""


def test_readers_follow_past_a_forced_takeover(root: str) -> None:
    """The story: a forced successor works in a fresh slot of the segment. Readers stayed on the old one and never saw a commit again, without an error."""
    with Worker(root=root) as holder, Worker(root=root) as reader, Worker(root=root) as successor:
        holder.run(WRITER)
        reader.run(READER)
        holder.run("counter.value = 1; db0.commit(); counter.value = 66; counter.items.append(Item(3))")
        assert reader.run("result = until(lambda: counter.value == 1)")
        reader.run("items = counter.items")
        os.kill(holder.pid, signal.SIGSTOP)
        successor.run(SETUP + "db0.init(root, autocommit=False)")
        before = time.monotonic()
        assert raised(lambda: successor.run("db0.open('p')")) == "LeaseError"
        assert time.monotonic() - before < 2
        successor.run("db0.open('p', lock_flags={'force_unlock': True}); counter = Counter()")
        assert successor.run("result = counter.value, len(counter.items)") == [1, 0]
        successor.run("counter.value = 2; counter.items.append(Item(7)); db0.commit()")
        assert reader.run("result = until(lambda: counter.value == 2)")
        assert reader.run("result = [i.n for i in items]") == [7]

        os.kill(holder.pid, signal.SIGCONT)
        assert raised(lambda: holder.run("db0.commit()")) == "FencedError"
        assert raised(lambda: holder.run("db0.commit()")) == "FencedError"
        assert raised(lambda: holder.run("db0.close()")) == "FencedError"
        holder.run("db0.init(root); db0.open('p', 'r'); counter = Counter()")
        assert holder.run("result = counter.value, [i.n for i in counter.items]") == [2, [7]]

        successor.run("counter.value = 3; db0.commit()")
        assert reader.run("result = until(lambda: counter.value == 3)")
        successor.kill()
        with Worker(root=root) as third:
            third.run(WRITER)
            assert third.run("result = counter.value") == 3
            third.run("counter.value = 4; db0.commit()")
            assert reader.run("result = until(lambda: counter.value == 4)")


def test_readers_follow_past_a_poisoned_writer(root: str) -> None:
    """The story: the successor of a poisoned writer begins the slot anew. Attached readers got StaleViewError from then on, for ever."""
    with Worker(root=root) as writer, Worker(root=root) as reader:
        writer.run(WRITER)
        reader.run(READER)
        writer.run("counter.value = 1; counter.items.append(Item(1)); db0.commit()")
        assert reader.run("result = until(lambda: counter.value == 1)")
        writer.run(
            """
            from dbzero.storage.syscalls import System
            def fail(self, fd):
                raise OSError(5, "Input/output error")
            real, System.fdatasync = System.fdatasync, fail
            counter.value = 2
            """
        )
        assert raised(lambda: writer.run("db0.commit()")) == "PoisonedError"
        assert reader.run("db0.clear_cache(); result = counter.value, len(counter.items)") == [1, 1]
        with Worker(root=root) as late:
            late.run(READER)
            assert late.run("result = counter.value") in (1, 2)
            assert reader.run("db0.clear_cache(); result = counter.value in (1, 2), len(counter.items)") == [True, 1]
            writer.run("System.fdatasync = real")
            raised(lambda: writer.run("db0.close()"))
            writer.run(WRITER)
            writer.run("counter.value = 5; db0.commit()")
            assert reader.run("result = until(lambda: counter.value == 5)")
            assert late.run("result = until(lambda: counter.value == 5)")


def test_views_pin_what_they_show_until_they_die(root: str) -> None:
    db0.init(root, autocommit=False)
    db0.open("p")
    numbers = db0.list([1])
    db0.commit()
    segment = active().segment

    def pins() -> dict[int, int]:
        return {p.pid: state for p in registry.processes(segment) for _, state in p.pins}

    assert pins() == {os.getpid(): db0.get_state_num(finalized=True)}
    with Worker(root=root) as reader:
        reader.run("import dbzero as db0; db0.init(root); db0.open('p', 'r')")
        assert pins()[reader.pid] == db0.get_state_num(finalized=True)
        numbers.append(2)
        db0.commit()
        state = db0.get_state_num(finalized=True)
        assert reader.run(f"result = db0.wait('p', {state}, 10000)")
        assert pins() == {os.getpid(): state, reader.pid: state}
        reader.kill()
        time.sleep(0.02)
        numbers.append(3)
        db0.commit()
        assert pins() == {os.getpid(): state + 1}
    db0.close("p")
    assert pins() == {}


def test_fetch_beside_a_moving_view(root: str) -> None:
    """The story: an object was read at one state, the view moved on, and what had been read was put into the newer view, to stay until the object's
    next change."""
    db0.init(root, autocommit=False)
    db0.open("p")
    pair = db0.list([db0.list([0]), db0.list([0])])
    db0.commit()
    view = active().current().view
    oid = pair[0]._p_oid
    state = view.state
    pair[0][0] = 1
    db0.commit()
    del pair
    db0.clear_cache()
    moved = view.state
    view.state = state
    real = view.records.read

    class Moving:
        def __getattr__(self, name: str) -> object:
            return getattr(records, name)

        def read(self, wanted: int, at: int) -> object:
            found = real(wanted, at)
            view.state = moved
            return found

    records = view.records
    view.records = Moving()
    try:
        found = view.get(oid)
    finally:
        view.records = records
    assert found[0] == 1


def test_a_forked_reader_keeps_reading(root: str) -> None:
    """Forks while other threads read and commit: the child's handles work, and its end harms nobody."""
    db0.init(root, autocommit_interval=1)
    db0.open("p")
    numbers = db0.list(range(100))
    db0.commit()
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            numbers.append(1)
            db0.clear_cache()
            if len(numbers) > 300:
                del numbers[100:]

    threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(20):
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                status = 1
                try:
                    assert list(numbers)[:100] == list(range(100))
                    db0.clear_cache()
                    assert len(numbers) >= 100
                    if number % 2:
                        db0.close()
                        db0.init(root)
                        db0.open("p", "r")
                        db0.close()
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitpid(pid, 0)[1] == 0
            db0.commit()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert list(numbers)[:100] == list(range(100))


@db0.memo(singleton=True, id="tests/takeover/Numbers")
class Numbers:
    def __init__(self) -> None:
        self.numbers = [1]


@pytest.mark.parametrize("call", ["pwritev", "fdatasync", "ftruncate"])
def test_close_with_a_failing_disk_says_so_and_lets_go(root: str, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dbzero.storage.syscalls import System

    db0.init(root, autocommit=False)
    db0.open("p")
    Numbers()
    db0.commit()
    Numbers().numbers.append(2)

    def fail(self: System, *arguments: object) -> None:
        raise OSError(5 if call == "fdatasync" else 28, "no")

    with monkeypatch.context() as patch:
        patch.setattr(System, call, fail)
        with pytest.raises(db0.StorageError, match="p"):
            db0.close()
    with pytest.raises(db0.NotInitializedError):
        db0.get_state_num()
    db0.init(root, autocommit=False)
    db0.open("p")
    assert Numbers().numbers in {"pwritev": ([1],), "fdatasync": ([1], [1, 2]), "ftruncate": ([1, 2],)}[call]


def test_an_autocommit_that_fails_is_reported_by_the_next_commit(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dbzero.storage.syscalls import System

    db0.init(root, autocommit_interval=5)
    db0.open("p")
    top = Numbers()
    db0.commit()
    failed = threading.Event()

    def fail(self: System, *arguments: object) -> None:
        failed.set()
        raise OSError(28, "no")

    with monkeypatch.context() as patch:
        patch.setattr(System, "pwritev", fail)
        top.numbers.append(2)
        assert failed.wait(10)
        with pytest.raises(db0.DiskFullError, match="p"):
            db0.commit()
    end = time.monotonic() + 10
    while True:
        try:
            db0.commit()
            break
        except db0.DiskFullError:  # one that the thread met before the disk was mended
            assert time.monotonic() < end
    db0.close()
    db0.init(root)
    db0.open("p", "r")
    assert Numbers().numbers == [1, 2]
