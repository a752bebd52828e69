"""Names for annotations and ``isinstance``: what an argument may be, not how it is made."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from dbzero.model.enums import EnumValue, EnumValueRepr
from dbzero.model.memo import MemoObject
from dbzero.model.weak import ExpiredReference, WeakProxy


class _Abstract(type):
    """Classes of which nothing is an instance but what their ``_members`` name."""

    _members: tuple[type, ...]

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls._members)

    def __call__(cls, *args: Any, **kw: Any) -> Any:
        raise TypeError(f"db0.{cls.__name__} is for annotations and isinstance; it has no instances of its own")


class Memo(metaclass=_Abstract):
    """Any memo object, whatever its class.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Thing:
    ...     pass
    >>> isinstance(Thing(), db0.Memo), isinstance(5, db0.Memo)
    (True, False)
    >>> db0.close()
    """

    _members = (MemoObject,)


class Tag(metaclass=_Abstract):
    """What can stand as a tag: a str, an enum value, a memo object, or a weak reference to one.

    >>> import dbzero as db0
    >>> isinstance("urgent", db0.Tag), isinstance(5, db0.Tag)
    (True, False)
    """

    _members = (str, EnumValue, EnumValueRepr, MemoObject, WeakProxy, ExpiredReference)


@runtime_checkable
class Snapshot(Protocol):
    """A consistent state of one or more prefixes, as ``with`` statements take it.

    >>> import dbzero as db0
    >>> def count(view: db0.Snapshot) -> int:
    ...     return len(view.find("urgent"))
    >>> isinstance(5, db0.Snapshot)
    False
    """

    def fetch(self, identifier: Any, expected_type: Any = None, prefix: str | None = None) -> Any:
        """See ``db0.fetch``."""

    def exists(self, identifier: Any, expected_type: Any = None, prefix: str | None = None) -> bool:
        """See ``db0.exists``."""

    def find(self, *criteria: Any, prefix: str | None = None) -> Any:
        """See ``db0.find``."""

    def close(self) -> None:
        """Let go of it."""
