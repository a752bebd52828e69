"""Cheap real processes: forked off before dbzero is initialized, told what to do by a function, and killed at a chosen system call."""

from __future__ import annotations

import errno
import os
import pickle
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from dbzero.storage.syscalls import System

DURABLE_CALLS = (
    "pwritev",
    "fdatasync",
    "fsync",
    "fallocate",
    "ftruncate",
    "unlink",
    "rename",
    "link",
    "sync_dir",
    "mkdir",
)


class Forked:
    """A forked process that runs `body(send)`; what it sends (any picklable value) comes out of `receive`."""

    def __init__(self, body: Callable[[Callable[[Any], None]], object]) -> None:
        self._read, write = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._read)
            status = 1
            try:
                body(lambda value: _send(write, value))
                status = 0
            except BaseException:
                _send(write, ("error", traceback.format_exc()))
            finally:
                os._exit(status)
        os.close(write)
        self.status: int | None = None
        self.received: list[Any] = []

    def receive(self, timeout: float = 30.0) -> Any:
        """The next value. EOFError when the process has ended, TimeoutError."""
        ready, _, _ = select.select([self._read], [], [], timeout)
        if not ready:
            raise TimeoutError(f"process {self.pid} sent nothing for {timeout} s")
        head = self._exactly(4)
        value = pickle.loads(self._exactly(int.from_bytes(head, "little")))
        self.received.append(value)
        if isinstance(value, tuple) and value and value[0] == "error":
            raise AssertionError(f"in process {self.pid}:\n{value[1]}")
        return value

    def _exactly(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            part = os.read(self._read, n - len(data))
            if not part:
                raise EOFError(f"process {self.pid} has ended")
            data += part
        return data

    def drain(self, timeout: float = 30.0) -> list[Any]:
        """Everything that is still sent, up to the process's end."""
        values = []
        while True:
            try:
                values.append(self.receive(timeout))
            except EOFError:
                return values

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for the end: exit status, or minus the signal that ended it. Killed (and TimeoutError) when that takes too long."""
        if self.status is None:
            deadline = time.monotonic() + timeout
            while True:
                pid, raw = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    break
                if time.monotonic() > deadline:
                    os.kill(self.pid, signal.SIGABRT)
                    os.kill(self.pid, signal.SIGKILL)
                    os.waitpid(self.pid, 0)
                    self.status = -9
                    os.close(self._read)
                    raise TimeoutError(f"process {self.pid} still ran after {timeout} s")
                time.sleep(0.001)
            self.status = os.waitstatus_to_exitcode(raw)
            os.close(self._read)
        return self.status

    def kill(self) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()


def _send(fd: int, value: Any) -> None:
    data = pickle.dumps(value)
    try:
        os.write(fd, len(data).to_bytes(4, "little") + data)
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise


def kill_at(number: int, how: str) -> list[int]:
    """Have this process kill itself at its `number`-th durable call from now on (0: never).

    how: "before" the call, "after" it, or "torn": in the middle of a write. Returns a list whose only item counts the calls.
    """
    count = [0]

    def wrap(name: str) -> None:
        real = getattr(System, name)

        def call(self: System, *args: Any) -> Any:
            count[0] += 1
            mine = count[0] == number
            if mine and how == "torn" and name == "pwritev":
                fd, buffers, offset = args
                data = b"".join(bytes(b) for b in buffers)
                os.pwrite(fd, data[: len(data) // 2], offset)
            if mine and how != "after":
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return real(self, *args)
            finally:
                if mine:  # a call that fails is done with as well
                    os.kill(os.getpid(), signal.SIGKILL)

        setattr(System, name, call)

    for name in DURABLE_CALLS:
        wrap(name)
    return count
