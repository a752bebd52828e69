"""Time travel: a store of many states, and states chosen at random compared with what was recorded when they were made.

First part, *deep*: one process commits `--states` states of a small bank of objects and collections; a few of them hot,
so that one object has a version in every state. What state n has to show follows from n and the seed alone, so a reader
in another process knows it too. Commits go on beside checkpoints and evictions. Meanwhile and at the end states are visited, by
`db0.snapshot(n)`: newest, oldest, neighbours, and at random; in the writer, and in a reader process beside it.

Second part, *wide*: random programs over nested objects and collections with atomic blocks, compactions, reopening and held
snapshots (tests/travels.py), `--programs` of them, every state of each compared with a deep copy of the model made when it
was committed. With `--steps` as many programs as it takes for that many steps, and `--states 0` leaves out the first part.

    python stress/time_travel.py [--states 100000] [--visits 5000] [--programs 50] [--steps N] [--seed 1] [--seconds S] [--root DIR]

Prints the seed and state of the first difference, and exits with 1.
"""

from __future__ import annotations

import argparse
import bisect
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import dbzero as db0
from dbzero.session.workspace import active
from dbzero.storage.verify import check_root
from tests.collections.harness import small_nodes
from tests.travels import Travel

ACCOUNTS = 200
KEYS = 500
LENGTH = 300  # steps of one program


@db0.memo(id="time-travel/account")
class Account:
    def __init__(self, number: int) -> None:
        self.number = number
        self.changed = 0


@db0.memo(id="time-travel/bank", singleton=True)
class Bank:
    def __init__(self) -> None:
        self.commit = 0  # hot: changes with every state
        self.accounts = db0.list([Account(number) for number in range(ACCOUNTS)])
        self.table = db0.dict()
        self.log = db0.list()
        self.recent = db0.set()


class Model:
    """What every commit did, made from the seed alone."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.accounts: list[int] = [0]  # by commit: the account it changed
        self.keys: list[int] = [0]  # and the key
        self.of_account: list[list[int]] = [[] for _ in range(ACCOUNTS)]  # commits that changed it, ascending
        self.of_key: list[list[int]] = [[] for _ in range(KEYS)]

    def extend(self, newest: int) -> None:
        """Know the commits up to `newest`."""
        for number in range(len(self.accounts), newest + 1):
            account, key = self.chance.randrange(ACCOUNTS), self.chance.randrange(KEYS)
            self.accounts.append(account)
            self.keys.append(key)
            self.of_account[account].append(number)
            self.of_key[key].append(number)

    def changed(self, account: int, number: int) -> int:
        """The newest commit up to `number` that changed an account; 0: none."""
        return newest_of(self.of_account[account], number)

    def value(self, key: int, number: int) -> int | None:
        """What the table has for a key after commit `number`."""
        past = newest_of(self.of_key[key], number)
        return None if past == 0 or past % 5 == 4 else past


def newest_of(commits: list[int], number: int) -> int:
    place = bisect.bisect_right(commits, number)
    return commits[place - 1] if place else 0


def step(bank: Bank, model: Model, number: int) -> None:
    """Make commit `number` (from 1)."""
    model.extend(number)
    bank.commit = number
    bank.accounts[model.accounts[number]].changed = number
    key = model.keys[number]
    if number % 5 == 4:
        bank.table.pop(key, None)
    else:
        bank.table[key] = number
    bank.log.append(number)
    if len(bank.log) > 100:
        del bank.log[:50]
    bank.recent.add(number)
    bank.recent.discard(number - 10)


class Difference(AssertionError):
    """A state is not what it was."""


def look(bank: Any, model: Model, number: int, chance: random.Random) -> None:
    """Compare the bank of a state with the one that commit `number` made."""

    def same(what: str, found: Any, expected: Any) -> None:
        if found != expected:
            raise Difference(f"commit {number}: {what} is {found!r}, expected {expected!r}")

    same("commit", bank.commit, number)
    same("recent", set(bank.recent), set(range(max(1, number - 9), number + 1)))
    first = 1 if number <= 100 else 50 * ((number - 101) // 50 + 1) + 1
    same("log", list(bank.log), list(range(first, number + 1)))
    for account in {chance.randrange(ACCOUNTS) for _ in range(5)} | {model.accounts[number]}:
        same(f"account {account}", bank.accounts[account].changed, model.changed(account, number))
        same(f"number of account {account}", bank.accounts[account].number, account)
    for key in {chance.randrange(KEYS) for _ in range(5)} | {model.keys[number]}:
        same(f"table[{key}]", bank.table.get(key), model.value(key, number))


def targets(newest: int, visits: int, chance: random.Random) -> Iterator[int]:
    """Commits to visit: the ends, then at random with all distances equally likely, then anywhere."""
    yield from {1, 2, 3, max(1, newest // 2), max(1, newest - 1), newest}
    for number in range(visits):
        back = int(newest ** chance.random()) if number % 2 else chance.randrange(newest)
        yield max(1, newest - back)


def visit(first: int, newest: int, model: Model, visits: int, chance: random.Random) -> int:
    """Visit states in snapshots of their own; some are opened together."""
    model.extend(newest)
    done = 0
    for number in targets(newest, visits, chance):
        with db0.snapshot(first + number) as past:
            look(past.fetch(Bank), model, number, chance)
        done += 1
    held = [(number, db0.snapshot({"bank": first + number})) for number in targets(newest, 10, chance)]
    for number, past in chance.sample(held, len(held)):
        look(past.fetch(Bank), model, number, chance)
        past.close()
    return done + len(held)


def reader(root: str, first: int, seed: int, seconds: float) -> int:
    """In a process of its own beside the writer, until that closes its pipe."""
    chance, model, done = random.Random(seed), Model(seed), 0
    db0.init(root)
    db0.open("bank", "r")
    deadline = time.monotonic() + seconds
    os.set_blocking(0, False)
    held: tuple[int, Any] | None = None
    while time.monotonic() < deadline:
        newest = db0.get_state_num() - first
        if newest >= 1:
            done += visit(first, newest, model, 5, chance)
            if held is not None:
                look(held[1].fetch(Bank), model, held[0], chance)
            held = newest, db0.snapshot(first + newest)
        try:
            if os.read(0, 1) == b"":
                break
        except BlockingIOError:
            time.sleep(0.05)
    db0.close()
    print(done)
    return 0


def deep(root: str, states: int, visits: int, seed: int, deadline: float) -> str:
    chance, model = random.Random(seed + 1), Model(seed)
    db0.init(root, autocommit=False)
    db0.open("bank")
    bank = Bank()
    db0.commit()
    first = db0.get_state_num(finalized=True)
    left = max(60.0, deadline - time.monotonic()) if deadline != float("inf") else 3600.0
    command = [sys.executable, __file__, "--reader", root, "--first", str(first), "--seed", str(seed)]
    beside = subprocess.Popen(
        [*command, "--seconds", str(left)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    started, visited, made = time.monotonic(), 0, 0
    try:
        for number in range(1, states + 1):
            step(bank, model, number)
            db0.commit()
            made = number
            if number % 2000 == 0:
                if chance.random() < 0.3:
                    active().get("bank").prefix.checkpoint()
                if chance.random() < 0.3:
                    db0.clear_cache()
                visited += visit(first, number, model, 10, chance)
                if beside.poll() is not None:
                    raise Difference(f"the reader beside the writer ended with {beside.returncode}")
                if time.monotonic() > deadline:
                    break
        seconds = time.monotonic() - started
        if db0.get_state_num(finalized=True) != first + made:
            raise Difference(f"{made} commits led to state {db0.get_state_num(finalized=True)} from {first}")
        started = time.monotonic()
        visited += visit(first, made, model, visits, chance)
        looking = time.monotonic() - started
    finally:
        out, _ = beside.communicate(timeout=120)
    if beside.returncode:
        raise Difference(f"the reader beside the writer ended with {beside.returncode}")
    db0.close()
    db0.init(root)
    db0.open("bank", "r")
    visited += visit(first, made, model, visits // 5, chance)
    db0.close()
    return (
        f"deep: {made:,} states in {seconds:.0f} s; {visited:,} visits by the writer and after reopening ({visits:,} of them in {looking:.1f} s), "
        f"{int(out):,} by a reader beside it, no difference"
    )


def wide(programs: int, seed: int, deadline: float) -> str:
    visits = done = 0
    started = time.monotonic()
    counts: dict[str, int] = {}
    for number in range(seed, seed + programs):
        if time.monotonic() > deadline:
            break
        chance = random.Random(number)
        with tempfile.TemporaryDirectory() as root, small_nodes():
            at = 0
            try:
                program = Travel(root)
                for at in range(LENGTH):  # noqa: B007 - the message below says it
                    program.run(tuple(chance.randrange(1 << 20) for _ in range(4)))  # type: ignore[arg-type]
                program.close()
                problems = check_root(root)
                if problems:
                    raise Difference(str(problems))
            except BaseException:
                print(f"program of seed {number}, step {at}: a difference", flush=True)
                db0.close()
                raise
        visits += program.visits
        done += 1
        for name, count in program.counts.items():
            counts[name] = counts.get(name, 0) + count
    return (
        f"wide: {done} programs of {LENGTH} steps ({done * LENGTH:,}), {visits:,} visits of states in {time.monotonic() - started:.0f} s, "
        f"no difference; {counts}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=100_000)
    parser.add_argument("--visits", type=int, default=5_000, help="states visited at the end")
    parser.add_argument("--programs", type=int, default=50)
    parser.add_argument("--steps", type=int, help="of all programs together, instead of --programs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop then, with what was done")
    parser.add_argument("--root", help="directory for the store, empty or not there (default: a temporary one)")
    parser.add_argument("--reader", metavar="DIR", help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reader:
        return reader(options.reader, options.first, options.seed, options.seconds)
    deadline = time.monotonic() + options.seconds
    if options.steps is not None:
        options.programs = -(-options.steps // LENGTH)
    with tempfile.TemporaryDirectory() as scratch:
        root = options.root or scratch
        if options.states:
            print(deep(root, options.states, options.visits, options.seed, deadline), flush=True)
            problems = check_root(root)
            if problems:
                print(f"the check of the store found {problems}", file=sys.stderr)
                return 1
    print(wide(options.programs, options.seed, deadline))
    return 0


if __name__ == "__main__":
    sys.exit(main())
