"""Migrations of singletons: methods that give an old instance the attributes that ``__init__`` sets by now.

What a function assigns to is read from its code: every ``self.name = ...`` in it, ``self`` being its first parameter.
"""

from __future__ import annotations

import dis
import inspect
from types import FunctionType
from typing import Any, TypeVar

from dbzero.errors import MigrateError
from dbzero.model import base
from dbzero.model.base import operation

F = TypeVar("F")

_MARK = "__db0_migration"
Migrations = tuple[tuple[str, tuple[str, ...]], ...]
"""(method name, attributes of ``__init__`` that it assigns), in the order of the attributes in ``__init__``."""

_running: set[int] = set()  # ids of the objects whose migrations are under way, under the operation lock


def migration(function: F) -> F:
    """Mark a method of a singleton class that sets attributes which instances stored by older code lack.

    It is run when such an instance is next met in a session that may write, if its ``__init__`` assigns these
    attributes too and one of them is missing.

    >>> import dbzero as db0
    >>> @db0.memo(singleton=True)
    ... class Settings:
    ...     def __init__(self):
    ...         self.size = 1
    ...         self.color = "red"  # new in version 2
    ...     @db0.migration
    ...     def add_color(self):
    ...         self.color = "red"
    """
    if not isinstance(function, FunctionType):
        raise TypeError(f"@db0.migration is for methods, not for {type(function).__name__}")
    setattr(function, _MARK, True)
    return function


def assigned(function: Any) -> list[str]:
    """Names of the attributes that a method assigns on its first parameter, in order, each once."""
    function = inspect.unwrap(function)
    if not isinstance(function, FunctionType) or not function.__code__.co_argcount:
        return []
    own = function.__code__.co_varnames[0]
    names: dict[str, None] = {}
    loaded: Any = None  # what the instruction before pushed last
    for instruction in dis.get_instructions(function):
        if instruction.opname == "EXTENDED_ARG":
            continue
        if instruction.opname == "STORE_ATTR" and loaded == own:
            names[instruction.argval] = None
        loaded = None
        if "LOAD_FAST" in instruction.opname or instruction.opname == "LOAD_DEREF":
            value = instruction.argval
            loaded = value[-1] if isinstance(value, tuple) else value
    return list(names)


def find_migrations(cls: Any) -> Migrations:
    """The migrations of a class. MigrateError when two assign the same attribute."""
    methods = {
        name: value
        for name in dict.fromkeys(name for parent in cls.__mro__ for name in vars(parent))
        if getattr(value := inspect.getattr_static(cls, name), _MARK, False)
    }
    if not methods:
        return ()
    wanted: dict[str, None] = {}
    for parent in reversed(cls.__mro__):
        init = vars(parent).get("__init__")
        if isinstance(init, FunctionType):
            wanted.update(dict.fromkeys(assigned(init)))
    covers = {name: [one for one in assigned(method) if one in wanted] for name, method in methods.items()}
    by_attribute: dict[str, str] = {}
    for name, attributes in covers.items():
        for attribute in attributes:
            other = by_attribute.setdefault(attribute, name)
            if other != name:
                raise MigrateError(
                    f"{cls.__module__}.{cls.__qualname__}: both {other} and {name} migrate attribute {attribute!r}; "
                    f"leave it to one of them"
                )
    order = dict.fromkeys(by_attribute[attribute] for attribute in wanted if attribute in by_attribute)
    return tuple((name, tuple(covers[name])) for name in order)


def migrate_instance(obj: Any, migrations: Migrations) -> None:
    """Run those migrations that a stored object needs. One that raises leaves no attribute of its own behind."""
    if id(obj) in _running:
        return
    with operation:
        obj._p_activate()
        _running.add(id(obj))
        try:
            _migrate(obj, migrations)
        finally:
            _running.discard(id(obj))


def _migrate(obj: Any, migrations: Migrations) -> None:
    for name, attributes in migrations:
        before = base.state(obj)
        if all(attribute in before for attribute in attributes):
            continue
        present = set(before)
        try:
            getattr(obj, name)()
        except BaseException:
            for attribute in attributes:
                if attribute not in present and attribute in base.state(obj):
                    delattr(obj, attribute)
            raise
