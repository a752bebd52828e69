"""A web server as a page of docs/ starts it: on loopback, at a port of the kernel's choice, stopped by its pid."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.scripts import environment

from .pages import ADDRESS

_LISTENING = re.compile(r"(?:Listening at: http://|bound to TCP address )(127\.0\.0\.1:\d+)")


class Server:
    """Runs a command of a page in `directory` until the block ends.

    Attributes:
        url: where it listens. log: the file of what it printed.
    """

    def __init__(self, command: list[str], directory: Path) -> None:
        words = [word.replace(ADDRESS, "127.0.0.1:0") for word in command]
        assert words != command, f"no address in {command}"
        if words[0] == "gunicorn":  # its control socket would be in the home directory
            words = [sys.executable, "-m", "gunicorn", "--no-control-socket", *words[1:]]
        else:
            words[0] = str(Path(sys.executable).parent / words[0])
        self.log = directory / "server.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(words, cwd=directory, env=environment(), stdout=log, stderr=log)
        self.url = ""

    def __enter__(self) -> Server:
        end = time.monotonic() + 30
        while time.monotonic() < end and self.process.poll() is None:
            found = _LISTENING.search(self.log.read_text())
            if found:
                self.url = f"http://{found[1]}"
                return self
            time.sleep(0.02)
        self.__exit__()
        raise AssertionError(f"{self.process.args} does not listen:\n{self.log.read_text()}")

    def _starting(self) -> bool:
        """Whether a worker of uwsgi is importing the application just now: it would say that it was interrupted."""
        log = self.log.read_text()
        return "--lazy-apps" in str(self.process.args) and log.count("pawned uWSGI worker ") > log.count("ready in ")

    def __exit__(self, *_: object) -> None:
        end = time.monotonic() + 20
        while self.process.poll() is None and self._starting() and time.monotonic() < end:
            time.sleep(0.02)
        if self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"{self.process.args} did not stop:\n{self.log.read_text()}") from None

    @property
    def stop_signal(self) -> signal.Signals:
        """What makes it end in order."""
        return signal.SIGINT if "uwsgi" in str(self.process.args) else signal.SIGTERM
