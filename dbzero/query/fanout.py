"""Fanning out: queries of a sharded class, asked of each of its shards and put together.

A fanned query has a *part* in each shard, an ordinary query of that prefix (:meth:`Query._p_on`). What wraps a query has
parts where its source has. Nothing is kept: each evaluation asks which shards there are.

Order: where results were sorted, they are merged by their keys, equal ones in the order of the shards' numbers; otherwise
all of shard 0 come first, then those of shard 1, and so on, each in its own order. Merging is lazy: each
shard gives what was taken of it and one more, and reads its index leaf by leaf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from heapq import merge
from itertools import chain
from typing import Any

from pyroaring import BitMap64

from dbzero.errors import Error
from dbzero.model import scope
from dbzero.model.memo import MemoObject
from dbzero.model.placement import Shards
from dbzero.model.view import View
from dbzero.query.base import Query
from dbzero.query.expressions import Expression, Step

SortKey = Callable[[Any], Any]


class Spanning(Query):
    """A query of several shards, put together from one part in each."""

    __slots__ = ("_context", "_p_shards")
    _p_shards: Shards

    def __init__(self, context: scope.Context, shards: Shards) -> None:
        self._context = context
        self._p_shards = shards

    def _p_part_in(self, view: View) -> Query:
        """The part in a shard, which is a view of this query's context."""
        raise NotImplementedError

    def _p_parts(self) -> list[Query]:
        return [self._p_part_in(view) for view in self._p_shards.views(self._context)]

    def _p_on(self, view: View) -> Query | None:
        context = self._context
        if view.context is not context:
            there = {known.uuid: known for known in self._p_shards.views(context)}.get(view.uuid)
            return None if there is None else self._p_part_in(there)
        return self._p_part_in(view)

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self._p_parts())

    def __len__(self) -> int:
        return sum(map(len, self._p_parts()))

    def __bool__(self) -> bool:
        return any(self._p_parts())

    def __contains__(self, obj: object) -> bool:
        return any(obj in part for part in self._p_parts())

    def _p_oids(self, uuid: int) -> BitMap64:
        found = BitMap64()
        for view in self._p_shards.views(self._context):
            if view.uuid == uuid:
                found |= self._p_part_in(view)._p_oids(uuid)
        return found

    def _p_committed(self) -> Query:
        return self if self._context is not scope.live else self._p_within(scope.committed().snapshot())

    def _p_estimate(self) -> int:
        return sum(part._p_estimate() for part in self._p_parts())

    def _p_form(self) -> tuple[Any, ...]:
        raise Error(
            f"a query of all shards of {self._p_shards.family.title} cannot be serialized: ask one shard, by prefix="
        )


class Fanned(Spanning):
    """What ``find`` with a sharded class returns: the results of the same ``find`` in every shard."""

    __slots__ = ("_detail", "_make", "_order", "_shape")
    _p_distinct = True
    _p_counted = True

    def __init__(
        self,
        context: scope.Context,
        shards: Shards,
        make: Callable[[View], Query],
        expression: Expression,
        order: Query | None,
    ) -> None:
        """
        Args:
            make: the part in a view. expression: what is asked, as it is told. order: the one sorted query among its
                criteria, if there is one.
        """
        super().__init__(context, shards)
        self._make = make
        self._order = order
        self._shape = expression.form(exact=False)
        self._detail = f"{expression.operation} {expression.detail()}".rstrip()

    def _p_part_in(self, view: View) -> Query:
        return self._make(view)

    def __iter__(self) -> Iterator[Any]:
        parts = self._p_parts()
        key = sort_key_of(self)
        if key is not None:
            return merge(*parts, key=key)
        ranked = [part._p_ranked() for part in parts]
        if any(one is not None for one in ranked):
            best = merge(*[one for one in ranked if one is not None], key=lambda entry: -entry[0])
            return (obj for _, obj in best)
        return chain.from_iterable(parts)

    def __contains__(self, obj: object) -> bool:
        if isinstance(obj, MemoObject) and type(obj).__eq__ is MemoObject.__eq__:
            view = obj._p_view
            return any(obj in self._make(one) for one in self._p_shards.views(self._context) if one is view)
        return super().__contains__(obj)

    @property
    def _p_ordered(self) -> bool:  # type: ignore[override]
        return self._order is not None or any(part._p_ordered for part in self._p_parts())

    def _p_within(self, context: scope.Context) -> Query:
        made = Fanned.__new__(Fanned)
        Spanning.__init__(made, context, self._p_shards)
        made._make, made._order, made._shape, made._detail = self._make, self._order, self._shape, self._detail
        return made

    def _pick(self, places: list[int]) -> tuple[Any, ...]:
        parts = self._p_parts()
        if self._p_ordered:
            return super()._pick(places)
        sizes = list(map(len, parts))
        total = sum(sizes)
        found = []
        for place in places:
            at = place + total if place < 0 else place
            if not 0 <= at < total:
                raise IndexError("query index out of range")
            for part, size in zip(parts, sizes, strict=True):
                if at < size:
                    found.append(part[at])
                    break
                at -= size
        return tuple(found)

    def explain(self) -> Step:
        """The plan: that of every shard, below one step that fans out. ``str`` of it is a readable tree."""
        views = self._p_shards.views(self._context)
        steps = [self._make(view).explain() for view in views]  # type: ignore[attr-defined]
        how = "in the order of the shards" if not self._p_ordered else "merged in order"
        return Step(
            "fan out",
            f"over {len(views)} shards of {self._p_shards.family.name}, {how}",
            sum(step.estimated for step in steps),
            sum(step.actual or 0 for step in steps),
            steps,
        )

    def _p_shape(self) -> tuple[Any, ...]:
        return self._shape

    def _p_detail(self) -> str:
        return f"find {self._detail} in all shards"

    def __repr__(self) -> str:
        return f"<query: {self._p_detail()}>"


class Sorted(Spanning):
    """Results of a query of several shards in order of a declared field."""

    __slots__ = ("_name", "_nested", "_rank", "_sort", "_source")
    _p_ordered = True

    def __init__(
        self,
        context: scope.Context,
        shards: Shards,
        source: Query,
        sort: Callable[[View, Query], Query],
        rank: SortKey,
        name: str,
    ) -> None:
        """
        Args:
            sort: (view, part of the source there) -> that part in order. rank: object -> what it is ordered by.
        """
        super().__init__(context, shards)
        self._source = source
        self._sort = sort
        self._rank = rank
        self._name = name

    @property
    def _p_distinct(self) -> bool:  # type: ignore[override]
        return self._source._p_distinct

    def _p_part_in(self, view: View) -> Query:
        source = self._source._p_on(view)
        return Nothing() if source is None else self._sort(view, source)

    def key(self) -> SortKey:
        """What objects are compared by: their ranks, and where these are equal, what the source is sorted by."""
        inner = sort_key_of(self._source)
        rank = self._rank
        return rank if inner is None else lambda obj: (rank(obj), inner(obj))

    def __iter__(self) -> Iterator[Any]:
        return merge(*self._p_parts(), key=self.key())

    def _p_within(self, context: scope.Context) -> Query:
        source = self._source._p_within(context)
        return Sorted(context, self._p_shards, source, self._sort, self._rank, self._name)

    def _p_shape(self) -> tuple[Any, ...]:
        return self._source._p_shape()

    def _p_detail(self) -> str:
        return f"{self._name} of {self._source._p_detail()}"


def sort_key_of(query: Query) -> SortKey | None:
    """What the results of a query of several shards are merged by; None: they are not."""
    while query._p_shards is not None:
        if isinstance(query, Sorted):
            return query.key()
        if isinstance(query, Fanned):
            return None if query._order is None else sort_key_of(query._order)
        if isinstance(query, Spanning):
            return None
        query = query._p_source()  # filters, splits and slices keep the order
    return None


class Nothing(Query):
    """No results."""

    __slots__ = ()
    _p_distinct = True
    _p_counted = True

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def _p_on(self, view: View) -> Query | None:
        return None


class Chained(Query):
    """The results of several queries, one behind the other."""

    __slots__ = ("_detail", "_queries")

    def __init__(self, queries: Callable[[], Sequence[Query]], detail: str) -> None:
        self._queries = queries
        self._detail = detail

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self._queries())

    def __len__(self) -> int:
        return sum(map(len, self._queries()))

    def __bool__(self) -> bool:
        return any(self._queries())

    def _p_detail(self) -> str:
        return self._detail


def parts_of(query: Query, context: scope.Context) -> list[Query]:
    """A query's parts in the shards of a context; itself where it is of one prefix."""
    shards = query._p_shards
    if shards is None:
        return [query]
    parts = [query._p_on(view) for view in shards.views(context)]
    return [part for part in parts if part is not None]
