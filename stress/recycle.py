#!/usr/bin/env python3
"""Thousands of short-lived processes that each write once: forked from one that has the prefix open, started anew, killed. Nothing may leak.

    stress/recycle.py [--processes 10000] [--beside 8]

Afterwards: every acknowledged step is there, the table of processes is empty but for this one, no thread, descriptor, file or shared memory is left.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from counter import PREFIX, Tally, count, total
from processes import Failure, leftovers, verify

import dbzero as db0


def child(who: str, way: int) -> None:
    """A life of one transaction, ended in one of several ways."""
    with db0.atomic():
        count(Tally(), who)
    if way == 0:
        db0.close()
    if way == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(0)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=10_000)
    parser.add_argument("--beside", type=int, default=8, help="how many live at a time")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        db0.init(str(root), prefix=PREFIX, shared=True, cache_size=64 << 20)
        with db0.atomic():
            Tally()
        segment = db0.status()["segment"]["name"]
        before, living, started = descriptors(), set(), time.monotonic()
        finished = 0
        while finished < options.processes:
            while len(living) < options.beside and finished + len(living) < options.processes:
                way = dice.randrange(4)
                pid = os.fork()
                if pid == 0:
                    try:
                        child(f"c{way}", way)
                    finally:
                        os._exit(1)
                living.add(pid)
            pid, status = os.wait()
            living.discard(pid)
            finished += 1
            if status not in (0, signal.SIGKILL):
                raise Failure(f"process {finished} ended with {status}")
        took = time.monotonic() - started
        with db0.atomic():
            value = Tally().value
        alone = [p["pid"] for p in db0.status()["processes"] if p["live"]]
        time.sleep(1.2)
        with db0.atomic():
            Tally().value += 0
        left = len(db0.status()["processes"])
        after = descriptors()
        db0.close()
        if value != options.processes:
            raise Failure(f"{options.processes} acknowledged, the counter is {value}")
        if alone != [os.getpid()] or left > 1 + options.beside:
            raise Failure(f"process slots leaked: {left} in use, alive {alone}")
        if after > before:
            raise Failure(f"{after - before} descriptors leaked")
        if total(str(root)) != value:
            raise Failure("the counter is another one after reopening")
        verify(root)
        leftovers(root, {segment.lstrip("/")})
        print(f"{options.processes:,} processes in {took:.1f} s, {options.processes / took:,.0f}/s; nothing is left")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        print(f"FAILED: {failure}")
        sys.exit(1)
