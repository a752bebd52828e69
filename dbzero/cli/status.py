"""``python -m dbzero status``: what a store holds on disk, prefix by prefix. Reads only; a writer may be at work meanwhile."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dbzero import errors
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
    return 1 if failed else 0


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
