"""``python -m dbzero copy`` and ``compact``: a prefix's file elsewhere, and with less history. Readers and writers may be at work meanwhile."""

from __future__ import annotations

import contextlib
import datetime
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dbzero.session import api, history
from dbzero.session.workspace import active
from dbzero.storage import copying, names
from dbzero.storage.newfile import Progress as Report


def run_copy(root: Path, prefix: str, output: Path, verify: bool) -> int:
    """Copy one prefix into a file. Returns the exit status."""
    console = Console()
    name = names.normalize(prefix)
    with _progress(console, name, in_bytes=True) as report:
        done = copying.copy(str(root), name, str(output), check=verify, progress=report)
    console.print(f"{name}: state {done.state}, {decimal(done.size)} in {output}", markup=False, soft_wrap=True)
    return 0


def run_compact(root: Path, prefix: str | None, keep_states: int | None, keep_since: str | None) -> int:
    """Compact one prefix or all below `root`. Returns the exit status."""
    if not root.is_dir():
        print(f"dbzero compact: there is no directory {root}", file=sys.stderr)
        return 1
    console = Console()
    since = None if keep_since is None else moment(keep_since)
    found = [names.normalize(prefix)] if prefix is not None else list(names.discover(str(root)))
    api.init(root)
    try:
        for name in found:
            with _progress(console, name, in_bytes=False) as report:
                done = history.compact_prefix(active(), name, keep_states, since, report)
            console.print(
                f"{name}: {decimal(done.before)} -> {decimal(done.after)}, oldest state {done.oldest_state}",
                markup=False,
                soft_wrap=True,
            )
    finally:
        api.close()
    return 0


def moment(text: str) -> datetime.datetime | float:
    """What `--keep-since` says: seconds ago, or an ISO date with or without a time. Raises ValueError."""
    try:
        return float(text)
    except ValueError:
        return datetime.datetime.fromisoformat(text)


@contextlib.contextmanager
def _progress(console: Console, name: str, *, in_bytes: bool) -> Iterator[Report]:
    count = DownloadColumn() if in_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
