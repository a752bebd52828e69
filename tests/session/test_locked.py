"""Locked blocks, mutation logs, await_commit, async_wait."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import dbzero as db0


@db0.memo
class Item:
    def __init__(self, value=0):
        self.value = value


@pytest.fixture
def busy(root):
    """Autocommit on, at short intervals."""
    db0.init(root, autocommit=True, autocommit_interval=20)
    db0.open("main")
    return root


def reached(prefix, state, seconds=5):
    deadline = time.monotonic() + seconds
    while db0.get_state_num(prefix, finalized=True) < state and time.monotonic() < deadline:
        time.sleep(0.005)
    return db0.get_state_num(prefix, finalized=True) >= state


@pytest.mark.parametrize(
    "change",
    [
        lambda item, values, index: Item(5),
        lambda item, values, index: setattr(item, "value", 9),
        lambda item, values, index: setattr(item, "value", db0.list()),
        lambda item, values, index: delattr(item, "value"),
        lambda item, values, index: index.add(1, item),
        lambda item, values, index: values.append(3),
        lambda item, values, index: values.clear(),
        lambda item, values, index: db0.touch(item),
    ],
)
@pytest.mark.parametrize("dirty", [True, False])
def test_every_change_is_logged_once(store, change, dirty):
    item, values, index = Item(1), db0.list([1, 2]), db0.index()
    kept = db0.list([item, values, index])
    if not dirty:
        db0.commit()
    number = db0.get_state_num()
    with db0.locked() as block:
        change(item, values, index)
        assert block.get_mutation_log() == []
    assert block.get_mutation_log() == [("main", number)]
    assert len(kept) == 3


def test_reading_is_not_logged(store):
    item, values = Item(1), db0.list([1])
    db0.commit()
    with db0.locked() as block:
        assert item.value == 1 and list(values) == [1] and db0.exists(db0.uuid(item))
        db0.commit()
    assert block.get_mutation_log() == []


def test_nothing_is_put_back_and_blocks_nest(store):
    values = db0.list()
    number = db0.get_state_num()
    outer, inner = db0.locked(), db0.locked()
    with pytest.raises(ValueError), outer:
        with inner:
            values.append(1)
        values.append(2)
        raise ValueError
    assert values == [1, 2]
    assert outer.get_mutation_log() == inner.get_mutation_log() == [("main", number)]
    with inner:
        pass
    assert inner.get_mutation_log() == []
    with pytest.raises(RuntimeError):
        inner.close()
    block = db0.begin_locked()
    values.append(3)
    block.close()
    assert block.get_mutation_log() == [("main", number)]


def test_commits_inside(store):
    values = db0.list()
    number = db0.get_state_num()
    with db0.locked() as block:
        values.append(1)
        db0.commit()
    assert block.get_mutation_log() == [("main", number)]
    with db0.locked() as block:
        values.append(1)
        db0.commit()
        values.append(2)
    assert block.get_mutation_log() == [("main", number + 2)]


def test_several_prefixes(store):
    first = db0.list()
    db0.commit()
    with db0.locked() as block:
        db0.open("second")
        db0.list([1])
        db0.open("third")
        third = db0.list([1])
        db0.close("third")
        db0.open("unused")
        first.append(1)
    log = dict(block.get_mutation_log())
    assert log == {"main": 3, "second": 2, "third": 2}
    assert len(block.get_mutation_log()) == 3
    with pytest.raises(RuntimeError):
        len(third)


def test_a_cancelled_atomic_block_inside(store):
    values = db0.list()
    db0.commit()
    with db0.locked(), db0.atomic() as block:
        values.append(1)
        block.cancel()
    assert values == []
    with db0.atomic(), db0.locked() as block:
        values.append(1)
    assert block.get_mutation_log() == [("main", 3)]


def test_autocommit_waits(busy):
    values = db0.list()
    assert reached("main", 2)
    before = db0.get_state_num("main", finalized=True)
    with db0.locked() as block:
        for i in range(5):
            values.append(i)
            time.sleep(0.03)
        assert db0.get_state_num("main", finalized=True) == before
    assert reached("main", before + 1)
    assert block.get_mutation_log() == [("main", before + 1)]


def test_other_threads_go_on(store):
    values, done = db0.list(), []

    def other():
        values.append("other")
        done.append(list(values))

    thread = threading.Thread(target=other)
    with db0.locked():
        thread.start()
        thread.join(5)
        assert done
    assert values == ["other"]


def test_awaiting_with_autocommit(busy):
    values = db0.list()
    assert reached("main", 2)

    async def main():
        number = db0.get_state_num()
        async with db0.locked(await_commit=True) as block:
            values.append(1)
        assert db0.get_state_num("main", True) >= number
        assert block.get_mutation_log() == [("main", number)]
        async with db0.locked() as block:
            values.append(2)
        await db0.await_commit(block.get_mutation_log())
        assert db0.get_state_num("main", True) >= block.get_mutation_log()[0][1]

    asyncio.run(main())


def test_awaiting_without_autocommit(store):
    values = db0.list()

    async def main():
        number = db0.get_state_num()
        async with db0.locked(await_commit=True):
            values.append(1)
        assert db0.get_state_num("main", True) == number
        with pytest.raises(ValueError):
            async with db0.locked(await_commit=True):
                values.append(2)
                raise ValueError
        assert db0.get_state_num("main", True) == number
        async with db0.locked():
            values.append(3)
        assert db0.get_state_num("main", True) == number

    asyncio.run(main())
    with pytest.raises(RuntimeError):
        db0.locked(await_commit=True).__enter__()


def test_async_wait(busy):
    values = db0.list()

    async def main():
        number = db0.get_state_num()
        await db0.async_wait("main", 1)
        waits = [db0.async_wait("main", number + i) for i in (0, 0, 1)]
        given_up = db0.async_wait("main", number + 5)
        given_up.cancel()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(db0.async_wait("main", number + 50), 0.01)
        values.append(1)
        await asyncio.wait_for(waits[0], 5)
        values.append(1)
        assert await asyncio.wait_for(asyncio.gather(*waits), 5) == [None] * 3
        for wrong, kind in ((0, ValueError), (-1, ValueError), (None, TypeError), ("1", TypeError)):
            with pytest.raises(kind):
                db0.async_wait("main", wrong)
        with pytest.raises(RuntimeError):
            db0.async_wait("nowhere", 1)

    asyncio.run(main())
    with pytest.raises(RuntimeError):
        db0.async_wait("main", 1)


def test_async_wait_ends_with_its_prefix(store):
    async def main():
        waiting = db0.async_wait("main", 100)
        await asyncio.sleep(0.01)
        db0.close("main")
        with pytest.raises(db0.PrefixError):
            await asyncio.wait_for(waiting, 5)

    asyncio.run(main())
