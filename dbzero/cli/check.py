"""``python -m dbzero check``: verify what the files of a store say, against each other. Reads only; a writer may be at work meanwhile."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from dbzero import errors
from dbzero.storage import names
from dbzero.storage.filestore import LocalFileStore
from dbzero.storage.verify import check


def run(root: Path, prefix: str | None) -> int:
    """Check one prefix or all below `root`. Returns the exit status: 0 everything sound, 1 something wrong or nothing there."""
    if not root.is_dir():
        print(f"dbzero check: there is no directory {root}", file=sys.stderr)
        return 1
    found = [names.normalize(prefix)] if prefix is not None else list(names.discover(str(root)))
    if not found:
        print(f"dbzero check: {root} holds no prefix", file=sys.stderr)
        return 1
    bad = [name for name in found if not _sound(str(root), name)]
    if bad:
        print(f"dbzero check: {len(bad)} of {len(found)} prefixes damaged: {', '.join(bad)}", file=sys.stderr)
    return 1 if bad else 0


def _sound(root: str, name: str) -> bool:
    console = Console()
    try:
        store = LocalFileStore.open(root, name, writable=False)
    except errors.Error as problem:
        console.print(f"{name}: {problem}", markup=False)
        return False
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=None)
        try:
            problems = check(store, lambda done, total: progress.update(task, completed=done, total=total))
        finally:
            store.close()
    for text in problems:
        console.print(f"{name}: {text}", markup=False, soft_wrap=True)
    if not problems:
        console.print(f"{name}: sound", markup=False)
    return not problems
