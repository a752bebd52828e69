"""Random histories of an index against a plain model: a list of (key, object), sorted when asked."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from functools import cmp_to_key
from itertools import islice

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dbzero.collections import Index, make_index
from dbzero.errors import UnsupportedTypeError
from dbzero.model.memo import memo
from tests.collections.harness import Bench, small_nodes


@memo
class Thing:
    def __init__(self, number):
        self.number = number


zones = st.sampled_from([dt.timezone.utc, dt.timezone(dt.timedelta(hours=5)), dt.timezone(-dt.timedelta(minutes=90))])
start, end = dt.datetime(2024, 3, 1), dt.datetime(2024, 3, 2)
FAMILIES = {
    "number": st.one_of(
        st.integers(-5, 25),
        st.integers(),
        st.floats(allow_nan=False),
        st.booleans(),
        st.decimals(allow_nan=False, min_value=-30, max_value=30, places=1),
        st.sampled_from(
            [1, 1.0, True, Decimal(1), Decimal("1.00"), 0.0, -0.0, 2**70, -(2**64), float("inf"), Decimal("0.1"), 0.1]
        ),
    ),
    "small": st.integers(0, 12),
    "str": st.one_of(st.text("ab\0\udc80é", max_size=4), st.integers(0, 5).map(lambda n: "k" * 20000 + "xyzuvw"[n])),
    "bytes": st.binary(max_size=3),
    "date": st.dates(dt.date(2024, 1, 1), dt.date(2024, 2, 1)),
    "naive": st.datetimes(start, end),
    "aware": st.datetimes(start, end, timezones=zones),
    "time": st.times(),
    "aware time": st.times(timezones=zones),
}


def order(left, right):
    """None last; keys by value; equal keys by age of their objects."""
    (a, x), (b, y) = left, right
    if (a is None) != (b is None):
        return 1 if a is None else -1
    if a is not None and a != b:
        return -1 if a < b else 1
    return x.number - y.number


def exact(key):
    return type(key), repr(key), None if not hasattr(key, "tzinfo") else str(key.tzinfo)


class IndexMachine(RuleBasedStateMachine):
    @initialize(family=st.sampled_from(sorted(FAMILIES)), data=st.data())
    def begin(self, family, data):
        self.nodes = small_nodes(4, 3)
        self.nodes.__enter__()
        self.bench = Bench()
        self.bench.use()
        self.keys = FAMILIES[family]
        self.mine = make_index()
        self.things = [Thing(i) for i in range(12)]
        self.plain = []
        self.walks = []

    def teardown(self):
        if hasattr(self, "nodes"):
            self.nodes.__exit__(None, None, None)

    def has(self, key, thing):
        return any(
            other is thing and (k == key if k is not None and key is not None else k is key) for k, other in self.plain
        )

    @rule(data=st.data(), numbers=st.lists(st.integers(0, 11), min_size=1, max_size=30))
    def add(self, data, numbers):
        for number in numbers:
            key = data.draw(st.one_of(self.keys, self.keys, self.keys, st.none()))
            thing = self.things[number]
            self.mine.add(key, thing)
            if not self.has(key, thing):
                self.plain.append((key, thing))

    @rule(data=st.data(), times=st.integers(1, 8))
    def remove(self, data, times):
        for _ in range(times):
            if self.plain and data.draw(st.integers(0, 5)):
                key, thing = self.plain.pop(data.draw(st.integers(0, len(self.plain) - 1)))
                self.mine.remove(key, thing)
            else:
                key, thing = data.draw(self.keys), self.things[data.draw(st.integers(0, 11))]
                if not self.has(key, thing):
                    self.mine.remove(key, thing)

    @rule(sure=st.integers(0, 4))
    def clear(self, sure):
        if not sure:
            self.mine.clear()
            self.plain.clear()

    def sorted(self):
        return sorted(self.plain, key=cmp_to_key(order))

    @rule()
    def iterate(self):
        found, expected = list(self.mine), self.sorted()
        assert [thing for _, thing in found] == [thing for _, thing in expected]
        assert [exact(key) for key, _ in found] == [exact(key) for key, _ in expected]

    def expected(self, low, high, null_first):
        return [
            (key, thing)
            for key, thing in self.sorted()
            if (
                (low if null_first else high) is None
                if key is None
                else (low is None or low <= key) and (high is None or key <= high)
            )
        ]

    @rule(data=st.data(), null_first=st.booleans())
    def select(self, data, null_first):
        low, high = data.draw(st.one_of(self.keys, st.none())), data.draw(st.one_of(self.keys, st.none()))
        query = self.mine.select(low, high, null_first)
        expected = [thing for key, thing in self.expected(low, high, null_first) if key is not None]
        nulls = [thing for key, thing in self.expected(low, high, null_first) if key is None]
        expected = nulls + expected if null_first else expected + nulls
        assert list(query) == list(query) == expected
        assert len(query) == len(expected) and bool(query) == bool(expected)
        assert all((thing in query) == (thing in expected) for thing in self.things)
        a, b = data.draw(st.integers(-15, 15)), data.draw(st.one_of(st.none(), st.integers(-15, 15)))
        assert list(query[a:b:2]) == expected[a:b:2]
        assert list(query[a:b]) == expected[a:b] and len(query[a:b]) == len(expected[a:b])

    @rule(data=st.data(), null_first=st.booleans(), desc=st.booleans())
    def sort(self, data, null_first, desc):
        low, high = data.draw(st.one_of(self.keys, st.none())), data.draw(st.one_of(self.keys, st.none()))
        selected = self.expected(low, high, False)
        if null_first:
            selected.sort(key=lambda entry: entry[0] is not None)
        expected = [thing for _, thing in selected]
        found = list(self.mine.sort(self.mine.select(low, high), desc=desc, null_first=null_first))
        assert found == (expected[::-1] if desc else expected)

    @rule(data=st.data(), null_first=st.booleans(), desc=st.booleans())
    def sort_foreign(self, data, null_first, desc):
        """Of another index's results: by the lowest key here, ties as they come."""
        other = make_index()
        for thing in self.things:
            other.add(data.draw(st.integers(0, 3)), thing)
        entries = self.sorted()
        if null_first:
            entries.sort(key=lambda entry: entry[0] is not None)
        rank, last, place = {}, object(), 0
        for key, thing in entries:
            if (key is None) != (last is None) or (key is not None and key != last):
                place += 1
            last = key
            rank.setdefault(thing.number, place)
        present = [thing for thing in other.select() if thing.number in rank]
        found = list(self.mine.sort(other.sort(other.select()), desc=desc, null_first=null_first))
        assert found == sorted(present, key=lambda thing: rank[thing.number], reverse=desc)

    @rule(steps=st.integers(0, 6))
    def walk(self, steps):
        """Start an iteration: it has to show what there is now, whatever comes."""
        walk = iter(self.mine)
        expected = self.sorted()
        found = list(islice(walk, max(steps, 1)))
        self.walks.append((walk, found, expected))

    @rule()
    def finish(self):
        for walk, found, expected in self.walks:
            found += walk
            assert [thing for _, thing in found] == [thing for _, thing in expected]
            assert [key for key, _ in found] == [key for key, _ in expected]
        self.walks = []

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
        self.finish()
        oids = [thing._p_oid for thing in self.things]
        self.mine = self.bench.reopen(Index, self.mine._p_oid)
        self.bench.use()
        fresh = [self.bench.view.ghost(Thing, oid) for oid in oids]
        self.plain = [(key, fresh[self.things.index(thing)]) for key, thing in self.plain]
        self.things = fresh

    @invariant()
    def whole(self):
        if hasattr(self, "mine"):
            self.mine._check()
            assert len(self.mine) == len(self.plain)


TestIndex = IndexMachine.TestCase
TestIndex.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_another_family_is_refused(bench):
    samples = [
        1,
        "a",
        b"a",
        dt.date(2024, 1, 1),
        start,
        start.replace(tzinfo=dt.timezone.utc),
        dt.time(1),
        dt.time(1, tzinfo=dt.timezone.utc),
    ]
    for sample in samples:
        index, thing = make_index(), Thing(1)
        index.add(None, thing)
        index.add(sample, thing)
        for other in samples:
            if other is not sample:
                with pytest.raises(UnsupportedTypeError):
                    index.add(other, thing)
                with pytest.raises(UnsupportedTypeError):
                    index.select(other)
                index.remove(other, thing)
        assert len(index) == 2
        index._check()
        index.remove(sample, thing)
        assert len(index.select("anything", 3)) == 0
        assert list(index.select("anything")) == [thing]
        index.add(samples[0], thing)
