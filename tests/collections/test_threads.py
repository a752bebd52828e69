"""Collections used by several threads at once, beside commits and evictions."""

from __future__ import annotations

import sys
import threading

import pytest

from dbzero.collections import make_dict, make_list, make_set
from dbzero.model.base import operation


@pytest.fixture(autouse=True)
def busy_switching():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def run(*acts):
    failures = []

    def guarded(act):
        try:
            act()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_nothing_is_lost_between_threads(bench, tiny):
    numbers, mapping, group = make_list(), make_dict(), make_set()
    n = 1200

    def fill(k):
        for i in range(k, n, 4):
            numbers.append(i)
            mapping[i] = i
            group.add(i)
            if i % 7 == 0:
                numbers.insert(len(numbers) // 2, -i)
                mapping.pop(i)
                group.discard(i)

    done = threading.Event()

    def disturb():
        while not done.is_set():
            bench.commit()
            with operation:
                bench.evict()

    def read():
        while not done.is_set():
            len(list(numbers)), len(list(mapping.items())), len(list(group))
            for i in range(0, n, 50):
                mapping.get(i), i in group
            if len(numbers):
                numbers[-1], numbers[0]

    helpers = [threading.Thread(target=act) for act in (disturb, read)]
    for helper in helpers:
        helper.start()
    try:
        run(*[lambda k=k: fill(k) for k in range(4)])
    finally:
        done.set()
        for helper in helpers:
            helper.join()
    kept = [i for i in range(n) if i % 7]
    assert sorted(numbers) == sorted([*range(n), *[-i for i in range(0, n, 7)]])
    assert sorted(mapping) == kept and all(mapping[i] == i for i in kept)
    assert sorted(group) == kept
    made = bench.reopen(type(numbers), numbers._p_oid)
    assert made == numbers
    for one in (made, numbers, mapping, group):
        one._check()
