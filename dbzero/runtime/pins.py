"""Pinned states: what a view reads is kept until it lets go, or its process dies."""

from __future__ import annotations

from typing import Final

from dbzero import errors
from dbzero._engine import lib
from dbzero.runtime import codes
from dbzero.runtime.slot import PrefixSlot


class Pin:
    """A state of a prefix that is not dropped while this object is open. A forked child's copy is void."""

    __slots__ = ("_number", "slot", "state")

    def __init__(self, slot: PrefixSlot, state: int) -> None:
        """Raises StateNotKeptError when the state is older than what is kept."""
        self.slot: Final = slot
        self.state = state
        self._number = _checked(lib.dbz_pin(slot.segment.handle, slot.index, state), slot, state)

    def move(self, state: int) -> None:
        """Pin another state instead, without a gap. On failure the old one stays pinned."""
        slot = self.slot
        if self._number < 0:
            raise errors.ClosedError(f"prefix {slot.prefix!r}: the pin of state {self.state} was released")
        self._number = _checked(slot.repin(self._number, state), slot, state)
        self.state = state

    def close(self) -> None:
        """Let go. Idempotent."""
        number, self._number = self._number, -1
        if number >= 0 and not self.slot.segment.closed and not self.slot.segment.inherited:
            lib.dbz_unpin(self.slot.segment.handle, number)

    def __enter__(self) -> Pin:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _checked(code: int, slot: PrefixSlot, state: int) -> int:
    if code >= 0:
        return code
    if code == codes.RETRY:
        raise not_kept(slot, state)
    return codes.check(code, f"prefix {slot.prefix!r}: pin state {state}")


def not_kept(slot: PrefixSlot, state: int) -> errors.StateNotKeptError:
    """The error for a state that is older than what is kept."""
    return errors.StateNotKeptError(
        f"prefix {slot.prefix!r}: state {state} is not kept any more, the oldest state is {slot.status().floor}; "
        "take that or a newer one"
    )


def raise_floor(slot: PrefixSlot, wanted: int) -> int:
    """Announce that states below `wanted` are to be dropped. Returns the floor that holds: only what is older may
    go. One caller at a time."""
    return int(lib.dbz_floor_raise(slot.segment.handle, slot.index, wanted))


def oldest_pin(slot: PrefixSlot) -> int | None:
    """Oldest pinned state, None when nothing is pinned; 0 when a process pins everything."""
    state = int(lib.dbz_oldest_pin(slot.segment.handle, slot.index))
    return None if state == (1 << 64) - 1 else state
