"""``index_of``: the managed index of a declared field, in one prefix or in all shards of a sharded class."""

from __future__ import annotations

from typing import Any

from dbzero.model import scope
from dbzero.model.declared import FieldRef
from dbzero.model.memo import class_info
from dbzero.model.placement import shards_of
from dbzero.query.fanindex import FannedIndex
from dbzero.query.managed import ManagedIndex, managed_in, managed_owner


def index_of(cls: Any, field: str | None = None, *, prefix: str | None = None) -> ManagedIndex | FannedIndex:
    """The index that the library manages for a field declared with ``indexed_fields``.

    Args:
        cls: a memo class, or a field of ``fields_of(...)``. field: the field's name, with a class.
        prefix: name of an open prefix; None: that of the class if it has one, else the current one.

    Returns:
        An index that cannot be changed: ``find(cls, index.select(1, 3))``, ``index.sort(find(cls))``.

    Raises:
        TypeError: neither a memo class nor a field. Error: no such field, or it is not indexed. PrefixError.
        MigrateError: stored objects have values that have no order.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... @db0.indexed_fields("price")
    ... class Article:
    ...     def __init__(self, price):
    ...         self.price = price
    >>> articles = db0.list([Article(price) for price in (30, 10, 20)])
    >>> prices = db0.index_of(Article, "price")
    >>> [article.price for article in prices.sort(db0.find(Article, prices.select(None, 20)))]
    [10, 20]
    >>> articles[1].price = 90
    >>> [article.price for article in prices.sort(db0.find(Article))]
    [20, 30, 90]
    >>> db0.close()
    """
    return index_in(scope.live, cls, field, prefix)


def index_in(context: scope.Context, cls: Any, field: str | None, prefix: str | None) -> ManagedIndex | FannedIndex:
    """:func:`index_of` in a context: live, or a snapshot."""
    if isinstance(cls, FieldRef):
        if field is not None:
            raise TypeError("index_of() takes a field, or a class and the name of a field")
        cls, field = cls.cls, cls.name
    info = class_info(cls)
    if info is None or not isinstance(field, str):
        raise TypeError(f"index_of() takes a memo class and the name of a field, not {cls!r} and {field!r}")
    if info.family is not None and prefix is None:
        managed_owner(cls, field)
        return FannedIndex(context, shards_of(context, info.family), cls, field)
    if prefix is not None:
        if not isinstance(prefix, str):
            raise TypeError(f"index_of() argument prefix must be a str or None, not {type(prefix).__name__}")
        view = scope.opened(prefix) if context is scope.live else context.view(prefix)
    else:
        view = scope.view_of(info.prefix, False) if context is scope.live else context.view(info.prefix)
    return managed_in(view, cls, field)
