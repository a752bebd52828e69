"""The queries that an index answers with: a range of keys, and the results of another query in order of key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dbzero.errors import ReferenceError
from dbzero.model.base import Persistent
from dbzero.model.scope import Context
from dbzero.query.base import Query

if TYPE_CHECKING:
    from dbzero.collections.index import Index
    from dbzero.model.view import View


def index_within(index: Index, context: Context) -> Index:
    """The same index in another context. ReferenceError when it does not exist there."""
    view = index._p_view
    if view.context is context:
        return index
    there = context.view_of_uuid(view.uuid)
    found = None if there is None else there.get(index._p_oid)
    if type(found) is not type(index):
        raise ReferenceError(
            f"the index that a query uses, object {index._p_oid} of prefix {view.name!r}, does not exist in that state"
        )
    same: Index = found
    return same


class Selection(Query):
    """The objects of an index with keys between two bounds, in order of key."""

    __slots__ = ("high", "index", "low", "null_first")

    def __init__(self, index: Index, low: Any, high: Any, null_first: bool) -> None:
        self.index = index
        self.low = low
        self.high = high
        self.null_first = null_first

    def __iter__(self) -> Iterator[Any]:
        for _, _, objects in self.index._p_batches(self.low, self.high, self.null_first):
            yield from objects

    def _p_view(self) -> View | None:
        self.index._p_activate()
        view: View = self.index._p_view
        return view

    def _p_form(self) -> tuple[Any, ...]:
        index = self.index
        return ("select", index._p_view.uuid, index._p_oid, self.low, self.high, self.null_first)

    def _p_within(self, context: Context) -> Query:
        index = index_within(self.index, context)
        return Selection(index, self.low, self.high, self.null_first)

    def __len__(self) -> int:
        if self.low is None and self.high is None:
            return len(self.index)
        return sum(len(items) for items, _, _ in self.index._p_batches(self.low, self.high, self.null_first))


class Sorting(Query):
    """The results of a query in order of their keys in an index.

    A selection of the same index is in order already, so the first results come without looking at the others. For
    any other query its results are kept while the index is walked once. An object that comes several times, and stands
    under several keys, comes at one key after the other.
    """

    __slots__ = ("desc", "index", "null_first", "source")
    _p_ordered = True

    def __init__(self, index: Index, source: Query, desc: bool, null_first: bool) -> None:
        self.index = index
        self.source = source
        self.desc = desc
        self.null_first = null_first

    def __iter__(self) -> Iterator[Any]:
        source = self.source
        if type(source) is not Selection or source.index is not self.index:
            yield from self._foreign()
            return
        batches = self.index._p_batches(source.low, source.high, source.null_first, self.null_first)
        if not self.desc:
            for _, _, objects in batches:
                yield from objects
            return
        found = [objects for _, _, objects in batches]
        while found:
            yield from reversed(found.pop())

    def _p_view(self) -> View | None:
        self.index._p_activate()
        view: View = self.index._p_view
        return view

    def _p_form(self) -> tuple[Any, ...]:
        index = self.index
        return ("sort", index._p_view.uuid, index._p_oid, self.desc, self.null_first, self.source._p_form())

    def _p_shape(self) -> tuple[Any, ...]:
        return self.source._p_shape()

    def _p_within(self, context: Context) -> Query:
        index = index_within(self.index, context)
        return Sorting(index, self.source._p_within(context), self.desc, self.null_first)

    def __len__(self) -> int:
        source = self.source
        if type(source) is Selection and source.index is self.index:
            return len(source)
        return super().__len__()

    def _foreign(self) -> list[Any]:
        view = self.index._p_view
        results = [obj for obj in self.source if isinstance(obj, Persistent) and obj._p_view is view]
        places: dict[int, list[int]] = {obj._p_oid: [] for obj in results}
        place = 0
        last: Any = None
        for items, keys, _ in self.index._p_batches(None, None, self.null_first):
            null = keys[0] is None
            for rank, oid in items:
                found = places.get(oid)
                if found is not None:
                    # entries of one key have one place
                    current = (null, rank)
                    if current != last:
                        place += 1
                        last = current
                    found.append(place)
        taken: dict[int, int] = {}
        ordered: list[tuple[int, Any]] = []
        for obj in results:
            oid = obj._p_oid
            found = places[oid]
            if found:
                turn = taken.get(oid, 0)
                taken[oid] = turn + 1
                ordered.append((found[min(turn, len(found) - 1)], obj))
        ordered.sort(key=lambda entry: entry[0], reverse=self.desc)
        return [obj for _, obj in ordered]
