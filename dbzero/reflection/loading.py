"""load: stored objects as plain Python data."""

from __future__ import annotations

import inspect
import types
from typing import Any

from dbzero.collections import Dict, List, Set, Tuple
from dbzero.errors import Error, UnsupportedTypeError
from dbzero.model import deferred
from dbzero.model.base import Persistent
from dbzero.model.codec import ATOMS, EXTENDED
from dbzero.model.enums import EnumType, EnumValue, EnumValueRepr
from dbzero.model.memo import MemoObject, class_info, stored_fields

_PLAIN = ATOMS | EXTENDED
_NOT_GIVEN: Any = object()


def load(obj: Any, /, *, exclude: Any = _NOT_GIVEN, **arguments: Any) -> Any:
    """A stored object as plain Python data, deeply.

    Memo objects become dicts of their attributes; lists, tuples and dicts the builtin ones; sets lists; enum values
    their names. A class with a ``__load__`` method says itself what its objects become; stored objects in that are
    loaded too.

    Args:
        obj: what to load. exclude: list or tuple of attribute names to leave out of a memo object at the top.
        arguments: passed to each ``__load__``, as far as it declares them.

    Raises:
        RecursionError: an object contains itself. TypeError: `exclude` is no list or tuple, or `obj` no memo object.
        AttributeError: `exclude` with a class that has ``__load__``, or a plain object that cannot be loaded.
        Error: a stored object that cannot be loaded.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Person:
    ...     def __init__(self, name):
    ...         self.name = name
    ...         self.tags = ["a", "b"]
    >>> db0.load(Person("Ann"), exclude=["tags"])
    {'name': 'Ann'}
    >>> db0.close()
    """
    return _load_top(obj, exclude, arguments, True)


def load_all(obj: Any, /, *, exclude: Any = _NOT_GIVEN, **arguments: Any) -> Any:
    """:func:`load` that takes all attributes of a memo object at the top, whatever its ``__load__`` says.

    >>> import dbzero as db0
    >>> db0.load_all((1, [2]))
    (1, [2])
    """
    return _load_top(obj, exclude, arguments, False)


def _load_top(obj: Any, exclude: Any, arguments: dict[str, Any], custom: bool) -> Any:
    loader = _Loader(arguments)
    if exclude is not _NOT_GIVEN:
        if not isinstance(exclude, (list, tuple, List, Tuple)):
            raise TypeError("Invalid argument type. Exclude shoud be a sequence")
        if not isinstance(obj, MemoObject):
            raise TypeError(f"exclude is for memo objects, not for {type(obj).__name__}")
        if custom and hasattr(type(obj), "__load__"):
            raise AttributeError("Cannot exclude values when __load__ is implemented")
        return loader.fields(obj, frozenset(exclude))
    if not custom and isinstance(obj, MemoObject):
        return loader.fields(obj, frozenset())
    return loader.load(obj)


def _is_described(value: Any) -> bool:
    """Whether it is one of the further plain values that can be stored: Enum members, arrays and the like."""
    try:
        return deferred.describe(value) is not None
    except UnsupportedTypeError:
        return False


class _Loader:
    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments
        self.path: set[int] = set()  # ids of the objects being loaded

    def load(self, value: Any) -> Any:
        kind = type(value)
        if kind in _PLAIN:
            return value
        if isinstance(value, (EnumValue, EnumValueRepr)):
            return str(value)
        if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)):
            if class_info(value) is not None:
                raise Error(f"__load__ not implemented for type: memo class {value.__qualname__}")
            return value
        if isinstance(value, MemoObject):
            return self._custom(value) if hasattr(kind, "__load__") else self.fields(value, frozenset())
        if isinstance(value, (list, tuple, dict, set, frozenset, List, Tuple, Dict, Set)):
            return self._container(value)
        if hasattr(kind, "__load__"):
            return self._custom(value)
        if isinstance(value, (Persistent, EnumType)) or kind.__module__.startswith("dbzero."):
            raise Error(f"__load__ not implemented for type: {kind.__qualname__}")
        if _is_described(value):
            return value
        raise AttributeError(f"{kind.__qualname__!r} object has no attribute '__load__'")

    def fields(self, obj: Any, exclude: frozenset[str]) -> dict[str, Any]:
        self._enter(obj)
        try:
            return {name: self.load(value) for name, value in stored_fields(obj).items() if name not in exclude}
        finally:
            self.path.discard(id(obj))

    def _container(self, value: Any) -> Any:
        self._enter(value)
        try:
            if isinstance(value, (dict, Dict)):
                return {self._key(key): self.load(item) for key, item in list(value.items())}
            loaded = [self.load(item) for item in value]
            return tuple(loaded) if isinstance(value, (tuple, Tuple)) else loaded
        finally:
            self.path.discard(id(value))

    def _key(self, key: Any) -> Any:
        if isinstance(key, (tuple, frozenset)):
            return (tuple if isinstance(key, tuple) else frozenset)([self._key(item) for item in key])
        return self.load(key)

    def _custom(self, obj: Any) -> Any:
        self._enter(obj)
        try:
            return self._rest(obj.__load__(**self._accepted(obj.__load__)))
        finally:
            self.path.discard(id(obj))

    def _rest(self, value: Any) -> Any:
        """What ``__load__`` returned, with the stored objects in it loaded."""
        if isinstance(value, (Persistent, EnumValue, EnumValueRepr)):
            return self.load(value)
        if type(value) in (list, tuple, set, frozenset):
            rest = [self._rest(item) for item in value]
            return tuple(rest) if type(value) is tuple else rest
        if type(value) is dict:
            return {self._rest(key): self._rest(item) for key, item in value.items()}
        return value

    def _accepted(self, method: Any) -> dict[str, Any]:
        if not self.arguments:
            return {}
        parameters = inspect.signature(method).parameters.values()
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return dict(self.arguments)
        names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        return {name: value for name, value in self.arguments.items() if name in names}

    def _enter(self, obj: Any) -> None:
        if id(obj) in self.path:
            raise RecursionError(f"Recursive loading detected: a {type(obj).__qualname__} contains itself")
        self.path.add(id(obj))
