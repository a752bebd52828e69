"""load and load_all."""

from __future__ import annotations

import datetime as dt
import enum
import pathlib
from decimal import Decimal
from typing import Any

import pytest

import dbzero as db0


@db0.memo(id="tests/loading/Item")
class Item:
    def __init__(self, **fields: Any) -> None:
        for name, value in fields.items():
            setattr(self, name, value)


@db0.memo(id="tests/loading/Custom")
class Custom:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __load__(self, size: int = 0) -> Any:
        return {"size": size, "value": self.value}


@db0.memo(id="tests/loading/Open")
class Open:
    def __load__(self, size: int = 0, **rest: Any) -> Any:
        return [size, rest]


class Plain:
    def __load__(self, *, color: str = "none") -> str:
        return color


PLAIN = [
    None,
    True,
    5,
    1.5,
    "x",
    b"x",
    Decimal("1.50"),
    dt.date(2020, 1, 1),
    dt.datetime(2020, 1, 1),
    dt.time(1),
    int,
    len,
]


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_values_without_a_store(value: Any) -> None:
    assert db0.load(value) is value


def test_builtin_containers_without_a_store() -> None:
    assert db0.load([1, (2, {3: [4]}), {5}]) == [1, (2, {3: [4]}), [5]]
    assert db0.load_all([1]) == [1]


def test_objects_and_collections(store: str) -> None:
    child = Item(name="c", _private=1, nothing=None)
    child._X__hidden = 1
    item = Item(
        children=[child, child], by_name={"c": child, ("a", 1): 2}, pair=(child, 1), some={1, 2}, self_made={"x"}
    )
    plain = {"name": "c", "_private": 1, "nothing": None}
    loaded = db0.load(item)
    assert loaded["children"] == [plain, plain]
    assert loaded["by_name"] == {"c": plain, ("a", 1): 2}
    assert loaded["pair"] == (plain, 1)
    assert type(loaded["some"]) is list and sorted(loaded["some"]) == [1, 2]
    assert db0.load(db0.set([child])) == [plain]
    assert type(db0.load(db0.list([1]))) is list and type(db0.load(db0.tuple([1]))) is tuple
    assert db0.load({"x": db0.dict(a=1)}) == {"x": {"a": 1}}


class Level(enum.Enum):
    LOW = 1


def test_further_values(store: str) -> None:
    level = db0.enum("Level", ["HIGH"])
    values = {"range": range(3), "path": pathlib.PurePosixPath("/x"), "member": Level.LOW, "function": test_custom}
    item = Item(**values, some=frozenset([level.HIGH]), keyed={frozenset([level.HIGH]): 1, (level.HIGH,): 2})
    assert db0.load(item) == {**values, "some": ["HIGH"], "keyed": {frozenset(["HIGH"]): 1, ("HIGH",): 2}}


def test_custom(store: str) -> None:
    nested = Custom(Custom(1))
    assert db0.load(nested, size=3, other=4) == {"size": 3, "value": {"size": 3, "value": 1}}
    assert db0.load(Item(inner=nested), size=1)["inner"]["value"] == {"size": 1, "value": 1}
    assert db0.load_all(nested, size=2) == {"value": {"size": 2, "value": 1}}
    assert db0.load(Open(), size=1, more=2) == [1, {"more": 2}]
    assert db0.load([Plain()], color="red", size=1) == ["red"]
    assert db0.load(Custom([Item(a=1), (Item(b=2),)])) == {"size": 0, "value": [{"a": 1}, ({"b": 2},)]}


def test_exclude(store: str) -> None:
    item = Item(a=1, b=Item(a=2))
    assert db0.load(item, exclude=["a", "zzz"]) == {"b": {"a": 2}}
    assert db0.load(item, exclude=db0.tuple(["b"])) == {"a": 1}
    for bad in (None, "a", {"a"}, {"a": 1}, 5):
        with pytest.raises(TypeError, match="Exclude shoud be a sequence"):
            db0.load(item, exclude=bad)
    with pytest.raises(AttributeError, match="Cannot exclude values when __load__ is implemented"):
        db0.load(Custom(1), exclude=["value"])
    assert db0.load_all(Custom(1), exclude=["value"]) == {}
    with pytest.raises(TypeError):
        db0.load([1], exclude=["a"])


def test_cycles_and_diamonds(store: str) -> None:
    item = Item()
    item.me = item
    items = db0.list()
    items.append([items])
    for cyclic in (item, items):
        with pytest.raises(RecursionError, match="Recursive loading detected"):
            db0.load(cyclic)
    shared = Item(x=1)
    assert db0.load([shared, {"a": shared}]) == [{"x": 1}, {"a": {"x": 1}}]


def test_refused(store: str) -> None:
    for refused in (Item, db0.enum("Refused", ["A"])):
        with pytest.raises(RuntimeError, match="__load__ not implemented"):
            db0.load(refused)
    with pytest.raises(AttributeError):
        db0.load(object())
    with pytest.raises(TypeError):
        db0.load(1, 2)
