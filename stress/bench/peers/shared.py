"""dbzero, where each process may write."""

from __future__ import annotations

import time
from typing import Any

from base import Peer

import dbzero as db0

CACHE = 256 << 20


@db0.memo(singleton=True, id="bench/Board")
class Board:
    """The counter and the objects."""

    def __init__(self) -> None:
        self.value = 0
        self.things: Any = []


@db0.memo(id="bench/Thing")
class Thing:
    """Two fields."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.text = f"thing {number}"


class Shared(Peer):
    name = "dbzero, shared"

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.things: list[Any] = []

    def write(self) -> None:
        db0.init(self.place, prefix="p", shared=True, cache_size=CACHE)
        with db0.atomic():
            self.board = Board()

    def read(self) -> None:
        db0.init(self.place, prefix="p", read_write=False, cache_size=CACHE)
        self.board = db0.fetch(Board)

    def fill(self, objects: int) -> None:
        with db0.atomic():
            self.board.things.extend(Thing(n) for n in range(objects))

    def bump(self) -> None:
        with db0.atomic():
            self.board.value += 1

    def value(self) -> int:
        return int(self.board.value)

    def wait(self, value: int, end: float) -> bool:
        while self.board.value < value:
            if time.monotonic() > end:
                return False
            db0.wait("p", db0.get_state_num("p", finalized=True) + 1, 1000)
        return True

    def visit(self, objects: int) -> int:
        if len(self.things) < objects:
            self.things = list(self.board.things)
        return sum([thing.number for thing in self.things[:objects]])

    def close(self) -> None:
        db0.close()


PEER: type[Peer] = Shared
