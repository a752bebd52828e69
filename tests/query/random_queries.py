"""Random programs of tags, indexes, queries, operators, commits and snapshots, beside a plain model of each state.

A program is driven by numbers: the same numbers, the same program. Used by the suite and by stress/queries.py.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import dbzero as db0
from dbzero.query.check import check_index

TAGS = ("a", "b", "c", "d")
Color = db0.enum("RandomQueriesColor", ["RED", "BLUE"])
LABELS: tuple[Any, ...] = (*TAGS, *Color.values())


@db0.memo
class Thing:
    def __init__(self, number: int) -> None:
        self.number = number
        self.value = number % 5


@db0.memo
class Special(Thing):
    pass


@db0.memo
class Stranger:
    def __init__(self, number: int) -> None:
        self.number = number
        self.value = number % 5


@db0.memo(singleton=True)
class Holder:
    def __init__(self) -> None:
        self.things = {}
        self.index = db0.index()


CLASSES = (Thing, Special, Stranger)


class Row:
    """The model of one object."""

    def __init__(self, number: int, cls: type) -> None:
        self.number = number
        self.cls = cls
        self.value = number % 5
        self.tags: set[Any] = set()
        self.keys: list[Any] = []

    def copy(self) -> Row:
        made = Row(self.number, self.cls)
        made.value, made.tags, made.keys = self.value, set(self.tags), list(self.keys)
        return made


State = dict[int, Row]
Test = Callable[[Row], bool]


def even(thing: Any) -> bool:
    return bool(thing.value % 2 == 0)


class Queries:
    """One program on a store of its own."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.rows: State = {}
        self.committed: State = {}
        self.pending_change: set[int] = set()
        self.changes: list[set[int]] = []  # numbers changed by each commit
        self.past: list[tuple[Any, State, int]] = []  # snapshot, model, commits before it
        self.next = 0
        self.counts: Counter[str] = Counter()
        db0.init(root, prefix="main", autocommit=False)
        self.holder = Holder()
        db0.commit()
        self.chance = random.Random(0)

    # --- changes --------------------------------------------------------------------------------------------------------

    STEPS = (
        *("create",) * 4,
        *("tag",) * 5,
        *("untag",) * 3,
        *("change",) * 2,
        *("enter",) * 3,
        *("leave",) * 1,
        *("delete",) * 2,
        *("commit",) * 2,
        *("block",) * 2,
        "take",
        "drop",
        "evict",
        *("ask",) * 8,
        *("ask_past",) * 4,
        *("operate",) * 5,
    )

    def run(self, number: int) -> None:
        """One step."""
        self.chance = random.Random(number)
        name = self.chance.choice(self.STEPS)
        self.counts[name] += 1
        getattr(self, "do_" + name)()

    def pick(self) -> Row | None:
        return self.rows[self.chance.choice(sorted(self.rows))] if self.rows else None

    def obj(self, row: Row) -> Any:
        return self.holder.things[row.number]

    def do_create(self) -> None:
        for _ in range(self.chance.choice((1, 1, 1, 5))):
            row = Row(self.next, self.chance.choice(CLASSES))
            self.next += 1
            made = row.cls(row.number)
            self.holder.things[row.number] = made
            self.rows[row.number] = row
            for tag in self.chance.sample(LABELS, self.chance.randrange(3)):
                db0.tags(made).add(tag)
                row.tags.add(tag)

    def do_tag(self) -> None:
        row, tag = self.pick(), self.chance.choice(LABELS)
        if row is not None:
            db0.tags(self.obj(row)).add(tag)
            row.tags.add(tag)

    def do_untag(self) -> None:
        row, tag = self.pick(), self.chance.choice(LABELS)
        if row is not None:
            db0.tags(self.obj(row)).remove(tag)
            row.tags.discard(tag)

    def do_change(self) -> None:
        row = self.pick()
        if row is not None:
            row.value = self.chance.randrange(5)
            obj = self.obj(row)
            obj.value = row.value
            db0.touch(obj)
            self.pending_change.add(row.number)

    def do_enter(self) -> None:
        row = self.pick()
        key = self.chance.choice((None, *range(6)))
        if row is not None and not row.keys:
            self.holder.index.add(key, self.obj(row))
            row.keys.append(key)

    def do_leave(self) -> None:
        row = self.pick()
        if row is not None and row.keys:
            self.holder.index.remove(row.keys.pop(), self.obj(row))

    def do_delete(self) -> None:
        row = self.pick()
        if row is None:
            return
        obj = self.obj(row)
        if row.tags:
            db0.tags(obj).remove(list(row.tags))
        for key in row.keys:
            self.holder.index.remove(key, obj)
        del self.holder.things[row.number]
        db0.delete(obj)
        del self.rows[row.number]

    def do_block(self) -> None:
        """An atomic block of a few changes, cancelled or kept."""
        before = {number: row.copy() for number, row in self.rows.items()}
        changed = set(self.pending_change)
        keep = self.chance.random() < 0.5
        with db0.atomic() as block:
            for _ in range(self.chance.randrange(1, 5)):
                getattr(
                    self, "do_" + self.chance.choice(("create", "tag", "untag", "change", "enter", "delete", "ask"))
                )()
            if not keep:
                block.cancel()
        if not keep:
            self.rows, self.pending_change = before, changed
            self.holder = db0.fetch(Holder)

    def do_commit(self) -> None:
        before = db0.get_state_num(finalized=True)
        db0.commit()
        self.committed = {number: row.copy() for number, row in self.rows.items()}
        if db0.get_state_num(finalized=True) > before:
            self.changes.append(self.pending_change)
        self.pending_change = set()

    def do_evict(self) -> None:
        db0.clear_cache()

    def do_take(self) -> None:
        if len(self.past) < 4:
            self.do_commit()
            self.past.append((db0.snapshot(), self.committed, len(self.changes)))

    def do_drop(self) -> None:
        if self.past:
            self.past.pop(self.chance.randrange(len(self.past)))[0].close()

    # --- questions ------------------------------------------------------------------------------------------------------

    def criterion(self, context: Any, depth: int) -> tuple[Any, Test]:
        """A criterion and what it means."""
        chance = self.chance
        kind = chance.randrange(9 if depth else 3)
        if kind == 0:
            cls = chance.choice(CLASSES)
            return cls, lambda row: issubclass(row.cls, cls)
        if kind <= 2:
            tag = chance.choice(LABELS)
            return tag, lambda row: tag in row.tags
        if kind in (3, 4):
            parts = [self.criterion(context, depth - 1) for _ in range(chance.randrange(1, 4))]
            tests = [test for _, test in parts]
            if kind == 3:
                return [part for part, _ in parts], lambda row: any(test(row) for test in tests)
            return tuple(part for part, _ in parts), lambda row: all(test(row) for test in tests)
        if kind == 5:
            return self.query(context, depth - 1)
        if kind == 6:
            query, test = self.query(context, depth - 1)
            return db0.filter(even, query), lambda row: test(row) and row.value % 2 == 0
        if kind == 7:
            low, high = sorted((chance.randrange(6), chance.randrange(6)))
            index = context.fetch(Holder).index
            return index.select(low, high), lambda row: any(k is not None and low <= k <= high for k in row.keys)
        index = context.fetch(Holder).index
        query, test = self.query(context, depth - 1)
        return index.sort(query, desc=chance.random() < 0.5), lambda row: bool(row.keys) and test(row)

    def query(self, context: Any, depth: int) -> tuple[Any, Test]:
        """A find and what it means."""
        parts = [self.criterion(context, depth) for _ in range(self.chance.randrange(1, 3))]
        criteria, tests = [part for part, _ in parts], [test for _, test in parts]
        if self.chance.random() < 0.3:
            excluded, test = self.criterion(context, depth)
            criteria.append(db0.no(excluded))
            tests.append(lambda row, test=test: not test(row))  # type: ignore[misc]
        return context.find(*criteria), lambda row: all(test(row) for test in tests)

    def check(self, query: Any, test: Test, rows: State) -> None:
        expected = sorted((number for number, row in rows.items() if test(row)), reverse=True)
        found = list(query)
        numbers = [obj.number for obj in found]
        assert sorted(numbers, reverse=True) == expected, (query, numbers, expected)
        if not query._p_ordered:
            assert numbers == expected, (query, numbers, expected)
        assert len(query) == len(expected) and bool(query) == bool(expected)
        assert [obj.number for obj in query[:2]] == numbers[:2]
        for obj in found[:3]:
            row = rows[obj.number]
            assert type(obj) is row.cls and obj.value == row.value and obj in query

    def do_ask(self) -> None:
        query, test = self.query(db0, 2)
        self.check(query, test, self.rows)

    def do_ask_past(self) -> None:
        if self.past:
            past, rows, _ = self.chance.choice(self.past)
            query, test = self.query(past, 2)
            self.check(query, test, rows)

    def do_operate(self) -> None:
        getattr(self, "_" + self.chance.choice(("split", "group", "sort", "bytes", "changes", "mix")))()

    def _split(self) -> None:
        query, test = self.query(db0, 1)
        tags = self.chance.sample(LABELS, 2)
        exclusive = self.chance.random() < 0.5
        expected = Counter()
        for number, row in self.rows.items():
            if test(row):
                held = [tag for tag in tags if tag in row.tags]
                expected.update((number, str(tag)) for tag in (held[:1] if exclusive else held))
        split = db0.split_by(tags, query, exclusive=exclusive)
        assert Counter((obj.number, str(tag)) for obj, tag in split) == expected and len(split) == expected.total()

    def _group(self) -> None:
        query, test = self.query(db0, 1)
        found = [row for row in self.committed.values() if test(row)]
        by_value = db0.group_by(lambda thing: thing.value, query)
        assert by_value == dict(Counter(row.value for row in found))
        total = db0.make_sum(lambda thing: thing.number)
        by_tag = db0.group_by(TAGS, query, ops=(db0.count_op, total))
        expected: dict[str, tuple[int, int]] = {}
        for row in found:
            first = next((tag for tag in TAGS if tag in row.tags), None)
            if first is not None:
                n, s = expected.get(first, (0, 0))
                expected[first] = (n + 1, s + row.number)
        assert by_tag == expected
        assert db0.group_by(TAGS, query) == {tag: n for tag, (n, _) in expected.items()}

    def _sort(self) -> None:
        query, test = self.query(db0, 1)
        desc, null_first = self.chance.random() < 0.5, self.chance.random() < 0.5
        keys = [
            self.rows[obj.number].keys[0] for obj in self.holder.index.sort(query, desc=desc, null_first=null_first)
        ]
        expected = [row.keys[0] for row in self.rows.values() if row.keys and test(row)]
        expected.sort(key=lambda key: ((key is None) != null_first, key or 0), reverse=desc)
        assert keys == expected

    def _bytes(self) -> None:
        query, test = self.query(db0, 1)
        try:
            data = db0.serialize(query)
        except db0.Error:
            return  # a filter in it
        again = db0.deserialize(data)
        self.check(again, test, self.rows)
        assert db0.uuid(again) == db0.uuid(query)
        if self.past:
            past, rows, _ = self.chance.choice(self.past)
            if past.exists(Holder):
                self.check(past.deserialize(data), test, rows)

    def _changes(self) -> None:
        if len(self.past) < 2:
            return
        (old, before, first), (new, after, last) = sorted(self.chance.sample(self.past, 2), key=lambda entry: entry[2])
        query, test = self.query(db0, 1)
        had = {number for number, row in before.items() if test(row)}
        has = {number for number, row in after.items() if test(row)}
        assert {obj.number for obj in db0.select_new(query, old, new)} == has - had
        assert {obj.number for obj in db0.select_deleted(query, old, new)} == had - has
        changed = set().union(*self.changes[first:last])
        found = list(db0.select_modified(query, old, new))
        assert {b.number for _, b in found} == (had & has & changed)
        for a, b in found:
            assert a.value == before[a.number].value and b.value == after[b.number].value

    def _mix(self) -> None:
        """Queries of a snapshot as criteria of live ones, and the other way round."""
        if not self.past:
            return
        past, rows, _ = self.chance.choice(self.past)
        mine, test = self.query(db0, 1)
        theirs, their_test = self.query(past, 1)
        old = {number for number, row in rows.items() if their_test(row)}
        live = {number for number, row in self.rows.items() if test(row)}
        assert {obj.number for obj in db0.find(mine, theirs)} == live & old
        assert {obj.number for obj in past.find(theirs, mine)} == live & old
        assert {obj.number for obj in past.find(theirs, db0.no(mine))} == old - live

    # --- the whole --------------------------------------------------------------------------------------------------------

    def compare(self) -> None:
        """Everything there is, against the model; and the index against the objects."""
        found = {thing.number: thing for thing in db0.find([Thing, Stranger])}
        assert set(found) == set(self.rows) == set(self.holder.things)
        for tag in LABELS:
            assert {t.number for t in db0.find(tag)} == {n for n, row in self.rows.items() if tag in row.tags}
        entries = sorted((n, repr(key)) for n, row in self.rows.items() for key in row.keys)
        assert sorted((obj.number, repr(key)) for key, obj in self.holder.index) == entries
        check_index(self.holder._p_view)

    def reopen(self) -> None:
        """Commit, close, and go on in a new session."""
        for past, _, _ in self.past:
            past.close()
        self.past.clear()
        self.do_commit()
        db0.close()
        db0.init(self.root, prefix="main", autocommit=False)
        self.holder = Holder()
