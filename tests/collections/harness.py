"""What the collection tests run on: records in memory, a view over them, commits, evictions, reopening, small nodes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from dbzero.collections import (
    bytearrays,
    counted,
    dictnodes,
    dicts,
    dicttrees,
    keyed,
    lists,
    nodes,
    pairs,
    sequences,
    sets,
    settrees,
)
from dbzero.model import scope
from dbzero.model.base import operation, set_leaf
from dbzero.model.view import View

MODULES = (nodes, counted, keyed, pairs, bytearrays, sequences, lists, dictnodes, dicts, dicttrees, sets, settrees)


class MemoryRecords:
    """Records of one prefix in a dict. Counts reads and writes."""

    def __init__(self, name: str = "test", uuid: int = 7) -> None:
        self.name = name
        self.uuid = uuid
        self.writable = True
        self.payloads: dict[int, bytes] = {}
        self.next_oid = 16
        self.reads = 0
        self.writes: list[int] = []

    def read(self, oid: int, state: int) -> tuple[bytes, int] | None:
        self.reads += 1
        payload = self.payloads.get(oid)
        return None if payload is None else (payload, 1)

    def refcount(self, oid: int, state: int) -> int:
        return 1 if oid in self.payloads else 0

    def reserve_oids(self, n: int) -> int:
        first = self.next_oid
        self.next_oid += n
        return first


class Bench:
    """A prefix in memory and its current view."""

    def __init__(self, name: str = "test", uuid: int = 7) -> None:
        self.records = MemoryRecords(name, uuid)
        self.state = 1
        self.open()

    def open(self) -> View:
        self.view = View(self.records, self.state)
        return self.view

    def use(self) -> None:
        """Make the view the current one."""
        scope.install(lambda name, writable: self.view, lambda uuid: self.view)
        scope.set_current(self.view)

    def commit(self) -> list[int]:
        """Write what is dirty. Returns the OIDs written."""
        written = []
        with operation:
            self.view.flush()
            while objects := self.view.take_dirty():
                for obj in objects:
                    payload, refs = obj._p_encode()
                    assert all(type(ref) is int and ref >= 16 for ref in refs)
                    self.records.payloads[obj._p_oid] = payload
                    written.append(obj._p_oid)
            self.state += 1
            self.view.advance(self.state)
        self.records.writes += written
        return written

    def evict(self) -> None:
        """Make ghosts of everything that is clean."""
        for _ in range(3):
            self.view.evict(0)

    def reopen(self, cls: type, oid: int) -> object:
        """Commit, and read the object through a new view."""
        self.commit()
        self.open()
        return self.view.ghost(cls, oid)


@contextlib.contextmanager
def small_nodes(leaf: int = 8, fanout: int = 4) -> Iterator[None]:
    """Trees of tiny nodes, so that a few values make a deep one."""
    saved = [
        (module, name, getattr(module, name))
        for module in MODULES
        for name in ("LEAF", "FANOUT", "CHUNK")
        if hasattr(module, name)
    ]
    before = nodes.LEAF
    for module, name, _ in saved:
        setattr(module, name, fanout if name == "FANOUT" else leaf)
    set_leaf(leaf)
    try:
        yield
    finally:
        set_leaf(before)
        for module, name, value in saved:
            setattr(module, name, value)
