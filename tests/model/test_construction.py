from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from dbzero.errors import BadPrefixError, Error, NotInitializedError, ReadOnlyError, ReferenceError
from dbzero.model import base
from dbzero.model.construction import materialized, set_prefix
from dbzero.model.memo import memo, uuid_of
from dbzero.model.values import convert
from dbzero.model.view import View
from tests.model.memory import Memory, current, reopen


@memo
class Node:
    def __init__(self, value: Any = None, fail: bool = False) -> None:
        self.value = value
        if fail:
            raise ValueError("failed")


@memo(singleton=True)
class Config:
    def __init__(self, version: str, extra: int = 0) -> None:
        self.version = version
        self.extra = extra


@memo(singleton=True)
class Scoped:
    def __init__(self, name: str, number: int, prefix: str | None = None) -> None:
        set_prefix(self, prefix)
        self.name = name
        self.number = number


@memo(prefix="two")
class Static:
    def __init__(self) -> None:
        self.x = 1


def test_before_init_nothing_can_be_made() -> None:
    with pytest.raises(NotInitializedError, match="dbzero not initialized"):
        Node()
    with pytest.raises(NotInitializedError):
        Config("1")


def test_arguments_are_checked(view: View) -> None:
    class Bare:
        pass

    bare: Any = memo(Bare)
    assert isinstance(bare(), bare)
    with pytest.raises(TypeError, match="no arguments"):
        bare(1)
    with pytest.raises(TypeError, match="no arguments"):
        bare(a=1)
    with pytest.raises(TypeError):
        Node(1, False, 3)  # type: ignore[call-arg]
    returning: Any = memo(type("R", (), {"__init__": lambda self: 3}))
    with pytest.raises(TypeError, match="None"):
        returning()
    assert view.dirty_count == 1


def test_during_init_the_instance_is_usable(memory: Memory, view: View) -> None:
    seen = {}

    @memo
    class Builder:
        def __init__(self) -> None:
            seen["has"] = hasattr(self, "x")
            self.x = 1
            self.x += 1
            seen["x"] = self.x
            self.gone = 3
            del self.gone
            self.me = self
            self.child = Node(self)
            seen["vars"] = dict(vars(self))
            with pytest.raises(Error, match="UUID"):
                uuid_of(self)
            seen["uuid"] = uuid_of(materialized(self))
            self.method()

        def method(self) -> None:
            self.late = True

    obj = Builder()
    assert (seen["has"], seen["x"], set(seen["vars"])) == (False, 2, {"x", "me", "child"})
    assert obj.me is obj and obj.child.value is obj and obj.late
    assert uuid_of(obj) == seen["uuid"]
    memory.commit(view)
    with current(other := reopen(memory, view)):
        loaded = other.get(obj._p_oid)
        assert loaded.me is loaded and loaded.child.value is loaded
        assert not hasattr(loaded, "gone")


def test_calling_init_again_is_an_ordinary_call(view: View) -> None:
    node = Node(1)
    oid = node._p_oid
    node.__init__(2)  # type: ignore[misc]
    assert (node.value, node._p_oid, view.dirty_count) == (2, oid, 1)


def test_a_failing_init_leaves_nothing(memory: Memory, view: View) -> None:
    keep = []
    held = Node()

    @memo
    class Failing:
        def __init__(self) -> None:
            self.held = held
            keep.append(weakref.ref(self))
            raise KeyError("no")

    memory.commit(view)
    live = view.live_count
    refs = len(gc.get_referrers(held))
    for _ in range(3):
        with pytest.raises(KeyError):
            Failing()
    gc.collect()
    assert [ref() for ref in keep] == [None] * 3
    assert (view.dirty_count, view.live_count) == (0, live)
    assert len(gc.get_referrers(held)) == refs
    assert memory.commit(view) == 0


def test_a_reference_to_a_failed_object_is_dead(memory: Memory, view: View) -> None:
    holder = Node()

    @memo
    class Leaky:
        def __init__(self) -> None:
            self.x = 1
            holder.value = materialized(self)
            raise KeyError("no")

    with pytest.raises(KeyError):
        Leaky()
    with pytest.raises(ReferenceError, match="expired"):
        holder.value.x
    memory.commit(view)
    with current(other := reopen(memory, view)), pytest.raises(ReferenceError):
        other.get(holder._p_oid).value.x


def test_commit_inside_init(memory: Memory, view: View) -> None:
    @memo
    class Committing:
        def __init__(self) -> None:
            self.first = 1
            self.child = Node(self)
            memory.commit(view)
            self.second = 2

    obj = Committing()
    memory.commit(view)
    with current(other := reopen(memory, view)):
        loaded = other.get(obj.child._p_oid).value
        assert vars(loaded) == {"first": 1, "child": loaded.child, "second": 2}
        assert loaded.child.value is loaded


def test_bare_self_does_not_go_into_collections(view: View) -> None:
    @memo
    class Selfish:
        def __init__(self) -> None:
            with pytest.raises(Error, match="materialized"):
                convert(view, self)
            assert convert(view, materialized(self)) is self

    obj = Selfish()
    assert convert(view, obj) is obj
    assert materialized(obj) is obj and materialized(3) == 3


def test_read_only_prefix_refuses_construction(memory: Memory, view: View) -> None:
    memory.commit(view)
    with current(reopen(memory, view, writable=False)):
        with pytest.raises(ReadOnlyError, match="Cannot modify read-only prefix: mem"):
            Node()
        with pytest.raises(ReadOnlyError, match="does not exist"):
            Config("1")


def test_singleton(memory: Memory, view: View) -> None:
    with pytest.raises(TypeError):
        Config()  # type: ignore[call-arg]
    config = Config("1.0")
    assert Config() is config  # type: ignore[call-arg]
    assert Config(1, 2, 3, 4, x=5) is config  # type: ignore[call-arg]
    assert config.version == "1.0"
    memory.commit(view)
    with current(other := reopen(memory, view, writable=False)):
        found = Config("ignored")
        assert found.version == "1.0" and found._p_view is other and Config("x") is found
    assert memory.refcount(config._p_oid, view.state) == 1
    view.set_singleton(Config, None)
    assert Config("2").version == "2"


def test_a_failing_singleton_is_not_registered(view: View) -> None:
    tries = []

    @memo(singleton=True)
    class Once:
        def __init__(self) -> None:
            tries.append(1)
            if len(tries) == 1:
                raise ValueError

    with pytest.raises(ValueError):
        Once()
    assert isinstance(Once(), Once) and len(tries) == 2
    Once()
    assert len(tries) == 2


def test_static_scope() -> None:
    one, two = View(Memory("one", 1), 1), View(Memory("two", 2), 1)
    with current(one, two):
        assert Static()._p_view is two
        assert Node()._p_view is one


def test_dynamic_scope() -> None:
    memory_one, memory_two = Memory("one", 1), Memory("two", 2)
    one, two = View(memory_one, 1), View(memory_two, 1)

    @memo
    class Moving:
        def __init__(self, prefix: str | None, late: bool = False) -> None:
            if late:
                self.x = 0
            set_prefix(self, prefix)
            self.x = 1

    with current(one, two):
        moved = Moving("two")
        assert moved._p_view is two and two.peek(moved._p_oid) is moved
        assert Moving(None)._p_view is one
        with pytest.raises(Error, match="before initializing"):
            Moving("two", late=True)
        with pytest.raises(Error, match="already initialized"):
            set_prefix(moved, "one")
        scoped = Scoped("a", 1, prefix="two")
        assert scoped._p_view is two
        assert Scoped(prefix="two") is scoped  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="missing"):
            Scoped(prefix="one")  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            Scoped("a", 1, "two", 4)  # type: ignore[call-arg]
        memory_two.commit(two)
        frozen = reopen(memory_one, one, writable=False)
        read_two = reopen(memory_two, two, writable=False)
        with current(frozen, two):
            assert Moving("two")._p_view is two
            with pytest.raises(ReadOnlyError):
                Moving(None)
        with current(frozen, read_two):
            found = Scoped(prefix="two")  # type: ignore[call-arg]
            assert found.name == "a" and found._p_view is read_two


def test_objects_of_another_prefix_are_referred_to_weakly() -> None:
    one, two = View(Memory("one", 1), 1), View(Memory("two", 2), 1)
    with current(one, two):
        node = Node(1)
        static = Static()
        static.x = node  # type: ignore[assignment]
        assert static.x is node and static._p_encode()[1] == []
        again = View(one.records, 1)
        with current(again, two), pytest.raises(BadPrefixError, match="another view"):
            again._convert(node)


def test_immutable(memory: Memory, view: View) -> None:
    @memo(immutable=True)
    class Fixed:
        def __init__(self) -> None:
            self.x = 1
            self.x = 2

    obj = Fixed()
    for change in (lambda: setattr(obj, "x", 3), lambda: delattr(obj, "x"), lambda: setattr(obj, "y", [1])):
        with pytest.raises(AttributeError, match="Cannot modify an immutable memo object"):
            change()
    obj._X__note = object()  # type: ignore[attr-defined]
    memory.commit(view)
    with current(other := reopen(memory, view)):
        loaded = other.get(obj._p_oid)
        with pytest.raises(AttributeError, match="immutable"):
            loaded.x = 5
        assert loaded.x == 2
    assert base.class_flags(Fixed) == base.CLASS_IMMUTABLE
