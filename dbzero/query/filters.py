"""Filtering: the results of a query for which a function of the user's is true."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from typing import Any

from dbzero.errors import Error
from dbzero.model.placement import Shards
from dbzero.model.scope import Context
from dbzero.model.view import View
from dbzero.query.base import Query, Split, require_query


class Filtering(Query):
    """Some of a query's results: those for which `function(object)` is true."""

    __slots__ = ("function", "source")

    def __init__(self, function: Callable[[Any], Any], source: Query) -> None:
        self.function = function
        self.source = source

    def __iter__(self) -> Iterator[Any]:
        if not self.source._p_splits():
            return builtins.filter(self.function, self.source)
        function = self.function
        return (row for row in self.source if function(row[0]))

    def _p_view(self) -> View | None:
        return self.source._p_view()

    @property
    def _p_distinct(self) -> bool:  # type: ignore[override]
        return self.source._p_distinct

    @property
    def _p_ordered(self) -> bool:  # type: ignore[override]
        return self.source._p_ordered

    def _p_splits(self) -> list[Split]:
        return self.source._p_splits()

    @property
    def _p_shards(self) -> Shards | None:
        return self.source._p_shards

    def _p_source(self) -> Query:
        return self.source

    def _p_with(self, source: Query) -> Query:
        return Filtering(self.function, source)

    def _p_parts(self) -> list[Query] | None:
        parts = self.source._p_parts()
        return None if parts is None else [self._p_with(part) for part in parts]

    def _p_on(self, view: View) -> Query | None:
        part = self.source._p_on(view)
        return None if part is None else self._p_with(part)

    def _p_within(self, context: Context) -> Query:
        return self._p_with(self.source._p_within(context))

    def _p_estimate(self) -> int:
        return self.source._p_estimate()

    def _p_detail(self) -> str:
        return f"filter {getattr(self.function, '__qualname__', repr(self.function))} of {self.source._p_detail()}"

    def _p_shape(self) -> tuple[Any, ...]:
        return self.source._p_shape()


def filter(function: Callable[[Any], Any], query: Query) -> Query:
    """A query of the results of another one for which a function is true.

    Args:
        function: called with an object; what it raises comes out of the iteration.
        query: any query. Of one made by `split_by` the function gets the object alone.

    Returns:
        A lazy query, evaluated anew each time. It can't be serialized.

    Raises:
        Error: `function` cannot be called, or `query` is no query.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Person:
    ...     def __init__(self, age):
    ...         self.age = age
    >>> people = [Person(age) for age in (17, 18, 40)]
    >>> sorted(person.age for person in db0.filter(lambda person: person.age >= 18, db0.find(Person)))
    [18, 40]
    >>> db0.close()
    """
    if not callable(function) or isinstance(function, Query):
        raise Error(f"filter() argument 'function' must be a function, not {type(function).__name__}")
    require_query("filter", "query", query)
    return Filtering(function, query)
