"""Watching queries for commits that change what they find."""

from __future__ import annotations

import asyncio
import gc
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import pytest

import dbzero as db0
from dbzero.query import following
from dbzero.session.workspace import active
from dbzero.storage.prefix import Prefix
from tests.session.forks import Forked

CACHE = 64 << 20
TAGS = ("red", "green", "blue")


@db0.memo(id="tests/watch/Task")
class Task:
    def __init__(self, name: str, *tags: Any) -> None:
        self.name = name
        db0.tags(self).add(*tags)


@db0.memo(id="tests/watch/Chore")
class Chore(Task):
    pass


@db0.memo(singleton=True, id="tests/watch/Plan")
class Plan:
    def __init__(self) -> None:
        self.tasks: Any = []
        self.by_name = db0.index()


def told(changes: Iterable[Any]) -> list[tuple[str, str]]:
    return [(change.kind, change.object.name) for change in changes]


def drop(task: Any) -> None:
    """Delete a task that is in no collection any more: its tags refer to it, too."""
    db0.tags(task).remove(*TAGS, "open")
    db0.delete(task)


def shared(root: str) -> Any:
    db0.init(root, prefix="p", shared=True, cache_size=CACHE)
    with db0.atomic():
        return Plan()


@pytest.fixture
def plan(root: str) -> Any:
    db0.init(root, prefix="p", autocommit=False, cache_size=CACHE)
    made = Plan()
    made.tasks = [Task("paint", "open"), Task("mow", "open"), Task("read")]
    db0.commit()
    return made


def test_added_removed_modified(plan: Any) -> None:
    paint, mow, read = plan.tasks
    changes = db0.watch(db0.find(Task, "open"), timeout=0)
    assert list(changes) == []
    paint.name = "paint the door"
    read.name = "read on"
    db0.tags(mow).remove("open")
    plan.tasks.append(Chore("plant", "open"))
    assert list(changes) == [], "what is not committed does not count"
    db0.commit()
    found = list(changes)
    assert told(found) == [("removed", "mow"), ("added", "plant"), ("modified", "paint the door")]
    assert found[0].object is mow
    assert found[1].object is plan.tasks[3]
    assert found[2].object is paint
    assert {change.state for change in found} == {db0.get_state_num(finalized=True)}
    db0.tags(read).add("open")
    db0.commit()
    assert told(changes) == [("added", "read on")]


def test_what_comes_and_goes_between_two_steps_is_not_told(plan: Any) -> None:
    paint, mow, _ = plan.tasks
    changes = db0.watch(db0.find(Task, "open"), timeout=0)
    passing = Task("passing", "open")
    plan.tasks.append(passing)
    db0.tags(paint).remove("open")
    db0.commit()
    plan.tasks.pop()
    drop(passing)
    db0.tags(paint).add("open")
    mow.name = "mow again"
    db0.commit()
    assert told(changes) == [("modified", "mow again")]


def test_a_deleted_object_is_shown_as_it_was_last(plan: Any) -> None:
    changes = db0.watch(db0.find(Task, "open"), timeout=0)
    paint = plan.tasks[0]
    paint.name = "paint it"
    db0.commit()
    assert told(changes) == [("modified", "paint it")]
    plan.tasks.pop(0)
    drop(paint)
    db0.commit()
    (gone,) = changes
    assert (gone.kind, gone.object.name) == ("removed", "paint it")
    with pytest.raises(db0.ReadOnlyError):
        gone.object.name = "x"


def test_queries_of_all_kinds(plan: Any) -> None:
    """Whether they are narrowed or asked as a whole."""
    for task in plan.tasks:
        plan.by_name.add(task.name, task)
    db0.commit()
    watches = [
        db0.watch(query, timeout=0)
        for query in (
            plan.by_name.select("n", "s"),
            db0.find(Task, plan.by_name.select("n", "s")),
            db0.filter(lambda task: task.name[0] in "pr", db0.find(Task)),
            db0.find(Task, db0.no("open")),
            db0.find([("open", Task), "other"], db0.no(["hidden", "gone"])),
            plan.by_name.sort(db0.find(Task))[:2],
        )
    ]
    assert [list(one) for one in watches] == [[]] * 6
    pack = Task("pack")
    plan.tasks.append(pack)
    plan.by_name.add("pack", pack)
    db0.tags(plan.tasks[2]).add("other")
    db0.tags(plan.tasks[1]).add("hidden")
    db0.commit()
    assert [told(one) for one in watches] == [
        [("added", "pack")],
        [("added", "pack")],
        [("added", "pack")],
        [("added", "pack")],
        [("removed", "mow"), ("added", "read")],
        [("removed", "paint"), ("added", "pack")],
    ]


def test_full_text_and_fields(root: str) -> None:
    db0.init(root, prefix="p", autocommit=False, cache_size=CACHE)

    @db0.memo(id="tests/watch/Page")
    @db0.fulltext("name")
    class Page:
        def __init__(self, name: str) -> None:
            self.name = name

    pages = db0.list([Page("red fox"), Page("blue sea")])
    db0.commit()
    changes = db0.watch(db0.find(Page, db0.match("fox")), timeout=0)
    pages[1].name = "blue fox"
    pages[0].name = "red sky"
    db0.commit()
    assert told(changes) == [("removed", "red sky"), ("added", "blue fox")]


def test_other_processes(root: str) -> None:
    plan = shared(root)
    changes = db0.watch(db0.find(Task, "open"), timeout=10)

    def body(send: Any) -> None:
        with db0.atomic():
            first = Task("first", "open")
            plan.tasks.append(first)
        time.sleep(0.1)
        with db0.atomic():
            first.name = "second"
        time.sleep(0.1)
        with db0.atomic():
            plan.tasks.clear()
            drop(first)

    child = Forked(body)
    seen = [told([next(changes)])[0] for _ in range(3)]
    assert seen == [("added", "first"), ("modified", "second"), ("removed", "second")]
    assert child.wait() == 0
    changes.close()
    assert list(changes) == []


def test_a_reader_goes_on_after_its_writer_is_killed_and_replaced(root: str) -> None:
    def write(name: str) -> Callable[[Any], None]:
        def body(send: Any) -> None:
            db0.init(root, prefix="p", autocommit=False, cache_size=CACHE)
            Plan().tasks.append(Task(name, "open"))
            db0.commit()
            send(name)
            time.sleep(60)

        return body

    first = Forked(write("first"))
    first.receive()
    db0.init(root, cache_size=CACHE)
    db0.open("p", "r")
    changes = db0.watch(db0.find(Task, "open"), timeout=20)
    first.signal(signal.SIGKILL)
    first.wait()
    second = Forked(write("second"))
    second.receive()
    assert told([next(changes)]) == [("added", "second")]
    second.kill()


def _model(query_of: Callable[[Any], Any]) -> dict[int, str]:
    with db0.snapshot() as now:
        return {obj._p_oid: obj.name for obj in query_of(now)}


@pytest.mark.parametrize("seed", range(4))
def test_random_commits_of_two_processes(root: str, seed: int) -> None:
    """What a watch tells, applied to what there was, is what there is."""
    plan = shared(root)
    queries: list[Callable[[Any], Any]] = [
        lambda at: at.find(Task, "red"),
        lambda at: at.find(["red", ("green", "blue")], db0.no(("red", "blue"))),
        lambda at: at.find(Chore, db0.no("green")),
    ]
    known = [_model(query) for query in queries]
    watches = [db0.watch(query(db0), timeout=0) for query in queries]

    def steps(rng: random.Random, n: int) -> None:
        for _ in range(n):
            with db0.atomic():
                for _ in range(rng.choice((1, 1, 3, 300 if n == 60 else 1))):
                    _step(plan, rng)

    def body(send: Any) -> None:
        steps(random.Random(seed), 60)

    child = Forked(body)
    rng = random.Random(seed + 100)
    for last in [False] * 30 + [True]:
        if last:
            assert child.drain() == []
            assert child.wait(60) == 0
        else:
            steps(rng, 1)
        for watch, model in zip(watches, known, strict=True):
            for change in watch:
                oid = change.object._p_oid
                assert (oid in model) == (change.kind != "added")
                if change.kind == "removed":
                    del model[oid]
                else:
                    model[oid] = ""
                    with suppress(db0.ReferenceError):  # the other process has deleted it since: a later change says so
                        model[oid] = change.object.name
    assert known == [_model(query) for query in queries]


def _step(plan: Any, rng: random.Random) -> None:
    tasks = plan.tasks
    what = rng.random()
    if what < 0.4 or not tasks:
        kind = rng.choice((Task, Chore))
        tasks.append(kind(f"task {rng.random()}", *rng.sample(TAGS, rng.randrange(3))))
        return
    at = rng.randrange(len(tasks))
    if what < 0.6:
        db0.tags(tasks[at]).add(rng.choice(TAGS))
    elif what < 0.75:
        db0.tags(tasks[at]).remove(rng.choice(TAGS))
    elif what < 0.9:
        tasks[at].name = f"renamed {rng.random()}"
    else:
        drop(tasks.pop(at))


def test_it_costs_what_changed(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records read for a commit of one change are as few in a store of thousands."""
    db0.init(root, prefix="p", autocommit=False, cache_size=CACHE)
    plan = Plan()
    plan.tasks.extend(Task(str(n), "open") for n in range(20_000))
    db0.commit()
    changes = db0.watch(db0.find(Task, "open"), timeout=0)
    asked: list[int] = []
    real = following.among

    def among(expression: Any, given: Any) -> Any:
        asked.append(len(given.oids))
        return real(expression, given)

    reads = [0]
    read = Prefix.read

    def counted(self: Prefix, oid: int, state: int) -> Any:
        reads[0] += 1
        return read(self, oid, state)

    monkeypatch.setattr(following, "among", among)
    plan.tasks[9_999].name = "changed"
    plan.tasks.append(Task("new", "open"))
    db0.commit()
    monkeypatch.setattr(Prefix, "read", counted)
    assert told(changes) == [("added", "new"), ("modified", "changed")]
    assert asked and max(asked) < 600
    assert reads[0] < 100


def test_async(root: str) -> None:
    plan = shared(root)

    async def main() -> list[tuple[str, str]]:
        told_last = asyncio.Semaphore(1)

        async def work() -> None:
            for n in range(3):
                await told_last.acquire()
                async with db0.atomic():
                    plan.tasks.append(Task(str(n), "open"))

        changes = db0.watch(db0.find("open"), timeout=30)
        worker = asyncio.ensure_future(work())
        seen = []
        async for change in changes:
            seen.append(change)
            if len(seen) == 3:
                changes.close()
            told_last.release()
        await worker
        return told(seen)

    assert asyncio.run(main()) == [("added", "0"), ("added", "1"), ("added", "2")]


def test_a_watch_holds_one_state_and_lets_go_of_it(plan: Any) -> None:
    prefix = active().open_prefixes["p"].prefix
    changes = db0.watch(db0.find("open"), timeout=0)
    for n in range(5):
        plan.tasks[0].name = str(n)
        db0.commit()
        assert len(list(changes)) == 1
        assert len(prefix._holds) == 1
    changes.close()
    assert len(prefix._holds) == 0
    changes = db0.watch(db0.find("open"), timeout=0)
    assert len(prefix._holds) == 1
    del changes
    gc.collect()
    assert len(prefix._holds) == 0


def test_arguments_and_closing(plan: Any) -> None:
    query = db0.find("open")
    for wrong in ((query, query), (query, plan)):
        with pytest.raises(TypeError):
            db0.watch(*wrong)
    with db0.snapshot() as past, pytest.raises(db0.ClosedError):
        db0.watch(past.find("open"))
    changes = db0.watch(query)
    timer = threading.Timer(0.1, db0.close)
    timer.start()
    assert list(changes) == []
    timer.join()
    with pytest.raises(db0.ClosedError):
        db0.watch(query)
