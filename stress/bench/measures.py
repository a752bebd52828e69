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
        memo=lambda cls: cls, list=list, dict=dict, commit=commit, uuid=uuid, fetch=objects.__getitem__
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
    size = 5 * scale
    rng = random.Random(2)
    order = [rng.randrange(size) for _ in range(size)]
    numbers = api.list(range(size))
    by_number = api.dict({number: number for number in range(size)})
    names = [f"key {number}" for number in order]
    by_name = api.dict({f"key {number}": number for number in range(size)})
    api.commit()

    def list_get() -> None:
        for position in order:
            numbers[position]

    def int_get() -> None:
        for key in order:
            by_number[key]

    def str_get() -> None:
        for key in names:
            by_name[key]

    return {
        f"list get, {size:,} ints": best(list_get, size),
        f"dict get, {size:,} int keys": best(int_get, size),
        f"dict get, {size:,} str keys": best(str_get, size),
    }


GROUPS = (attributes, commits, fetches, collections)


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
