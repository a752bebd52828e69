"""One table: what the past costs. Opening a snapshot and reading in it, at growing distances from the newest state.

A store gets `--states` commits. Each changes the same hot object and one of a hundred others, so the hot object has as
many versions as there are states. Then, at each distance, snapshots of many neighbouring states are opened; processor
time, the median of all of them. The other implementation of the API is whatever `import dbzero` finds under the
interpreter given:

    python stress/bench/history.py [--states 100000] [--peer-python PATH [--peer-states N]] [--assert-limits]

Rows: *open* takes the snapshot and closes it; *open + 1 read* also fetches the hot object and reads an attribute; *read*
is fetching one of the others, not loaded in that snapshot yet, and reading an attribute; *read again* is reading an
attribute of a loaded one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

DISTANCES = (1, 100, 10_000, 100_000)
OTHERS = 100
SAMPLES = 200
LIMITS = {"open + 1 read, us": 30.0, "read, ns": 2000.0}

Rows = dict[str, float]


def build(api: Any, states: int) -> tuple[str, list[str], int]:
    """The store: uuid of the hot object, those of the others, and the first state after both exist."""

    @api.memo(singleton=True)
    class Held:
        def __init__(self) -> None:
            self.hot = Cell(0)
            self.others = [Cell(0) for _ in range(OTHERS)]

    @api.memo
    class Cell:
        def __init__(self, value: int) -> None:
            self.value = value

    held = Held()
    hot, others = held.hot, list(held.others)
    api.commit()
    first = api.get_state_num(finalized=True)
    for number in range(1, states + 1):
        hot.value = number
        others[number % OTHERS].value = number
        api.commit()
    made = api.get_state_num(finalized=True) - first
    assert made == states, f"{states} commits made {made} states"
    return api.uuid(hot), [api.uuid(other) for other in others], first


def measure(api: Any, hot: str, others: list[str], first: int, newest: int, distance: int) -> Rows:
    """The rows at one distance. Every value read is compared with what it has to be."""
    clock = time.thread_time_ns
    opening, reading, rest, again = [], [], [], []
    for sample in range(SAMPLES):
        state = max(first + 1, newest - distance - sample)
        started = clock()
        api.snapshot(state).close()
        opened = clock()
        snapshot = api.snapshot(state)
        value = snapshot.fetch(hot).value
        read = clock()
        opening.append(opened - started)
        reading.append(read - opened)
        assert value == state - first, f"state {state}: {value}"
        snapshot.close()
    number = newest - distance - first
    for _ in range(SAMPLES // 10):
        snapshot = api.snapshot(max(first + 1, newest - distance))
        snapshot.fetch(hot).value
        started = clock()
        found = [snapshot.fetch(other) for other in others]
        values = [cell.value for cell in found]
        loaded = clock()
        for cell in found:
            cell.value
        ended = clock()
        rest.append((loaded - started) / OTHERS)
        again.append((ended - loaded) / OTHERS)
        if number > OTHERS:
            expected = [number - (number - i) % OTHERS for i in range(OTHERS)]
            assert values == expected, f"{distance} states back: {values}"
        snapshot.close()
    return {
        "open, us": statistics.median(opening) / 1000,
        "open + 1 read, us": statistics.median(reading) / 1000,
        "read, ns": statistics.median(rest),
        "read again, ns": statistics.median(again),
    }


def work(states: int) -> dict[str, Any]:
    """In a process of its own: build, reopen, measure."""
    import dbzero as api

    with tempfile.TemporaryDirectory() as root:
        api.init(root, autocommit=False)
        api.open("history")
        started = time.perf_counter()
        hot, others, first = build(api, states)
        seconds = time.perf_counter() - started
        newest = api.get_state_num(finalized=True)
        distances = [distance for distance in DISTANCES if distance < states] or [1]
        if states not in distances and states > 1:
            distances.append(states - SAMPLES - 1 if states > SAMPLES + 1 else states - 1)
        rows = {f"{distance}": measure(api, hot, others, first, newest, distance) for distance in distances}
        api.close()
        bytes_used = sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(root) for name in names)
        reopened: dict[str, Rows] = {}
        api.init(root)
        api.open("history", "r")
        for distance in distances:
            reopened[f"{distance}"] = measure(api, hot, others, first, newest, distance)
        api.close()
    return {
        "rows": rows,
        "reopened": reopened,
        "commit, us": seconds / states * 1e6,
        "bytes a commit": bytes_used / states,
    }


def run(python: str, states: int) -> dict[str, Any]:
    environment = (
        {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        if python != sys.executable
        else None
    )
    command = [python, os.path.abspath(__file__), "--worker", "--states", str(states)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=1200)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=101_000, help="commits of the store")
    parser.add_argument("--peer-python", metavar="PATH", help="interpreter with another implementation of the API")
    parser.add_argument("--peer-states", type=int, help="commits of its store (default: as many)")
    parser.add_argument("--assert-limits", action="store_true", help="fail when a row is above its limit")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(options.states)))
        return 0
    results = {"dbzero": run(sys.executable, options.states)}
    if options.peer_python:
        results["peer"] = run(options.peer_python, options.peer_states or options.states)
    show(results)
    status = 0
    for part in ("rows", "reopened") if options.assert_limits else ():
        for distance, rows in results["dbzero"][part].items():
            for row, limit in LIMITS.items():
                if rows[row] > limit:
                    print(
                        f"FAILED: {row} is {rows[row]:,.1f}, {distance} states back; the limit is {limit:g}",
                        file=sys.stderr,
                    )
                    status = 1
    return status


def show(results: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console  # the other implementation's interpreter need not have it
    from rich.table import Table

    console = Console(width=max(120, Console().width))
    table = Table(title="The past, in processor time; each value read is the right one", title_justify="left")
    for column in ("", "store", "states back"):
        table.add_column(column)
    names = list(next(iter(results["dbzero"]["rows"].values())))
    for name in names:
        table.add_column(name, justify="right")
    for who, found in results.items():
        for part, title in (("rows", "of the writer"), ("reopened", "reopened, read-only")):
            for distance, rows in found[part].items():
                table.add_row(who, title, f"{int(distance):,}", *[f"{rows[name]:,.1f}" for name in names])
    console.print(table)
    for who, found in results.items():
        console.print(
            f"{who}: {found['commit, us']:,.0f} us a commit of two objects, {found['bytes a commit']:,.0f} bytes in the file each"
        )


if __name__ == "__main__":
    sys.exit(main())
