"""One run, one table: basic operations on plain Python objects, on dbzero, and on another implementation of the same API.

Each contender runs in a process of its own, by turns, several times over; the fastest figure of each row counts, so that passing noise cancels. The other
implementation is whatever `import dbzero` finds under the interpreter given:

    python3 -m venv /tmp/peer && /tmp/peer/bin/pip install dbzero==0.7.0
    python stress/bench/objects.py --peer-python /tmp/peer/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

MEASURES = Path(__file__).resolve().parent / "measures.py"
LIMITS = {"attribute read": 2.0, "attribute write": 3.0}  # times plain Python


def run(python: str, api: str, scale: int) -> dict[str, float]:
    """One run of one contender: nanoseconds by row."""
    environment = (
        {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        if python != sys.executable
        else None
    )
    command = [python, str(MEASURES), api, "--scale", str(scale)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=600)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    rows: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return rows


def merge(runs: list[dict[str, float]]) -> dict[str, float]:
    return {row: min(one[row] for one in runs) for row in runs[0]}


def show(results: dict[str, dict[str, float]], console: Console) -> None:
    table = Table(title="Nanoseconds an operation; rows that only compute are processor time", title_justify="left")
    table.add_column("work")
    for column in results:
        table.add_column(column, justify="right")
    table.add_column("dbzero / plain", justify="right")
    if "peer" in results:
        table.add_column("peer / dbzero", justify="right")
    for row, ours in results["dbzero"].items():
        cells = [
            "" if row not in figures else f"{figures[row]:,.1f}" if figures[row] < 100 else f"{figures[row]:,.0f}"
            for figures in results.values()
        ]
        cells.append(f"{ours / results['plain'][row]:.2f}" if row in results["plain"] else "")
        if "peer" in results:
            cells.append(f"{results['peer'][row] / ours:.1f}" if row in results["peer"] else "")
        table.add_row(row, *cells)
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", metavar="PATH", help="interpreter with another implementation of the API")
    parser.add_argument("--runs", type=int, default=3, help="turns of each contender")
    parser.add_argument("--scale", type=int, default=20_000, help="objects to create; other sizes follow from it")
    parser.add_argument(
        "--assert-limits",
        action="store_true",
        help="fail when a loaded attribute costs more than 2x (read) or 3x (write) plain",
    )
    options = parser.parse_args()
    contenders = {"plain": (sys.executable, "plain"), "dbzero": (sys.executable, "dbzero")}
    if options.peer_python:
        contenders["peer"] = (options.peer_python, "dbzero")
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    console = Console(width=max(110, Console().width))
    for _ in track(range(options.runs), description="Measuring", console=Console(stderr=True)):
        for name, (python, api) in contenders.items():
            runs[name].append(run(python, api, options.scale))
    results = {name: merge(found) for name, found in runs.items()}
    show(results, console)
    status = 0
    for row, limit in LIMITS.items() if options.assert_limits else ():
        ratio = results["dbzero"][row] / results["plain"][row]
        if ratio > limit:
            print(f"FAILED: {row} costs {ratio:.2f}x a plain one, the limit is {limit:g}x", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
