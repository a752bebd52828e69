"""find beside a writer in another process, across forks, threads and small caches."""

from __future__ import annotations

import os
import random
import sys
import threading

import pytest

import dbzero as db0
from dbzero.model import scope
from dbzero.query.check import check_index
from tests.worker import Worker

SETUP = """
import dbzero as db0
@db0.memo(id="reader-thing")
class Thing:
    def __init__(self, number):
        self.number = number
db0.init(root, autocommit=False)
db0.open("main", mode)
"""


@db0.memo(id="reader-thing")
class Thing:
    def __init__(self, number: int) -> None:
        self.number = number


def test_a_reader_follows(root: str) -> None:
    """A reader's bitmaps are brought up leaf by leaf: they have to equal what the writer has after each commit."""
    rng = random.Random(5)
    with Worker(root=root, mode="rw") as writer:
        writer.run(SETUP + "things = [Thing(i) for i in range(2000)]\ndb0.tags(*things[::2]).add('even')\ndb0.commit()")
        db0.init(root)
        db0.open("main", "r")
        view = scope.current_view(False)
        everything, even = db0.find(Thing), db0.find(Thing, "even")
        assert len(everything) == 2000 and len(even) == 1000
        first = even.first()
        for _ in range(15):
            low = rng.randrange(2000)
            high = low + rng.choice((1, 40, 700))
            state = writer.run(
                f"""
                db0.tags(*[t for t in things[{low}:{high}]]).{rng.choice(("add", "remove"))}('even')
                things += [Thing(len(things)) for _ in range({rng.choice((0, 1, 300))})]
                db0.tags(things[-1]).add('last', f'n{{len(things)}}')
                db0.commit()
                result = db0.get_state_num(finalized=True)
                """
            )
            assert db0.wait("main", state, timeout=10_000)
            numbers = writer.run(
                "result = [[t.number for t in db0.find(*c)] for c in ((Thing,), ('even',), ('last',))]"
            )
            assert [[t.number for t in q] for q in (everything, even, db0.find("last"))] == numbers
            assert len(even) == len(numbers[1])
        assert check_index(view) == []
        assert first in everything
        state = writer.run(
            "things.clear(); import gc; gc.collect(); db0.commit(); result = db0.get_state_num(finalized=True)"
        )
        assert db0.wait("main", state, timeout=10_000)
        assert [t.number for t in everything] == writer.run("result = [t.number for t in db0.find(Thing)]")
        assert check_index(view) == []


def test_a_loop_over_a_moving_reader(root: str) -> None:
    with Worker(root=root, mode="rw") as writer:
        writer.run(SETUP + "things = [Thing(i) for i in range(1000)]\ndb0.tags(*things).add('all')\ndb0.commit()")
        db0.init(root)
        db0.open("main", "r")
        seen = []
        for thing in db0.find("all"):
            seen.append(thing.number)
            if len(seen) == 10:
                state = writer.run(
                    "db0.tags(*things[:500]).remove('all'); del things[:500]; import gc; gc.collect()\n"
                    "Thing(5000); db0.commit(); result = db0.get_state_num(finalized=True)"
                )
                assert db0.wait("main", state, timeout=10_000)
        assert seen == list(range(999, 499, -1))


def test_threads(store: str) -> None:
    errors: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for i in range(150):
                thing = Thing(i)
                db0.tags(thing).add(name, "all")
                assert len(db0.find(name)) == i + 1
                assert len(list(db0.find("all", name))) == i + 1
                if i % 40 == 0:
                    db0.commit()
        except BaseException as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(f"t{k}",)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not errors
    assert len(db0.find("all")) == 600


def test_a_small_cache(store: str) -> None:
    view = scope.current_view(True)
    view.weight_limit = 60_000
    for i in range(3000):
        db0.tags(Thing(i)).add(f"m{i % 40}", "all")
        if i % 500 == 0:
            db0.commit()
    db0.commit()
    for k in range(40):
        assert [t.number for t in db0.find(f"m{k}", "all")] == list(range(2960 + k, -1, -40))
    assert view.tag_index._weight <= 60_000


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_finds_what_was_committed(store: str) -> None:
    kept = [Thing(i) for i in range(10)]
    db0.tags(*kept).add("old")
    db0.commit()
    db0.tags(*kept[:5]).add("new")
    assert len(db0.find("new")) == 5
    child = os.fork()
    if not child:
        good = False
        try:
            good = len(db0.find("old")) == 10 and len(db0.find("new")) == 0 and len(list(db0.find(Thing))) == 10
        finally:
            os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(db0.find("new")) == 5
    db0.commit()


def test_a_failed_commit_puts_membership_back(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dbzero.storage.prefix import Prefix

    holder = db0.list([Thing(1), Thing(2)])
    db0.tags(*holder).add("t")
    db0.commit()
    identity = db0.uuid(holder[0])
    db0.tags(holder[0]).remove("t")
    holder.pop(0)

    def fail(self: object, batch: object) -> int:
        raise db0.DiskFullError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(Prefix, "commit", fail)
        with pytest.raises(db0.DiskFullError):
            db0.commit()
    assert len(db0.find(Thing)) == 2
    assert db0.exists(identity)
    db0.commit()
    assert not db0.exists(identity) and len(db0.find(Thing)) == 1
