"""Threads that do everything at once through the public API."""

from __future__ import annotations

import faulthandler
import random
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import dbzero as db0

APPENDS = 500


@db0.memo(id="tests/threads/Node")
class Node:
    def __init__(self, number: int) -> None:
        self.number = number
        self.twin = number
        self.text = "x" * 100
        self.children = []


@db0.memo(singleton=True, id="tests/threads/Top")
class Top:
    def __init__(self) -> None:
        self.log = []
        self.table = {}
        self.nodes = []


@pytest.fixture(autouse=True)
def _quick_switches() -> Iterator[None]:
    """Threads take turns 50 times as often as usual; a hang shows where."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    faulthandler.dump_traceback_later(60, exit=False)
    yield
    faulthandler.cancel_dump_traceback_later()
    sys.setswitchinterval(before)


def together(*jobs: Callable[[], object]) -> None:
    """Run all of them at the same time; the first error is raised here."""
    errors: list[BaseException] = []
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[], object]) -> None:
        start.wait()
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


@pytest.mark.parametrize("cache_size", [64 << 10, 256 << 20])
def test_no_update_is_lost(root: str, cache_size: int) -> None:
    db0.init(root, autocommit_interval=5, cache_size=cache_size)
    db0.open("p")
    top = Top()
    top.nodes.extend(Node(n) for n in range(500))
    db0.commit()
    working = [4]

    def append(who: int) -> None:
        rng = random.Random(who)
        try:
            for n in range(APPENDS):
                top.log.append((who, n))
                top.table[f"{who}/{n}"] = n
                node = top.nodes[rng.randrange(len(top.nodes))]
                node.children.append(Node(n))
        finally:
            working[0] -= 1

    def read() -> None:
        rng = random.Random(7)
        while working[0]:
            node = top.nodes[rng.randrange(len(top.nodes))]
            assert node.number == node.twin
            assert all(child.number == child.twin for child in list(node.children))
            assert db0.fetch(db0.uuid(node)) is node

    def disturb() -> None:
        while working[0]:
            db0.clear_cache()
            db0.commit()

    together(*[lambda who=who: append(who) for who in range(4)], read, read, disturb, disturb)
    check(top)
    uuid = db0.uuid(top.nodes[3])
    db0.close()
    db0.init(root)
    db0.open("p", "r")
    check(Top())
    assert db0.fetch(uuid).number == 3


def check(top: Any) -> None:
    assert len(top.log) == 4 * APPENDS
    for who in range(4):
        assert [n for w, n in top.log if w == who] == list(range(APPENDS))
        assert all(top.table[f"{who}/{n}"] == n for n in range(APPENDS))
    assert sum(len(node.children) for node in top.nodes) == 4 * APPENDS


def test_close_and_init_under_running_threads(root: str) -> None:
    """The story: calls into the engine run without the GIL, and `close()` unmapped the segment that one of them was reading."""
    db0.init(root, autocommit_interval=5)
    db0.open("p")
    Top().nodes.extend(Node(n) for n in range(200))
    db0.commit()
    rounds = 25
    over = threading.Event()

    def restart() -> None:
        try:
            for _ in range(rounds):
                over.wait(0.02)
                db0.close()
                db0.init(root, autocommit_interval=5)
                db0.open("p")
        finally:
            over.set()

    def use(seed: int) -> None:
        rng = random.Random(seed)
        while not over.is_set():
            try:
                top = Top()
                if len(top.nodes) == 0:
                    continue  # between close() and open(): on the default prefix, which Top() has opened
                node = top.nodes[rng.randrange(200)]
                assert node.number == node.twin
                node.children.append(Node(1))
                node.text = "y" * rng.randrange(200)
                db0.get_state_num()
                if seed % 2:
                    db0.commit()
                else:
                    db0.clear_cache()
            except (db0.ClosedError, db0.NotInitializedError, db0.PrefixError, db0.LeaseError):
                continue

    together(restart, *[lambda seed=seed: use(seed) for seed in range(5)])
    db0.open("p")
    db0.commit()
    assert len(Top().nodes) == 200


def test_blocks_and_the_background_commit_never_wait_for_each_other(root: str) -> None:
    """Atomic blocks took the commit locks in the order in which prefixes were opened, commits in that of their uuids:
    with several prefixes and autocommit, both could hold what the other waited for."""
    db0.init(root, autocommit_interval=1)
    lists = []
    for number in range(8):
        db0.open(f"p{number}")
        lists.append(db0.list([0]))
        node = Node(number)
        node.children = lists[-1]
        db0.tags(node).add("kept")

    def use() -> None:
        for _ in range(1500):
            with db0.atomic():
                for numbers in lists:
                    numbers[0] += 1

    together(use)
    db0.commit()
    assert [numbers[0] for numbers in lists] == [1500] * 8
