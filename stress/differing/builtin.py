"""Stands in for ``dbzero`` where only collections matter: the builtin ones. What a program of collection operations comes
to with it is what Python's own list, tuple, dict, set and bytearray do.
"""

from __future__ import annotations

import builtins
import types as _types


class _None:
    """A type without instances."""


class EnumValue:
    def __init__(self, name):
        self._name = name

    def __str__(self):
        return self._name


class Enum:
    def __init__(self, names):
        self._names = names
        for name in names:
            setattr(self, name, EnumValue(name))

    def values(self):
        return builtins.tuple(getattr(self, name) for name in self._names)

    def __getitem__(self, place):
        return self.values()[place]


def enum(name, values):
    return Enum(values)


def memo(cls=None, singleton=False):
    """The class itself; a singleton remembers its instance."""
    if cls is None:
        return lambda decorated: memo(decorated, singleton)
    cls.is_memo = True
    if not singleton:
        return cls
    found = []

    def make(*args, **kw):
        if not found:
            found.append(cls(*args, **kw))
        return found[0]

    return make


def is_memo(value):
    return getattr(value, "is_memo", False)


def is_enum_value(value):
    return isinstance(value, EnumValue)


def expired(value):
    return False


def nothing(*args, **kw):
    return None


init = open = close = commit = clear_cache = nothing
list, tuple, dict, set, bytearray = builtins.list, builtins.tuple, builtins.dict, builtins.set, builtins.bytearray
types = _types.SimpleNamespace(
    List=list,
    Tuple=tuple,
    Dict=dict,
    Set=set,
    ByteArray=bytearray,
    Index=_None,
    WeakSet=_None,
    WeakProxy=_None,
    ObjectIterable=_None,
)
