"""compare and hash."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest

import dbzero as db0
from tests.worker import Worker

Tone = db0.enum("Tone", ["HIGH", "LOW"])


@db0.memo(id="tests/comparing/Item")
class Item:
    def __init__(self, *values: Any) -> None:
        for i, value in enumerate(values):
            setattr(self, f"v{i}", value)


@db0.memo(id="tests/comparing/Other")
class Other:
    pass


def contents() -> list[Any]:
    return [
        *(None, True, 5, 1 << 70, 1.5, float("nan"), "text", b"bytes", Decimal("1.5"), dt.date(2020, 1, 1)),
        *([1, [2]], (1, "x"), {"a": [1]}, {1, 2}, {(1, 2): {3}}, Tone.HIGH),
    ]


def test_equal_content(store: str) -> None:
    for a, b in zip(contents(), contents(), strict=True):
        assert db0.compare(Item(a), Item(b)), a
    assert db0.compare(Item(*contents()), Item(*contents()))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1, 2),
        ([1], [2]),
        ([1], (1,)),
        ([1], [1, 1]),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"b": 1}),
        ({1}, {2}),
        ("a", None),
    ],
)
def test_different_content(store: str, a: Any, b: Any) -> None:
    assert not db0.compare(Item(a), Item(b))
    assert not db0.compare(Item([a]), Item([b]))


def test_members_and_classes(store: str) -> None:
    assert db0.compare(Item(Item(1)), Item(Item(1))) and not db0.compare(Item(Item(1)), Item(Item(2)))
    assert db0.compare(Item({Item(1), Item(2)}), Item({Item(2), Item(1)}))
    assert not db0.compare(Item({Item(1), Item(2)}), Item({Item(2), Item(2)}))
    assert db0.compare(Item({Item(1): 5}), Item({Item(1): 5})) and not db0.compare(
        Item({Item(1): 5}), Item({Item(1): 6})
    )
    assert not db0.compare(Item(), Other())
    more = Item(1)
    more.extra = 1
    assert not db0.compare(more, Item(1))
    for pair in ((Item(), 5), (5, Item()), ([], [])):
        with pytest.raises(TypeError):
            db0.compare(*pair)


def test_cycles_and_other_prefixes(store: str) -> None:
    def ring(length: int) -> Any:
        first = Item()
        last = first
        for _ in range(length - 1):
            last.next = Item()
            last = last.next
        last.next = first
        return first

    here = ring(3)
    db0.open("other")
    assert db0.compare(here, ring(3))
    assert db0.get_prefix_of(here).name == "main"


HASHED = [
    None,
    True,
    1,
    -1,
    1 << 80,
    1.5,
    "text",
    "\ud800",
    b"x",
    (1, (2, "x")),
    (),
    dt.date(2020, 1, 1),
    int,
    dt.datetime,
]


def test_hash_is_the_same_in_every_process() -> None:
    with Worker() as worker:
        there = worker.run(
            """
            import dbzero as db0, datetime as dt
            values = [None, True, 1, -1, 1 << 80, 1.5, "text", "\\ud800", b"x", (1, (2, "x")), (), dt.date(2020, 1, 1), int,
                      dt.datetime]
            result = [db0.hash(value) for value in values]
            """
        )
    here = [db0.hash(value) for value in HASHED]
    assert here == there
    assert all(-(1 << 63) <= one < 1 << 63 for one in here)
    assert len(set(here)) == len(here) - 1  # True is 1


def test_hash_of_the_rest(store: str) -> None:
    item = Item()
    assert db0.hash(item) == db0.hash(item) != db0.hash(Item())
    assert db0.hash(Tone.HIGH) == db0.hash(db0.enum("Tone", ["HIGH", "LOW"])[0]) != db0.hash(Tone.LOW)
    assert db0.hash((1, 2)) == db0.hash(db0.tuple([1, 2])) != db0.hash((2, 1))
    assert db0.hash((Tone.HIGH, 1)) == db0.hash(db0.tuple([Tone.HIGH, 1]))
    assert db0.hash(Item) != db0.hash(Other)
    for bad in ([], {}, set(), db0.list(), db0.dict(), db0.set(), ([],)):
        with pytest.raises(TypeError, match="unhashable"):
            db0.hash(bad)
    with pytest.raises(RuntimeError):
        db0.hash(object())
