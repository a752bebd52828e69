"""List and Tuple beyond random histories: elements, conversion, identity, iteration under change, errors."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from dbzero.collections import Dict, List, Set, Tuple, make_dict, make_list, make_set, make_tuple
from dbzero.errors import BadPrefixError, ClosedError, ReadOnlyError, UnsupportedTypeError
from dbzero.model.memo import memo
from tests.collections.harness import Bench


@memo
class Plain:
    def __init__(self, n=0):
        self.n = n


@memo
class Odd:
    """Equal to everything that has its number."""

    def __init__(self, n):
        self.n = n

    def __eq__(self, other):
        return self.n == (other.n if isinstance(other, Odd) else other)

    def __hash__(self):
        return hash(self.n)


def test_builtin_containers_become_persistent_ones(bench):
    source = [1, [2, [3]], (4, [5]), {"a": [6]}, {7}]
    made = make_list(source)
    assert made == source
    assert [type(value) for value in made] == [int, List, Tuple, Dict, Set]
    source[1].append(99)
    assert made[1] == [2, [3]]
    made[1][1].append(4)
    assert made[1] == [2, [3, 4]]
    made[2][1].append(6)
    made[3]["a"].append(7)
    bench.commit()
    bench.evict()
    assert made == [1, [2, [3, 4]], (4, [5, 6]), {"a": [6, 7]}, {7}]
    assert made[1] is made[1]
    assert made[3]["a"] is made[3]["a"]


def test_shared_collection_stays_shared(bench):
    inner = make_list([1])
    a, b = make_list([inner]), make_list([inner, inner])
    assert a[0] is inner
    inner.append(2)
    assert b == [[1, 2], [1, 2]]
    twice = [0]
    c = make_list([twice, twice])
    assert c[0] is not c[1]


def test_objects_keep_identity(bench):
    objects = [Plain(i) for i in range(300)]
    made = make_list(objects)
    assert all(made[i] is objects[i] for i in range(300))
    bench.commit()
    bench.evict()
    assert all(made[i] is objects[i] for i in range(300))
    assert objects[5] in made
    assert made.index(objects[200]) == 200
    assert Plain(5) not in made


def test_elements_with_their_own_equality(bench):
    made = make_list([Odd(i) for i in range(10)])
    assert 5 in made
    assert made.index(7) == 7
    assert made.count(Odd(3)) == 1
    made.remove(4)
    assert [item.n for item in made] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    with pytest.raises(ValueError):
        made.remove(4)


def test_equality_that_changes_the_list(bench, tiny):
    made = make_list()

    @memo
    class Nasty:
        def __eq__(self, other):
            made.clear()
            made.extend(range(100))
            return True

    made.extend([Nasty() for _ in range(30)])
    made.remove("anything")
    made._check()
    assert list(made) in ([*range(1, 100)], [*range(100)])
    made.clear()
    made.extend([Nasty() for _ in range(30)])
    assert "anything" in made
    made._check()


def test_iteration_goes_by_position(bench, tiny):
    for n in (5, 50):
        made = make_list(range(n))
        plain = list(range(n))
        for _ in made:
            made.pop()
        for _ in plain:
            plain.pop()
        assert made == plain
        made = make_list(range(n))
        seen = []
        for value in made:
            seen.append(value)
            if value < n:
                made.append(value + n)
        assert seen == list(range(2 * n))
        made = make_list(range(n))
        plain = list(range(n))
        mine = []
        for value in made:
            mine.append(value)
            made.remove(value)
            made[0:0] = []
        theirs = []
        for value in plain:
            theirs.append(value)
            plain.remove(value)
        assert (mine, made) == (theirs, plain)


def test_iteration_sees_replaced_values(bench, tiny):
    for n in (5, 60):
        made = make_list(range(n))
        bench.commit()
        seen = []
        for i, value in enumerate(made):
            seen.append(value)
            bench.commit()
            bench.evict()
            if i + 1 < n:
                made[i + 1] = -i
        assert seen == [0, *[-i for i in range(n - 1)]]


def test_indices_and_slices(bench, tiny):
    made = make_list(range(100))
    assert made[(1, 3, 4)] == [1, 3, 4]
    assert type(made[1:3]) is list
    assert make_tuple(range(50))[10:40:7] == tuple(range(10, 40, 7))
    assert type(make_tuple([1])[:]) is tuple
    for bad in (100, -101, 10**30):
        with pytest.raises(IndexError):
            made[bad]
        with pytest.raises(IndexError):
            made[bad] = 1
        with pytest.raises(IndexError):
            del made[bad]
        with pytest.raises(IndexError):
            made.pop(bad)
    for bad in ("1", 1.0, None):
        with pytest.raises(TypeError):
            made[bad]
        with pytest.raises(TypeError):
            made[bad] = 1
        with pytest.raises(TypeError):
            del made[bad]
    assert made[True] == 1


def test_what_is_refused_changes_nothing(bench):
    made = make_list([1, 2])
    for act in (
        lambda: made.append(object()),
        lambda: made.insert(0, object()),
        lambda: made.__setitem__(0, object()),
        lambda: made.__setitem__(slice(0, 1), [3, object()]),
        lambda: made.append([object()]),
    ):
        with pytest.raises(UnsupportedTypeError):
            act()
        assert made == [1, 2]
    with pytest.raises(UnsupportedTypeError):
        made.extend([3, object(), 4])
    assert made == [1, 2, 3]

    def failing():
        yield 4
        raise KeyError("source")

    with pytest.raises(KeyError):
        made.extend(failing())
    assert made == [1, 2, 3, 4]
    for bad in (5, None):
        with pytest.raises(TypeError):
            made.extend(bad)
    with pytest.raises(TypeError):
        make_list(5)
    with pytest.raises(TypeError):
        make_list([1], [2])
    with pytest.raises(ValueError):
        made[::2] = [1]


def test_tuple_is_immutable_and_made_from_anything(bench):
    assert make_tuple(i for i in range(3)) == (0, 1, 2)
    made = make_tuple([1, [2]])
    with pytest.raises(TypeError):
        made[0] = 1
    with pytest.raises(TypeError):
        del made[0]
    made[1].append(3)
    assert made == (1, [2, 3])
    for bad in (None, 1, 1.5, True):
        with pytest.raises(TypeError):
            make_tuple(bad)

    def failing():
        yield 1
        raise KeyError("source")

    with pytest.raises(KeyError):
        make_tuple(failing())
    a, (b, *c) = made
    assert (a, b, c) == (1, 2, [3])
    assert made + (4,) == (1, [2, 3], 4)  # noqa: RUF005
    assert (0,) + made == (0, 1, [2, 3])  # noqa: RUF005
    assert make_tuple((1, 2)) * 2 == (1, 2, 1, 2)
    assert make_tuple((1, 2)) < (1, 3) <= make_tuple((1, 3))


def test_equality_with_other_kinds(bench):
    assert make_list([1, 2]) != (1, 2)
    assert make_list([1, 2]) != make_tuple((1, 2))
    assert make_tuple((1, 2)) != [1, 2]
    assert make_set([1, 2]) != [1, 2]
    assert make_set([1, 2]) == frozenset((1, 2))
    assert make_list() != None  # noqa: E711
    assert make_list([1, [2, {3: 4}]]) == make_list([1, [2, {3: 4}]])
    assert make_list([[1], (2,)]) == [[1], (2,)]
    assert make_dict({"a": [1]}) == {"a": [1]}
    assert make_list([1]) != make_list([1, 2])


def test_repr_is_the_builtins(bench):
    source = [1, "a", [2.5, None], (1,), (), {"k": [b"x"]}, {5}]
    assert repr(make_list(source)) == repr(source)
    assert str(make_tuple((1,))) == "(1,)"
    assert repr(make_set()) == "set()"
    assert repr(make_dict()) == "{}"
    loop = make_list([1])
    loop.append(loop)
    assert repr(loop) == "[1, [...]]"
    nest = make_dict(a=1)
    nest["self"] = nest
    assert repr(nest) == "{'a': 1, 'self': {...}}"


def test_not_hashable_not_copyable(bench):
    for made in (make_list([1]), make_tuple([1]), make_dict(a=1), make_set([1])):
        for act in (hash, copy.copy, copy.deepcopy, pickle.dumps, json.dumps):
            with pytest.raises(TypeError):
                act(made)
        with pytest.raises(TypeError, match="unhashable"):
            dict([(made, 1)])
        with pytest.raises(AttributeError):
            made.anything = 1
        assert made


def test_direct_construction_is_refused(bench):
    for cls in (List, Tuple, Dict, Set):
        with pytest.raises(TypeError):
            cls([1])


def test_read_only_view(bench):
    everything = make_list(
        [[1, 2], (1,), {1: 2}, {1}, list(range(1000)), {i: i for i in range(1000)}, set(range(1000))]
    )
    bench.commit()
    bench.records.writable = False
    view = bench.open()
    made = view.ghost(List, everything._p_oid)
    small, _, mapping, group, large, large_mapping, large_group = made
    for act in (
        lambda: small.append(1),
        lambda: small.pop(),
        lambda: small.clear(),
        lambda: small.sort(),
        lambda: small.__setitem__(0, 1),
        lambda: large.append(1),
        lambda: large.pop(3),
        lambda: large.__setitem__(3, 1),
        lambda: mapping.__setitem__(1, 3),
        lambda: mapping.pop(1),
        lambda: mapping.clear(),
        lambda: large_mapping.__setitem__(1, 3),
        lambda: large_mapping.__setitem__(1001, 3),
        lambda: large_mapping.popitem(),
        lambda: group.add(2),
        lambda: group.remove(1),
        lambda: large_group.add(2000),
        lambda: large_group.pop(),
        lambda: large_group.clear(),
        lambda: make_list(),
    ):
        with pytest.raises(ReadOnlyError, match="Cannot modify read-only prefix"):
            act()
    assert made == everything
    for part in made:
        part._check()


def test_closed_view(bench):
    made = make_list([1, [2]])
    bench.view.close()
    for act in (lambda: made[0], lambda: len(made), lambda: made.append(1), lambda: list(made)):
        with pytest.raises(ClosedError):
            act()
    assert "no longer accessible" in repr(made)


def test_sort_is_stable_and_whole(bench, tiny):
    made = make_list([(i % 7, i) for i in range(100)])
    made.sort(key=lambda pair: pair[0])
    assert [tuple(pair) for pair in made] == sorted([(i % 7, i) for i in range(100)])
    numbers = make_list([3, "a", 1])
    with pytest.raises(TypeError):
        numbers.sort()
    assert numbers == [3, "a", 1]
    values = make_list([3, 1, 2])
    with pytest.raises(ValueError, match="modified"):
        values.sort(key=lambda value: values.append(0) or value)


def test_other_prefix(bench):
    other = Bench("other", 8)
    foreign, empty = make_list([1]), make_list()
    pair, full, nothing = make_tuple([1, "a"]), make_dict(a=1), make_dict()
    group, no_group = make_set([1]), make_set()
    other.use()
    holder = make_list()
    for made in (foreign, full, group):
        with pytest.raises(BadPrefixError, match="cannot be moved"):
            holder.append(made)
    holder.extend([empty, pair, nothing, no_group])
    assert holder == [[], (1, "a"), {}, set()]
    assert all(part._p_view is other.view for part in holder)
    holder.append(foreign[:])
    assert holder[-1] == [1]


def test_own_content_as_source(bench, tiny):
    made = make_list(range(20))
    made.extend(made)
    assert made == [*range(20), *range(20)]
    made += made
    assert len(made) == 80
    made[:] = made
    assert len(made) == 80
    made[10:20] = made
    assert made == [*range(10), *([*range(20)] * 4), *range(20), *range(20), *range(20)]
    made._check()


def test_dropped_nodes_are_not_written(bench, tiny):
    made = make_list(range(200))
    made.clear()
    bench.commit()
    again = bench.reopen(List, made._p_oid)
    assert again == []
