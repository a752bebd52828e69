"""The queries that an index answers with: a range of keys, and the results of another query in order of key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pyroaring import BitMap64

from dbzero.collections.nodes import relieve
from dbzero.model.base import Persistent, operation
from dbzero.model.codec import encode_values
from dbzero.model.scope import Context
from dbzero.query.base import Query

if TYPE_CHECKING:
    from dbzero.collections.index import Index
    from dbzero.model.view import View


def _view_of(index: Index) -> View:
    index._p_activate()
    view: View = index._p_view
    return view


class Selection(Query):
    """The objects of an index with keys between two bounds, in order of key."""

    __slots__ = ("_found", "high", "index", "low", "null_first")
    _p_pure = True
    _found: tuple[object, BitMap64]  # token of the index, what was found then

    def __init__(self, index: Index, low: Any, high: Any, null_first: bool) -> None:
        self.index = index
        self.low = low
        self.high = high
        self.null_first = null_first

    def __iter__(self) -> Iterator[Any]:
        relieve(self.index)
        few = self.index._p_few(self.low, self.high, self.null_first)
        if few is not None:
            yield from self.index._p_objects(few)
            return
        for _, _, objects in self.index._p_batches(self.low, self.high, self.null_first, bare=True):
            yield from self.index._p_objects(objects)

    def __len__(self) -> int:
        if self.low is None and self.high is None:
            return len(self.index)
        return self.index._p_count(self.low, self.high, self.null_first)

    def __bool__(self) -> bool:
        return next((True for _ in self), False)

    def _p_view(self) -> View | None:
        return _view_of(self.index)

    def _p_oids(self, uuid: int) -> BitMap64:
        if _view_of(self.index).uuid != uuid:
            return BitMap64()
        with operation:
            token = self.index._p_token()
            known = getattr(self, "_found", None)
            if known is None or known[0] is not token:
                known = token, self.index._p_oids(self.low, self.high, self.null_first)
                self._found = known
            return known[1].copy()

    def _p_alone(self, view: View) -> bool:
        return _view_of(self.index) is view

    def _p_estimate(self) -> int:
        with operation:
            return self.index._p_estimate(self.low, self.high, self.null_first)

    def _p_form(self) -> tuple[Any, ...]:
        bounds = encode_values([self.low, self.high])[0]
        return ("select", _view_of(self.index).uuid, self.index._p_oid, bounds, self.null_first)

    def _p_within(self, context: Context) -> Query:
        return type(self)(self.index._p_within(context), self.low, self.high, self.null_first)

    def _p_detail(self) -> str:
        if self.low is None and self.high is None:
            return "index, all"
        return f"index, {'' if self.low is None else repr(self.low)}..{'' if self.high is None else repr(self.high)}"


class Sorting(Query):
    """The results of a query in order of their keys in an index.

    The index is walked once, leaf by leaf, and what isn't among the results is passed by: the first results come
    without looking at the other entries. An object that stands under several keys comes at the first of them that the
    walk meets. Where an object may come several times among the results, it comes at one key after the other; then all
    results are kept while the index is walked, but for a selection of the same index, which is in order already.
    """

    __slots__ = ("desc", "index", "null_first", "source")
    _p_ordered = True

    def __init__(self, index: Index, source: Query, desc: bool, null_first: bool) -> None:
        self.index = index
        self.source = source
        self.desc = desc
        self.null_first = null_first

    def _own(self) -> bool:
        """Whether the source is a selection of the same index."""
        return type(self.source) is Selection and self.source.index is self.index

    def __iter__(self) -> Iterator[Any]:
        source = self.source
        if type(source) is Selection and source.index is self.index:
            return self._part(source)
        return self._walk() if source._p_distinct else self._foreign()

    def __len__(self) -> int:
        if self._own():
            return len(self.source)
        return len(self._p_oids(_view_of(self.index).uuid)) if self.source._p_distinct else super().__len__()

    def __bool__(self) -> bool:
        return next((True for _ in self), False)

    def _p_view(self) -> View | None:
        return _view_of(self.index)

    @property
    def _p_pure(self) -> bool:  # type: ignore[override]
        return self.source._p_pure

    @property
    def _p_distinct(self) -> bool:  # type: ignore[override]
        return self.source._p_distinct

    def _p_oids(self, uuid: int) -> BitMap64:
        found = self.source._p_oids(uuid)
        if not found or _view_of(self.index).uuid != uuid:
            return BitMap64()
        if not self._own():
            with operation:
                found &= self.index._p_oids(None, None, False)
        return found

    def _p_estimate(self) -> int:
        return min(len(self.index), self.source._p_estimate())

    def _p_form(self) -> tuple[Any, ...]:
        where = (_view_of(self.index).uuid, self.index._p_oid)
        return ("sort", *where, self.desc, self.null_first, self.source._p_form())

    def _p_shape(self) -> tuple[Any, ...]:
        return self.source._p_shape()

    def _p_within(self, context: Context) -> Query:
        return type(self)(self.index._p_within(context), self.source._p_within(context), self.desc, self.null_first)

    def _p_detail(self) -> str:
        return f"index{' descending' if self.desc else ''} of {self.source._p_detail()}"

    def _part(self, source: Selection) -> Iterator[Any]:
        """The results of a selection of the same index."""
        batches = self.index._p_batches(
            source.low, source.high, source.null_first, self.null_first, self.desc, bare=True
        )
        for _, _, objects in batches:
            yield from self.index._p_objects(objects)

    def _walk(self) -> Iterator[Any]:
        """The results, none of which comes twice, while walking the index."""
        left = self.source._p_oids(_view_of(self.index).uuid)
        if not left:
            return
        group: list[tuple[int, Any]] = []  # results of one key
        rank: Any = None
        null = False
        places: dict[int, int] = {}
        for items, keys, objects in self.index._p_batches(None, None, self.null_first, desc=self.desc, bare=True):
            here = [entry for entry in zip(items, objects, strict=True) if entry[0][1] in left]
            shown = self.index._p_objects([held for _, held in here])
            if (keys[0] is None) != null:
                null = not null
                yield from self._in_order(group, places)
                group = []
            for (item, _), obj in zip(here, shown, strict=True):
                oid = item[1]
                if oid not in left:
                    continue  # it came a moment ago
                left.discard(oid)
                if group and item[0] != rank:
                    if len(group) == 1:
                        yield group[0][1]
                    else:
                        yield from self._in_order(group, places)
                    group = []
                rank = item[0]
                group.append((oid, obj))
            if not left:
                break
        yield from self._in_order(group, places)

    def _in_order(self, group: list[tuple[int, Any]], places: dict[int, int]) -> list[Any]:
        """Results of equal keys in the order of the source, whose places `places` has if they were needed before."""
        if len(group) > 1:
            if not self.source._p_ordered:
                group.sort(key=lambda entry: -entry[0])
            else:
                if not places:
                    places.update((obj._p_oid, place) for place, obj in enumerate(self.source))
                group.sort(key=lambda entry: places.get(entry[0], -1))
        return [obj for _, obj in group]

    def _foreign(self) -> Iterator[Any]:
        view = self.index._p_view
        results = [obj for obj in self.source if isinstance(obj, Persistent) and obj._p_view is view]
        places: dict[int, list[int]] = {obj._p_oid: [] for obj in results}
        place = 0
        last: Any = None
        for items, keys, _ in self.index._p_batches(None, None, self.null_first, bare=True):
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
        yield from [obj for _, obj in ordered]
