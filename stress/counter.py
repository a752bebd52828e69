#!/usr/bin/env python3
"""The processes of the shared-writer stress scripts: they count on one board, and say what was acknowledged.

    stress/counter.py work ROOT WHO ALLOWED ROUNDS PAUSE   transactions: `open`, then `ack VALUE` or `fenced` for each, then `done`
    stress/counter.py once ROOT WHO                        one transaction and out, printing `ack VALUE`

A worker's transactions each raise the board's counter and its own by one; both must agree at any time (`torn` is printed otherwise).
"""

from __future__ import annotations

import random
import sys
import time

import dbzero as db0

PREFIX = "bank"  # as in bank.py, so that what is left behind is looked for in the same place


@db0.memo(singleton=True, id="stress/Tally")
class Tally:
    """A counter, how much of it is whose, and everyone's newest."""

    def __init__(self) -> None:
        self.value = 0
        self.of = {}


def count(tally: Tally, who: str) -> int:
    """One step of a transaction."""
    if sum(tally.of.values()) != tally.value:
        print(f"torn: {tally.value} is not the sum of {dict(tally.of)}", flush=True)
    tally.value += 1
    tally.of[who] = tally.of.get(who, 0) + 1
    return tally.value


def work(root: str, who: str, allowed: float, rounds: int, pause: float) -> None:
    db0.init(root, prefix=PREFIX, shared=True, cache_size=64 << 20)
    with db0.atomic():
        tally = Tally()
    print("open", flush=True)
    dice = random.Random(who)
    for _ in range(rounds):
        try:
            with db0.atomic(timeout=allowed):
                value = count(tally, who)
                if pause and dice.random() < 0.3:
                    time.sleep(dice.random() * pause)
        except db0.FencedError:
            print("fenced", flush=True)
            continue
        print("ack", value, flush=True)
    db0.close()
    print("done", flush=True)


def once(root: str, who: str) -> None:
    db0.init(root, prefix=PREFIX, shared=True, cache_size=64 << 20)
    with db0.atomic():
        value = count(Tally(), who)
    print("ack", value, flush=True)
    db0.close()


def total(root: str) -> int:
    """The counter, as the next process to come finds it. Failure to agree is an error."""
    db0.init(root, prefix=PREFIX, cache_size=64 << 20)
    try:
        tally = Tally()
        value = int(tally.value)
        if sum(tally.of.values()) != value:
            raise AssertionError(f"{value} is not the sum of {dict(tally.of)}")
        return value
    finally:
        db0.close()


def main() -> None:
    role, root, who, *rest = sys.argv[1:]
    if role == "work":
        work(root, who, float(rest[0]), int(rest[1]), float(rest[2]))
    else:
        once(root, who)


if __name__ == "__main__":
    main()
