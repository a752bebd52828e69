"""A prefix in memory: versions of payloads by state, refcounts, and the commit that a session would do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dbzero.model import scope
from dbzero.model.base import operation
from dbzero.model.view import View


class Memory:
    """Implements Records."""

    def __init__(self, name: str = "mem", uuid: int = 0x0123456789ABCDEF, writable: bool = True) -> None:
        self.name = name
        self.uuid = uuid
        self.writable = writable
        self.next_oid = 16
        self.versions: dict[int, list[tuple[int, bytes | None, tuple[int, ...]]]] = {}
        self.reads = 0

    def oid_limit(self) -> int:
        return self.next_oid

    def reserve_oids(self, n: int) -> int:
        first = self.next_oid
        self.next_oid += n
        return first

    def newest(self, oid: int, state: int) -> tuple[bytes | None, tuple[int, ...]] | None:
        for at, payload, refs in reversed(self.versions.get(oid, ())):
            if at <= state:
                return payload, refs
        return None

    def refcount(self, oid: int, state: int) -> int:
        counts: Counter[int] = Counter()
        for holder in self.versions:
            found = self.newest(holder, state)
            if found is not None and found[0] is not None:
                counts.update(found[1])
        return counts[oid]

    def references(self, oid: int, state: int) -> tuple[int, ...]:
        found = self.newest(oid, state)
        return () if found is None else found[1]

    def read(self, oid: int, state: int) -> tuple[bytes, int] | None:
        self.reads += 1
        found = self.newest(oid, state)
        if found is None or found[0] is None:
            return None
        return found[0], self.refcount(oid, state) if len(self.versions) < 500 else 1

    def exists(self, oid: int, state: int) -> bool:
        found = self.newest(oid, state)
        return found is not None and found[0] is not None

    def commit(self, view: View) -> int:
        """Commit what is dirty. Returns how many records were written."""
        taken: list[Any] = []
        state = view.state + 1
        with operation.exclusive():
            while fresh := view.take_dirty():
                taken.extend(fresh)
                for obj in fresh:
                    payload, refs = obj._p_encode()
                    self.versions.setdefault(obj._p_oid, []).append((state, payload, tuple(refs)))
        view.advance(state)
        return len(taken)


def reopen(memory: Memory, view: View, writable: bool = True) -> View:
    """A second view, as another process would have it."""
    memory.writable = writable
    fresh = View(memory, view.state)
    memory.writable = True
    return fresh


_current: list[View] = []


@contextmanager
def current(*views: View) -> Iterator[None]:
    """The first view is the current one; the others are found by name."""
    by_name = {view.name: view for view in views}
    before = scope._view_of, scope._view_of_uuid
    scope.install(
        lambda name, writable: views[0] if name is None else by_name[name],
        lambda uuid: next((v for v in views if v.records.uuid == uuid), None),
    )
    scope.set_current(views[0])
    _current.append(views[0])
    try:
        yield
    finally:
        _current.pop()
        scope.set_current(_current[-1] if _current else None)
        scope.install(*before)
