"""Attribute read and write, creation and encoding of memo objects beside plain Python ones, in one process.

Each row is the best of several interleaved rounds; a loop's own cost is part of both sides. Exit code 1 when a target
is missed by more than the tolerance.

    python stress/bench/attributes.py [--rounds N] [--strict]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

from dbzero.model import scope
from dbzero.model.memo import memo
from dbzero.model.view import View


class Nowhere:
    """Records of a prefix that is never read."""

    name = "bench"
    uuid = 1
    writable = True
    next_oid = 16

    def reserve_oids(self, n: int) -> int:
        first = self.next_oid
        self.next_oid += n
        return first

    def read(self, oid: int, state: int) -> None:
        return None

    def refcount(self, oid: int, state: int) -> int:
        return 0


class Plain:
    def __init__(self, name: str, age: int) -> None:
        self.name = name
        self.age = age


@memo
class Stored:
    def __init__(self, name: str, age: int) -> None:
        self.name = name
        self.age = age


def read(obj: Any, n: int) -> None:
    for _ in range(n):
        obj.name


def write(obj: Any, n: int) -> None:
    for i in range(n):
        obj.age = i


def create(cls: Any, n: int) -> list[Any]:
    return [cls("name", i) for i in range(n)]


def nanoseconds(work: Callable[[], object], n: int) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e9 / n


def commit(view: View) -> int:
    count = 0
    while taken := view.take_dirty():
        for obj in taken:
            obj._p_encode()
        count += len(taken)
    view.advance(view.state + 1)
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--strict", action="store_true", help="exit 1 when a target is missed")
    options = parser.parse_args()
    view = View(Nowhere(), 1)
    scope.set_current(view)
    plain, stored = Plain("x", 1), Stored("x", 1)
    best: dict[str, list[float]] = {}

    def note(row: str, column: int, value: float) -> None:
        best.setdefault(row, [float("inf"), float("inf")])[column] = min(
            value, best.get(row, [float("inf")] * 2)[column]
        )

    for _ in range(options.rounds):
        for column, (obj, cls) in enumerate(((plain, Plain), (stored, Stored))):
            note("read", column, nanoseconds(lambda obj=obj: read(obj, 300_000), 300_000))  # type: ignore[misc]
            note("write", column, nanoseconds(lambda obj=obj: write(obj, 300_000), 300_000))  # type: ignore[misc]
            note("create", column, nanoseconds(lambda cls=cls: create(cls, 50_000), 50_000))  # type: ignore[misc]
        note("encode", 1, nanoseconds(lambda: commit(view), 50_000))
    targets = {"read": 2.0, "write": 3.0, "create": 2.0}
    missed = False
    print(f"{'ns':<8}{'plain':>8}{'dbzero':>8}{'ratio':>8}{'target':>8}")
    for row, (ours, theirs) in ((row, (pair[1], pair[0])) for row, pair in best.items()):
        ratio = ours / theirs if theirs != float("inf") else 0
        target = targets.get(row)
        missed |= target is not None and ratio > target
        print(f"{row:<8}{theirs if ratio else 0:>8.1f}{ours:>8.1f}{ratio:>8.2f}{target if target else '-':>8}")
    return 1 if missed and options.strict else 0


if __name__ == "__main__":
    sys.exit(main())
