"""gunicorn's stash: tables in the memory of its "dirty" arbiter, which a stub application keeps running on loopback."""

from __future__ import annotations

import glob
import importlib.util
import os
import subprocess
import sys
import time
from typing import Any

from base import Peer

_STUB = """
from gunicorn.dirty.app import DirtyApp

class Nothing(DirtyApp):
    def __call__(self, action, *args, **kwargs):
        return None

    def close(self):
        pass

def app(environ, start_response):
    start_response("204 No Content", [])
    return []
"""


class Stash(Peer):
    name = "gunicorn stash"
    remarks = "in memory only, no transactions: one writer; its reader polls"
    most_writers = 1

    @staticmethod
    def missing() -> str:
        if importlib.util.find_spec("gunicorn") is None:
            return "gunicorn is not installed"
        return "" if importlib.util.find_spec("gunicorn.dirty") else "this gunicorn has no stash"

    def start(self) -> None:
        with open(os.path.join(self.place, "stub.py"), "w") as file:
            file.write(_STUB)
        words = ["--no-control-socket", "--bind", "127.0.0.1:0", "--workers", "1"]
        words += ["--dirty-app", "stub:Nothing", "--dirty-workers", "1"]
        self.server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *words, "stub:app"],
            cwd=self.place,
            env={**os.environ, "TMPDIR": self.place},  # its socket goes there
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 20
        while not self._reachable():
            if time.monotonic() > end or self.server.poll() is not None:
                self.stop()
                raise RuntimeError("gunicorn's stash can't be reached")
            time.sleep(0.1)

    def _reachable(self) -> bool:
        try:
            self.write()
            return True
        except Exception:
            return False

    def stop(self) -> None:
        if self.server.poll() is None:
            self.server.terminate()
        self.server.wait(30)

    def servers(self) -> list[int]:
        """The dirty arbiter has a child, its worker; the web worker has none."""
        return [pid for pid in _children(self.server.pid) if _children(pid)]

    def write(self) -> None:
        from gunicorn.dirty import stash

        (path,) = glob.glob(os.path.join(self.place, "gunicorn-dirty-*", "arbiter.sock"))
        self.client: Any = stash.StashClient(path)
        self.client.ensure("p")
        if not self.client.exists("p", "value"):
            self.client.put("p", "value", 0)

    read = write

    def fill(self, objects: int) -> None:
        for n in range(objects):
            self.client.put("p", str(n), {"number": n, "text": f"thing {n}"})

    def bump(self) -> None:
        self.client.put("p", "value", self.client.get("p", "value") + 1)

    def value(self) -> int:
        return int(self.client.get("p", "value"))

    def visit(self, objects: int) -> int:
        ask = self.client.get
        return sum([ask("p", str(n))["number"] for n in range(objects)])


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


PEER = Stash
