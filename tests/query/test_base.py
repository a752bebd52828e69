"""What every query can do, on one over a plain list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbzero.errors import Error
from dbzero.query import Query, Slice


class Plain(Query):
    __slots__ = ("evaluated", "values")

    def __init__(self, values):
        self.values = values
        self.evaluated = 0

    def __iter__(self):
        for value in self.values:
            self.evaluated += 1
            yield value


ends = st.one_of(st.none(), st.integers(-12, 12))


@given(st.lists(st.integers(), max_size=10), ends, ends, st.one_of(st.none(), st.integers(1, 4)))
def test_slices(values, start, stop, step):
    query = Plain(values)[start:stop:step]
    expected = values[start:stop:step]
    assert list(query) == list(query) == expected
    assert len(query) == len(expected) and bool(query) == bool(expected)


def test_a_slice_is_lazy_and_follows_its_source():
    values = list(range(100))
    query = Plain(values)
    top = query[:3]
    assert type(top) is Slice and query.evaluated == 0
    assert [value for value in top] == [0, 1, 2] and query.evaluated == 3
    values.insert(0, "new")
    assert list(top) == ["new", 0, 1]
    last = query[-2:]
    values.append("end")
    assert list(last) == [99, "end"]


def test_full_slices_and_slices_of_slices():
    query = Plain([1, 2, 3])
    assert query[:] is query and query[0:] is query and query[::1] is query
    part = query[1:]
    assert part[:] is part
    for key in (slice(1, None), slice(None, 1), slice(None, None, 2)):
        with pytest.raises(Error, match="slice"):
            part[key]
    for step in (0, -1):
        with pytest.raises(Error, match="step"):
            query[::step]


def test_single_results():
    query = Plain(list("abcd"))
    assert query[0] == "a" and query[3] == "d" and query[-1] == "d"
    assert query[2, 0, 2] == ("c", "a", "c") and query[-1, 0] == ("d", "a") and query[()] == ()
    assert query[1:][0] == "b"
    for key in (4, -5, (0, 4), (-5, 0)):
        with pytest.raises(IndexError):
            query[key]
    for key in ("a", 1.5, None, (0, "a")):
        with pytest.raises(TypeError):
            query[key]


def test_identity_and_membership():
    query = Plain([1, 2])
    assert query == query and query != Plain([1, 2]) and hash(query) == hash(query)
    assert 2 in query and 3 not in query and query and not Plain([])
    assert list(zip(query, query, strict=True)) == [(1, 1), (2, 2)]
    with pytest.raises(TypeError):
        next(query)
