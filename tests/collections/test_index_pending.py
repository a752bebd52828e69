"""Additions to an index that wait until somebody looks: nobody may tell, whatever happens in between."""

from __future__ import annotations

import datetime as dt
import gc
import random

import pytest

import dbzero as db0
from dbzero.errors import Error, UnsupportedTypeError


@db0.memo
class Item:
    def __init__(self, number):
        self.number = number


@db0.memo(singleton=True)
class Root:
    def __init__(self):
        self.index = db0.index()


@pytest.fixture
def index(store):
    root = Root()
    db0.commit()
    yield root.index
    root.index._check()


def numbers(found):
    return [item.number for item in found]


def fill(index, keys):
    """Add an object for each key, which is its number."""
    items = [Item(key) for key in keys]
    for key, item in zip(keys, items, strict=True):
        index.add(key, item)
    return items


@pytest.mark.parametrize("make", [int, lambda i: f"{i:05}", float, lambda i: i if i % 2 else float(i)])
@pytest.mark.parametrize("n", [2, 9, 128, 129, 1000])
def test_random_and_ascending_keys(index, make, n):
    keys = [make(i) for i in random.Random(n).sample(range(10 * n), n)]
    fill(index, keys)
    assert numbers(index.select()) == sorted(keys)
    later = sorted(make(i) for i in range(10 * n, 11 * n))
    fill(index, later)
    fill(index, keys[:20])
    db0.commit()
    assert numbers(index.select()) == sorted(keys + later + keys[:20])
    assert len(index) == 2 * n + len(keys[:20])


def test_the_same_entry_again(index):
    items = fill(index, range(300))
    for item in items[::3]:
        index.add(item.number, item)
        index.add(float(item.number), item)  # an equal key
        index.add(item.number, item)
    assert len(index) == 300
    for item in items:
        index.add(item.number, item)
    assert len(index) == 300
    assert {type(key) for key, _ in index} == {int}


def test_ascending_keys_leave_full_leaves(index):
    fill(index, range(1000))
    db0.commit()
    fill(index, range(1000, 5000))
    db0.commit()
    from dbzero.collections import keyed

    sizes = [len(leaf._data.items) for leaf in keyed.leaves(index._data.root)]
    assert sum(sizes) / len(sizes) > 110


def test_errors_come_at_once(index):
    fill(index, [3, 1, 2])
    with pytest.raises(UnsupportedTypeError):
        index.add("text", Item(1))
    with pytest.raises(Error):
        index.add(1, "no object")
    with pytest.raises(UnsupportedTypeError):
        index.add(float("nan"), Item(1))
    assert numbers(index.select()) == [1, 2, 3]


def test_removed_and_cleared(index):
    items = fill(index, range(50))
    index.remove(7, items[7])
    fill(index, range(100, 110))
    assert numbers(index.select(5, 9)) == [5, 6, 8, 9]
    index.clear()
    assert len(index) == 0
    fill(index, ["b", "a"])  # any family may follow
    assert numbers(index.select()) == ["a", "b"]
    fill(index, ["d", "c"])
    index.clear()
    db0.commit()
    assert list(index) == []


def test_they_hold_their_objects(index):
    fill(index, range(40))
    fill(index, [100])
    item = Item(41)
    index.add(41, item)
    uuid = db0.uuid(item)
    assert db0.getrefcount(item) == 1
    with pytest.raises(Error):
        db0.delete(item)
    del item
    gc.collect()
    db0.commit()
    assert db0.fetch(uuid).number == 41


def test_a_running_iteration_shows_what_there_was(index):
    fill(index, range(0, 600, 2))
    walk, back = iter(index.select()), iter(index.sort(index.select(), desc=True))
    assert [next(walk).number, next(back).number] == [0, 598]
    fill(index, range(1, 600, 2))
    assert len(index) == 600
    fill(index, range(600, 700))
    assert numbers(walk) == list(range(2, 600, 2))
    assert numbers(back) == list(range(596, -1, -2))


@pytest.mark.parametrize("kept", [True, False])
def test_atomic_blocks(index, kept):
    fill(index, range(0, 400, 4))  # pending when the block begins
    walk = iter(index.select())
    next(walk)
    with db0.atomic() as block:
        fill(index, range(1, 400, 4))
        inner = iter(index.select())
        next(inner)
        fill(index, range(2, 400, 4))
        if not kept:
            block.cancel()
    expected = [i for i in range(400) if i % 4 in (0, 1, 2)] if kept else list(range(0, 400, 4))
    assert numbers(walk) == list(range(4, 400, 4))
    assert numbers(index.select()) == expected
    fill(index, [1000, 3])
    db0.commit()
    assert numbers(index.select()) == sorted([*expected, 3, 1000])


def test_a_block_that_fails(index):
    fill(index, [5, 6])
    with pytest.raises(ZeroDivisionError), db0.atomic():
        fill(index, range(10, 200))
        raise ZeroDivisionError
    assert numbers(index.select()) == [5, 6]
    fill(index, [4])
    assert numbers(index.select()) == [4, 5, 6]


def test_find_sees_them(index):
    for item in fill(index, range(100)):
        db0.tags(item).add("all")
    assert numbers(db0.find("all", index.select(95, 200))) == [99, 98, 97, 96, 95]
    fill(index, range(100, 150))
    assert numbers(index.sort(index.select(), desc=True)[:2]) == [149, 148]


def test_keys_that_are_ranked_otherwise_follow(index):
    items = fill(index, [1, 2])
    for item in items:
        index.remove(item.number, item)
    zone = dt.timezone(dt.timedelta(hours=2))
    moments = [dt.datetime(2024, 1, day, tzinfo=zone) for day in (2, 1)]
    fill(index, moments)
    assert [key for key, _ in index] == moments[::-1]


def test_collecting_garbage_goes_on(index):
    fill(index, range(2000))
    assert len(index) == 2000
    assert gc.isenabled()
    gc.disable()
    try:
        fill(index, range(2000, 4000))
        assert len(index) == 4000
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_long_keys(index):
    keys = [f"{i:04}" + "k" * (i % 7 * 3000) for i in random.Random(1).sample(range(1000), 150)]
    fill(index, keys)
    assert numbers(index.select()) == sorted(keys)
