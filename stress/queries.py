"""Long random programs of tags, indexes, queries, operators and snapshots against a naive evaluator. Prints the seed and
step of the first difference, and exits with 1.

    python stress/queries.py --steps 1000000 --seed 1 [--length 1000] [--seconds S]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import dbzero as db0
from dbzero.storage.verify import check_root
from tests.query.random_queries import Queries


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--length", type=int, default=1000, help="steps of one program, each on a store of its own")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop then, with what was done")
    options = parser.parse_args()
    start, done, seed = time.monotonic(), 0, options.seed
    counts: Counter[str] = Counter()
    while done < options.steps and time.monotonic() - start < options.seconds:
        chance = random.Random(seed)
        with tempfile.TemporaryDirectory() as root:
            step = 0
            try:
                program = Queries(root)
                for step in range(min(options.length, options.steps - done)):
                    program.run(chance.randrange(1 << 32))
                    if step % 100 == 99:
                        program.compare()
                    if step % 300 == 299:
                        program.reopen()
                program.compare()
                db0.close()
                problems = check_root(root)
                if problems:
                    raise AssertionError(problems)
            except BaseException:
                print(f"seed {seed}, step {step} of its program: a difference", flush=True)
                db0.close()
                raise
        done += step + 1
        counts += program.counts
        seed += 1
    seconds = time.monotonic() - start
    print(f"{done} steps in {seed - options.seed} programs, {seconds:.0f} s, no difference; {dict(counts)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
