"""A real second process to play with: `Worker` starts a Python interpreter and runs code in it, one piece at a time.

Run as a script, this file is the process's own side: it reads JSON lines {"code": ...} and answers {"value": ...} or {"error": [type names], "text": ...}.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar


class RemoteError(Exception):
    """The worker's code raised. `kinds`: names of the exception's class and its bases."""

    def __init__(self, kinds: list[str], text: str) -> None:
        super().__init__(f"{kinds[0]}: {text}")
        self.kinds = kinds
        self.text = text


class Worker:
    """One interpreter. `run(code)` executes statements and returns what `result` was set to."""

    launcher: ClassVar[list[str]] = []
    """The command that is to start the interpreter, whose command line it gets."""

    def __init__(self, **variables: Any) -> None:
        self.process = subprocess.Popen(
            [*self.launcher, sys.executable, "-X", "faulthandler", "-m", "tests.worker"],
            cwd=Path(__file__).resolve().parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for name, value in variables.items():
            self.run(f"{name} = {value!r}")

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, code: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"code": textwrap.dedent(code)}) + "\n")
        self.process.stdin.flush()

    def receive(self, timeout: float = 30.0) -> Any:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], timeout)
        if not ready:
            raise TimeoutError(f"worker {self.pid} did not answer within {timeout} s")
        line = self.process.stdout.readline()
        if not line:
            raise EOFError(f"worker {self.pid} ended with status {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RemoteError(answer["error"], answer["text"])
        return answer["value"]

    def run(self, code: str, timeout: float = 30.0) -> Any:
        self.send(code)
        return self.receive(timeout)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """End the worker normally (atexit handlers run). Returns its exit status."""
        if self.process.poll() is None:
            assert self.process.stdin is not None
            try:
                self.process.stdin.close()
            except BrokenPipeError:
                pass
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.returncode

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self.process.poll() is None:
            self.kill()
        self.stop()


def _main() -> None:
    output = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the code prints must not disturb the protocol
    space: dict[str, Any] = {"__name__": "worker_code"}
    for line in sys.stdin:
        space.pop("result", None)
        try:
            exec(compile(json.loads(line)["code"], "<worker>", "exec"), space)
            answer = {"value": space.get("result")}
        except BaseException as error:
            answer = {"error": [c.__name__ for c in type(error).__mro__], "text": str(error)}
        output.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    _main()
