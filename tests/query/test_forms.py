"""Queries as data: bytes, identity, signature, likeness, and as values of objects."""

from __future__ import annotations

import datetime as dt
import os
import random
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest

import dbzero as db0

Color = db0.enum("FormsColor", ["RED", "BLUE"])


@db0.memo
class Thing:
    def __init__(self, n: int, *tags: Any) -> None:
        self.n = n
        db0.tags(self).add(*tags)


@db0.memo(singleton=True)
class Box:
    def __init__(self) -> None:
        self.index = db0.index()
        self.by_size = db0.index()
        self.query: Any = None
        self.queries: Any = []
        self.named: Any = {}


@pytest.fixture
def box(store: str) -> Any:
    made = Box()
    for n in range(12):
        thing = Thing(n, *(["even"] if n % 2 == 0 else []), *(["third"] if n % 3 == 0 else []), list(Color)[n % 2])
        made.index.add(dt.date(2020, 1, 1) + dt.timedelta(n), thing)
        made.by_size.add(Decimal(-n), thing)
    return made


def queries(box: Any) -> list[Any]:
    some = box.index.select(dt.date(2020, 1, 3), dt.date(2020, 1, 8))
    thing = db0.find(Thing)[3]
    return [
        db0.find(),
        db0.find(Thing),
        db0.find("even"),
        db0.find("no such tag"),
        db0.find("even", "third"),
        db0.find(["even", "third"], db0.no("even", Color.RED)),
        db0.find(Color.BLUE, ("even", ["third", Color.RED])),
        db0.find(db0.as_tag(Thing)),
        db0.find(db0.as_tag(thing)),
        db0.find(thing),
        db0.find(db0.MemoBase, "even"),
        db0.find(Thing)[2:9:3],
        db0.find(Thing)[-3:],
        db0.find("even", db0.find(Thing)[:6]),
        some,
        box.index.select(),
        box.by_size.select(Decimal("-7.5"), None, True),
        box.by_size.sort(db0.find(Thing)),
        box.by_size.sort(box.index.sort(db0.find("even"), desc=True), null_first=True)[:4],
        db0.find("even", some),
        db0.find("even", box.by_size.sort(some, desc=True)),
        db0.split_by(["even", Color.RED], db0.find(Thing), exclusive=False),
        db0.find("third", db0.split_by([Color.BLUE, Color.RED], db0.find(Thing))),
    ]


def test_round_trips(box: Any) -> None:
    for query in queries(box):
        data = db0.serialize(query)
        assert type(data) is bytes
        again = db0.deserialize(data)
        assert list(again) == list(query) and len(again) == len(query)
        assert db0.serialize(again) == data and db0.uuid(again) == db0.uuid(query)
        assert again.signature() == query.signature() and again.compare(query) == 0.0


def test_a_query_read_back_sees_new_data(box: Any) -> None:
    again = db0.deserialize(db0.serialize(db0.find("even")))
    fresh = Thing(100, "even")
    assert again[0] is fresh and len(again) == 7


def test_another_process_reads_it(box: Any, store: str, tmp_path: Any) -> None:
    data = [db0.serialize(query).hex() for query in queries(box)]
    counts = [len(query) for query in queries(box)]
    db0.commit()
    code = (
        "import sys, dbzero as db0\nimport tests.query.test_forms\n"
        f"db0.init({store!r}); db0.open('main', 'r')\n"
        "print([len(db0.deserialize(bytes.fromhex(line))) for line in sys.stdin.read().split()])"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    done = subprocess.run(
        [sys.executable, "-c", code], input="\n".join(data), capture_output=True, text=True, cwd=root, timeout=60
    )
    assert done.stdout.strip() == str(counts), done.stderr


def test_enum_values(box: Any) -> None:
    again = db0.deserialize(db0.serialize(Color.RED))
    assert again == Color.RED and db0.is_enum_value(again)


def test_what_is_refused(box: Any) -> None:
    for value in (1, "even", None, [db0.find("even")], Color, Thing, db0.find(Thing)[0], box.index):
        with pytest.raises(db0.Error, match="serialize"):
            db0.serialize(value)
    for query in (db0.filter(bool, db0.find(Thing)), db0.find("even", db0.filter(bool, db0.find(Thing)))):
        with pytest.raises(db0.Error, match="serialized"):
            db0.serialize(query)
    for value in (None, "text", 7):
        with pytest.raises(TypeError, match="bytes"):
            db0.deserialize(value)  # type: ignore[arg-type]
    data = db0.serialize(box.by_size.sort(db0.find("even", db0.no("third")))[:4])
    for garbage in (b"", b"\0", b"garbage", data[:-1], data + b"\0", b"\x95" + data[1:]):
        try:
            db0.deserialize(garbage)
        except db0.Error:
            continue
        assert garbage == b"\x95" + data[1:]
    rng = random.Random(5)
    for _ in range(2000):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            list(db0.deserialize(bytes(damaged)))
        except (db0.Error, TypeError):
            pass


def test_identity_and_signature(box: Any) -> None:
    made = queries(box)
    identities = {db0.uuid(query) for query in made}
    assert len(identities) == len(made) - 1  # whatever has a tag is a memo object: find(MemoBase, "even") says no more
    for identity in identities:
        assert len(identity) == 52 and set(identity) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
    before = db0.uuid(db0.find("even", "third"))
    db0.commit()
    assert db0.uuid(db0.find("even", "third")) == db0.uuid(db0.find("third", "even")) == before
    assert db0.find("a", "b").signature() == db0.find("b", "a").signature() != db0.find("a").signature()
    assert db0.find(["a", "b"]).signature() == db0.find(["b", "a"])[:2].signature()
    assert db0.filter(bool, db0.find("a")).signature() == db0.find("a").signature()
    assert box.index.sort(db0.find("a")).signature() == db0.find("a").signature() != db0.find("b").signature()


def test_likeness(box: Any) -> None:
    one = db0.find("a")
    assert one.compare(one) == one.compare(db0.find("a")) == 0.0
    assert one.compare(db0.find("b")) == one.compare(db0.find("a", "b")) == 1.0
    assert one.compare(db0.find(["a", "b"])) == 0.5
    assert abs(db0.find(["a", "b", "c"]).compare(db0.find(["a", "b", "d"])) - 1 / 3) < 1e-9
    assert 0.0 < db0.find("x", ["a", "b"]).compare(db0.find("x", ["a", "c"])) < 1.0
    for wrong in (None, "a", Thing, [1]):
        with pytest.raises(TypeError):
            one.compare(wrong)  # type: ignore[arg-type]


def test_as_values_of_objects(box: Any, store: str) -> None:
    made = queries(box)
    box.query = db0.find("even")
    box.queries = [*made]
    box.named["third"] = db0.find("third")
    assert len(box.query) == 6 and box.query.first().n == 10
    Thing(12, "even")
    assert len(box.query) == 7  # it is live
    db0.commit()
    db0.close()
    db0.init(store, prefix="main")
    box = Box()
    assert len(box.query) == 7 and len(box.named["third"]) == 4 and len(box.queries) == len(made)
    for query in box.queries:
        len(query)
    assert [thing.n for thing in box.queries[14]] == [2, 3, 4, 5, 6, 7]
    with pytest.raises(AttributeError):
        box.query = db0.filter(bool, db0.find("even"))
    with pytest.raises(db0.Error):
        box.queries.append(db0.filter(bool, db0.find("even")))
    assert len(box.query) == 7 and len(box.queries) == len(made)


def test_prefix_of_a_query(box: Any) -> None:
    for query in queries(box)[1:]:
        assert db0.get_prefix_of(query).name == "main"
