"""Random histories of each collection against its builtin counterpart, with commits, evictions, reopening."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dbzero.collections import Dict, List, Set, make_dict, make_list, make_set
from tests.collections.harness import Bench, small_nodes

atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-20, 20),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=3),
    st.binary(max_size=3),
)
zones = st.sampled_from([None, dt.timezone.utc, dt.timezone(dt.timedelta(hours=2))])
keys = st.recursive(
    st.one_of(
        atoms,
        st.integers(0, 60),
        st.decimals(allow_nan=False),
        st.sampled_from(
            [
                Decimal(1),
                Decimal("1.0"),
                1.0,
                True,
                1,
                0,
                -0.0,
                False,
                "1",
                b"1",
                (1,),
                (True,),
                (),
                ((),),
                ((1, 2), 3),
                (1, (2, 3)),
            ]
        ),
        st.datetimes(timezones=zones, min_value=dt.datetime(2000, 1, 1), max_value=dt.datetime(2000, 1, 2)),
        st.dates(),
    ),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)
values = st.one_of(atoms, st.lists(atoms, max_size=3), st.dictionaries(st.integers(0, 3), atoms, max_size=2))
places = st.integers(-60, 60)
steps = st.sampled_from([None, 1, 2, 3, -1, -2, 7])


def same(act_mine, act_plain):
    """Both do the same: return equal values or raise the same builtin exception."""
    try:
        expected = act_plain()
    except Exception as error:
        with pytest.raises(type(error)):
            act_mine()
        return
    found = act_mine()
    assert found == expected
    assert type(found) is type(expected) or not isinstance(expected, (bool, int, str, bytes, float))


class Machine(RuleBasedStateMachine):
    cls: type

    def __init__(self):
        super().__init__()
        self.nodes = small_nodes()
        self.nodes.__enter__()
        self.bench = Bench()
        self.bench.use()

    def teardown(self):
        self.nodes.__exit__(None, None, None)

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
        self.mine = self.bench.reopen(self.cls, self.mine._p_oid)

    @invariant()
    def whole(self):
        if hasattr(self, "mine"):
            self.mine._check()
            assert len(self.mine) == len(self.plain)


class ListMachine(Machine):
    cls = List

    @initialize(start=st.lists(values, max_size=60))
    def start(self, start):
        self.mine, self.plain = make_list(start), list(start)

    @rule(value=values)
    def append(self, value):
        self.mine.append(value)
        self.plain.append(value)

    @rule(more=st.lists(st.integers(), max_size=40))
    def extend(self, more):
        self.mine.extend(iter(more))
        self.plain.extend(more)

    @rule(place=places, value=values)
    def insert(self, place, value):
        self.mine.insert(place, value)
        self.plain.insert(place, value)

    @rule(place=places, times=st.integers(1, 12))
    def pop(self, place, times):
        for _ in range(times):
            same(lambda: self.mine.pop(place), lambda: self.plain.pop(place))

    @rule(place=places, value=values)
    def put(self, place, value):
        same(lambda: self.mine.__setitem__(place, value), lambda: self.plain.__setitem__(place, value))

    @rule(place=places)
    def get(self, place):
        same(lambda: self.mine[place], lambda: self.plain[place])

    @rule(a=st.none() | places, b=st.none() | places, step=steps)
    def read_slice(self, a, b, step):
        same(lambda: self.mine[a:b:step], lambda: self.plain[a:b:step])

    @rule(a=st.none() | places, b=st.none() | places, step=steps)
    def delete_slice(self, a, b, step):
        del self.mine[a:b:step]
        del self.plain[a:b:step]

    @rule(a=st.none() | places, b=st.none() | places, step=steps, new=st.lists(values, max_size=20))
    def put_slice(self, a, b, step, new):
        def mine():
            self.mine[a:b:step] = new

        def plain():
            self.plain[a:b:step] = new

        same(mine, plain)

    @rule(value=values)
    def search(self, value):
        assert (value in self.mine) == (value in self.plain)
        assert self.mine.count(value) == self.plain.count(value)
        same(lambda: self.mine.index(value), lambda: self.plain.index(value))
        same(lambda: self.mine.remove(value), lambda: self.plain.remove(value))

    @precondition(lambda self: hasattr(self, "plain") and self.plain)
    @rule(data=st.data())
    def search_member(self, data):
        value = data.draw(st.sampled_from(self.plain))
        start = data.draw(places)
        same(lambda: self.mine.index(value, start), lambda: self.plain.index(value, start))
        same(lambda: self.mine.remove(value), lambda: self.plain.remove(value))

    @rule(times=st.integers(-1, 3))
    def multiply(self, times):
        if len(self.plain) < 100:
            assert self.mine * times == self.plain * times
            self.mine *= times
            self.plain *= times

    @rule()
    def reverse(self):
        self.mine.reverse()
        self.plain.reverse()

    @rule(reverse=st.booleans())
    def sort(self, reverse):
        self.mine.sort(key=repr, reverse=reverse)
        self.plain.sort(key=lambda value: repr(value), reverse=reverse)

    @rule()
    def clear(self):
        self.mine.clear()
        self.plain.clear()

    @rule()
    def compare(self):
        assert list(self.mine) == self.plain
        assert self.mine == self.plain
        assert self.plain == self.mine
        assert list(reversed(self.mine)) == self.plain[::-1]
        assert repr(self.mine) == repr(self.plain)


class DictMachine(Machine):
    cls = Dict

    @initialize(start=st.lists(st.tuples(keys, values), max_size=60))
    def start(self, start):
        self.mine, self.plain = make_dict(start), dict(start)

    @rule(key=keys, value=values)
    def put(self, key, value):
        self.mine[key] = value
        self.plain[key] = value

    @rule(first=st.integers(-100, 100), n=st.integers(1, 40), value=atoms)
    def put_many(self, first, n, value):
        for i in range(first, first + n):
            self.mine[i] = value
            self.plain[i] = value

    @rule(first=st.integers(-100, 100), n=st.integers(1, 40))
    def drop_many(self, first, n):
        for i in range(first, first + n):
            same(lambda i=i: self.mine.pop(i), lambda i=i: self.plain.pop(i))

    @rule(key=keys, default=atoms)
    def get(self, key, default):
        assert (key in self.mine) == (key in self.plain)
        assert self.mine.get(key, default) == self.plain.get(key, default)
        same(lambda: self.mine[key], lambda: self.plain[key])

    @rule(key=keys)
    def delete(self, key):
        same(lambda: self.mine.__delitem__(key), lambda: self.plain.__delitem__(key))

    @rule(key=keys, default=values)
    def setdefault(self, key, default):
        assert self.mine.setdefault(key, default) == self.plain.setdefault(key, default)

    @precondition(lambda self: hasattr(self, "plain") and self.plain)
    @rule(data=st.data(), value=values)
    def known_key(self, data, value):
        key = data.draw(st.sampled_from(list(self.plain)))
        assert self.mine[key] == self.plain[key]
        self.mine[key] = value
        self.plain[key] = value
        assert self.mine[key] == value

    @precondition(lambda self: hasattr(self, "plain") and self.plain)
    @rule(data=st.data())
    def known_pop(self, data):
        key = data.draw(st.sampled_from(list(self.plain)))
        assert self.mine.pop(key) == self.plain.pop(key)

    @rule(times=st.integers(1, 10))
    def popitem(self, times):
        for _ in range(times):
            same(lambda: self.mine.popitem(), lambda: self.plain.popitem())

    @rule()
    def clear(self):
        self.mine.clear()
        self.plain.clear()

    @rule(more=st.dictionaries(keys, values, max_size=10))
    def update(self, more):
        assert (self.mine | more) == (self.plain | more)
        assert (more | self.mine) == (more | self.plain)
        self.mine.update(more)
        self.plain.update(more)

    @rule()
    def compare(self):
        assert list(self.mine) == list(self.plain)
        assert [type(key) for key in self.mine] == [type(key) for key in self.plain]
        assert list(self.mine.items()) == list(self.plain.items())
        assert list(self.mine.values()) == list(self.plain.values())
        assert list(reversed(self.mine)) == list(reversed(self.plain))
        assert self.mine == self.plain
        assert self.plain == self.mine
        assert repr(self.mine) == repr(self.plain)


class SetMachine(Machine):
    cls = Set

    @initialize(start=st.lists(keys, max_size=60))
    def start(self, start):
        self.mine, self.plain = make_set(start), set(start)

    @rule(key=keys)
    def add(self, key):
        self.mine.add(key)
        self.plain.add(key)

    @rule(first=st.integers(-100, 100), n=st.integers(1, 40))
    def add_many(self, first, n):
        self.mine.update(range(first, first + n))
        self.plain.update(range(first, first + n))

    @rule(first=st.integers(-100, 100), n=st.integers(1, 60))
    def drop_many(self, first, n):
        self.mine -= set(range(first, first + n))
        self.plain -= set(range(first, first + n))

    @rule(key=keys)
    def drop(self, key):
        assert (key in self.mine) == (key in self.plain)
        same(lambda: self.mine.remove(key), lambda: self.plain.remove(key))
        self.mine.discard(key)
        self.plain.discard(key)

    @rule(times=st.integers(1, 20))
    def pop(self, times):
        for _ in range(min(times, len(self.plain))):
            self.plain.remove(self.mine.pop())

    @rule()
    def clear(self):
        self.mine.clear()
        self.plain.clear()

    @rule(other=st.sets(st.one_of(keys, st.integers(0, 60)), max_size=40))
    def combine(self, other):
        mine, plain = self.mine, self.plain
        for found, expected in (
            (mine | other, plain | other),
            (mine & other, plain & other),
            (mine - other, plain - other),
            (mine ^ other, plain ^ other),
            (other | mine, other | plain),
            (other & mine, other & plain),
            (other - mine, other - plain),
            (other ^ mine, other ^ plain),
        ):
            assert found == expected
            assert expected == found
        assert (mine <= other, mine < other, mine >= other, mine > other) == (
            plain <= other,
            plain < other,
            plain >= other,
            plain > other,
        )
        assert mine.isdisjoint(other) == plain.isdisjoint(other)

    @rule(other=st.sets(st.one_of(keys, st.integers(0, 60)), max_size=40), how=st.sampled_from(["|", "&", "^", "-"]))
    def combine_in_place(self, other, how):
        if how == "|":
            self.mine |= other
            self.plain |= other
        elif how == "&":
            self.mine &= other
            self.plain &= other
        elif how == "^":
            self.mine ^= other
            self.plain ^= other
        else:
            self.mine -= other
            self.plain -= other

    @rule()
    def compare(self):
        found = list(self.mine)
        assert len(found) == len(self.plain)
        assert set(found) == self.plain
        assert self.mine == self.plain
        assert self.plain == self.mine


slow = settings(max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
TestListMachine = ListMachine.TestCase
TestListMachine.settings = slow
TestDictMachine = DictMachine.TestCase
TestDictMachine.settings = slow
TestSetMachine = SetMachine.TestCase
TestSetMachine.settings = slow
