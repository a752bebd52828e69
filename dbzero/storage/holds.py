"""States of one prefix that the snapshots of this process need: one pin in the segment, at the oldest of them.

A process has few pins, and any number of snapshots. Whatever is newer than a pinned state is kept as well.
"""

from __future__ import annotations

from collections import deque

from sortedcontainers import SortedList

from dbzero.runtime.pins import Pin
from dbzero.runtime.slot import PrefixSlot


class Holds:
    """The states held, each as often as it was added. One thread at a time."""

    __slots__ = ("_busy", "_late", "_pin", "_states")

    def __init__(self) -> None:
        self._states: SortedList = SortedList()
        self._pin: Pin | None = None
        self._busy = False
        self._late: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._states)

    def add(self, slot: PrefixSlot, state: int) -> None:
        """Hold a state. StateNotKeptError when it is older than what is kept; then nothing changes."""
        self._busy = True
        try:
            if self._pin is None:
                self._pin = Pin(slot, state)
            elif state < self._pin.state:
                self._pin.move(state)
            self._states.add(state)
        finally:
            self._busy = False
        self._drain()

    def remove(self, state: int) -> None:
        """Let a state go. The collector may do that in the middle of anything, another call in this thread included."""
        self._late.append(state)
        if not self._busy:
            self._drain()

    def _drain(self) -> None:
        while self._late:
            self._busy = True
            try:
                self._remove(self._late.popleft())
            finally:
                self._busy = False

    def _remove(self, state: int) -> None:
        self._states.remove(state)
        if not self._states:
            self._unpin()
        elif self._pin is not None and self._states[0] > self._pin.state:
            self._pin.move(self._states[0])

    def move(self, slot: PrefixSlot) -> None:
        """Pin what is held in another slot, in which the prefix goes on, before it is let go of in this one.

        StateNotKeptError: it is not kept there; then nothing is pinned.
        """
        before, self._pin = self._pin, None
        try:
            if self._states:
                self._pin = Pin(slot, self._states[0])
        finally:
            if before is not None:
                before.close()

    def forget_pin(self) -> None:
        """In a forked child, whose copy of a pin is void."""
        self._pin = None

    def _unpin(self) -> None:
        pin, self._pin = self._pin, None
        if pin is not None:
            pin.close()
