"""The short ways in C do what the long ways in Python do."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
import xxhash
from hypothesis import example, given
from hypothesis import strategies as st

from dbzero.collections import keyed
from dbzero.collections.keys import stable_hash
from dbzero.errors import Error
from dbzero.model import base, codec, scope
from dbzero.model.base import operation
from dbzero.model.memo import memo
from dbzero.model.uuids import make_uuid, parse_uuid
from dbzero.model.view import View
from tests.collections.harness import MemoryRecords

EDGES = [
    0,
    1,
    127,
    128,
    255,
    256,
    65535,
    65536,
    2**32 - 1,
    2**32,
    2**63 - 1,
    -1,
    -32,
    -33,
    -128,
    -129,
    -32768,
    -32769,
    -(2**31),
    -(2**31) - 1,
    -(2**63),
]
atoms = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.sampled_from(EDGES))


def by_msgspec(values: list[Any]) -> bytes:
    return bytes(codec.encode_plain(values))


@given(st.lists(atoms, max_size=40))
def test_atoms_are_written_as_msgspec_writes_them(values: list[Any]) -> None:
    found = base.encode_ordinary(values)
    try:
        expected = by_msgspec(values)
    except (OverflowError, UnicodeEncodeError):
        assert found is None
        return
    if any(type(value) is int and value >= 1 << 63 for value in values):
        assert found is None  # msgspec has them, we leave them to it
    else:
        assert found == (expected, [])


@pytest.mark.parametrize("value", EDGES)
def test_every_width_of_int(value: int) -> None:
    assert base.encode_ordinary([value]) == (by_msgspec([value]), [])


@pytest.mark.parametrize("n", [0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536])
def test_every_width_of_length(n: int) -> None:
    for values in (["x" * n], [b"x" * n], [7] * n, ["é" * n]):
        assert base.encode_ordinary(values) == (by_msgspec(values), [])


@pytest.mark.parametrize("value", [1 << 63, -(1 << 63) - 1, "\ud800", (1,), [1], {}, object(), 1j])
def test_what_is_not_ordinary_is_left_alone(value: object) -> None:
    assert base.encode_ordinary([1, value]) is None


def test_subclasses_of_atoms_are_not_ordinary() -> None:
    class Number(int):
        pass

    assert base.encode_ordinary([Number(3)]) is None
    assert base.encode_ordinary((1, 2)) is None  # type: ignore[arg-type]


@memo(id="tests/ordinary/Item")
class Item:
    def __init__(self, a: object, b: object) -> None:
        self.a = a
        self.b = b


@pytest.fixture
def view() -> Any:
    made = View(MemoryRecords(), 1)
    scope.set_current(made)
    yield made
    scope.set_current(None)
    made.close()


@memo(id="tests/ordinary/Blank")
class Blank:
    a: Any


def unpacked(view: View, objects: list[Any]) -> dict[int, tuple[bytes, list[int]]]:
    rest, *packed = view.encode_ordinary(objects)
    oids, lengths, counts, refs = (list(memoryview(part).cast("Q")) for part in packed[:4])
    found = {}
    at = at_ref = 0
    for oid, length, count in zip(oids, lengths, counts, strict=True):
        found[oid] = (packed[4][at : at + length], refs[at_ref : at_ref + count])
        at, at_ref = at + length, at_ref + count
    assert at == len(packed[4]) and at_ref == len(refs)
    assert not {obj._p_oid for obj in rest} & set(found)
    return {**found, **{obj._p_oid: obj._p_encode() for obj in rest}}


def test_many_objects_are_encoded_as_each_alone(view: View) -> None:
    rng = random.Random(5)
    values = [None, True, -7, 1 << 70, 2.5, "text", "\ud800", b"raw", 1j]
    items: list[Any] = [Item(rng.choice(values), rng.choice(values)) for _ in range(300)]
    for item in items[:200]:
        item.b = rng.choice(items)
    for item in items[100:150]:
        item.more = rng.choice(items)  # a second shape
    for item in items[40:60]:
        del item.a
    items[7]._X__local = 1
    with operation:
        alone = {item._p_oid: item._p_encode() for item in items}
        together = unpacked(view, items)
        rest = view.encode_ordinary(items)[0]
    assert together == alone
    assert 0 < len(rest) < 250


def test_references_count_every_time(view: View) -> None:
    target = Item(1, 2)
    items = [Item(target, target) for _ in range(10)]
    with operation:
        items[0]._p_encode()
        assert unpacked(view, items)[items[3]._p_oid][1] == [target._p_oid] * 2
        body, refs = codec.encode_values([target, 1])
    assert refs == [target._p_oid]
    assert body[1:3] == b"\xd7\1" and struct.unpack("<Q", body[3:11])[0] & 0xFFFFFFFFFF == target._p_oid


def test_a_deleted_target_is_not_counted(view: View) -> None:
    target, holder = Item(1, 2), Item(0, 0)
    holder.a = target
    with operation:
        holder._p_encode()
        view.expire(target)
        assert unpacked(view, [holder])[holder._p_oid][1] == []


def test_find_live(view: View) -> None:
    item = Item(1, 2)
    name = make_uuid(view.uuid, item._p_oid)
    assert base.find_live(name) is item
    assert base.find_live(make_uuid(view.uuid + 1, item._p_oid)) is None
    assert base.find_live(make_uuid(view.uuid, item._p_oid + 1000)) is None
    for wrong in (name[:-1], name + "A", name.lower(), "", "\ud800" * 24, 5, None, Item, name[:10] + "1" + name[11:]):
        assert base.find_live(wrong) is None
    with operation:
        view.expire(item)
    assert base.find_live(name) is None


@given(st.integers(0, 2**64 - 1), st.integers(16, 2**48 - 5000), st.integers(0, 23), st.sampled_from("ABCXYZ234567"))
def test_find_live_takes_exactly_the_valid_uuids(prefix: int, oid: int, at: int, letter: str) -> None:
    records = MemoryRecords(uuid=prefix)
    records.next_oid = oid
    made = View(records, 1)
    scope.set_current(made)
    try:
        item = Item(1, 2)
        text = make_uuid(prefix, item._p_oid)
        assert base.find_live(text) is item
        changed = text[:at] + letter + text[at + 1 :]
        try:
            valid = parse_uuid(changed) == (prefix, item._p_oid)
        except Error:
            valid = False
        assert (base.find_live(changed) is item) == valid
    finally:
        scope.set_current(None)
        made.close()


def test_find_leaf_is_find(view: View) -> None:
    class Node(keyed.KeyedNode):
        __slots__ = ()
        KIND = 11

    rng = random.Random(6)
    marks = sorted({rng.randrange(-(2**63), 2**63) for _ in range(2000)})
    with operation:
        root = keyed.build(view, Node, [(mark, {mark: 1}) for mark in marks])
        for key in [rng.choice(marks) + rng.randrange(-2, 3) for _ in range(500)] + [-(2**63), 2**63 - 1]:
            _, expected = keyed.find_path(root, key)
            found = base.find_leaf(root, key)
            assert (found is expected) if -(2**63) <= key < 2**63 else found is None
            assert keyed.find(root, key) is expected


@given(
    st.one_of(
        st.integers(), st.booleans(), st.text(), st.sampled_from(["", "é", "\ud800", "x" * 1000, -1, 1 << 61, True])
    )
)
def test_stable_hash(form: Any) -> None:
    if type(form) is str:
        assert stable_hash(form) == xxhash.xxh3_64_intdigest(form.encode("utf-8", "surrogatepass"), 0) >> 1
    else:
        assert stable_hash(form) == hash(form)


@example([2**63], b"", False)
@given(st.lists(atoms, max_size=40), st.binary(max_size=3), st.booleans())
def test_fill_ordinary_reads_what_was_written(values: list[Any], head: bytes, cut: bool) -> None:
    made = View(MemoryRecords(), 1)
    scope.set_current(made)
    try:
        body = codec.encode_values(values)[0]
        names = tuple(f"n{i}" for i in range(len(values)))
        item = Blank()
        filled = base.fill_ordinary(item, names, head + body, len(head), None)
        if base.encode_ordinary(values) is not None:
            assert filled  # the encoder declines more: what it leaves to the codec may be ordinary to read (2**63 is)
        state = base.state(item)
        assert list(state) == (list(names) if filled else [])
        assert [repr(v) for v in state.values()] == ([repr(v) for v in values] if filled else [])
        other = Blank()
        for broken in (body + b"\0", body[:-1], b"", b"\xc1", body[:1] + b"\xc1" * len(values)):
            if broken != body:
                assert base.fill_ordinary(other, names, broken, 0, None) is False
        assert base.fill_ordinary(other, (*names, "more"), body, 0, None) is False
        assert base.fill_ordinary(other, names, body, len(body) + 1, None) is False
        assert base.state(other) == {}
    finally:
        scope.set_current(None)
        made.close()


@given(st.binary(max_size=60), st.integers(0, 5))
def test_fill_ordinary_agrees_with_msgspec_on_any_bytes(data: bytes, count: int) -> None:
    made = View(MemoryRecords(), 1)
    scope.set_current(made)
    try:
        item = Blank()
        data = bytes((0x90 | count,)) + data
        if base.fill_ordinary(item, tuple(f"n{i}" for i in range(count)), data, 0, None):
            assert repr(list(base.state(item).values())) == repr(codec.decode_values(made, data))
    finally:
        scope.set_current(None)
        made.close()


def test_bad_utf8_is_left_to_the_codec(view: View) -> None:
    item = Blank()
    assert base.fill_ordinary(item, ("a",), b"\x91\xa2\xff\xfe", 0, None) is False
    assert base.fill_ordinary(item, ("a",), b"\x91\xa2ok", 0, None) is True
    assert item.a == "ok"


@given(st.lists(st.one_of(atoms, st.integers(0, 4).map(lambda n: ("object", n))), max_size=40))
def test_references_are_read_as_by_the_codec(form: list[Any]) -> None:
    made = View(MemoryRecords(), 1)
    scope.set_current(made)
    try:
        items = [Item(n, n) for n in range(5)]
        values = [items[v[1]] if type(v) is tuple else v for v in form]
        with operation:
            body, refs = codec.encode_values(values)
            found = base.decode_ordinary(made, bytes(body), 0, made.types())
            by_codec = made.decoder(bytes(body))
            if found is not None:
                assert [repr(v) if not isinstance(v, Item) else v._p_oid for v in found] == [
                    repr(v) if not isinstance(v, Item) else v._p_oid for v in by_codec
                ]
            again = codec.decode_values(made, bytes(body))
        assert all(a is b if isinstance(b, Item) else repr(a) == repr(b) for a, b in zip(again, values, strict=True))
        assert list(refs) == [v._p_oid for v in values if isinstance(v, Item)]
        if any(isinstance(v, Item) for v in values):
            assert base.decode_ordinary(made, bytes(body), 0, None) is None
    finally:
        scope.set_current(None)
        made.close()


def test_damaged_references_are_left_to_the_codec(view: View) -> None:
    item = Item(1, 2)
    with operation:
        body = bytes(codec.encode_values([item, item])[0])
        code = int.from_bytes(body[3:11], "little") >> 40
        view.reference(item._p_oid, code)  # from here on the class is known by its code
        types = view.types()
        assert base.decode_ordinary(view, body, 0, types) == [item, item]
        for oid, number in ((5, code), (item._p_oid, code + 77)):
            broken = b"\x91\xd7\x01" + (oid | number << 40).to_bytes(8, "little")
            assert base.decode_ordinary(view, broken, 0, types) is None
            with pytest.raises(Error):
                codec.decode_values(view, broken)
        for broken in (
            body[:-1],
            body + b"\0",
            b"\x91\xd7\x02" + body[3:11],
            b"\xdd\xff\xff\xff\xff" + body[1:],
            b"\x93" + body[1:],
        ):
            assert base.decode_ordinary(view, broken, 0, types) is None
        with pytest.raises(TypeError):
            base.decode_ordinary(view, "text", 0, types)
        with pytest.raises(TypeError):
            base.decode_ordinary(None, body, 0, types)


def test_a_reference_to_an_object_of_another_class_is_left_to_the_codec(view: View) -> None:
    item, other = Item(1, 2), Blank()
    other.a = 1
    with operation:
        codes = {}
        for obj in (item, other):
            body = bytes(codec.encode_values([obj])[0])
            codes[type(obj)] = int.from_bytes(body[3:11], "little") >> 40
            view.reference(obj._p_oid, codes[type(obj)])
        wrong = b"\x91\xd7\x01" + (item._p_oid | codes[Blank] << 40).to_bytes(8, "little")
        assert base.decode_ordinary(view, wrong, 0, view.types()) is None
