"""What the benchmark of processes asks of each way to share data between processes.

A store has a counter, and objects 0 to n-1 with the fields `number` and `text`. Peers are imported by whatever
interpreter has what they need: nothing here imports the benchmark or another peer.
"""

from __future__ import annotations

import time

POLL = 50e-6  # seconds of sleep of a peer that can't tell a waiting process of a change


class Peer:
    """One way to share data. Each process makes its own; `place` is a directory that all of them share."""

    name = ""
    remarks = ""  # what is to be known when the numbers are read
    most_writers: int | None = None

    def __init__(self, place: str) -> None:
        self.place = place

    @staticmethod
    def missing() -> str:
        """Why it can't be run here, or nothing."""
        return ""

    def start(self) -> None:
        """Start what serves the processes, if anything. Only in the benchmark itself."""

    def stop(self) -> None:
        """Stop it."""

    def servers(self) -> list[int]:
        """Process ids of what serves, as far as they hold the data."""
        return []

    def write(self) -> None:
        """Open the store for writing, made if there is none."""
        raise NotImplementedError

    def read(self) -> None:
        """Open the store for reading."""
        raise NotImplementedError

    def fill(self, objects: int) -> None:
        """Make the objects, after `write`."""
        raise NotImplementedError

    def bump(self) -> None:
        """Add 1 to the counter, by a transaction that nothing is lost in, durable at the return, as far as the peer can."""
        raise NotImplementedError

    def value(self) -> int:
        """The counter."""
        raise NotImplementedError

    def wait(self, value: int, end: float) -> bool:
        """Sleep until the counter is at least `value`; False at time.monotonic() `end`. For peers that have to poll."""
        while self.value() < value:
            if time.monotonic() > end:
                return False
            time.sleep(POLL)
        return True

    def visit(self, objects: int) -> int:
        """Read the field `number` of objects 0 to `objects` - 1, one by one; their sum."""
        raise NotImplementedError

    def close(self) -> None:
        """Close what was opened."""
