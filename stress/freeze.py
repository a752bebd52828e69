#!/usr/bin/env python3
"""SIGSTOP and SIGCONT of shared writers, mostly in the middle of a transaction: a stale holder never publishes.

    stress/freeze.py [--rounds 500] [--workers 3]

Each worker may have its turn for 0.2 s. A round stops one at a random moment for up to 0.5 s; the others must go on, and what the
stopped one does when it wakes must be whole or refused. At the end each acknowledged step is in the counter, and nothing else but
steps whose outcome nobody was told.
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

from counter import total
from processes import Child, Failure, leftovers, verify

ALLOWED = 0.2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        workers: list[Child] = []
        segments: set[str] = set()
        try:
            for n in range(options.workers):
                workers.append(Child("work", root, f"w{n}", ALLOWED, 10**9, 0.01, script="counter.py"))
            for worker in workers:
                worker.wait_for(lambda c: "open" in c.lines, "the prefix to open", 60)
                segments |= worker.segments()
            for number in range(options.rounds):
                time.sleep(dice.random() * 0.05)
                stopped = workers[dice.randrange(len(workers))]
                os.kill(stopped.process.pid, signal.SIGSTOP)
                try:
                    others = [worker for worker in workers if worker is not stopped]
                    before = sum(len(worker.lines) for worker in others)
                    long = number % 3 == 0
                    time.sleep(0.1 + dice.random() * 0.4 if long else dice.random() * 0.1)
                    if long:
                        deadline = time.monotonic() + 10
                        while sum(len(worker.lines) for worker in others) == before:
                            if time.monotonic() > deadline:
                                raise Failure(f"round {number}: nobody went on beside a stopped process")
                            time.sleep(0.01)
                finally:
                    os.kill(stopped.process.pid, signal.SIGCONT)
                for worker in workers:
                    worker.check()
        finally:
            for worker in workers:
                if worker.process.poll() is None:
                    os.kill(worker.process.pid, signal.SIGCONT)
                worker.kill()
        acknowledged = sum(len(worker.numbers("ack")) for worker in workers)
        fenced = sum(worker.lines.count("fenced") for worker in workers)
        values = sorted(v for worker in workers for v in worker.numbers("ack"))
        if len(set(values)) != len(values):
            raise Failure("a value was acknowledged twice")
        value = total(str(root))
        verify(root)
        leftovers(root, segments)
        print(f"{options.rounds} rounds: {acknowledged:,} acknowledged, {fenced} refused, value {value:,}")
        # A refused commit is void, unless it was published before its process was stopped: then it counts, and nobody was told.
        if not acknowledged <= value <= acknowledged + fenced + len(workers):
            raise Failure("the counter does not fit the acknowledgements")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        print(f"FAILED: {failure}")
        sys.exit(1)
