"""Compaction under load: a writer that commits and compacts, readers beside it, one of them on old snapshots, and kills.

A writer keeps the accounts of `bank.py`'s kind: every commit moves a sum between two of them and counts itself. It
compacts every so often, or not at all, and is killed at any moment - mostly while it compacts - and started again.
Fails when a commit that was acknowledged is missing, when a reader or a pinned old state shows a wrong sum or changes,
when the store does not verify, or when a file is more than 1.3 times as big as a fresh copy of it after a compaction.

With `--shared` two more writers have the prefix open, and all of them open it shared: they go on while the one that compacts
is killed, and now and then one of them is killed in its place, beside a compaction. What each process counted has to add up.

    python stress/compaction.py --rounds 50 [--shared]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import dbzero as db0

ACCOUNTS = 2000
TOTAL = ACCOUNTS * 100


@db0.memo(singleton=True, id="stress/compaction/Bank")
class Bank:
    def __init__(self) -> None:
        self.serial = 0
        self.accounts = [Account(100) for _ in range(ACCOUNTS)]
        self.table: dict[int, int] = {}


@db0.memo(id="stress/compaction/Account")
class Account:
    def __init__(self, balance: int) -> None:
        self.balance = balance
        self.note = "x" * 150


def writer(root: str, seed: int, keep: int, seconds: float, shared: bool = False) -> None:
    """Commit until killed; compact all the time (keep: 0: never). Lines: found N, ack N, compacting, compacted BEFORE AFTER."""
    rng = random.Random(seed)
    db0.init(root, autocommit=False)
    db0.open("bank", shared=shared)
    transaction = db0.atomic if shared else contextlib.nullcontext
    with transaction():
        bank = Bank()
        total = sum(account.balance for account in bank.accounts)
        assert total == TOTAL, f"the writer found a sum of {total}"
        print("found", bank.serial, flush=True)
    end, due = time.monotonic() + seconds, time.monotonic() + rng.uniform(0, 0.5)
    while time.monotonic() < end:
        with transaction():
            a, b = rng.sample(range(ACCOUNTS), 2)
            amount = rng.randrange(50)
            bank.accounts[a].balance -= amount
            bank.accounts[b].balance += amount
            bank.accounts[b].note = str(amount) * rng.randrange(100)
            bank.table[rng.randrange(500)] = bank.serial
            bank.serial += 1
            serial = bank.serial
        if not shared:
            db0.commit()
        print("ack", serial, flush=True)
        if keep and time.monotonic() > due:
            print("compacting", flush=True)
            done = db0.compact(keep_states=keep)
            print("compacted", done.before, done.after, flush=True)
            due = time.monotonic() + rng.uniform(0.1, 1.0)
    db0.close()


def reader(root: str, hold: float) -> None:
    """Hold a view still for `hold` seconds (0: never) and read it over and over; then the next. Lines: state N reads M."""
    from dbzero.model.base import operation
    from dbzero.session.workspace import active

    db0.init(root)
    db0.open("bank", "r")
    bank = Bank()
    reads = last = 0
    while True:
        db0.clear_cache()
        with operation:  # a view does not move inside
            opened = active().get("bank")
            before, end = opened.view.state, time.monotonic() + hold
            while True:
                serial = bank.serial
                total = sum(account.balance for account in bank.accounts)
                assert total == TOTAL, f"state {before}: a sum of {total}"
                assert serial >= last, f"went back from {last} to {serial}"
                last, reads = serial, reads + 1
                if time.monotonic() >= end:
                    break
                for account in list(bank.accounts)[::7]:
                    _ = account.note
                opened.view.evict(0)
                time.sleep(0.01)
        print("state", before, "reads", reads, flush=True)
        time.sleep(0.005)


class Child:
    """A role as a process, its output in a file."""

    def __init__(self, *arguments: Any) -> None:
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115
        command = [sys.executable, __file__, *map(str, arguments)]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)

    def lines(self) -> list[list[str]]:
        text = Path(self.log.name).read_text()
        return [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]

    def numbers(self, word: str) -> list[int]:
        return [int(line[1]) for line in self.lines() if line[0] == word]

    def check(self) -> None:
        if self.process.poll() is not None:
            raise SystemExit(f"FAILED: a process ended with {self.process.returncode}:\n{self.tail()}")

    def tail(self) -> str:
        return Path(self.log.name).read_text()[-3000:]

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def sizes(root: Path) -> tuple[int, int]:
    """(bytes of the file after a compaction down to one state, bytes of a fresh copy of it)."""
    db0.init(root)
    try:
        db0.compact("bank", keep_states=1)
        output = root / "fresh"
        db0.copy_prefix(output, "bank")
        found = os.path.getsize(root / "bank.db0"), os.path.getsize(output)
        output.unlink()
        return found
    finally:
        db0.close()


def serial(root: Path) -> int:
    """How many commits the store counts."""
    db0.init(root)
    try:
        db0.open("bank")
        return int(db0.fetch(Bank).serial)
    finally:
        db0.close()


def live_bytes(root: Path) -> int:
    """Bytes that the newest state alone takes: every object of it, written once into a new store."""
    from dbzero.session.workspace import active

    db0.init(root)
    try:
        db0.open("bank", "r")
        prefix = active().get("bank").prefix
        found = (prefix.read(oid, prefix.head()) for oid in range(1, prefix.oid_limit()))
        return sum(len(record[0]) + 16 for record in found if record is not None)
    finally:
        db0.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--keep", type=int, default=20, help="states that are kept")
    parser.add_argument("--shared", action="store_true", help="open shared, with other writers beside")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = random.SystemRandom().getrandbits(32) if options.seed is None else options.seed
    print(f"seed {seed}")
    rng = random.Random(seed)
    root = Path(tempfile.mkdtemp(prefix="dbzero-compaction-"))
    deadline = time.monotonic() + 60 * options.minutes
    least = commits = compactions = killed_inside = rounds = 0
    biggest = 0
    readers: list[Child] = []
    others: list[Child] = []  # writers beside the one that compacts
    killed_others = 0
    started: list[Child] = []

    def start(keep: int) -> Child:
        started.append(Child("writer", root, rng.getrandbits(32), keep, 3600, *(["shared"] * options.shared)))
        return started[-1]

    try:
        for rounds in range(1, options.rounds + 1):
            while options.shared and len(others) < 2:
                others.append(start(0))
            child = start(options.keep)
            until = time.monotonic() + 30
            while not child.numbers("ack") and time.monotonic() < until:
                child.check()
                time.sleep(0.01)
            if not readers:
                readers = [Child("reader", root, 0), Child("reader", root, 1.5)]
            if rng.random() < 0.7:
                while not any(line[0] == "compacting" for line in child.lines()) and time.monotonic() < until:
                    child.check()
                    time.sleep(0.002)
                time.sleep(rng.uniform(0, 0.12))
            else:
                time.sleep(rng.uniform(0, 1.5))
            if options.shared and rng.random() < 0.3:
                others.pop(rng.randrange(len(others))).kill()
                killed_others += 1
                before = len(child.numbers("ack"))
                while len(child.numbers("ack")) < before + 2 and time.monotonic() < until:  # it goes on
                    child.check()
                    time.sleep(0.01)
            child.kill()
            for other in readers + others:
                other.check()
            found, acks = child.numbers("found"), child.numbers("ack")
            if options.shared:
                # Those that go on have acknowledged more by now than before the kill, within seconds.
                before = [len(other.numbers("ack")) for other in others]
                until = time.monotonic() + 10
                while any(len(other.numbers("ack")) <= n for other, n in zip(others, before, strict=True)):
                    for other in others:
                        other.check()
                    if time.monotonic() > until:
                        print(f"FAILED in round {rounds}: the others do not go on\n{others[0].tail()}")
                        return 1
                    time.sleep(0.01)
            if (
                child.process.returncode != -9
                or not found
                or not (found[0] >= least if options.shared else least <= found[0] <= least + 1)
            ):
                print(f"FAILED in round {rounds}: acknowledged {least}, found {found}\n{child.tail()}")
                return 1
            least = max([*acks[-1:], found[0], *(n for other in others for n in other.numbers("ack")[-1:])])
            commits += len(acks)
            lines = [line[0] for line in child.lines()]
            compactions += lines.count("compacted")
            killed_inside += lines.count("compacting") > lines.count("compacted")
            biggest = max(biggest, os.path.getsize(root / "bank.db0"))
            if time.monotonic() > deadline:
                break
        time.sleep(1.6)
        for other in readers:
            other.check()
        reads = [other.lines()[-1][3] for other in readers]
    finally:
        for other in readers + others:
            other.kill()
    if options.shared:
        commits = sum(len(one.numbers("ack")) for one in started)
        made = serial(root)
        if not commits <= made <= commits + len(started):
            print(f"FAILED: {commits} acknowledged commits by {len(started)} processes, {made} in the store {root}")
            return 1
    size, fresh = sizes(root)
    live = live_bytes(root)
    from dbzero.storage.verify import check_root

    problems = check_root(str(root))
    beside = f", {killed_others} kills of other writers" if options.shared else ""
    print(
        f"{rounds} rounds{beside}, {killed_inside} kills inside a compaction: {commits} acknowledged commits all there, {compactions} compactions; "
        f"reads of the whole store by a following reader {reads[0]}, by one that holds states {reads[1]}"
    )
    print(
        f"file at most {biggest} bytes; compacted to one state {size}, a copy of that {fresh}, its objects alone {live}"
    )
    if problems or size > 1.3 * fresh or size > 1.3 * live + 200_000:
        print(f"FAILED (store kept in {root}): {problems}")
        return 1
    import shutil

    shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "writer":
        writer(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]), len(sys.argv) > 6)
    elif len(sys.argv) > 1 and sys.argv[1] == "reader":
        reader(sys.argv[2], float(sys.argv[3]))
    else:
        sys.exit(main())
