"""Writer processes on a shard each, against one process on one prefix, in one run.

Accounts are spread over shards by their owners. Each writer holds the lease of one shard and moves sums between its
accounts, one transaction after the other; so no total ever changes. Meanwhile a checker takes snapshots over all shards:
in each of them every account must be there once, and the sum of all must be what it was at first. The same transactions are run
by one process on one prefix, also watched. Twice: with a durable commit after every transaction, and after every hundredth.

    python stress/shards.py --writers 4 --seconds 5

Fails when a snapshot is wrong, a checker saw none, or the stores do not pass the check at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

from rich.console import Console
from rich.table import Table

import dbzero as db0
from dbzero.storage.verify import check_root

ACCOUNTS = 400  # for each writer, about; the one process has as many as all of them
START = 1000


@db0.memo(id="ShardedAccount", shards=4, shard_by="owner")
class ShardedAccount:
    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.balance = START
        db0.tags(self).add("account")


@db0.memo(id="PlainAccount")
class PlainAccount:
    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.balance = START
        db0.tags(self).add("account")


def build(root: str, shards: int, accounts: int) -> None:
    db0.init(root, prefix="bank", autocommit=False)
    for number in range(accounts):
        (ShardedAccount if shards else PlainAccount)(f"owner {number}")
    if shards:
        db0.reshard(ShardedAccount, shards, progress=False)
    db0.close()


def writer(root: str, shard: int, every: int) -> None:
    """Transfers until standard input ends. Prints "ready", then a line of JSON."""
    db0.init(root, autocommit=False)
    if shard < 0:
        db0.open("bank", "rw")
        accounts = list(db0.find(PlainAccount))
    else:
        db0.open("bank", "r")
        name = f"bank/ShardedAccount/shard-{shard}"
        db0.open(name, "rw")
        accounts = list(db0.find(ShardedAccount, prefix=name))
    rng = random.Random(shard)
    print("ready", flush=True)
    start_at = float(sys.stdin.readline())
    seconds = float(sys.stdin.readline())
    while time.time() < start_at:
        time.sleep(0.001)
    done = commits = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with db0.atomic():
            one, other = rng.sample(accounts, 2)
            amount = rng.randrange(-50, 50)
            one.balance -= amount
            other.balance += amount
        done += 1
        if done % every == 0:
            db0.commit()
            commits += 1
    db0.commit()
    print(json.dumps({"done": done, "commits": commits}), flush=True)
    db0.close()


def checker(root: str, accounts: int, sharded: bool) -> None:
    """Snapshots until standard input ends. Prints "ready", then a line of JSON."""
    db0.init(root, autocommit=False)
    db0.open("bank", "r")
    cls = ShardedAccount if sharded else PlainAccount
    print("ready", flush=True)
    seconds = float(sys.stdin.readline())
    looks, wrong, seen = 0, 0, set()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with db0.snapshot() as now:
            found = list(now.find(cls))
            owners = {account.owner for account in found}
            if not len(owners) == len(found) == accounts or sum(a.balance for a in found) != START * accounts:
                wrong += 1
            seen.add(hash(tuple(account.balance for account in found)))
        looks += 1
        time.sleep(0.05)
    print(json.dumps({"looks": looks, "wrong": wrong, "different": len(seen)}), flush=True)
    db0.close()


class Process:
    """One of this script's processes."""

    def __init__(self, *arguments: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def expect(self, line: str) -> None:
        assert self.process.stdout is not None
        found = self.process.stdout.readline()
        assert found == line + "\n", found

    def tell(self, *lines: float) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{line}\n" for line in lines))
        self.process.stdin.flush()

    def result(self, timeout: float) -> dict[str, int]:
        output, _ = self.process.communicate(timeout=timeout)
        assert self.process.returncode == 0, f"a process ended with {self.process.returncode}"
        found: dict[str, int] = json.loads(output)
        return found


def measure(shards: int, accounts: int, every: int, seconds: float) -> tuple[float, dict[str, int]]:
    """Transactions a second of all writers, and what the checker saw. shards: 0: one process on one prefix."""
    root = tempfile.mkdtemp(prefix="dbzero-shards-")
    running: list[Process] = []
    try:
        build(root, shards, accounts)
        writers = [Process("writer", root, number, every) for number in (range(shards) if shards else [-1])]
        running += writers
        for process in writers:
            process.expect("ready")
        watching = Process("checker", root, accounts, int(bool(shards)))
        running.append(watching)
        watching.expect("ready")
        start = time.time() + 0.2
        watching.tell(seconds)
        for process in writers:
            process.tell(start, seconds)
        results = [process.result(seconds + 60) for process in writers]
        seen = watching.result(seconds + 60)
        problems = check_root(root)
        assert problems == [], problems
        return sum(result["done"] for result in results) / seconds, seen
    finally:
        for process in running:
            if process.process.poll() is None:
                process.process.kill()
                process.process.wait()
        shutil.rmtree(root, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=int, default=4, help="writer processes, and shards")
    parser.add_argument("--seconds", type=float, default=5, help="of each of the four measurements")
    arguments = parser.parse_args()
    table = Table(title=f"transfers between accounts, {arguments.seconds:g} s each, {os.cpu_count()} cores")
    for column in ("commit after", "writers", "transactions/s", "factor", "snapshots", "different", "wrong"):
        table.add_column(column, justify="right")
    failed = False
    for every in (1, 100):
        before = 0.0
        for shards in (0, arguments.writers):
            rate, seen = measure(shards, ACCOUNTS * arguments.writers, every, arguments.seconds)
            before = before or rate
            name = f"{shards} processes, {shards} shards" if shards else "1 process, 1 prefix"
            counts = [str(seen[key]) for key in ("looks", "different", "wrong")]
            table.add_row(f"{every}", name, f"{rate:,.0f}", f"{rate / before:.2f}", *counts)
            failed |= seen["wrong"] > 0 or seen["different"] < 2
    Console(width=120).print(table)
    if failed:
        raise SystemExit("a snapshot was wrong, or nothing was seen to change")


if __name__ == "__main__":
    if sys.argv[1:2] == ["writer"]:
        writer(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    elif sys.argv[1:2] == ["checker"]:
        checker(sys.argv[2], int(sys.argv[3]), bool(int(sys.argv[4])))
    else:
        main()
