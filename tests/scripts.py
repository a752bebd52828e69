"""Running Python programs as real processes, the way a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def environment() -> dict[str, str]:
    """The tests' own environment, with the dbzero under test found first and plain, unbuffered output."""
    changed = {
        "PYTHONPATH": os.pathsep.join([*filter(None, sys.path)]),
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "160",
        "NO_COLOR": "1",
    }
    return {**os.environ, **changed}


def start(*arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
    """Start `python ARGUMENTS` with its output piped."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(*arguments: str | Path, cwd: Path, timeout: float = 60) -> str:
    """Run `python ARGUMENTS` to its end and return its output. Fails the test, output included, unless it exits with 0."""
    process = start(*arguments, cwd=cwd)
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        raise AssertionError(f"{arguments} still ran after {timeout} s:\n{output}") from None
    assert process.returncode == 0, f"{arguments} exited with {process.returncode}:\n{output}"
    return output
