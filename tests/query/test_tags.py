"""Tags: what can be one, how they change, what they keep alive."""

from __future__ import annotations

import gc
import itertools
from typing import Any

import pytest

import dbzero as db0


@db0.memo
class Person:
    def __init__(self, name: str = "") -> None:
        self.name = name


@db0.memo
class Group:
    def __init__(self, name: str = "") -> None:
        self.name = name


@db0.memo(no_default_tags=True)
class Quiet:
    def __init__(self) -> None:
        self.x = 1


Color = db0.enum("TagColor", ["RED", "GREEN", "BLUE"])
Fruit = db0.enum("TagFruit", ["RED", "APPLE"])


def found(*criteria: Any, **options: Any) -> set[Any]:
    return set(db0.find(*criteria, **options))


def test_add_and_remove(store: str) -> None:
    a, b = Person("a"), Person("b")
    db0.tags(a, b).add("x", "y")
    db0.tags(a).remove("y")
    assert found("x") == {a, b}
    assert found("y") == {b}
    db0.commit()
    assert found("x") == {a, b}
    db0.tags(a).remove("x").add("z")
    assert found("x") == {b} and found("z") == {a}


def test_operators(store: str) -> None:
    a = Person()
    manager = db0.tags(a)
    manager += "one"
    manager += ["two", "three"]
    manager -= {"two"}
    assert [len(found(tag)) for tag in ("one", "two", "three")] == [1, 0, 1]


def test_nothing_to_tag(store: str) -> None:
    db0.tags().add("x")
    assert not found("x")


@pytest.mark.parametrize(
    "bad", [1, 1.5, None, b"x", object(), Color, Person, int, [["nested"]], type("S", (str,), {})("s")]
)
def test_what_cannot_be_a_tag(store: str, bad: Any) -> None:
    a = Person()
    with pytest.raises(RuntimeError, match="tag"):
        db0.tags(a).add("good", bad)
    assert not found("good")


@pytest.mark.parametrize("bad", [1, None, [], Person, "text"])
def test_what_cannot_be_tagged(store: str, bad: Any) -> None:
    with pytest.raises(RuntimeError, match=r"tags\(\)"):
        db0.tags(bad)


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        set,
        frozenset,
        iter,
        lambda x: (t for t in x),
        lambda x: itertools.chain(x),
        lambda x: dict.fromkeys(x),
    ],
)
def test_iterables_of_tags(store: str, make: Any) -> None:
    a = Person()
    db0.tags(a).add(make(["one", "two"]))
    assert found("one", "two") == {a}


def test_collections_of_tags(store: str) -> None:
    a = Person()
    db0.tags(a).add(db0.list(["one"]), db0.set(["two"]), db0.dict({"three": 1}))
    assert found("one", "two", "three") == {a}


def test_enum_values_are_not_strings(store: str) -> None:
    a, b, c = Person(), Person(), Person()
    db0.tags(a).add(Color.RED)
    db0.tags(b).add(Fruit.RED)
    db0.tags(c).add("RED")
    assert found(Color.RED) == {a}
    assert found(Fruit.RED) == {b}
    assert found("RED") == {c}
    assert found(Color.BLUE) == set()
    assert found(list(Color.values())) == {a}


def test_enum_values_of_another_prefix(store: str) -> None:
    red = Color.RED
    db0.open("other")
    a = Person()
    db0.tags(a).add(red)
    assert found(red) == {a} == found(Color.RED)


def test_objects_as_tags(store: str) -> None:
    a, group = Person(), Group()
    db0.tags(a).add(group)
    assert found(db0.as_tag(group)) == {a}
    assert found(Person, db0.as_tag(group)) == {a}
    assert db0.getrefcount(group) == 0
    tag = db0.as_tag(group)
    assert tag == db0.as_tag(group) != db0.as_tag(a) and len({tag, db0.as_tag(group)}) == 1
    with pytest.raises(TypeError):
        assert tag < tag
    assert tag != "x"


def test_a_tag_outlives_its_object(store: str) -> None:
    a, group = Person(), Group()
    tag = db0.as_tag(group)
    db0.tags(a).add(tag)
    del group
    gc.collect()
    db0.commit()
    assert found(tag) == {a}


def test_objects_of_other_prefixes_as_tags(store: str) -> None:
    group = Group()
    db0.open("other")
    a = Person()
    db0.tags(a).add(group)
    assert found(db0.as_tag(group)) == {a}
    db0.tags(a).remove(db0.as_tag(group))
    assert not found(db0.as_tag(group))


def test_classes_as_labels(store: str) -> None:
    a, b = Person(), Group()
    db0.tags(b).add(db0.as_tag(Person))
    assert found(db0.as_tag(Person)) == {b}
    assert found(Person) == {a}


@pytest.mark.parametrize("bad", ["x", 1, Color.RED, None])
def test_as_tag_refuses(store: str, bad: Any) -> None:
    with pytest.raises(TypeError):
        db0.as_tag(bad)
    with pytest.raises(TypeError):
        db0.as_tag()  # type: ignore[call-arg]


def test_tags_of_query_results(store: str) -> None:
    people = [Person(str(i)) for i in range(3)]
    db0.tags(db0.find(Person)).add("all")
    assert found("all") == set(people)
    group = Group()
    db0.tags(group).add(db0.find(Person))
    assert found(db0.as_tag(people[0])) == {group}


def test_the_last_operation_counts(store: str) -> None:
    a = Person()
    db0.tags(a).remove("x")
    db0.tags(a).add("x")
    assert found("x") == {a}
    db0.tags(a).add("x")
    db0.tags(a).remove("x")
    db0.commit()
    assert not found("x")


def test_each_tag_is_a_reference(store: str) -> None:
    a = Person()
    db0.tags(a).add("x", "y", Color.RED)
    assert db0.getrefcount(a) == 3
    db0.tags(a).add("x")
    assert db0.getrefcount(a) == 3
    db0.commit()
    assert db0.getrefcount(a) == 3
    db0.tags(a).remove("x")
    assert db0.getrefcount(a) == 2
    with pytest.raises(RuntimeError):
        db0.delete(a)
    db0.tags(a).remove("y", Color.RED)
    db0.delete(a)
    assert not found(Person)


def test_tags_keep_objects(store: str) -> None:
    db0.tags(Person("Alice")).add("employee")
    identity = db0.uuid(db0.find("employee").first())
    gc.collect()
    db0.commit()
    assert db0.exists(identity)
    db0.close()
    db0.init(store, autocommit=False)
    db0.open("main")
    alice = db0.find(Person, "employee").first()
    assert alice.name == "Alice"
    db0.tags(alice).remove("employee")
    db0.commit()
    assert db0.exists(identity)
    del alice
    db0.commit()
    assert not db0.exists(identity)
    assert not found(Person)


def test_no_new_state_for_what_is_there(store: str) -> None:
    a = Person()
    db0.tags(a).add("x")
    db0.commit()
    state = db0.get_state_num()
    db0.tags(a).add("x")
    db0.tags(a).remove("y")
    db0.commit()
    assert db0.get_state_num() == state


def test_tagging_under_construction(store: str) -> None:
    @db0.memo
    class Eager:
        def __init__(self, fail: bool) -> None:
            db0.tags(self).add("eager", Color.RED)
            self.fail = fail
            assert not found("eager")
            if fail:
                raise ValueError

    with pytest.raises(ValueError):
        Eager(True)
    db0.commit()
    assert not found("eager") and not found(Eager) and not found(Color.RED)
    made = Eager(False)
    assert found("eager") == {made} == found(Color.RED) == found(Eager)


@db0.memo
class Labelled:
    def __init__(self, *tags: Any) -> None:
        db0.tags(self).add(*tags)


def test_what_is_said_after_construction_counts(store: str) -> None:
    """Also when nothing between the two looked at the tags."""
    made = db0.list([Labelled("x", "y")])
    db0.tags(made[0]).remove("x")
    assert found("x") == set() and found("y") == {made[0]}
    with db0.atomic():
        made.append(Labelled("x", "y"))
        db0.tags(made[1]).remove("x", "y")
        gone = made.pop()
        db0.delete(gone)
    assert found("x") == set() and found("y") == {made[0]}
    with pytest.raises(KeyError), db0.atomic():
        made.append(Labelled("x"))
        db0.tags(made[0]).remove("y")
        raise KeyError
    assert found("x") == set() and found("y") == {made[0]}


def test_no_default_tags(store: str) -> None:
    q, other = Quiet(), Quiet()
    keep = db0.list([q, other])
    assert not found(Quiet) and not found(db0.MemoBase)
    db0.tags(q).add("x")
    assert found(Quiet) == {q}
    db0.tags(q).remove("x")
    db0.commit()
    assert found(Quiet) == {q}
    assert found(other) == {other}
    assert len(keep) == 2


def test_read_only(store: str) -> None:
    a = Person()
    db0.tags(a).add("x")
    db0.close()
    db0.init(store)
    db0.open("main", "r")
    a = db0.find("x").first()
    with pytest.raises(RuntimeError):
        db0.tags(a).add("y")
    with pytest.raises(RuntimeError):
        db0.tags(a).remove("x")
    assert found("x") == {a}


def test_deleted_and_closed_objects(store: str) -> None:
    a, b = Person(), Person()
    db0.tags(b).add("x")
    db0.delete(a)
    with pytest.raises(RuntimeError):
        db0.tags(a).add("x")
    db0.close()
    with pytest.raises(RuntimeError):
        db0.tags(b).add("y")


def test_many_tags_and_many_objects(store: str) -> None:
    people = [Person(str(i)) for i in range(700)]
    for i, person in enumerate(people):
        db0.tags(person).add(f"t{i % 300}", "all", "x" * (i % 50))
    db0.commit()
    assert len(db0.find("all")) == 700
    for i in range(300):
        assert {p.name for p in db0.find(f"t{i}")} == {str(k) for k in range(i, 700, 300)}
    for i, person in enumerate(people):
        db0.tags(person).remove(f"t{i % 300}")
    db0.commit()
    assert not any(db0.find(f"t{i}") for i in range(300))
    assert len(db0.find("all")) == 700


def test_strange_strings(store: str) -> None:
    a = Person()
    for tag in ("", "\0", "\ud800", "ä", "x" * 100_000):
        db0.tags(a).add(tag)
        db0.commit()
        assert found(tag) == {a}
    db0.close()
    db0.init(store)
    db0.open("main", "r")
    assert all(len(db0.find(tag)) == 1 for tag in ("", "\0", "\ud800", "ä", "x" * 100_000))


def test_references_are_counted_while_leaves_are_merged(store: str) -> None:
    people = [Person(str(i)) for i in range(400)]
    index = db0.index()
    for i, person in enumerate(people):
        db0.tags(person).add("all")
        index.add(i, person)
    for commit in (False, True):
        if commit:
            db0.commit()
        for i, person in enumerate(people):
            if i % 16:
                db0.tags(person).remove("all")
                index.remove(i, person)
        assert len(db0.find("all")) == len(index) == 25
        assert [db0.getrefcount(person) for person in people] == [0 if i % 16 else 2 for i in range(400)]
        for i, person in enumerate(people):
            db0.tags(person).add("all")
            index.add(i, person)


def test_a_tag_given_in_init_is_taken_right_after_it(store: str) -> None:
    """What __init__ had noted was made after what came later, so that taking the tag was lost."""

    @db0.memo(id="tests/tags/Early")
    class Early:
        def __init__(self) -> None:
            db0.tags(self).add("early", "other")

    kept = [Early(), Early()]
    db0.tags(kept[0]).remove("early")
    assert list(db0.find("early")) == [kept[1]]
    with pytest.raises(KeyError), db0.atomic():
        inner = Early()
        db0.tags(inner).remove("early")
        db0.tags(kept[1]).remove("other")
        raise KeyError
    assert list(db0.find("early")) == [kept[1]] and len(db0.find("other")) == 2
    db0.commit()
    assert list(db0.find("early")) == [kept[1]] and len(db0.find("other")) == 2
