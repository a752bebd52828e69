"""Queries of all shards: order, laziness, what they can be criteria of, what they refuse; shared prefixes and forks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

import dbzero as db0
from dbzero.model.view import View


@db0.memo(id="tests/sharding/Row", shards=4, shard_by="number")
@db0.indexed_fields("price", "name")
class Row:
    def __init__(self, number: int, price: Any = None, name: str = "") -> None:
        self.number = number
        self.price = price
        self.name = name
        db0.tags(self).add("row")


@pytest.fixture
def rows(root: str) -> Iterator[list[Row]]:
    """1,000 rows in 4 shards; prices 0..9, names of three letters."""
    db0.init(root, prefix="table", autocommit=False)
    yield [Row(number, number % 10, "abc"[number % 3]) for number in range(1000)]


def count_loads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From now on its only item counts the rows that are loaded."""
    loads = [0]
    real = View._load

    def load(view: View, obj: Any) -> int:
        loads[0] += isinstance(obj, Row)
        return real(view, obj)

    monkeypatch.setattr(View, "_load", load)
    return loads


def test_the_first_of_a_sort_read_one_leaf_of_each_shard(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    db0.init(root, prefix="table", autocommit=False)
    for number in range(4000):
        Row(number, -number)
    db0.commit()
    db0.clear_cache()
    loads = count_loads(monkeypatch)
    prices = db0.index_of(Row, "price")
    assert len(db0.find(Row)) == 4000 and len(db0.find(Row, prices.select(-9, 0))) == 10 and db0.find(Row, "row")
    assert loads[0] == 0, "counting loads nothing"
    first = [row.price for row in prices.sort(db0.find(Row))[:10]]
    assert first == list(range(-3999, -3989))
    assert 10 <= loads[0] <= 4 * 128


def test_sorts_within_sorts(rows: list[Row]) -> None:
    prices, names = db0.index_of(Row, "price"), db0.index_of(Row, "name")
    for first in (False, True):
        for second in (False, True):
            query = names.sort(prices.sort(db0.find(Row, "row"), desc=first), desc=second)
            sign = (-1 if second else 1), (-1 if first else 1)
            expected = sorted(
                ((row.name, row.price) for row in rows), key=lambda r: (sign[0] * ord(r[0]), sign[1] * r[1])
            )
            assert [(row.name, row.price) for row in query] == expected
            again = db0.find(Row, query, prices.select(2, 5))  # a sorted criterion keeps its order
            assert [(row.name, row.price) for row in again] == [entry for entry in expected if 2 <= entry[1] <= 5]
            odd = db0.filter(lambda row: row.number % 2, query)
            assert [(row.name, row.price) for row in odd] == [entry for entry in expected if entry[1] % 2]
            assert [row.name for row in names.sort(odd)] == sorted(row.name for row in odd)


def test_slices_are_criteria(rows: list[Row]) -> None:
    prices = db0.index_of(Row, "price")
    cheap = prices.sort(db0.find(Row))[:150]
    found = db0.find(Row, cheap, prices.select(1, 1))
    assert len(found) == 50 and {row.price for row in found} == {1}
    assert len(db0.find(Row, db0.no(cheap))) == 850
    assert {row.price for row in db0.find(Row, db0.no(cheap), [prices.select(0, 1), prices.select(9)])} == {1, 9}
    assert len(prices.sort(cheap, desc=True)) == 150
    assert [row.price for row in prices.sort(cheap, desc=True)[:51]] == [1] * 50 + [0]


def test_objects_and_queries_of_one_shard_are_criteria(rows: list[Row]) -> None:
    some = [rows[5], rows[70], rows[701]]
    assert len({db0.shard_of(row) for row in some}) > 1
    assert set(db0.find(Row, some)) == set(some)
    assert len(db0.find(Row, db0.no(some))) == 997
    name = db0.get_prefix_of(rows[5]).name
    inside = db0.find(Row, prefix=name)
    assert set(db0.find(Row, inside)) == {row for row in rows if db0.shard_of(row) == db0.shard_of(rows[5])}
    assert db0.get_prefix_of(inside).name == name
    assert len(db0.find("row")) == 0, "without a sharded class only the current prefix is searched"


def test_what_a_plan_says(root: str) -> None:
    db0.init(root, prefix="table", autocommit=False)
    assert len(db0.find(Row)) == 0 and not db0.find(Row) and db0.find(Row).first() is None
    assert str(db0.find(Row).explain()) == (
        "fan out over 0 shards of tests/sharding/Row, in the order of the shards: 0 estimated, 0 found"
    )
    for number in range(8):
        Row(number, number)
    plan = db0.find(Row, "row", db0.index_of(Row, "price").select(2, 5)).explain()
    assert (plan.operation, plan.actual, len(plan.steps)) == ("fan out", 4, len(set(map(db0.shard_of, db0.find(Row)))))
    assert "index of Row.price, 2..5" in str(plan)


def test_what_is_refused(rows: list[Row]) -> None:
    query, prices = db0.find(Row), db0.index_of(Row, "price")
    for place in (1000, -1001):
        with pytest.raises(IndexError):
            query[place]
    assert query[999] is query[-1]
    with pytest.raises(db0.Error, match="cannot be serialized"):
        db0.serialize(query)
    selection = prices.select(1, 2)
    for wrong in (list, len, bool, prices.sort, lambda chosen: chosen[0]):
        with pytest.raises(db0.Error, match=r"needs another criterion: db0\.find\(Row"):
            wrong(selection)  # type: ignore[operator]
    with pytest.raises(db0.UnsupportedTypeError):
        prices.select("a", "b")
    with pytest.raises(db0.Error, match="Unknown field"):
        db0.index_of(Row, "other")
    with pytest.raises(db0.Error, match="managed indexes are read-only"):
        prices.add(1, rows[0])
    with pytest.raises(db0.Error, match="cannot search by"):
        db0.find(Row, 5)
    assert query.signature() == db0.find(Row)[3:].signature() != db0.find(Row, "row").signature()
    assert query.compare(db0.find(Row)) == 0.0


def test_a_query_ends_with_its_store(root: str) -> None:
    db0.init(root, prefix="table")
    Row(1)
    query = db0.find(Row)
    db0.close()
    db0.init(root, prefix="table")
    with pytest.raises(db0.ClosedError, match="find again"):
        len(query)


def test_a_snapshot_has_the_shards_of_its_time(rows: list[Row]) -> None:
    db0.commit()
    with db0.snapshot() as past:
        db0.reshard(Row, 9)
        for row in db0.find(Row):
            row.price = 100
        db0.commit()
        assert sorted(row.price for row in past.find(Row)) == sorted(n % 10 for n in range(1000))
        assert [row.price for row in past.index_of(Row, "price").sort(past.find(Row), desc=True)[:3]] == [9, 9, 9]
        old = past.find(Row).first()
        assert db0.get_snapshot_of(old).find(Row).first() == old
        with pytest.raises(db0.ReadOnlyError):
            old.price = 5
    with pytest.raises(db0.ClosedError):
        list(past.find(Row))
    assert {row.price for row in db0.find(Row)} == {100}


def test_declared_fields_are_applied_in_every_shard(root: str) -> None:
    def declare(*fields: str) -> Any:
        @db0.memo(id="tests/sharding/Late", shards=3, shard_by="n")
        @db0.indexed_fields(*fields)
        class Late:
            def __init__(self, n: int) -> None:
                self.n = n
                db0.tags(self).add("late")

        return Late

    db0.init(root, prefix="table", autocommit=False, no_auto_migrate=True)
    before = declare()
    for number in range(20):
        before(number)
    db0.commit()
    after = declare("n")
    with pytest.raises(db0.MigrateError):
        len(db0.index_of(after, "n"))
    db0.migrate(after)
    assert [one.n for one in db0.index_of(after, "n").sort(db0.find(after))] == list(range(20))


def test_shared_shards(root: str) -> None:
    """Several processes write every shard, in transactions."""
    db0.init(root, prefix="table", shared=True)
    with pytest.raises(db0.OutsideTransactionError):
        Row(0)
    with db0.atomic():
        for number in range(10):
            Row(number)
    assert len(db0.find(Row)) == 10
    with pytest.raises(db0.PrefixError, match="reshard needs it for itself"):
        db0.reshard(Row, 2)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with db0.atomic():
                for number in range(10, 20):
                    Row(number)
            db0.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    db0.refresh()
    assert sorted(row.number for row in db0.find(Row)) == list(range(20))


def test_a_forked_child_reads(rows: list[Row]) -> None:
    db0.commit()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with pytest.raises(db0.ReadOnlyError):
                Row(5000)
            with db0.snapshot() as now:
                status = int(not len(now.find(Row)) == len(db0.find(Row)) == 1000)
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_tags_are_counted_in_all_shards_without_loading(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    for row in rows:
        db0.tags(row).add(*(["low"] if row.price < 5 else []), *(["even"] if row.price % 2 == 0 else []))
    db0.commit()
    rows.clear()
    db0.clear_cache()
    loads = count_loads(monkeypatch)
    assert db0.group_by(["low", "even", "none"], db0.find(Row)) == {"low": 500, "even": 200}
    assert len(db0.split_by(["even", "low"], db0.find(Row), exclusive=False)) == 1000
    assert db0.group_by(["low"], db0.find(Row, "even")) == {"low": 300}
    assert loads[0] == 0


def test_a_query_of_all_shards_is_watched_in_each(rows: list[Row]) -> None:
    with pytest.raises(db0.PrefixError, match="watch it in each of them"):
        db0.watch(db0.find(Row))
    db0.commit()
    home = db0.get_prefix_of(rows[0]).name
    changes = db0.watch(db0.find(Row, "row", prefix=home), timeout=0)
    rows[0].price = 77
    db0.commit()
    assert [(change.kind, change.object) for change in changes] == [("modified", rows[0])]
