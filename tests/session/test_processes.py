"""Two and more real processes on one prefix."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

import dbzero as db0
from dbzero.runtime.root import RootFile
from dbzero.runtime.segment import segment_name
from tests.worker import RemoteError, Worker

SETUP = """
import dbzero as db0
@db0.memo(singleton=True, id="tests/Counter")
class Counter:
    def __init__(self):
        self.value = 0
        self.items = []
        self.table = {}
@db0.memo(id="tests/Item")
class Item:
    def __init__(self, n):
        self.n = n
"""

WRITER = (
    SETUP
    + """
db0.init(root, autocommit=False)
db0.open("p", "rw")
counter = Counter()
db0.commit()
"""
)

READER = (
    SETUP
    + """
import time
db0.init(root)
db0.open("p", "r")
counter = Counter()
def until(test, seconds=10.0):
    end = time.monotonic() + seconds
    while not test():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
"""
)


def test_reader_follows_commits_in_place(root: str) -> None:
    with Worker(root=root) as writer, Worker(root=root) as reader:
        writer.run(WRITER)
        reader.run(READER)
        reader.run("items, table, first = counter.items, counter.table, id(counter)")
        for n in range(1, 20):
            writer.run(
                f"counter.value = {n}; counter.items.append(Item({n})); counter.table['k{n}'] = {n}; db0.commit()"
            )
            assert reader.run(f"result = until(lambda: counter.value == {n})"), f"commit {n} did not arrive"
            assert reader.run("result = [i.n for i in items]") == list(range(1, n + 1))
            assert reader.run("result = len(table)") == n
        assert reader.run("result = counter.items is items and id(counter) == first")


def test_reader_never_sees_what_is_not_committed(root: str) -> None:
    with Worker(root=root) as writer, Worker(root=root) as reader:
        writer.run(WRITER)
        reader.run(READER)
        writer.run("counter.value = 99")
        time.sleep(0.1)
        assert reader.run("db0.refresh(); result = counter.value") == 0


def test_deleted_object_raises_in_the_reader(root: str) -> None:
    with Worker(root=root) as writer, Worker(root=root) as reader:
        writer.run(WRITER)
        writer.run("counter.items.append(Item(5)); db0.commit()")
        reader.run(READER)
        reader.run("item = counter.items[0]; assert item.n == 5")
        writer.run("counter.items.clear(); db0.commit()")
        reader.run("assert until(lambda: len(counter.items) == 0)")
        with pytest.raises(RemoteError) as caught:
            reader.run("item.n")
        assert "ReferenceError" in caught.value.kinds


def test_second_writer_is_refused_and_told_who_holds_it(root: str) -> None:
    with Worker(root=root) as writer, Worker(root=root) as second:
        writer.run(WRITER)
        second.run("import dbzero as db0; db0.init(root)")
        with pytest.raises(RemoteError) as caught:
            second.run("db0.open('p', 'rw')")
        assert "LeaseError" in caught.value.kinds
        assert "RuntimeError" in caught.value.kinds
        assert str(writer.pid) in caught.value.text
        second.run("db0.open('p', 'r')")
        writer.run("db0.close()")
        second.run("db0.close('p'); db0.open('p', 'rw')")


def test_blocking_open_waits_for_the_holder(root: str) -> None:
    with Worker(root=root) as writer, Worker(root=root) as second:
        writer.run(WRITER)
        second.run("import dbzero as db0; db0.init(root)")
        with pytest.raises(RemoteError):
            second.run("db0.open('p', 'rw', lock_flags={'blocking': True, 'timeout': 0.2})")
        second.send("db0.open('p', 'rw', lock_flags={'blocking': True, 'timeout': 20})")
        time.sleep(0.2)
        writer.run("db0.close()")
        second.receive()


def test_killed_writer_leaves_the_last_commit(root: str) -> None:
    with Worker(root=root) as reader:
        with Worker(root=root) as writer:
            writer.run(WRITER)
            reader.run(READER)
            writer.run("counter.value = 7; db0.commit(); counter.value = 8; counter.items.append(1)")
            writer.kill()
        assert reader.run("result = until(lambda: counter.value == 7)")
        with Worker(root=root) as successor:
            successor.run(WRITER)
            assert successor.run("result = counter.value, len(counter.items)") == [7, 0]
            successor.run("counter.value = 9; db0.commit()")
            assert reader.run("result = until(lambda: counter.value == 9)")


def test_pending_changes_are_committed_at_exit(root: str) -> None:
    with Worker(root=root) as writer:
        writer.run(WRITER)
        writer.run("counter.value = 41")
        assert writer.stop() == 0
    with Worker(root=root) as reader:
        reader.run(READER)
        assert reader.run("result = counter.value") == 41


def test_autocommit_becomes_visible(root: str) -> None:
    with Worker(root=root) as writer, Worker(root=root) as reader:
        writer.run(WRITER.replace("autocommit=False", "autocommit_interval=20"))
        reader.run(READER)
        writer.run("counter.value = 5")
        assert reader.run("result = until(lambda: counter.value == 5)")


def test_wait_wakes_up_on_commit(root: str) -> None:
    with Worker(root=root) as writer, Worker(root=root) as reader:
        writer.run(WRITER)
        reader.run(READER)
        state = reader.run("result = db0.get_state_num('p')")
        assert reader.run(f"result = db0.wait('p', {state + 1}, 50)") is False
        reader.send(f"result = db0.wait('p', {state + 1}, 20000), counter.value")
        time.sleep(0.05)
        writer.run("counter.value = 3; db0.commit()")
        assert reader.receive() == [True, 3]


def test_forked_child_cannot_commit_and_can_start_afresh(root: str) -> None:
    db0.init(root, autocommit=False)
    db0.open("p")
    numbers = db0.list([1, 2, 3])
    db0.commit()
    state = db0.get_state_num(finalized=True)
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer = "?"
        try:
            answer = str(len(numbers))
            try:
                numbers.append(4)
                db0.commit()
                answer += " committed"
            except db0.ForkedError:
                answer += " refused"
            db0.close()
            db0.init(root)
            db0.open("p", "r")
            answer += f" {db0.get_state_num()}"
            db0.close()
        except BaseException as error:
            answer += f" {error!r}"
        os.write(write_end, answer.encode())
        os._exit(0)
    os.close(write_end)
    assert os.waitpid(pid, 0)[1] == 0
    answer = os.read(read_end, 4096).decode()
    os.close(read_end)
    assert answer == f"3 refused {state}"
    numbers.append(5)
    db0.commit()
    assert list(numbers) == [1, 2, 3, 5]


def _segment_file(root: str) -> Path:
    file = RootFile.open(root)
    try:
        return Path("/dev/shm") / segment_name(file.identity)[1:]
    finally:
        file.close()


def test_losing_the_segment_name_loses_nothing(root: str) -> None:
    with Worker(root=root) as writer, Worker(root=root) as reader:
        writer.run(WRITER)
        reader.run(READER)
        _segment_file(root).unlink()
        writer.run("counter.value = 1; db0.commit()")
        assert reader.run("result = until(lambda: counter.value == 1)")
        with Worker(root=root) as late:
            late.run(READER)
            assert late.run("result = counter.value") == 1
            writer.run("counter.value = 2; db0.commit()")
            assert reader.run("result = until(lambda: counter.value == 2)")
            assert late.run("result = until(lambda: counter.value == 2)")
            with pytest.raises(RemoteError) as caught:
                late.run("db0.close('p'); db0.open('p', 'rw')")
            assert "LeaseError" in caught.value.kinds
        writer.kill()
        reader.kill()
    with Worker(root=root) as successor:
        successor.run(WRITER)
        assert successor.run("result = counter.value") == 2
    assert not _segment_file(root).exists()


def test_no_segment_is_left_behind(root: str) -> None:
    with Worker(root=root) as writer:
        writer.run(WRITER)
        assert _segment_file(root).exists()
    assert not _segment_file(root).exists()


@pytest.mark.parametrize("leave", ["os._exit(0)", "import signal; os.kill(os.getpid(), signal.SIGKILL)"])
def test_unclean_end_goes_back_to_the_last_commit(root: str, leave: str) -> None:
    with Worker(root=root) as writer:
        writer.run(WRITER)
        writer.run("counter.value = 1; db0.commit(); counter.value = 2")
        with pytest.raises(EOFError):
            writer.run(f"import os; {leave}")
        writer.process.wait()
    answer: Any
    with Worker(root=root) as successor:
        successor.run(WRITER)
        answer = successor.run("result = counter.value")
    assert answer == 1
