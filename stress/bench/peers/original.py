"""The original implementation of the API, 0.7.0. Run by an interpreter that has it (--peer-python)."""

from __future__ import annotations

import time
from typing import Any

from base import Peer

import dbzero as db0


@db0.memo(singleton=True)
class Board:
    """The counter and the objects."""

    def __init__(self) -> None:
        self.value = 0
        self.things: Any = []


@db0.memo
class Thing:
    """Two fields."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.text = f"thing {number}"


class Original(Peer):
    name = "original"
    most_writers = 1

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.things: list[Any] = []

    def write(self) -> None:
        db0.init(self.place, prefix="p", autocommit=False)
        self.board = Board()
        db0.commit()

    def read(self) -> None:
        db0.init(self.place, prefix="p", read_write=False)
        self.board = db0.fetch(Board)

    def fill(self, objects: int) -> None:
        for number in range(objects):
            self.board.things.append(Thing(number))
            if number % 10_000 == 9_999:  # what is uncommitted slows it down
                db0.commit()
        db0.commit()

    def bump(self) -> None:
        self.board.value += 1
        db0.commit()

    def value(self) -> int:
        db0.refresh()
        return int(self.board.value)

    def wait(self, value: int, end: float) -> bool:
        while self.value() < value:
            if time.monotonic() > end:
                return False
            db0.wait("p", db0.get_state_num("p") + 1, 100)
        return True

    def visit(self, objects: int) -> int:
        if len(self.things) < objects:
            self.things = list(self.board.things)
        return sum([thing.number for thing in self.things[:objects]])

    def close(self) -> None:
        db0.close()


PEER = Original
