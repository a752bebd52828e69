"""Queries as values of objects: kept in their serial form, read as live queries of the object's own view."""

from __future__ import annotations

from typing import Any

from dbzero.errors import Error, UnsupportedTypeError
from dbzero.model.deferred import QUERY, Deferred, admitters, checkers, resolvers
from dbzero.query.base import Query
from dbzero.query.forms import check, deserialize_in, serialize


def _admit(view: Any, value: Any) -> Any:
    if not isinstance(value, Query):
        return NotImplemented
    try:
        return Deferred(view, QUERY, serialize(value))
    except Error as error:
        raise UnsupportedTypeError(f"this query cannot be stored in prefix {view.name!r}: {error}") from None


def _resolve(stored: Deferred) -> Any:
    return deserialize_in(stored.view.context, stored.data)


admitters.append(_admit)
checkers[QUERY] = check
resolvers[QUERY] = _resolve
