"""The processes of a root: who is there, who has died."""

from __future__ import annotations

import time
from typing import Final

from msgspec import Struct

from dbzero._engine import ffi, lib
from dbzero.runtime import codes
from dbzero.runtime.segment import Segment

PROCESS_SLOTS: Final = 4096
STATE_BITS: Final = 40


class ProcessInfo(Struct, frozen=True):
    """One process slot in use."""

    slot: int
    generation: int
    pid: int  # as that process sees itself: another pid namespace has other numbers
    started: float  # seconds since 1970
    live: bool  # False: died without leaving; its slot is wiped by the next :func:`reclaim`
    pins: tuple[tuple[int, int], ...]  # (prefix slot, state)
    pins_everything: bool


def processes(segment: Segment) -> list[ProcessInfo]:
    """All processes that have a slot."""
    found = []
    info = ffi.new("dbz_proc_info *")
    for index in range(PROCESS_SLOTS):
        if lib.dbz_proc_status(segment.handle, index, info) == codes.OK and info.generation & 1:
            found.append(
                ProcessInfo(
                    slot=index,
                    generation=info.generation,
                    pid=info.pid,
                    started=info.started_ns / 1e9,
                    live=bool(info.live),
                    pins=tuple(
                        ((word >> STATE_BITS) - 1, word & ((1 << STATE_BITS) - 1)) for word in info.pin[0 : info.pins]
                    ),
                    pins_everything=info.pin_all != 0,
                )
            )
    return found


def reclaim(segment: Segment) -> int:
    """Wipe the slots of dead processes, and with them their pins. Anyone may call it at any time. Returns how many.

    Costs one system call for each live process.
    """
    return int(lib.dbz_proc_reclaim(segment.handle))


def reclaim_sometimes(segment: Segment) -> None:
    """:func:`reclaim`, unless it was called so recently that it would take more than 2 % of the time; at least once a
    second if called often enough."""
    now = time.monotonic()
    if now < segment.reclaim_at:
        return
    reclaim(segment)
    end = time.monotonic()
    segment.reclaim_at = end + min(1.0, 50 * (end - now))


def alive(segment: Segment, slot: int) -> bool:
    """Whether the process in `slot` lives."""
    return bool(lib.dbz_proc_alive(segment.handle, slot))


def is_stopped(segment: Segment, pid: int) -> bool:
    """Whether a process that is attached to a segment is stopped by a signal or a debugger. False as well when it cannot be
    seen: pids of another pid namespace mean nothing here, so the process must have the segment mapped, too."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            if file.read().rpartition(b")")[2].split()[0] not in (b"T", b"t"):
                return False
        with open(f"/proc/{pid}/maps", "rb") as file:
            return bool(segment.name) and segment.name.lstrip("/").encode() in file.read()
    except (OSError, IndexError):
        return False


def count(segment: Segment) -> int:
    """Number of live processes that have a slot."""
    return int(lib.dbz_proc_count(segment.handle))
