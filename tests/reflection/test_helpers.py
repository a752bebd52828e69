"""assign, touch, small questions, decorators, taggify."""

from __future__ import annotations

from typing import Any

import pytest

import dbzero as db0


@db0.memo(id="tests/helpers/Item")
class Item:
    pass


@db0.memo(id="tests/helpers/Only", singleton=True, prefix="only")
class Only:
    pass


def test_assign(store: str) -> None:
    one, two = Item(), Item()
    db0.assign(one, two, a=1, b=[1])
    assert (one.a, two.a, list(one.b)) == (1, 1, [1])
    assert one.b is not two.b
    db0.assign(one)
    db0.assign()
    with pytest.raises(RuntimeError, match="Failed to set attribute 'a'"):
        db0.assign(one, object(), a=5)
    assert one.a == 5
    with pytest.raises(RuntimeError, match="Failed to set attribute 'b'"):
        db0.assign(one, b=object())
    assert list(one.b) == [1]


def test_touch(store: str) -> None:
    item = Item()
    db0.commit()
    state = db0.get_state_num(finalized=True)
    db0.commit()
    assert db0.get_state_num(finalized=True) == state
    db0.touch(item, item)
    db0.touch()
    db0.commit()
    assert db0.get_state_num(finalized=True) == state + 1
    with pytest.raises(TypeError):
        db0.touch(item, 5)
    db0.commit()
    assert db0.get_state_num(finalized=True) == state + 1  # nothing was marked


def test_questions(store: str) -> None:
    item = Item()
    assert (
        db0.is_singleton(Only) and db0.is_singleton(Only()) and not db0.is_singleton(item) and not db0.is_singleton(5)
    )
    assert db0.get_type(item) is Item and db0.get_type(5) is int
    assert db0.get_type_info(Only) == {"singleton": True, "prefix": "only"}
    assert db0.get_type_info(Item) == {"singleton": False, "prefix": None}
    with pytest.raises(TypeError):
        db0.get_type_info(item)
    with pytest.raises(RuntimeError):
        db0.get_type_info(int)
    item.name = "x"
    found = db0.describe(item)
    assert found["uuid"] == db0.uuid(item) and found["type"] is Item and found["size_of"] > 0
    assert found["field_layout"]["pos_vt"] == ["str"]
    with pytest.raises(TypeError):
        db0.describe(5)
    assert db0.get_address(item) != db0.get_address(Item())
    with pytest.raises(TypeError):
        db0.get_address(5)
    assert db0.getattr_as(item, "name", db0.MemoBase) == "x"
    with pytest.raises(AttributeError):
        db0.getattr_as(item, "missing", db0.MemoBase)
    assert db0.build_flags() == ""


class Shop:
    @db0.immutable
    def total(self) -> int:
        """Doc."""
        return 5

    @db0.immutable
    @db0.complete_with("buy")
    def offers(self, kind: str = "all", **more: Any) -> list[str]:
        return [kind]

    def buy(self, what: str) -> None: ...

    def clear(self) -> None: ...

    @property
    def size(self) -> int:
        return 1

    def _hidden(self) -> None: ...


def test_marks() -> None:
    shop = Shop()
    assert shop.total() == 5 and Shop.total.__doc__ == "Doc." and Shop.total.__name__ == "total"
    for total in (Shop.total, shop.total):
        assert db0.is_immutable(total) and db0.is_query(total)
        assert db0.is_immutable_parameter(total) and not db0.is_immutable_query(total)
    for offers in (Shop.offers, shop.offers):
        assert db0.is_immutable_query(offers) and not db0.is_immutable_parameter(offers)
        assert db0.has_complete_action(offers) and db0.get_complete_action_name(offers) == "buy"
    assert not db0.is_immutable(Shop.buy) and not db0.is_immutable(5)
    assert db0.get_complete_action(shop.offers) == shop.buy
    assert db0.get_complete_action(Shop.offers) is Shop.buy
    assert not db0.has_complete_action(Shop.buy) and db0.get_complete_action_name(Shop.buy) is None

    @db0.complete_with("missing")
    def local() -> None: ...

    with pytest.raises(RuntimeError):
        db0.get_complete_action(local)
    local.__qualname__ = "local"
    with pytest.raises(AttributeError):
        db0.get_complete_action(local)


def test_fulltext_and_table_view() -> None:
    @db0.fulltext
    def search(text: str, *, limit: int = 5) -> str:
        return text

    assert search("x") == "x" and db0.is_fulltext(search) and not db0.is_fulltext(test_marks) and not db0.is_fulltext(5)
    for bad in (lambda: 1, lambda a, b: 1, lambda *a: 1, lambda a, *b: 1):
        with pytest.raises(RuntimeError, match="Fulltext function must have exacly one positional parameter"):
            db0.fulltext(bad)

    @db0.table_view
    def plain() -> int:
        return 1

    @db0.table_view(operator=len)
    def operated() -> int:
        return 2

    assert plain() == 1 and operated() == 2
    assert db0.is_table_view(plain) and db0.is_table_view(operated) and not db0.is_table_view(search)
    assert getattr(operated, "__db0_table_view") is True and getattr(operated, "__db0_table_view_operator") is len
    assert getattr(plain, "__db0_table_view_operator") is None


def test_callables() -> None:
    from dbzero.reflection_api import CallableType

    assert list(db0.get_callables(Shop())) == [("offers", CallableType.QUERY), ("clear", CallableType.MUTATOR)]
    assert [name for name, _ in db0.get_callables(Shop(), include_properties=True)] == ["total", "offers", "clear"]
    assert list(db0.get_properties(Shop())) == [("size", False), ("total", True)]
    methods = {method.name: method for method in db0.get_methods(Shop())}
    assert sorted(methods) == ["buy", "clear", "offers", "total"]
    offers = methods["offers"]
    assert [p.name for p in offers.get_params()] == ["kind"] and offers.has_kwargs and not offers.has_args
    assert offers.get_params()[0].method is offers and list(offers.parameters) == ["self", "kind", "more"]


def test_memo_members(store: str) -> None:
    kind = db0.memo(type("Shop2", (Shop,), {"__module__": __name__}))
    shop = kind()
    shop.owner = "Ann"
    shop._secret = 1
    assert list(db0.get_properties(shop)) == [("owner", False), ("size", False), ("total", True)]
    assert [name for name, _ in db0.get_callables(shop)] == ["offers", "clear"]


def test_queries() -> None:
    queries = {query.name: query for query in db0.get_queries(__name__)}
    assert "test_queries" in queries and "Worker" not in queries
    made = db0.Query("answer", lambda a, b=2, **c: a + b)
    assert made.execute(1) == 3 and made.has_params and made.has_kwargs
    assert [p.name for p in made.get_params()] == ["a", "b"] and made.get_params()[0].query is made
    with pytest.raises(ModuleNotFoundError):
        db0.import_model("no.such.module")


@pytest.mark.parametrize(
    ("text", "options", "tokens"),
    [
        ("--Mińsk Mazowiecki", {"max_len": 4}, ["MINS", "MAZO"]),
        ("ab abc, ab", {}, ["AB", "ABC"]),
        ("one two", {"suffix": True, "max_len": 2}, ["NE", "WO"]),
        ("a bb ccc", {"min_len": 2, "max_len": None}, ["BB", "CCC"]),
        ("x@y (z)", {}, ["XY", "Z"]),
        ("", {}, []),
    ],
)
def test_taggify(text: str, options: dict[str, Any], tokens: list[str]) -> None:
    assert list(db0.taggify(text, **options)) == tokens
