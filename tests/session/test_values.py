"""Values beyond atoms: stored, read at once, after eviction and after reopening, in every kind of container."""

from __future__ import annotations

import datetime as dt
import enum
import fractions
import functools
import json
import math
import pathlib
import re
import sys
import types
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dbzero as db0
from tests.model import samples
from tests.model.samples import Color, Holder, Level, Place, Plain, Point, Rights, Root, Scoped
from tests.worker import Worker

NAMED: list[Any] = [
    samples.double,
    samples.numbers,
    Plain.static,
    json.dumps,
    Plain,
    Plain.Inner,
    int,
    dict,
    type,
    dt.datetime,
    Color,
    enum.Enum,
    Holder,
    samples,
    json,
    math,
    Color.RED,
    Color.GREEN,
    Level.HIGH,
    Rights.READ,
    Rights.READ | Rights.WRITE,
    Rights(0),
]
WHOLE: list[Any] = [
    dt.timedelta(days=-3, microseconds=7),
    dt.timedelta.max,
    uuid.UUID(int=2**127 + 5),
    complex(1.5, -0.0),
    range(0),
    range(5, -7, -3),
    range(-(10**30), 10**30, 7),
    pathlib.Path("/tmp/a b"),
    pathlib.PurePosixPath("x/../y"),
    pathlib.PureWindowsPath("C:\\x\\y"),
    pathlib.Path("\udcff"),
    frozenset(),
    frozenset((1, "a", None, (2, (3, frozenset((4,)))), Color.RED, samples.double, 10**40)),
    Point(1, "x"),
    Point(Point(1, 2), frozenset((1,))),
    Place("here"),
]


def reopen(root: str, mode: str = "rw") -> None:
    db0.close()
    db0.init(root, autocommit=False)
    db0.open("main", mode)


def test_named_values_are_the_same_everywhere(store: str) -> None:
    top = Root()
    top.items = NAMED
    for i, value in enumerate(NAMED):
        setattr(top, f"value{i}", value)
    top.by_key = {value: i for i, value in enumerate(NAMED) if value is not Level.HIGH}
    top.group = {value for value in NAMED if value is not Level.HIGH}
    top.pair = (NAMED[0], [NAMED[1]])
    for step in range(3):
        if step == 1:
            db0.commit()
            db0.clear_cache()
        if step == 2:
            del top
            reopen(store, "r")
            top = Root()
        assert all(a is b for a, b in zip(top.items, NAMED, strict=True))
        assert all(a is b for a, b in zip(top.items[:], NAMED, strict=True))
        assert all(getattr(top, f"value{i}") is value for i, value in enumerate(NAMED))
        assert vars(top)["value3"] is json.dumps
        assert top.items.index(Plain) == NAMED.index(Plain) and samples.double in top.items
        assert top.items.count(json) == 1 and str not in top.items
        assert all(top.by_key[value] == i for i, value in enumerate(NAMED) if value is not Level.HIGH)
        assert set(top.by_key) == set(top.group) == {value for value in NAMED if value is not Level.HIGH}
        assert samples.double in top.group and len not in top.group and Level.LOW not in top.group
        assert top.pair[0] is NAMED[0] and top.pair[1][0] is NAMED[1]
        assert top.value0(4) == 8 and list(top.value1(3)) == [0, 1, 2]


def test_whole_values_are_equal_everywhere(store: str) -> None:
    top = Root()
    top.items = WHOLE
    top.values = {"k": WHOLE[12]}
    hashable = [value for value in WHOLE if type(value) not in (Point, Place)]
    top.group = set(hashable)
    top.by_key = dict.fromkeys(hashable, 1)
    for step in range(3):
        if step == 1:
            db0.commit()
            db0.clear_cache()
        if step == 2:
            del top
            reopen(store)
            top = Root()
        for read, value in zip(top.items, WHOLE, strict=True):
            assert type(read) is type(value) and read == value
        assert top.values["k"] == WHOLE[12] and top.values.get("k") == WHOLE[12]
        assert set(top.group) == set(hashable) == set(top.by_key)
        assert all(value in top.group and top.by_key[value] == 1 for value in hashable)
        assert frozenset((1,)) not in top.group
    top.items.sort(key=repr)
    assert [repr(value) for value in top.items] == sorted(map(repr, top.items))
    assert len(top.items) == len(WHOLE)
    top.items.reverse()
    assert top.by_key.pop(range(0)) == 1 and range(0) not in top.by_key
    top.group.remove(frozenset())
    assert frozenset() not in top.group


def test_a_namedtuple_holds_what_it_names(store: str) -> None:
    held = Holder(1)
    top = Root()
    top.place = Place("p", [held, 2])
    assert type(top.place) is Place and top.place.tags == [held, 2] and top.place is top.place
    top.place.tags.append(3)
    assert db0.getrefcount(held) == 1
    identity = db0.uuid(held)
    del held, top
    reopen(store)
    top = Root()
    assert top.place.tags[0] is db0.fetch(identity) and top.place.tags[2] == 3
    top.group = frozenset((top.place.tags[0], "x"))
    assert db0.getrefcount(db0.fetch(identity)) == 2
    top.place = None
    db0.commit()
    assert db0.getrefcount(db0.fetch(identity)) == 1
    top.group = None
    db0.commit()
    assert not db0.exists(identity)


def test_a_memo_class_is_referred_to(store: str) -> None:
    top = Root()
    assert db0.getrefcount(Holder) == 0
    top.cls = Holder
    top.items.append(Holder)
    assert db0.getrefcount(Holder) == 2
    db0.commit()
    assert db0.getrefcount(Holder) == 2 and top.cls is Holder
    top.cls = None
    db0.commit()
    db0.clear_cache()
    assert db0.getrefcount(Holder) == 1 and top.items[0] is Holder
    with pytest.raises(AttributeError, match="scoped"):
        top.cls = Scoped
    assert top.cls is None


@pytest.mark.parametrize(
    "value",
    [
        samples.anonymous,
        lambda: 0,
        samples.wrapped,
        len,
        math.sqrt,
        Plain().method,
        Plain.made,
        functools.partial(samples.double, 1),
        types.ModuleType("nowhere"),
        type("Nowhere", (), {}),
        list[int],
        object(),
        Plain(),
        bytearray(b"x"),
        memoryview(b"x"),
        fractions.Fraction(1, 2),
        dt.timezone.utc,
        slice(1),
        ...,
        NotImplemented,
        re.compile("x"),
        ValueError("x"),
        iter(()),
        frozenset((object(),)),
        Point(1, object()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_refused_values(store: str, value: object) -> None:
    held = Holder("before")
    with pytest.raises(AttributeError):
        held.value = value
    with pytest.raises(RuntimeError):
        Root().items.append(value)
    with pytest.raises(AttributeError):
        held.value = [1, {"a": value}]
    assert held.value == "before" and len(Root().items) == 0


def test_nested_functions_and_classes_are_refused(store: str) -> None:
    def function() -> None:
        pass

    class Nested:
        pass

    class Kind(enum.Enum):
        ONE = 1

    held = Holder("before")
    for bad in (function, Nested, Kind, Kind.ONE):
        with pytest.raises(AttributeError, match="nested"):
            held.value = bad
    assert held.value == "before"


WRITER = """
import sys, types
import dbzero as db0
module = types.ModuleType("vanishing")
exec('''
import dbzero as db0, enum, collections
class Shape(enum.Enum):
    ROUND = 1
P = collections.namedtuple("P", "a")
def work(): pass
@db0.memo
class Thing: pass
@db0.memo(singleton=True, id="tests/values/Root")
class Root:
    def __init__(self): self.items = []
''', vars(module))
for part in vars(module).values():
    if getattr(part, "__module__", None) in ("worker_code", "builtins") and hasattr(part, "__qualname__"):
        try:
            part.__module__ = "vanishing"
        except (AttributeError, TypeError):
            pass
module.P.__module__ = module.Shape.__module__ = module.work.__module__ = "vanishing"
sys.modules["vanishing"] = module
db0.init(root, autocommit=False)
db0.open("main")
top = module.Root()
top.items = [module.work, module.Shape.ROUND, module.P(1), module.Thing, module]
top.keep = 7
db0.close()
"""


def test_what_cannot_be_imported_hides_nothing_else(root: str) -> None:
    """Each such value raises a typed error of its own; everything beside it reads, and storing it again keeps it."""
    with Worker(root=root) as other:
        other.run(WRITER)
    assert "vanishing" not in sys.modules
    db0.init(root, autocommit=False)
    db0.open("main")
    top = Root()
    assert top.keep == 7 and len(top.items) == 5
    for i in range(5):
        with pytest.raises(db0.ClassNotFoundError, match="vanishing"):
            top.items[i]
    top.keep = 8
    top.items.append(1)
    db0.commit()
    db0.clear_cache()
    module = types.ModuleType("vanishing")
    module.work = samples.double  # type: ignore[attr-defined]
    module.Shape = 5  # type: ignore[attr-defined]
    sys.modules["vanishing"] = module
    try:
        assert top.items[0] is samples.double and top.items[4] is module and top.items[5] == 1
        for i in (1, 2, 3):
            with pytest.raises(db0.ClassNotFoundError):
                top.items[i]
    finally:
        del sys.modules["vanishing"]


def test_numpy_values(store: str) -> None:
    numpy = pytest.importorskip("numpy")
    arrays = [
        numpy.arange(12).reshape(3, 4),
        numpy.array([], dtype="f4"),
        numpy.zeros((0, 3)),
        numpy.array(3.5),
        numpy.array(["a", "bcd"]),
        numpy.array(["2020-01-01"], dtype="M8[D]"),
        numpy.arange(6, dtype=">i2")[::2],
        numpy.asfortranarray(numpy.eye(3)),
        numpy.float32(1.5),
        numpy.int64(-3),
        numpy.bool_(True),
        numpy.complex128(1j),
        numpy.str_("text"),
        numpy.str_(""),
    ]
    top = Root()
    top.items = arrays
    source = numpy.arange(3)
    top.array = source
    source[0] = 9
    top.group = {1, numpy.int64(1), numpy.float64(2.5)}
    for step in range(2):
        for read, value in zip(top.items, arrays, strict=True):
            assert type(read) is type(value) and read.dtype == value.dtype and read.shape == value.shape
            assert numpy.array_equal(read, value)
        assert top.array.tolist() == [0, 1, 2]
        with pytest.raises(ValueError):
            top.array[0] = 1
        assert top.group == {1, 2.5} and numpy.int64(1) in top.group
        if step == 0:
            del top
            reopen(store)
            top = Root()
    for bad in (numpy.array([object()]), numpy.zeros(1, dtype="i4,f8"), numpy.ma.masked_array([1])):
        with pytest.raises(AttributeError):
            top.array = bad
    assert top.array.tolist() == [0, 1, 2]


def test_numpy_is_not_imported(store: str) -> None:
    numpy = pytest.importorskip("numpy")
    top = Root()
    top.array = numpy.arange(3)
    top.keep = 1
    db0.close()
    with Worker(root=store) as other:
        found = other.run(
            """
            import sys, dbzero as db0
            @db0.memo(singleton=True, id="tests/values/Root")
            class Root:
                pass
            db0.init(root)
            db0.open("main", "r")
            top = Root()
            result = [top.keep, "numpy" in sys.modules]
            try:
                top.array
            except db0.ClassNotFoundError as error:
                result.append(str(error))
            import numpy
            result.append(top.array.tolist())
            """
        )
    assert found[:2] == [1, False] and "import numpy" in found[2] and found[3] == [0, 1, 2]


hashables = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.text(max_size=5),
        st.binary(max_size=5),
        st.sampled_from([value for value in NAMED if value is not Level.HIGH]),
        st.builds(range, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 5)),
        st.timedeltas(),
        st.uuids(),
        st.decimals(allow_nan=False),
        st.floats(allow_nan=False),
    ),
    lambda inner: st.one_of(st.frozensets(inner, max_size=4), st.lists(inner, max_size=3).map(tuple)),
    max_leaves=8,
)


def test_any_hashable_value_is_a_key(store: str) -> None:
    top = Root()

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(hashables, max_size=12))
    def run(values: list[Any]) -> None:
        top.group, top.by_key, top.held = set(values), dict.fromkeys(values, 1), values
        db0.commit()
        db0.clear_cache()
        assert set(top.group) == set(values) and all(value in top.group for value in values)
        assert list(top.by_key) == list(dict.fromkeys(values))
        assert all(type(a) is type(b) and a == b for a, b in zip(top.held, values, strict=True) if type(b) is not tuple)

    run()


def test_decimal_of_any_size(store: str) -> None:
    held = Holder(Decimal("9" * 400))
    db0.commit()
    db0.clear_cache()
    assert held.value == Decimal("9" * 400)
