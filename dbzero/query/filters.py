"""Filtering: the results of a query for which a function of the user's is true."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from typing import Any

from dbzero.errors import Error
from dbzero.query.base import Query, Split, Wrapping, require_query


class Filtering(Wrapping):
    """Some of a query's results: those for which `function(object)` is true."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[Any], Any], source: Query) -> None:
        self.function = function
        super().__init__(source)

    def __iter__(self) -> Iterator[Any]:
        if not self.source._p_splits():
            return builtins.filter(self.function, self.source)
        function = self.function
        return (row for row in self.source if function(row[0]))

    @property
    def _p_distinct(self) -> bool:  # type: ignore[override]
        return self.source._p_distinct

    def _p_splits(self) -> list[Split]:
        return self.source._p_splits()

    def _p_with(self, source: Query) -> Query:
        return Filtering(self.function, source)

    def _p_detail(self) -> str:
        return f"filter {getattr(self.function, '__qualname__', repr(self.function))} of {self.source._p_detail()}"


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
