"""Child processes whose output lines are collected while they run, and what they leave behind in shared memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHM = Path("/dev/shm")


class Failure(Exception):
    """A promise was broken. The text says which."""


class Child:
    """A role of `bank.py`, or of another script, as a process of its own."""

    def __init__(self, role: str, root: Path, *arguments: object, script: str = "bank.py") -> None:
        command = [sys.executable, str(HERE / script), role, str(root), *map(str, arguments)]
        self.role = role
        self.lines: list[str] = []
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def numbers(self, word: str, column: int = 1) -> list[int]:
        """The numbers that lines starting with `word` carry. Whole lines only: a kill can cut the last one short."""
        split = [line.split() for line in list(self.lines)]
        return [int(parts[column]) for parts in split if len(parts) > column and parts[0] == word]

    def last(self, word: str, column: int = 1) -> int | None:
        found = self.numbers(word, column)
        return found[-1] if found else None

    def wait_for(self, condition: Callable[[Child], object], what: str, seconds: float = 30) -> None:
        """Sleep until `condition(self)` holds. Failure when the process ends or the time is up before."""
        deadline = time.monotonic() + seconds
        while not condition(self):
            ended = self.process.poll() is not None
            if ended:
                self._thread.join()
                if condition(self):
                    return
            if ended or time.monotonic() > deadline:
                state = f"ended with {self.process.returncode}" if ended else f"still runs after {seconds:g} s"
                raise Failure(
                    f"{self.role}: waited for {what}, but the process {state}; its last lines:\n{self.tail()}"
                )
            time.sleep(0.002)

    def check(self) -> None:
        """Failure when the process has ended or reported something torn."""
        torn = [line for line in list(self.lines) if line.startswith("torn")]
        if torn or self.process.poll() is not None:
            raise Failure(
                f"{self.role} reported {torn or 'nothing'}, exit status {self.process.poll()}; its last lines:\n{self.tail()}"
            )

    def tail(self) -> str:
        return "\n".join(f"    {line}" for line in self.lines[-25:])

    def segments(self) -> set[str]:
        """Names in /dev/shm that the process has mapped."""
        maps = Path(f"/proc/{self.process.pid}/maps").read_text()
        paths = {line.split(maxsplit=5)[5] for line in maps.splitlines() if "/dev/shm/" in line}
        return {Path(path).name for path in paths if not path.endswith("(deleted)")}

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone and its last line read."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._thread.join()

    def finish(self, seconds: float = 60) -> None:
        """Wait for the end. Failure unless the exit status is 0."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"{self.role} still ran after {seconds:g} s; its last lines:\n{self.tail()}") from None
        self._thread.join()
        if status != 0:
            raise Failure(f"{self.role} ended with {status}; its last lines:\n{self.tail()}")


def verify(root: Path) -> None:
    """`python -m dbzero check`: every byte of the store. Failure with its output when it finds something."""
    command = [sys.executable, "-m", "dbzero", "check", "--root", str(root)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    if done.returncode != 0:
        raise Failure(f"dbzero check found:\n{done.stdout}")


def leftovers(root: Path, segments: set[str]) -> None:
    """Failure when files other than a cleanly closed store's are in `root`, or one of `segments` is still in /dev/shm."""
    names = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    expected = {".dbzero", "bank.db0", "bank.db0.lock"}
    strange = {name for name in names - expected if not name.startswith("bank.redo.")}
    if strange or "bank.db0" not in names:
        raise Failure(f"left behind in {root}: {sorted(strange)}; there is {sorted(names)}")
    if len(names - expected) > 1:
        raise Failure(f"redo files piled up: {sorted(names - expected)}")
    kept = {name for name in segments if (SHM / name).exists()}
    if kept:
        raise Failure(f"shared memory left behind by processes that are all gone: {sorted(kept)}")
