"""The class catalogue of a prefix: OID 1 names its class records, each of which describes one class and the shapes
its objects have.

A *shape* is a tuple of field names. Objects name their shape by number, so field names are stored once. Shapes are
only ever appended, so a number keeps its
meaning in every state of the prefix. Number 0 means that the object carries its names itself: for objects with very
many fields, and classes with very many shapes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar, cast

import msgspec

from dbzero.errors import ClassNotFoundError, CorruptError
from dbzero.model import kinds
from dbzero.model.base import Persistent

MAX_SHAPE = 64  # fields of an object that is given a shape
MAX_SHAPES = 500  # shapes of a class


class ClassData(msgspec.Struct, array_like=True):
    """What a class record holds."""

    key: str
    module: str
    qualname: str
    flags: int
    bases: list[int]  # class OIDs of the memo classes it derives from, nearest first
    singleton: int  # OID of the one instance, or 0
    shapes: list[list[str]]  # names as pack_name() writes them


_encode = msgspec.msgpack.Encoder().encode
_decode_class = msgspec.msgpack.Decoder(ClassData).decode
_decode_names = msgspec.msgpack.Decoder(dict[str, int]).decode

SINGLETON, NO_DEFAULT_TAGS, IMMUTABLE, ACCESS_CONTROL, NO_CACHE, ENUM = (1 << bit for bit in range(6))
"""Bits of ClassData.flags."""


def pack_name(name: str) -> str:
    """A field name as it is stored: itself, or, if it has lone surrogates, NUL and its surrogatepass UTF-8 bytes as
    Latin-1."""
    try:
        name.encode()
        if not name.startswith("\0"):
            return str(name)
    except UnicodeEncodeError:
        pass
    return "\0" + name.encode("utf-8", "surrogatepass").decode("latin-1")


def unpack_name(stored: str) -> str:
    """The field name that :func:`pack_name` stored. UnicodeError when it did not."""
    return sys.intern(
        stored[1:].encode("latin-1").decode("utf-8", "surrogatepass") if stored.startswith("\0") else stored
    )


class _Schema(Persistent):  # type: ignore[misc]
    """State in one slot, as for every record of the machinery."""

    __slots__ = ("_data",)
    KIND: ClassVar[int]
    _data: Any
    _p_encode: Any
    _p_decode: Any

    def _p_clear(self) -> None:
        _set_data(self, None)

    def _p_save(self) -> bytes:
        payload: bytes = self._p_encode()[0]
        return payload

    def _p_restore(self, saved: bytes) -> None:
        self._p_decode(saved)

    def _p_reverted(self) -> None:
        self._p_view.schema_reverted()

    def _corrupt(self, problem: object) -> CorruptError:
        return CorruptError(
            f"prefix {self._p_view.name!r}, object {self._p_oid}: damaged {type(self).__name__} ({problem}); "
            f"run a check of the prefix and restore it from a copy"
        )

    def _body(self, payload: bytes) -> bytes:
        if not payload or payload[0] != self.KIND:
            raise self._corrupt(f"kind {payload[0] if payload else None} instead of {self.KIND}")
        return payload[1:]


_set_data: Callable[[_Schema, Any], None] = cast(Any, _Schema.__dict__["_data"]).__set__


_Parts = tuple[ClassData, list[tuple[str, ...]], dict[tuple[str, ...], int]]  # shapes, and their numbers


def _parts(data: ClassData) -> _Parts:
    shapes = [tuple(unpack_name(name) for name in shape) for shape in data.shapes]
    return data, shapes, {shape: number for number, shape in enumerate(shapes, 1)}


def _class_of(body: bytes) -> _Parts:
    """What a stored class record says. ValueError, or what the codec raises."""
    data = _decode_class(body)
    if min(data.bases, default=kinds.FIRST_OID) < kinds.FIRST_OID or not (
        data.singleton == 0 or kinds.FIRST_OID <= data.singleton < 1 << 48
    ):
        raise ValueError("an object id out of range")
    return _parts(data)


# Each snapshot reads the records of the classes it meets; nothing in a snapshot is ever changed, so they can share.
_class_of_the_past = lru_cache(maxsize=256)(_class_of)


class ClassRecord(_Schema):
    """One class of a prefix. Its singleton, if any, is held by it."""

    __slots__ = ("_numbers", "_shapes")
    KIND = kinds.CLASS_RECORD
    _data: ClassData
    _shapes: list[tuple[str, ...]]
    _numbers: dict[tuple[str, ...], int]

    @classmethod
    def make(cls, view: Any, data: ClassData) -> ClassRecord:
        """A new class record in a writable view."""
        record = cls.__new__(cls)
        record._fill(data)
        return cast(ClassRecord, view.adopt(record))

    def _fill(self, data: ClassData) -> None:
        self._take(_parts(data))

    def _take(self, parts: _Parts) -> None:
        data, self._shapes, self._numbers = parts
        _set_data(self, data)

    def _p_encode(self) -> tuple[bytes, list[int]]:
        data = self._data
        return bytes((self.KIND,)) + _encode(data), [data.singleton] if data.singleton else []

    def _p_decode(self, payload: bytes) -> None:
        body = self._body(payload)
        try:
            self._take(_class_of_the_past(body) if self._p_view.frozen else _class_of(body))
        except (msgspec.MsgspecError, ValueError, RecursionError, MemoryError) as error:
            raise self._corrupt(error) from None

    @property
    def data(self) -> ClassData:
        """What is recorded. Not to be changed by the caller."""
        return self._data

    @property
    def field_names(self) -> list[str]:
        """Every name in a shape, oldest first."""
        return list(dict.fromkeys(name for shape in self._shapes for name in shape))

    def shape(self, number: int) -> tuple[str, ...]:
        """The names of shape `number` (from 1). CorruptError when there is none."""
        shapes = self._shapes
        if not 0 < number <= len(shapes):
            raise self._corrupt(f"no shape {number}")
        return shapes[number - 1]

    def number(self, names: tuple[str, ...]) -> int:
        """The number of a shape, appended if it is new; 0 if it is given none."""
        number = self._numbers.get(names)
        if number is not None:
            return number
        if len(names) > MAX_SHAPE or len(self._shapes) >= MAX_SHAPES:
            return 0
        self._p_changed()
        self._data.shapes.append([pack_name(name) for name in names])
        self._shapes.append(names)
        self._numbers[names] = len(self._shapes)
        return len(self._shapes)

    def type_exists(self) -> bool:
        """Whether the Python class is known in this process."""
        return self._data.key in kinds.classes

    def type(self) -> type:
        """The Python class. ClassNotFoundError when this process does not know it."""
        found = kinds.classes.get(self._data.key)
        if found is None:
            raise ClassNotFoundError(f"the class {self._data.module}.{self._data.qualname} is not imported here")
        return found

    def type_info(self) -> dict[str, object]:
        """Module, name and whether it is a singleton."""
        data = self._data
        return {"module": data.module, "name": data.qualname, "singleton": bool(data.flags & SINGLETON)}

    def get_attributes(self) -> list[tuple[str, int]]:
        """(name, number) of every stored field."""
        return [(name, number) for number, name in enumerate(self.field_names)]

    def append_shape(self, names: list[str]) -> None:
        """Append a shape whatever its size: the values that an enum got since the last one."""
        self._p_changed()
        self._data.shapes.append([pack_name(name) for name in names])
        self._fill(self._data)

    def set_singleton(self, oid: int) -> None:
        """Record the class's one instance; 0: none any more."""
        self._p_changed()
        self._data.singleton = oid


class Catalogue(_Schema):
    """Class key -> class OID."""

    __slots__ = ()
    KIND = kinds.CATALOGUE
    _data: dict[str, int]

    @classmethod
    def make(cls, view: Any) -> Catalogue:
        """The catalogue of a fresh prefix."""
        catalogue = cls.__new__(cls)
        _set_data(catalogue, {})
        return cast(Catalogue, view.adopt(catalogue, kinds.CATALOGUE_OID))

    def _p_encode(self) -> tuple[bytes, list[int]]:
        return bytes((self.KIND,)) + _encode(self._data), list(self._data.values())

    def _p_decode(self, payload: bytes) -> None:
        try:
            data = _decode_names(self._body(payload))
        except (msgspec.MsgspecError, ValueError, RecursionError, MemoryError) as error:
            raise self._corrupt(error) from None
        if any(not kinds.FIRST_OID <= oid < 1 << 48 for oid in data.values()):
            raise self._corrupt("an object id out of range")
        _set_data(self, data)

    def find(self, key: str) -> int:
        """The OID of the class record of `key`, or 0."""
        return self._data.get(key, 0)

    def items(self) -> list[tuple[str, int]]:
        """(class key, class OID) of every class, oldest first."""
        return list(self._data.items())

    def add(self, key: str, oid: int) -> None:
        """Enter a class."""
        self._p_changed()
        self._data[key] = oid


kinds.register(kinds.CLASS_RECORD, ClassRecord)
kinds.register(kinds.CATALOGUE, Catalogue)
