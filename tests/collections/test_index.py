"""Index through the public interface, what it costs, and how it meets damage."""

from __future__ import annotations

import datetime as dt
import doctest
import enum
import gc
import random
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

import dbzero as db0
from dbzero.collections import Index, make_index, pairs
from dbzero.errors import CorruptError
from tests.worker import Worker


@db0.memo
class Item:
    def __init__(self, n):
        self.n = n


@db0.memo(singleton=True)
class Holder:
    def __init__(self):
        self.index = db0.index()


def numbers(query):
    return [item.n for item in query]


@pytest.mark.parametrize("name", ["index", "bytearray"])
def test_examples(name):
    made = getattr(db0, name)
    tests = doctest.DocTestFinder(recurse=False).find(made, name, globs={})
    assert tests and tests[0].examples
    for test in tests:
        assert doctest.DocTestRunner().run(test).failed == 0


# --- what it promises ------------------------------------------------------------------------------------------------


def test_it_outlives_the_session(root):
    db0.init(root, prefix="p", autocommit=False)
    holder = Holder()
    holder.index.add(2, Item("b"))
    holder.index.add(None, Item("none"))
    holder.index.add(1, Item("a"))
    assert holder.index is holder.index
    db0.close()
    db0.init(root, prefix="p", autocommit=False)
    index = db0.fetch(Holder).index
    assert isinstance(index, db0.types.Index)
    assert [(key, item.n) for key, item in index] == [(1, "a"), (2, "b"), (None, "none")]
    assert numbers(index.range(2)) == ["b", "none"]
    assert all(isinstance(query, db0.types.ObjectIterable) for query in (index.select(), index.sort(index.select())))


def test_entries_hold_their_objects(store):
    index = Holder().index
    item, other = Item(1), Item(2)
    for key in (1, 2, None):
        index.add(key, item)
        index.add(key, item)
    assert db0.getrefcount(item) == 3 and len(index) == 3
    index.add(5, other)
    db0.commit()
    gone = db0.uuid(other)
    assert db0.getrefcount(item) == 3
    index.remove(2, item)
    index.remove(2, item)
    index.remove(5, item)
    assert db0.getrefcount(item) == 2
    index.remove(5, other)
    del other
    gc.collect()
    db0.commit()
    assert not db0.exists(gone)
    index.clear()
    assert db0.getrefcount(item) == 0 and not index
    db0.commit()
    index.add("a text", item)  # the family is free again
    index.flush()
    assert list(index) == [("a text", item)]


def test_equal_keys_are_one_key(store):
    index, item = db0.index(), Item(1)
    for key in (1, 1.0, True, Decimal(1), Decimal("1.00")):
        index.add(key, item)
    assert list(index) == [(1, item)] and type(next(iter(index))[0]) is int
    index.remove(Decimal(1), item)
    assert not index
    index.add(0.1, item)
    index.add(Decimal("0.1"), item)
    assert [key for key, _ in index] == [Decimal("0.1"), 0.1]  # the float is a little more


def test_aware_datetimes_stand_in_order_of_their_moments(store):
    berlin = ZoneInfo("Europe/Berlin")
    index = db0.index()
    first = dt.datetime(2024, 10, 27, 2, 30, tzinfo=berlin, fold=0)
    second = dt.datetime(2024, 10, 27, 2, 30, tzinfo=berlin, fold=1)
    between = dt.datetime(2024, 10, 27, 1, 0, tzinfo=dt.timezone.utc)
    for n, key in enumerate((second, between, first)):
        index.add(key, Item(n))
    assert numbers(index.select()) == [2, 1, 0]
    assert [key.fold for key, _ in index] == [0, 0, 1] and next(iter(index))[0].tzinfo is berlin
    assert numbers(index.select(between, None)) == [1, 0]
    index._check()


class Level(enum.IntEnum):
    LOW = 1


class Text(str):
    pass


@pytest.mark.parametrize(
    "key",
    [(1, 2), [1], object(), Level.LOW, Text("a"), 1j, float("nan"), Decimal("nan"), Decimal("snan"), dt.timedelta(1)],
)
def test_keys_without_an_order(store, key):
    index, item = db0.index(), Item(1)
    index.add(1, item)
    with pytest.raises(RuntimeError, match="Unsupported index key"):
        index.add(key, item)
    with pytest.raises(RuntimeError):
        index.select(key)
    assert list(index) == [(1, item)] and db0.getrefcount(item) == 1


def test_values_must_be_memo_objects_of_its_prefix(store):
    index = db0.index()
    for value in (1, None, "text", db0.list(), index, Item):
        with pytest.raises(RuntimeError, match="Expected a memo object"):
            index.add(1, value)
        with pytest.raises(RuntimeError, match="Expected a memo object"):
            index.remove(1, value)
    for args in ((), (1,), (1, 2, 3)):
        with pytest.raises(TypeError):
            index.add(*args)
    item = Item(0)
    index.add(0, item)
    db0.open("other")
    stranger = Item(1)
    with pytest.raises(db0.BadPrefixError, match="other"):
        index.add(1, stranger)
    index.remove(1, stranger)
    assert list(index) == [(0, item)] and db0.getrefcount(stranger) == 0


def test_a_weak_proxy_stands_for_its_target(store):
    index, item = db0.index(), Item(1)
    index.add(1, db0.weak_proxy(item))
    assert list(index) == [(1, item)] and db0.getrefcount(item) == 1
    with pytest.raises(RuntimeError, match="references"):
        db0.delete(item)
    index.remove(1, db0.weak_proxy(item))
    assert not index and db0.getrefcount(item) == 0


def test_it_is_compared_by_identity(store):
    index, other = db0.index(), db0.index()
    assert index == index and index != other and len({index, other, index}) == 2
    item = Item(1)
    index.add(1, item)
    with pytest.raises(TypeError):
        assert item in index
    with pytest.raises(TypeError):
        index[0]
    with pytest.raises(TypeError):
        db0.types.Index(1)
    assert "1 entries" in repr(index)
    db0.close()
    assert "no longer accessible" in repr(index)
    with pytest.raises(db0.ClosedError):
        list(index)


def test_bounds_and_nones(store):
    index = db0.index()
    for key in (None, 3, 1, 2):
        index.add(key, Item(key))
    assert numbers(index.select(2, None)) == [2, 3, None] and numbers(index.select(2, None, null_first=True)) == [2, 3]
    assert numbers(index.select(None, 2)) == [1, 2] and numbers(index.select(None, 2, True)) == [None, 1, 2]
    assert numbers(index.select(low=1, high=2)) == [1, 2] and numbers(index.select(3, 1)) == []
    assert numbers(index.select()) == [1, 2, 3, None] and numbers(index.select(null_first=True)) == [None, 1, 2, 3]
    everything = index.select()
    assert numbers(index.sort(everything, null_first=True)) == [None, 1, 2, 3]
    assert numbers(index.sort(everything, desc=True)) == [None, 3, 2, 1]
    assert numbers(index.sort(everything, desc=True, null_first=True)) == [3, 2, 1, None]
    with pytest.raises(TypeError):
        index.sort(everything, True)
    for wrong in ([], index, Item, None):
        with pytest.raises(TypeError, match="query"):
            index.sort(wrong)
    empty = db0.index()
    assert list(empty.select("a", 2)) == list(empty.select(dt.date(2024, 1, 1))) == []
    empty.add(None, Item(1))
    assert numbers(empty.select(dt.datetime(2024, 1, 1), None)) == [1] and numbers(empty.select(None, "x")) == []


def test_keys_whose_object_grows_by_encoding(bench):
    """CPython keeps the UTF-8 form in a str object once it was asked for: the fill of a leaf must not depend on it."""
    index, item = make_index(), Item(1)
    for n in range(50):
        index.add("é" * 50 + str(n), item)
    bench.commit()
    index._check()
    for key, _ in list(index):
        index.remove(key, item)
        index._check()


def test_sorts_are_nested(store):
    by_age, by_name = db0.index(), db0.index()
    people = [("bob", 30), ("al", 30), ("eve", 25), ("dan", 30), ("cy", 25)]
    for name, age in people:
        person = Item((name, age))
        by_age.add(age, person)
        by_name.add(name, person)
    loner = Item(("zoe", 1))
    by_name.add("zoe", loner)  # not in by_age
    query = by_age.sort(by_name.sort(by_name.select()))
    assert [tuple(item.n) for item in query] == sorted(people, key=lambda p: (p[1], p[0]))
    query = by_age.sort(by_name.sort(by_name.select(), desc=True))
    assert [item.n[0] for item in query] == ["eve", "cy", "dan", "bob", "al"]
    query = by_age.sort(by_name.sort(by_name.select()), desc=True)
    assert [item.n[0] for item in query] == ["al", "bob", "dan", "cy", "eve"]
    assert [item.n[0] for item in by_age.sort(by_name.sort(by_name.select())[1:3])] == ["bob", "cy"][::-1]
    assert len(query) == 5 and loner not in query and query[0].n[0] == "al"


def test_removing_while_iterating(store):
    index = db0.index()
    for key in range(1000):
        index.add(key % 300, Item(key))
    seen = []
    for item in index.select(None, 250):
        seen.append(item.n)
        if len(seen) < 400:
            index.remove(item.n % 300, item)
            index.add(299, item)
        if len(seen) == 400:
            index.clear()
            index.add("another family", item)
            db0.commit()
    assert seen == sorted((n for n in range(1000) if n % 300 <= 250), key=lambda n: (n % 300, n))
    assert [key for key, _ in index] == ["another family"]


def test_an_empty_index_goes_along_to_another_prefix(store):
    index = db0.index()
    full = db0.index()
    full.add(1, Item(1))
    db0.open("other")
    there = Item(None)
    there.n = index
    assert db0.get_prefix_of(there.n).name == "other"
    there.n.add(1, there)
    with pytest.raises(db0.BadPrefixError, match="main"):
        there.n = full


def test_another_process_follows_and_cannot_write(root):
    setup = """
    import dbzero as db0
    @db0.memo(id="tests/Node")
    class Node:
        def __init__(self, n):
            self.n = n
    @db0.memo(singleton=True, id="tests/Board")
    class Board:
        def __init__(self):
            self.index = db0.index()
            self.text = db0.bytearray(b"start")
    """
    with Worker(root=root) as writer, Worker(root=root) as reader:
        writer.run(setup)
        writer.run("db0.init(root, autocommit=False); db0.open('p', 'rw'); board = Board()")
        writer.run("for i in range(500): board.index.add(i, Node(i))")
        writer.run("db0.commit()")
        reader.run(setup)
        reader.run("db0.init(root); db0.open('p', 'r'); board = Board(); query = board.index.select(10, 20)")
        assert reader.run("result = [node.n for node in query]") == list(range(10, 21))
        writer.run(
            "for key, node in board.index.select(0, 15) and board.index: key < 16 and board.index.remove(key, node)"
        )
        writer.run("board.index.add(12, Node(-1)); board.text[0:0] = b'x' * 3000; db0.commit(); result = None")
        reader.run("db0.refresh()")
        assert reader.run("result = [node.n for node in query]") == [-1, 16, 17, 18, 19, 20]
        assert reader.run(
            "board.index._check(); board.text._check(); result = (len(board.text), len(board.index))"
        ) == [3005, 485]
        for code in ("board.index.add(1, query[0])", "board.index.clear()", "board.text.append(1)"):
            refused = (
                f"try:\n    {code}\n    result = None\nexcept db0.ReadOnlyError as error:\n    result = str(error)"
            )
            assert "read-only" in reader.run(refused)


# --- what it costs ---------------------------------------------------------------------------------------------------


def filled(bench, keys):
    index = make_index()
    for n, key in enumerate(keys):
        index.add(key, Item(n))
    bench.commit()
    return index


def reopened(bench, index):
    found = bench.reopen(Index, index._p_oid)
    bench.use()
    bench.records.reads = 0
    return found


@pytest.mark.parametrize(
    "act",
    [
        lambda index, item, n: index.add(n / 3 + 0.5, item),
        lambda index, item, n: index.select(n // 3, n // 3 + 50)[3],
        lambda index, item, n: index.sort(index.select())[0],
        lambda index, item, n: next(iter(index)),
        lambda index, item, n: index.remove(n // 3, index.select(n // 3)[0]),
    ],
)
def test_cost_does_not_grow(bench, act):
    costs = []
    for n in (2_000, 20_000):
        index = reopened(bench, filled(bench, range(n)))
        item = Item(0)
        bench.commit()
        bench.records.reads = 0
        act(index, item, n)
        costs.append((bench.records.reads, len(bench.commit())))
    small, large = costs
    assert large[0] <= small[0] + 2 and large[1] <= small[1] + 2  # it may split a node more
    assert large[0] <= 8 and large[1] <= 7


def test_taking_the_first_again_and_again_is_cheap(bench):
    """As from a queue, with the loop's own iteration running."""
    index = reopened(bench, filled(bench, range(10_000)))
    for n in range(200):
        for key, item in index:
            index.remove(key, item)
            break
        assert key == n
    assert bench.records.reads < 20


def test_records_are_bounded_however_long_the_keys(bench):
    rng = random.Random(3)
    keys = [rng.choice("ab") * rng.choice([1, 10, 1000, 10_000]) + str(n) for n in range(1200)]
    rng.shuffle(keys)
    index = filled(bench, keys)
    index._check()
    assert [key for key, _ in index] == sorted(keys)
    assert max(map(len, bench.records.payloads.values())) < 3 * pairs.BULK
    entries = list(index)
    rng.shuffle(entries)
    for key, item in entries[:1100]:
        index.remove(key, item)
    index._check()
    bench.commit()
    assert max(map(len, bench.records.payloads.values())) < 3 * pairs.BULK
    assert [key for key, _ in index] == sorted(key for key, _ in entries[1100:])


def test_traversal_in_bounded_memory(bench):
    n = 30_000
    order = list(range(n))
    random.Random(1).shuffle(order)
    index = reopened(bench, filled(bench, order))
    bench.view.limit = 100_000
    most = 0
    for place, (key, _) in enumerate(index):
        assert key == place
        most = max(most, bench.view.weight)
    assert place == n - 1 and most < 2 * bench.view.limit
    gc.collect()
    assert bench.view.live_count < n // 2
    assert len(index.select(100, 20_099)) == 20_000


def test_leaves_stay_filled(bench):
    rng = random.Random(2)
    index = filled(bench, [rng.random() for _ in range(10_000)])
    for key, item in list(index):
        if rng.random() < 0.9:
            index.remove(key, item)
    index._check()
    nodes = 0
    stack = [index._data.root]
    while stack:
        node = stack.pop()
        nodes += 1
        stack += getattr(node._data, "children", [])
    assert nodes < 10 * len(index) / 128 + 2
    ascending = filled(bench, range(10_000))
    stack, nodes = [ascending._data.root], 0
    while stack:
        stack += getattr(stack.pop()._data, "children", [])
        nodes += 1
    assert nodes < 1.1 * 10_000 / 128


# --- damage ----------------------------------------------------------------------------------------------------------


def test_a_damaged_record_is_a_typed_error(bench, tiny):
    index = filled(bench, [None, *range(40)])
    oids = [oid for oid, payload in bench.records.payloads.items() if payload[0] in (Index.KIND, pairs.PairNode.KIND)]
    assert len(oids) > 8
    rng = random.Random(5)
    whole = dict(bench.records.payloads)
    refused = 0
    for _ in range(600):
        bench.records.payloads = dict(whole)
        oid = rng.choice(oids)
        damaged = bytearray(whole[oid])
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        bench.records.payloads[oid] = bytes(damaged)
        bench.open()
        bench.use()
        try:
            list(bench.view.ghost(Index, index._p_oid))
        except (CorruptError, db0.ReferenceError):
            refused += 1
    assert refused > 100
