"""The shared-memory segment's name is deleted: while a writer and a reader run, and after all of them were killed. Nothing may be lost.

Each round: both run on one segment; its name is unlinked; both must go on; a reader that starts now (and can't share the segment) must follow all the same;
a second writer must be refused, since the right to write is not kept in the segment; then everybody is killed, what is left of the name is unlinked too, and a
new writer must find every acknowledged commit.

    python stress/lost_segment.py --rounds 5
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from processes import SHM, Child, Failure, leftovers, verify

STEP = 30  # commits that must go by for something to count as going on
PAUSE = 0.002  # seconds between two commits, so that readers find still moments


def unlink(names: set[str]) -> None:
    for name in names:
        (SHM / name).unlink(missing_ok=True)


def follows(reader: Child, writer: Child, what: str) -> None:
    """The reader gets to see what the writer acknowledges from now on."""
    reader.check()
    target = (writer.last("ack") or 0) + STEP
    writer.wait_for(lambda child: (child.last("ack") or 0) >= target, f"acknowledgement {target} {what}")
    reader.wait_for(lambda child: (child.last("seen") or 0) >= target, f"sight of {target} {what}", 10)
    reader.check()


def one(root: Path, seed: int, least: int) -> tuple[int, set[str]]:
    """One round on a store that must hold `least` or one more. Returns the newest acknowledged serial and the segment names met."""
    writer = Child("writer", root, "--seed", seed, "--pause", PAUSE)
    children = [writer]
    try:
        reader = Child("reader", root)
        children.append(reader)
        follows(reader, writer, "with the segment in place")
        shared = writer.segments() & reader.segments()
        if not shared:
            raise Failure(f"writer ({writer.segments()}) and reader ({reader.segments()}) share no segment")
        unlink(shared)
        follows(reader, writer, "after the segment's name was deleted")

        late = Child("reader", root)
        children.append(late)
        follows(late, writer, "by a reader that started after the name was deleted")

        second = Child("writer", root, "--limit", 1)
        children.append(second)
        if second.process.wait(30) == 0 or second.numbers("found"):
            raise Failure(f"a second writer got in beside the first:\n{second.tail()}")
        names = shared | late.segments()
    finally:
        for child in children:
            child.kill()
    found = writer.last("found")
    if found is None or not least <= found <= least + 1:
        raise Failure(f"transaction {least} was acknowledged in the round before, this writer found {found}")
    unlink(names)
    return writer.numbers("ack")[-1], names


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    root = Path(tempfile.mkdtemp(prefix="dbzero-segment-"))
    least = 0
    names: set[str] = set()
    try:
        for _ in range(options.rounds):
            least, met = one(root, rng.getrandbits(32), least)
            names |= met
        last = Child("writer", root, "--limit", 1)
        last.finish()
        found = last.last("found")
        if found is None or not least <= found <= least + 1:
            raise Failure(f"transaction {least} was acknowledged, the last writer found {found}")
        verify(root)
        leftovers(root, names)
    except Failure as failure:
        print(f"FAILED (store kept in {root}): {failure}", file=sys.stderr)
        return 1
    shutil.rmtree(root)
    print(
        f"{options.rounds} rounds, {least} acknowledged commits: nothing lost with the segment's name gone, alive or dead"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
