"""Values to bytes and back: MessagePack (msgspec), with extension types for what it does not know.

Exact None, bool, int (64 bits), float, str and bytes are native. Everything else is an extension:

====  ================  ===============================================================================================
code  value             data
====  ================  ===============================================================================================
1     reference         8 bytes: OID 5, class code 3; or 16 bytes: OID 8, class code 8
2     int               two's complement, little endian, as long as it needs
3     str               UTF-8 with lone surrogates (surrogatepass)
4     date              proleptic ordinal, 4 bytes
5     datetime          microseconds since 0001-01-01 of the wall time, 8 bytes; fold, 1 byte; zone
6     time              microseconds since midnight, 8 bytes; fold, 1 byte; zone
7     timedelta         microseconds, 16 bytes signed
8     Decimal           its exact text
9     UUID              16 bytes, big endian
10    complex           two doubles
30    range             start, stop, step as a MessagePack array; a number beyond 64 bits is its hexadecimal text
31    path              one byte for the class (see _PATHS), then its text
32    weak reference    prefix uuid 8, OID 8, class key
33    name              of a module, class or function: see :mod:`dbzero.model.named`
34    memo class        OID of its class record, 8 bytes; held like an object
35    frozenset         a composite
36    tuple             a composite; only inside a frozenset
37    Enum member       MessagePack array: the class's name as in 33, the member's name (a Flag's number)
38    namedtuple        a composite with the class's name as in 33
39    numpy array       MessagePack array: dtype, shape ([-1] for a scalar), elements
40    enum value        OID of the enum's record, 8 bytes; place of the value in its definition, 4 bytes
====  ================  ===============================================================================================

A composite is: length of what is told of it, 1 to 10 bytes as LEB128; that; its parts as :func:`encode_values` writes
them. Values from 32 on are made when they are read (:mod:`dbzero.model.deferred`).

Class code: class OID, or the kind of a record if below 16, or 0. Zone: nothing (naive); or 1, offset in microseconds
(8 bytes, signed), then the name if it has one of its own behind a 1 byte; or 2, offset, the key of a ZoneInfo. All
integers are little endian. The offset of a ZoneInfo is what its instant had when it was written: it is used where that
zone is not known.

Decoding makes values and ghosts and never imports or calls anything the data names. Whatever is wrong with the data
is a CorruptError.
"""

from __future__ import annotations

import datetime as dt
import pathlib
import struct
import uuid
import zoneinfo
from collections.abc import Callable, Collection
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from dbzero.errors import CorruptError, UnsupportedTypeError
from dbzero.model import base, deferred, kinds
from dbzero.model.base import decode_ordinary
from dbzero.model.deferred import COMPOSITES, MEMO_CLASS, Deferred

if TYPE_CHECKING:
    from dbzero.model.view import View

ATOMS = frozenset((type(None), bool, int, float, str, bytes))
"""Exact types that are stored natively."""

REFERENCE, BIG_INT, WILD_STR, DATE, DATETIME, TIME, TIMEDELTA, DECIMAL, UUID, COMPLEX = range(1, 11)
RANGE, PATH = 30, 31

encode_plain = _encode = msgspec.msgpack.Encoder().encode
decode_plain = msgspec.msgpack.Decoder().decode
_PATHS: tuple[type[pathlib.PurePath], ...] = (
    pathlib.PurePosixPath,
    pathlib.PureWindowsPath,
    pathlib.PosixPath,
    pathlib.WindowsPath,
)
_Ext = msgspec.msgpack.Ext
_Persistent = base.Persistent
_EPOCH = dt.datetime(1, 1, 1)
_MICROSECOND = dt.timedelta(microseconds=1)
_NATIVE_DECODED = frozenset(
    (type(None), bool, int, float, str, bytes, dt.date, dt.datetime, dt.time, dt.timedelta)
).union((Decimal, uuid.UUID, complex, range, Deferred), _PATHS)

# --- to bytes --------------------------------------------------------------------------------------------------------


def encode_values(values: Collection[Any]) -> tuple[bytes, list[int]]:
    """Encode stored values as one MessagePack array.

    Args:
        values: what :func:`dbzero.model.values.convert` lets through: atoms, the extension types above, and objects
            of one view.

    Returns:
        The bytes, and the OIDs of the objects referred to, in order, duplicates counted; references to deleted
        objects are kept but not counted.

    Raises:
        UnsupportedTypeError: a value is of another type.
    """
    done: tuple[bytes, list[int]] | None = base.encode_ordinary(values)
    if done is not None:
        return done
    refs: list[int] = []
    if ATOMS.issuperset(map(type, values)):
        plain = values if type(values) is list else list(values)
    else:
        plain = [value if type(value) in ATOMS else _wrap(value, refs) for value in values]
    try:
        return _encode(plain), refs
    except (OverflowError, UnicodeEncodeError):
        return _encode([_wrap_extreme(value) for value in plain]), refs


def _wrap_extreme(value: Any) -> Any:
    if type(value) is int and not -(1 << 63) <= value < 1 << 63:
        return _Ext(BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
    if type(value) is str:
        try:
            value.encode()
        except UnicodeEncodeError:
            return _Ext(WILD_STR, value.encode("utf-8", "surrogatepass"))
    return value


def _wrap(value: Any, refs: list[int]) -> Any:
    if isinstance(value, _Persistent):
        return _wrap_reference(value, refs)
    wrap = _WRAPPERS.get(type(value))
    if wrap is not None:
        return wrap(value)
    if type(value) is Deferred:
        return _wrap_deferred(value, refs)
    described = deferred.describe(value)
    if described is None:
        raise UnsupportedTypeError(f"a value of type {type(value).__qualname__} cannot be stored")
    return _Ext(*described)


def _wrap_deferred(value: Deferred, refs: list[int]) -> Any:
    data = value.data
    if value.parts is not None:
        body, held = encode_values(value.parts)
        refs += held
        return _Ext(value.code, varint(len(data)) + data + body)
    if value.code == MEMO_CLASS:
        refs.append(int.from_bytes(data, "little"))
    return _Ext(value.code, data)


def _wrap_reference(value: Any, refs: list[int]) -> Any:
    oid = value._p_oid
    flags = value._p_flags
    view = value._p_view
    if flags & (base.EXPIRED | base.INIT):
        if flags & base.EXPIRED:
            return _Ext(REFERENCE, struct.pack("<QQ", oid, 0))
        view.admit_unfinished(value)
    refs.append(oid)
    code = view.class_code(value) if flags & base.MEMO else type(value).KIND
    if type(value) is not kinds.unknown:
        view.codes[type(value)] = code
    if oid < 1 << 40 and code < 1 << 24:
        return _Ext(REFERENCE, (oid | code << 40).to_bytes(8, "little"))
    return _Ext(REFERENCE, struct.pack("<QQ", oid, code))


def _zone(value: dt.datetime | dt.time) -> bytes:
    zone = value.tzinfo
    if zone is None:
        return b""
    offset = value.utcoffset()
    if type(zone) is zoneinfo.ZoneInfo and zone.key is not None:
        return struct.pack("<Bq", 2, 0 if offset is None else offset // _MICROSECOND) + zone.key.encode()
    if type(zone) is not dt.timezone or offset is None:
        raise UnsupportedTypeError(
            f"a time zone of type {type(zone).__qualname__} cannot be stored: use zoneinfo.ZoneInfo or "
            f"datetime.timezone"
        )
    head = struct.pack("<Bq", 1, offset // _MICROSECOND)
    named = zone.__getinitargs__()  # type: ignore[attr-defined]
    return head + b"\1" + named[1].encode("utf-8", "surrogatepass") if len(named) > 1 else head


def _wrap_datetime(value: dt.datetime) -> Any:
    return _Ext(
        DATETIME, struct.pack("<QB", (value.replace(tzinfo=None) - _EPOCH) // _MICROSECOND, value.fold) + _zone(value)
    )


def _wrap_time(value: dt.time) -> Any:
    since = ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond
    return _Ext(TIME, struct.pack("<QB", since, value.fold) + _zone(value))


def _wrap_range(value: range) -> Any:
    numbers = (value.start, value.stop, value.step)
    return _Ext(RANGE, _encode([n if -(1 << 63) <= n < 1 << 63 else hex(n) for n in numbers]))


def _wrap_path(value: pathlib.PurePath) -> Any:
    return _Ext(PATH, bytes((_PATHS.index(type(value)),)) + str(value).encode("utf-8", "surrogatepass"))


_WRAPPERS: dict[type, Callable[[Any], Any]] = {
    dt.date: lambda value: _Ext(DATE, struct.pack("<I", value.toordinal())),
    dt.datetime: _wrap_datetime,
    dt.time: _wrap_time,
    dt.timedelta: lambda value: _Ext(TIMEDELTA, (value // _MICROSECOND).to_bytes(16, "little", signed=True)),
    Decimal: lambda value: _Ext(DECIMAL, str(value).encode()),
    uuid.UUID: lambda value: _Ext(UUID, value.bytes),
    complex: lambda value: _Ext(COMPLEX, struct.pack("<dd", value.real, value.imag)),
    range: _wrap_range,
    **dict.fromkeys(_PATHS, _wrap_path),
}

EXTENDED = frozenset(_WRAPPERS)
"""Exact types, beside the atoms, whose values can be stored."""


# --- from bytes ------------------------------------------------------------------------------------------------------


def make_decoder(view: View | None) -> Callable[[bytes | memoryview], Any]:
    """A decoder of MessagePack whose references become ghosts of `view` (None: references are corrupt)."""

    def extension(code: int, data: memoryview) -> Any:
        if code == REFERENCE and view is not None:
            return _reference(view, data)
        bound = _VIEW_READERS.get(code)
        if bound is not None and view is not None:
            return bound(view, bytes(data))
        read = _READERS.get(code)
        if read is not None:
            return read(bytes(data))
        if view is not None and code in deferred.resolvers:
            return _read_deferred(view, code, bytes(data))
        raise ValueError(f"unknown extension {code}")

    return msgspec.msgpack.Decoder(ext_hook=extension).decode


def decode_values(view: View, data: bytes | memoryview) -> list[Any]:
    """The values of :func:`encode_values`'s bytes. References become ghosts of `view` (or the live objects).
    CorruptError when anything is wrong."""
    if type(data) is bytes:
        ordinary: list[Any] | None = decode_ordinary(view, data, 0, view.types())
        if ordinary is not None:
            return ordinary
    try:
        values = view.decoder(data)
        if type(values) is list and (
            ATOMS.issuperset(map(type, values))
            or all(type(value) in _NATIVE_DECODED or isinstance(value, _Persistent) for value in values)
        ):
            return values
        problem = "not an array of storable values"
    except CorruptError:
        raise
    except (
        msgspec.MsgspecError,
        ValueError,
        ArithmeticError,
        TypeError,
        struct.error,
        RecursionError,
        MemoryError,
    ) as error:
        problem = str(error)
    raise CorruptError(
        f"prefix {view.name!r}: damaged values ({problem}); run a check of the prefix and restore it from a copy"
    )


def _read_deferred(view: View, code: int, data: bytes) -> Deferred:
    parts: tuple[Any, ...] | None = None
    if code in COMPOSITES:
        length, at = read_varint(data, 0)
        if length > len(data) - at:
            raise ValueError("a damaged composite value")
        parts = tuple(decode_values(view, data[at + length :]))
        data = data[at : at + length]
    deferred.checkers[code](data)
    return Deferred(view, code, data, parts)


def _reference(view: View, data: memoryview) -> Any:
    if len(data) == 8:
        both = int.from_bytes(data, "little")
        oid, code = both & 0xFFFFFFFFFF, both >> 40
    elif len(data) == 16:
        oid, code = struct.unpack("<QQ", data)
    else:
        raise ValueError("a reference of wrong length")
    if not kinds.FIRST_OID <= oid < 1 << 48:
        raise ValueError(f"a reference to object {oid}")
    return view.reference(oid, code)


def _read_zone(data: bytes) -> dt.tzinfo | None:
    if not data:
        return None
    kind, micro = struct.unpack_from("<Bq", data)
    rest = data[9:]
    offset = dt.timedelta(microseconds=micro)
    if kind == 1:
        if not rest:
            return dt.timezone(offset)
        if rest[0] != 1:
            raise ValueError("a damaged time zone")
        return dt.timezone(offset, rest[1:].decode("utf-8", "surrogatepass"))
    if kind != 2:
        raise ValueError("an unknown kind of time zone")
    key = rest.decode()
    try:
        return zoneinfo.ZoneInfo(key)
    except (zoneinfo.ZoneInfoNotFoundError, OSError):
        return dt.timezone(offset, key)


def _read_datetime(data: bytes) -> dt.datetime:
    since, fold = struct.unpack_from("<QB", data)
    if since >= 1 << 62:
        raise ValueError("a datetime out of range")
    return (_EPOCH + dt.timedelta(microseconds=since)).replace(fold=fold, tzinfo=_read_zone(data[9:]))


def _read_time(data: bytes) -> dt.time:
    since, fold = struct.unpack_from("<QB", data)
    seconds, micro = divmod(since, 1_000_000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return dt.time(hour, minute, second, micro, fold=fold, tzinfo=_read_zone(data[9:]))


def _read_range(data: bytes) -> range:
    numbers = decode_plain(data)
    if type(numbers) is not list or len(numbers) != 3 or not {int, str}.issuperset(map(type, numbers)):
        raise ValueError("a damaged range")
    return range(*[int(n, 16) if type(n) is str else n for n in numbers])


def _read_path(data: bytes) -> pathlib.PurePath:
    if not data or data[0] >= len(_PATHS):
        raise ValueError("a damaged path")
    cls = _PATHS[data[0]]
    text = data[1:].decode("utf-8", "surrogatepass")
    try:
        return cls(text)
    except (NotImplementedError, TypeError):  # a path of another system: as a pure one
        return _PATHS[data[0] & 1](text)


def _read_decimal(data: bytes) -> Decimal:
    return Decimal(data.decode("ascii"))


_READERS: dict[int, Callable[[bytes], Any]] = {
    BIG_INT: lambda data: int.from_bytes(data, "little", signed=True),
    WILD_STR: lambda data: data.decode("utf-8", "surrogatepass"),
    DATE: lambda data: dt.date.fromordinal(struct.unpack("<I", data)[0]),
    DATETIME: _read_datetime,
    TIME: _read_time,
    TIMEDELTA: lambda data: dt.timedelta(microseconds=int.from_bytes(data, "little", signed=True)),
    DECIMAL: _read_decimal,
    UUID: lambda data: uuid.UUID(bytes=data),
    COMPLEX: lambda data: complex(*struct.unpack("<dd", data)),
    RANGE: _read_range,
    PATH: _read_path,
}

_VIEW_READERS: dict[int, Callable[[View, bytes], Any]] = {}


def register_value(kind: type, code: int, wrap: Callable[[Any], bytes], read: Callable[[View, bytes], Any]) -> None:
    """Add an extension whose values belong to a view.

    Args:
        kind: exact type of the values. code: of the extension. wrap: value -> data. read: (view, data) -> value.
    """
    global _NATIVE_DECODED
    _WRAPPERS[kind] = lambda value: _Ext(code, wrap(value))
    _VIEW_READERS[code] = read
    _NATIVE_DECODED |= {kind}


# --- small numbers ---------------------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    """LEB128 of a non-negative int."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """(number, position behind it). ValueError when it is cut or longer than 64 bits."""
    number = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("a damaged number")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
