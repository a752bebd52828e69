"""Atomic blocks: what is put back, save-points, ownership by thread and task, what waits and what is refused."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import dbzero as db0
from dbzero.model import base
from dbzero.session import blocks
from dbzero.session.lookup import references_to
from dbzero.session.turns import turn


@db0.memo
class Item:
    def __init__(self, value=0):
        self.value = value


@db0.memo(singleton=True)
class Settings:
    def __init__(self, level=1):
        self.level = level


class Failed(Exception):
    pass


@pytest.fixture(autouse=True)
def nothing_is_left_open():
    yield
    assert base.block_depth() == 0
    assert turn._owner is None and not turn._waiting
    assert not blocks._held


def hold(*objects):
    """Make objects stay: a stored list that refers to them."""
    return db0.list(objects)


# --- what is put back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("how", ["cancel", "exception"])
def test_everything_is_put_back(store, committed, how):
    item = Item(1)
    items = [db0.list([1, 2]), db0.list(range(1000)), db0.dict({1: 2}), db0.dict({i: i for i in range(1000)})]
    items += [db0.set({1}), db0.set(range(1000)), db0.bytearray(b"abc"), db0.bytearray(bytes(100_000)), db0.index()]
    items += [db0.weak_set([item])]
    for key in range(300):
        items[8].add(key, item)
    kept = hold(item, *items)
    if committed:
        db0.commit()
    shown = [list(items[0]), list(items[1]), dict(items[2]), dict(items[3]), set(items[4]), set(items[5])]
    shown += [bytes(items[6]), bytes(items[7]), list(items[8]), list(items[9])]
    counts = [db0.getrefcount(item), references_to(items[0])]
    made = []
    try:
        with db0.atomic() as block:
            item.value = 2
            item.more = db0.list([item])
            made += [Item(3), item.more]
            items[0].append(made[0])
            del items[1][10:500]
            items[1].append(5)
            items[2].clear()
            for i in range(500):
                items[3].pop(i)
            items[3]["new"] = made[0]
            items[4] |= set(range(1000))
            items[5] -= set(range(400))
            items[6][1:2] = b"xyz"
            items[7][50:70_000] = b"short"
            items[8].remove(5, item)
            items[8].add(None, made[0])
            items[8].add(5, made[0])
            items[9].add(made[0])
            assert item.value == 2 and len(items[3]) == 501 and (5, made[0]) in list(items[8])
            if how == "exception":
                raise Failed
            block.cancel()
    except Failed:
        pass
    assert item.value == 1 and not hasattr(item, "more")
    again = [list(items[0]), list(items[1]), dict(items[2]), dict(items[3]), set(items[4]), set(items[5])]
    again += [bytes(items[6]), bytes(items[7]), list(items[8]), list(items[9])]
    assert again == shown
    assert [db0.getrefcount(item), references_to(items[0])] == counts
    for one in items[:9]:
        one._check()
    for gone in made:
        with pytest.raises(db0.ReferenceError):
            gone.value if isinstance(gone, Item) else len(gone)
    assert len(kept) == 11


def test_the_state_number_is_unaffected_and_nothing_is_left_to_commit(store):
    item = Item(1)
    kept = hold(item)
    db0.commit()
    number = db0.get_state_num()
    with db0.atomic() as block:
        item.value = 5
        kept.append(Item(2))
        block.cancel()
    db0.commit()
    assert db0.get_state_num() == number
    with db0.atomic():
        item.value = 5
    assert db0.get_state_num() == number
    db0.commit()
    assert db0.get_state_num() == number + 1


@pytest.mark.parametrize("committed", [True, False])
def test_a_deletion_is_put_back(store, committed):
    child = Item(7)
    item = Item(child)
    uuid, child_uuid = db0.uuid(item), db0.uuid(child)
    del child
    if committed:
        db0.commit()
    with db0.atomic() as block:
        db0.delete(item)
        assert not db0.exists(uuid)
        block.cancel()
    assert db0.exists(uuid) and db0.fetch(uuid) is item
    assert item.value.value == 7 and db0.exists(child_uuid)
    db0.commit()
    assert item.value.value == 7
    with db0.atomic():
        db0.delete(item)
    assert not db0.exists(uuid)


def test_singletons_classes_and_enums_are_put_back(store):
    color = db0.enum("AtomicColor", ["RED", "BLUE"])

    @db0.memo
    class Fresh:
        def __init__(self, value):
            self.value = value

    with db0.atomic() as block:
        settings = Settings(5)
        kept = hold(settings, Fresh(color.RED))
        assert db0.exists(Settings) and kept[1].value == color.RED
        block.cancel()
    assert not db0.exists(Settings)
    with pytest.raises(db0.ReferenceError):
        settings.level
    Settings(6).holder = Item(hold(Fresh(color.RED), Fresh(color.BLUE)))
    db0.commit()
    root = db0.get_config()["dbzero_root"]
    db0.close()
    db0.init(root, prefix="main")
    loaded = db0.fetch(Settings)
    assert loaded.level == 6 and [one.value for one in loaded.holder.value] == [color.RED, color.BLUE]
    with db0.atomic() as block:
        db0.delete(loaded)
        assert not db0.exists(Settings)
        block.cancel()
    assert db0.fetch(Settings) is loaded and loaded.level == 6


def test_new_fields_of_a_known_class_in_a_cancelled_block(store):
    item = Item(1)
    kept = hold(item)
    with db0.atomic() as block:
        item.extra = Item(4)
        db0.getrefcount(item)  # encodes
        block.cancel()
    item.other = 3
    db0.commit()
    db0.clear_cache()
    assert (item.value, item.other, hasattr(item, "extra")) == (1, 3, False)
    assert len(kept) == 1


def test_a_local_name_is_not_part_of_a_block(store):
    item = Item(1)
    item._X__note = "a"
    with db0.atomic() as block:
        item._X__note = "b"
        item.value = 2
        block.cancel()
    assert (item._X__note, item.value) == ("b", 1)


def test_an_object_under_construction(store):
    class_log = []

    @db0.memo
    class Careful:
        def __init__(self):
            self.a = 1
            with db0.atomic() as block:
                self.a = 2
                self.b = db0.list([1])
                block.cancel()
            class_log.append((self.a, hasattr(self, "b")))
            with db0.atomic():
                self.c = 3

    made = Careful()
    assert class_log == [(1, False)] and vars(made) == {"a": 1, "c": 3}
    with db0.atomic() as block:
        other = Careful()
        assert other.c == 3
        block.cancel()
    with pytest.raises(db0.ReferenceError):
        other.a
    assert made.c == 3


# --- save-points -----------------------------------------------------------------------------------------------------


def test_save_points(store):
    values = hold(0)
    item = Item(0)
    with db0.atomic() as outer:
        values.append(1)
        item.value = 1
        with pytest.raises(Failed), db0.atomic():
            values.append(2)
            item.value = 2
            fresh = Item(9)
            values.append(fresh)
            raise Failed
        assert values == [0, 1] and item.value == 1
        with db0.atomic():
            values.append(3)
            item.value = 3
            with db0.atomic() as inner:
                item.value = 4
                values.clear()
                inner.cancel()
            assert values == [0, 1, 3] and item.value == 3
        assert values == [0, 1, 3] and item.value == 3
        outer.cancel()
        assert values == [0] and item.value == 0
        values.append("after")
    assert values == [0, "after"]


def test_an_outer_block_takes_inner_ones_along(store):
    item, other = Item(0), Item(0)
    kept = hold(item, other)
    db0.commit()
    outer, inner = db0.atomic(), db0.atomic()
    outer.begin()
    item.value = 1
    inner.begin()
    other.value = 1
    outer.cancel()
    assert not inner.active and (item.value, other.value) == (0, 0)
    inner.close()
    inner.cancel()
    outer.begin()
    item.value = 1
    inner.begin()
    other.value = 1
    outer.close()
    assert not inner.active and (item.value, other.value) == (1, 1)
    assert len(kept) == 2


def test_begin_and_close_by_hand(store):
    values = hold()
    manager = db0.atomic()
    manager.close()
    manager.cancel()
    for _ in range(2):
        manager.begin()
        manager.begin()
        values.append(1)
        manager.close()
        manager.cancel()
    assert values == [1, 1]
    block = db0.begin_atomic()
    values.append(2)
    block.cancel()
    block.close()
    assert values == [1, 1]


def test_commit_is_refused_inside(store):
    values = hold(1)
    with db0.atomic():
        values.append(2)
        for call in (db0.commit, db0.collect_cycles, lambda: db0.commit("main")):
            with pytest.raises(RuntimeError, match="atomic"):
                call()
        values.append(3)
    assert values == [1, 2, 3]
    db0.commit()


def test_commit_after_the_block(store):
    values = hold(1)
    db0.commit()
    number = db0.get_state_num(finalized=True)
    with db0.atomic(commit=True):
        with db0.atomic(commit=True):
            values.append(2)
        assert db0.get_state_num(finalized=True) == number
    assert db0.get_state_num(finalized=True) == number + 1
    with db0.atomic(), db0.atomic(commit=True):
        values.append(3)
    assert db0.get_state_num(finalized=True) == number + 2
    with db0.atomic(commit=True) as block:
        values.append(3)
        block.cancel()
    with pytest.raises(Failed), db0.atomic(commit=True):
        values.append(3)
        raise Failed
    assert db0.get_state_num(finalized=True) == number + 2
    with pytest.raises(TypeError):
        db0.atomic(commit=1)


def test_it_needs_a_workspace():
    with pytest.raises(RuntimeError):
        db0.begin_atomic()


def test_atomic_assign(store):
    one, two = Item(1), Item(2)
    db0.atomic_assign(one, two, value=5, more="x")
    assert (one.value, two.value, one.more) == (5, 5, "x")
    with pytest.raises(db0.Error):
        db0.atomic_assign(one, two, value=6, bad=object())
    with pytest.raises(db0.Error):
        db0.atomic_assign(one, 3, value=6)
    assert (one.value, two.value, hasattr(one, "bad")) == (5, 5, False)


# --- several prefixes ------------------------------------------------------------------------------------------------


def test_all_prefixes_are_put_back(store):
    first = hold(1)
    db0.open("second")
    second = hold(2)
    with db0.atomic() as block:
        first.append(1)
        second.append(2)
        db0.open("third")
        third = hold(3)
        block.cancel()
    assert first == [1] and second == [2]
    with pytest.raises(db0.ReferenceError):
        len(third)
    assert {p.name for p in db0.get_mutable_prefixes()} == {"main", "second", "third"}
    assert db0.get_current_prefix().name == "third"
    db0.commit()
    assert db0.get_state_num("third", finalized=True) == 1


def test_a_prefix_that_is_closed_inside_loses_what_the_block_did(store):
    db0.open("other")
    keeper = Settings(1)
    keeper.values = [1]
    db0.commit()
    keeper.values.append(2)
    first = hold()
    db0.open("main")
    kept = hold()
    with db0.atomic():
        kept.append(1)
        keeper.values.append(3)
        keeper.level = 7
        with db0.atomic():
            keeper.values.append(4)
            db0.close("other")
        kept.append(2)
        with pytest.raises(RuntimeError):
            keeper.level
        db0.open("other")
        again = db0.fetch(Settings)
        assert again.level == 1 and again.values == [1, 2]
        again.level = 8
    assert kept == [1, 2] and db0.fetch(Settings).level == 8
    with pytest.raises(RuntimeError):
        len(first)


def test_close_inside_puts_back_and_commits_the_rest(root):
    db0.init(root, autocommit=True)
    db0.open("main")
    settings = Settings(1)
    with db0.atomic() as block:
        settings.level = 2
        db0.close()
    assert not block.active
    db0.init(root, prefix="main")
    assert db0.fetch(Settings).level == 1


def test_a_read_only_prefix_closed_inside(root):
    db0.init(root, prefix="main")
    Settings(3)
    db0.close()
    db0.init(root)
    db0.open("main", "r")
    with db0.atomic():
        assert db0.fetch(Settings).level == 3
        db0.close("main")


# --- iterators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5, 400])
def test_running_iterations_go_on(store, size):
    things = [Item(i) for i in range(size)]
    values, mapping, members, index = (
        db0.list(things),
        db0.dict(dict.fromkeys(range(size), 1)),
        db0.set(range(size)),
        db0.index(),
    )
    for i, thing in enumerate(things):
        index.add(i, thing)
    data = db0.bytearray(bytes(size))
    db0.commit()
    walks = [iter(values), iter(mapping), iter(members), iter(index), iter(data)]
    seen = [[next(walk)] for walk in walks]
    with db0.atomic() as block:
        for found, walk in zip(seen, walks, strict=True):
            found.append(next(walk))
        fresh = Item(-1)
        values.insert(0, fresh)
        mapping.clear()
        members.clear()
        index.clear()
        index.add(3, fresh)
        data.clear()
        during = iter(index)
        block.cancel()
    for found, walk in zip(seen, walks, strict=True):
        found.extend(walk)
    assert seen[0] == things and seen[1] == list(range(size)) and sorted(seen[2]) == list(range(size))
    assert seen[3] == list(enumerate(things)) and len(seen[4]) == size
    assert all(isinstance(thing.value, int) for _, thing in during)
    index._check()


# --- eviction --------------------------------------------------------------------------------------------------------


def test_memory_stays_bounded_inside(root):
    db0.init(root, autocommit=False)
    db0.open("main")
    kept = db0.list([Item("x" * 1000) for _ in range(2000)])
    holder = Settings()
    holder.kept = kept
    db0.commit()
    view = kept._p_view
    view.evict(0)
    view.limit = 300_000
    with db0.atomic() as block:
        holder.level = 2
        assert sum(len(item.value) for item in kept) == 2_000_000
        assert view.weight < 400_000
        block.cancel()
    assert holder.level == 1


# --- threads ---------------------------------------------------------------------------------------------------------


def test_another_thread_waits(store):
    item, values, untouched = Item(1), hold(1), Item(5)
    db0.commit()
    found = []

    def reader():
        found.append(("item", item.value))

    def writer():
        untouched.value = 6
        found.append(("write", time.monotonic()))

    def lister():
        found.append(("list", list(values)))

    def maker():
        found.append(("made", Item(3).value))

    def block_maker():
        with db0.atomic():
            values.append(7)

    threads = [threading.Thread(target=target) for target in (reader, writer, lister, maker, block_maker)]
    with db0.atomic() as block:
        item.value = 2
        values.append(2)
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        assert found == [] and all(thread.is_alive() for thread in threads)
        block.cancel()
    for thread in threads:
        thread.join(10)
    kinds = dict(found)
    assert kinds["item"] == 1 and kinds["list"] in ([1], [1, 7]) and kinds["made"] == 3
    assert values == [1, 7] and untouched.value == 6


def test_hammer(root):
    """Threads move amounts between accounts in blocks, half of which fail; readers see the sum in blocks of their own;
    autocommit is at work."""
    db0.init(root, autocommit=True, autocommit_interval=5)
    db0.open("main")
    accounts = db0.list([Item(100) for _ in range(8)])
    keeper = Settings()
    keeper.accounts = accounts
    keeper.log = db0.dict()
    stop = time.monotonic() + 2
    problems = []

    def mover(number):
        i = 0
        while time.monotonic() < stop and not problems:
            i += 1
            try:
                with db0.atomic() as block:
                    source, target = accounts[i % 8], accounts[(i * 3 + number) % 8]
                    source.value -= 5
                    with db0.atomic() as inner:
                        accounts[0].value += 1000
                        inner.cancel()
                    target.value += 5
                    keeper.log[number] = i
                    if i % 2:
                        fresh = Item(1)
                        accounts.append(fresh)
                        if i % 4 == 1:
                            raise Failed
                        block.cancel()
            except Failed:
                pass
            except Exception as error:
                problems.append(error)

    def checker():
        while time.monotonic() < stop and not problems:
            try:
                with db0.atomic():
                    total = sum(account.value for account in accounts)
                    if total != 800 or len(accounts) != 8:
                        problems.append(AssertionError(total))
            except Exception as error:
                problems.append(error)

    threads = [threading.Thread(target=mover, args=(n,)) for n in range(3)] + [threading.Thread(target=checker)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert problems == []
    db0.close()
    db0.init(root, prefix="main")
    assert sum(account.value for account in db0.fetch(Settings).accounts) == 800


def test_autocommit_waits(root):
    db0.init(root, autocommit=True, autocommit_interval=10)
    db0.open("main")
    kept = hold(1)
    with db0.atomic():
        before = db0.get_state_num(finalized=True)
        kept.append(2)
        time.sleep(0.1)
        assert db0.get_state_num(finalized=True) == before
    deadline = time.monotonic() + 5
    while db0.get_state_num(finalized=True) == before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert db0.get_state_num(finalized=True) > before


def test_opening_and_closing_in_another_thread_waits_and_does_not_deadlock(store):
    values = hold(1)
    done = []

    def other():
        db0.open("second")
        db0.close("second")
        done.append(True)

    thread = threading.Thread(target=other)
    with db0.atomic():
        values.append(2)
        thread.start()
        time.sleep(0.05)
        db0.open("third")
        hold(1)
        assert not done
    thread.join(10)
    assert done and values == [1, 2]


# --- asyncio ---------------------------------------------------------------------------------------------------------


def test_tasks_are_apart(store):
    values, item = hold(), Item(0)
    order = []

    async def worker(number):
        async with db0.atomic():
            order.append(("in", number))
            values.append(number)
            await asyncio.sleep(0.01)
            assert values[-1] == number
            order.append(("out", number))

    async def intruder(started, done):
        await started.wait()
        for touch in (
            lambda: values.append(1),
            lambda: item.value,
            lambda: Item(2),
            db0.begin_atomic,
            lambda: len(values),
        ):
            with pytest.raises(db0.AtomicError):
                touch()
        with pytest.raises(db0.AtomicError):
            db0.commit()
        done.set()

    async def main():
        started, done = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(intruder(started, done))
        async with db0.atomic() as block:
            values.append("own")
            item.value = 1
            started.set()
            await done.wait()
            copied = asyncio.create_task(intruder(started, asyncio.Event()))  # its context is a copy of ours
            await copied
            assert values == ["own"]
            block.cancel()
        await task
        await asyncio.gather(*(worker(n) for n in range(5)))

    asyncio.run(main())
    assert values == [0, 1, 2, 3, 4] and item.value == 0
    assert order == [(what, n) for n in range(5) for what in ("in", "out")]


def test_a_task_that_gives_up_waiting(store):
    values = hold()

    async def waiter():
        async with db0.atomic():
            values.append(1)

    async def main():
        async with db0.atomic():
            tasks = [asyncio.create_task(waiter()) for _ in range(3)]
            await asyncio.sleep(0.01)
            tasks[0].cancel()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    assert values == [1, 1]


def test_a_task_waits_for_a_thread(store):
    values = hold()
    begun, go_on = threading.Event(), threading.Event()

    def thread_block():
        with db0.atomic():
            values.append("thread")
            begun.set()
            go_on.wait(10)

    ticks = []

    async def ticker():
        while not go_on.is_set():
            ticks.append(1)
            await asyncio.sleep(0.005)

    async def main():
        task = asyncio.create_task(ticker())
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        async with db0.atomic():
            values.append("task")
        await task

    thread = threading.Thread(target=thread_block)
    thread.start()
    begun.wait(10)
    asyncio.run(main())
    thread.join(10)
    assert values == ["thread", "task"] and len(ticks) > 3


def test_a_block_ends_where_it_began(store):
    values = hold()
    block = db0.begin_atomic()
    values.append(1)
    problems = []

    def other():
        try:
            block.cancel()
        except db0.AtomicError as error:
            problems.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(10)
    assert len(problems) == 1 and block.active
    block.cancel()
    assert values == []


# --- the end of processes, forks and signals ------------------------------------------------------------------------


def run(root, code):
    script = textwrap.dedent(code).replace("ROOT", repr(root))
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, cwd="/")


def test_a_pending_block_at_exit_is_put_back(root):
    code = """
        import dbzero as db0
        @db0.memo(id="t", singleton=True)
        class Top:
            def __init__(self):
                self.values = []
        db0.init(ROOT, prefix="main", autocommit=False)
        top = Top()
        top.values.append("before")
        block = db0.begin_atomic()
        top.values.append("inside")
        """
    result = run(root, code)
    assert result.returncode == 0 and not result.stderr, result.stderr

    @db0.memo(id="t", singleton=True)
    class Top:
        def __init__(self):
            self.values = []

    db0.init(root, prefix="main")
    assert db0.fetch(Top).values == ["before"]


def test_a_forked_child_has_no_block(store):
    values = hold(1)
    db0.commit()
    values.append(2)
    with db0.atomic():
        values.append(3)
        with db0.atomic():
            values.append(4)
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    if base.block_depth() == 0 and list(values) == [1]:
                        code = 0
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert values == [1, 2, 3, 4]


class Interrupted(Exception):
    pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in a callback of a weak reference
def test_signals_at_any_moment(store):
    """A handler that raises while blocks begin, end and are cancelled: nothing is half done afterwards."""
    things = [Item(0) for _ in range(30)]
    values, index = db0.list([0] * 300), db0.index()
    for thing in things:
        index.add(thing.value, thing)
    db0.commit()

    def handler(number, frame):
        raise Interrupted

    def work(i):
        with db0.atomic() as block:
            for thing in things:
                thing.value += 1
            values[i % 300] += 1
            index.add(i, things[0])
            if i % 2:
                block.cancel()

    start = time.perf_counter()
    for i in range(50):
        work(i)
    once = (time.perf_counter() - start) / 50
    old = signal.signal(signal.SIGALRM, handler)
    raised = 0
    try:
        for i in range(50, 650):
            try:
                signal.setitimer(signal.ITIMER_REAL, max(1e-6, once * 1.2 * (i % 60) / 60))
                work(i)
            except Interrupted:
                raised += 1
            finally:
                while True:
                    try:
                        signal.setitimer(signal.ITIMER_REAL, 0)
                        break
                    except Interrupted:
                        raised += 1
            assert base.block_depth() == 0 and turn._owner is None
            assert len({thing.value for thing in things}) == 1
            assert sum(values) == things[0].value
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert raised > 10
    index._check()
