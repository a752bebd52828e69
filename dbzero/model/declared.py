"""Declared fields: attributes of a memo class whose values feed something beside the object: tags, an index, full text.

A class declares names in its own dict, under a mark. Each declared name becomes a data descriptor of the memo class,
so that only these attributes pay: it checks what is assigned and tells the view's `fields` buffer the value before.
A field belongs to every memo class that declares it itself, by its plain bases included; what a memo base declares is
the base's. All are taken together in the class's :class:`Plan`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from dbzero.model import base
from dbzero.model.base import operation
from dbzero.model.codec import ATOMS
from dbzero.model.deferred import resolved

T = TypeVar("T", bound=type)

TAG, INDEXED, TEXT = "tag", "index", "text"
MARKS = {TAG: "__db0_tag_fields__", INDEXED: "__db0_indexed_fields__", TEXT: "__db0_text_fields__"}

checks: dict[str, Callable[[Any, str, Any], None]] = {}
"""Sort of field -> check(object, name, value), which raises when that value cannot be assigned; set by the query layer."""


class _Missing:
    def __repr__(self) -> str:
        return "<no value>"


MISSING: Any = _Missing()
"""In place of the value of an attribute that is not set."""


class Plan(NamedTuple):
    """What a class declares in all: for each sort the names, and for each memo class the (sort, name) it owns."""

    names: dict[str, tuple[str, ...]]
    owners: tuple[tuple[type, tuple[tuple[str, str], ...]], ...]

    def owner(self, sort: str, name: str) -> type | None:
        """The first class in order of resolution that owns a field; None: there is no such field."""
        return next((cls for cls, own in self.owners if (sort, name) in own), None)


class FieldRef:
    """A declared field of a memo class.

    >>> import dbzero as db0
    >>> @db0.memo
    ... @db0.indexed_fields("price")
    ... class Article:
    ...     pass
    >>> isinstance(db0.fields_of(Article).price, db0.FieldRef)
    True
    """

    __slots__ = ("cls", "name")

    def __init__(self, cls: type, name: str) -> None:
        self.cls = cls
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FieldRef) and (other.cls, other.name) == (self.cls, self.name)

    def __hash__(self) -> int:
        return hash((self.cls, self.name))

    def __repr__(self) -> str:
        return f"<dbzero.FieldRef {self.cls.__module__}.{self.cls.__qualname__}.{self.name}>"


def declared(cls: type, sort: str) -> list[str]:
    """Names of one sort declared on a class and its bases, the bases' first."""
    mark = MARKS[sort]
    return list(dict.fromkeys(name for parent in reversed(cls.__mro__) for name in vars(parent).get(mark, ())))


def declare(sort: str, names: tuple[Any, ...]) -> Callable[[T], T]:
    """A class decorator that declares fields of one sort. TypeError: a name is no str, or it decorates no class."""
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"field names are str, not {type(name).__name__}")

    def decorate(cls: T) -> T:
        if not isinstance(cls, type):
            raise TypeError(f"fields are declared on classes, not on a {type(cls).__name__}")
        setattr(cls, MARKS[sort], tuple(dict.fromkeys((*vars(cls).get(MARKS[sort], ()), *names))))
        return cls

    return decorate


def plan_of(cls: Any) -> Plan | None:
    """What a memo class declares; None: nothing."""
    found = vars(cls).get("_p_fields") if isinstance(cls, type) else None
    return found if isinstance(found, Plan) else None


def settle(cls: Any) -> None:
    """Make the declared names of a new memo class descriptors of it. TypeError: one of them is a property."""
    names = {sort: tuple(declared(cls, sort)) for sort in MARKS}
    if not any(names.values()):
        return
    owners = []
    for parent in cls.__mro__:
        inherited = [base_.names for base_ in map(plan_of, parent.__mro__[1:]) if base_ is not None]
        if parent is not cls and plan_of(parent) is None:
            continue
        own = tuple(
            (sort, name)
            for sort in MARKS
            for name in declared(parent, sort)
            if not any(name in others[sort] for others in inherited)
        )
        if own:
            owners.append((parent, own))
    for name in dict.fromkeys(name for some in names.values() for name in some):
        fallback = next((vars(parent)[name] for parent in cls.__mro__ if name in vars(parent)), MISSING)
        if isinstance(fallback, DeclaredField):
            fallback = fallback.fallback
        elif hasattr(type(fallback), "__set__"):
            raise TypeError(
                f"{cls.__qualname__}.{name} is a {type(fallback).__name__}: only stored attributes can be declared"
            )
        sorts = tuple(sort for sort in MARKS if name in names[sort])
        setattr(cls, name, DeclaredField(name, sorts, fallback))
    cls._p_fields = Plan(names, tuple(owners))


class DeclaredField:
    """The descriptor of a declared field. Its value is stored like that of every attribute."""

    __slots__ = ("fallback", "name", "sorts")

    def __init__(self, name: str, sorts: tuple[str, ...], fallback: Any) -> None:
        self.name = name
        self.sorts = sorts
        self.fallback = fallback  # the class attribute that it stands in front of

    def __get__(self, obj: Any, cls: Any = None) -> Any:
        if obj is not None:
            value = base.state(obj).get(self.name, MISSING)
            if value is not MISSING:
                return resolved(value)
        if self.fallback is MISSING:
            what = f"type object {cls.__name__!r}" if obj is None else f"{type(obj).__name__!r} object"
            raise AttributeError(f"{what} has no attribute {self.name!r}")
        get = getattr(type(self.fallback), "__get__", None)
        return self.fallback if get is None else get(self.fallback, obj, cls)

    def __set__(self, obj: Any, value: Any) -> None:
        for sort in self.sorts:
            checks[sort](obj, self.name, value)
        with operation:
            _begin(obj)
            stored = value if type(value) in ATOMS else obj._p_view._convert(value)
            fields = base.state(obj)
            note(obj, self.name, fields.get(self.name, MISSING))
            base.fill(obj, (self.name,), [stored])

    def __delete__(self, obj: Any) -> None:
        with operation:
            obj._p_activate()
            if self.name not in base.state(obj):
                raise AttributeError(f"{type(obj).__name__!r} object has no attribute {self.name!r}")
            _begin(obj)
            note(obj, self.name, base.state(obj)[self.name])
            del base.state(obj)[self.name]


def _begin(obj: Any) -> None:
    if obj._p_flags & base.IMMUTABLE:
        obj._p_view._refuse(obj, True)
    obj._p_changed()


def note(obj: Any, name: str, old: Any) -> None:
    """A declared field is about to change. Inside an operation."""
    fields = getattr(obj._p_view, "fields", None)
    if fields is not None:
        fields.note(obj, name, old)


__all__ = [
    "INDEXED",
    "MISSING",
    "TAG",
    "TEXT",
    "DeclaredField",
    "FieldRef",
    "Plan",
    "checks",
    "declared",
    "note",
    "plan_of",
    "settle",
]
