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

    query = demo.add_subparsers(dest="question", metavar="query").add_parser(
        "query",
        help='answer one question, like: query "function async lines>50 sort lines desc"; alone: explain the language',
        description="Answer one question to the store of the demo, or explain the language when there is none.",
    )
    query.add_argument("--root", type=Path, metavar="DIR", default=argparse.SUPPRESS, help="store directory")
    query.add_argument("words", nargs="*", metavar="WORD", help="the question; best quoted, as the shell knows < and >")

    check = commands.add_parser("check", help="verify every byte of a store, offline")
    check.add_argument("--root", type=Path, metavar="DIR", help="store directory (default: the demo's)")
    check.add_argument(
        "prefix", nargs="?", metavar="PREFIX", help="one prefix (default: every prefix of the directory)"
    )

    status = commands.add_parser("status", help="show what a store holds on disk, and who uses it")
    status.add_argument("--root", type=Path, metavar="DIR", help="store directory (default: the demo's)")
    status.add_argument(
        "prefix", nargs="?", metavar="PREFIX", help="one prefix (default: every prefix of the directory)"
    )

    copy = commands.add_parser("copy", help="copy a prefix with its history into one file, beside its writer")
    copy.add_argument("--root", type=Path, metavar="DIR", help="store directory (default: the demo's)")
    copy.add_argument("--no-verify", action="store_true", help="do not read the copy back")
    copy.add_argument("prefix", metavar="PREFIX", help="the prefix to copy")
    copy.add_argument("output", type=Path, metavar="FILE", help="the copy; must not exist")

    compact = commands.add_parser("compact", help="drop old history and give its space back")
    compact.add_argument("--root", type=Path, metavar="DIR", help="store directory (default: the demo's)")
    compact.add_argument("--keep-states", type=int, metavar="N", help="keep the newest N states")
    compact.add_argument(
        "--keep-since", metavar="WHEN", help="keep the states since then: seconds ago, or an ISO date (and time)"
    )
    compact.add_argument(
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
        if options.command == "copy":
            from .history import run_copy

            return run_copy(options.root or _default_root(), options.prefix, options.output, not options.no_verify)
        if options.command == "compact":
            from .history import run_compact

            return run_compact(options.root or _default_root(), options.prefix, options.keep_states, options.keep_since)
        if options.question:
            from .demo.command import query as run_query

            return run_query(options.root or _default_root(), options.words)
        from .demo.command import run as run_demo

        return run_demo(options.root or _default_root(), following=options.follow, idle=options.idle)
    except KeyboardInterrupt:
        return 130
    except (errors.Error, OSError, ValueError) as problem:
        print(f"dbzero {options.command}: {problem}", file=sys.stderr)
        return 1


def _default_root() -> Path:
    from .demo.command import default_root

    return default_root()
