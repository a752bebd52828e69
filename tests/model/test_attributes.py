from __future__ import annotations

import copy
import functools
import pickle
from typing import Any

import pytest

from dbzero.errors import ClosedError, Error, ReadOnlyError, ReferenceError, UnsupportedTypeError
from dbzero.model import base
from dbzero.model.memo import memo, uuid_of
from dbzero.model.uuids import make_uuid, parse_uuid
from dbzero.model.view import View
from tests.model.memory import Memory, current, reopen


@memo
class Thing:
    default = "class"

    def __init__(self, **fields: Any) -> None:
        for name, value in fields.items():
            setattr(self, name, value)

    @property
    def size(self) -> Any:
        return self._size

    @size.setter
    def size(self, value: Any) -> None:
        self._size = repr(value)

    @size.deleter
    def size(self) -> None:
        del self._size

    @property
    def fixed(self) -> int:
        return 1

    @functools.cached_property
    def computed(self) -> list[int]:
        return [1]


def test_dynamic_attributes(memory: Memory, view: View) -> None:
    thing = Thing(a=1)
    thing.b = "x"  # type: ignore[attr-defined]
    thing.a = "now a str"
    setattr(thing, "not an identifier", 3)
    setattr(thing, "\ud800", 4)
    setattr(thing, "\0nul", 5)
    thing._private = None
    memory.commit(view)
    with current(other := reopen(memory, view)):
        loaded = other.get(thing._p_oid)
        expected = {"a": "now a str", "b": "x", "not an identifier": 3, "\ud800": 4, "\0nul": 5, "_private": None}
        assert vars(loaded) == expected
        assert list(vars(loaded)) == list(expected)
        del loaded.a
        assert not hasattr(loaded, "a")
        with pytest.raises(AttributeError, match="a"):
            del loaded.a
        loaded.a = 9
        assert loaded.a == 9


def test_thousands_of_attributes(memory: Memory, view: View) -> None:
    things = [Thing(**{f"f{i}_{j}": j for j in range(i)}) for i in (0, 1, 64, 65, 3000)]
    for i in range(700):
        things.append(Thing(**{f"odd{i}": i}))
    memory.commit(view)
    with current(other := reopen(memory, view)):
        for thing in things:
            assert vars(other.get(thing._p_oid)) == vars(thing)
    record = view.layout(Thing).record
    assert len(record.data.shapes) == 500


def test_class_attributes_are_defaults(memory: Memory, view: View) -> None:
    thing = Thing()
    assert thing.default == "class" and "default" not in vars(thing)
    thing.default = "own"
    memory.commit(view)
    view.evict(0)
    assert thing._p_flags & base.GHOST
    assert thing.default == "own", "a ghost's stored value is not shadowed by the class's"
    del thing.default
    assert thing.default == "class"


def test_properties_work_as_in_python(memory: Memory, view: View) -> None:
    thing = Thing()
    thing.size = [1]
    assert thing.size == "[1]" and vars(thing) == {"_size": "[1]"}
    with pytest.raises(AttributeError):
        thing.fixed = 2  # type: ignore[misc]
    memory.commit(view)
    view.evict(0)
    thing.size = {2}
    assert thing.size == "{2}"
    del thing.size
    assert not hasattr(thing, "size")
    assert thing.computed == [1] and thing.computed is not thing.computed
    Thing.patched = property(lambda self: 1, lambda self, value: None)  # type: ignore[attr-defined]
    thing.patched = object()  # type: ignore[attr-defined]
    del Thing.patched  # type: ignore[attr-defined]
    with pytest.raises(UnsupportedTypeError):
        thing.patched = object()  # type: ignore[attr-defined]


def test_vars_and_dir(view: View) -> None:
    thing = Thing(a=1, z=None)
    thing._X__lock = object()
    thing.gone = 1
    del thing.gone
    assert vars(thing) == thing.__dict__ == {"a": 1, "z": None}
    vars(thing)["b"] = 1
    assert not hasattr(thing, "b")
    names = dir(thing)
    assert names == sorted(names) and set(vars(thing)) <= set(names) and "size" in names
    assert "gone" not in names and "_X__lock" not in names
    for action in (
        lambda: setattr(thing, "__dict__", {}),
        lambda: delattr(thing, "__dict__"),
        lambda: setattr(thing, "__class__", Thing),
    ):
        with pytest.raises(AttributeError):
            action()
    assert type(thing) is Thing


def test_local_names_stay_on_the_wrapper(memory: Memory, view: View) -> None:
    thing = Thing(a=1)
    lock = thing._X__lock = object()
    memory.commit(view)
    assert view.evict(0) == 0
    assert thing._X__lock is lock and thing._p_flags & base.GHOST, "reading it does not load"
    thing._X__other = object()
    assert thing._p_flags & base.GHOST and view.dirty_count == 0
    assert thing.a == 1 and thing._X__lock is lock
    del thing._X__lock
    assert not hasattr(thing, "_X__lock")
    with current(other := reopen(memory, view)):
        assert not hasattr(other.get(thing._p_oid), "_X__other")


def test_a_failed_assignment_changes_nothing(memory: Memory, view: View) -> None:
    thing = Thing(a=1)
    memory.commit(view)
    for value in (object(), slice(3), bytearray(b"x"), type("S", (str,), {})("x"), Ellipsis, iter(())):
        with pytest.raises(AttributeError, match="Unsupported attribute type"):
            thing.a = value
        with pytest.raises(TypeError):
            thing.new = value
    assert vars(thing) == {"a": 1} and view.dirty_count == 0


def test_writes_mark_dirty_once(memory: Memory, view: View) -> None:
    thing = Thing(a=1)
    other = Thing(b=thing)
    memory.commit(view)
    assert view.dirty_count == 0
    thing.a = 2
    thing.a = 3
    assert view.dirty_count == 1
    other.b = other
    assert view.dirty_count == 2
    del other.b
    assert view.dirty_count == 2 and memory.commit(view) >= 2


def test_read_only(memory: Memory, view: View) -> None:
    thing = Thing(a=1)
    memory.commit(view)
    other = reopen(memory, view, writable=False)
    loaded = other.get(thing._p_oid)
    for action in (
        lambda: setattr(loaded, "a", 2),
        lambda: delattr(loaded, "a"),
        lambda: setattr(loaded, "b", [1]),
        loaded._p_changed,
    ):
        with pytest.raises(ReadOnlyError, match="Cannot modify read-only prefix: mem"):
            action()
    assert loaded.a == 1 and other.dirty_count == 0


def test_closed(memory: Memory, view: View) -> None:
    thing = Thing(a=1)
    late = Thing()
    memory.commit(view)
    late.x = 1  # type: ignore[attr-defined]
    view.close()
    for obj in (thing, late):
        with pytest.raises(ClosedError, match="no longer accessible"):
            obj.a  # type: ignore[attr-defined]
        with pytest.raises(AttributeError, match="no longer accessible"):
            obj.a = 1  # type: ignore[attr-defined]
        with pytest.raises(ClosedError):
            obj.__dict__
        assert "Thing object at" in repr(obj) and str(obj)
        assert isinstance(obj, Thing) and obj == obj and hash(obj)
    with pytest.raises(ClosedError):
        view.get(thing._p_oid)
    with current(second := View(memory, view.state)):
        found = second.get(thing._p_oid)
        found.a = 5
        del thing, late
        assert found.a == 5 and second.dirty_count == 1


def test_expired(memory: Memory, view: View) -> None:
    thing = Thing(a=1)
    memory.commit(view)
    view.expire(thing)
    with pytest.raises(ReferenceError, match="expired"):
        thing.a
    with pytest.raises(AttributeError, match="expired"):
        thing.a = 2
    holder = Thing()
    with pytest.raises(ReferenceError):
        holder.x = thing
    assert "Thing object at" in repr(thing) and thing == thing
    assert view.peek(thing._p_oid) is None


def test_copies_and_pickles_are_refused(view: View) -> None:
    thing = Thing(a=1)
    for action in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            action(thing)


def test_uuid(view: View) -> None:
    thing = Thing()
    text = uuid_of(thing)
    assert len(text) == 24 and parse_uuid(text) == (view.records.uuid, thing._p_oid)
    assert str(thing) == f"<{__name__}.Thing instance uuid={text}>"
    for number, oid in ((0, 1), (2**64 - 1, 2**48 - 1)):
        assert parse_uuid(make_uuid(number, oid)) == (number, oid)
    for bad in (
        "",
        text[:-1],
        text + "A",
        text.lower(),
        "0" * 24,
        "!" * 24,
        text[:-1] + ("A" if text[-1] != "A" else "B"),
        None,
        3,
    ):
        with pytest.raises(Error, match="Invalid UUID"):
            parse_uuid(bad)  # type: ignore[arg-type]
    for value in (3, Thing, None):
        with pytest.raises(Error, match="Unable to generate UUID"):
            uuid_of(value)
