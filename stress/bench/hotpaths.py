"""The shortest operations beside plain Python's, in one process: ns each, and how many times plain.

Both sides run the same code on the same machine in turn, the fastest round of each counts, and the loop's own cost is taken off; so the ratios hold
on a busy machine too.

    python stress/bench/hotpaths.py [--rounds N] [--scale N] [--only TEXT]
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import dbzero as db0


class PlainPoint:
    def __init__(self, x: object, y: object) -> None:
        self.x = x
        self.y = y


@db0.memo
class Point:
    def __init__(self, x: object, y: object) -> None:
        self.x = x
        self.y = y


Row = tuple[str, int, Callable[[], object], Callable[[], object]]  # name, operations, ours, plain


def elapsed(work: Callable[[], object]) -> float:
    """Processor time of this thread, ns."""
    gc.collect()
    start = time.thread_time_ns()
    work()
    return time.thread_time_ns() - start


def attribute_rows(scale: int) -> Iterator[Row]:
    each = range(10 * scale)

    def read(obj: Any) -> None:
        for _ in each:
            obj.x

    def write(obj: Any) -> None:
        for value in each:
            obj.x = value

    def create(cls: Any) -> list[Any]:
        return [cls(i, i) for i in range(scale)]

    ours, plain = Point(1, 2), PlainPoint(1, 2)
    for name, work in (("attribute read", read), ("attribute write", write)):
        yield name, len(each), (lambda work=work: work(ours)), (lambda work=work: work(plain))  # type: ignore[misc]
    yield "create", scale, lambda: create(Point), lambda: create(PlainPoint)
    db0.commit()


def commit_rows(scale: int) -> Iterator[Row]:
    made: list[Any] = db0.list()

    def batch(count: int) -> None:
        made.append([Point(i, i) for i in range(count)])
        db0.commit()

    def plain(count: int) -> None:
        [PlainPoint(i, i) for i in range(count)]

    yield "create in a list, commit included", scale, lambda: batch(scale), lambda: plain(scale)
    point = Point(0, 0)
    made.append(point)
    db0.commit()

    def small() -> None:
        for i in range(100):
            point.x = i
            db0.commit()

    file, name = tempfile.mkstemp()
    os.unlink(name)
    os.write(file, bytes(1 << 20))
    os.fdatasync(file)

    def raw() -> None:
        for i in range(100):
            os.pwrite(file, bytes(128), 128 * i)
            os.fdatasync(file)

    yield "small commit: processor time", 100, small, raw


def fetch_rows(scale: int) -> Iterator[Row]:
    things = db0.list([Point(i, i) for i in range(scale)])
    db0.commit()
    kept = list(things)
    uuids = [db0.uuid(thing) for thing in kept]
    table = dict(zip(uuids, kept, strict=True))
    random.Random(1).shuffle(uuids)
    hot, fetch, find = uuids[0], db0.fetch, table.__getitem__

    def one(look: Callable[[str], object]) -> None:
        for _ in range(scale):
            look(hot)

    def each(look: Callable[[str], object]) -> None:
        for uuid in uuids:
            look(uuid)

    yield "fetch by uuid, one", scale, lambda: one(fetch), lambda: one(find)
    yield "fetch by uuid, random loaded", scale, lambda: each(fetch), lambda: each(find)

    def load() -> None:
        db0.clear_cache()
        for thing in kept:
            thing.x

    def build() -> None:
        for i in range(scale):
            PlainPoint(i, i)

    yield "load a ghost (plain: create)", scale, load, build


def list_rows(scale: int) -> Iterator[Row]:
    size = 5 * scale
    rng = random.Random(2)
    order = [rng.randrange(size) for _ in range(size)]
    ours, plain = db0.list(range(size)), list(range(size))
    db0.commit()

    def get(values: Any) -> None:
        for position in order:
            values[position]

    def iterate(values: Any) -> None:
        for _ in values:
            pass

    def append(make: Callable[[], Any]) -> None:
        values = make()
        add = values.append
        for value in range(size):
            add(value)

    def put(values: Any) -> None:
        for position in order:
            values[position] = position

    def fields(values: Any) -> None:
        for value in values:
            value.x

    yield "list get, random", size, lambda: get(ours), lambda: get(plain)
    yield "list set, random", size, lambda: put(ours), lambda: put(plain)
    yield "list iterate, ints", size, lambda: iterate(ours), lambda: iterate(plain)
    yield "list append", size, lambda: append(db0.list), lambda: append(list)
    db0.commit()
    objects, plainer = db0.list([Point(i, i) for i in range(scale)]), [PlainPoint(i, i) for i in range(scale)]
    db0.commit()
    yield "list iterate, objects + attribute", scale, lambda: fields(objects), lambda: fields(plainer)


def keyed_rows(scale: int) -> Iterator[Row]:
    size = 2 * scale
    rng = random.Random(3)
    for name, keys in (("int", list(range(size))), ("str", [f"key {i}" for i in range(size)])):
        order = [keys[rng.randrange(size)] for _ in range(size)]

        def fill(make: Callable[[], Any], keys: Any = keys) -> None:
            table = make()
            for key in keys:
                table[key] = 1

        def put(table: Any, order: Any = order) -> None:
            for key in order:
                table[key] = 2

        def get(table: Any, order: Any = order) -> None:
            for key in order:
                table[key]

        def add(make: Callable[[], Any], keys: Any = keys) -> None:
            group = make()
            for key in keys:
                group.add(key)

        def within(group: Any, order: Any = order) -> None:
            for key in order:
                key in group  # noqa: B015 - that is what is measured

        ours, plain = db0.dict({key: 0 for key in keys}), {key: 0 for key in keys}
        db0.commit()
        yield f"dict set, new {name} keys", size, lambda fill=fill: fill(db0.dict), lambda fill=fill: fill(dict)  # type: ignore[misc]
        yield f"dict set, old {name} keys", size, lambda put=put, t=ours: put(t), lambda put=put, t=plain: put(t)  # type: ignore[misc]
        yield f"dict get, {name} keys", size, lambda get=get, t=ours: get(t), lambda get=get, t=plain: get(t)  # type: ignore[misc]
        yield f"set add, new {name}s", size, lambda add=add: add(db0.set), lambda add=add: add(set)  # type: ignore[misc]
        group, plainer = db0.set(keys), set(keys)
        db0.commit()
        yield f"set contains, {name}s", size, lambda w=within, g=group: w(g), lambda w=within, g=plainer: w(g)  # type: ignore[misc]
        db0.commit()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=int, default=20_000)
    parser.add_argument("--only", default="", help="rows that contain this text")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        db0.init(root, prefix="bench", autocommit=False)
        count = 10 * options.scale
        loop = min(elapsed(lambda: [None for _ in range(count)] and None) for _ in range(options.rounds)) / count
        print(f"{'ns of processor time':<36}{'plain':>9}{'dbzero':>9}{'ratio':>8}   (a list comprehension: {loop:.0f})")
        for rows in (attribute_rows, commit_rows, fetch_rows, list_rows, keyed_rows):
            for name, operations, ours, plain in rows(options.scale):
                if options.only not in name:
                    continue
                a = b = float("inf")
                for _ in range(options.rounds):
                    b = min(b, elapsed(plain) / operations)
                    a = min(a, elapsed(ours) / operations)
                print(f"{name:<36}{b:>9.0f}{a:>9.0f}{a / b:>8.2f}", flush=True)
        db0.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
