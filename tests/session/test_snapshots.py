"""Snapshots: states that stay, what can be asked of them, how long they live, and change data capture."""

from __future__ import annotations

import gc
import os
from typing import Any

import pytest

import dbzero as db0
from tests.worker import Worker


@db0.memo
class Item:
    def __init__(self, value: Any = None) -> None:
        self.value = value


@db0.memo
class Other:
    def __init__(self) -> None:
        self.mine = 1


@db0.memo(singleton=True)
class Root:
    def __init__(self) -> None:
        self.count = 0
        self.items = []
        self.by_name = {}
        self.index = db0.index()


@db0.memo(singleton=True, prefix="scoped-snapshots")
class Scoped:
    def __init__(self) -> None:
        self.text = "scoped"


def state() -> int:
    return db0.get_state_num(finalized=True)


@pytest.fixture
def history(store: str) -> list[int]:
    """Ten committed states of a root whose count, list, dict and index grow by one each."""
    root = Root()
    states = []
    for n in range(10):
        item = Item(n)
        root.count = n + 1
        root.items.append(item)
        root.by_name[f"n{n}"] = item
        root.index.add(n, item)
        db0.tags(item).add("even" if n % 2 == 0 else "odd")
        db0.commit()
        states.append(state())
    return states


def check(past: Any, n: int) -> None:
    root = past.fetch(Root)
    assert root.count == n and len(root.items) == len(root.by_name) == len(root.index) == n
    assert [item.value for item in root.items] == list(range(n))
    assert [key for key, _ in root.index] == list(range(n))
    assert {key: item.value for key, item in root.by_name.items()} == {f"n{i}": i for i in range(n)}
    assert len(past.find(Item)) == n and len(past.find("even")) == (n + 1) // 2
    assert sorted(item.value for item in past.find(Item, "odd")) == list(range(1, n, 2))


# --- states ------------------------------------------------------------------------------------------------------------


def test_every_state_stays(history: list[int], store: str) -> None:
    for n, number in enumerate(history):
        with db0.snapshot(number) as past:
            check(past, n + 1)
            assert past.get_state_num() == number
    db0.close()
    db0.init(store)
    db0.open("main", "r")
    for n, number in reversed(list(enumerate(history))):
        with db0.snapshot({"main": number}) as past:
            check(past, n + 1)
    with db0.snapshot(1) as past:
        assert not past.exists(Root) and len(past.find(Item)) == 0


def test_it_shows_what_is_committed_and_stays(history: list[int]) -> None:
    root = db0.fetch(Root)
    root.count = 77
    with db0.snapshot() as past:
        check(past, 10)
        db0.commit()
        root.items.clear()
        db0.commit()
        check(past, 10)
        assert root.count == 77 and len(root.items) == 0


def test_the_pending_number_names_the_next_commit(store: str) -> None:
    item = Root()
    number = db0.get_state_num()
    with pytest.raises(db0.Error, match="not available"):
        db0.snapshot(number)
    item.count = 5
    db0.commit()
    item.count = 6
    db0.commit()
    assert db0.snapshot(number).fetch(Root).count == 5


@pytest.mark.parametrize("spec", [0, -1, 10**6, {"main": 0}, {"main": 10**6}, {"unknown": 1}])
def test_states_that_there_are_not(history: list[int], spec: Any) -> None:
    with pytest.raises(db0.Error, match=r"not available|not found"):
        db0.snapshot(spec)


@pytest.mark.parametrize("spec", ["1", 1.5, True, [1], {"main": None}, {"main": "1"}])
def test_specs_of_wrong_types(history: list[int], spec: Any) -> None:
    with pytest.raises(TypeError):
        db0.snapshot(spec)


def test_state_num_is_another_name(history: list[int]) -> None:
    assert db0.snapshot(state_num=history[2]).get_state_num() == history[2]
    with pytest.raises(TypeError):
        db0.snapshot(1, state_num=2)


def test_several_prefixes(store: str) -> None:
    first = Root()
    first.count = 1
    db0.commit()
    mine = state()
    db0.open("second")
    second = Root()
    second.count = 10
    db0.commit()
    theirs = state()
    second.count, first.count = 20, 2
    db0.commit()
    past = db0.snapshot({"second": theirs, "/main": mine})
    assert past.fetch(Root).count == 10 and past.fetch(Root, prefix="main").count == 1
    assert "second" in past and "/main" in past and "third" not in past and 5 not in past
    head = db0.snapshot(theirs)  # the current prefix; the others are shown as they are
    assert head.fetch(Root).count == 10 and head.fetch(Root, prefix="main").count == 2
    db0.open("third")
    assert "third" not in head and head.get_state_num("main") == mine + 1


def test_compaction_keeps_what_snapshots_need(history: list[int]) -> None:
    past = db0.snapshot(history[4])
    assert db0.compact(keep_states=1).oldest_state == history[4]
    check(past, 5)
    past.close()
    assert db0.compact(keep_states=1).oldest_state == history[-1]
    with pytest.raises(db0.StateNotKeptError):
        db0.snapshot(history[4])
    with db0.snapshot() as now:
        check(now, 10)


def test_a_forgotten_snapshot_lets_go(history: list[int]) -> None:
    past = db0.snapshot(history[2])
    check(past, 3)
    del past
    gc.collect()
    assert db0.compact(keep_states=1).oldest_state == history[-1]


# --- objects ---------------------------------------------------------------------------------------------------------------


def test_objects_side_by_side(history: list[int]) -> None:
    live = db0.fetch(Root).items[3]
    live.value = "changed"
    db0.commit()
    one, other, newer = db0.snapshot(history[5]), db0.snapshot(history[5]), db0.snapshot()
    identity = db0.uuid(live)
    old = one.fetch(identity)
    assert type(old) is Item and isinstance(old, Item) and old.value == 3 and live.value == "changed"
    assert db0.uuid(old) == identity and hash(old) == hash(live)
    assert old != live and live != old and old is not live
    assert one.fetch(identity) is old and one.fetch(Root).items[3] is old and one.find("odd")[1] is old
    same = other.fetch(identity)
    assert same == old and same is not old and newer.fetch(identity) != old
    assert newer.fetch(identity) != live and {old, live, same} == {old, live} and len({old, same}) == 1
    assert one.fetch(identity, Item) is old and one.exists(identity) and one.exists(identity, Item)
    assert not one.exists(identity, Other) and not one.exists("nonsense")
    with pytest.raises(db0.Error, match="mismatch"):
        one.fetch(identity, Other)
    later = db0.fetch(Root).items[9]
    assert not one.exists(db0.uuid(later))
    with pytest.raises(db0.ReferenceError):
        one.fetch(db0.uuid(later))


def test_nothing_can_be_changed(history: list[int]) -> None:
    past = db0.snapshot(history[5])
    root = past.fetch(Root)
    item = root.items[0]
    with pytest.raises(AttributeError, match="snapshot"):
        item.value = 1
    with pytest.raises(AttributeError):
        item.fresh = 1
    with pytest.raises(AttributeError):
        del item.value
    for attempt in (
        lambda: root.items.append(1),
        lambda: root.by_name.clear(),
        lambda: root.index.add(5, item),
        lambda: db0.touch(item),
        lambda: db0.assign(item, value=1),
        lambda: db0.delete(item),
    ):
        with pytest.raises(RuntimeError):
            attempt()
    db0.commit()
    assert state() == history[-1]
    check(past, 6)


def test_a_snapshot_object_given_to_live_data_means_the_live_one(history: list[int]) -> None:
    past = db0.snapshot(history[5])
    old, live = past.fetch(Root).items[2], db0.fetch(Root).items[2]
    root = db0.fetch(Root)
    root.chosen = old
    root.items.append(old)
    root.index.add(100, old)
    assert root.chosen is live and root.items[-1] is live and root.index.select(100).first() is live
    db0.tags(old).add("chosen")
    assert list(db0.find("chosen")) == [live]
    db0.tags(live).add(past.fetch(Root).items[1])
    assert list(db0.find(db0.as_tag(db0.fetch(Root).items[1]))) == [live]
    assert list(db0.find("even", old)) == [live] and list(past.find("even", live)) == [old]
    with pytest.raises((db0.Error, AttributeError)):
        root.copy = past.fetch(Root).items


def test_weak_references_stay_within(store: str) -> None:
    db0.open("second")
    target = Root()
    target.count = 1
    db0.open("main")
    holder = Item(target)
    db0.tags(holder).add("holder")
    db0.commit()
    past = db0.snapshot()
    target.count = 2
    db0.commit()
    assert past.find("holder")[0].value.count == 1 and holder.value.count == 2


# --- life ----------------------------------------------------------------------------------------------------------------


def test_closing(history: list[int]) -> None:
    past = db0.snapshot(history[5])
    root, query = past.fetch(Root), past.find("even")
    items = root.items
    past.close()
    past.close()
    for attempt in (
        lambda: past.fetch(Root),
        lambda: past.exists(Root),
        lambda: past.find("even"),
        lambda: past.get_state_num(),
        lambda: root.count,
        lambda: len(items),
        lambda: list(query),
        lambda: len(query),
    ):
        with pytest.raises(RuntimeError):
            attempt()
    assert "main" in past and "other" not in past
    repr(past), repr(root)


def test_it_outlives_its_prefix_but_not_the_workspace(history: list[int], store: str) -> None:
    past = db0.snapshot(history[5])
    early = past.fetch(Root)
    db0.close("main")
    check(past, 6)
    assert early.count == 6
    db0.open("main")
    db0.fetch(Root).count = 1000
    db0.commit()
    check(past, 6)
    db0.close()
    with pytest.raises(RuntimeError):
        past.fetch(Root)
    with pytest.raises(RuntimeError):
        early.count


def test_it_outlives_a_dropped_prefix(store: str) -> None:
    db0.open("doomed")
    Root().count = 5
    db0.commit()
    past = db0.snapshot()
    db0.drop("doomed")
    assert past.fetch(Root).count == 5 and not os.path.exists(os.path.join(store, "doomed.db0"))


def test_queries_and_objects_keep_it_alive(history: list[int]) -> None:
    query = db0.snapshot(history[5]).find("even")
    item = db0.snapshot(history[3]).fetch(Root).items[1]
    gc.collect()
    assert len(query) == 3 and item.value == 1


def test_a_scoped_singleton_is_opened(store: str) -> None:
    Scoped()
    db0.commit()
    db0.close("scoped-snapshots")
    past = db0.snapshot()
    assert "scoped-snapshots" not in past
    assert past.fetch(Scoped).text == "scoped" and past.exists(Scoped)


def test_frozen(history: list[int]) -> None:
    with pytest.raises(db0.Error, match="no frozen"):
        db0.snapshot(frozen=True)
    past = db0.snapshot()
    again = db0.snapshot(frozen=True)
    assert again is not past and again.get_state_num() == past.get_state_num()
    db0.fetch(Root).count = 11
    db0.commit()
    with pytest.raises(db0.Error, match="frozen"):
        db0.snapshot(frozen=True)
    with pytest.raises(TypeError):
        db0.snapshot(1, frozen=True)


def test_snapshot_of(history: list[int]) -> None:
    past = db0.snapshot(history[5])
    mine = db0.get_snapshot_of(past.fetch(Root))
    assert mine is not past and mine.get_state_num() == history[5]
    past.close()
    check(mine, 6)
    live = db0.get_snapshot_of(db0.fetch(Root))
    fresh = Item("fresh")
    assert fresh in list(live.find(Item)) and live.fetch(Root) is db0.fetch(Root)
    with pytest.raises(TypeError):
        db0.get_snapshot_of(1)


def test_inside_an_atomic_block(history: list[int]) -> None:
    root = db0.fetch(Root)
    with db0.atomic():
        root.count = 50
        with db0.snapshot() as past:
            check(past, 10)
    assert root.count == 50


def test_many_snapshots_at_once(history: list[int]) -> None:
    many = [db0.snapshot(number) for number in history * 5]
    for n, past in enumerate(many):
        assert past.fetch(Root).count == n % 10 + 1
    for past in many[::2]:
        past.close()
    check(many[1], 2)


def test_beside_a_writing_process(root: str) -> None:
    with Worker() as writer:
        writer.run(
            f"import dbzero as db0\nfrom tests.session.test_snapshots import Root\ndb0.init({root!r}, prefix='main', autocommit=False)"
        )
        writer.run("root = Root(); root.count = 1; db0.commit()")
        db0.init(root)
        db0.open("main", "r")
        past = db0.snapshot()
        writer.run("root.count = 2; db0.commit()")
        db0.refresh()
        assert past.fetch(Root).count == 1 and db0.fetch(Root).count == 2
        writer.run("db0.close()")
        assert past.fetch(Root).count == 1 and db0.snapshot().fetch(Root).count == 2


# --- change data capture ---------------------------------------------------------------------------------------------------


def test_changes(store: str) -> None:
    kept, touched, gone, same = Item("kept"), Item("touched"), Item("gone"), Item("same")
    everything = (kept, touched, gone, same)
    db0.tags(*everything).add("t")
    db0.commit()
    before = db0.snapshot()
    kept.value = "kept, changed"
    db0.touch(touched)
    db0.tags(gone).remove("t")
    fresh = Item("fresh")
    db0.tags(fresh).add("t")
    db0.commit()
    after = db0.snapshot()
    query = db0.find(Item, "t")
    assert [item.value for item in db0.select_new(query, before, after)] == ["fresh"]
    assert [item.value for item in db0.select_deleted(query, before, after)] == ["gone"]
    pairs = {(old.value, new.value) for old, new in db0.select_modified(query, before, after)}
    assert pairs == {("kept", "kept, changed"), ("touched", "touched")}
    found = db0.select_modified(query, before, after, compare_with=db0.compare)
    assert [(old.value, new.value) for old, new in found] == [("kept", "kept, changed")] and len(found) == 1
    for old, new in found:
        assert old == before.fetch(db0.uuid(kept)) and new == after.fetch(db0.uuid(kept))
    same.value = "later"
    db0.commit()
    assert len(found) == 1  # results stay
    for none in (db0.select_new(query, after, after), db0.select_deleted(query, after, after)):
        assert len(none) == 0
    assert len(db0.select_modified(query, before, before)) == 0
    assert {item.value for item in db0.select_new(query, None, before)} == {"kept", "touched", "gone", "same"}
    assert db0.select_deleted(query, None, after) == [] and db0.select_modified(query, None, after) == []
    assert {item.value for item in after.find(query, db0.no(before.find("t")))} == {"fresh"}
    assert {item.value for item in before.find(before.find("t"), db0.no(after.find("t")))} == {"gone"}
    assert set(db0.find(before.find("t"), after.find("t"))) == {kept, touched, same}


def test_changes_by_filter_slice_and_index(history: list[int]) -> None:
    pre, last = db0.snapshot(history[3]), db0.snapshot(history[8])
    index = db0.fetch(Root).index
    assert [item.value for item in db0.select_new(index.select(), pre, last)] == [8, 7, 6, 5, 4]
    big = db0.filter(lambda item: item.value > 5, db0.find(Item))
    assert [item.value for item in db0.select_new(big, pre, last)] == [8, 7, 6]
    assert [item.value for item in db0.select_new(db0.find(Item)[:2], pre, last)] == [8, 7]


def test_a_prefix_that_the_earlier_one_does_not_have(store: str) -> None:
    before = db0.snapshot()
    db0.open("later")
    item = Item(1)
    db0.tags(item).add("t")
    db0.commit()
    after = db0.snapshot()
    assert len(db0.select_new(db0.find("t"), before, after)) == 1


def test_windows(history: list[int]) -> None:
    with db0.SnapshotWindow(history[3], history[5]) as (pre, last):
        check(pre, 4)
        check(last, 6)
    with pytest.raises(RuntimeError):
        last.fetch(Root)
    with db0.SnapshotWindow(None, prefix="main") as (pre, last):
        assert pre is not None and not pre.exists(Root)
        check(last, 10)
    with db0.SnapshotWindow(1) as (pre, last):
        assert pre is None and len(db0.select_new(db0.find(Item), pre, last)) == 10


def test_compare_across_snapshots(history: list[int]) -> None:
    past, live = db0.snapshot(history[5]), db0.fetch(Root).items[2]
    old = past.fetch(db0.uuid(live))
    assert db0.compare(old, live)
    live.value = "other"
    assert not db0.compare(old, live)
    live.value = 2
    assert db0.compare(old, live, tags=["even", "odd"])
    db0.tags(live).add("fresh")
    assert not db0.compare(old, live, tags=["even", "fresh"]) and db0.compare(old, live, tags=["even"])


@pytest.mark.parametrize("name", ["select_new", "select_deleted", "select_modified"])
def test_bad_arguments(history: list[int], name: str) -> None:
    past = db0.snapshot()
    function = getattr(db0, name)
    with pytest.raises(db0.Error, match="'query'"):
        function(Item, past, past)
    with pytest.raises(db0.Error, match="snapshot"):
        function(db0.find(Item), 5, past)
    with pytest.raises(db0.Error, match="'last_snapshot'"):
        function(db0.find(Item), past, None)
    past.close()
    with pytest.raises(db0.ClosedError):
        list(function(db0.find(Item), past, past))
