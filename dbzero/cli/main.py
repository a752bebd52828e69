"""Arguments of ``python -m dbzero`` and the dispatch to its commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dbzero import errors


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="python -m dbzero", description="Durable, shared, transactional memory for Python."
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="keep Python's standard library as one object graph, and ask it questions")
    demo.add_argument(
        "--root", type=Path, metavar="DIR", help="store directory (default: in the user's data directory)"
    )
    demo.add_argument("--follow", action="store_true", help="watch another process that builds the graph")
    demo.add_argument(
        "--idle",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="with --follow: give up after this long without a commit",
    )

    check = commands.add_parser("check", help="verify every byte of a store, offline")
    check.add_argument("--root", type=Path, metavar="DIR", help="store directory (default: the demo's)")
    check.add_argument(
        "prefix", nargs="?", metavar="PREFIX", help="one prefix (default: every prefix of the directory)"
    )

    status = commands.add_parser("status", help="show what a store holds on disk")
    status.add_argument("--root", type=Path, metavar="DIR", help="store directory (default: the demo's)")
    status.add_argument(
        "prefix", nargs="?", metavar="PREFIX", help="one prefix (default: every prefix of the directory)"
    )
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status; errors become one sentence on stderr and status 1 (2: wrong usage, 130: Ctrl-C)."""
    options = parser().parse_args(arguments)
    try:
        # Imported late: each command should start without what the others need.
        if options.command == "check":
            from .check import run as run_check

            return run_check(options.root or _default_root(), options.prefix)
        if options.command == "status":
            from .status import run as run_status

            return run_status(options.root or _default_root(), options.prefix)
        from .demo.command import run as run_demo

        return run_demo(options.root or _default_root(), following=options.follow, idle=options.idle)
    except KeyboardInterrupt:
        return 130
    except (errors.Error, OSError) as problem:
        print(f"dbzero {options.command}: {problem}", file=sys.stderr)
        return 1


def _default_root() -> Path:
    from .demo.command import default_root

    return default_root()
