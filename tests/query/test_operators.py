"""filter, split_by, join, group_by: what they give, on every kind of query, and what they refuse."""

from __future__ import annotations

import gc
from typing import Any

import pytest

import dbzero as db0

Size = db0.enum("OperatorsSize", ["SMALL", "LARGE"])
Unused = db0.enum("OperatorsUnused", ["SMALL"])


@db0.memo
class Shirt:
    def __init__(self, price: int, *tags: Any) -> None:
        self.price = price
        db0.tags(self).add(*tags)


@db0.memo
class Team:
    def __init__(self, name: str) -> None:
        self.name = name


@db0.memo
class Player:
    def __init__(self, name: str, *teams: Any) -> None:
        self.name = name
        db0.tags(self).add(*teams)


@db0.memo
class Fan(Player):
    pass


@db0.memo(singleton=True)
class Shop:
    def __init__(self) -> None:
        self.by_price = db0.index()


@pytest.fixture
def shop(store: str) -> Any:
    """Ten shirts: even prices are "plain", those from 6 on "dear", 1 and 2 small, 2 and 3 large."""
    made = Shop()
    for price in range(10):
        tags: list[Any] = ["plain"] if price % 2 == 0 else []
        tags += ["dear"] if price > 5 else []
        tags += [Size.SMALL] if price in (1, 2) else []
        tags += [Size.LARGE] if price in (2, 3) else []
        shirt = Shirt(price, *tags)
        made.by_price.add(price, shirt)
    return made


def prices(query: Any) -> list[int]:
    return [shirt.price for shirt in query]


def rows(query: Any) -> list[tuple[Any, ...]]:
    return [(row[0].price, *row[1:]) for row in query]


# --- filter ----------------------------------------------------------------------------------------------------------


def test_filter(shop: Any) -> None:
    query = db0.filter(lambda shirt: shirt.price > 4, db0.find(Shirt))
    assert prices(query) == prices(query) == [9, 8, 7, 6, 5]
    assert len(query) == 5 and query and not db0.filter(lambda shirt: False, db0.find(Shirt))
    assert prices(query[:2]) == [9, 8] and query[0].price == 9  # of what passes, not of what comes in
    assert prices(db0.filter(lambda shirt: shirt.price < 8, query)) == [7, 6, 5]
    assert prices(shop.by_price.sort(query)) == [5, 6, 7, 8, 9]
    assert prices(db0.filter(lambda shirt: shirt.price < 3, shop.by_price.select(1, 5))) == [1, 2]
    assert prices(db0.filter(lambda shirt: True, shop.by_price.sort(db0.find(Shirt), desc=True)))[:2] == [9, 8]


def test_filter_within_find(shop: Any) -> None:
    query = db0.filter(lambda shirt: shirt.price > 4, db0.find(Shirt))
    assert prices(db0.find("plain", query)) == [8, 6]
    assert prices(db0.find("plain", db0.no(query))) == [4, 2, 0]
    assert prices(db0.find([query, Size.SMALL])) == [9, 8, 7, 6, 5, 2, 1]


def test_what_a_filter_raises_comes_out(shop: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        list(db0.filter(lambda shirt: 1 / shirt.price, db0.find(Shirt)))
    with pytest.raises(ZeroDivisionError):
        len(db0.find(db0.filter(lambda shirt: 1 / shirt.price, db0.find(Shirt))))


def test_filter_may_use_the_store(shop: Any) -> None:
    def dear(shirt: Any) -> bool:
        db0.commit()
        return shirt in db0.find("dear")

    assert prices(db0.find(Shirt, db0.filter(dear, db0.find("plain")))) == [8, 6]


# --- split_by --------------------------------------------------------------------------------------------------------


def test_split(shop: Any) -> None:
    query = db0.split_by(["plain", "dear"], db0.find(Shirt))
    assert rows(query) == [
        (9, "dear"), (8, "plain"), (7, "dear"), (6, "plain"), (4, "plain"), (2, "plain"), (0, "plain"),
    ]  # fmt: skip
    assert len(query) == 7 and query
    both = db0.split_by(("plain", "dear"), db0.find(Shirt), exclusive=False)
    assert len(both) == len(list(both)) == 9 and (8, "plain") in rows(both) and (8, "dear") in rows(both)
    for nothing in (db0.split_by([], db0.find(Shirt)), db0.split_by(["unknown"], db0.find(Shirt))):
        assert not nothing and len(nothing) == 0 and list(nothing) == []


def test_split_by_enum_values_gives_real_ones(shop: Any) -> None:
    for query in (db0.split_by(list(Size.values()), db0.find(Shirt)), db0.split_by([Size.SMALL], db0.find(Shirt))):
        for _, tag in query:
            assert type(tag) is type(Size.SMALL) and db0.get_prefix_of(tag).name == "main"
    assert rows(db0.split_by([Unused.SMALL, Size.SMALL], db0.find(Shirt))) == [(2, Size.SMALL), (1, Size.SMALL)]


def test_nested_splits_flatten(shop: Any) -> None:
    inner = db0.split_by([Size.SMALL, Size.LARGE], db0.find(Shirt), exclusive=False)
    outer = db0.split_by(["plain"], inner)
    assert rows(outer) == [(2, "plain", Size.SMALL), (2, "plain", Size.LARGE)] and len(outer) == 2


def test_the_tags_stay_with_the_rows(shop: Any) -> None:
    split = db0.split_by(["plain", "dear"], db0.find(Shirt))
    assert rows(db0.find(split, Size.SMALL)) == [(2, "plain")]
    assert rows(db0.find(Shirt, db0.find(split, db0.no("plain")))) == [(9, "dear"), (7, "dear")]
    assert rows(split[1:3]) == [(8, "plain"), (7, "dear")] and (split[0][0].price, split[0][1]) == (9, "dear")
    assert rows(shop.by_price.sort(split))[:2] == [(0, "plain"), (2, "plain")]
    assert rows(db0.find("dear", shop.by_price.sort(split))) == [(6, "plain"), (7, "dear"), (8, "plain"), (9, "dear")]
    assert rows(db0.filter(lambda shirt: shirt.price > 7, split)) == [(9, "dear"), (8, "plain")]
    assert prices(db0.find(Shirt, db0.no(split))) == [5, 3, 1]


# --- join ------------------------------------------------------------------------------------------------------------


def test_join(store: str) -> None:
    red, blue, green = Team("red"), Team("blue"), Team("green")
    ann, bob = Player("ann", red), Player("bob", red, blue)
    cid, dan = Fan("cid", blue), Fan("dan", red, "loud")
    players = db0.find(Player, db0.no(Fan))
    query = db0.join(players, Fan, on=Team)
    found = sorted((p.name, f.name) for p, f in query)
    assert found == [("ann", "dan"), ("bob", "cid"), ("bob", "dan")] and len(query) == 3 and query
    assert sorted((p.name, f.name) for p, f in db0.join(players, db0.find("loud"), on=Team)) == [
        ("ann", "dan"), ("bob", "dan"),
    ]  # fmt: skip
    only_blue = db0.join(players, Fan, on=db0.filter(lambda team: team is blue, db0.find(Team)))
    assert [(p.name, f.name) for p, f in only_blue] == [("bob", "cid")]
    selfish = list(db0.join(players, players, on=Team))
    assert (ann, ann) in selfish and (bob, ann) in selfish and selfish.count((bob, bob)) == 2  # one a common tag
    assert len(db0.join(players, Fan, Player, on=Team)) == len(list(db0.join(players, Fan, Player, on=Team)))
    assert not db0.join(players, Fan, on=db0.filter(lambda team: team is green, db0.find(Team)))
    assert len(query[:2]) == 2 and type(query[0]) is tuple
    assert cid and dan


def test_join_follows_changes(store: str) -> None:
    red = Team("red")
    ann, cid = Player("ann", red), Fan("cid")
    query = db0.join(Player, Fan, on=Team)
    assert not query
    db0.tags(cid).add(red)
    assert len(query) == 2  # a fan is a player too
    db0.tags(ann).remove(red)
    assert list(query) == [(cid, cid)]


# --- group_by --------------------------------------------------------------------------------------------------------


def test_group_by_key_and_tag(shop: Any) -> None:
    db0.commit()
    query = db0.find(Shirt)
    assert db0.group_by(lambda shirt: shirt.price % 3, query) == {0: 4, 1: 3, 2: 3}
    assert db0.group_by(["plain", "dear"], query) == {"plain": 5, "dear": 2}
    assert db0.group_by(Size.values(), query) == {"SMALL": 2, "LARGE": 1}
    assert db0.group_by((["plain", "dear"], lambda shirt: shirt.price > 7), query) == {
        ("plain", False): 4, ("plain", True): 1, ("dear", False): 1, ("dear", True): 1,
    }  # fmt: skip
    total = db0.make_sum(lambda shirt: shirt.price)
    assert db0.group_by(["plain", "dear"], query, ops=(db0.count_op, total)) == {"plain": (5, 20), "dear": (2, 16)}
    assert db0.group_by(["plain"], query, ops=total) == {"plain": 20}
    assert db0.group_by(lambda shirt: shirt.price % 2, query[:4]) == {0: 2, 1: 2}
    assert db0.group_by(["plain"], db0.filter(lambda shirt: shirt.price, query)) == {"plain": 4}


def test_group_by_shows_what_is_committed(shop: Any) -> None:
    query = db0.find(Shirt)
    assert db0.group_by(lambda shirt: shirt.price % 2, query) == {}
    db0.commit()
    extra = Shirt(100, "plain")
    assert db0.group_by(["plain"], query) == {"plain": 5}
    db0.commit()
    assert db0.group_by(["plain"], query) == {"plain": 6}
    extra.price = 1
    db0.commit()
    # attributes count, lambdas that look alike don't get mixed up, nor do operators
    assert db0.group_by(lambda shirt: (shirt.price, 1), query)[1, 1] == 2
    assert db0.group_by(lambda shirt: (shirt.price, 2), query)[1, 2] == 2
    assert db0.group_by(lambda shirt: 0, query) == {0: 11}
    assert db0.group_by(lambda shirt: 0, query, ops=db0.make_sum(lambda shirt: shirt.price)) == {0: 46}
    db0.delete(extra) if not db0.getrefcount(extra) else db0.tags(extra).remove("plain")
    assert db0.group_by(["plain"], query) == {"plain": 6}


def test_operators_of_one_s_own(shop: Any) -> None:
    def dearest(state: Any, removed: Any, added: Any) -> Any:
        return -1 if added is None else max([state, *[shirt.price for shirt in added]])

    db0.commit()
    assert db0.group_by(["plain", "dear"], db0.find(Shirt), ops=dearest) == {"plain": 8, "dear": 9}
    assert db0.count_op(5, [1], [2, 3]) == 6 and db0.make_sum(abs)(10, [1], [5]) == 14


def test_group_by_starts_again_when_something_changes_meanwhile(shop: Any) -> None:
    db0.commit()
    query = db0.find(Shirt)
    calls: list[int] = []

    def key(shirt: Any) -> bool:
        calls.append(shirt.price)
        if len(calls) == 5:
            query.first().price = 100
            db0.commit()
        return bool(shirt.price == 100)

    assert db0.group_by(key, query) == {True: 1, False: 9}
    assert len(calls) == 20

    def fails_once(shirt: Any) -> int:
        calls.append(0)
        if len(calls) == 25:
            query.first().price = 200
            db0.commit()
            raise ZeroDivisionError
        return int(shirt.price)

    assert db0.group_by(fails_once, query)[200] == 1
    with pytest.raises(ZeroDivisionError):
        db0.group_by(lambda shirt: 1 // shirt.price, query)


def test_group_by_reads_what_is_committed_of_other_prefixes(shop: Any) -> None:
    db0.open("teams", "rw")
    team = Team("blue")
    db0.tags(team).add("kept")
    db0.open("main", "rw")
    for shirt in db0.find(Shirt):
        shirt.price = db0.weak_proxy(team)
    db0.commit()
    name = lambda shirt: shirt.price.name  # noqa: E731
    assert db0.group_by(name, db0.find(Shirt)) == {"blue": 10}
    team.name = "green"
    assert db0.group_by(name, db0.find(Shirt)) == {"blue": 10}
    db0.commit()
    assert db0.group_by(name, db0.find(Shirt)) == {"green": 10}


def test_group_by_on_a_reader(shop: Any) -> None:
    db0.commit()
    db0.close("main")
    gc.collect()
    db0.open("main", "r")
    assert db0.group_by(["plain"], db0.find(Shirt)) == {"plain": 5}


def test_a_prefix_for_results_is_accepted(shop: Any) -> None:
    db0.commit()
    db0.close("main")
    gc.collect()
    db0.open("main", "r")
    query = db0.find(Shirt)
    db0.init_fast_query("results")
    assert db0.get_current_prefix().name == "results" and db0.group_by(["plain"], query) == {"plain": 5}
    db0.init_fast_query(None)
    assert db0.get_current_prefix().name == "main" and db0.group_by(["plain"], db0.find(Shirt)) == {"plain": 5}
    assert db0.FastQuery(query).group_by(["plain"]) == {"plain": 5}
    assert db0.GroupByEval(["plain"]).evaluate(query) == [db0.GroupByBucket("plain", 5)]
    assert db0.signature_of(len) != db0.signature_of(repr) and db0.signature_of(["a", ("b")]) == db0.signature_of(
        ["a", "b"]
    )


# --- what is refused ---------------------------------------------------------------------------------------------------


def test_bad_arguments_are_named(shop: Any) -> None:
    query = db0.find(Shirt)
    bad = [
        (lambda: db0.filter(None, query), "function"),
        (lambda: db0.filter(len, Shirt), "'query'"),
        (lambda: db0.filter(len, [1]), "'query'"),
        (lambda: db0.filter(len, shop.by_price), "'query'"),
        (lambda: db0.split_by("plain", query), "'tags'"),
        (lambda: db0.split_by(7, query), "'tags'"),
        (lambda: db0.split_by(["plain", 7], query), "'tags'"),
        (lambda: db0.split_by(["plain"], Shirt), "'query'"),
        (lambda: db0.join(Shirt, on="team"), "'on'"),
        (lambda: db0.join(Shirt, ["x"], on=Team), "argument 2"),
        (lambda: db0.group_by(7, query), "'group_defs'"),
        (lambda: db0.group_by([], query), "'group_defs'"),
        (lambda: db0.group_by(len, Shirt), "'query'"),
        (lambda: db0.group_by(len, query, ops=7), "'ops'"),
        (lambda: db0.group_by(len, query, ops=()), "'ops'"),
        (lambda: query[::-1], "step"),
        (lambda: db0.find(db0.join(Shirt, Shirt, on=Team)), "criterion"),
    ]
    for attempt, text in bad:
        with pytest.raises(db0.Error, match=text):
            list(attempt())
    with pytest.raises(TypeError, match="on"):
        db0.join(Shirt, Player)
    with pytest.raises(TypeError):
        db0.join(on=Team)


# --- slices of what has to be gone through to be counted ----------------------------------------------------------------


def test_what_changes_between_counting_a_slice_and_going_through_it_shows(shop: Any) -> None:
    db0.commit()
    cheap = shop.by_price.sort(db0.find("plain"))[:3]
    assert [shirt.price for shirt in cheap] == [0, 2, 4] == [shirt.price for shirt in list(cheap)]
    started = iter(cheap)
    assert len(cheap) == 3
    added = Shirt(50, "plain")
    shop.by_price.add(-1, added)
    assert [shirt.price for shirt in started] == [50, 0, 2]
    assert len(cheap) == 3
    shop.by_price.remove(-1, added)
    db0.tags(added).remove("plain")
    assert [shirt.price for shirt in cheap] == [0, 2, 4]
    db0.commit()
    assert len(cheap) == 3
    shop.by_price.remove(0, cheap[0])
    assert [shirt.price for shirt in cheap] == [2, 4, 6]
    assert len(cheap) == 3
    db0.close()
    with pytest.raises(db0.ClosedError):
        list(cheap)
