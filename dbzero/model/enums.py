"""Enums: named values that are equal in every prefix and process.

A value stands in a record as OID of its enum's record and its place there; the enum's record is a class record whose
shapes are the definition, one shape for each time that it got longer. Places never change, so a definition may be
extended or reordered later. A record is made when the first value of the enum is stored in a prefix; until then, and
wherever it can't be (nothing open, or a read-only prefix that lacks it), the value is *unmaterialised*: it compares,
hashes and is stored like the other form.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, overload

from xxhash import xxh3_64_intdigest

from dbzero.errors import Error, NotInitializedError, UnknownEnumValueError
from dbzero.model import kinds, scope
from dbzero.model.base import operation
from dbzero.model.catalog import ENUM, ClassData, ClassRecord, pack_name
from dbzero.model.codec import register_value
from dbzero.model.memo import MAIN, main_name
from dbzero.model.view import View

EXTENSION = 40  # code in the codec
KEY_MARK = "~"  # first character of an enum's key in the catalogue

_set = object.__setattr__


class _Value:
    """What both forms of an enum value have in common: equality by enum and name."""

    __slots__ = ("__weakref__", "_code", "_hash", "_key", "_name", "_place", "_prefix")
    _key: str
    _name: str
    _hash: int
    _code: int  # OID of the enum's record; 0: none yet
    _place: int
    _prefix: tuple[str, int] | None  # name and uuid

    def __init__(self, key: str, name: str, prefix: tuple[str, int] | None) -> None:
        _set(self, "_key", key)
        _set(self, "_name", name)
        _set(self, "_prefix", prefix)
        _set(self, "_hash", hash((key, name)))
        _set(self, "_code", 0)
        _set(self, "_place", 0)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Value) and other._name == self._name and other._key == self._key)

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        return self._name

    def __format__(self, spec: str) -> str:
        return format(self._name, spec)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("enum values cannot be changed")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("enum values cannot be changed")

    def __reduce__(self) -> NoReturn:
        raise TypeError("enum values cannot be pickled: pass their names")

    def _p_stable_hash(self) -> int:
        return xxh3_64_intdigest(f"{self._key}\0{self._name}".encode("utf-8", "surrogatepass"), 6) >> 1


class EnumValue(_Value):
    """A value of an enum, on the prefix that it was read from or is made for."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<EnumValue {self._key.rpartition(':')[2].rpartition('.')[2]}.{self._name}>"


class EnumValueRepr(_Value):
    """A value of an enum without a prefix. Equal to the other form; storing it stores that."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<EnumValue ???.{self._name}>"


class EnumType:
    """What ``db0.enum`` returns: its values by attribute, by name in brackets, or by position.

    >>> import dbzero as db0
    >>> Color = db0.enum("Color", ["RED", "BLUE"])
    >>> isinstance(Color, db0.EnumType), len(Color), str(Color.RED)
    (True, 2, 'RED')
    """

    __slots__ = ("__weakref__", "_key", "_members", "_names", "_scope")
    _key: str
    _names: list[str]
    _members: dict[str, EnumValueRepr]
    _scope: str | None

    def __init__(self, key: str, names: list[str], prefix: str | None) -> None:
        _set(self, "_key", key)
        _set(self, "_names", names)
        _set(self, "_members", {name: EnumValueRepr(key, name, None) for name in names})
        _set(self, "_scope", prefix)

    def __getattribute__(self, name: str) -> Any:
        read = object.__getattribute__
        if name[:2] != "__" and name in read(self, "_members"):
            return member(self, name)
        return read(self, name)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"enum {type_name(self)} has no value {name!r}")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("enums cannot be changed")

    def __getitem__(self, which: str | int) -> Any:
        members = object.__getattribute__(self, "_members")
        if isinstance(which, str):
            if which not in members:
                raise UnknownEnumValueError(f"enum {type_name(self)} has no value {which!r}")
            return member(self, which)
        return member(self, list(members)[which])

    def __len__(self) -> int:
        return len(object.__getattribute__(self, "_members"))

    def __iter__(self) -> Iterator[Any]:
        return iter([member(self, name) for name in object.__getattribute__(self, "_members")])

    def __contains__(self, value: object) -> bool:
        return any(value == own for own in object.__getattribute__(self, "_members").values())

    def __repr__(self) -> str:
        return f"<Enum {type_name(self)}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("enum types cannot be pickled")

    def values(self) -> tuple[Any, ...]:
        """All values in the order of the definition."""
        return tuple(self)


definitions: dict[str, EnumType] = {}
"""Key -> enum defined in this process."""


def type_key(enum: EnumType) -> str:
    """What an enum is recorded under."""
    return str(object.__getattribute__(enum, "_key"))


def type_name(enum: EnumType) -> str:
    """An enum's name without its module."""
    return type_key(enum).rpartition(":")[2]


def type_prefix(enum: EnumType) -> str | None:
    """The prefix that an enum's values live on; None: the current one."""
    found: str | None = object.__getattribute__(enum, "_scope")
    return found


def member(enum: EnumType, name: str) -> EnumValue | EnumValueRepr:
    """A value of an enum in the prefix that it belongs to now."""
    plain: EnumValueRepr = object.__getattribute__(enum, "_members")[name]
    prefix = type_prefix(enum)
    if prefix is None:
        view = scope.current_or_none()
    else:
        try:
            view = scope.view_of(prefix, False)
        except NotInitializedError:
            view = None
    if view is None or view.closed:
        return plain
    found: EnumValue | None = view.enum_values.get((plain._key, name))
    if found is not None:
        return found
    if not view.writable:
        record = _record(view, plain._key)
        if record is None or name not in record.field_names:
            return plain
    return _value(view, plain._key, name)


def _record(view: View, key: str) -> ClassRecord | None:
    catalogue = view.catalogue
    oid = 0 if catalogue is None else catalogue.find(key)
    return view.class_record(oid) if oid else None


def _value(view: View, key: str, name: str) -> EnumValue:
    found = view.enum_values.get((key, name))
    if found is None:
        made = EnumValue(key, name, (view.name, view.records.uuid))
        found = view.enum_values.setdefault((key, name), made)
    return found  # type: ignore[no-any-return]


def bind(view: View, value: EnumValue | EnumValueRepr) -> EnumValue:
    """The value as it is stored in `view`. Enters its enum, or what that lacks, in the catalogue. ReadOnlyError."""
    key, name = value._key, value._name
    found = _value(view, key, name)
    if found._code:
        return found
    with operation:
        record = _record(view, key)
        names = [] if record is None else record.field_names
        if record is None or name not in names:
            defined = definitions.get(key)
            wanted = [] if defined is None else object.__getattribute__(defined, "_names")
            missing = [one for one in dict.fromkeys((*wanted, name)) if one not in names]
            if record is None:
                module, _, qualname = key[len(KEY_MARK) :].rpartition(":")
                shapes = [[pack_name(one) for one in missing]]
                record = view.enter(ClassData(key, module, qualname, ENUM, [], 0, shapes))
            else:
                record.append_shape(missing)
            names = record.field_names
        _place(view, found, record._p_oid, names.index(name))
    return found


def place_of(view: View, key: str, name: str, enter: bool) -> tuple[int, int] | None:
    """How a value stands in records of `view`: OID of its enum's record, and its place there.

    Args:
        enter: enter the value when the prefix does not have it yet (ReadOnlyError); otherwise give None for it.
    """
    found: EnumValue | None = view.enum_values.get((key, name))
    if found is None or not found._code:
        if enter:
            found = bind(view, EnumValueRepr(key, name, None) if found is None else found)
        else:
            record = _record(view, key)
            names = [] if record is None else record.field_names
            if record is None or name not in names:
                return None
            found = _value(view, key, name)
            _place(view, found, record._p_oid, names.index(name))
    return found._code, found._place


def _place(view: View, value: EnumValue, code: int, place: int) -> None:
    _set(value, "_place", place)
    _set(value, "_code", code)
    view.enum_values[code, place] = value


def _read(view: View, data: bytes) -> EnumValue:
    code, place = struct.unpack("<QI", data)
    found: EnumValue | None = view.enum_values.get((code, place))
    if found is None:
        if not kinds.FIRST_OID <= code < 1 << 48:
            raise ValueError("an enum value of no enum")
        record = view.class_record(code)
        names = record.field_names
        if not record.data.flags & ENUM or place >= len(names):
            raise ValueError("an enum value that its enum does not have")
        found = _value(view, record.data.key, names[place])
        _place(view, found, code, place)
    return found


def _write(value: EnumValue) -> bytes:
    return struct.pack("<QI", value._code, value._place)


register_value(EnumValue, EXTENSION, _write, _read)
kinds.binders[EnumValue] = bind
kinds.binders[EnumValueRepr] = bind


@overload
def enum(name: str, values: list[str], prefix: str | None = None) -> EnumType: ...


@overload
def enum(*, values: list[str], prefix: str | None = None) -> Callable[[type], EnumType]: ...


def enum(name: Any = None, values: Any = None, prefix: str | None = None) -> Any:
    """Define an enum: ``enum("Color", ["RED", "BLUE"])``, or as the decorator of a class whose name it takes.

    Args:
        name: of the enum. values: a list of distinct str, at least one. prefix: where its values live; None: on the
            current prefix, whichever that is when a value is used.

    Returns:
        The enum. The same name in the same module with the same values gives the same one again. In a later process the
        definition may have further values.

    Raises:
        TypeError: `values` is no list of str. Error: it is defined already with different values.

    >>> import dbzero as db0
    >>> Color = db0.enum("Color", ["RED", "BLUE"])
    >>> str(Color.RED), Color["BLUE"] == Color[1], len(Color)
    ('RED', True, 2)
    """
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise TypeError("the values of an enum must be a list of str with at least one element")
    if len(set(values)) != len(values):
        raise ValueError("the values of an enum must be distinct")
    if prefix is not None and not isinstance(prefix, str):
        raise TypeError(f"prefix must be a str or None, not {type(prefix).__name__}")
    if name is None:
        return lambda cls: _define(cls.__module__, cls.__qualname__, values, prefix)
    if not isinstance(name, str) or not name:
        raise TypeError("the name of an enum must be a non-empty str")
    module = sys._getframe(1).f_globals.get("__name__", "")
    return _define(module, name, values, prefix)


def _define(module: str, name: str, values: list[str], prefix: str | None) -> EnumType:
    key = f"{KEY_MARK}{main_name() if module in MAIN else module}:{name}"
    found = definitions.get(key)
    if found is not None:
        if object.__getattribute__(found, "_names") != values:
            raise Error(f"Enum type already defined with different values: {key[len(KEY_MARK) :]}")
        if type_prefix(found) != prefix:
            raise Error(f"Enum type already defined with another prefix: {key[len(KEY_MARK) :]}")
        return found
    return definitions.setdefault(key, EnumType(key, list(values), prefix))


def is_enum(value: object) -> bool:
    """Whether `value` is an enum made by ``db0.enum``.

    >>> import dbzero as db0
    >>> db0.is_enum(db0.enum("Side", ["LEFT", "RIGHT"]))
    True
    """
    return isinstance(value, EnumType)


def is_enum_value(value: object) -> bool:
    """Whether `value` is a value of an enum, in either form.

    >>> import dbzero as db0
    >>> db0.is_enum_value(db0.enum("Side", ["LEFT", "RIGHT"]).LEFT)
    True
    """
    return isinstance(value, _Value)
