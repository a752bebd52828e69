#!/usr/bin/env python3
"""Shared writers under fire: workers count in transactions and are killed at random; what was acknowledged must be there.

    stress/many_workers.py [--workers 4] [--seconds 20] [--no-kills]

At the end acknowledged <= value <= acknowledged + killed in flight; without kills they are equal. The store must pass the check and leave nothing behind.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from counter import total
from processes import Child, Failure, leftovers, verify


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--no-kills", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        workers: list[Child] = []
        kills, acknowledged, segments = 0, 0, set()

        def start(number: int) -> Child:
            return Child("work", root, f"w{number}", 10, 10**9, 0.01, script="counter.py")

        try:
            workers = [start(n) for n in range(options.workers)]
            for worker in workers:
                worker.wait_for(lambda c: "open" in c.lines, "the prefix to open", 60)
                segments |= worker.segments()
            end = time.monotonic() + options.seconds
            while time.monotonic() < end:
                time.sleep(dice.random() * 0.8)
                for worker in workers:
                    worker.check()
                if not options.no_kills:
                    n = dice.randrange(len(workers))
                    workers[n].kill()
                    kills += 1
                    acknowledged += len(workers[n].numbers("ack"))
                    workers[n] = start(n)
            in_flight = kills + len(workers)
        finally:
            for worker in workers:
                worker.kill()
        acknowledged += sum(len(worker.numbers("ack")) for worker in workers)
        value = total(str(root))
        verify(root)
        leftovers(root, segments)
        print(
            f"{acknowledged:,} acknowledged, value {value:,}, {in_flight} killed, {acknowledged / options.seconds:,.0f}/s"
        )
        if not acknowledged <= value <= acknowledged + in_flight:
            raise Failure("the counter does not fit the acknowledgements")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        print(f"FAILED: {failure}")
        sys.exit(1)
