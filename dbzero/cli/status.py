"""``python -m dbzero status``: what a store holds on disk, prefix by prefix, and which processes use it. Reads only; a writer may be at work meanwhile."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dbzero import errors
from dbzero.runtime.segment import Segment
from dbzero.runtime.status import describe
from dbzero.storage import names
from dbzero.storage.filestore import LocalFileStore
from dbzero.storage.syscalls import SYSTEM

WIDTH = 120  # columns where the output is no terminal


def run(root: Path, prefix: str | None) -> int:
    """Print a line for each prefix below `root`, or for one. Returns the exit status: 0, or 1 when one could not be read or none is there."""
    found = [names.normalize(prefix)] if prefix is not None else list(names.discover(str(root)))
    if not found:
        print(f"dbzero status: {root} holds no prefix", file=sys.stderr)
        return 1
    table = Table(title=f"Store {root}", title_justify="left")
    table.add_column("prefix")
    for column in ("uuid", "last commit", "checkpoint", "of", "file", "log"):
        table.add_column(column, justify="right")
    failed = False
    for name in found:
        try:
            table.add_row(name, *_row(str(root), name))
        except errors.Error as problem:
            print(f"dbzero status: {problem}", file=sys.stderr)
            failed = True
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(table)
    _show_use(console, root)
    return 1 if failed else 0


def _show_use(console: Console, root: Path) -> None:
    """The processes that use the store just now, if any."""
    segment = Segment.look(root)
    if segment is None:
        console.print("No process uses it.")
        return
    with segment:
        found = describe(segment)
    memory = found["segment"]
    rate = memory["cache_hit_rate"]
    console.print(
        f"Shared memory {memory['name']}: {memory['reserved'] / 2**20:,.0f} MiB in use, cache {memory['cache_size'] / 2**20:,.0f} MiB, "
        f"{memory['cache_hits'] + memory['cache_misses']:,} lookups, {'-' if rate is None else f'{rate:.1%}'} hits"
    )
    people = Table(title="Processes", title_justify="left")
    for column in ("pid", "since", "pinned states"):
        people.add_column(column)
    for one in found["processes"]:
        pins = ", ".join(f"{pin['prefix']}: {pin['state']:,} (-{pin['behind']:,})" for pin in one["pins"])
        since = datetime.fromtimestamp(one["started"]).strftime("%Y-%m-%d %H:%M:%S")
        people.add_row(str(one["pid"]), since, pins if one["live"] else "has died")
    console.print(people)
    prefixes = Table(title="Prefixes in use", title_justify="left")
    for column in ("prefix", "published", "durable", "written by", "turn", "waiting for it"):
        prefixes.add_column(column)
    for name, one in found["prefixes"].items():
        writer = "nobody" if one["writer"] is None else one["writer"]
        if one["writer_pid"] is not None:
            writer = f"process {one['writer_pid']}"
        turn = "-" if one["turn_pid"] is None else f"process {one['turn_pid']}"
        waiting = ", ".join(map(str, one["queue"])) or "-"
        prefixes.add_row(name, f"{one['published']:,}", f"{one['durable']:,}", writer, turn, waiting)
    console.print(prefixes)


def _row(root: str, name: str) -> list[str]:
    store = LocalFileStore.open(root, name, writable=False)
    try:
        meta = store.read_meta()
        state = meta.state
        for frame in store.read_log(meta):
            state = max(state, frame.state)
        uuid = store.identity.prefix_uuid
    finally:
        store.close()
    base = names.base_path(root, name)
    logs = sum(_size(names.redo_path(base, number)) for number in names.redo_numbers(SYSTEM, base))
    written = datetime.fromtimestamp(meta.time_us / 1e6).strftime("%Y-%m-%d %H:%M:%S")
    size = _size(names.page_path(base))
    return [
        f"{uuid:016x}",
        f"{state:,}",
        f"{meta.state:,}",
        written,
        f"{size / 2**20:,.1f} MiB",
        f"{logs / 2**20:,.1f} MiB",
    ]


def _size(path: str) -> int:
    """Bytes of a file; 0 when a checkpoint has just removed it."""
    try:
        return Path(path).stat().st_size
    except FileNotFoundError:
        return 0
