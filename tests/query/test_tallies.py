"""Groups by plain functions, which are kept and brought forward: they are what computing them afresh gives."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

import dbzero as db0
from dbzero.query import tallies
from dbzero.query.plainreads import plain_reads
from dbzero.session.workspace import active
from tests.session.forks import Forked

LIMIT = 5


@db0.memo
class Sale:
    def __init__(self, city: Any, amount: Any) -> None:
        self.city = city
        self.amount = amount
        self.note = ""
        db0.tags(self).add("sale")


@db0.memo
class Refund(Sale):
    pass


@db0.memo
class Guarded:
    level = 3

    def __init__(self, number: int) -> None:
        self.number = number

    @property
    def twice(self) -> int:
        return 2 * self.number


def by_city(sale: Any) -> Any:
    return sale.city


def made() -> dict[Any, Any]:
    """The tallies of the current prefix."""
    return {
        name: found
        for opened in active().open_prefixes.values()
        for name, found in opened.view.tallies.items()
        if found is not tallies._UNFIT
    }


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (lambda t: t.a, {"a"}),
        (lambda t: t.a // 10 % 10, {"a"}),
        (lambda t: (t.a, t.b > 3, -t.c), {"a", "b", "c"}),
        (lambda t: (t.a and t.b) or 5, {"a", "b"}),
        (lambda t: "x" if t.a is None else t.b[0], {"a", "b"}),
        (lambda t: 0 < t.a < 5, {"a"}),
        (lambda t: t.a in (1, 2), {"a"}),
        (lambda t: 1, set()),
        (by_city, {"city"}),
    ],
)
def test_functions_of_attributes_are_told(function: Any, names: set[str]) -> None:
    found = plain_reads(function)
    assert found is not None and found[1] == names


def _generator(t: Any) -> Any:
    yield t.a


def _local(t: Any) -> Any:
    u = t
    return u.a


def _loop(t: Any) -> Any:
    while t.a:
        pass


@pytest.mark.parametrize(
    "function",
    [
        lambda t: t.a > LIMIT,
        lambda t: t,
        lambda t: t == 5,
        lambda t: t.a.b,
        lambda t: t.a(),
        lambda t: len(t.a),
        lambda t: [t.a],
        lambda t: f"{t.a}",
        lambda t: t._a,
        lambda t, u=1: t.a,
        lambda *t: t.a,  # type: ignore[attr-defined]
        (lambda n: lambda t: t.a > n)(3),
        _generator,
        _local,
        _loop,
        len,
        Sale,
        "text",
    ],
)
def test_what_may_depend_on_more_is_not(function: Any) -> None:
    assert plain_reads(function) is None


def test_it_is_brought_forward_by_what_changed(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sales = [Sale(("Rome", "Oslo", "Bern")[n % 3], n) for n in range(90)]
    db0.commit()
    query = db0.find(Sale)
    total = db0.make_sum(lambda sale: sale.amount)
    ask = lambda: db0.group_by(lambda sale: sale.city, query, ops=(db0.count_op, total))  # noqa: E731
    assert ask() == {"Rome": (30, 1305), "Oslo": (30, 1335), "Bern": (30, 1365)}
    [tally] = made().values()
    monkeypatch.setattr(tallies.Tally, "fill", None)  # from here on nothing is computed afresh
    sales[0].amount = 1000
    assert ask() == {"Rome": (30, 1305), "Oslo": (30, 1335), "Bern": (30, 1365)}
    db0.commit()
    assert ask() == {"Rome": (30, 2305), "Oslo": (30, 1335), "Bern": (30, 1365)}
    sales[1].city = "Bonn"
    db0.tags(sales[2]).remove("sale")
    added = Sale("Rome", 5)
    db0.commit()
    added.amount = 6  # pending
    assert ask() == {"Rome": (31, 2310), "Oslo": (29, 1334), "Bern": (30, 1365), "Bonn": (1, 1)}
    assert [one.state for one in made().values()] == [db0.get_state_num(finalized=True)]
    assert tally.state < db0.get_state_num(finalized=True)
    db0.commit()


def test_only_what_can_be_told_again_is_kept(store: str) -> None:
    objects = [Guarded(n) for n in range(4)]
    for obj in objects:
        db0.tags(obj).add("guarded")
    sales = [Sale("Rome", 0.5), Sale("Oslo", 2)]
    db0.commit()
    guarded, every = db0.find("guarded"), db0.find(Sale)
    assert db0.group_by(lambda one: one.twice, guarded) == {0: 1, 2: 1, 4: 1, 6: 1}
    assert db0.group_by(lambda one: one.level, guarded) == {3: 4}
    assert db0.group_by(lambda sale: sale.city, every, ops=db0.make_sum(lambda sale: sale.amount)) == {
        "Rome": 0.5,
        "Oslo": 2,
    }
    assert db0.group_by(lambda sale: sale.amount, every) == {0.5: 1, 2: 1}
    assert db0.group_by(lambda sale: sale.city, every, ops=lambda state, removed, added: len(added or ())) == {
        "Rome": 1,
        "Oslo": 1,
    }
    assert db0.group_by(lambda sale: sale.city, db0.filter(lambda sale: sale.amount > 1, every)) == {"Oslo": 1}
    assert made() == {}
    sales[0].city = True
    sales[1].city = 1
    db0.commit()
    assert db0.group_by(by_city, every) == {1: 2} and made() == {}
    with pytest.raises(AttributeError):
        db0.group_by(lambda sale: sale.missing, every)
    Guarded.level = 4
    assert db0.group_by(lambda one: one.level, guarded) == {4: 4}
    Guarded.level = 3


def test_a_class_that_changes_ends_it(store: str) -> None:
    Sale("Rome", 5)
    db0.commit()
    assert db0.group_by(lambda sale: sale.note, db0.find(Sale)) == {"": 1} and len(made()) == 1
    Sale.note = property(lambda self: "now")  # type: ignore[assignment]
    try:
        assert db0.group_by(lambda sale: sale.note, db0.find(Sale)) == {"now": 1}
    finally:
        del Sale.note


def test_what_depends_on_another_view_is_not_kept(store: str) -> None:
    sales = [Sale("Rome", n) for n in range(4)]
    by_amount = db0.index()
    for sale in sales[:3]:
        by_amount.add(sale.amount, sale)
    kept = db0.list([by_amount])
    db0.commit()
    assert db0.group_by(by_city, db0.find(Sale, kept[0].select(1, 9))) == {"Rome": 2} and len(made()) == 1
    with db0.snapshot() as past:
        db0.tags(sales[0]).add("even")
        db0.commit()
        assert db0.group_by(by_city, db0.find(Sale, past.find("sale"))) == {"Rome": 4}
    assert len(made()) == 1


def test_compacted_states_are_done_without(store: str) -> None:
    sales = [Sale("Rome", n) for n in range(20)]
    db0.commit()
    assert db0.group_by(by_city, db0.find(Sale)) == {"Rome": 20}
    for n in range(5):
        sales[n].city = "Oslo"
        db0.commit()
    db0.compact(keep_states=1)
    assert db0.group_by(by_city, db0.find(Sale)) == {"Rome": 15, "Oslo": 5}


def test_a_reader_follows(root: str) -> None:
    db0.init(root, prefix="p", autocommit=False)
    for n in range(50):
        Sale(("Rome", "Oslo")[n % 2], n)
    db0.commit()
    db0.close()

    def body(send: Any) -> None:
        db0.init(root, prefix="p", autocommit=False)
        sales = list(db0.find(Sale))
        for n in range(30):
            sales[n].city = "Bern"
            Sale("Bonn", n)
            db0.commit()
            send(db0.get_state_num(finalized=True))
        db0.close()

    child = Forked(body)
    db0.init(root, prefix="p", read_write=False)
    query = db0.find(Sale)
    last = 0
    for _ in range(30):
        child.receive()
        found = db0.group_by(by_city, query)
        bonn = found.get("Bonn", 0)
        assert found.get("Bern", 0) == bonn >= last and sum(found.values()) == 50 + bonn
        last = bonn
    assert child.wait() == 0
    db0.refresh()
    assert db0.group_by(by_city, query) == {"Rome": 10, "Oslo": 10, "Bern": 30, "Bonn": 30}


@pytest.mark.parametrize("seed", range(25))
def test_random_programs(store: str, seed: int) -> None:
    chance = random.Random(seed)
    values: list[Any] = [None, "a", "b", "", 1, 2, 3, b"x"]
    if seed % 5 == 0:
        values += [True, 1.5]
    sales: list[Any] = []
    queries = [
        db0.find(Sale),
        db0.find(Refund),
        db0.find("even", Sale),
        db0.find(Sale, db0.no("even")),
        db0.find(["even", "sale"]),
    ]
    functions: list[Any] = [
        lambda sale: sale.city,
        lambda sale: (sale.city, sale.amount % 3),
        lambda sale: "none" if sale.city is None else sale.amount > 10,
        lambda sale: (sale.note or None, len(str(sale.city))),
    ]
    total = db0.make_sum(lambda sale: sale.amount)
    expected: dict[int, Any] = {}

    def committed() -> None:
        db0.commit()
        for place, query in enumerate(queries):
            for function in functions:
                groups: dict[Any, list[Any]] = {}
                for sale in list(query):
                    groups.setdefault(function(sale), []).append(sale)
                expected[place, function] = {
                    key: (len(found), sum(sale.amount for sale in found)) for key, found in groups.items()
                }

    for _ in range(60):
        chosen = chance.random()
        if chosen < 0.35 or not sales:
            sales.append(chance.choice((Sale, Refund))(chance.choice(values), chance.randrange(20)))
        elif chosen < 0.6:
            setattr(chance.choice(sales), chance.choice(("city", "note")), chance.choice(values))
        elif chosen < 0.7:
            chance.choice(sales).amount = chance.randrange(20)
        elif chosen < 0.8:
            db0.tags(chance.choice(sales)).add("even")
        elif chosen < 0.85:
            gone = sales.pop(chance.randrange(len(sales)))
            db0.tags(gone).remove("even", "sale")
            del gone
        elif chosen < 0.95:
            committed()
        else:
            db0.clear_cache()
        place, function = chance.randrange(len(queries)), chance.choice(functions)
        assert db0.group_by(function, queries[place], ops=(db0.count_op, total)) == expected.get((place, function), {})
    assert Counter(map(type, made().values())).keys() <= {tallies.Tally}
    del sales
