"""Long random programs over nested collections with commits, reopening, evictions, deletions and atomic blocks, against
plain Python values. Prints the seed and step of the first difference, and exits with 1.

    python stress/programs.py --steps 2000000 --seed 1 [--nodes 8] [--seconds S]
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import dbzero as db0
from dbzero.storage.verify import check_root
from tests.collections.harness import small_nodes
from tests.programs import Program

LENGTH = 2000  # steps of one program


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--length", type=int, default=LENGTH, help="steps of one program, each on a store of its own")
    parser.add_argument("--nodes", type=int, default=8, help="values in a leaf; 0: as in production")
    parser.add_argument("--compare", type=int, default=20, help="steps between two comparisons of everything")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop then, with what was done")
    options = parser.parse_args()
    start, done, seed = time.monotonic(), 0, options.seed
    counts: dict[str, int] = {}
    while done < options.steps and time.monotonic() - start < options.seconds:
        chance = random.Random(seed)
        with (
            tempfile.TemporaryDirectory() as root,
            small_nodes(options.nodes) if options.nodes else contextlib.nullcontext(),
        ):
            program = Program(root)
            step = 0
            try:
                for step in range(min(options.length, options.steps - done)):
                    program.run(tuple(chance.randrange(1 << 20) for _ in range(4)))  # type: ignore[arg-type]
                    if step % options.compare == 0:
                        program.compare()
                program.close()
                problems = check_root(root)
                if problems:
                    raise AssertionError(problems)
            except BaseException:
                print(f"seed {seed}, step {step} of its program: a difference", flush=True)
                db0.close()
                raise
            done += step + 1
            for name, count in program.counts.items():
                counts[name] = counts.get(name, 0) + count
        seed += 1
    seconds = time.monotonic() - start
    print(f"{done} steps in {seed - options.seed} programs, {seconds:.0f} s, no difference; {counts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
