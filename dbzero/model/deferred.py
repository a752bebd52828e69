"""Values that are made when they are read: what a record says of them is kept until then.

A weak reference leads to what its target is by now; a class, function, module or Enum member is found by its import
path, which runs that module's code the first time; an array needs numpy in the process. None of this may happen while
a record is decoded, and none of it failing may hide the record's other values. So decoding makes a :class:`Deferred`,
reading an attribute or an element resolves it, and storing it again writes what was read.

The modules that know such values register here what they do, by extension code; :mod:`dbzero.model.codec` reads and
writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from dbzero.errors import UnsupportedTypeError
from dbzero.model import base

WEAK, NAMED, MEMO_CLASS, FROZENSET, TUPLE, MEMBER, NAMED_TUPLE, ARRAY = range(32, 40)
QUERY = 41  # 40 is an enum's value, which is made at once
"""Extension codes of deferred values."""

COMPOSITES = frozenset((FROZENSET, TUPLE, NAMED_TUPLE))
"""Those that consist of other values."""

_UNSET: Any = object()


class Deferred:
    """One stored value that is made when it is read.

    Attributes: view it was stored in; extension code; data (what is written, for a composite without its parts);
    parts (stored values, for a composite, else None).
    """

    __slots__ = ("_value", "code", "data", "parts", "view")

    def __init__(self, view: Any, code: int, data: bytes, parts: tuple[Any, ...] | None = None) -> None:
        self.view: Any = view
        self.code = code
        self.data = data
        self.parts = parts
        self._value: Any = _UNSET

    def resolve(self) -> Any:
        """The value. Errors as registered for the code; a :class:`ClassNotFoundError` for what is not importable, a
        :class:`PrefixError` for a target on a prefix that is not open."""
        value = self._value
        if value is _UNSET:
            value = resolvers[self.code](self)
            if self.code != WEAK:
                self._value = value
        return value

    def __hash__(self) -> int:
        return hash((self.code, self.data))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(other) is Deferred:
            return self.code == other.code and self.data == other.data and self.parts == other.parts
        value = self.resolve()
        return bool(value is other or value == other)

    def __repr__(self) -> str:
        return f"<deferred value {self.code}>"


resolvers: dict[int, Callable[[Deferred], Any]] = {}
"""Extension code -> what makes the value."""

checkers: dict[int, Callable[[bytes], None]] = {}
"""Extension code -> what raises ValueError when the data can't be of such a value."""

describers: list[Callable[[Any], tuple[int, bytes] | None]] = []
"""Each gives code and data of the values it knows, None for others, UnsupportedTypeError for those it refuses."""

admitters: list[Callable[[Any, Any], Any]] = []
"""admitter(view, value): what storing a value stores, NotImplemented for values it does not know."""


def describe(value: Any) -> tuple[int, bytes] | None:
    """Code and data of a value that is stored by description, None for values of other types."""
    for known in describers:
        found = known(value)
        if found is not None:
            return found
    return None


def admit(view: Any, value: Any) -> Any:
    """What storing `value`, no builtin container and no object of a view, stores. UnsupportedTypeError."""
    if type(value) is Deferred:
        return value
    for known in admitters:
        found = known(view, value)
        if found is not NotImplemented:
            return found
    if describe(value) is not None:
        return value
    kind = type(value)
    raise UnsupportedTypeError(
        f"Unsupported attribute type: a value of type {kind.__module__}.{kind.__qualname__} cannot be stored in "
        f"prefix {view.name!r}; "
        "store atoms, dates, Decimal, list, tuple, dict, set or memo objects"
    )


def resolved(value: Any) -> Any:
    """What a stored value is read as."""
    return value.resolve() if type(value) is Deferred else value


def all_resolved(values: Iterable[Any]) -> list[Any]:
    """What stored values are read as."""
    return [value.resolve() if type(value) is Deferred else value for value in values]


base.set_deferred_type(Deferred)
