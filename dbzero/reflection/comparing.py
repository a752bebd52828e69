"""compare and hash: the content of values, the same in every process."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from xxhash import xxh3_64_intdigest

from dbzero.collections import Dict, List, Set, Tuple
from dbzero.collections.keys import stable_hash
from dbzero.errors import Error
from dbzero.model.base import Persistent
from dbzero.model.codec import ATOMS, EXTENDED
from dbzero.model.enums import EnumValue, EnumValueRepr
from dbzero.model.memo import MemoObject, class_info, module_name, stored_fields, uuid_of
from dbzero.query.tags import has_tag

_VALUES = ATOMS | EXTENDED


def compare(a: Any, b: Any, tags: Iterable[Any] | None = None) -> bool:
    """Whether two memo objects have the same class and, deeply, the same content; they may be of different prefixes and
    snapshots.

    Args:
        tags: tags that both must have, or both not, each as of where it is from.

    Raises TypeError when one is no memo object.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Point:
    ...     def __init__(self, *at):
    ...         self.at = at
    >>> db0.compare(Point(1, 2), Point(1, 2)), db0.compare(Point(1, 2), Point(1, 3))
    (True, False)
    >>> db0.close()
    """
    for obj in (a, b):
        if not isinstance(obj, MemoObject):
            raise TypeError(f"compare() takes memo objects, not {type(obj).__name__}")
    if not _Comparison().same(a, b):
        return False
    return tags is None or all(has_tag(a, tag) == has_tag(b, tag) for tag in tags)


def _shape(value: Any) -> type | None:
    for builtin, ours in ((list, List), (tuple, Tuple), (dict, Dict), (set, Set)):
        if isinstance(value, (builtin, ours)):
            return builtin
    return None


def _fields(obj: Any) -> dict[str, Any]:
    found: dict[str, Any] = stored_fields(obj)
    return found


class _Comparison:
    """One comparison. Pairs on the way or already compared count as the same: a difference in them shows elsewhere."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, int], tuple[Any, Any]] = {}  # holds them, so that ids stay theirs

    def same(self, a: Any, b: Any) -> bool:
        if a is b:
            return True
        if isinstance(a, MemoObject) or isinstance(b, MemoObject):
            return type(a) is type(b) and (self._known(a, b) or self._mapping(_fields(a), _fields(b)))
        shape = _shape(a)
        if shape is not _shape(b):
            return False
        if shape is None:
            return bool(a == b) or (a != a and b != b and type(a) is type(b))
        if len(a) != len(b):
            return False
        if self._known(a, b):
            return True
        if shape is dict:
            return self._dict(dict(a.items()), dict(b.items()))
        if shape is set:
            return self._unordered(list(a), list(b))
        return all(self.same(x, y) for x, y in zip(list(a), list(b), strict=True))

    def _known(self, a: Any, b: Any) -> bool:
        if (id(a), id(b)) in self.seen:
            return True
        self.seen[id(a), id(b)] = a, b
        return False

    def _mapping(self, a: dict[str, Any], b: dict[str, Any]) -> bool:
        return a.keys() == b.keys() and all(self.same(value, b[name]) for name, value in a.items())

    def _dict(self, a: dict[Any, Any], b: dict[Any, Any]) -> bool:
        if a.keys() == b.keys():
            return all(self.same(value, b[key]) for key, value in a.items())
        return self._unordered(list(a.items()), list(b.items()))

    def _unordered(self, a: list[Any], b: list[Any]) -> bool:
        rest = b
        for value in a:
            for place, other in enumerate(rest):
                trial = _Comparison()  # a pair that fails here must not count as seen
                trial.seen.update(self.seen)
                if trial.same(value, other):
                    self.seen = trial.seen
                    rest = rest[:place] + rest[place + 1 :]
                    break
            else:
                return False
        return not rest


def hash(value: Any) -> int:
    """A hash that is the same in every process: an int of 64 bits with sign. Equal values have equal hashes.

    Args:
        value: None, number, str, bytes, date or time, tuple of such, enum value, memo object (by identity), class.

    Raises:
        TypeError: a list, dict or set. Error: a value of another type.

    >>> import dbzero as db0
    >>> db0.hash("a") == db0.hash("a") != db0.hash("b")
    True
    """
    kind = type(value)
    if kind in _VALUES:
        return stable_hash(value)
    if kind in (EnumValue, EnumValueRepr):
        return stable_hash(value)
    if isinstance(value, (tuple, Tuple)):
        return _digest(b"".join([struct.pack("<q", hash(item)) for item in value]), 16)
    if isinstance(value, MemoObject):
        return _digest(uuid_of(value).encode(), 17)
    if isinstance(value, (list, dict, set, bytearray, Persistent)):
        raise TypeError(f"unhashable type: {kind.__name__!r}")
    if isinstance(value, type):
        info = class_info(value)
        name = f"{module_name(value)}:{value.__qualname__}" if info is None else info.key
        return _digest(name.encode("utf-8", "surrogatepass"), 18)
    raise Error(f"db0.hash() is not defined for values of type {kind.__qualname__}")


def _digest(data: bytes, seed: int) -> int:
    return xxh3_64_intdigest(data, seed) - (1 << 63)
