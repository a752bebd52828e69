"""Declared fields: tags and indexes that follow the objects."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import dbzero as db0
from dbzero.model import scope
from dbzero.query.check import check_index

Level = db0.enum("FieldLevel", ["LOW", "HIGH"])


@db0.memo(id="fields-doc")
@db0.tag_fields("status", "level")
@db0.indexed_fields("prio")
class Doc:
    def __init__(self, status: Any = None, prio: Any = None, level: Any = None) -> None:
        self.status = status
        self.prio = prio
        self.level = level


@db0.memo(id="fields-report")
@db0.indexed_fields("day")
class Report(Doc):
    def __init__(self, status: Any = None, prio: Any = None, day: Any = None) -> None:
        super().__init__(status, prio)
        self.day = day


def test_values_are_tags(store: str) -> None:
    kept = db0.list([Doc("open", 1), Doc("shut", 2), Doc(None, 3), Report("open", 4)])
    assert set(db0.find(Doc, "open")) == {kept[0], kept[3]} and list(db0.find(Report, "open")) == [kept[3]]
    assert db0.getrefcount(kept[0]) == 1
    kept[0].status = "shut"
    assert list(db0.find(Doc, "open")) == [kept[3]] and len(db0.find(Doc, "shut")) == 2
    del kept[1].status
    assert not hasattr(kept[1], "status") and list(db0.find(Doc, "shut")) == [kept[0]]
    kept[0].status = None
    assert len(db0.find(Doc, "shut")) == 0 and kept[0].status is None
    kept[1].status, kept[1].level = Level.HIGH, Level.HIGH
    assert list(db0.find(Doc, Level.HIGH)) == [kept[1]]
    kept[1].status = None
    assert list(db0.find(Doc, Level.HIGH)) == [kept[1]], "another field has it still"
    kept[2].status = kept[0]
    assert list(db0.find(Doc, db0.as_tag(kept[0]))) == [kept[2]]
    assert set(db0.find(Doc, ["open", Level.HIGH])) == {kept[1], kept[3]}
    assert set(db0.find(Doc, db0.no("open"))) == {kept[0], kept[1], kept[2]}
    db0.commit()
    db0.close()
    db0.init(store, autocommit=False)
    db0.open("main", "r")
    assert len(db0.find(Doc, "open")) == 1 and db0.find(Doc, "open")[0].prio == 4
    assert db0.find(Doc, Level.HIGH)[0].prio == 2


def test_passive_tags_need_company(store: str) -> None:
    kept = db0.list([Doc("open"), Doc("open")])
    db0.tags(kept[0]).add("regular")
    assert list(db0.find("regular", "open")) == [kept[0]]
    for criteria in (("open",), (["open", "regular"],), (("open", db0.no("regular")),), (db0.MemoBase, "open")):
        with pytest.raises(RuntimeError, match="non-passive"):
            list(db0.find(*criteria))
        with pytest.raises(RuntimeError, match="non-passive"):
            len(db0.find(*criteria))
    assert len(db0.find("unknown")) == 0
    assert len(db0.find(Doc, db0.find("open"))) == 2


def test_splitting_and_comparing(store: str) -> None:
    kept = db0.list([Doc("open", 1), Doc("shut", 2), Doc("open", 3)])
    rows = list(db0.split_by(["open", "shut"], db0.find(Doc)))
    assert {(doc.prio, tag) for doc, tag in rows} == {(1, "open"), (2, "shut"), (3, "open")}
    index = db0.index_of(Doc, "prio")
    for query in (db0.find(Doc, "open", index.select(2, None)), index.sort(db0.find(Doc, "open"), desc=True)):
        assert list(db0.deserialize(db0.serialize(query))) == list(query) != []
    db0.commit()
    with db0.snapshot() as past:
        kept[0].status, kept[2].prio = "shut", -1
        db0.commit()
        assert {doc.prio for doc in past.find(Doc, "open")} == {1, 3}
        assert [key for key, _ in past.index_of(Doc, "prio")] == [1, 2, 3]
        assert [doc.prio for doc in past.index_of(Doc, "prio").sort(past.find(Doc, "open"))] == [1, 3]
    assert [key for key, _ in index] == [-1, 1, 2]


def test_wrong_values_are_refused_at_once(store: str) -> None:
    doc = Doc("open", 1)
    for value in (5, ["a"], {"a"}, b"x", Doc, 1.5):
        with pytest.raises(TypeError):
            doc.status = value
        with pytest.raises(TypeError):
            Doc(value)
    for value in ("x", ["a"], float("nan"), doc):
        with pytest.raises(AttributeError):
            doc.prio = value
    assert (doc.status, doc.prio) == ("open", 1)
    doc.prio = None
    doc.prio = "now a str"
    db0.delete(doc)
    db0.commit()
    assert len(db0.find(Doc)) == 0 and len(db0.index_of(Doc, "prio")) == 0
    first = Doc(None, 1)

    class Wrong(Exception):
        pass

    @db0.memo
    class Fails(Doc):
        def __init__(self) -> None:
            self.status, self.prio = "open", 5
            raise Wrong

    with pytest.raises(Wrong):
        Fails()
    assert len(db0.find(Doc, "open")) == 0 and len(db0.index_of(Doc, "prio")) == 1 and first.prio == 1


def test_managed_indexes(store: str) -> None:
    kept = db0.list([Doc("a", 3), Doc("b", 1), Doc("c", None), Report("d", 2, 10)])
    index = db0.index_of(Doc, "prio")
    assert [doc.prio for doc in index.sort(db0.find(Doc))] == [1, 2, 3, None]
    assert [doc.prio for doc in index.sort(db0.find(Report))] == [2]
    assert {doc.status for doc in db0.find(Doc, index.select(1, 2))} == {"b", "d"}
    assert [(key, doc.prio) for key, doc in index] == [(1, 1), (2, 2), (3, 3), (None, None)] and len(index) == 4
    assert db0.getrefcount(kept[0]) == 1
    fields = db0.fields_of(Report)
    assert len(db0.index_of(fields.day)) == 1 and len(db0.index_of(fields.prio)) == 4
    kept[0].prio = 0
    del kept[1].prio
    assert [doc.prio for doc in index.sort(db0.find(Doc), desc=True)] == [None, 2, 0]
    for bad in (lambda: index.add(1, kept[0]), lambda: index.remove(1, kept[0]), index.clear):
        with pytest.raises(RuntimeError, match="read-only"):
            bad()
    for query in (index.select(), db0.find(index.select(1, 2))):
        with pytest.raises(RuntimeError):
            list(query)
        with pytest.raises(RuntimeError):
            len(query)
    for name in ("status", "zzz"):
        with pytest.raises(RuntimeError):
            db0.index_of(Doc, name)
    with pytest.raises(TypeError):
        db0.index_of(int, "x")
    with pytest.raises(RuntimeError):
        db0.find(db0.fields_of(Doc).prio)
    with pytest.raises(TypeError, match="migrate requires a memo type"):
        db0.migrate(int)
    db0.delete(kept.pop())
    assert len(index) == 2
    db0.commit()
    db0.close()
    db0.init(store, autocommit=False)
    db0.open("main", "r")
    assert [doc.prio for doc in db0.index_of(Doc, "prio").sort(db0.find(Doc))] == [0, None]


def test_atomic_blocks_take_back(store: str) -> None:
    doc = Doc("open", 1)
    kept = db0.list([doc])
    index = db0.index_of(Doc, "prio")

    def look() -> Any:
        return [[d.prio for d in db0.find(Doc, tag)] for tag in ("open", "shut")], [key for key, _ in index]

    before = look()
    for committed in (False, True):
        if committed:
            db0.commit()
        with pytest.raises(ZeroDivisionError), db0.atomic():
            doc.status, doc.prio = "shut", 2
            kept.append(Doc("open", 3))
            assert look() == ([[3], [2]], [2, 3])
            raise ZeroDivisionError
        assert look() == before
    with db0.atomic():
        doc.status, doc.prio = "shut", 2
    assert look() == ([[], [2]], [2])


def test_renaming_and_references(store: str) -> None:
    @db0.memo(id="fields-renamed")
    class Old:
        def __init__(self) -> None:
            self.state = "open"

    kept = db0.list([Old()])
    db0.commit()

    @db0.memo(id="fields-renamed")
    @db0.tag_fields("status")
    class New:
        status: str

    db0.rename_field(New, "state", "status")
    assert len(db0.find(New, "open")) == 1 and kept[0].status == "open"


def test_migration(root: str) -> None:
    def declare(*decorators: Any) -> Any:
        class Plain:
            def __init__(self, status: Any, prio: Any) -> None:
                self.status, self.prio = status, prio

        cls: Any = Plain
        for decorator in decorators:
            cls = decorator(cls)
        return db0.memo(id="fields-migrated")(cls)

    def reopen(mode: str = "rw", **options: Any) -> None:
        db0.close()
        db0.init(root, autocommit=False)
        db0.open("main", mode, **options)

    reopen()
    plain = declare()
    kept = db0.list([plain("open", 2), plain("shut", 1)])
    settings_ = plain("kept", "not a number")
    db0.tags(settings_, kept[0], kept[1]).add("all")
    reopen("r")
    full = declare(db0.tag_fields("status"), db0.indexed_fields("prio"))
    with pytest.raises(db0.MigrateError):
        len(db0.index_of(full, "prio"))
    reopen()
    with pytest.raises(db0.MigrateError, match="not a number"):
        db0.index_of(full, "prio")
    with pytest.raises(db0.MigrateError):
        db0.migrate(full)
    with pytest.raises(db0.MigrateError):
        full("x", 1)
    odd = next(doc for doc in db0.find("all") if doc.prio == "not a number")
    with pytest.raises(db0.MigrateError):
        odd.status = "x"
    declare()
    reopen()
    plain = declare()
    odd = next(doc for doc in db0.find("all") if doc.prio == "not a number")
    odd.prio = 7
    reopen(no_auto_migrate=True)
    full = declare(db0.tag_fields("status"), db0.indexed_fields("prio"))
    assert len(db0.find(full, "open")) == 0
    with pytest.raises(db0.MigrateError):
        len(db0.index_of(full, "prio"))
    db0.migrate(full)
    assert len(db0.find(full, "open")) == 1 and [key for key, _ in db0.index_of(full, "prio")] == [1, 2, 7]
    reopen()
    only = declare(db0.indexed_fields("prio"))
    assert len(db0.find(only, "open")) == 0 and len(db0.index_of(only, "prio")) == 3


class FieldMachine(RuleBasedStateMachine):
    """Objects with declared fields against plain dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[int, dict[str, Any]] = {}
        self.saved: dict[int, dict[str, Any]] | None = None
        self.block: Any = None

    @initialize()
    def start(self) -> None:
        import tempfile

        self.directory = tempfile.TemporaryDirectory(prefix="dbzero-test-")
        db0.init(self.directory.name, autocommit=False)
        db0.open("main")
        self.kept = Holder().kept
        self.number = 0

    values = st.fixed_dictionaries(
        {},
        optional={
            "status": st.sampled_from((None, "a", "b", "c", Level.LOW)),
            "level": st.sampled_from((None, "a", Level.LOW, Level.HIGH)),
            "prio": st.sampled_from((None, 1, 2, 2.5, True, -3)),
        },
    )

    @rule(values=values, cls=st.sampled_from((Doc, Report)))
    def add(self, values: dict[str, Any], cls: Any) -> None:
        self.number += 1
        obj = self.kept[self.number] = cls()
        for name in ("status", "level", "prio"):
            if name in values:
                setattr(obj, name, values[name])
            else:
                delattr(obj, name)
        self.model[self.number] = {**values, "cls": cls}

    @rule(data=st.data(), values=values)
    def change(self, data: Any, values: dict[str, Any]) -> None:
        if self.model:
            number = data.draw(st.sampled_from(sorted(self.model)))
            for name, value in values.items():
                setattr(self.kept[number], name, value)
            self.model[number].update(values)

    @rule(data=st.data(), name=st.sampled_from(("status", "level", "prio")))
    def unset(self, data: Any, name: str) -> None:
        if self.model:
            number = data.draw(st.sampled_from(sorted(self.model)))
            if self.model[number].pop(name, "none") != "none":
                delattr(self.kept[number], name)

    @rule(data=st.data())
    def remove(self, data: Any) -> None:
        if self.model:
            number = data.draw(st.sampled_from(sorted(self.model)))
            obj = self.kept[number]
            del self.model[number], self.kept[number]
            if self.block is not None:
                db0.delete(obj)
            else:
                del obj
                gc.collect()
                db0.commit()

    @rule()
    def commit(self) -> None:
        if self.block is None:
            db0.commit()

    @rule()
    def begin(self) -> None:
        if self.block is None:
            self.block = db0.atomic()
            self.block.__enter__()
            self.saved = {number: dict(values) for number, values in self.model.items()}

    @rule(good=st.booleans())
    def end(self, good: bool) -> None:
        if self.block is not None:
            if good:
                self.block.__exit__(None, None, None)
            else:
                error = ZeroDivisionError()
                self.block.__exit__(ZeroDivisionError, error, None)
                assert self.saved is not None
                self.model = self.saved
            self.block = None

    @rule()
    def reopen(self) -> None:
        if self.block is None:
            db0.close()
            db0.init(self.directory.name, autocommit=False)
            db0.open("main")
            self.kept = Holder().kept

    @invariant()
    def same(self) -> None:
        for tag in ("a", "b", "c", Level.LOW, Level.HIGH):
            for cls in (Doc, Report):
                should = {
                    number
                    for number, values in self.model.items()
                    if issubclass(values["cls"], cls) and tag in (values.get("status"), values.get("level"))
                }
                assert {obj for obj in db0.find(cls, tag)} == {self.kept[number] for number in should}
        keyed = {number: values["prio"] for number, values in self.model.items() if "prio" in values}
        index = db0.index_of(Doc, "prio")
        keys = [key for key, _ in index]
        assert keys == sorted(k for k in keyed.values() if k is not None) + [None] * list(keyed.values()).count(None)
        assert set(db0.find(Doc, index.select(1, 2))) == {
            self.kept[number] for number, key in keyed.items() if key is not None and 1 <= key <= 2
        }

    def teardown(self) -> None:
        if self.block is not None:
            self.block.__exit__(None, None, None)
        db0.commit()
        assert check_index(scope.current_view(True)) == []
        db0.close()
        self.directory.cleanup()


@db0.memo(id="fields-holder", singleton=True)
class Holder:
    def __init__(self) -> None:
        self.kept = db0.dict()


FieldMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestFieldMachine = FieldMachine.TestCase
