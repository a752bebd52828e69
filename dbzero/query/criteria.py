"""What ``find`` is given: ``no(...)``, and what criteria are in each shard of a sharded class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dbzero.errors import BadPrefixError
from dbzero.model import scope
from dbzero.model.memo import MemoObject, class_info
from dbzero.model.placement import Shards, shards_of
from dbzero.model.view import View
from dbzero.query.base import Query


class TagSet:
    """What ``no`` returns: conditions to exclude."""

    __slots__ = ("conditions",)

    def __init__(self, conditions: tuple[Any, ...]) -> None:
        self.conditions = conditions

    def __repr__(self) -> str:
        return f"<no of {len(self.conditions)} conditions>"


def no(*conditions: Any) -> TagSet:
    """A criterion of ``find`` that excludes objects.

    Args:
        conditions: what ``find`` accepts. Objects for which any of them holds are excluded; a list excludes the objects
            for which any of its members holds, a tuple those for which all hold.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Person:
    ...     pass
    >>> db0.tags(Person()).add("employee")
    <ObjectTagManager of 1 object>
    >>> len(db0.find(Person, db0.no("employee"))), len(db0.find(Person, db0.no("retired")))
    (0, 1)
    >>> db0.close()
    """
    return TagSet(conditions)


def shards_among(context: scope.Context, criteria: Sequence[Any]) -> Shards | None:
    """The shards that criteria are about; None: they are about one prefix. Error: those of two classes."""
    found: Shards | None = None
    for value in criteria:
        one: Shards | None = None
        if isinstance(value, type):
            info = class_info(value)
            if info is not None and info.family is not None:
                one = shards_of(context, info.family)
        elif isinstance(value, Query):
            one = value._p_shards
        elif type(value) is list or type(value) is tuple:
            one = shards_among(context, value)
        if one is not None and found is not None and one is not found:
            raise BadPrefixError(
                f"criteria of the sharded classes {found.family.title} and {one.family.title} in one find: find each by "
                f"itself"
            )
        found = found or one
    return found


def in_shard(view: View, value: Any) -> Any:
    """What a criterion is in one shard; an empty tuple, which nothing meets, for what is elsewhere."""
    if isinstance(value, Query):
        part = value._p_on(view)
        return () if part is None else part
    if isinstance(value, MemoObject):
        return value if value._p_view is not None and value._p_view.uuid == view.uuid else ()
    if type(value) is list or type(value) is tuple:
        return type(value)([in_shard(view, member) for member in value])
    if type(value) is TagSet:
        return TagSet(tuple([in_shard(view, member) for member in value.conditions]))
    return value
