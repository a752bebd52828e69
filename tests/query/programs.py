"""Random programs of tags, indexes and find, and a naive evaluator that knows what each find has to give.

The model keeps, for each object, its class, its tags and its keys; a question is asked of all objects one by one.
"""

from __future__ import annotations

import gc
import tempfile
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import dbzero as db0
from dbzero.model import scope
from dbzero.query.check import check_index


@db0.memo(id="programs-base")
class Base:
    def __init__(self, number: int) -> None:
        self.number = number


@db0.memo(id="programs-sub")
class Sub(Base):
    pass


@db0.memo(id="programs-other")
class Other:
    def __init__(self, number: int) -> None:
        self.number = number


@db0.memo(id="programs-root", singleton=True)
class Root:
    def __init__(self) -> None:
        self.kept: Any = []
        self.index = db0.index()


CLASSES = (Base, Sub, Other)
Color = db0.enum("ProgramColor", ["RED", "GREEN", "BLUE"])
TAGS = ("a", "b", "c", "", "RED", "long" * 40)


class Entry:
    """What the model knows of one object."""

    def __init__(self, number: int, cls: type) -> None:
        self.number = number
        self.cls = cls
        self.tags: set[Any] = set()
        self.keys: set[int] = set()
        self.kept = False
        self.uuid = ""


leaves = st.one_of(
    st.tuples(st.just("tag"), st.sampled_from(TAGS)),
    st.tuples(st.just("enum"), st.sampled_from(("RED", "GREEN", "BLUE"))),
    st.tuples(st.just("class"), st.integers(0, 2)),
    st.tuples(st.just("object"), st.integers(0, 30)),
    st.tuples(st.just("object tag"), st.integers(0, 30)),
    st.tuples(st.just("range"), st.integers(-5, 15), st.integers(-5, 15)),
)
questions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(st.just("or"), st.lists(inner, max_size=3)),
        st.tuples(st.just("and"), st.lists(inner, min_size=1, max_size=3)),
        st.tuples(st.just("find"), st.lists(inner, min_size=1, max_size=2), st.lists(inner, max_size=2)),
        st.tuples(st.just("slice"), st.lists(inner, min_size=1, max_size=2), st.integers(-4, 4), st.integers(-4, 6)),
    ),
    max_leaves=6,
)


class FindMachine(RuleBasedStateMachine):
    """One prefix, opened and closed again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.entries: dict[int, Entry] = {}
        self.objects: dict[int, Any] = {}
        self.count = 0

    @initialize(limit=st.sampled_from((0, 3000)))
    def start(self, limit: int) -> None:
        self.limit = limit
        self.open()
        self.root = Root()

    def open(self) -> None:
        db0.init(self.directory.name, autocommit=False)
        db0.open("main")
        scope.current_view(True).weight_limit = self.limit

    def teardown(self) -> None:
        self.objects.clear()
        db0.close()
        self.directory.cleanup()

    def pick(self, data: Any) -> int:
        return int(data.draw(st.sampled_from(sorted(self.entries))))

    # --- changes ------------------------------------------------------------------------------------------------------

    @rule(cls=st.integers(0, 2), tags=st.lists(st.sampled_from(TAGS), max_size=3), n=st.sampled_from((1, 1, 1, 200)))
    def create(self, cls: int, tags: list[str], n: int) -> None:
        for _ in range(n):
            entry = Entry(self.count, CLASSES[cls])
            obj = CLASSES[cls](self.count)
            entry.tags = set(tags)
            entry.uuid = db0.uuid(obj)
            db0.tags(obj).add(tags)
            self.entries[self.count], self.objects[self.count] = entry, obj
            self.count += 1

    def any_tag(self, data: Any) -> tuple[Any, Any]:
        """A tag, and how the model calls it."""
        if data.draw(st.booleans()):
            text = data.draw(st.sampled_from(TAGS))
            return text, text
        if data.draw(st.booleans()):
            name = data.draw(st.sampled_from(("RED", "GREEN", "BLUE")))
            return Color[name], ("enum", name)
        number = self.pick(data)
        return db0.as_tag(self.objects[number]), ("object", number)

    @precondition(lambda self: self.entries)
    @rule(data=st.data(), added=st.booleans(), many=st.booleans())
    def tag(self, data: Any, added: bool, many: bool) -> None:
        numbers = [n for n in sorted(self.entries) if n % 3 == 0] if many else [self.pick(data)]
        tag, name = self.any_tag(data)
        manager = db0.tags(*[self.objects[n] for n in numbers])
        (manager.add if added else manager.remove)(tag)
        for n in numbers:
            (self.entries[n].tags.add if added else self.entries[n].tags.discard)(name)

    @precondition(lambda self: self.entries)
    @rule(data=st.data(), key=st.integers(-5, 15), added=st.booleans())
    def enter(self, data: Any, key: int, added: bool) -> None:
        number = self.pick(data)
        (self.root.index.add if added else self.root.index.remove)(key, self.objects[number])
        (self.entries[number].keys.add if added else self.entries[number].keys.discard)(key)

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def keep(self, data: Any) -> None:
        number = self.pick(data)
        if not self.entries[number].kept:
            self.root.kept.append(self.objects[number])
            self.entries[number].kept = True

    @precondition(lambda self: self.entries)
    @rule(data=st.data(), many=st.booleans())
    def drop(self, data: Any, many: bool) -> None:
        """Python lets go of objects: what nothing stored refers to is gone with the next commit."""
        numbers = list(self.entries) if many else [self.pick(data)]
        for number in numbers:
            del self.objects[number]
        gc.collect()
        db0.commit()
        for number in numbers:
            entry = self.entries[number]
            if entry.tags or entry.keys or entry.kept:
                self.objects[number] = db0.fetch(entry.uuid)
            else:
                assert not db0.exists(entry.uuid)
                del self.entries[number]

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def delete(self, data: Any) -> None:
        number = self.pick(data)
        entry = self.entries[number]
        assert db0.getrefcount(self.objects[number]) == len(entry.tags) + len(entry.keys) + entry.kept
        if not (entry.tags or entry.keys or entry.kept):
            db0.delete(self.objects.pop(number))
            del self.entries[number]

    @rule()
    def commit(self) -> None:
        db0.commit()

    @rule()
    def evict(self) -> None:
        db0.clear_cache()

    @rule()
    def reopen(self) -> None:
        db0.close()
        self.open()
        self.root = Root()
        self.objects = {number: db0.fetch(entry.uuid) for number, entry in self.entries.items()}

    # --- questions ----------------------------------------------------------------------------------------------------

    def criterion(self, question: Any) -> Any:
        kind, *rest = question
        if kind == "tag":
            return rest[0]
        if kind == "enum":
            return Color[rest[0]]
        if kind == "class":
            return CLASSES[rest[0]]
        if kind in ("object", "object tag"):
            found = self.objects.get(self.numbered(rest[0]))
            if found is None:
                return "unknown"
            return found if kind == "object" else db0.as_tag(found)
        if kind == "range":
            return self.root.index.select(*rest)
        if kind in ("or", "and"):
            members = [self.criterion(one) for one in rest[0]]
            return members if kind == "or" else tuple(members)
        if kind == "find":
            return db0.find(*map(self.criterion, rest[0]), db0.no(*map(self.criterion, rest[1])))
        return db0.find(*map(self.criterion, rest[0]))[rest[1] : rest[2]]

    def numbered(self, place: int) -> int:
        numbers = sorted(self.entries)
        return numbers[place % len(numbers)] if numbers else -1

    def answer(self, question: Any) -> set[int]:
        kind, *rest = question
        entries = self.entries.values()
        if kind in ("tag", "enum", "object tag"):
            name = rest[0] if kind == "tag" else (kind.split()[0], rest[0])
            if kind == "object tag":
                name = ("object", self.numbered(rest[0]))
            return {e.number for e in entries if name in e.tags}
        if kind == "class":
            return {e.number for e in entries if issubclass(e.cls, CLASSES[rest[0]])}
        if kind == "object":
            return {self.numbered(rest[0])} if entries else set()
        if kind == "range":
            return {e.number for e in entries if any(rest[0] <= key <= rest[1] for key in e.keys)}
        found = [self.answer(one) for one in rest[0]]
        if kind == "or":
            return set().union(*found)
        both = set.intersection(*found)
        if kind == "find":
            return both.difference(*[self.answer(one) for one in rest[1]])
        return set(sorted(both, reverse=True)[rest[1] : rest[2]]) if kind == "slice" else both

    @rule(wanted=st.lists(questions, min_size=1, max_size=3), unwanted=st.lists(questions, max_size=2))
    def ask(self, wanted: list[Any], unwanted: list[Any]) -> None:
        criteria = [*map(self.criterion, wanted), *[db0.no(self.criterion(one)) for one in unwanted]]
        query = db0.find(*criteria)
        expected = self.answer(("find", wanted, unwanted))
        numbers = sorted(expected, reverse=True)
        assert [obj.number for obj in query] == numbers
        assert all(obj is self.objects[obj.number] for obj in query)
        assert len(query) == len(numbers) and bool(query) == bool(numbers)
        assert query.explain().actual == len(numbers)
        assert [obj.number for obj in query[1:4]] == numbers[1:4]
        if numbers:
            assert query[-1].number == numbers[-1] and query.first().number == numbers[0]

    @rule(question=questions, desc=st.booleans())
    def sort(self, question: Any, desc: bool) -> None:
        query = self.root.index.sort(db0.find(self.criterion(question)), desc=desc)
        expected = [self.entries[n] for n in self.answer(question) if self.entries[n].keys]
        expected.sort(key=lambda e: e.number, reverse=True)
        expected.sort(key=lambda e: max(e.keys) if desc else min(e.keys), reverse=desc)
        numbers = [e.number for e in expected]
        assert [obj.number for obj in query] == numbers
        assert [obj.number for obj in query[:3]] == numbers[:3] and len(query) == len(numbers)
        assert [obj.number for obj in db0.find(query, db0.no("a"))] == [
            n for n in numbers if "a" not in self.entries[n].tags
        ]

    @invariant()
    def whole(self) -> None:
        if self.entries and self.count % 5 == 0:
            view = scope.current_view(True)
            if not view.has_changes():
                assert check_index(view) == []
