"""A store ten times larger than `cache_size` is written, traversed and changed, each by a process of its own, with bounded resident memory.

The bound for each process: what it needs with the store open and empty, the shared page cache, as much again for loaded objects, and a fixed slack for the
interpreter's own fragmentation. It is far below the size of the data, and does not depend on it.

    python stress/bigger_than_cache.py --cache 16 --times 10
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import dbzero as db0

MIB = 1 << 20
PAYLOAD = 1000  # bytes an object carries
BATCH = 2000  # objects a commit
SLACK = 32 * MIB


@db0.memo
class Item:
    def __init__(self, number: int, payload: bytes) -> None:
        self.number = number
        self.payload = payload
        self.touched = 0


@db0.memo(singleton=True)
class Store:
    def __init__(self) -> None:
        self.items = []


def payload(number: int) -> bytes:
    return random.Random(number).randbytes(PAYLOAD)


def write(count: int) -> str:
    store = Store()
    for number in range(count):
        store.items.append(Item(number, payload(number)))
        if number % BATCH == BATCH - 1:
            db0.commit()
    db0.commit()
    return f"{count:,} objects"


def traverse(count: int) -> str:
    store = db0.fetch(Store)
    total = 0
    for number, item in enumerate(store.items):
        if item.number != number or (number % 97 == 0 and item.payload != payload(number)):
            raise SystemExit(f"item {number} is not what was written")
        total += len(item.payload)
    if total != count * PAYLOAD:
        raise SystemExit(f"{total:,} bytes of payload are there, {count * PAYLOAD:,} were written")
    rng = random.Random(1)
    for _ in range(20_000):
        number = rng.randrange(count)
        if store.items[number].number != number:
            raise SystemExit(f"item {number} is not what was written")
    return f"{total:,} bytes"


def change(count: int) -> str:
    store = db0.fetch(Store)
    for number, item in enumerate(store.items):
        item.touched = number + 1
        if number % BATCH == BATCH - 1:
            db0.commit()
    db0.commit()
    if sum(item.touched for item in store.items) != count * (count + 1) // 2:
        raise SystemExit("changes are missing")
    return f"{count:,} objects"


PHASES: dict[str, tuple[str, Callable[[int], str]]] = {
    "write": ("rw", write),
    "traverse": ("r", traverse),
    "change": ("rw", change),
}


def peak() -> int:
    """Largest resident memory of this process so far, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def child(phase: str, root: str, cache: int, count: int) -> None:
    mode, work = PHASES[phase]
    db0.init(root, config={"cache_size": cache, "autocommit": False})
    db0.open("big", mode)
    before = peak()
    started = time.perf_counter()
    what = work(count)
    print(f"{before} {peak()} {time.perf_counter() - started:.1f} {what}")
    db0.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=int, default=16, metavar="MIB", help="cache_size")
    parser.add_argument("--times", type=int, default=10, help="size of the data in cache sizes")
    parser.add_argument("--child", nargs=2, metavar=("PHASE", "ROOT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    cache = options.cache * MIB
    count = cache * options.times // PAYLOAD
    if options.child:
        child(*options.child, cache, count)
        return 0
    root = tempfile.mkdtemp(prefix="dbzero-big-")
    failed = False
    try:
        for phase in PHASES:
            command = [
                sys.executable,
                __file__,
                "--cache",
                str(options.cache),
                "--times",
                str(options.times),
                "--child",
                phase,
                root,
            ]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=900)
            if done.returncode != 0:
                print(f"FAILED: {phase} ended with {done.returncode}", file=sys.stderr)
                return 1
            before, largest, seconds, what = done.stdout.split(maxsplit=3)
            bound = int(before) + 2 * cache + SLACK
            verdict = "ok" if int(largest) <= bound else "FAILED: over the bound"
            failed |= int(largest) > bound
            print(
                f"{phase:9} {what.strip():20} in {seconds:>5} s, resident at most {int(largest) / MIB:6.1f} MiB "
                f"({int(before) / MIB:.1f} before; bound {bound / MIB:.1f}; data {count * PAYLOAD / MIB:.0f}): {verdict}",
                flush=True,
            )
        size = (Path(root) / "big.db0").stat().st_size
        if size < cache * options.times:
            print(f"FAILED: the file has only {size / MIB:.0f} MiB, so this run tested nothing", file=sys.stderr)
            failed = True
    finally:
        shutil.rmtree(root)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
