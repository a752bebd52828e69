"""``watch``: an iterator over what commits change of given objects, or of a query's results, whoever makes them."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from typing import Any, Final, NamedTuple

from dbzero.errors import ClosedError, PrefixError, ReferenceError
from dbzero.model import base
from dbzero.model.base import Persistent, operation
from dbzero.model.view import View
from dbzero.query.base import Query
from dbzero.session.queryfeed import WatchedQuery
from dbzero.session.refresh import refresh_view
from dbzero.session.workspace import OpenPrefix, active

_SLICE: Final = 0.1  # seconds of sleep between looks at whether it is still wanted
_NODES: Final = frozenset((8, 9, 10, 11, 14))  # kinds of records that are part of a collection, see docs/design.md, 7.1


class Change(NamedTuple):
    """An object that changed, or was deleted, and the newest state in which it did."""

    object: Any
    state: int


class _Watched:
    """One object and the records that it consists of: a large collection is a tree of them."""

    def __init__(self, obj: Any, opened: OpenPrefix, state: int) -> None:
        self.object = obj
        self._prefix = opened.prefix
        self._parts: set[int] = {obj._p_oid}
        self._look([obj._p_oid], state)

    def _look(self, changed: list[int], state: int) -> None:
        """Find the parts that `changed` ones refer to. Parts that are left stay in the set; OIDs are not used again."""
        while changed:
            for oid in self._prefix.references(changed.pop(), state):
                if oid not in self._parts:
                    found = self._prefix.read(oid, state)
                    if found is not None and found[0] and found[0][0] in _NODES:
                        self._parts.add(oid)
                        changed.append(oid)

    def changed_by(self, oids: list[int] | None, state: int) -> bool:
        """Whether a commit that changed these objects (None: nobody knows which) changed this one."""
        hit = list(self._parts) if oids is None else [oid for oid in oids if oid in self._parts]
        self._look(list(hit), state)
        return bool(hit)


class WatchedObjects:
    """The objects of one watch."""

    def __init__(self, objects: tuple[Any, ...], opened: OpenPrefix) -> None:
        self._opened = opened
        with operation:
            self.state = opened.state(finalized=True)
            self._watched = [_Watched(obj, opened, self.state) for obj in objects]

    @property
    def ended(self) -> bool:
        """Whether nothing is left to change."""
        return not self._watched

    def take_in(self) -> list[Any]:
        """What changed since the last call."""
        opened = self._opened
        with operation:
            head = opened.state(finalized=True)
            newest: dict[int, int] = {}
            for state in range(self.state + 1, head + 1):
                oids = opened.prefix.changes(state)
                for place, one in enumerate(self._watched):
                    if one.changed_by(oids, state):
                        newest[place] = state
            self.state = max(self.state, head)
            changes = [Change(self._watched[place].object, state) for place, state in newest.items()]
            self._watched = [one for one in self._watched if opened.prefix.read(one.object._p_oid, head) is not None]
        return changes

    def close(self) -> None:
        """Nothing to let go of."""


class Watch:
    """What :func:`watch` returns: an iterator of :class:`Change` or :class:`QueryChange`, for ``for`` and ``async for``."""

    def __init__(self, opened: OpenPrefix, watched: WatchedObjects | WatchedQuery, timeout: float | None) -> None:
        self._opened = opened
        self._watched = watched
        self._timeout = timeout
        self._ready: deque[Any] = deque()
        self._stopped = False

    def close(self) -> None:
        """End the iteration, from whichever thread."""
        self._stopped = True
        self._watched.close()

    def _look(self) -> bool:
        """Take in what was committed since the last look. True when something is ready, or the end is reached."""
        try:
            return self._take_in()
        except ClosedError:  # closed by another thread since `_take_in` asked for it
            self._stopped = True
            return True

    def _take_in(self) -> bool:
        opened, view = self._opened, self._opened.view
        if self._ready or self._stopped or view.closed or self._watched.ended:
            if not self._ready:
                self._watched.close()
            return True
        if not opened.writable:
            refresh_view(view, opened.prefix)
        self._ready.extend(self._watched.take_in())
        return bool(self._ready)

    def _sleep(self, seconds: float) -> None:
        with suppress(ClosedError):  # the next look finds it, and ends
            self._opened.prefix.wait(self._watched.state, seconds)

    def _left(self, end: float | None) -> float:
        return _SLICE if end is None else min(_SLICE, end - time.monotonic())

    def __iter__(self) -> Watch:
        return self

    def __next__(self) -> Any:
        end = None if self._timeout is None else time.monotonic() + self._timeout
        while not self._look():
            left = self._left(end)
            if left <= 0:
                raise StopIteration
            self._sleep(left)
        if not self._ready:
            raise StopIteration
        return self._ready.popleft()

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Any:
        import asyncio  # whoever awaits has imported it

        end = None if self._timeout is None else time.monotonic() + self._timeout
        while not self._look():
            left = self._left(end)
            if left <= 0:
                raise StopAsyncIteration
            await asyncio.get_running_loop().run_in_executor(None, self._sleep, left)
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()


def watch(*objects: Any, timeout: float | None = None) -> Watch:
    """Iterate over changes of objects, or of a query's results, as they are committed, here or by another process. Each step
    sleeps until there is one.

    Objects: several commits that change an object between two steps give one change. When an object is deleted that is its
    last change; the iteration ends when nothing is left to watch, or the prefix is closed. What an attribute refers to is an
    object of its own: watch it too.

    A query: what comes into its results, leaves them, or stays and is changed, from the moment of this call on. A step takes
    in all commits since the last one and says what came of them: what came and went again is not told. To know the
    results at first, too, call this, then go through the query. A query of classes, tags and objects costs what was
    changed; one with a range of an index, a filter, a slice or a match is asked as a whole after each commit. A watched
    query holds the last state that it took in, as a snapshot does.

    Args:
        objects: memo objects and collections of one open prefix; or one query of live objects.
        timeout: seconds without a change after which the iteration ends, None: never.

    Returns:
        An iterator, for ``for`` and ``async for``. Of tuples (object, state): the live object, which shows its newest state,
        and the number of the state in which it changed; for a query of :class:`QueryChange`. Its ``close()`` ends it.

    Raises:
        TypeError: not stored objects, or something beside a query. PrefixError: of several prefixes. ReferenceError,
        ClosedError: deleted, or not open.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p", autocommit=False)
    >>> numbers = db0.list([1])
    >>> db0.commit()
    >>> changes = db0.watch(numbers, timeout=1)
    >>> numbers.append(2)
    >>> db0.commit()
    >>> next(changes)
    Change(object=[1, 2], state=3)
    >>> db0.close()
    """
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float))):
        raise TypeError(f"timeout must be a number of seconds, not {type(timeout).__name__}")
    if not objects:
        raise TypeError("watch needs an object or a query to watch")
    if any(isinstance(obj, Query) for obj in objects):
        return _watch_query(objects, timeout)
    for obj in objects:
        if not isinstance(obj, Persistent) or not obj._p_oid or obj._p_view is None:
            raise TypeError(
                f"watch takes memo objects and collections that are stored, or a query, not {type(obj).__name__}"
            )
        if obj._p_flags & base.EXPIRED:
            raise ReferenceError("watch: the object was deleted before")
    view = objects[0]._p_view
    if any(obj._p_view is not view for obj in objects):
        raise PrefixError("the objects of one watch are of one prefix; use a watch for each")
    opened = _opened(view, "the object")
    return Watch(opened, WatchedObjects(objects, opened), timeout)


def _watch_query(objects: tuple[Any, ...], timeout: float | None) -> Watch:
    if len(objects) > 1:
        raise TypeError("watch takes one query and nothing beside it; use a watch for each")
    if objects[0]._p_shards is not None:
        raise PrefixError("watch: the query is of several shards; watch it in each of them: find(..., prefix=<shard>)")
    view = objects[0]._p_view()
    if view is None:
        raise PrefixError("watch: the prefix of the query does not exist yet; open it first")
    opened = _opened(view, "the query")
    return Watch(opened, WatchedQuery(objects[0], opened), timeout)


def _opened(view: View, what: str) -> OpenPrefix:
    for opened in active().open_prefixes.values():
        if opened.view is view:
            return opened
    raise ClosedError(f"watch: {what} is one of a snapshot, or its prefix was closed")
