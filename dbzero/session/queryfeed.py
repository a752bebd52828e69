"""The feed of a watched query: what commits change in its results.

The query is asked of a snapshot that is moved from commit to commit as a reader's view is, so what nobody committed yet
does not count, and what is known of the tag index stays known. The live view could not do for this: it shows a writer's
pending changes, and a reader's moves by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from pyroaring import BitMap64

from dbzero.model import base
from dbzero.model.base import operation
from dbzero.model.memo import MemoObject
from dbzero.query.base import Query
from dbzero.query.following import Results
from dbzero.session.refresh import show
from dbzero.session.snapshots import Snapshot
from dbzero.session.workspace import OpenPrefix, active

Kind = Literal["added", "removed", "modified"]


class QueryChange(NamedTuple):
    """An object that came into the results of a watched query ("added"), left them ("removed"), or stayed in them and was
    changed ("modified"), and the state in which that is so.

    `object` is the live one. When it is deleted it is the last version of it, from a snapshot: of the state before for
    what was removed.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p", autocommit=False)
    >>> @db0.memo
    ... class Task:
    ...     def __init__(self, name, *tags):
    ...         self.name = name
    ...         db0.tags(self).add(*tags)
    >>> paint, mow = Task("paint", "open"), Task("mow", "open")
    >>> db0.commit()
    >>> changes = db0.watch(db0.find(Task, "open"), timeout=0)
    >>> plant, paint.name = Task("plant", "open"), "paint the door"
    >>> _ = db0.tags(mow).remove("open")
    >>> db0.commit()
    >>> [(change.kind, change.object.name, change.state) for change in changes]
    [('removed', 'mow', 3), ('added', 'plant', 3), ('modified', 'paint the door', 3)]
    >>> db0.QueryChange._fields
    ('object', 'state', 'kind')
    >>> db0.close()
    """

    object: Any
    state: int
    kind: Kind


class _Moving(Snapshot):
    """A snapshot of one prefix that goes on to newer states."""

    __slots__ = ()

    def move(self, name: str) -> tuple[int, BitMap64 | None] | None:
        """Under the operation lock: go on to the newest durable state. Gives the state before, which is still held and to
        be released, and the OIDs of what was changed since (None: nobody knows); None when there is nothing new.
        ClosedError."""
        self._alive()
        view, held = self.view(name), self._held[name]
        prefix, before = held.prefix, held.state
        newest = prefix.newest()
        if newest is None or newest == (before, view.incarnation):
            return None
        head, incarnation = newest
        listed = prefix.changes_since(before, head)
        prefix.hold(head)
        show(view, prefix, head, incarnation)
        view.frozen = held.state = view.state
        return before, None if listed is None else BitMap64(listed)


class WatchedQuery:
    """The query of one watch, which is of live objects."""

    ended = False

    def __init__(self, query: Query, opened: OpenPrefix) -> None:
        self._opened = opened
        self._name = opened.name
        states = {opened.name: (opened.prefix, opened.prefix.committed())}
        self._moving = _Moving(active(), states, opened.name)
        try:
            view = self._moving.view(opened.name)
            self.state = view.state
            self._results = Results(query._p_within(self._moving), view)
        except BaseException:
            self._moving.close()
            raise

    def take_in(self) -> list[QueryChange]:
        """What changed since the last call."""
        with operation:
            moved = self._moving.move(self._name)
        if moved is None:
            return []
        before, changed = moved
        try:
            self.state = self._moving.view(self._name).state
            difference = self._results.difference(changed, before)
            return [
                *self._told(difference.removed, "removed", before),
                *self._told(difference.added, "added", self.state),
                *self._told(difference.modified, "modified", self.state),
            ]
        finally:
            self._opened.prefix.release(before)

    def _told(self, oids: BitMap64, kind: Kind, state: int) -> Iterator[QueryChange]:
        past: Snapshot | None = None
        for oid in oids:
            with operation:
                obj = self._opened.view.get(oid)
            if not isinstance(obj, MemoObject) or obj._p_flags & base.EXPIRED:
                if past is None:
                    past = Snapshot(active(), {self._name: (self._opened.prefix, state)}, self._name)
                obj = past.view(self._name).get(oid)
            yield QueryChange(obj, self.state, kind)

    def close(self) -> None:
        """Let go of the state that is held."""
        self._moving.close()
