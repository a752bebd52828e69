"""LMDB, each transaction synced; values are JSON."""

from __future__ import annotations

import importlib.util
import json
import os
from typing import Any

from base import Peer


class Lightning(Peer):
    name = "LMDB"
    remarks = "its reader polls"

    @staticmethod
    def missing() -> str:
        return "" if importlib.util.find_spec("lmdb") else "the package lmdb is not installed"

    def write(self) -> None:
        self._open(False)
        with self.env.begin(write=True) as turn:
            turn.put(b"value", b"0", overwrite=False)

    def read(self) -> None:
        self._open(True)

    def _open(self, readonly: bool) -> None:
        import lmdb

        self.env: Any = lmdb.open(os.path.join(self.place, "env"), map_size=1 << 30, readonly=readonly)

    def fill(self, objects: int) -> None:
        with self.env.begin(write=True) as turn:
            for n in range(objects):
                turn.put(b"%d" % n, json.dumps({"number": n, "text": f"thing {n}"}).encode())

    def bump(self) -> None:
        with self.env.begin(write=True) as turn:
            turn.put(b"value", b"%d" % (int(turn.get(b"value")) + 1))

    def value(self) -> int:
        with self.env.begin() as turn:
            return int(turn.get(b"value"))

    def visit(self, objects: int) -> int:
        total, begin = 0, self.env.begin
        for n in range(objects):
            with begin() as turn:
                total += json.loads(turn.get(b"%d" % n))["number"]
        return total

    def close(self) -> None:
        self.env.close()


PEER = Lightning
