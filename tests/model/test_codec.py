from __future__ import annotations

import datetime as dt
import math
import struct
import zoneinfo
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbzero.errors import CorruptError, Error, UnsupportedTypeError
from dbzero.model.codec import decode_values, encode_values, read_varint, varint
from dbzero.model.deferred import Deferred, resolved
from dbzero.model.view import View
from tests.model.memory import Memory

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"]
offsets = st.timedeltas(dt.timedelta(hours=-23, minutes=-59), dt.timedelta(hours=23, minutes=59))
zones = st.one_of(
    st.none(),
    st.just(dt.timezone.utc),
    st.builds(dt.timezone, offsets),
    st.builds(dt.timezone, offsets, st.text(max_size=5)),
    st.sampled_from(ZONES).map(zoneinfo.ZoneInfo),
)
wild_text = st.text(max_size=40) | st.text(st.sampled_from("a\0\xe9\u20ac\U0001f600\ud800\udfff"), max_size=10)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(1 << 200), 1 << 200),
    st.sampled_from([2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1]),
    st.floats(),
    wild_text,
    st.binary(max_size=40),
    st.dates(),
    st.datetimes(timezones=zones, allow_imaginary=True),
    st.times(timezones=zones),
    st.timedeltas(),
    st.decimals(),
    st.sampled_from(
        [
            Decimal("1E+5"),
            Decimal("-0"),
            Decimal("1.50"),
            Decimal("sNaN12"),
            Decimal("0.123456789123456789123456789"),
            Decimal("1E-999999"),
        ]
    ),
    st.uuids(),
    st.complex_numbers(),
)

NAMES = st.tuples(st.text(max_size=5), st.text(max_size=5)).map(lambda pair: "\0".join(pair).encode())


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b) or (math.isnan(a) and math.isnan(b))
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, Decimal):
        return a.as_tuple() == b.as_tuple()
    if isinstance(a, (dt.datetime, dt.time)):
        plain = a.replace(tzinfo=None) == b.replace(tzinfo=None) and a.fold == b.fold
        zone_a, zone_b = a.tzinfo, b.tzinfo
        if isinstance(zone_a, zoneinfo.ZoneInfo):
            return plain and zone_a is zone_b
        return plain and repr(zone_a) == repr(zone_b)
    return bool(a == b)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(values, max_size=8))
def test_round_trip_is_exact(items: list[Any]) -> None:
    view = View(Memory(), 1)
    data, refs = encode_values(items)
    assert refs == []
    back = decode_values(view, data)
    assert len(back) == len(items)
    assert all(same(a, b) for a, b in zip(items, back, strict=True)), (items, back)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_values_or_corrupt(data: bytes) -> None:
    try:
        back = decode_values(View(Memory(), 1), data)
    except CorruptError:
        return
    assert type(back) is list


@settings(max_examples=400, deadline=None)
@given(
    st.integers(1, 45),
    st.binary(max_size=40) | st.sampled_from("cmf").map(str.encode).flatmap(lambda k: NAMES.map(k.__add__)),
)
def test_any_extension_is_a_value_or_corrupt(code: int, data: bytes) -> None:
    view = View(Memory(), 1)
    try:
        [value] = decode_values(view, msgspec.msgpack.encode([msgspec.msgpack.Ext(code, data)]))
        resolved(value)
    except Error:
        pass


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x80",
        b"\x91",
        b"\x90\x90",
        b"\x91\x90",
        b"\x91\x80",
        b"\x91\x81\x90\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 5000,
        msgspec.msgpack.encode([dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc), {}]),
    ],
)
def test_foreign_structures_are_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptError, match="prefix 'mem'"):
        decode_values(View(Memory(), 1), data)


def test_an_unknown_zone_keeps_the_instant() -> None:
    head = struct.pack("<QB", 63_000_000_000_000_000, 0) + struct.pack("<Bq", 2, 3_600_000_000) + b"Mars/Olympus"
    [back] = decode_values(View(Memory(), 1), msgspec.msgpack.encode([msgspec.msgpack.Ext(5, head)]))
    assert back.utcoffset() == dt.timedelta(hours=1)


@pytest.mark.parametrize("code", range(30, 40))
@given(
    st.lists(st.one_of(st.integers(), st.text(max_size=3), st.binary(max_size=3)), max_size=4), st.binary(max_size=3)
)
def test_structured_extensions_are_values_or_corrupt(code: int, parts: list[Any], head: bytes) -> None:
    """What decodes is written again as it was, and reading it gives a value or one of our errors."""
    view = View(Memory(), 1)
    for data in (encode_values(parts)[0], varint(len(head)) + head + encode_values(parts)[0]):
        packed = msgspec.msgpack.encode([msgspec.msgpack.Ext(code, data)])
        try:
            [value] = decode_values(view, packed)
        except CorruptError:
            continue
        if type(value) is Deferred:
            assert encode_values([value])[0] == packed
            try:
                value.resolve()
            except Error:
                pass


def test_unsupported_types_are_refused() -> None:
    for value in (
        object(),
        [1],
        {},
        {1},
        (1,),
        bytearray(b"x"),
        memoryview(b"x"),
        slice(3),
        type("I", (int,), {})(3),
        Decimal.from_float,
    ):
        with pytest.raises(UnsupportedTypeError, match="cannot be stored"):
            encode_values([value])


@given(st.integers(0, 2**63))
def test_varint(number: int) -> None:
    data = varint(number)
    assert read_varint(b"x" + data + b"y", 1) == (number, 1 + len(data))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 11])
def test_damaged_varint(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_varint(data, 0)
