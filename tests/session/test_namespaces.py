"""Processes that see one root directory and not each other: in mount namespaces with a /dev/shm each, in pid namespaces,
as containers have them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

import dbzero as db0
from tests.worker import RemoteError, Worker

_MEMORY = 'mount -t tmpfs -o size=256m none /dev/shm && mount -t proc none /proc && exec "$@"'
_PIDS = 'mount -t proc none /proc && exec "$@"'


def _launcher(shell: str) -> list[str]:
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", shell, "sh"]


def _possible() -> bool:
    command = [*_launcher(_MEMORY), "true"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not _possible(), reason="needs the right to make mount and pid namespaces")

SETUP = """
import time
import dbzero as db0
@db0.memo(singleton=True, id="tests/namespaces/Board")
class Board:
    def __init__(self):
        self.value = 0
        self.log = []
def until(condition, seconds=15):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return bool(condition())
db0.init(root, autocommit=False, cache_size=32 << 20)
"""
WRITE = 'db0.open("p", "rw")\nboard = Board()\ndb0.commit()\n'
READ = 'db0.open("p", "r")\nboard = db0.fetch(Board)\n'
SHARE = 'db0.open("p", "rw", shared=True)\nwith db0.atomic():\n    board = Board()\n'
BUMP = "board.value += 1\nboard.log.append(board.value)\ndb0.commit()\nresult = board.value\n"
SHARED_BUMP = "with db0.atomic():\n    board.value += 1\n    board.log.append(board.value)\nresult = board.value\n"


class Elsewhere(Worker):
    """In a mount namespace with a /dev/shm of its own, and a pid namespace of its own."""

    launcher: ClassVar[list[str]] = _launcher(_MEMORY)

    def __init__(self, root: str) -> None:
        super().__init__(root=root)
        assert self.run("import os\nresult = os.getpid()") == 1, "it is the first of its namespace"
        self.run(SETUP)

    def _inner(self) -> int:
        with open(f"/proc/{self.pid}/task/{self.pid}/children") as file:
            return int(file.read().split()[0])

    def signal_inner(self, number: int) -> None:
        """Send a signal to the interpreter itself."""
        os.kill(self._inner(), number)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.signal_inner(signal.SIGKILL)
        self.process.wait()


class SameMemory(Elsewhere):
    """In a pid namespace of its own, with the machine's /dev/shm."""

    launcher: ClassVar[list[str]] = _launcher(_PIDS)


def refused(code: Callable[[], object]) -> list[str]:
    with pytest.raises(RemoteError) as caught:
        code()
    return caught.value.kinds


def final(root: str) -> Any:
    db0.init(root)
    db0.open("p", "r")
    return db0.fetch(Board)


@db0.memo(singleton=True, id="tests/namespaces/Board")
class Board:
    def __init__(self) -> None:
        self.value = 0
        self.log: Any = []


def test_one_writer_and_readers(root: str) -> None:
    """They fence each other by locks on files, follow each other by the log, and a killed writer is replaced at once."""
    with Elsewhere(root) as writer, Elsewhere(root) as reader, Elsewhere(root) as second:
        writer.run(WRITE)
        reader.run(READ)
        assert "LeaseError" in refused(lambda: second.run(WRITE))
        assert "LeaseError" in refused(lambda: second.run(SHARE))
        for _ in range(20):
            done = writer.run(BUMP)
        assert reader.run(f"result = until(lambda: board.value == {done})")
        assert reader.run("result = list(board.log) == list(range(1, board.value + 1))")
        for _ in range(3):
            done = writer.run(BUMP)
            assert reader.run(f"result = until(lambda: board.value == {done}, 2)")
        writer.kill()
        began = time.monotonic()
        second.run(WRITE)
        assert time.monotonic() - began < 3
        assert second.run("result = board.value") == done, "what was acknowledged is there"
        done = second.run(BUMP)
        assert reader.run(f"result = until(lambda: board.value == {done})"), "a reader goes on with the successor"
        second.run("db0.close()")
        reader.run('db0.close("p")\nresult = 1')
        reader.run(WRITE)
        assert reader.run(BUMP) == done + 1
    assert final(root).value == done + 1


def test_a_frozen_writer_is_replaced_by_force_and_fenced(root: str) -> None:
    with Elsewhere(root) as writer, Elsewhere(root) as second, Elsewhere(root) as reader:
        writer.run(WRITE)
        done = writer.run(BUMP)
        reader.run(READ)
        writer.signal_inner(signal.SIGSTOP)
        assert "LeaseError" in refused(lambda: second.run(WRITE))
        second.run('db0.open("p", "rw", lock_flags={"force_unlock": True})\nboard = db0.fetch(Board)')
        assert second.run(BUMP) == done + 1
        writer.signal_inner(signal.SIGCONT)
        assert "FencedError" in refused(lambda: writer.run(BUMP))
        assert second.run(BUMP) == done + 2
        assert reader.run(f"result = until(lambda: board.value == {done + 2})")
        assert reader.run("result = list(board.log) == list(range(1, board.value + 1))")
        writer.run("try:\n    db0.close()\nexcept db0.Error:\n    pass")
    assert final(root).value == done + 2


def test_shared_writers_need_the_same_memory(root: str) -> None:
    with Elsewhere(root) as first, Elsewhere(root) as other:
        first.run(SHARE)
        assert "LeaseError" in refused(lambda: other.run(SHARE))
        assert "LeaseError" in refused(lambda: other.run(WRITE))
        other.run(READ)
        done = first.run(SHARED_BUMP)
        assert other.run(f"result = until(lambda: board.value == {done})")
        first.kill()
        other.run('db0.close("p")')
        other.run(SHARE)
        assert other.run(SHARED_BUMP) == done + 1
    assert final(root).value == done + 1


def test_shared_writers_of_other_pid_namespaces(root: str) -> None:
    """All of them are process 1, with the same memory: a killed one's turn is taken, its transaction is void."""
    with SameMemory(root) as one, SameMemory(root) as two, Worker(root=root) as outside:
        outside.run(SETUP)
        for worker in (one, two, outside):
            worker.run(SHARE)
        for turn in range(30):
            assert (one, two, outside)[turn % 3].run(SHARED_BUMP) == turn + 1
        assert two.run("result = until(lambda: board.value == 30)")
        one.run("block = db0.begin_atomic()\nboard.value = -1")
        two.send(SHARED_BUMP)
        one.kill()
        began = time.monotonic()
        assert two.receive() == 31
        assert time.monotonic() - began < 3
        assert outside.run(SHARED_BUMP) == 32
        with SameMemory(root) as third:
            third.run(SHARE)
            assert third.run(SHARED_BUMP) == 33
        assert outside.run("result = until(lambda: list(board.log) == list(range(1, 34)))")
    assert list(final(root).log) == list(range(1, 34))
