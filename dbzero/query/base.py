"""Query: what all lazy selections of objects have in common, and slices of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from itertools import islice
from operator import index
from typing import Any

from dbzero.errors import Error


class Query(ABC):
    """A lazy selection of objects: made by ``select``, ``range`` and ``sort`` of an index.

    It holds no results. Each iteration evaluates it anew and shows what is stored at its first step; ``len``, ``bool``
    and ``in`` evaluate it, too. ``query[a:b:c]`` is a query again, ``query[i]`` an object, ``query[i, j]`` a tuple of
    objects. Queries are equal only to themselves.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Thing:
    ...     pass
    >>> index, thing = db0.index(), Thing()
    >>> index.add(5, thing)
    >>> query = index.select(1, 9)
    >>> isinstance(query, db0.QueryObject), len(query), query[0] is thing
    (True, 1, True)
    >>> db0.close()
    """

    __slots__ = ("__weakref__",)

    @abstractmethod
    def __iter__(self) -> Iterator[Any]:
        """A new iterator over the results."""

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return next((True for _ in self), False)

    def __contains__(self, obj: object) -> bool:
        return any(item is obj or item == obj for item in self)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return self._slice(key)
        if isinstance(key, tuple):
            return self._pick([_place(place) for place in key])
        return self._pick([_place(key)])[0]

    def _slice(self, key: slice) -> Query:
        """The results at the positions of a slice. Error when its step is not positive."""
        start = None if key.start is None else index(key.start)
        stop = None if key.stop is None else index(key.stop)
        step = 1 if key.step is None else index(key.step)
        if step <= 0:
            raise Error(f"Cannot slice a query with step {step}: steps must be positive")
        if not start and stop is None and step == 1:
            return self
        return Slice(self, start or 0, stop, step)

    def _pick(self, places: list[int]) -> tuple[Any, ...]:
        """The results at `places`. IndexError when one is out of range."""
        if not places:
            return ()
        if min(places) < 0:
            found = dict(enumerate(self))
            places = [place + len(found) if place < 0 else place for place in places]
        else:
            wanted = set(places)
            found = {i: item for i, item in enumerate(islice(self, max(places) + 1)) if i in wanted}
        try:
            return tuple([found[place] for place in places])
        except KeyError:
            raise IndexError("query index out of range") from None


def _place(key: Any) -> int:
    try:
        return index(key)
    except TypeError:
        raise TypeError(f"query indices must be integers, slices or tuples, not {type(key).__name__}") from None


class Slice(Query):
    """Some of a query's results, by position. Negative ends count from the end, as of the iteration."""

    __slots__ = ("_source", "_start", "_step", "_stop")

    def __init__(self, source: Query, start: int, stop: int | None, step: int) -> None:
        self._source = source
        self._start = start
        self._stop = stop
        self._step = step

    def __iter__(self) -> Iterator[Any]:
        start, stop = self._start, self._stop
        if start >= 0 and (stop is None or stop >= 0):
            return islice(self._source, start, stop, self._step)
        if start >= 0:
            assert stop is not None
            return islice(_without_last(islice(self._source, start, None), -stop), None, None, self._step)
        return self._from_end()

    def _from_end(self) -> Iterator[Any]:
        total = 0
        last: deque[Any] = deque(maxlen=-self._start)
        for item in self._source:
            last.append(item)
            total += 1
        start, stop, step = slice(self._start, self._stop, self._step).indices(total)
        skipped = total - len(last)
        yield from islice(last, start - skipped, max(stop - skipped, start - skipped), step)

    def _slice(self, key: slice) -> Query:
        made = super()._slice(key)
        if made is not self:
            raise Error("Cannot slice a query that is a slice already: slice its source")
        return made


def _without_last(items: Iterator[Any], n: int) -> Iterator[Any]:
    """`items` without the last `n`."""
    ahead: deque[Any] = deque(islice(items, n))
    for item in items:
        ahead.append(item)
        yield ahead.popleft()
