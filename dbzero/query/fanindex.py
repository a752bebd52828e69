"""The managed index of a declared field of a sharded class: one in each shard, asked together."""

from __future__ import annotations

from collections.abc import Iterator
from functools import total_ordering
from heapq import merge
from typing import Any

from dbzero.collections.order import place
from dbzero.model import scope
from dbzero.model.codec import encode_values
from dbzero.model.placement import Shards
from dbzero.model.view import View
from dbzero.query.base import Query
from dbzero.query.fanout import Nothing, Sorted, Spanning
from dbzero.query.managed import CriterionOnly, ManagedIndex, ReadOnlyIndex, managed_in
from dbzero.query.splits import objects_of, resplit


@total_ordering
class Descending:
    """A rank that compares the other way round."""

    __slots__ = ("rank",)

    def __init__(self, rank: Any) -> None:
        self.rank = rank

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Descending) and bool(self.rank == other.rank)

    def __lt__(self, other: Descending) -> bool:
        return bool(other.rank < self.rank)

    __hash__ = None  # type: ignore[assignment]


class FannedSelection(CriterionOnly, Spanning):
    """A range of a field in every shard."""

    __slots__ = ("high", "index", "low", "null_first")

    def __init__(self, index: FannedIndex, low: Any, high: Any, null_first: bool) -> None:
        super().__init__(index._p_context, index._p_shards)
        self.index = index
        self.low = low
        self.high = high
        self.null_first = null_first

    def _p_part_in(self, view: View) -> Query:
        return self.index._p_in(view).select(self.low, self.high, self.null_first)

    def _p_within(self, context: scope.Context) -> Query:
        return FannedSelection(self.index._p_within(context), self.low, self.high, self.null_first)

    def _p_shape(self) -> tuple[Any, ...]:
        bounds = encode_values([self.low, self.high])[0]
        return ("select field", self.index._p_cls._p_class.key, self.index._p_field, bounds, self.null_first)  # type: ignore[attr-defined]

    def _p_detail(self) -> str:
        ends = ["" if end is None else repr(end) for end in (self.low, self.high)]
        return f"index of {self.index._p_name}, {'..'.join(ends) if any(ends) else 'all'}"


class FannedIndex(ReadOnlyIndex):
    """What ``index_of`` returns for a sharded class: the managed indexes of its shards as one.

    It answers as :class:`ManagedIndex` does; results of ``sort`` and entries are merged by key.
    """

    __slots__ = ("_p_context", "_p_shards")

    def __init__(self, context: scope.Context, shards: Shards, cls: type, field: str) -> None:
        super().__init__(cls, field)
        self._p_context = context
        self._p_shards = shards

    def _p_in(self, view: View) -> ManagedIndex:
        return managed_in(view, self._p_cls, self._p_field)

    def _p_parts(self) -> list[ManagedIndex]:
        return [self._p_in(view) for view in self._p_shards.views(self._p_context)]

    def _p_within(self, context: scope.Context) -> FannedIndex:
        return FannedIndex(context, self._p_shards, self._p_cls, self._p_field)

    def __len__(self) -> int:
        return sum(map(len, self._p_parts()))

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        rank = self._p_ranking(False, False)
        return merge(*self._p_parts(), key=lambda entry: rank(entry[1]))

    def select(self, low: Any = None, high: Any = None, null_first: bool = False) -> FannedSelection:
        """A criterion of ``find``: the objects with low <= value <= high. See ``select`` of an index."""
        for part in self._p_parts():
            part.select(low, high, null_first)  # what refuses the bounds
        return FannedSelection(self, low, high, null_first)

    def range(self, low: Any = None, high: Any = None, null_first: bool = False) -> FannedSelection:
        """The older name of :meth:`select`."""
        return self.select(low, high, null_first)

    def sort(self, query: Query, /, *, desc: bool = False, null_first: bool = False) -> Query:
        """A query of the results of `query` in order of their values, merged over the shards; equal values in the order of
        `query` within a shard, then in the order of the shards. TypeError: it is no query. Error: it is a selection of a
        managed index alone."""
        if not isinstance(query, Query):
            raise TypeError(f"sort() needs a query, not {type(query).__name__}")
        if isinstance(query, FannedSelection):
            raise query._p_refuse()
        if query._p_splits():
            return resplit(self.sort(objects_of(query), desc=desc, null_first=null_first), query._p_splits())

        def sort(view: View, part: Query) -> Query:
            return self._p_in(view).sort(part, desc=desc, null_first=null_first)

        if query._p_shards is None:
            view = query._p_view()
            return Nothing() if view is None else sort(view, query)
        name = f"index of {self._p_name}{' descending' if desc else ''}"
        return Sorted(self._p_context, self._p_shards, query, sort, self._p_ranking(desc, null_first), name)

    def _p_ranking(self, desc: bool, null_first: bool) -> Any:
        """object -> what it is compared by."""
        field = self._p_field
        null = (-1, 0) if null_first else (1, 0)

        def rank(obj: Any) -> Any:
            value = getattr(obj, field)
            found = null if value is None else (0, place(obj._p_view, value)[1])
            return Descending(found) if desc else found

        return rank

    def flush(self) -> None:
        """Does nothing: what was assigned is there at once."""

    def __repr__(self) -> str:
        return f"<Managed index of {self._p_name} in all shards>"
