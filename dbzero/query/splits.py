"""Splitting: the results of a query with the tags beside them that they have, of a given few."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pyroaring import BitMap64

from dbzero.errors import Error
from dbzero.model import kinds
from dbzero.model.base import operation
from dbzero.model.view import View
from dbzero.query.atoms import plain_atom, stored_key
from dbzero.query.base import Query, Split, Wrapping, require_query
from dbzero.query.tagindex import flushed


class Splitting(Wrapping):
    """Rows (object, tag, what the source had beside the object ...). Objects with none of the tags are left out."""

    __slots__ = ("exclusive", "tags")

    def __init__(self, tags: Sequence[Any], source: Query, exclusive: bool) -> None:
        self.tags = tags
        super().__init__(source)
        self.exclusive = exclusive

    def __iter__(self) -> Iterator[Any]:
        wide = bool(self.source._p_splits())
        exclusive = self.exclusive
        holders: dict[View, list[tuple[Any, BitMap64]]] = {}
        for row in self.source:
            obj, beside = (row[0], row[1:]) if wide else (row, ())
            view = obj._p_view
            known = holders.get(view)
            if known is None:
                known = holders[view] = holders_of(view, self.tags)
            oid = obj._p_oid
            for tag, members in known:
                if oid in members:
                    yield (obj, tag, *beside)
                    if exclusive:
                        break

    def __len__(self) -> int:
        counted = self.counts()
        return super().__len__() if counted is None else sum(n for _, n in counted)

    def counts(self) -> list[tuple[Any, int]] | None:
        """How many rows there are of each tag, without loading an object; None where that can't be told."""
        source = self.source
        parts = self._p_parts()
        if parts is not None:
            return self._added_up([part.counts() for part in parts if isinstance(part, Splitting)])
        view = source._p_view()
        if view is None or not source._p_distinct or source._p_splits():
            return None
        left = source._p_oids(view.uuid)
        found: list[tuple[Any, int]] = []
        for tag, members in holders_of(view, self.tags):
            found.append((tag, int(left.intersection_cardinality(members))))
            if self.exclusive:
                left -= members
        return found

    def _added_up(self, counted: list[list[tuple[Any, int]] | None]) -> list[tuple[Any, int]] | None:
        total = {_atom(tag): 0 for tag in self.tags}
        for counts in counted:
            if counts is None:
                return None
            for tag, n in counts:
                total[_atom(tag)] += n
        return [(tag, total.pop(_atom(tag))) for tag in self.tags if _atom(tag) in total]

    @property
    def _p_pure(self) -> bool:  # type: ignore[override]
        return self.source._p_pure

    @property
    def _p_distinct(self) -> bool:  # type: ignore[override]
        return self.exclusive and self.source._p_distinct

    def _p_oids(self, uuid: int) -> BitMap64:
        found = self.source._p_oids(uuid)
        view = self.source._p_view()
        if view is None or view.uuid != uuid:
            return super()._p_oids(uuid)
        return found & BitMap64.union(BitMap64(), *[members for _, members in holders_of(view, self.tags)])

    def _p_splits(self) -> list[Split]:
        return [(self.tags, self.exclusive), *self.source._p_splits()]

    def _p_with(self, source: Query) -> Query:
        return Splitting(self.tags, source, self.exclusive)

    def _p_form(self) -> tuple[Any, ...]:
        atoms = [_atom(tag) for tag in self.tags]
        return ("split", self.exclusive, tuple(atoms), self.source._p_form())

    def _p_detail(self) -> str:
        return f"{self.source._p_detail()} split by {len(self.tags)} tags"


class Objects(Wrapping):
    """The objects of a query that is split, without the tags: each once, where it comes first."""

    __slots__ = ()
    _p_distinct = True

    def __iter__(self) -> Iterator[Any]:
        seen: set[tuple[int, int]] = set()
        for row in self.source:
            obj = row[0]
            identity = (obj._p_view.uuid, obj._p_oid)
            if identity not in seen:
                seen.add(identity)
                yield obj

    def _p_with(self, source: Query) -> Query:
        return Objects(source)

    def _p_form(self) -> tuple[Any, ...]:
        return ("objects", self.source._p_form())

    def _p_detail(self) -> str:
        return f"objects of {self.source._p_detail()}"


def objects_of(query: Query) -> Query:
    """A query's objects without the tags beside them."""
    return Objects(query) if query._p_splits() else query


def _atom(tag: Any) -> tuple[Any, ...]:
    atom = plain_atom(tag)
    if atom is None:
        raise Error(f"split_by() argument 'tags' must hold str and enum values, not {type(tag).__name__}")
    return atom


def holders_of(view: View, tags: Iterable[Any]) -> list[tuple[Any, BitMap64]]:
    """Of each tag that some object of the view has: the tag as the view has it, and the OIDs of those objects."""
    found: list[tuple[Any, BitMap64]] = []
    with operation:
        index = flushed(view)
        for tag in tags:
            key = stored_key(view, _atom(tag), enter=False)
            members = None if key is None else index.holders(key)
            if members:
                bind = kinds.binders.get(type(tag))
                found.append((tag if bind is None else bind(view, tag), BitMap64(members)))
    return found


def resplit(query: Query, splits: list[Split]) -> Query:
    """The same objects with the tags beside them that another query had."""
    for tags, exclusive in reversed(splits):
        query = Splitting(tags, query, exclusive)
    return query


def split_by(tags: Iterable[Any], query: Query, exclusive: bool = True) -> Query:
    """A query of rows (object, tag): which of some tags each result has. Objects that have none are left out.

    Args:
        tags: tags, str or enum values.
        query: any query. One that is split already gives rows (object, tag, inner tag).
        exclusive: one row for each object, with the first of `tags` that it has; otherwise one for each of them.

    Returns:
        A lazy query. Used inside of `find` its rows keep their tags.

    Raises:
        Error: `tags` is a single str or holds something that is no str or enum value; `query` is no query.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Shirt:
    ...     def __init__(self, size):
    ...         db0.tags(self).add(size)
    >>> shirts = [Shirt("small"), Shirt("large"), Shirt("large")]
    >>> sorted(size for shirt, size in db0.split_by(["small", "large"], db0.find(Shirt)))
    ['large', 'large', 'small']
    >>> db0.close()
    """
    if isinstance(tags, (str, bytes)) or not isinstance(tags, Iterable):
        raise Error(f"split_by() argument 'tags' must be an iterable of tags, not {type(tags).__name__}")
    members = tuple(tags)
    for tag in members:
        _atom(tag)
    require_query("split_by", "query", query)
    return Splitting(members, query, bool(exclusive))
