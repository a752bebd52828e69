"""What goes on in a segment, as plain values: its memory, the processes attached, the prefixes in use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from dbzero import errors
from dbzero.runtime import registry
from dbzero.runtime.lease import GROUP, NO_SLOT
from dbzero.runtime.segment import Segment
from dbzero.runtime.slot import PrefixSlot, SlotStatus
from dbzero.runtime.turns import Turns

PREFIX_SLOTS: Final = 1024


def slots(segment: Segment) -> Iterator[tuple[PrefixSlot, SlotStatus]]:
    """The prefix slots in use, those left to replaced writers included."""
    for index in range(PREFIX_SLOTS):
        slot = PrefixSlot(segment, "", index)
        try:
            status = slot.status()
        except (errors.Error, ValueError):
            return  # memory that was never used: no slot from here on was
        if status.name:
            yield PrefixSlot(segment, status.name, index), status


def describe(segment: Segment) -> dict[str, Any]:
    """Segment, processes and prefixes. Each value is right on its own; together they are no snapshot.

    Returns:
        `segment`: sizes in bytes and counters; `processes`: a list, with the states that each has pinned; `prefixes`: by name, states, who
        writes, whose turn it is and who waits for it. Times are seconds; `started` is since 1970.
    """
    memory = segment.status()
    found = list(slots(segment))
    names = {slot.index: slot.prefix for slot, _ in found}
    states = {slot.index: status.durable for slot, status in found}
    looked_up = memory.hits + memory.misses
    people = registry.processes(segment)
    pids = {one.slot: one.pid for one in people}
    return {
        "segment": {
            "name": segment.name or None,
            "size": memory.size,
            "reserved": memory.reserved,
            "cache_size": memory.cache_bytes,
            "cache_hits": memory.hits,
            "cache_misses": memory.misses,
            "cache_hit_rate": memory.hits / looked_up if looked_up else None,
            "cache_evictions": memory.evictions,
            "delta_size": memory.arena_bytes,
            "delta_used": memory.arena_used,
        },
        "processes": [
            {
                "pid": one.pid,
                "started": one.started,
                "live": one.live,
                "pins_everything": one.pins_everything,
                "pins": [
                    {
                        "prefix": names.get(index),
                        "state": state,
                        "behind": max(0, states.get(index, state) - state),
                        "age": None,
                    }
                    for index, state in one.pins
                ],
            }
            for one in people
        ],
        "prefixes": {
            slot.prefix: _prefix(slot, status, pids)
            for slot, status in found
            if not status.retired and status.ready and (status.durable or status.published)
        },
    }


def _prefix(slot: PrefixSlot, status: SlotStatus, pids: dict[int, int]) -> dict[str, Any]:
    turns = Turns(slot)
    turn = turns.status()
    owner = status.lease_owner + 1
    kind = None if owner == 0 else "shared" if owner == GROUP else "exclusive"
    return {
        "published": status.published,
        "durable": status.durable,
        "poisoned": status.poisoned,
        "epoch": status.lease_epoch,
        "writer": kind,
        "writer_pid": pids.get(owner - 1) if owner not in (0, GROUP, NO_SLOT) else None,
        "turn_pid": turn.pid if turn.word else None,
        "turn_left": turn.left if turn.word else None,
        "turns": turn.turns,
        "queue": turns.queue(),
        "waiting_for_commits": status.waiters,
        "delta_entries": status.active_entries + status.frozen_entries,
    }
