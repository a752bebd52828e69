"""Recorded classes, schemas, renamed fields, declared fields."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

import dbzero as db0
from tests.worker import Worker


@db0.memo(id="tests/classes/Person")
class Person:
    def __init__(self, **fields: Any) -> None:
        for name, value in fields.items():
            setattr(self, name, value)

    def greet(self, name: str) -> str:
        return name

    @property
    def size(self) -> int:
        return 1


@db0.memo(id="tests/classes/Boss")
class Boss(Person):
    pass


@db0.memo(id="tests/classes/Top", singleton=True)
class Top:
    def __init__(self) -> None:
        self.people: list[Any] = []


def reopen(root: str, mode: str = "rw") -> None:
    db0.close()
    db0.init(root, autocommit=False)
    db0.open("main", mode)


def test_schema_follows_the_objects(store: str) -> None:
    for unknown in (Person, Boss):
        with pytest.raises(RuntimeError, match="Class not found"):
            db0.get_attributes(unknown)
    top = Top()
    top.people.extend([Person(name="a", age=1), Person(name="b", age=None), Boss(name=5, staff=[Person(name="c")])])
    for step in range(3):
        schema = db0.get_schema(Person)
        assert schema["name"]["primary_type"] is str and schema["name"]["all_types"] == [str]
        assert set(schema["age"]["all_types"]) == {int, type(None)} and schema["age"]["primary_type"] is int
        assert set(schema) == {"name", "age"}  # a derived class has a schema of its own
        assert db0.get_schema(Boss) == {
            "name": {"primary_type": int, "all_types": [int]},
            "staff": {"primary_type": list, "all_types": [list]},
        }
        assert {name for name, _ in db0.get_attributes(Person)} == {"name", "age"}
        db0.commit()
        if step == 1:
            reopen(store, "r")
    reopen(store)
    people = db0.fetch(Top).people
    people[2].name = "now a str"
    people[0].friend = people[1]
    del people[0].age
    assert db0.get_schema(Person)["name"]["all_types"] == [str]
    assert db0.get_schema(Person)["age"] == {"primary_type": type(None), "all_types": [type(None)]}
    assert db0.get_schema(Person)["friend"]["primary_type"] is db0.MemoBase
    people.clear()
    db0.commit()
    db0.commit()  # what only the first one's wrapper held goes with the second
    assert db0.get_schema(Person) == {}
    for bad in (5, "Person", None):
        with pytest.raises(TypeError):
            db0.get_schema(bad)
        with pytest.raises(TypeError):
            db0.get_attributes(bad)


def test_metaclasses(store: str) -> None:
    top = Top()
    top.people.extend([Person(a=1), Boss(b=2)])
    db0.enum("NotAClass", ["X"])
    top.enum = db0.enum("NotAClass", ["X"]).X
    db0.commit()
    metas = {meta.name: meta for meta in db0.get_memo_classes()}
    assert sorted(metas) == ["Boss", "Person", "Top"]
    assert list(db0.get_memo_classes("main")) == list(metas.values())
    assert list(db0.get_memo_classes(db0.get_current_prefix())) == list(metas.values())
    assert list(db0.get_memo_classes(db0.PrefixMetaData(None, db0.get_current_prefix().uuid))) == list(metas.values())
    with pytest.raises(TypeError):
        db0.get_memo_classes(nonsense=1)
    meta = metas["Top"]
    assert meta.is_singleton and meta.type_flags["singleton"] and meta.module == __name__
    assert meta.get_instance() is top and meta.instance_uuid == db0.uuid(top)
    assert meta.get_type() is Top and meta.type_exists() and meta.get_class().type() is Top
    assert db0.getrefcount(meta.get_class()) >= 1 and db0.get_prefix_of(meta.get_class()).name == "main"
    assert db0.get_memo_class(top) == meta == db0.get_memo_class(meta.class_uuid) == pickle.loads(pickle.dumps(meta))
    assert str(meta) == f"{__name__}.Top ({meta.class_uuid})" and hash(meta) == hash(db0.get_memo_class(top))
    person = metas["Person"]
    assert person.get_instance_count() == 2 == len(person.all()) and metas["Boss"].get_instance_count() == 1
    assert set(person.all()) == set(top.people) and list(person.all()) == list(person.all())
    assert [a.name for a in person.get_attributes()] == ["a"]
    assert [a.name for a in person.get_attributes(include_properties=True)] == ["a", "size"]
    assert [m.name for m in person.get_methods()] == ["greet"] and person.get_schema() == db0.get_schema(Person)
    assert person.instance_uuid is None
    with pytest.raises(RuntimeError):
        person.get_instance()
    for bad in (Top, 5):
        with pytest.raises(TypeError):
            db0.get_memo_class(bad)
    with pytest.raises(RuntimeError):
        db0.get_memo_class(db0.uuid(top))


def test_unknown_classes_in_another_process(store: str) -> None:
    top = Top()
    top.people.append(Person(name="Ann"))
    db0.commit()
    with Worker(root=store) as worker:
        assert worker.run(
            """
            import dbzero as db0
            db0.init(root)
            db0.open("main", "r")
            meta = next(m for m in db0.get_memo_classes() if m.name == "Person")
            result = [meta.type_exists(), [type(o) is db0.MemoBase and o.name for o in meta.all()],
                      [a.name for a in meta.get_attributes()]]
            """
        ) == [False, ["Ann"], ["name"]]


def test_rename_field(store: str) -> None:
    top = Top()
    top.people.extend([Person(old=1, keep=2), Person(keep=3), Boss(old=[4])])
    for _ in range(2):  # renaming again changes nothing
        db0.rename_field(Person, "old", "new")
        assert [vars(p).get("new") for p in top.people][:2] == [1, None]
        assert list(top.people[2].new) == [4] and not any(hasattr(p, "old") for p in top.people)
        db0.commit()
    reopen(store)
    top = db0.fetch(Top)
    assert top.people[0].new == 1 and list(top.people[2].new) == [4] and not hasattr(top.people[0], "old")
    db0.rename_field(Person, "old", "new")
    with pytest.raises(RuntimeError, match="Field nothing not found in class"):
        db0.rename_field(Person, "nothing", "x")
    with pytest.raises(RuntimeError):
        db0.rename_field(int, "a", "b")
    reopen(store, "r")
    with pytest.raises(RuntimeError):
        db0.rename_field(Person, "new", "x")
    assert db0.fetch(Top).people[0].new == 1


def test_declared_fields() -> None:
    @db0.tag_fields("a", "b")
    class Base:
        pass

    @db0.memo
    @db0.indexed_fields("p")
    @db0.tag_fields("c")
    class Derived(Base):
        pass

    fields = db0.fields_of(Derived)
    assert fields.a.name == "a" and fields["p"] == fields.p and fields.p != fields.a
    assert repr(fields.p).startswith(f"<dbzero.FieldRef {__name__}.") and repr(fields.p).endswith("Derived.p>")
    with pytest.raises(AttributeError):
        fields.zzz
    with pytest.raises(TypeError):
        db0.tag_fields("a", 5)
    with pytest.raises(TypeError):
        db0.fields_of(int)
