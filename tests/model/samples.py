"""What the tests of values stored by name refer to: it has to be at the top of an importable module."""

from __future__ import annotations

import enum
import functools
from collections import namedtuple
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import dbzero as db0


class Color(enum.Enum):
    RED = 1
    GREEN = "two"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


Point = namedtuple("Point", "x y")


class Place(NamedTuple):
    name: str
    tags: Any = ()


class Plain:
    class Inner:
        pass

    @staticmethod
    def static(n: int) -> int:
        return n + 1

    def method(self) -> None:
        pass

    @classmethod
    def made(cls) -> Plain:
        return cls()


def double(n: int) -> int:
    return 2 * n


def numbers(n: int) -> Iterator[int]:
    yield from range(n)


def _keeping(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


@_keeping
def wrapped(n: int) -> int:
    return n


anonymous = lambda n: n  # noqa: E731


@db0.memo(id="tests/values/Holder")
class Holder:
    def __init__(self, value: object = None) -> None:
        self.value = value


@db0.memo(singleton=True, id="tests/values/Root")
class Root:
    def __init__(self) -> None:
        self.items: Any = []


@db0.memo(prefix="scoped", id="tests/values/Scoped")
class Scoped:
    pass
