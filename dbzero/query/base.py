"""Query: what all lazy selections of objects have in common, and slices of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from operator import index
from typing import TYPE_CHECKING, Any, ClassVar

from pyroaring import BitMap64

from dbzero.errors import Error
from dbzero.model import scope
from dbzero.query import identity

if TYPE_CHECKING:
    from dbzero.model.placement import Shards
    from dbzero.model.view import View

_UNKNOWN = 1 << 40
_KEPT = 1024  # results kept from counting them to going through them

Split = tuple[Sequence[Any], bool]
"""Tags that a query's results are split by, and whether each object comes once."""


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

    _p_pure: ClassVar[bool] = False
    """Whether evaluating it runs no code of the user's, so that it may be done under the operation lock."""
    _p_distinct: ClassVar[bool] = False
    """Whether no object comes twice."""
    _p_counted: ClassVar[bool] = False
    """Whether its length costs no iteration. ``list`` asks for the length of what it is made of."""
    _p_drives: ClassVar[bool] = True
    """Whether ``find`` may be asked by it alone."""
    _p_ordered: ClassVar[bool] = False
    """Whether it has an order that was asked for."""

    @abstractmethod
    def __iter__(self) -> Iterator[Any]:
        """A new iterator over the results."""

    def _p_view(self) -> View | None:
        """The view that the results belong to; None: there is none. ClosedError when it is closed."""
        return None

    def _p_oids(self, uuid: int) -> BitMap64:
        """The OIDs of the results that belong to the prefix with that uuid; the caller may change them."""
        objects = (row[0] for row in self) if self._p_splits() else self
        return BitMap64([obj._p_oid for obj in objects if obj._p_view.uuid == uuid])

    def _p_splits(self) -> list[Split]:
        """What the results are split by, the last split first. If anything, each result is a tuple: the object and a
        tag for each of these."""
        return []

    @property
    def _p_shards(self) -> Shards | None:
        """The shards that the results are spread over; None: the query is of one prefix, or none."""
        return None

    def _p_source(self) -> Query:
        """The query that this one asks."""
        raise Error(f"this query has no source: {self!r}")

    def _p_on(self, view: View) -> Query | None:
        """The part of it in one prefix; None: there is none."""
        own = self._p_view()
        return self if own is not None and own.uuid == view.uuid else None

    def _p_parts(self) -> list[Query] | None:
        """Its parts in all shards, if it has shards and its results are those of the parts."""
        return None

    def _p_ranked(self) -> Iterator[tuple[float, Any]] | None:
        """(score, result), the best first; None: it has no scores."""
        return None

    def _p_within(self, context: scope.Context) -> Query:
        """The same query in another context: live, or a snapshot. Error when that cannot be."""
        raise Error(f"this query cannot be asked of another state: {self!r}")

    def _p_alone(self, view: View) -> bool:
        """Whether what it finds depends on the state of that view alone."""
        return False

    def _p_committed(self) -> Query:
        """The same query over what is committed; one of a snapshot is that already."""
        if self._p_shards is not None:
            settled = self._p_source()._p_committed()
            return self if settled is self._p_source() else self._p_with(settled)
        view = self._p_view()
        return self if view is None or view.context is not scope.live else self._p_within(scope.committed().snapshot())

    def _p_with(self, source: Query) -> Query:
        """The same of another source."""
        raise Error(f"this query has no source: {self!r}")

    def _p_estimate(self) -> int:
        """About how many results there are. Cheap, and rather too many than too few."""
        return _UNKNOWN

    def _p_form(self) -> tuple[Any, ...]:
        """The query as plain data, from which it can be made again. Error when it has no such form."""
        raise Error(f"a query of this kind cannot be serialized: {self!r}")

    def _p_shape(self) -> tuple[Any, ...]:
        """Its form without what a signature leaves out: slices, sorts, splits and filters."""
        return self._p_form()

    def _p_detail(self) -> str:
        """What the query is, in a few words."""
        return type(self).__name__.lower()

    def first(self, default: Any = None) -> Any:
        """The first result, or `default` when there is none."""
        return next(iter(self), default)

    def exists(self) -> bool:
        """Whether there is any result."""
        return bool(self)

    def count(self) -> int:
        """How many results there are. The same as ``len``."""
        return len(self)

    def signature(self) -> str:
        """A short str, the same for queries of the same criteria: the order of their terms, slices, sorts and filters
        don't count.

        >>> import dbzero as db0, tempfile
        >>> db0.init(tempfile.mkdtemp(), prefix="p")
        >>> db0.find("a", "b").signature() == db0.find("b", "a")[:3].signature() != db0.find("a").signature()
        True
        >>> db0.close()
        """
        return identity.signature(self._p_shape())

    def compare(self, other: Query) -> float:
        """How unlike another query's criteria are: from 0.0, the same, to 1.0, nothing in common.

        Raises TypeError when `other` is no query.

        >>> import dbzero as db0, tempfile
        >>> db0.init(tempfile.mkdtemp(), prefix="p")
        >>> db0.find("a").compare(db0.find("a")), db0.find("a").compare(db0.find(["a", "b"]))
        (0.0, 0.5)
        >>> db0.close()
        """
        if not isinstance(other, Query):
            raise TypeError(f"compare() argument 'other' must be a query, not {type(other).__name__}")
        return 0.0 if self is other else identity.distance(self._p_shape(), other._p_shape())

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

    def _p_part(self, start: int, stop: int | None, step: int) -> Iterator[Any]:
        """The results at the positions of a slice whose step is positive."""
        if start >= 0 and (stop is None or stop >= 0):
            return islice(self, start, stop, step)
        if start >= 0:
            assert stop is not None
            return islice(_without_last(islice(self, start, None), -stop), None, None, step)
        return self._from_end(start, stop, step)

    def _from_end(self, start: int, stop: int | None, step: int) -> Iterator[Any]:
        total = 0
        last: deque[Any] = deque(maxlen=-start)
        for item in self:
            last.append(item)
            total += 1
        start, stop, step = slice(start, stop, step).indices(total)
        skipped = total - len(last)
        yield from islice(last, start - skipped, max(stop - skipped, start - skipped), step)

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


def identity_of(query: Query) -> str:
    """The identity of the exact query, slices and sorts included: 52 characters A-Z, 2-7. Error when it has no form."""
    view = query._p_view()
    return identity.uuid_of(0 if view is None else view.uuid, query._p_form())


def require_query(function: str, argument: str, value: object) -> None:
    """Raise Error when an argument that has to be a query is none."""
    if not isinstance(value, Query):
        given = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise Error(f"{function}() argument {argument!r} must be a query, as find() or an index gives, not {given}")


def _place(key: Any) -> int:
    try:
        return index(key)
    except TypeError:
        raise TypeError(f"query indices must be integers, slices or tuples, not {type(key).__name__}") from None


class Slice(Query):
    """Some of a query's results, by position. Negative ends count from the end, as of the iteration."""

    __slots__ = ("_counted", "_source", "_start", "_step", "_stop")

    def __init__(self, source: Query, start: int, stop: int | None, step: int) -> None:
        self._counted: tuple[object, list[Any]] | None = None
        self._source = source
        self._start = start
        self._stop = stop
        self._step = step

    def __iter__(self) -> Iterator[Any]:
        if self._walked():
            return self._results()
        return self._source._p_part(self._start, self._stop, self._step)

    def _walked(self) -> bool:
        """Whether its results have to be gone through to count them."""
        return not self._source._p_counted and self._start >= 0 and self._stop is not None and self._stop >= 0

    def _results(self) -> Iterator[Any]:
        """``list`` makes its iterator, asks for the length, and takes the first step. Nothing has changed in between: what was gone through to
        count it is what there is."""
        counted, self._counted = self._counted, None
        view = None if counted is None else self._p_view()
        if counted is not None and view is not None and counted[0] == view.settled():
            yield from counted[1]
        else:
            yield from self._source._p_part(self._start, self._stop, self._step)

    def __len__(self) -> int:
        if self._walked():
            return self._count()
        return len(range(*slice(self._start, self._stop, self._step).indices(len(self._source))))

    def _count(self) -> int:
        view = self._p_view()
        before = view.settled() if view is not None and self._p_pure else None
        found = list(self._source._p_part(self._start, self._stop, self._step))
        if before is not None and view is not None and len(found) <= _KEPT and view.settled() == before:
            self._counted = before, found
        return len(found)

    def __bool__(self) -> bool:
        return next((True for _ in self), False)

    def _p_view(self) -> View | None:
        return self._source._p_view()

    @property
    def _p_pure(self) -> bool:  # type: ignore[override]
        return self._source._p_pure

    @property
    def _p_distinct(self) -> bool:  # type: ignore[override]
        return self._source._p_distinct

    @property
    def _p_counted(self) -> bool:  # type: ignore[override]
        return self._source._p_counted

    @property
    def _p_ordered(self) -> bool:  # type: ignore[override]
        return self._source._p_ordered

    def _p_splits(self) -> list[Split]:
        return self._source._p_splits()

    @property
    def _p_shards(self) -> Shards | None:
        return self._source._p_shards

    def _p_source(self) -> Query:
        return self._source

    def _p_with(self, source: Query) -> Query:
        return Slice(source, self._start, self._stop, self._step)

    def _p_on(self, view: View) -> Query | None:
        return super()._p_on(view) if self._p_shards is None else Within(self, view)

    def _p_alone(self, view: View) -> bool:
        return self._source._p_alone(view)

    def _p_within(self, context: scope.Context) -> Query:
        return self._p_with(self._source._p_within(context))

    def _p_shape(self) -> tuple[Any, ...]:
        return self._source._p_shape()

    def _p_estimate(self) -> int:
        n = self._source._p_estimate()
        return len(range(*slice(self._start, self._stop, self._step).indices(n)))

    def _p_form(self) -> tuple[Any, ...]:
        return ("slice", self._start, self._stop, self._step, self._source._p_form())

    def _p_detail(self) -> str:
        stop = "" if self._stop is None else self._stop
        return f"{self._source._p_detail()}[{self._start}:{stop}:{self._step}]"

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


class Wrapping(Query):
    """A query that does something to the results of another one, shard by shard where that has shards."""

    __slots__ = ("source",)

    def __init__(self, source: Query) -> None:
        self.source = source

    def _p_view(self) -> View | None:
        return self.source._p_view()

    @property
    def _p_ordered(self) -> bool:  # type: ignore[override]
        return self.source._p_ordered

    @property
    def _p_shards(self) -> Shards | None:
        return self.source._p_shards

    def _p_source(self) -> Query:
        return self.source

    def _p_parts(self) -> list[Query] | None:
        parts = self.source._p_parts()
        return None if parts is None else [self._p_with(part) for part in parts]

    def _p_on(self, view: View) -> Query | None:
        part = self.source._p_on(view)
        return None if part is None else self._p_with(part)

    def _p_within(self, context: scope.Context) -> Query:
        return self._p_with(self.source._p_within(context))

    def _p_estimate(self) -> int:
        return self.source._p_estimate()

    def _p_shape(self) -> tuple[Any, ...]:
        return self.source._p_shape()


class Within(Query):
    """Those results of a query of several shards that are in one of them."""

    __slots__ = ("_source", "_view")

    def __init__(self, source: Query, view: View) -> None:
        self._source = source
        self._view = view

    def __iter__(self) -> Iterator[Any]:
        uuid = self._view.uuid
        if self._source._p_splits():
            return (row for row in self._source if row[0]._p_view.uuid == uuid)
        return (obj for obj in self._source if obj._p_view.uuid == uuid)

    def _p_view(self) -> View | None:
        return self._view

    @property
    def _p_distinct(self) -> bool:  # type: ignore[override]
        return self._source._p_distinct

    @property
    def _p_ordered(self) -> bool:  # type: ignore[override]
        return self._source._p_ordered

    def _p_splits(self) -> list[Split]:
        return self._source._p_splits()

    def _p_within(self, context: scope.Context) -> Query:
        there = context.view_of_uuid(self._view.uuid)
        if there is None:
            raise Error(f"prefix {self._view.name!r} is not in that context")
        return Within(self._source._p_within(context), there)

    def _p_shape(self) -> tuple[Any, ...]:
        return self._source._p_shape()

    def _p_detail(self) -> str:
        return f"{self._source._p_detail()} in {self._view.name!r}"
