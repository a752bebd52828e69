"""Dict and Set beyond random histories: keys, views, iteration under change, errors."""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict, namedtuple
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from dbzero.collections import Dict, List, Set, make_dict, make_list, make_set, make_tuple
from dbzero.collections.keys import stable_hash
from dbzero.errors import UnsupportedTypeError
from dbzero.model.memo import memo


@memo
class Plain:
    def __init__(self, n=0):
        self.n = n


@memo
class Same:
    """All instances are equal and have one hash, which is that of 5."""

    def __eq__(self, other):
        raise AssertionError("keys must not be compared by user code")

    def __hash__(self):
        raise AssertionError("keys must not be hashed by user code")


KEYS = [
    None, True, 0, -1, -2, 2**70, -(2**70), 1.5, float("inf"), "", "a", "\0", "\ud800", b"", b"a",
    Decimal("1.10"), Decimal("1E+5"),
    dt.date(2020, 1, 1), dt.datetime(2020, 1, 1), dt.time(1, 2), dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc),
    dt.time(3, tzinfo=dt.timezone.utc),
    dt.timedelta(1), (), (1,), (1, 2), (2, 1), ((1, 2), "x"), ("a", None), (1, ()), ((1,), ()), 1j,
]  # fmt: skip


@pytest.mark.parametrize("large", [False, True])
def test_every_kind_of_key(bench, tiny, large):
    fill = {f"filler {i}": i for i in range(100 if large else 0)}
    expected = {**fill, **{key: i for i, key in enumerate(KEYS)}}
    made, group = make_dict(expected), make_set(expected)
    for _ in range(2):
        made._check()
        group._check()
        assert made == expected
        assert group == set(expected)
        for i, key in enumerate(KEYS):
            assert made[key] == i
            assert key in made
            assert key in group
        assert list(made) == list(expected)
        assert [type(key) for key in made] == [type(key) for key in expected]
        made = bench.reopen(Dict, made._p_oid)
        group = bench.view.ghost(Set, group._p_oid)
    for key in KEYS:
        del made[key]
        group.remove(key)
    assert made == fill
    assert group == set(fill)


@pytest.mark.parametrize("large", [False, True])
def test_equal_keys_are_one(bench, tiny, large):
    made = make_dict({f"filler {i}": i for i in range(100 if large else 0)})
    before = len(made)
    for key in (1, True, 1.0, Decimal(1), Decimal("1.00"), 1 + 0j):
        made[key] = key
    assert len(made) == before + 1
    assert list(made)[-1] is not True and type(list(made)[-1]) is int
    warsaw, utc = ZoneInfo("Europe/Warsaw"), dt.timezone.utc
    made[dt.datetime(2020, 6, 1, 12, tzinfo=warsaw)] = "w"
    assert made[dt.datetime(2020, 6, 1, 10, tzinfo=utc)] == "w"
    assert dt.datetime(2020, 6, 1, 10) not in made
    assert dt.date(2020, 6, 1) not in made
    made[(1, (True, 2.0))] = "t"
    assert made[make_tuple([True, (1, 2)])] == "t"
    assert (1, 2, 1) not in made
    assert "a" not in made and b"a" not in made
    made["a"], made[b"a"] = 1, 2
    assert (made["a"], made[b"a"]) == (1, 2)
    made[0.0] = "z"
    assert made[-0.0] == "z"


@pytest.mark.parametrize("large", [False, True])
def test_objects_count_by_identity(bench, tiny, large):
    objects = [kind() for kind in (Plain, Same) for _ in range(60 if large else 3)]
    made, group = make_dict({}), make_set()
    for i, obj in enumerate(objects):
        made[obj] = i
        made[(obj, "x")] = -i
        group.add(obj)
    group.add(objects[0])
    bench.commit()
    bench.evict()
    made._check()
    group._check()
    assert len(group) == len(objects)
    for i, obj in enumerate(objects):
        assert made[obj] == i
        assert made[(obj, "x")] == -i
        assert obj in group
    assert all(found is obj for found, obj in zip(list(made)[::2], objects, strict=True))
    assert {id(obj) for obj in group} == {id(obj) for obj in objects}
    assert Plain() not in made
    assert Same() not in group
    assert 5 not in made
    plain = [obj for obj in objects if type(obj) is Plain]
    assert make_set(plain) == set(plain)
    assert set(plain) == make_set(plain)
    made.pop(objects[0])
    group.discard(objects[-1])
    assert objects[0] not in made
    assert objects[-1] not in group


def test_unhashable_and_unsupported_keys(bench):
    made, group = make_dict({1: 2}), make_set([1])
    for bad in (
        [1],
        {1: 2},
        {1},
        bytearray(b"x"),
        make_list([1]),
        make_dict(),
        make_set(),
        (1, [2]),
        make_tuple([[1]]),
    ):
        for act in (
            lambda bad=bad: made.__setitem__(bad, 1),
            lambda bad=bad: made[bad],
            lambda bad=bad: bad in made,
            lambda bad=bad: made.get(bad),
            lambda bad=bad: made.pop(bad, None),
            lambda bad=bad: group.add(bad),
            lambda bad=bad: (bad if not isinstance(bad, (set, Set)) else [bad]) in group,  # a set: as if it were frozen
            lambda bad=bad: group.update([bad]),
            lambda bad=bad: make_dict([(bad, 1)]),
            lambda bad=bad: make_set([bad]),
        ):
            with pytest.raises(TypeError, match="unhashable"):
                act()

    class Own:
        pass

    for bad in (Own(), ..., type("I", (int,), {})(9), namedtuple("P", "a")(1)):
        with pytest.raises(UnsupportedTypeError):
            made[bad] = 1
        with pytest.raises(UnsupportedTypeError):
            group.add(bad)
        assert bad not in made
        assert made.get(bad, 7) == 7
    assert made == {1: 2}
    assert group == {1}


def test_constructor_forms(bench):
    assert make_dict({"a": 1}, b=2) == {"a": 1, "b": 2}
    assert make_dict([("a", 1), ["b", 2], "cd"]) == {"a": 1, "b": 2, "c": "d"}
    assert make_dict(make_dict(a=1), a=2) == {"a": 2}
    assert make_dict(OrderedDict(a=1)) == {"a": 1}
    assert make_dict() == {}
    for bad in (1, [1], [None]):
        with pytest.raises(TypeError):
            make_dict(bad)
    for bad in ([(1,)], [(1, 2, 3)], ["abc"]):
        with pytest.raises(ValueError):
            make_dict(bad)
    with pytest.raises(TypeError):
        make_dict({}, {})
    with pytest.raises(TypeError):
        make_set(1)
    with pytest.raises(TypeError):
        make_set([1], [2])
    assert make_dict(self=1, iterable=2) == {"self": 1, "iterable": 2}


def test_values_are_converted_and_live(bench):
    made = make_dict()
    made["x"] = {}
    made["x"]["y"] = 1
    inner = made.setdefault("l", [])
    inner.append(1)
    assert made.setdefault("l", None) is inner
    assert made == {"x": {"y": 1}, "l": [1]}
    assert type(made["l"]) is List
    default = []
    assert made.get("none", default) is default
    assert made.fromkeys(["a", "b"], 5) == {"a": 5, "b": 5}
    assert type(made.copy()) is Dict
    with pytest.raises(UnsupportedTypeError):
        made["bad"] = object()
    with pytest.raises(UnsupportedTypeError):
        made.setdefault("bad", object())
    assert "bad" not in made


def test_missing_keys(bench):
    for made in (make_dict(), make_dict({i: i for i in range(500)})):
        for act in (lambda m=made: m["x"], lambda m=made: m.pop("x"), lambda m=made: m.__delitem__("x")):
            with pytest.raises(KeyError, match="x"):
                act()
        assert made.pop("x", 5) == 5
    with pytest.raises(KeyError):
        make_dict().popitem()
    with pytest.raises(KeyError):
        make_set().pop()
    with pytest.raises(KeyError):
        make_set([1]).remove(2)
    make_set([1]).discard(2)


@pytest.mark.parametrize("n", [5, 60])
def test_views_are_live(bench, tiny, n):
    made = make_dict({i: str(i) for i in range(n)})
    keys, values, items = made.keys(), made.values(), made.items()
    assert (len(keys), len(values), len(items)) == (n, n, n)
    made["new"] = "value"
    assert "new" in keys and "value" in values and ("new", "value") in items
    assert ("new", "other") not in items
    assert list(keys) == [*range(n), "new"]
    assert list(reversed(keys)) == ["new", *reversed(range(n))]
    assert all(type(item) is tuple for item in items)
    assert keys & {1, "new", 999} == {1, "new"}
    assert keys | {999} == {*range(n), "new", 999}
    assert keys - set(range(n)) == {"new"}
    assert {1, 2} <= keys
    assert keys == {*range(n), "new"}
    assert items & {(1, "1")} == {(1, "1")}
    assert repr(make_dict(a=1).keys()) == "dict_keys(['a'])"
    assert dict(made) == {**{i: str(i) for i in range(n)}, "new": "value"}


@pytest.mark.parametrize("n", [5, 61])
def test_dict_changed_while_iterating(bench, tiny, n):
    made = make_dict({i: i for i in range(n)})
    steps = 0
    keys = list(made)
    for _ in made.items():
        del made[keys[steps]]
        steps += 1
    assert (steps, len(made)) == ((n + 1) // 2, n // 2)
    made = make_dict({i: i for i in range(n)})
    seen = []
    for key in made:
        seen.append(key)
        if key < n:
            made[key + n] = 0
    assert seen == list(range(2 * n))
    made._check()
    made = make_dict({i: i for i in range(n)})
    seen = []
    for _key, value in made.items():
        seen.append(value)
        made[n - 1] = "last"
    assert seen == [*range(n - 1), "last"]
    made = make_dict({i: i for i in range(n)})
    for _ in made:
        made.clear()
    assert made == {}


@pytest.mark.parametrize("n", [5, 61])
def test_set_changed_while_iterating(bench, tiny, n):
    made = make_set(range(n))
    seen = []
    for value in made:
        seen.append(value)
        made.discard(value)
    assert sorted(seen) == list(range(n))
    assert not made
    made = make_set(range(n))
    seen = []
    for value in made:
        seen.append(value)
        made.add(value + 1000 if value < 500 else value)
        made.discard((value + 7) % n)
    assert len(seen) == len(set(seen))
    made._check()


def test_set_operators_need_sets(bench):
    made = make_set([1, 2, 3])
    for act in (
        lambda: made | [1],
        lambda: made & [1],
        lambda: made - [1],
        lambda: made ^ [1],
        lambda: made <= [1],
        lambda: made < (1,),
    ):
        with pytest.raises(TypeError):
            act()
    with pytest.raises(TypeError):
        made |= [1]
    assert type(made | {4}) is Set
    assert type({4} | made) is set
    assert made.union([4], (5,), {6: 7}) == {1, 2, 3, 4, 5, 6}
    assert made.intersection([1, 2], [2, 3]) == {2}
    assert made.difference([1], [2]) == {3}
    assert made.symmetric_difference([3, 4]) == {1, 2, 4}
    assert made.issubset(range(9)) and made.issuperset([1]) and made.isdisjoint([9])
    made.update([4], [5])
    made.intersection_update([1, 2, 4], [2, 4, 9])
    made.symmetric_difference_update([2, 8])
    assert made == {4, 8}
    made.difference_update([4])
    assert made == {8}
    kept = made
    kept |= {1}
    kept ^= {8, 2}
    kept &= {1, 2}
    kept -= {1}
    assert kept is made and made == {2}
    with pytest.raises(UnsupportedTypeError):
        made.symmetric_difference_update([5, ...])
    assert made == {2}


def test_colliding_hashes(bench, tiny):
    keys = [i % 3 + i // 3 * (2**61 - 1) for i in range(200)]
    assert {stable_hash(key) for key in keys} == {0, 1, 2}
    expected = {key: str(key) for key in keys[:100]}
    made, group = make_dict(expected), make_set()
    for i, key in enumerate(keys[100:]):
        group.add(keys[i])
        made[key] = i
        expected[key] = i
    made = bench.reopen(Dict, made._p_oid)
    group = bench.view.ghost(Set, group._p_oid)
    made._check()
    group._check()
    assert made == expected and list(made) == list(expected) and group == set(keys[:100])
    for key in keys[::7]:
        made[key] = -key
        expected[key] = -key
    for key in keys[::7] + keys[150:]:
        assert made[key] == expected[key] and (key in group) == (key in keys[:100])
    for key in keys[::3]:
        del made[key]
        group.discard(key)
    made._check()
    group._check()
    assert list(made) == [key for i, key in enumerate(keys) if i % 3]


def test_hashes_are_fixed_for_ever():
    found = [
        stable_hash(key)
        for key in (None, True, 5, -7, 2**80, 1.5, "", "key", b"key", (), (1, "a"), Decimal("1.5"), dt.date(2020, 1, 1))
    ]
    assert found == [
        0x6E6F6E65, 1, 5, -7, 2**80 % (2**61 - 1), 1152921504606846977,
        1622210670741801569, 6770324975592714993, 7873572661269555432,
        7811669224661935318, 5031115195084827389, 1152921504606846977, 690137036226747724,
    ]  # fmt: skip


def test_insertion_order_survives(bench, tiny):
    made = make_dict()
    order = [(i * 37) % 101 for i in range(101)]
    for key in order:
        made[key] = key
    for key in order[::3]:
        del made[key]
    for key in order[::3]:
        made[key] = -key
    expected = [key for i, key in enumerate(order) if i % 3] + order[::3]
    assert list(made) == expected
    made = bench.reopen(Dict, made._p_oid)
    assert list(made) == expected
    assert made.popitem() == (expected[-1], -expected[-1])
