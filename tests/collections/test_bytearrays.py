"""ByteArray against the builtin: random histories, every method, CPython's own tests."""

from __future__ import annotations

import gc
import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dbzero.collections import ByteArray, make_bytearray
from tests.collections.harness import Bench, small_nodes
from tests.collections.test_machines import places, same, steps

content = st.one_of(st.binary(max_size=60), st.integers(0, 40).map(lambda n: b"ab" * n))
slices = st.builds(slice, st.one_of(st.none(), places), st.one_of(st.none(), places), steps)


class ByteArrayMachine(RuleBasedStateMachine):
    @initialize(start=content)
    def begin(self, start):
        self.nodes = small_nodes(8, 3)
        self.nodes.__enter__()
        self.bench = Bench()
        self.bench.use()
        self.mine, self.plain = make_bytearray(start), bytearray(start)

    def teardown(self):
        if hasattr(self, "nodes"):
            self.nodes.__exit__(None, None, None)

    @rule(more=content)
    def extend(self, more):
        self.mine.extend(more)
        self.plain.extend(more)

    @rule(value=st.integers(-1, 256))
    def append(self, value):
        same(lambda: self.mine.append(value), lambda: self.plain.append(value))

    @rule(place=places, value=st.integers(0, 255))
    def insert(self, place, value):
        self.mine.insert(place, value)
        self.plain.insert(place, value)

    @rule(place=places, times=st.integers(1, 9))
    def pop(self, place, times):
        for _ in range(times):
            same(lambda: self.mine.pop(place), lambda: self.plain.pop(place))

    @rule(place=places, value=st.integers(-1, 256))
    def put(self, place, value):
        same(lambda: self.mine.__setitem__(place, value), lambda: self.plain.__setitem__(place, value))

    @rule(place=st.one_of(places, slices))
    def get(self, place):
        same(lambda: self.mine[place], lambda: self.plain[place])

    @rule(place=st.one_of(places, slices))
    def delete(self, place):
        same(lambda: self.mine.__delitem__(place), lambda: self.plain.__delitem__(place))

    @rule(place=slices, more=content)
    def assign(self, place, more):
        same(lambda: self.mine.__setitem__(place, more), lambda: self.plain.__setitem__(place, more))

    @rule(value=st.integers(-1, 256))
    def remove(self, value):
        same(lambda: self.mine.remove(value), lambda: self.plain.remove(value))

    @rule(times=st.integers(-1, 3))
    def multiply(self, times):
        if len(self.plain) * times < 400:
            self.mine *= times
            self.plain *= times

    @rule(what=st.sampled_from(["reverse", "clear", "nothing"]))
    def whole_change(self, what):
        if what != "nothing":
            getattr(self.mine, what)()
            getattr(self.plain, what)()

    @rule(part=st.binary(min_size=1, max_size=2))
    def search(self, part):
        for name in ("find", "rfind", "index", "rindex", "count", "startswith", "endswith", "split", "partition"):
            same(lambda name=name: getattr(self.mine, name)(part), lambda name=name: getattr(self.plain, name)(part))

    @rule()
    def commit(self):
        self.bench.commit()
        assert self.bench.commit() == []

    @rule()
    def evict(self):
        self.bench.commit()
        self.bench.evict()

    @rule()
    def reopen(self):
        self.mine = self.bench.reopen(ByteArray, self.mine._p_oid)
        self.bench.use()

    @invariant()
    def equal(self):
        if hasattr(self, "mine"):
            self.mine._check()
            assert len(self.mine) == len(self.plain)
            assert self.mine == self.plain and bytes(self.mine) == self.plain and list(self.mine) == list(self.plain)


TestByteArray = ByteArrayMachine.TestCase
TestByteArray.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_every_method_of_the_builtin_is_there():
    missing = {name for name in dir(bytearray) if not hasattr(ByteArray, name)}
    assert missing <= {"__alloc__", "__release_buffer__", "resize", "take_bytes"}


@pytest.mark.parametrize(
    "name, args",
    [
        ("capitalize", ()),
        ("center", (20, b"*")),
        ("expandtabs", (4,)),
        ("ljust", (20,)),
        ("lower", ()),
        ("lstrip", (b" H",)),
        ("removeprefix", (b"Hello",)),
        ("removesuffix", (b"d ",)),
        ("replace", (b"l", b"LL")),
        ("rjust", (20,)),
        ("rstrip", ()),
        ("strip", ()),
        ("swapcase", ()),
        ("title", ()),
        ("translate", (bytes(range(256))[::-1],)),
        ("upper", ()),
        ("zfill", (30,)),
        ("copy", ()),
        ("join", ([b"a", bytearray(b"b")],)),
        ("__add__", (b"tail",)),
        ("__mul__", (3,)),
    ],
)
def test_transformations_make_stored_ones(bench, name, args):
    mine, plain = make_bytearray(b"Hello\tworld "), bytearray(b"Hello\tworld ")
    found = getattr(mine, name)(*[make_bytearray(arg) if type(arg) is bytes else arg for arg in args])
    expected = getattr(plain, name)(*args)
    assert type(found) is ByteArray and found is not mine
    assert found == expected and expected == found and found == make_bytearray(expected)
    assert mine == plain
    assert b"head" + mine == b"head" + plain
    bench.view.writable = False
    assert type(getattr(mine, name)(*args)) is bytearray  # nothing can be made on a read-only prefix


def test_forms_of_the_factory(bench):
    for args in ((), (b"ab",), ([1, 2],), (3,), ("é", "utf-8"), ("é", "ascii", "ignore"), (memoryview(b"x"),)):
        assert make_bytearray(*args) == bytearray(*args)
    for args in (("text",), ([256],), (-1,), ([1.5],), (None,)):
        same(lambda args=args: make_bytearray(*args), lambda args=args: bytearray(*args))
    assert make_bytearray(make_bytearray(b"copy")) == b"copy"
    assert ByteArray.fromhex("00ff") == b"\0\xff"


def test_comparing(bench):
    mine = make_bytearray(b"abc")
    other = b"abc"
    assert mine == other and other == mine and bytearray(other) == mine and mine == memoryview(other)
    assert mine != b"abd" and mine != "abc" and mine is not None and mine != [97, 98, 99]
    assert mine < b"abd" and mine <= make_bytearray(b"abc") and mine > b"ab" and bytearray(b"abd") > mine
    with pytest.raises(TypeError, match="unhashable"):
        hash(mine)
    with pytest.raises(TypeError):
        assert mine < "abc"
    assert 98 in mine and b"bc" in mine and b"cb" not in mine
    assert mine.count(97) == 1 and repr(mine) == "bytearray(b'abc')"


def test_a_large_one_is_loaded_and_written_by_chunks(bench):
    data = random.Random(1).randbytes(1 << 20)
    mine = make_bytearray(data)
    bench.commit()
    assert max(map(len, bench.records.payloads.values())) < 4096
    mine = bench.reopen(ByteArray, mine._p_oid)
    bench.use()
    bench.records.reads = 0
    assert mine[500_000] == data[500_000] and mine[700_000:700_010] == data[700_000:700_010]
    assert bench.records.reads <= 8
    for act in (
        lambda: mine.__setitem__(300_000, 1),
        lambda: mine.append(7),
        lambda: mine.insert(400_000, 9),
        lambda: mine.pop(600_000),
        lambda: mine.__setitem__(slice(100_000, 100_003), b"xyz!!"),
    ):
        act()
        assert len(bench.commit()) <= 7
    mine._check()
    expected = bytearray(data)
    expected[300_000] = 1
    expected.append(7)
    expected.insert(400_000, 9)
    expected.pop(600_000)
    expected[100_000:100_003] = b"xyz!!"
    assert mine == expected
    gc.collect()
    bench.evict()
    assert mine == expected
    assert bench.view.live_count < 2000


def test_iterating_goes_by_position(bench, tiny):
    mine = make_bytearray(range(100))
    seen = []
    for byte in mine:
        seen.append(byte)
        if byte == 50:
            mine.append(200)
        if byte % 10 == 0:
            bench.commit()
            bench.evict()
    assert seen == [*range(100), 200]
    assert list(reversed(mine)) == seen[::-1]
