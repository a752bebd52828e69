"""``python -m dbzero demo``: open the store, build or continue, answer; ``demo query``: answer one question."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path

from rich.console import Console

import dbzero as db0

from . import answers, language, scan, search
from .build import build
from .follow import follow, readable
from .model import Library


def default_root() -> Path:
    """A directory of the user's data directory."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "dbzero" / "demo"


def run(root: Path, *, following: bool, idle: float) -> int:
    """The whole command. Returns the exit status: 0 done, 1 nothing to follow, 130 stopped before the end."""
    console = Console()
    prefix = _prefix()
    root.mkdir(parents=True, exist_ok=True)
    db0.init(dbzero_root=str(root), autocommit=False)
    try:
        if following:
            return 0 if follow(prefix, console, idle) else 1
        return _build_and_answer(root, prefix, console)
    finally:
        db0.close()


def query(root: Path, words: list[str]) -> int:
    """Answer one question, or explain the language when there are no words. Returns the exit status: 0 answered, 1 there is no store.

    Raises language.QueryError.
    """
    console = Console()
    text = " ".join(words)
    if not text.strip():
        console.print(search.help_text(), markup=False, highlight=False)
        return 0
    request = language.parse(text)
    started = time.perf_counter()
    if not root.is_dir():
        return _no_store(root)
    db0.init(dbzero_root=str(root), autocommit=False)
    try:
        if not readable(_prefix()):
            return _no_store(root)
        library: Library = db0.fetch(Library)
        opened = time.perf_counter() - started
        search.ask(library, request, console)
        state = "" if library.finished else f", which has {len(library.modules):,} of {library.total:,} modules so far"
        console.print(f"Opened the store in {opened * 1e3:.0f} ms{state}.")
        return 0
    finally:
        db0.close()


def _no_store(root: Path) -> int:
    print(f"dbzero demo: there is no library in {root} yet: run `python -m dbzero demo` first", file=sys.stderr)
    return 1


def _prefix() -> str:
    return f"library-{platform.python_version()}"


def _build_and_answer(root: Path, prefix: str, console: Console) -> int:
    started = time.perf_counter()
    db0.open(prefix, "rw")
    if db0.exists(Library):
        library: Library = db0.fetch(Library)
        read = f"{len(library.modules):,} of {library.total:,} modules"
        console.print(
            f"Process started with data: {read}, {library.classes:,} classes, {library.functions:,} functions, in {root}."
        )
    else:
        modules = scan.find_modules(scan.library_path())
        library = Library(platform.python_version(), str(scan.library_path()), len(modules))
        db0.commit()
        console.print(f"Process started without data; reading {len(modules):,} modules of {library.path} into {root}.")
    if not library.finished:
        if not build(library, scan.find_modules(Path(library.path)), console):
            console.print(
                f"Stopped after {len(library.modules):,} of {library.total:,} modules. The next run goes on from there."
            )
            return 130
        started = time.perf_counter()
    answers.show(library, console)
    console.print(
        f"Answered from the store in {time.perf_counter() - started:.2f} s. Run the demo again to see it start with data."
    )
    sys.stdout.flush()
    return 0
