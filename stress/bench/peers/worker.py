#!/usr/bin/env python3
"""A process of the benchmark: `worker.py PEER PLACE ROLE NUMBER...`. It says "ready" and begins when it is told to; its last line is the result, as JSON."""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import time
from typing import Any

SLICE = 1000  # objects read between two looks at the clock
PAUSE = 0.002  # seconds between two commits that somebody waits for
PATIENCE = 5.0  # seconds after which an update counts as missed


def begin() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def fill(peer: Any, objects: float) -> None:
    peer.write()
    peer.fill(int(objects))


def commits(peer: Any, seconds: float) -> int:
    """Commits that were done in this time."""
    peer.write()
    peer.bump()
    begin()
    done, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        peer.bump()
        done += 1
    return done


def elsewhere(place: str, seconds: float) -> int:
    """What a writer costs that has nothing to do with any peer: as much work, and syncs of a file of its own."""
    with tempfile.TemporaryFile(dir=place) as file:
        file.write(bytes(1 << 20))
        os.fsync(file.fileno())
        begin()
        done, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            sum(range(10_000))
            os.pwrite(file.fileno(), bytes(512), done % 2000 * 512)
            os.fdatasync(file.fileno())
            done += 1
    return done


def announce(peer: Any, rounds: float) -> list[float]:
    """The times at which commits had returned."""
    peer.write()
    begin()
    stamps = []
    for _ in range(int(rounds)):
        time.sleep(PAUSE)
        peer.bump()
        stamps.append(time.monotonic())
    return stamps


def watch(peer: Any, rounds: float) -> list[float]:
    """The times at which these commits were seen; the list ends at the first that was not."""
    peer.read()
    value = peer.value()
    peer.wait(value, 0.0)
    begin()
    stamps = []
    for n in range(int(rounds)):
        if not peer.wait(value + n + 1, time.monotonic() + PATIENCE):
            break
        stamps.append(time.monotonic())
    return stamps


def reading(peer: Any, seconds: float, objects: float) -> float:
    """Objects read per second."""
    peer.read()
    some = min(int(objects), SLICE)
    peer.visit(some)
    begin()
    done, start = 0, time.monotonic()
    while time.monotonic() < start + seconds:
        peer.visit(some)
        done += some
    return done / (time.monotonic() - start)


def hold(peer: Any, objects: float) -> int:
    """Read everything, and stay until told to go."""
    peer.read()
    total = peer.visit(int(objects))
    begin()
    return int(total)


ROLES = {role.__name__: role for role in (fill, commits, announce, watch, reading, hold)}


def main() -> int:
    module, place, role, *numbers = sys.argv[1:]
    if role == "elsewhere":
        result = elsewhere(place, *map(float, numbers))
    else:
        peer = importlib.import_module(module).PEER(place)
        result = ROLES[role](peer, *map(float, numbers))
        peer.close()
    print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
