#!/usr/bin/env python3
"""What processes cost each other: shared commits, visibility, readers beside a writer, memory.

    stress/bench/processes.py [--seconds 2] [--objects 100000] [--directory DIR]

One run, one table. Durable commits/s of one exclusive writer and of 1, 2 and 4 shared writers; microseconds from the return
of a commit to its sight in a process that waits for it (p50, p99; negative: seen before); attribute reads/s of a reader alone and
beside a busy writer; total PSS of 1, 2, 4 and 8 readers that have read a store of 1e5 objects. DIR: where the store goes; the
numbers of commits are the disk's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import dbzero as db0

CACHE = 256 << 20


@db0.memo(singleton=True, id="bench/Board")
class Board:
    """One counter."""

    def __init__(self) -> None:
        self.value = 0
        self.stamp = 0.0
        self.items = []


@db0.memo(id="bench/Thing")
class Thing:
    """Two fields."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.text = f"thing {number}"


def spawn(body: Callable[[int], None]) -> tuple[int, int]:
    """Run `body(fd)` in a forked process; returns (pid, what it writes to)."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read)
            body(write)
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    return pid, read


def collect(children: list[tuple[int, int]]) -> list[bytes]:
    found = []
    for pid, read in children:
        with os.fdopen(read, "rb") as pipe:
            found.append(pipe.read())
        if os.waitpid(pid, 0)[1]:
            raise SystemExit(f"process {pid} failed")
    return found


def commits(root: str, writers: int, seconds: float, shared: bool) -> float:
    start = time.monotonic() + 0.5 + 0.1 * writers

    def body(fd: int) -> None:
        db0.init(root, prefix="p", shared=shared, autocommit=False, cache_size=CACHE)
        board = Board()
        time.sleep(max(0.0, start - time.monotonic()))
        done, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            if shared:
                with db0.atomic():
                    board.value += 1
            else:
                board.value += 1
                db0.commit()
            done += 1
        os.write(fd, struct.pack("q", done))
        db0.close()

    return sum(struct.unpack("q", one)[0] for one in collect([spawn(body) for _ in range(writers)])) / seconds


def visibility(root: str, rounds: int) -> tuple[float, float]:
    """p50 and p99, microseconds from the return of atomic() to the return of wait() in a reader."""
    ready, go = os.pipe()

    def body(fd: int) -> None:
        db0.init(root, prefix="p", read_write=False, cache_size=CACHE)
        state = db0.get_state_num()
        os.write(go, b"r")
        for _ in range(rounds):
            state += 1
            db0.wait("p", state, 10_000)
            os.write(fd, struct.pack("d", time.monotonic()))

    db0.init(root, prefix="p", shared=True, cache_size=CACHE)
    board = Board()
    db0.close()
    child = spawn(body)
    os.read(ready, 1)
    db0.init(root, prefix="p", shared=True, cache_size=CACHE)
    board = Board()
    stamps = []
    for _ in range(rounds):
        time.sleep(0.002)
        with db0.atomic():
            board.value += 1
        stamps.append(time.monotonic())
    (seen,) = collect([child])
    db0.close()
    late = sorted(1e6 * (there - here) for here, (there,) in zip(stamps, struct.iter_unpack("d", seen), strict=True))
    return statistics.median(late), late[int(0.99 * len(late))]


def reading(root: str, seconds: float, busy: bool) -> float:
    """Attribute reads/s of one reader that walks all things."""

    def write(fd: int) -> None:
        db0.init(root, prefix="p", shared=True, cache_size=CACHE)
        board = Board()
        end = time.monotonic() + seconds + 1.5
        while time.monotonic() < end:
            with db0.atomic():
                board.value += 1

    def read(fd: int) -> None:
        db0.init(root, prefix="p", read_write=False, cache_size=CACHE)
        things = list(Board().items)
        sum(thing.number for thing in things)
        done, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            for thing in things[:10_000]:
                thing.number
            done += 10_000
        os.write(fd, struct.pack("q", done))

    children = [spawn(write)] if busy else []
    time.sleep(0.5 if busy else 0)
    reader = spawn(read)
    rate = struct.unpack("q", collect([reader])[0])[0] / seconds
    collect(children)
    return float(rate)


def memory(root: str, readers: int) -> float:
    """Total PSS in MB of readers that have read every thing."""
    gate, opener = os.pipe()

    def body(fd: int) -> None:
        os.close(opener)
        db0.init(root, prefix="p", read_write=False, cache_size=CACHE)
        total = sum(thing.number for thing in Board().items)
        os.write(fd, struct.pack("q", total))
        os.read(gate, 1)

    children = [spawn(body) for _ in range(readers)]
    for _, read in children:
        os.read(read, 8)
    total = 0
    for pid, _ in children:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    os.close(opener)
    os.close(gate)
    for pid, read in children:
        os.waitpid(pid, 0)
        os.close(read)
    return total / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--directory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as root:
        db0.init(root, prefix="p", autocommit=False, cache_size=CACHE)
        Board().items.extend(Thing(n) for n in range(options.objects))
        db0.commit()
        db0.close()
        print(f"durable commits/s, exclusive writer     {commits(root, 1, options.seconds, False):12,.0f}", flush=True)
        for writers in (1, 2, 4):
            rate = commits(root, writers, options.seconds, True)
            print(f"durable commits/s, {writers} shared writer(s)     {rate:12,.0f}", flush=True)
        half, most = visibility(root, 500)
        print(f"commit to sight, microseconds, p50      {half:12,.0f}")
        print(f"commit to sight, microseconds, p99      {most:12,.0f}")
        alone, beside = reading(root, options.seconds, False), reading(root, options.seconds, True)
        print(f"attribute reads/s, reader alone         {alone:12,.0f}")
        print(f"attribute reads/s, beside a writer      {beside:12,.0f}  ({beside / alone:.2f})")
        for readers in (1, 2, 4, 8):
            print(f"PSS of {readers} readers, MB                   {memory(root, readers):12,.0f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
