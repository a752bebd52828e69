"""A prefix that is open shared is compacted by one of its writers, beside the others' transactions and everybody's reads."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dbzero as db0
from dbzero.session import shared
from dbzero.session.history import compact_prefix
from dbzero.session.workspace import active
from dbzero.storage import history, sharing
from dbzero.storage.verify import check_root
from tests.session.forks import Forked, kill_at
from tests.session.test_shared import BUMP, SETUP, SHARED, Board, Item, init, raised
from tests.worker import Worker

CHECKPOINT = """
from dbzero.session.workspace import active
prefix = active().get('p').prefix
prefix.acquire_turn(); prefix.begin_writing(); prefix.checkpoint(); prefix.yield_turn()
"""
Send = Callable[[Any], None]


def until(test: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < end
        time.sleep(0.005)


def fill(board: Any, transactions: int) -> None:
    for n in range(transactions):
        with db0.atomic():
            board.value += 1
            board.items = [Item(n, "x" * 2000)]


def deleted_files(pid: int) -> list[str]:
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(link))
        except FileNotFoundError:
            continue
    return [path for path in found if "p.db0" in path and "deleted" in path]


# --- what is promised --------------------------------------------------------------------------------------------------


def test_old_states_go_and_their_space_with_them(root: str) -> None:
    board = init(root)
    fill(board, 300)
    with Worker(root=root) as other, Worker(root=root) as reader:
        other.run(SHARED)
        reader.run(SETUP + 'db0.init(root, prefix="p", read_write=False); board = Board()')
        assert reader.run("result = until(lambda: board.value == 300)")
        done = db0.compact(keep_states=5)
        newest = db0.get_state_num()
        assert done.oldest_state == newest - 4
        assert done.after < done.before / 4 and os.path.getsize(f"{root}/p.db0") < done.before / 4
        for n in range(3):
            other.run(BUMP.format(timeout=5))
            with db0.atomic():
                board.value += 1
            assert reader.run(f"result = until(lambda: board.value == {302 + 2 * n})")
            assert (other if n else active()) and db0.compact(keep_states=2).oldest_state == db0.get_state_num() - 1
        assert other.run("result = db0.compact(keep_states=1).oldest_state") == db0.get_state_num()
        with db0.atomic():
            board.value += 1
        assert other.run("result = until(lambda: board.value == 307)") and other.run("result = len(board.items)") == 1
        for pid in (os.getpid(), other.pid, reader.pid):
            until(lambda pid=pid: not deleted_files(pid))  # type: ignore[misc]


def test_transactions_and_compactions_beside_each_other(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three processes write, two of them compact all the time, with checkpoints in between: nothing is lost or told wrongly."""
    monkeypatch.setattr(sharing, "LOG_LIMIT", 40_000)

    def work(who: int) -> Callable[[Send], None]:
        def body(send: Send) -> None:
            board = init(root)
            compactions = 0
            stop = threading.Event()

            def compact() -> None:
                nonlocal compactions
                while not stop.is_set():
                    try:
                        db0.compact(keep_states=1)
                        compactions += 1
                    except db0.LeaseError:
                        time.sleep(0.01)

            thread = threading.Thread(target=compact)
            if who:
                thread.start()
            for n in range(150):
                with db0.atomic():
                    board.value += 1
                    seen = board.value
                    board.items.append(Item(who, n))
                assert board.value >= seen
            stop.set()
            if who:
                thread.join()
            send((seen, compactions))
            db0.close()

        return body

    children = [Forked(work(who)) for who in range(3)]
    try:
        sent = [child.drain(60)[-1] for child in children]
        assert [child.wait() for child in children] == [0, 0, 0], sent
    finally:
        for child in children:
            child.kill()
    assert sum(compactions for _, compactions in sent) >= 4
    board = init(root)
    assert board.value == 450
    pairs = [(item.who, item.n) for item in board.items]
    assert sorted(pairs) == [(who, n) for who in range(3) for n in range(150)]
    assert len({db0.uuid(item) for item in board.items}) == 450
    db0.close()
    assert check_root(root) == []
    assert sorted(os.listdir(root)) == [".dbzero", "p.db0", "p.db0.lock"]


def test_what_is_pinned_stays(root: str) -> None:
    """A reader that does not move on, and another writer's snapshot; also through a second compaction right behind the first."""
    board = init(root)
    with Worker(root=root) as reader, Worker(root=root) as other:
        reader.run(SETUP + 'db0.init(root, prefix="p", read_write=False); board = Board()')
        other.run(SHARED)
        fill(board, 20)
        assert reader.run("result = until(lambda: board.value == 20)")
        reader.run(
            "from dbzero.session.workspace import active; opened = active().get('p'); opened.follower.stop();"
            "items = board.items; state = opened.view.state"
        )
        pinned = reader.run("result = state")
        fill(board, 20)
        assert other.run("result = until(lambda: board.value == 40)")
        held = other.run("past = db0.snapshot(); result = past.get_state_num('p')")
        fill(board, 20)
        for _ in range(2):
            assert db0.compact(keep_states=1).oldest_state == pinned
            fill(board, 1)
        assert reader.run("result = board.value, [len(i.n) for i in items]") == [20, [2000]]
        reader.kill()
        for _ in range(2):
            assert db0.compact(keep_states=1).oldest_state == held
            fill(board, 1)
        assert other.run("result = past.fetch(Board).value, len(past.fetch(Board).items)") == [40, 1]
        # A closed prefix goes on showing what is held.
        other.run("db0.close('p')")
        assert db0.compact(keep_states=1).oldest_state == held
        assert other.run("result = past.fetch(Board).value, len(past.fetch(Board).items)") == [40, 1]
        other.run("past.close()")
        assert db0.compact(keep_states=1).oldest_state > held


def test_other_transactions_do_not_wait_while_it_copies(root: str) -> None:
    board = init(root)
    fill(board, 10)
    with Worker(root=root) as other:
        other.run(SHARED)
        done = 0

        def beside(_: int, __: int) -> None:
            nonlocal done
            while done < 5:  # in the first pass, outside of every turn
                other.run(BUMP.format(timeout=2))
                other.run(CHECKPOINT)
                done += 1

        compact_prefix(active(), "p", 1, None, beside)
        assert done
        with db0.atomic():
            assert board.value == 10 + done
        assert other.run(f"result = until(lambda: board.value == {10 + done})")


def test_by_one_process_at_a_time_and_outside_of_blocks(root: str) -> None:
    board = init(root)
    fill(board, 3)
    with db0.atomic(), pytest.raises(db0.AtomicError):
        db0.compact()
    with Worker(root=root) as other:
        other.run(SHARED)
        met: list[str] = []
        compact_prefix(active(), "p", 1, None, lambda *_: met.append(raised(lambda: other.run("db0.compact()"))[0]))
        assert set(met) == {"LeaseError"}
        other.run("db0.compact(keep_states=1)")


def test_who_has_not_opened_it_joins_its_writers(root: str) -> None:
    board = init(root)
    fill(board, 30)
    with Worker(root=root) as other:
        other.run(SETUP + "db0.init(root)")
        assert other.run("result = db0.compact('p', keep_states=1).oldest_state") == db0.get_state_num()
        assert other.run("result = [p.name for p in db0.get_prefixes() if p.name == 'p']") == ["p"]
    fill(board, 1)
    assert board.value == 31


def test_a_commit_that_waits_for_its_sync_is_in_the_new_file(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the turn and the wait for durability another process compacts, so that the commit's own state is gone."""
    board = init(root)
    with Worker(root=root) as other:
        other.run(SHARED)
        real = shared.await_all

        def late(pending: list[shared.Pending]) -> None:
            monkeypatch.setattr(shared, "await_all", real)
            other.run(BUMP.format(timeout=5) + "db0.compact(keep_states=1)\n" + BUMP.format(timeout=5))
            other.run("db0.compact(keep_states=1)")
            until(lambda: active().get("p").view.state == other.run("result = db0.get_state_num()"))
            real(pending)

        monkeypatch.setattr(shared, "await_all", late)
        with db0.atomic():
            board.value += 1
        assert board.value == 3


def test_the_file_is_bounded_by_retention(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "LOG_LIMIT", 100_000)
    monkeypatch.setattr(history, "WORTH", 200_000)
    board = init(root, retention={"keep_states": 10})
    with Worker(root=root) as other:
        other.run(SHARED)
        fill(board, 600)  # 1.2 MB
        path = f"{root}/p.db0"
        until(lambda: not active().get("p").retainer._thread.is_alive())  # type: ignore[union-attr]
        assert active().get("p").prefix.oldest_state > 100
        assert os.path.getsize(path) < 64 << 20
        other.run(BUMP.format(timeout=5))
    assert Board().value in (600, 601)


def test_a_forked_child_goes_on_in_the_new_file(root: str) -> None:
    board = init(root)
    fill(board, 10)

    def body(send: Send) -> None:
        with db0.atomic():
            board.value += 1
        send(board.value)
        db0.compact(keep_states=1)
        with db0.atomic():
            board.value += 1
        send(board.value)
        os._exit(0)

    child = Forked(body)
    assert child.receive() == 11
    assert child.receive() == 12
    child.wait()
    with db0.atomic():
        board.value += 1
    assert board.value == 13


# --- compactions that end badly ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["before", "after", "torn"])
def test_killed_at_every_step(root: str, how: str) -> None:
    """A process is killed at its n-th durable call while it compacts: the others go on, and nothing is missing."""
    board = init(root)
    value = number = 0
    while True:
        number += 1
        fill(board, 5)
        value += 5

        def body(send: Send, number: int = number) -> None:
            mine = Board()
            kill_at(number, how)
            db0.compact(keep_states=2)
            send("compacted")
            with db0.atomic():
                mine.value += 1
            send("committed")

        child = Forked(body)
        acknowledged = child.drain()
        child.wait()
        before = time.monotonic()
        with db0.atomic():
            if "compacted" in acknowledged:  # then it may have died within its transaction
                assert ("committed" in acknowledged) <= board.value - value <= 1
                value = board.value
            assert board.value == value
            assert len(board.items) == 1
            board.value += 1
            value += 1
        assert time.monotonic() - before < 3
        if child.status == 0:
            break
    assert number > 20
    fill(board, 1)
    db0.compact(keep_states=1)
    assert not [name for name in os.listdir(root) if "compact" in name]
    db0.close()
    assert check_root(root) == []
    assert sorted(os.listdir(root)) == [".dbzero", "p.db0", "p.db0.lock"]


@pytest.mark.parametrize("where", ["copying", "before the rename", "after the rename", "before its log"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_stopped_or_killed(root: str, where: str, number: signal.Signals) -> None:
    """Others write on within a second or two; a compactor that goes on later destroys nothing."""
    stop = f"""
import os
from dbzero.runtime import slot
from dbzero.session.history import compact_prefix
from dbzero.session.workspace import active
from dbzero.storage import filestore
frozen = []
def freeze(*args):
    if not frozen:
        frozen.append(1)
        os.kill(os.getpid(), {int(number)})
def wrap(owner, name, after):
    real = getattr(owner, name)
    def call(*args, **kwargs):
        if not after:
            freeze()
        result = real(*args, **kwargs)
        if after:
            freeze()
        return result
    setattr(owner, name, call)
progress = None
"""
    stop += {
        "copying": "progress = freeze",
        "before the rename": "wrap(filestore.LocalFileStore, 'replace_file', False)",
        "after the rename": "wrap(filestore.LocalFileStore, 'replace_file', True)",
        "before its log": "wrap(slot.PrefixSlot, 'start', False)",
    }[where]
    board = init(root)
    fill(board, 50)
    with Worker(root=root) as compactor, Worker(root=root) as reader:
        compactor.run(SHARED)
        reader.run(SETUP + 'db0.init(root, prefix="p", read_write=False); board = Board()')
        compactor.run(stop)
        compactor.send("compact_prefix(active(), 'p', 1, None, progress)")
        until(lambda: Path(f"/proc/{compactor.pid}/stat").read_text().split()[2] in "TZ")
        before = time.monotonic()
        fill(board, 5)
        assert time.monotonic() - before < 5
        assert reader.run("result = until(lambda: board.value == 55)")
        if number == signal.SIGSTOP:
            if where == "copying":
                with pytest.raises(db0.LeaseError):
                    db0.compact()
            os.kill(compactor.pid, signal.SIGCONT)
        fill(board, 5)
        assert reader.run("result = until(lambda: board.value == 60)")
        if number == signal.SIGSTOP:
            compactor.receive()  # done in the end: it begins anew when others had to recover
            compactor.run(BUMP.format(timeout=5))
            with db0.atomic():
                assert board.value == 61
        else:
            compactor.kill()
        db0.compact(keep_states=1)
        fill(board, 1)
        assert not [name for name in os.listdir(root) if "compact" in name]


def test_a_writer_that_dies_meanwhile_ends_no_compaction(root: str) -> None:
    """Others recover beside it, and have checkpoints: what it reads stays where it is."""
    board = init(root)
    fill(board, 30)
    with Worker(root=root) as other:
        other.run(SHARED)
        kills = 0

        def beside(_: int, __: int) -> None:
            nonlocal kills
            while kills < 2:  # in the first pass
                kills += 1
                with Worker(root=root) as dying:
                    dying.run(SHARED)
                    dying.run(
                        "from dbzero.session.workspace import active; prefix = active().get('p').prefix\n"
                        "prefix.acquire_turn(); prefix.begin_writing()"
                    )
                    dying.kill()
                other.run(BUMP.format(timeout=5))
                for _ in range(3):
                    other.run(CHECKPOINT)
                    other.run(BUMP.format(timeout=5))

        done = compact_prefix(active(), "p", 3, None, beside)
        assert kills == 2
        with db0.atomic():
            assert board.value == 38
        assert done.oldest_state == 30
        assert other.run("result = until(lambda: board.value == 38)")
        other.run(BUMP.format(timeout=5))
    db0.close()
    assert check_root(root) == []


def test_an_exclusive_writer_by_force_beside_it(root: str) -> None:
    """The compaction notices at its end, at the latest, and changes nothing."""
    board = init(root)
    fill(board, 20)
    with Worker(root=root) as exclusive:
        exclusive.run(SETUP + "db0.init(root, autocommit=False)")

        def beside(_: int, __: int) -> None:
            if not beside.done:  # type: ignore[attr-defined]
                beside.done = True  # type: ignore[attr-defined]
                exclusive.run("db0.open('p', lock_flags={'force_unlock': True}); board = Board()")
                exclusive.run(
                    "board.value = 100; db0.commit(); db0.compact(keep_states=1); board.value = 101; db0.commit()"
                )

        beside.done = False  # type: ignore[attr-defined]
        with pytest.raises(db0.FencedError):
            compact_prefix(active(), "p", 1, None, beside)
        exclusive.run("board.value += 1; db0.commit(); db0.close()")
        db0.close()
    board = init(root)
    assert board.value == 102
