"""A million elements: list, dict, set and index beside plain Python's, at growing sizes, and with a small cache.

    python stress/million.py [--sizes 10000,100000,1000000] [--cache-mb 16] [--skip-cache]

First table: ns of processor time an operation at each size, ours and plain Python's, and by how much each grew from the smallest size to the largest. Writing
counts until the last change is in the trees (a commit is a row of its own). An index has no plain counterpart: a sorted list and bisect stand in for it.

Second part: a process of its own opens the store that the largest size left, with a cache of --cache-mb, goes over
everything once and reads at random. It fails when memory grows beyond the cache and an allowance, or when anything
reads differently than it was written.
"""

from __future__ import annotations

import argparse
import bisect
import gc
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

import dbzero as db0

ALLOWANCE_MB = 60  # beside the cache: the interpreter's own arenas, inner nodes, page tables
READS = 100_000


@db0.memo
class Row:
    def __init__(self, number: int) -> None:
        self.number = number


class PlainRow:
    def __init__(self, number: int) -> None:
        self.number = number


class PlainIndex:
    """A sorted list of keys, and the objects in the same order."""

    def __init__(self) -> None:
        self.keys: list[int] = []
        self.values: list[Any] = []

    def add_all(self, pairs: list[tuple[int, Any]]) -> None:
        pairs = sorted(pairs, key=lambda pair: pair[0])
        self.keys, self.values = [key for key, _ in pairs], [value for _, value in pairs]

    def range(self, low: int, high: int) -> list[Any]:
        return self.values[bisect.bisect_left(self.keys, low) : bisect.bisect_right(self.keys, high)]


Rows = dict[str, float]


def timed(rows: Rows, name: str, operations: int, work: Callable[[], object]) -> Any:
    gc.collect()
    started = time.thread_time_ns()
    result = work()
    rows[name] = (time.thread_time_ns() - started) / operations
    return result


def each(function: Callable[[Any], object], arguments: list[Any]) -> None:
    for argument in arguments:
        function(argument)


def lists(rows: Rows, n: int, make: Callable[..., Any]) -> Any:
    made = timed(rows, "list: build from an iterable", n, lambda: make(range(n)))
    grown = make()

    def append() -> None:
        add = grown.append
        for i in range(n):
            add(i)

    timed(rows, "list: append", n, append)
    places = [random.randrange(n) for _ in range(READS)]
    timed(rows, "list: get, random", READS, lambda: each(made.__getitem__, places))

    def put() -> None:
        for place in places:
            made[place] = place

    timed(rows, "list: set, random", READS, put)
    timed(rows, "list: iterate", n, lambda: sum(1 for _ in made))
    timed(rows, "list: slices of 1,000", n, lambda: [made[i : i + 1000] for i in range(0, n, 1000)])
    timed(rows, "list: delete half, slice", n // 2, lambda: grown.__delitem__(slice(0, n // 2)))
    doomed = [random.randrange(n // 2 - i) for i in range(1000)]
    timed(rows, "list: delete one, random", 1000, lambda: each(grown.__delitem__, doomed))
    assert len(grown) == n - n // 2 - 1000
    return made


def dicts(rows: Rows, n: int, make: Callable[..., Any]) -> Any:
    keys = [f"key {i}" for i in range(n)]
    random.shuffle(keys)
    made = timed(rows, "dict: build from an iterable", n, lambda: make(zip(keys, range(n), strict=True)))
    grown = make()

    def fill() -> None:
        for i, key in enumerate(keys):
            grown[key] = i
        len(grown)

    timed(rows, "dict: set new keys", n, fill)
    some = [keys[random.randrange(n)] for _ in range(READS)]
    timed(rows, "dict: get, random", READS, lambda: each(made.__getitem__, some))

    def put() -> None:
        for key in some:
            made[key] = 7
        len(made)

    timed(rows, "dict: set old keys, random", READS, put)
    timed(rows, "dict: iterate items", n, lambda: sum(1 for _ in made.items()))
    timed(rows, "dict: delete half", n // 2, lambda: each(grown.__delitem__, keys[::2]))
    assert len(grown) == n // 2
    return made


def sets(rows: Rows, n: int, make: Callable[..., Any]) -> Any:
    numbers = [i * 7 for i in range(n)]
    random.shuffle(numbers)
    made = timed(rows, "set: build from an iterable", n, lambda: make(numbers))
    grown = make()

    def fill() -> None:
        add = grown.add
        for number in numbers:
            add(number)
        len(grown)

    timed(rows, "set: add", n, fill)
    some = [random.randrange(7 * n) for _ in range(READS)]
    timed(rows, "set: contains, random, 1 of 7 there", READS, lambda: each(made.__contains__, some))
    timed(rows, "set: iterate", n, lambda: sum(1 for _ in made))
    timed(rows, "set: delete half", n // 2, lambda: each(grown.discard, numbers[::2]))
    assert len(grown) == n // 2
    return made


def indexes(rows: Rows, n: int, ours: bool) -> Any:
    keys = list(range(n))
    random.shuffle(keys)
    objects = [Row(key) if ours else PlainRow(key) for key in keys]
    if ours:
        db0.commit()
        made = db0.index()

        def fill() -> None:
            for key, obj in zip(keys, objects, strict=True):
                made.add(key, obj)

        timed(rows, "index: add", n, fill)
        starts = [random.randrange(n) for _ in range(1000)]
        timed(rows, "index: range of 100, an item", 100_000, lambda: [list(made.select(i, i + 99)) for i in starts])
        return made
    plain = PlainIndex()
    timed(rows, "index: add", n, lambda: plain.add_all(list(zip(keys, objects, strict=True))))
    starts = [random.randrange(n) for _ in range(1000)]
    timed(rows, "index: range of 100, an item", 100_000, lambda: [list(plain.range(i, i + 99)) for i in starts])
    return plain


def measure(n: int, keep: bool) -> tuple[Rows, Rows]:
    """All rows at one size: ours, plain. The store's objects are left under `holder` if they are to be kept."""
    ours: Rows = {}
    plain: Rows = {}
    made = {}
    for name, work, builtin in (("list", lists, list), ("dict", dicts, dict), ("set", sets, set)):
        random.seed(n)
        made[name] = work(ours, n, getattr(db0, name))
        timed(ours, f"{name}: commit", n, db0.commit)
        random.seed(n)
        work(plain, n, builtin)
        plain[f"{name}: commit"] = float("nan")
    random.seed(n)
    made["index"] = indexes(ours, n, True)
    timed(ours, "index: commit", n, db0.commit)
    random.seed(n)
    indexes(plain, n, False)
    plain["index: commit"] = float("nan")
    if keep:
        holder = Holder(made)
        assert holder.size == n
        db0.commit()
    return ours, plain


@db0.memo(singleton=True)
class Holder:
    def __init__(self, made: dict[str, Any]) -> None:
        self.size = len(made["list"])
        self.list, self.dict, self.set, self.index = made["list"], made["dict"], made["set"], made["index"]


def show(sizes: list[int], ours: list[Rows], plain: list[Rows], console: Console) -> None:
    table = Table(title="ns of processor time an operation", title_justify="left")
    table.add_column("work")
    for n in sizes:
        table.add_column(f"dbzero\n{n:,}", justify="right")
        table.add_column(f"plain\n{n:,}", justify="right")
    table.add_column("grew by", justify="right")
    table.add_column("plain", justify="right")
    for row in ours[0]:
        pairs = itertools.chain.from_iterable((a[row], b[row]) for a, b in zip(ours, plain, strict=True))
        cells = ["" if value != value else f"{value:,.0f}" for value in pairs]
        growth = plain[-1][row] / plain[0][row]
        table.add_row(row, *cells, f"{ours[-1][row] / ours[0][row]:.1f}", "" if growth != growth else f"{growth:.1f}")
    console.print(table)


def resident_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def anonymous_mb() -> float:
    """Resident memory that is this process's own: what stands in files it maps is the page cache's."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1000


def small_cache(root: str, cache_mb: int) -> int:
    """Go over the store with a small cache. The exit status."""
    db0.init(root, prefix="million", read_write=False, cache_size=cache_mb << 20)
    start, peak = anonymous_mb(), 0.0
    holder = Holder()
    n = holder.size
    random.seed(n)

    def watch(items: Any) -> Any:
        nonlocal peak
        for i, item in enumerate(items):
            if i % 20_000 == 0:
                peak = max(peak, anonymous_mb())
            yield item

    started = time.perf_counter()
    changed = 0
    for i, number in enumerate(watch(holder.list)):
        changed += number != i
    assert changed <= READS, f"{changed} values of the list differ, at most {READS} were set"
    assert sum(int(key[4:]) for key in watch(holder.dict)) == n * (n - 1) // 2
    assert sum(1 for _ in watch(holder.dict.items())) == n
    assert sum(watch(holder.set)) == 7 * n * (n - 1) // 2
    assert all(key == obj.number == i for i, (key, obj) in enumerate(watch(holder.index)))
    walked = time.perf_counter() - started
    started = time.perf_counter()
    reads = min(READS, n // 5)
    for _ in watch(range(reads)):
        i = random.randrange(n)
        assert holder.list[i] is not None and holder.dict[f"key {i}"] in (7, holder.dict[f"key {i}"])
        assert 7 * i in holder.set and 7 * i + 1 not in holder.set
    read = time.perf_counter() - started
    peak = max(peak, anonymous_mb())
    db0.close()
    print(
        f"{n:,} elements each, cache {cache_mb} MB: all walked in {walked:.1f} s, {reads:,} x 4 random reads in {read:.1f} s; memory of its own "
        f"{start:.0f} MB when open, {peak:.0f} MB at most"
    )
    if peak - start > cache_mb + ALLOWANCE_MB:
        print(f"FAILED: memory grew by {peak - start:.0f} MB", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--cache-mb", type=int, default=16)
    parser.add_argument("--skip-cache", action="store_true", help="leave out the second part")
    parser.add_argument("--reread", metavar="DIR", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reread:
        return small_cache(options.reread, options.cache_mb)
    sizes = [int(size) for size in options.sizes.split(",")]
    console = Console(width=max(150, Console().width))
    with tempfile.TemporaryDirectory() as root:
        ours, plain = [], []
        db0.init(root, prefix="million", autocommit=False, cache_size=4 << 30)
        for n in track(sizes, description="Measuring", console=Console(stderr=True)):
            one, other = measure(n, n == sizes[-1])
            ours.append(one)
            plain.append(other)
            gc.collect()
        print(f"memory with everything loaded: {resident_mb():,.0f} MB")
        db0.close()
        show(sizes, ours, plain, console)
        if options.skip_cache:
            return 0
        again = [sys.executable, __file__, "--reread", root, "--cache-mb", str(options.cache_mb)]
        return subprocess.run(again, timeout=900).returncode


if __name__ == "__main__":
    sys.exit(main())
