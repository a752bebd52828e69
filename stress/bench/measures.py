"""What is measured, written once against the public API; `Plain` stands in for it with ordinary Python objects.

Run as a program it prints one JSON object of nanoseconds per operation. It works for whatever `import dbzero` finds, so that other implementations of the
API can be measured by the same code under an interpreter of their own.

    python stress/bench/measures.py plain|dbzero --root DIR --scale N
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import tempfile
import time
import timeit
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

REPEATS = 5  # of each row that only computes; the fastest counts


def plain(root: str) -> Any:
    """The same calls on ordinary objects. A commit is what no durable commit can do without: an append and an fdatasync."""
    file = os.open(os.path.join(root, "raw"), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    os.posix_fallocate(file, 0, 1 << 20)
    objects: dict[str, object] = {}

    def commit() -> None:
        os.write(file, bytes(128))
        os.fdatasync(file)

    def uuid(thing: object) -> str:
        objects[f"{id(thing):024X}"] = thing
        return f"{id(thing):024X}"

    return SimpleNamespace(
        memo=lambda cls: cls, list=list, dict=dict, set=set, commit=commit, uuid=uuid, fetch=objects.__getitem__
    )


def dbzero(root: str) -> Any:
    import dbzero

    dbzero.init(root, autocommit=False)
    dbzero.open("bench", "rw")
    return dbzero


def best(function: Callable[[], object], operations: int) -> float:
    """Processor time of one operation in ns, the fastest of a few runs."""
    timer = timeit.Timer(function, timer=time.process_time)
    return min(timer.repeat(REPEATS, 1)) / operations * 1e9


def attributes(api: Any, scale: int) -> dict[str, float]:
    @api.memo
    class Point:
        def __init__(self, x: int, y: int) -> None:
            self.x = x
            self.y = y

    point = Point(1, 2)
    holder = api.list([point])
    api.commit()
    del point  # what is measured is an object that was loaded, not one that was made here
    gc.collect()
    getattr(api, "clear_cache", gc.collect)()
    point = holder[0]
    count = 10 * scale
    each = range(count)

    def nothing() -> None:
        for _ in each:
            pass

    def read() -> None:
        for _ in each:
            point.x

    def write() -> None:
        for value in each:
            point.x = value

    def create() -> None:
        made = api.list()
        for number in range(scale):
            made.append(Point(number, number))
        api.commit()
        holder.append(made)

    rows = {
        "(the loop around each of these)": best(nothing, count),
        "attribute read": best(read, count),
        "attribute write": best(write, count),
    }
    times = []
    for _ in range(3):
        started = time.perf_counter()
        create()
        times.append(time.perf_counter() - started)
    rows["create in a list, commit included"] = min(times) / scale * 1e9
    return rows


def commits(api: Any, scale: int) -> dict[str, float]:
    @api.memo
    class Counter:
        def __init__(self) -> None:
            self.value = 0

    counter = Counter()
    holder = api.list([counter])
    api.commit()
    times = []
    for number in range(max(50, scale // 50)):
        counter.value = number
        started = time.perf_counter()
        api.commit()
        times.append(time.perf_counter() - started)
    assert len(holder) == 1
    return {"small durable commit, median": statistics.median(times) * 1e9}


def fetches(api: Any, scale: int) -> dict[str, float]:
    @api.memo
    class Thing:
        def __init__(self, number: int) -> None:
            self.number = number

    things = api.list()
    for number in range(scale):
        things.append(Thing(number))
    api.commit()
    uuids = [api.uuid(thing) for thing in things]
    hot = uuids[0]
    kept = [things[number] for number in range(scale)]
    random.Random(1).shuffle(uuids)
    each = range(scale)
    fetch = api.fetch

    def fetch_hot() -> None:
        for _ in each:
            fetch(hot)

    def fetch_random() -> None:
        for uuid in uuids:
            fetch(uuid)

    rows = {"fetch by uuid, one": best(fetch_hot, scale), "fetch by uuid, random loaded": best(fetch_random, scale)}
    assert len(kept) == scale
    return rows


def collections(api: Any, scale: int) -> dict[str, float]:
    """List, dict and set; each row net of the loop around it. Setting and adding count until the collection's length is known."""
    size = 5 * scale
    rng = random.Random(2)
    order = [rng.randrange(size) for _ in range(size)]
    rows: dict[str, float] = {}

    def net(name: str, work: Callable[[], object], loop: Any) -> None:
        def nothing() -> None:
            for _ in loop:
                pass

        rows[f"{name}, {len(loop):,}"] = max(best(work, len(loop)) - best(nothing, len(loop)), 0.1)

    numbers = api.list(range(size))
    api.commit()

    def list_get() -> None:
        for position in order:
            numbers[position]

    def append() -> None:
        made = api.list()
        for number in order:
            made.append(number)

    def iterate() -> None:
        for _ in numbers:
            pass

    net("list get, ints, random", list_get, order)
    net("list append", append, order)
    api.commit()
    net("list iterate, ints", iterate, range(size))

    @api.memo
    class Cell:
        def __init__(self, number: int) -> None:
            self.number = number

    cells = api.list([Cell(number) for number in range(scale)])
    api.commit()

    def fields() -> None:
        for cell in cells:
            cell.number

    net("list iterate, objects + attribute", fields, range(scale))
    for kind, keys in (("int", list(range(size))), ("str", [f"key {number}" for number in range(size)])):
        sought = [keys[number] for number in order]
        table, group = api.dict(), api.set()

        def set_all(keys: list[Any] = keys) -> None:
            made = api.dict()
            for key in keys:
                made[key] = 1
            len(made)

        def get(table: Any = table, sought: list[Any] = sought) -> None:
            for key in sought:
                table[key]

        def add(keys: list[Any] = keys) -> None:
            made = api.set()
            for key in keys:
                made.add(key)
            len(made)

        def within(group: Any = group, sought: list[Any] = sought) -> None:
            for key in sought:
                key in group  # noqa: B015 - that is what is measured

        for key in keys:
            table[key] = 1
            group.add(key)
        api.commit()
        net(f"dict get, {kind} keys, random", get, sought)
        net(f"dict set, new {kind} keys", set_all, keys)
        api.commit()
        net(f"set contains, {kind}s, random", within, sought)
        net(f"set add, new {kind}s", add, keys)
        api.commit()
    return rows


def indexes(api: Any, scale: int) -> dict[str, float]:
    """Index; there is no plain one."""
    if not hasattr(api, "index"):
        return {}

    @api.memo
    class Entry:
        def __init__(self, number: int) -> None:
            self.number = number

    entries = [Entry(number) for number in range(scale)]
    keys = list(range(scale))
    random.Random(3).shuffle(keys)
    holder = api.list(entries)
    api.commit()
    index = api.index()
    started = time.perf_counter()
    for key, entry in zip(keys, entries, strict=True):
        index.add(key, entry)
    api.commit()
    rows = {"index add, commit included": (time.perf_counter() - started) / scale * 1e9}
    starts = keys[:200]

    def ranges() -> None:
        for start in starts:
            for _ in index.select(start, start + 99):
                pass

    rows["index range of 100, an item"] = best(ranges, 100 * len(starts))
    assert len(holder) == scale
    return rows


GROUPS = (attributes, commits, fetches, collections, indexes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("api", choices=("plain", "dbzero"))
    parser.add_argument("--root", default=None, help="directory for the store (default: a temporary one)")
    parser.add_argument("--scale", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        api = (plain if options.api == "plain" else dbzero)(options.root or scratch)
        rows: dict[str, float] = {}
        for group in GROUPS:
            rows |= group(api, options.scale)
        print(json.dumps(rows))
        if options.api == "dbzero":
            api.close()


if __name__ == "__main__":
    main()
