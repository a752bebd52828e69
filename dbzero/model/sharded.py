"""Sharded classes: what was said where a class was decorated with ``memo(shards=N, shard_by=...)``.

A *family* is a sharded class with the memo classes that derive from it: they share its shards. Each of its classes has a
*key source*, which tells the key of an instance by the arguments of the constructor.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

SPOT = "_p_spot"
"""The stored attribute of an instance that is its key's hash. Only those who place and move instances see it."""

_NO_DEFAULT: Any = object()

families: dict[str, Family] = {}
"""Every family declared in this process, by the key of its class."""


class Family(Struct, frozen=True):
    """What was said about sharding where a class was decorated."""

    name: str  # of the directory that its shards are in
    key: str  # of the class that was decorated so
    title: str  # what messages call it
    prefix: str | None  # the class's static scope
    shards: int  # of a fresh store
    shard_by: Any  # name of a constructor argument, or a function of the constructor's arguments


class KeySource(Struct, frozen=True):
    """How the arguments of one class's constructor tell an instance's key."""

    function: Callable[..., Any] | None
    name: str = ""
    place: int = -1  # among the positional arguments; -1: by name only
    default: Any = _NO_DEFAULT

    def key(self, cls: type, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        """The key of ``cls(*args, **named)``. TypeError when the argument is missing."""
        if self.function is not None:
            return self.function(*args, **named)
        if self.name in named:
            return named[self.name]
        if 0 <= self.place < len(args):
            return args[self.place]
        if self.default is _NO_DEFAULT:
            raise TypeError(
                f"{cls.__qualname__}() is missing the argument {self.name!r}, by which its instances are sharded"
            )
        return self.default


def key_source(cls: type, shard_by: Any) -> KeySource:
    """How instances of a class that is being decorated tell their keys.

    Raises TypeError: `shard_by` is neither a str nor callable, or the constructor has no argument of that name.
    """
    if callable(shard_by) and not isinstance(shard_by, str):
        return KeySource(shard_by)
    if not isinstance(shard_by, str):
        raise TypeError(
            f"memo() option shard_by must be the name of a constructor argument or a function, not "
            f"{type(shard_by).__name__}"
        )
    try:
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]  # type: ignore[misc]
    except (TypeError, ValueError):
        parameters = []
    place = -1
    for number, parameter in enumerate(parameters):
        if parameter.name == shard_by and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            default = _NO_DEFAULT if parameter.default is parameter.empty else parameter.default
            place = number if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD) else -1
            return KeySource(None, shard_by, place, default)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return KeySource(None, shard_by)
    raise TypeError(
        f"memo() option shard_by: the constructor of {cls.__qualname__} has no argument {shard_by!r}; its arguments are "
        f"{[parameter.name for parameter in parameters]}"
    )
