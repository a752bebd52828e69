"""SQLite, write-ahead log, synchronous=FULL."""

from __future__ import annotations

import os
import sqlite3

from base import Peer


class Sqlite(Peer):
    name = "SQLite WAL"
    remarks = "its reader polls"

    def write(self) -> None:
        self.read()
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute("CREATE TABLE IF NOT EXISTS counter (id INTEGER PRIMARY KEY, value INTEGER)")
        self.db.execute("CREATE TABLE IF NOT EXISTS thing (id INTEGER PRIMARY KEY, number INTEGER, text TEXT)")
        self.db.execute("INSERT OR IGNORE INTO counter VALUES (1, 0)")

    def read(self) -> None:
        self.db = sqlite3.connect(os.path.join(self.place, "db"), isolation_level=None, timeout=60)

    def fill(self, objects: int) -> None:
        self.db.execute("BEGIN")
        self.db.executemany("INSERT INTO thing VALUES (?, ?, ?)", ((n, n, f"thing {n}") for n in range(objects)))
        self.db.execute("COMMIT")

    def bump(self) -> None:
        self.db.execute("UPDATE counter SET value = value + 1 WHERE id = 1")

    def value(self) -> int:
        return int(self.db.execute("SELECT value FROM counter WHERE id = 1").fetchone()[0])

    def visit(self, objects: int) -> int:
        ask = self.db.execute
        return sum([ask("SELECT number FROM thing WHERE id = ?", (n,)).fetchone()[0] for n in range(objects)])

    def close(self) -> None:
        self.db.close()


PEER = Sqlite
