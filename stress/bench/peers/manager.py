"""multiprocessing.Manager's kind of server: a process that has the dict, and proxies."""

from __future__ import annotations

import os
import threading
import time
from multiprocessing.managers import BaseManager
from typing import Any

from base import Peer


class Store:
    """What the server has."""

    def __init__(self) -> None:
        self.counter = 0
        self.changed = threading.Condition()
        self.things: dict[int, dict[str, Any]] = {}

    def fill(self, objects: int) -> None:
        self.things.update({n: {"number": n, "text": f"thing {n}"} for n in range(objects)})

    def bump(self) -> None:
        with self.changed:
            self.counter += 1
            self.changed.notify_all()

    def value(self) -> int:
        return self.counter

    def wait(self, value: int, seconds: float) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.counter >= value, seconds)

    def thing(self, number: int) -> dict[str, Any]:
        return self.things[number]


_STORE = Store()


def _store() -> Store:
    return _STORE


class _Manager(BaseManager):
    pass


_Manager.register("store", callable=_store, exposed=("fill", "bump", "value", "wait", "thing"))


class Manager(Peer):
    name = "Manager"
    remarks = "in memory only, gone with its server"

    def _connect(self) -> _Manager:
        return _Manager(address=os.path.join(self.place, "socket"), authkey=b"bench")

    def start(self) -> None:
        self.manager = self._connect()
        self.manager.start()

    def stop(self) -> None:
        self.manager.shutdown()

    def servers(self) -> list[int]:
        return [self.manager._process.pid]  # type: ignore[attr-defined]

    def write(self) -> None:
        manager = self._connect()
        manager.connect()
        self.store = manager.store()  # type: ignore[attr-defined]

    read = write

    def fill(self, objects: int) -> None:
        self.store.fill(objects)

    def bump(self) -> None:
        self.store.bump()

    def value(self) -> int:
        return int(self.store.value())

    def wait(self, value: int, end: float) -> bool:
        return bool(self.store.wait(value, max(0.0, end - time.monotonic())))

    def visit(self, objects: int) -> int:
        thing = self.store.thing
        return sum([thing(number)["number"] for number in range(objects)])


PEER = Manager
