"""Watching objects for commits that change them."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import Any

import pytest

import dbzero as db0
from dbzero.session.watching import watch
from tests.session.forks import Forked
from tests.session.test_shared import CACHE, Board, Item, init


def test_own_commits(root: str) -> None:
    db0.init(root, prefix="p", autocommit=False, cache_size=CACHE)
    board = Board()
    other = Item(1, 1)
    board.items.append(other)
    db0.commit()
    changes = watch(board, timeout=0.3)
    other.n = 2
    db0.commit()
    board.value = 1
    db0.commit()
    board.value = 2
    db0.commit()
    assert list(changes) == [(board, db0.get_state_num(finalized=True))]
    board.value = 3
    assert list(changes) == []
    db0.commit()
    assert [change.object for change in changes] == [board]


def test_other_processes_commits_and_large_collections(root: str) -> None:
    board = init(root)
    with db0.atomic():
        numbers = board.numbers = db0.list(range(20_000))
        table = board.table = db0.dict({n: n for n in range(5000)})
    watched = watch(numbers, table, board.items, timeout=60)

    def body(send: Any) -> None:
        for step in range(3):
            with db0.atomic():
                if step == 0:
                    board.numbers[12_345] = 7
                if step == 1:
                    board.table[4321] = 8
                if step == 2:
                    board.value = 5
                    board.items.append(Item(1, 1))
            send(step)
            time.sleep(0.2)

    child = Forked(body)
    assert next(watched).object is numbers
    assert numbers[12_345] == 7
    assert next(watched).object is table
    assert next(watched).object is board.items
    assert child.wait() == 0
    with db0.atomic():
        board.table.update({n: 0 for n in range(10_000, 14_000)})
    assert next(watched).object is table
    with db0.atomic():
        board.table[13_999] = 1  # in a part that was not there before
    assert next(watched).object is table
    watched.close()
    assert list(watched) == []


def test_deletion_and_closing_end_it(root: str) -> None:
    db0.init(root, prefix="p", autocommit=False, cache_size=CACHE)
    board = Board()
    board.items.append(Item(1, 1))
    item = board.items[0]
    db0.commit()
    watched = watch(item, timeout=5)
    board.items.clear()
    db0.delete(item)
    db0.commit()
    assert [change.object for change in watched] == [item]
    with pytest.raises(db0.ReferenceError):
        watch(item)
    closing = watch(board)
    threading.Timer(0.1, db0.close).start()
    assert list(closing) == []


def test_async(root: str) -> None:
    board = init(root)

    async def main() -> list[int]:
        told_last = asyncio.Semaphore(1)

        async def work() -> None:
            for _ in range(3):
                await told_last.acquire()
                async with db0.atomic():
                    board.value += 1

        changes = watch(board, timeout=30)
        worker = asyncio.ensure_future(work())
        seen = []
        async for change in changes:
            seen.append(change.object.value)
            if len(seen) == 3:
                changes.close()
            told_last.release()
        await worker
        return seen

    assert asyncio.run(main()) == [1, 2, 3]


def test_arguments(root: str) -> None:
    board = init(root)
    for wrong in ((), (1,), (Board,)):
        with pytest.raises(TypeError):
            watch(*wrong)
    with pytest.raises(TypeError):
        watch(board, timeout="1")  # type: ignore[arg-type]


def test_a_close_by_another_thread_ends_it_at_any_moment(root: str) -> None:
    """Asleep, between two looks, or in the middle of one."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for turn in range(40):
            db0.init(root, prefix="p", autocommit=False, cache_size=CACHE)
            board = Board()
            db0.commit()
            watched = watch(board)
            thread = threading.Thread(target=_change_and_close, args=(board, turn % 5, turn / 1e4))
            thread.start()
            assert all(change.object is board for change in watched)
            thread.join()
    finally:
        sys.setswitchinterval(interval)


def _change_and_close(board: Board, steps: int, delay: float) -> None:
    for step in range(steps):
        board.value = step + 1
        db0.commit()
    time.sleep(delay)
    db0.close()
