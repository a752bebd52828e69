"""Rounds of kill -9 against a committing writer that has a reader attached.

After each round a new writer opens the store as it is and verifies every object. Fails when an acknowledged commit is missing, when more than the one
commit in flight appeared, when a reader saw a state that was never committed or went back, when the next writer cannot start by itself, or when something
is left behind at the end.

    python stress/kill_writer.py --rounds 500
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from processes import Child, Failure, leftovers, verify


class Rounds:
    """One store, and what it must hold by now."""

    def __init__(self, root: Path, rng: random.Random) -> None:
        self.root = root
        self.rng = rng
        self.least = 0  # newest serial known to be committed
        self.commits = 0
        self.checks = 0
        self.kills = {"while committing": 0, "at any moment": 0, "reader": 0}
        self.segments: set[str] = set()
        self.reader = Child("reader", root)

    def writer(self, *arguments: object) -> Child:
        return Child("writer", self.root, "--seed", self.rng.getrandbits(32), *arguments)

    def one(self, window: float) -> None:
        """Start a writer, kill it, and take note of what it acknowledged. Every tenth time or so the reader goes with it."""
        writer = self.writer()
        try:
            # Mostly in the middle of committing; else from the start of the process on, so that opening and recovery are hit as well.
            if self.rng.random() < 0.75:
                writer.wait_for(lambda child: child.numbers("ack"), "a first commit")
                self.segments |= writer.segments()
                self.kills["while committing"] += 1
            else:
                self.kills["at any moment"] += 1
            time.sleep(self.rng.uniform(0, window))
            self.reader.check()
        finally:
            writer.kill()
        self.settle(writer)
        if self.rng.random() < 0.1:
            self.kills["reader"] += 1
            self.replace_reader()

    def settle(self, writer: Child) -> None:
        """Compare what a writer found and acknowledged with what must be there."""
        if writer.process.returncode not in (0, -9):
            raise Failure(f"the writer failed by itself with {writer.process.returncode}:\n{writer.tail()}")
        if any(line.startswith("torn") for line in writer.lines):
            raise Failure(f"the writer found:\n{writer.tail()}")
        found = writer.last("found")
        if found is None:  # killed before it had verified the store
            return
        if not self.least <= found <= self.least + 1:
            raise Failure(f"transaction {self.least} was acknowledged, the next writer found {found}")
        acknowledged = writer.numbers("ack")
        if acknowledged != list(range(found + 1, found + 1 + len(acknowledged))):
            raise Failure(f"acknowledged after {found}: {acknowledged[:5]}...")
        self.commits += len(acknowledged)
        self.least = acknowledged[-1] if acknowledged else found

    def replace_reader(self) -> None:
        self.reader.check()
        self.reader.kill()
        self.checks += self.reader.last("seen", 2) or 0
        self.reader = Child("reader", self.root)

    def finish(self) -> None:
        """A clean writer, a reader that has caught up, a verified store, nothing left behind."""
        writer = self.writer("--limit", 20)
        writer.finish()
        self.settle(writer)
        self.reader.wait_for(lambda child: (child.last("seen") or 0) >= self.least, f"serial {self.least}")
        self.reader.check()
        self.reader.kill()
        self.checks += self.reader.last("seen", 2) or 0
        verify(self.root)
        # The reader was killed with the segment in hand: the next process to come and go clears that away.
        writer = self.writer("--limit", 1)
        writer.finish()
        self.settle(writer)
        leftovers(self.root, self.segments)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=30.0, help="stop after this long, with what was done by then")
    parser.add_argument(
        "--window", type=float, default=0.12, help="longest time in seconds between the chosen moment and the kill"
    )
    parser.add_argument("--seed", type=int, default=None, help="of the choices made here (default: random; printed)")
    parser.add_argument(
        "--verify-every", type=int, default=50, metavar="N", help="run a full check with nobody attached every N rounds"
    )
    options = parser.parse_args()
    seed = random.SystemRandom().getrandbits(32) if options.seed is None else options.seed
    print(f"seed {seed}")
    root = Path(tempfile.mkdtemp(prefix="dbzero-kill-"))
    rounds = Rounds(root, random.Random(seed))
    deadline = time.monotonic() + options.minutes * 60
    done = 0
    try:
        while done < options.rounds and time.monotonic() < deadline:
            rounds.one(options.window)
            done += 1
            if done % options.verify_every == 0:
                rounds.replace_reader()
                verify(root)
                print(f"{done} rounds, {rounds.commits} commits, store verified", flush=True)
        rounds.finish()
    except Failure as failure:
        print(f"FAILED in round {done + 1} (store kept in {root}): {failure}", file=sys.stderr)
        return 1
    finally:
        rounds.reader.kill()
    shutil.rmtree(root)
    kills = ", ".join(f"{count} {when}" for when, count in rounds.kills.items())
    print(
        f"{done} rounds ({kills}): {rounds.commits} acknowledged commits all there, {rounds.checks} states checked by readers, none torn"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
