"""dbzero with one writer, which has the prefix for itself."""

from __future__ import annotations

from shared import CACHE, Board, Shared, Thing

import dbzero as db0


class Exclusive(Shared):
    name = "dbzero, exclusive"
    most_writers = 1

    def write(self) -> None:
        db0.init(self.place, prefix="p", autocommit=False, cache_size=CACHE)
        self.board = Board()
        db0.commit()

    def fill(self, objects: int) -> None:
        self.board.things.extend(Thing(n) for n in range(objects))
        db0.commit()

    def bump(self) -> None:
        self.board.value += 1
        db0.commit()


PEER = Exclusive
