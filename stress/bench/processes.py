#!/usr/bin/env python3
"""What processes cost each other, beside other ways to share data between processes: one run, one table.

    python stress/bench/processes.py [--seconds 1] [--rounds 3] [--objects 100000] [--peer-python PATH] [--assert-limits]

Commits/s of 1, 2 and 4 writers of one counter, durable where the peer can; microseconds from the return of a commit to its
sight in a process that waits for it; reads/s of one field of one object, by a reader alone and beside a writer that does
nothing but commit, or beside a stranger that works and syncs as much elsewhere; memory (total PSS, servers included) of
readers that have read every object. In brackets: how many times dbzero's number. Each number is the median of the rounds;
all peers, and rows that are compared, are measured in turn in each. What can't be run says so. `--directory` is where the
stores go: durable commits are the disk's. PATH: an interpreter with the original.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PEERS = Path(__file__).resolve().parent / "peers"
NAMES = ("shared", "exclusive", "original", "manager", "sqlite", "lightning", "redisserver", "stash")
TITLES = {"original": "original"}  # of what this interpreter can't import
LIMITS = (  # dbzero, shared: what, compared with what, at least or at most
    ("commits/s, 4 writers", "commits/s, 1 writer", ">=", 1.5),
    ("reads/s, beside a writer", "reads/s, alone", ">=", 0.9),
    ("commit to sight, us, p50", None, "<=", 200.0),
)


class Process:
    """A worker process of one peer."""

    def __init__(self, python: str, peer: str, place: str, role: str, *numbers: float) -> None:
        words = [python, str(PEERS / "worker.py"), peer, place, role, *map(str, numbers)]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.process = subprocess.Popen(
            words, cwd=place, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid

    def ready(self) -> Process:
        """Wait until it is about to begin."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line != "ready\n":
            raise RuntimeError(f"{' '.join(self.process.args[2:])} says {line!r}")  # type: ignore[index]
        return self

    def begin(self) -> None:
        """Let it begin."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def result(self) -> Any:
        """Its result, when it has ended."""
        said, _ = self.process.communicate()
        if self.process.returncode:
            raise RuntimeError(f"{' '.join(self.process.args[2:])} failed")  # type: ignore[index]
        return json.loads(said.splitlines()[-1])

    def kill(self) -> None:
        """End it, in whatever state."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Contender:
    """A peer with its store, started and filled."""

    def __init__(self, module: str, python: str, place: str, objects: int) -> None:
        self.module, self.python, self.place, self.objects = module, python, place, objects
        os.mkdir(place)
        self.title = TITLES.get(module) or importlib.import_module(module).PEER.name
        self.peer = None if module in TITLES else importlib.import_module(module).PEER(place)
        self.remarks = "" if self.peer is None else self.peer.remarks
        self.most_writers = 1 if self.peer is None else self.peer.most_writers
        if self.peer is not None:
            self.peer.start()
        Process(python, module, place, "fill", objects).result()

    def run(self, role: str, *numbers: float) -> Process:
        return Process(self.python, self.module, self.place, role, *numbers)

    @contextlib.contextmanager
    def busy(self, role: str, *numbers: float) -> Any:
        """A process that does its work while the block runs, which is as long."""
        process = self.run(role, *numbers)
        try:
            process.ready().begin()
            yield process
            process.result()
        finally:
            process.kill()

    def stop(self) -> None:
        if self.peer is not None:
            self.peer.stop()

    def commits(self, writers: int, seconds: float) -> float | None:
        if self.most_writers is not None and writers > self.most_writers:
            return None
        processes = [self.run("commits", seconds) for _ in range(writers)]
        try:
            for process in processes:
                process.ready()
            for process in processes:
                process.begin()
            return sum([process.result() for process in processes]) / seconds
        finally:
            for process in processes:
                process.kill()

    def latency(self, rounds: int) -> tuple[float, float] | None:
        writer = self.run("announce", rounds).ready()
        reader = self.run("watch", rounds)
        try:
            reader.ready().begin()
            writer.begin()
            done, seen = writer.result(), reader.result()
        finally:
            writer.kill()
            reader.kill()
        if len(seen) < rounds:
            return None  # it missed an update
        late = sorted([1e6 * (there - here) for here, there in zip(done, seen, strict=True)])
        return statistics.median(late), late[int(0.99 * len(late))]

    def reading(self, seconds: float, beside: str | None = None) -> float:
        """beside: what another process does meanwhile."""
        reader = self.run("reading", seconds, self.objects)
        try:
            reader.ready()
            with self.busy(beside, seconds) if beside else contextlib.nullcontext():
                reader.begin()
                return float(reader.result())
        finally:
            reader.kill()

    def memory(self, readers: int) -> float:
        processes = [self.run("hold", self.objects) for _ in range(readers)]
        try:
            for process in processes:
                process.ready()
            servers = self.peer.servers() if self.peer is not None else []
            total = sum([_pss(pid) for pid in [*servers, *[process.pid for process in processes]]])
            for process in processes:
                process.begin()
            for process in processes:
                assert process.result() == self.objects * (self.objects - 1) // 2
            return total
        finally:
            for process in processes:
                process.kill()


def _pss(pid: int) -> float:
    """MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no PSS of process {pid}")


Row = dict[str, "float | None"]


class Table:
    """Rows of numbers, a column for each peer, printed as they come."""

    def __init__(self, titles: Sequence[str]) -> None:
        self.titles = titles
        self.rows: dict[str, Row] = {}
        print(" " * 28 + "".join(f"{title:>20}" for title in titles))

    def add(self, name: str, row: Row) -> None:
        self.rows[name] = row
        own = row.get(self.titles[0])
        cells = []
        for title in self.titles:
            number = row.get(title)
            if number is None:
                cells.append(f"{'-':>20}")
            elif title == self.titles[0] or not own:
                cells.append(f"{number:>12,.0f}{'':8}")
            else:
                cells.append(f"{number:>12,.0f} {f'({number / own:.2f})':>7}")
        print(f"{name:28}" + "".join(cells), flush=True)


def median(found: Sequence[float | None]) -> float | None:
    numbers = [number for number in found if number is not None]
    return statistics.median(numbers) if numbers else None


def measure(table: Table, contenders: Sequence[Contender], seconds: float, rounds: int) -> None:
    def rows(measures: dict[str, Callable[[Contender], float | None]], times: int = rounds) -> None:
        """Rows that are compared with each other: measured in turn in each round, so that what the machine does else hits them all."""
        found: dict[tuple[str, str], list[float | None]] = {}
        for _ in range(times):
            for one in contenders:
                for name, measured in measures.items():
                    found.setdefault((name, one.title), []).append(measured(one))
        for name in measures:
            table.add(name, {one.title: median(found[name, one.title]) for one in contenders})

    rows(
        {
            "commits/s, 1 writer": lambda one: one.commits(1, seconds),
            "commits/s, 2 writers": lambda one: one.commits(2, seconds),
            "commits/s, 4 writers": lambda one: one.commits(4, seconds),
        }
    )
    found = {one.title: one.latency(int(300 * seconds)) for one in contenders}
    for place, name in enumerate(("p50", "p99")):
        table.add(f"commit to sight, us, {name}", {title: pair and pair[place] for title, pair in found.items()})
    rows(
        {
            "reads/s, alone": lambda one: one.reading(seconds),
            "reads/s, beside a writer": lambda one: one.reading(seconds, "commits"),
            "reads/s, beside a stranger": lambda one: one.reading(seconds, "elsewhere"),
        }
    )
    memory: dict[str, Callable[[Contender], float | None]] = {"PSS of 1 reader, MB": lambda one: one.memory(1)}
    for readers in (2, 4, 8):
        memory[f"PSS of {readers} readers, MB"] = lambda one, readers=readers: one.memory(readers)  # type: ignore[misc]
    rows(memory, 1)


def failures(table: Table) -> list[str]:
    """What dbzero's numbers break of the limits."""
    own = table.titles[0]
    found = []
    for name, other, relation, limit in LIMITS:
        number = table.rows[name][own] or 0.0
        if other is not None:
            number /= table.rows[other][own] or 1.0
        if not (number >= limit if relation == ">=" else number <= limit):
            found.append(f"{name}{f' / {other}' if other else ''} is {number:.2f}, to be {relation} {limit:g}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--directory", help="where the stores go")
    parser.add_argument("--peer-python", metavar="PATH", help="interpreter of an environment with the original")
    parser.add_argument(
        "--peers", default=",".join(NAMES), help="which, separated by commas; the first is compared with"
    )
    parser.add_argument(
        "--assert-limits", action="store_true", help="fail when dbzero's numbers are not what they are to be"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # and stop what was started
    sys.path.insert(0, str(PEERS))
    contenders: list[Contender] = []
    absent: list[str] = []
    with tempfile.TemporaryDirectory(dir=options.directory) as root, contextlib.ExitStack() as stack:
        for module in options.peers.split(","):
            python = options.peer_python if module == "original" else sys.executable
            missing = "no --peer-python was given" if python is None else ""
            if module not in TITLES:
                missing = importlib.import_module(module).PEER.missing()
            if not missing:
                try:
                    one = Contender(module, python, os.path.join(root, module), options.objects)
                except RuntimeError as error:
                    missing = str(error)
                else:
                    stack.callback(one.stop)
                    contenders.append(one)
                    continue
            absent.append(f"{TITLES.get(module, module)}: not run, {missing}")
        table = Table([one.title for one in contenders])
        measure(table, contenders, options.seconds, options.rounds)
    print("-: it has one writer; or, of sight, an update was not seen within 5 s")
    print(*[f"{one.title}: {one.remarks}" for one in contenders if one.remarks], *absent, sep="\n")
    broken = failures(table) if options.assert_limits else []
    for line in broken:
        print(f"FAILED: {line}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
