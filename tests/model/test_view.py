from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbzero.errors import CorruptError, Error
from dbzero.model import base, kinds
from dbzero.model.catalog import Catalogue, ClassRecord
from dbzero.model.memo import memo
from dbzero.model.view import View
from tests.model.memory import Memory, current, reopen


@memo
class Item:
    def __init__(self, value: Any = None, other: Any = None) -> None:
        self.value = value
        self.other = other


@memo(singleton=True)
class Root:
    def __init__(self) -> None:
        self.item = None


def test_a_failed_commit_is_put_back(memory: Memory, view: View) -> None:
    a, b = Item(1), Item(2)
    memory.commit(view)
    a.value = 10
    taken = view.take_dirty()
    assert taken == [a] and view.dirty_count == 0
    b.value = 20
    a.value = 11
    view.put_back(taken)
    view.put_back(taken)
    assert view.dirty_count == 2
    memory.commit(view)
    with current(other := reopen(memory, view)):
        assert (other.get(a._p_oid).value, other.get(b._p_oid).value) == (11, 20)


def test_what_is_being_saved_stays_loaded(memory: Memory, view: View) -> None:
    a = Item(1)
    memory.commit(view)
    a.value = 2
    taken = view.take_dirty()
    view.evict(0)
    view.invalidate([a._p_oid])
    assert not a._p_flags & base.GHOST and a.value == 2, "its stored version is still the old one"
    view.put_back(taken)
    memory.commit(view)
    view.evict(0)
    assert a._p_flags & base.GHOST and a.value == 2


def test_a_new_shape_comes_with_the_object_that_has_it(memory: Memory, view: View) -> None:
    a = Item(1)
    memory.commit(view)
    a.extra = 1  # type: ignore[attr-defined]
    state = view.state + 1
    assert memory.commit(view) == 2, "the object and its class record"
    record = view.layout(Item).record
    assert memory.versions[record._p_oid][-1][0] == state
    a.extra = 2  # type: ignore[attr-defined]
    assert memory.commit(view) == 1
    assert record.field_names == ["value", "other", "extra"]


def test_a_class_record_is_written_once_a_commit(memory: Memory, view: View) -> None:
    for i in range(50):
        item = Item(i)
        setattr(item, f"field{i}", i)
    memory.commit(view)
    for oid, versions in memory.versions.items():
        assert len(versions) == 1, oid


def test_a_reader_follows(memory: Memory, view: View) -> None:
    a = Item(1, Item(2))
    memory.commit(view)
    reader = reopen(memory, view, writable=False)
    handle = reader.get(a._p_oid)
    inner = handle.other
    assert (handle.value, inner.value) == (1, 2)
    a.value = 5
    a.new = "n"  # type: ignore[attr-defined]
    a.other.value = 6
    memory.commit(view)
    assert handle.value == 1, "the view stands still until it moves"
    reader.invalidate([a._p_oid, a.other._p_oid, view.layout(Item).record._p_oid, 999])
    reader.advance(view.state)
    assert (handle.value, handle.new, handle.other is inner, inner.value) == (5, "n", True, 6)
    view.expire(a)
    memory.versions[a._p_oid].append((view.state + 1, None, ()))
    reader.invalidate_all()
    reader.advance(view.state + 1)
    with pytest.raises(ReferenceError):
        handle.value


def test_orphans_are_reported_when_their_wrapper_dies(memory: Memory, view: View) -> None:
    a, b = Item(1), Item(2)
    memory.commit(view)
    oids = a._p_oid, b._p_oid
    for oid in oids:
        view.mark_orphan(oid)
    view.unmark_orphan(oids[1])
    assert view.dead_orphans() == [] and view.held(oids[0]) and not view.held(oids[0], 5)
    del a, b
    assert view.orphan_count == 1 and view.has_changes()
    assert view.dead_orphans() == [oids[0]] and view.dead_orphans() == []
    view.add_dead_orphans([oids[0]])
    assert view.dead_orphans() == [oids[0]]
    loaded = view.get(oids[0])
    assert loaded._p_flags & base.ORPHAN, "its stored refcount is 0"
    root = Root()
    root.item = loaded
    memory.commit(view)
    reader = reopen(memory, view)
    assert not reader.get(oids[0])._p_flags & base.ORPHAN


def test_eviction_bounds_what_is_loaded(memory: Memory, view: View) -> None:
    root = Root()
    head = None
    for _ in range(2000):
        head = Item("x" * 400, head)
    root.item = head
    memory.commit(view)
    del head
    with current(fresh := reopen(memory, view)):
        fresh.limit = 200_000
        node, count, most, keep = fresh.singleton(Root).item, 0, 0, []
        while node is not None:
            keep.append(node)
            assert len(node.value) == 400
            node = node.other
            count += 1
            most = max(most, fresh.weight)
        assert count == 2000 and most < 230_000
        loaded = sum(not item._p_flags & base.GHOST for item in keep)
        assert 0 < loaded < 400
        for item in keep:
            item.value = "short"
        assert fresh.dirty_count == 2000, "dirty objects are not evicted"
        memory.commit(fresh)
        assert fresh.weight <= 200_000
        assert all(item.value == "short" for item in keep)


def test_kinds_cannot_be_taken_twice() -> None:
    with pytest.raises(ValueError):
        kinds.register(kinds.CLASS_RECORD, Catalogue)
    with pytest.raises(ValueError):
        kinds.register(16, Catalogue)
    kinds.register(kinds.CLASS_RECORD, ClassRecord)


def test_wrong_arguments_raise(view: View) -> None:
    item = Item()
    other = View(Memory("o"), 1)
    calls: list[tuple[Any, tuple[Any, ...]]] = [
        (view.ghost, (int, 20)),
        (view.ghost, (3, 20)),
        (view.ghost, (Item,)),
        (view.ghost, (Item, 0)),
        (view.ghost, (Item, 1 << 48)),
        (view.ghost, (Item, -1)),
        (view.peek, ("x",)),
        (view.adopt, (item,)),
        (view.adopt, (3,)),
        (other.expire, (item,)),
        (other.settle, (item, 3)),
        (view.settle, (item, -1)),
        (view.weigh, (item,)),
        (view.put_back, ((item,),)),
        (view.put_back, ([3],)),
        (view.invalidate, (3,)),
        (view.invalidate, ([None],)),
        (view.evict, (-1,)),
        (view.held, (0,)),
        (base.fill, (item, ("a",), [])),
        (base.fill, (3, (), [])),
        (base.state, (3,)),
        (base.construct, (int, view, (), None)),
        (base.construct, (Item, view, (), 3)),
        (base.rebind, (item, view)),
        (base.register_class, (int, 0)),
        (base.set_current_view, (3,)),
        (base.set_dict_descriptor, (vars(base.Persistent)["_p_oid"],)),
    ]
    for call, args in calls:
        with pytest.raises((TypeError, ValueError, OverflowError)):
            call(*args)
    assert base.clear_state is not None
    with pytest.raises(RuntimeError, match="not held"):
        base.operation.release()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_records_are_corrupt(data: st.DataObject) -> None:
    memory = Memory()
    view = View(memory, 1)
    with current(view):
        root = Root()
        root.item = Item(1 << 80, Item("text", root))
        memory.commit(view)
    oid = data.draw(st.sampled_from(sorted(memory.versions)))
    state, payload, refs = memory.versions[oid][-1]
    assert payload is not None
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(payload) - 1))
        damaged = payload[:at] + bytes((data.draw(st.integers(0, 255)),)) + payload[at + 1 :]
    else:
        damaged = data.draw(st.binary(max_size=30)) + payload[data.draw(st.integers(0, len(payload))) :]
    memory.versions[oid][-1] = (state, damaged, refs)
    fresh = reopen(memory, view)
    with current(fresh):
        for number in [*memory.versions, 1]:
            try:
                obj = fresh.get(number)
                if obj is None or isinstance(obj, (Catalogue, ClassRecord)):  # None: like one of the tag index
                    continue
                for value in vars(obj).values():
                    if isinstance(value, base.Persistent):
                        vars(value)
            except (CorruptError, ReferenceError):
                pass
        try:
            fresh.singleton(Root)
        except Error as error:
            assert isinstance(error, CorruptError)


def test_discard(memory: Memory, view: View) -> None:
    a = Item(1)
    memory.commit(view)
    a.value = 2
    b = Item(3)
    view.discard_dirty()
    assert a.value == 1 and view.dirty_count == 0 and view.peek(b._p_oid) is None
    with pytest.raises(ReferenceError):
        b.value
