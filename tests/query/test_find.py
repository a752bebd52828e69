"""find: criteria, what the query does, prefixes."""

from __future__ import annotations

from typing import Any

import pytest

import dbzero as db0


@db0.memo
class Task:
    def __init__(self, name: Any = None) -> None:
        self.name = name


@db0.memo
class Urgent(Task):
    pass


@db0.memo
class Other:
    def __init__(self) -> None:
        self.name = "other"


@db0.memo(prefix="scoped")
class Scoped:
    def __init__(self) -> None:
        self.x = 1


class Plain:
    pass


Color = db0.enum("FindColor", ["RED", "GREEN", "BLUE"])


def make(*tags: Any, cls: type = Task) -> Any:
    made = cls()
    db0.tags(made).add(*tags)
    return made


def found(*criteria: Any, **options: Any) -> list[Any]:
    return list(db0.find(*criteria, **options))


def test_before_init() -> None:
    for criteria in ((), ("x",), (Task,)):
        with pytest.raises(db0.NotInitializedError):
            db0.find(*criteria)


def test_no_criteria(store: str) -> None:
    make("x")
    assert found() == []


def test_types(store: str) -> None:
    a, b, c = Task(), Urgent(), Other()
    assert found(Task) == [b, a]
    assert found(Urgent) == [b]
    assert found(db0.MemoBase) == [c, b, a]
    assert found(Plain) == []
    assert set(found([Urgent, Other])) == {b, c}
    assert found(Task, db0.no(Urgent)) == [a]
    assert found(Task, Urgent) == [b]
    db0.commit()
    assert found(Task) == [b, a]


def test_never_used_class(store: str) -> None:
    @db0.memo
    class Never:
        pass

    assert found(Never) == []
    assert len(db0.find(Never, "x")) == 0


def test_algebra(store: str) -> None:
    a, b, ab, abc = make("a"), make("b"), make("a", "b"), make("a", "b", "c")
    assert found("a") == [abc, ab, a]
    assert found("a", "b") == [abc, ab]
    assert found(("a", "b")) == [abc, ab]
    assert found(["a", "b"]) == [abc, ab, b, a]
    assert found(["c", ("a", "b")]) == [abc, ab]
    assert found((["a", "c"], "b")) == [abc, ab]
    assert found("a", db0.no("b")) == [a]
    assert found(Task, db0.no("a", "b")) == []
    assert found(Task, db0.no(["a", "c"])) == [b]
    assert found(Task, db0.no(("a", "b"))) == [b, a]
    assert found(Task, db0.no("unknown")) == [abc, ab, b, a]
    assert found(Task, (db0.no("c"), "a")) == [ab, a]
    assert found([]) == found(()) == found(Task, []) == []
    assert found("unknown") == found(["unknown"]) == []
    assert found(["unknown", "c"]) == [abc]


def test_enums(store: str) -> None:
    a = make(Color.RED)
    make(Color.BLUE)
    assert found(Color.RED) == [a]
    assert len(db0.find(list(Color.values()))) == 2
    assert found(Color.values()) == []
    assert found(Task, db0.no(Color.BLUE)) == [a]


def test_objects(store: str) -> None:
    a, b, c = make("t"), make("t"), Task()
    assert found(c) == [c]
    assert found(a, db0.find("t")) == [a]
    assert found(c, "t") == []
    assert found([a, c]) == [c, a]
    assert found(db0.find("t"), [a, c]) == [a]
    assert found("t", db0.no(a)) == [b]


def test_sub_queries(store: str) -> None:
    a, b, c = make("x"), make("x", "y"), make("y")
    x, y = db0.find("x"), db0.find("y")
    assert found(x, y) == [b]
    assert found([x, y]) == [c, b, a]
    assert found(x, db0.no(y)) == [a]
    assert found(x[:1]) == [b]
    assert found(x[1:], Task) == [a]
    assert found(Task, db0.no(x[:1])) == [c, a]


@pytest.mark.parametrize(
    "bad", [{"x"}, {"x": 1}, (i for i in "x"), None, 1, b"x", len, Color, type("S", (str,), {})("s")]
)
def test_what_is_no_criterion(store: str, bad: Any) -> None:
    with pytest.raises(RuntimeError, match=r"find\(\)"):
        db0.find(bad)
    with pytest.raises(RuntimeError):
        db0.find(Task, db0.no(bad))
    with pytest.raises(RuntimeError):
        db0.find(db0.index())


def test_wrong_negations(store: str) -> None:
    for criteria in ([db0.no("x")], [Task, db0.no(db0.no("x"))], [Task, [db0.no("x")]], [["a", (db0.no("x"),)]]):
        with pytest.raises(RuntimeError):
            db0.find(*criteria)


def test_wrong_arguments(store: str) -> None:
    with pytest.raises(TypeError):
        db0.find("x", prefix=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        db0.find("x", wrong=1)  # type: ignore[call-arg]


def test_a_query_is_lazy_and_current(store: str) -> None:
    q = db0.find("late")
    both = db0.find(Task, "late")
    assert not q and len(q) == 0
    a = make("late")
    assert list(q) == [a] == list(both)
    db0.commit()
    b = make("late")
    assert list(q) == [b, a] == list(both) and len(both) == 2
    db0.tags(a).remove("late")
    assert list(q) == [b]
    assert q == q and q != db0.find("late") and len({q, q}) == 1
    with pytest.raises(TypeError):
        next(q)  # type: ignore[call-overload]
    assert list(zip(q, q, strict=True)) == [(b, b)]
    assert next(iter(q)) is b is db0.fetch(db0.uuid(b))
    assert b in q and a not in q and 1 not in q


def test_subscripts(store: str) -> None:
    made = [make("t") for _ in range(10)][::-1]
    q = db0.find("t")
    for key in (
        slice(3),
        slice(2, 5),
        slice(-2, None),
        slice(None, -1),
        slice(1, 100),
        slice(None, None, 3),
        slice(-5, -1, 2),
    ):
        part = q[key]
        assert list(part) == made[key] and len(part) == len(made[key]) and bool(part) == bool(made[key])
    assert q[:] is q and q[0:] is q and q[::1] is q
    assert q[0] is made[0] and q[-1] is made[-1]
    assert q[2, 2, 0] == (made[2], made[2], made[0])
    for bad in (10, (0, 10), -11):
        with pytest.raises(IndexError):
            q[bad]
    for wrong in (slice(None, None, -1), slice(None, None, 0)):
        with pytest.raises(RuntimeError, match="step"):
            q[wrong]
    with pytest.raises(RuntimeError):
        q[:5][:2]
    part = q[:5]
    assert part[:] is part
    assert q.first() is made[0] and q.exists() and q.count() == 10
    assert db0.find("none").first() is None and not db0.find("none").exists()


def test_changes_inside_the_loop(store: str) -> None:
    made = [make("t") for _ in range(100)]
    seen = []
    for obj in db0.find("t"):
        seen.append(obj)
        make("t")
        db0.tags(obj).remove("t")
        if len(seen) % 30 == 0:
            db0.commit()
    assert seen == made[::-1]
    assert len(db0.find("t")) == 100


def test_deleting_inside_the_loop(store: str) -> None:
    for _ in range(100):
        make("t")
    db0.commit()
    n = 0
    for obj in db0.find("t"):
        n += 1
        if n == 1:
            db0.tags(db0.find("t", db0.no(obj))).remove("t")
            db0.commit()
        assert obj.name is None
    assert 1 <= n <= 100
    db0.commit()
    assert len(db0.find("t")) == 1


def test_deleted_objects_are_not_found(store: str) -> None:
    a, b = Task(), Task()
    assert found(Task) == [b, a]
    db0.delete(a)
    assert found(Task) == [b]
    db0.commit()
    db0.delete(b)
    assert found(Task) == []
    db0.commit()
    assert found(Task) == [] == found(db0.MemoBase)


def test_dropped_objects_are_not_found(store: str) -> None:
    holder = Task([Task("inner")])
    Task("temporary")
    assert len(db0.find(Task)) == 3
    db0.commit()
    assert {task.name for task in db0.find(Task) if task is not holder} == {"inner"}
    holder.name = None
    db0.commit()
    assert found(Task) == [holder]


def test_cycles_are_collected(store: str) -> None:
    a, b = Task(), Task()
    a.name, b.name = b, a
    kept = make("kept")
    db0.commit()
    del a, b
    assert db0.collect_cycles() == 2
    assert found(Task) == [kept]


def test_prefixes(store: str) -> None:
    a = make("t")
    db0.open("other")
    b = make("t")
    assert found("t") == [b]
    assert found("t", prefix="main") == [a] == found("t", prefix="/main")
    q = db0.find("t")
    db0.open("main")
    assert list(q) == [b] and found("t") == [a]
    assert found(b) == [b] and found(q) == [b] and found(q, "t") == [b]
    with pytest.raises(RuntimeError, match="inconsistent"):
        db0.find(a, b)
    with pytest.raises(RuntimeError, match="inconsistent"):
        db0.find(q, "t", prefix="main")
    with pytest.raises(db0.PrefixError):
        db0.find("t", prefix="closed")


def test_scoped_classes(store: str) -> None:
    q = db0.find(Scoped)
    assert list(q) == []
    a = Scoped()
    assert list(q) == [a] == found(Scoped)
    assert found(Scoped, prefix="main") == []
    assert db0.get_current_prefix().name == "main"


def test_closing(store: str) -> None:
    make("t")
    q = db0.find("t")
    walk = iter(q)
    db0.close("main")
    with pytest.raises(RuntimeError):
        list(q)
    with pytest.raises(RuntimeError):
        len(q)
    with pytest.raises(RuntimeError):
        next(walk)
    db0.close()
    with pytest.raises(RuntimeError):
        bool(q)


def test_reopened(store: str) -> None:
    for i in range(1000):
        made = Task(i)
        db0.tags(made).add("all", f"mod{i % 10}")
    db0.close()
    db0.init(store, autocommit=False)
    db0.open("main", "r")
    assert [task.name for task in db0.find("mod3")] == list(range(993, 0, -10))
    assert len(db0.find(Task, "all", db0.no("mod1"))) == 900
    assert [task.name for task in db0.find(["mod1", "mod2"], "all")[:4]] == [992, 991, 982, 981]


def test_after_eviction(store: str) -> None:
    for i in range(2000):
        db0.tags(Task(i)).add("all")
    db0.commit()
    db0.clear_cache()
    assert sum(task.name for task in db0.find("all")) == sum(range(2000))


def test_unknown_classes(store: str) -> None:
    @db0.memo(id="gone-class")
    class Gone:
        def __init__(self) -> None:
            self.x = 5

    db0.tags(Gone()).add("t")
    make("t")
    db0.close()
    from dbzero.model import kinds

    del kinds.classes["=gone-class"]
    kinds.version += 1
    db0.init(store, autocommit=False)
    db0.open("main", "r")
    first, second = db0.find("t")
    assert isinstance(first, Task) and isinstance(second, db0.MemoBase) and second.x == 5  # type: ignore[attr-defined]
    assert len(db0.find(db0.MemoBase, "t")) == 2


def test_explain(store: str) -> None:
    for i in range(100):
        make("a", *(["b"] if i % 2 else []))
    plan = db0.find(Task, "a", db0.no("b")).explain()
    assert plan.actual == 50 and plan.operation == "find"
    text = str(plan)
    assert "tag 'a': 100 estimated, 100 found" in text and "not" in text and "class Task" in text
    assert "not needed" in str(db0.find("a", "none").explain())


def test_cancelled_blocks_take_everything_back(store: str) -> None:
    a, b = make("x"), make("x", "y")
    doomed = Task("doomed")
    for commit in (False, True):
        if commit:
            db0.commit()
        with pytest.raises(ValueError), db0.atomic():
            db0.tags(a).remove("x").add("z")
            made = make("z")
            assert found("z") == [made, a] and found("x") == [b] and len(db0.find(Task)) == 4
            db0.delete(doomed)
            assert len(db0.find(Task)) == 3
            with db0.atomic():
                db0.tags(b).add("inner")
            assert found("inner") == [b]
            raise ValueError
        assert found("z") == found("inner") == [] and found("x") == [b, a] and found(Task) == [doomed, b, a]
        assert db0.getrefcount(a) == 1
    with db0.atomic():
        kept = make("kept")
        db0.tags(a).add("kept")
    assert found("kept") == [kept, a]
    db0.commit()
    assert found("kept") == [kept, a] and found(Task) == [kept, doomed, b, a]


def test_objects_made_around_a_cancelled_block(store: str) -> None:
    before = [Task(i) for i in range(5)]
    with pytest.raises(ValueError), db0.atomic():
        inside = [Task(i) for i in range(10)]
        assert len(db0.find(Task)) == 15 and inside
        raise ValueError
    after = [Task(i) for i in range(20)]
    assert found(Task) == [*after[::-1], *before[::-1]]
