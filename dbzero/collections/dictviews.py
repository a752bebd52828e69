"""Live views of a Dict: keys, values and items, with the operations of the builtin views."""

from __future__ import annotations

from collections.abc import ItemsView as _Items
from collections.abc import Iterator
from collections.abc import KeysView as _Keys
from collections.abc import ValuesView as _Values
from types import MappingProxyType
from typing import Any


def _mapping_of(view: Any) -> MappingProxyType[Any, Any]:
    """The dict that the view is of, read-only."""
    return MappingProxyType(view._mapping)


class DictKeys(_Keys[Any]):
    """The keys of a Dict."""

    __slots__ = ()
    mapping = property(_mapping_of)

    def __iter__(self) -> Iterator[Any]:
        walk: Iterator[Any] = self._mapping._p_walk(0)  # type: ignore[attr-defined]
        return walk

    def __reversed__(self) -> Iterator[Any]:
        return iter(list(self)[::-1])

    def __repr__(self) -> str:
        return f"dict_keys({list(self)!r})"


class DictValues(_Values[Any]):
    """The values of a Dict."""

    __slots__ = ()
    mapping = property(_mapping_of)

    def __iter__(self) -> Iterator[Any]:
        walk: Iterator[Any] = self._mapping._p_walk(1)  # type: ignore[attr-defined]
        return walk

    def __reversed__(self) -> Iterator[Any]:
        return iter(list(self)[::-1])

    def __repr__(self) -> str:
        return f"dict_values({list(self)!r})"


class DictItems(_Items[Any, Any]):
    """The (key, value) pairs of a Dict."""

    __slots__ = ()
    mapping = property(_mapping_of)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        walk: Iterator[Any] = self._mapping._p_walk(2)  # type: ignore[attr-defined]
        return walk

    def __reversed__(self) -> Iterator[tuple[Any, Any]]:
        return iter(list(self)[::-1])

    def __repr__(self) -> str:
        return f"dict_items({list(self)!r})"
