"""Watching the library grow in another process: opened for reading only, live objects change in place with every commit of the writer."""

from __future__ import annotations

import time

from rich.console import Console
from rich.live import Live

import dbzero as db0
from dbzero import errors

from . import answers
from .model import Library

WAIT_MS = 500  # longest sleep, so that Ctrl-C and the idle limit are noticed


def follow(prefix: str, console: Console, idle: float) -> bool:
    """Show the numbers move until the builder has finished. Returns False when nothing happened for `idle` seconds."""
    quiet_since = time.monotonic()
    while not readable(prefix):
        if time.monotonic() - quiet_since > idle:
            console.print(
                f"No library to follow appeared within {idle:g} s. Start `python -m dbzero demo` in another terminal."
            )
            return False
        time.sleep(0.1)
    library: Library = db0.fetch(Library)
    state = db0.get_state_num(prefix, finalized=True)
    quiet_since = time.monotonic()
    with Live(answers.summary(library), console=console, auto_refresh=False) as live:
        while not library.finished:
            if db0.wait(prefix, state + 1, WAIT_MS):
                state = db0.get_state_num(prefix, finalized=True)
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > idle:
                break
            live.update(answers.summary(library), refresh=True)
        live.update(answers.summary(library), refresh=True)
    if library.finished:
        console.print(f"The other process is done, at state {state:,}.")
        return True
    console.print(
        f"No commit for {idle:g} s: the other process has stopped. What it committed stays; start the demo again to go on."
    )
    return False


def readable(prefix: str) -> bool:
    """Open the prefix for reading. Returns whether it is there already, and has its root object."""
    try:
        db0.open(prefix, "r")
    except errors.PrefixError:  # not made yet
        return False
    return bool(db0.exists(Library))
