"""Joining: objects of several collections that have a tag in common, where the tag is an object too."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Any

from pyroaring import BitMap64

from dbzero.errors import Error
from dbzero.model import scope
from dbzero.model.base import operation
from dbzero.model.memo import class_info
from dbzero.model.scope import Context
from dbzero.model.view import View
from dbzero.query.atoms import stored_key
from dbzero.query.base import Query
from dbzero.query.fanout import Chained, parts_of
from dbzero.query.find import find
from dbzero.query.tagindex import flushed


class Joining(Query):
    """Rows of one object from each of some queries, that all have one result of `on` for a tag."""

    __slots__ = ("on", "sources")

    def __init__(self, sources: tuple[Query, ...], on: Query) -> None:
        self.sources = sources
        self.on = on

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for views, parts in self._groups():
            yield from product(*[_objects(view, part) for view, part in zip(views, parts, strict=True)])

    def __len__(self) -> int:
        return sum(prod(len(part) for part in parts) for _, parts in self._groups())

    def __bool__(self) -> bool:
        return next(self._groups(), None) is not None

    def _groups(self) -> Iterator[tuple[list[View], list[BitMap64]]]:
        """For each result of `on` that joins anything: the OIDs of each source's part of it."""
        views: list[View] = []
        sets: list[BitMap64] = []
        for source in self.sources:
            view = source._p_view()
            if view is None:
                return
            views.append(view)
            sets.append(source._p_oids(view.uuid))
        home = self.on._p_view()
        if home is None or not all(sets):
            return
        for oid in reversed(self.on._p_oids(home.uuid).to_array()):
            parts: list[BitMap64] = []
            with operation:
                for view, members in zip(views, sets, strict=True):
                    key = stored_key(view, ("object", home.uuid, oid), enter=False)
                    tagged = None if key is None else flushed(view).holders(key)
                    if not tagged or tagged.isdisjoint(members):
                        break
                    parts.append(tagged & members)
            if len(parts) == len(sets):
                yield views, parts

    def _p_within(self, context: Context) -> Query:
        return Joining(tuple(source._p_within(context) for source in self.sources), self.on._p_within(context))

    def _p_oids(self, uuid: int) -> BitMap64:
        raise Error("a join gives tuples of objects: it cannot be a criterion of find()")

    def _p_detail(self) -> str:
        return f"join of {len(self.sources)} queries on {self.on._p_detail()}"


def _objects(view: View, oids: BitMap64) -> list[Any]:
    found = [view.get(oid) for oid in reversed(oids.to_array())]
    return [obj for obj in found if obj is not None]


def join(*collections: Any, on: Any, prefix: str | None = None) -> Query:
    """A query of tuples: one object of each collection, all tagged with the same object of `on`.

    Args:
        collections: memo classes and queries, at least one.
        on: memo class or query: the objects that count as common tags.
        prefix: prefix that classes are looked for in; by default as `find` does.

    Returns:
        A lazy query of tuples, without order. A tuple comes once for each common tag.

    Raises:
        TypeError: no collection, or `on` is missing. Error: an argument is neither a memo class nor a query.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Team:
    ...     pass
    >>> @db0.memo
    ... class Player:
    ...     def __init__(self, name, team):
    ...         self.name = name
    ...         db0.tags(self).add(team)
    >>> @db0.memo
    ... class Coach(Player):
    ...     pass
    >>> red, blue = Team(), Team()
    >>> people = [Player("Ann", red), Player("Bob", blue), Coach("Cid", red)]
    >>> [(player.name, coach.name) for player, coach in db0.join(db0.find(Player, db0.no(Coach)), Coach, on=Team)]
    [('Ann', 'Cid')]
    >>> db0.close()
    """
    if not collections:
        raise TypeError("join() needs at least one collection")
    sources = [_source(value, f"argument {at + 1}", prefix) for at, value in enumerate(collections)]
    tags = _source(on, "argument 'on'", prefix)
    if any(source._p_shards is not None for source in (*sources, tags)):
        return Chained(lambda: _shard_by_shard(sources, tags), f"join of {len(sources)} queries in all shards")
    return Joining(tuple(sources), tags)


def _shard_by_shard(sources: list[Query], on: Query) -> list[Query]:
    """The joins of every shard's part of each source with every other's: a tag in common may be of any prefix."""
    parts = [parts_of(query, scope.live) for query in (*sources, on)]
    return [Joining(some[:-1], some[-1]) for some in product(*parts)]


def _source(value: Any, argument: str, prefix: str | None) -> Query:
    if isinstance(value, Query):
        return value
    if class_info(value) is not None:
        return find(scope.live, value, prefix=prefix)
    raise Error(f"join() {argument} must be a memo class or a query, not {value!r}")
