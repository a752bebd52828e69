"""What other threads and processes see of a prefix that is open shared while its slot is left for another one at the worst moment."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

import dbzero as db0
from dbzero.errors import TurnTimeoutError
from dbzero.runtime.turns import Turns
from dbzero.session.workspace import active
from dbzero.storage.sharing import SharedPrefix
from tests.session.test_shared import BUMP, SETUP, SHARED, init
from tests.session.test_shared_compaction import fill, until
from tests.worker import Worker


def is_stopped(worker: Worker) -> bool:
    return Path(f"/proc/{worker.pid}/stat").read_text().split()[2] in "Tt"


def test_a_follower_moves_nobody_whose_turn_begins(root: str) -> None:
    """Stopped with the turn just got, and replaced: when it goes on, its follower comes first, and the turn must be waited for anew."""
    board = init(root)
    with Worker(root=root) as other:
        other.run(SHARED)
        other.run(
            """
import signal
from dbzero.storage.sharing import SharedPrefix
settle = SharedPrefix._settle
once = []
def late(self, allowed):
    if not once:
        once.append(1)
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(0.3)
    settle(self, allowed)
SharedPrefix._settle = late
"""
        )
        other.send(BUMP.format(timeout=5))
        until(lambda: is_stopped(other))
        for _ in range(3):
            with db0.atomic():
                board.value += 1
        active().get("p").prefix.acquire_turn()  # so that a turn that was not waited for would be seen
        try:
            os.kill(other.pid, signal.SIGCONT)
            time.sleep(0.8)
            assert active().get("p").prefix.turn_status().waiting == 1
        finally:
            active().get("p").prefix.yield_turn()
        other.receive()
        with db0.atomic():
            assert board.value == 4
            board.value += 1
        other.run(BUMP.format(timeout=5))
        until(lambda: board.value == 6)


def test_a_slot_that_is_being_filled_shows_nothing(root: str) -> None:
    """One process is stopped in the middle of a recovery, in a slot that is empty still: a thread that waits for its turn there
    must not let another thread of its process read from it."""
    board = init(root)
    fill(board, 30)
    with Worker(root=root) as first, Worker(root=root) as second:
        for worker in first, second:
            worker.run(SHARED)
        first.run("import os, signal")
        second.run(
            """
import os, signal
from dbzero.storage import recovery
recover = recovery.recover
def stopping(*args, **kwargs):
    recovery.recover = recover
    os.kill(os.getpid(), signal.SIGSTOP)
    return recover(*args, **kwargs)
recovery.recover = stopping
"""
        )
        first.send("with db0.atomic(timeout=5):\n    os.kill(os.getpid(), signal.SIGSTOP)")
        until(lambda: is_stopped(first))
        second.send(BUMP.format(timeout=5))
        until(lambda: is_stopped(second))
        done: list[int] = []

        def write() -> None:
            with db0.atomic():
                board.value += 1
                done.append(board.value)

        thread = threading.Thread(target=write)
        thread.start()
        reads = 0
        while thread.is_alive():
            active().get("p").view.evict(0)
            assert [len(item.n) for item in board.items] == [2000] and board.value in (30, 31)
            reads += 1
        thread.join()
        assert done == [31] and reads
        for worker in first, second:
            os.kill(worker.pid, signal.SIGCONT)
        try:
            first.receive()
        except Exception as error:
            assert "FencedError" in str(error)
        try:
            second.receive()
            value = 32
        except Exception as error:
            assert "FencedError" in str(error)
            value = 31
        with db0.atomic():
            assert board.value == value


def test_a_reader_fills_no_slot_that_is_retired_meanwhile(root: str) -> None:
    """It has the slot's lock, and looks whose lease it is just after a stopped compactor was replaced there."""
    board = init(root)
    fill(board, 20)
    with Worker(root=root) as compactor, Worker(root=root) as reader:
        compactor.run(SHARED)
        reader.run(SETUP + 'db0.init(root, prefix="p", read_write=False); board = Board()')
        reader.run(
            """
from dbzero.storage import reading
once = []
class Late(reading.SlotLease):
    def __init__(self, slot):
        status = slot.status()
        if not once and not status.ready and not status.retired:
            once.append(until(lambda: slot.status().retired))
        super().__init__(slot)
reading.SlotLease = Late
"""
        )
        compactor.run(
            """
import signal
from dbzero.session.history import compact_prefix
from dbzero.session.workspace import active
from dbzero.storage import filestore
replace = filestore.LocalFileStore.replace_file
def stopping(self, path):
    filestore.LocalFileStore.replace_file = replace
    page = replace(self, path)
    os.kill(os.getpid(), signal.SIGSTOP)
    return page
filestore.LocalFileStore.replace_file = stopping
"""
        )
        compactor.send("compact_prefix(active(), 'p', 1, None, None)")
        until(lambda: is_stopped(compactor))
        fill(board, 5)
        assert reader.run("result = until(lambda: board.value == 25), once") == [True, [True]]
        fill(board, 5)
        assert reader.run("result = until(lambda: board.value == 30, 5)")
        os.kill(compactor.pid, signal.SIGCONT)
        fill(board, 5)
        assert reader.run("result = until(lambda: board.value == 35)")
        compactor.receive()


def test_a_view_in_a_slot_that_a_killed_writer_left_is_kept(root: str) -> None:
    """A reader holds its view still through compactions by one writer, that one's death, and compactions by the next."""
    opening = SETUP + 'db0.init(root, prefix="p", autocommit=False); board = Board()\n'
    work = "board.value += 1; board.items = [Item(board.value, 'x' * 2000)]; db0.commit(); db0.compact(keep_states=1)\n"
    with Worker(root=root) as reader:
        with Worker(root=root) as first:
            first.run(opening + work * 2)
            reader.run(SETUP + 'db0.init(root, prefix="p", read_write=False); board = Board()')
            reader.run(
                "from dbzero.model.base import operation; from dbzero.session.workspace import active\n"
                "operation.acquire(); view = active().get('p').view; state = view.state"
            )
            first.run(work)
            first.kill()
        with Worker(root=root) as second:
            second.run(opening)
            for _ in range(4):
                second.run(work)
                assert reader.run("view.evict(0); result = board.value, [item.who for item in board.items]") == [2, [2]]
            reader.run("operation.release()")
            assert reader.run("result = until(lambda: board.value == 7)")
            assert second.run("result = db0.compact(keep_states=1).oldest_state == db0.get_state_num(finalized=True)")


def test_who_waits_in_vain_gives_back_nothing(root: str) -> None:
    """The turn may be the process's own: its follower's, who fills the slot."""
    init(root)
    prefix = active().get("p").prefix
    assert isinstance(prefix, SharedPrefix)
    turns = Turns(prefix._slot)
    assert turns.seize(0, 10.0)
    with pytest.raises(TurnTimeoutError):
        prefix.acquire_turn(0.2)
    assert turns.status().word == turns.own_word
    assert turns.drop()
    with db0.atomic():
        pass
