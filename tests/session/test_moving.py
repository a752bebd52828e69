"""Collections that go to another prefix, and constructions that fail after a commit has written them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

import dbzero as db0
from dbzero.model.base import dirty_objects


@db0.memo(id="tests/moving/Holder")
class Holder:
    def __init__(self, **fields: Any) -> None:
        for name, value in fields.items():
            setattr(self, name, value)


EMPTY: dict[str, Callable[[], Any]] = {
    "list": db0.list,
    "tuple": db0.tuple,
    "dict": db0.dict,
    "set": db0.set,
    "bytearray": db0.bytearray,
    "index": db0.index,
    "weak_set": db0.weak_set,
}


def there(**fields: Any) -> Any:
    """An object on the prefix "there"; "main" is current again."""
    db0.open("there")
    made = Holder(**fields)
    db0.open("main")
    return made


def place(obj: Any) -> str:
    return db0.get_prefix_of(obj).name


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("kind", EMPTY)
def test_an_empty_collection_moves(store: str, kind: str, committed: bool) -> None:
    holder, made = there(), EMPTY[kind]()
    if committed:
        db0.commit()
    holder.value = made
    assert holder.value is made
    assert place(made) == "there"
    db0.commit()
    del made
    gc.collect()
    db0.clear_cache()
    assert place(holder.value) == "there" and len(holder.value) == 0


def test_a_moved_collection_is_shared(store: str) -> None:
    holder, one, two, index = there(), db0.list(), db0.dict(), db0.index()
    holder.one, holder.nested, holder.index = one, [two], index
    one.append(1)
    two["x"] = one
    index.add(5, holder)
    db0.commit()
    db0.close()
    db0.init(store, autocommit=False)
    db0.open("there")
    db0.open("main")


def test_what_was_moved_is_there_after_reopening(store: str) -> None:
    @db0.memo(id="tests/moving/Root", singleton=True, prefix="there")
    class Root:
        def __init__(self) -> None:
            self.items = db0.list()  # made on the current prefix
            self.items.append(7)

    items = Root().items
    assert place(items) == "there"
    db0.close()
    db0.init(store, autocommit=False)
    assert list(db0.fetch(Root).items) == [7]


def test_a_tuple_moves_with_its_items(store: str) -> None:
    inner = db0.list([2, (3, {4})])
    made = db0.tuple([1, "x", inner, {"k": [5]}])
    holder = there()
    holder.value = made
    assert holder.value is made and place(made) == "there"
    assert made == (1, "x", [2, (3, {4})], {"k": [5]})
    assert made[2] is not inner and place(made[2]) == "there" and place(inner) == "main"
    db0.commit()
    db0.clear_cache()
    assert holder.value == (1, "x", [2, (3, {4})], {"k": [5]})


def test_a_bytearray_and_a_weak_set_move_with_their_content(store: str) -> None:
    member = Holder()
    content, members, holder = db0.bytearray(b"abc" * 5000), db0.weak_set([member]), there()
    holder.content, holder.members = content, members
    content.append(33)
    assert holder.content is content and bytes(content) == b"abc" * 5000 + b"!"
    assert holder.members is members and list(members) == [member]


@pytest.mark.parametrize("content", [[1], {"a": 1}, {1}])
def test_what_has_items_stays(store: str, content: Any) -> None:
    made = getattr(db0, type(content).__name__)(content)
    holder = there()
    with pytest.raises(AttributeError, match="cannot be moved to another prefix"):
        holder.value = made
    with pytest.raises(RuntimeError, match="cannot be moved to another prefix"):
        holder.value = [made]
    assert not hasattr(holder, "value") and made == content and place(made) == "main"


@pytest.mark.parametrize("kind", EMPTY)
@pytest.mark.parametrize("committed", [False, True])
def test_what_is_stored_stays(store: str, kind: str, committed: bool) -> None:
    made = EMPTY[kind]()
    owner = Holder(value=made)
    if committed:
        db0.commit()
    holder = there()
    if kind == "tuple":  # nobody can tell a copy from it
        holder.value = made
        assert holder.value is not made
    else:
        with pytest.raises(db0.BadPrefixError, match="is stored there"):
            holder.value = made
    assert owner.value is made and place(made) == "main"
    db0.commit()


def test_what_is_no_longer_stored_moves(store: str) -> None:
    made = db0.list()
    owner = Holder(value=made)
    db0.commit()
    owner.value = None
    holder = there()
    holder.value = made
    assert holder.value is made and place(made) == "there"


def test_a_constructor_that_kept_what_moved_fails(store: str) -> None:
    holder = there()

    @db0.memo(id="tests/moving/Greedy")
    class Greedy:
        def __init__(self) -> None:
            self.mine = db0.list()
            holder.mine = self.mine

    with pytest.raises(db0.BadPrefixError):
        Greedy()
    assert place(holder.mine) == "there"
    db0.commit()


def test_an_index_follows_its_first_object(store: str) -> None:
    first, second = there(), Holder()
    index = db0.index()
    index.add(1, first)
    assert place(index) == "there" and list(index) == [(1, first)]
    with pytest.raises(db0.BadPrefixError):
        index.add(2, second)
    holder = there(index=index)
    assert holder.index is index


def test_moving_in_and_out_many_times(store: str) -> None:
    holders = [there(), Holder()]
    made = db0.list()
    for i in range(20):
        holder = holders[i % 2]
        holder.value = made
        assert place(made) == ("there", "main")[i % 2]
        if i % 3 == 0:
            db0.commit()
        holder.value = None
    made.append(1)
    holders[1].value = made
    db0.commit()
    assert list(holders[1].value) == [1]


def test_only_changed_objects_are_dirty(store: str) -> None:
    made, holder = db0.list(), there()
    holder.value = made
    assert made in dirty_objects(made._p_view)


# --- a commit inside __init__ ---------------------------------------------------------------------------------------------


@db0.memo(id="tests/moving/Failing")
class Failing:
    def __init__(self, child: Any, keep: Any, commits: int) -> None:
        self.child = child
        keep.append(db0.materialized(self))
        for i in range(commits):
            keep.append(i)
            db0.commit()
        raise ValueError("on purpose")


@pytest.mark.parametrize("commits", [0, 1, 3])
@pytest.mark.parametrize("forget", [False, True])
def test_a_committed_half_built_object_goes(store: str, commits: int, forget: bool) -> None:
    child, keep = Holder(), db0.list()
    owner = Holder(keep=keep)
    with pytest.raises(ValueError):
        Failing(child, keep, commits)
    assert db0.getrefcount(child) == 0
    with pytest.raises(db0.ReferenceError):
        print(keep[0].child)
    identity = db0.uuid(child)
    del child
    db0.commit()
    if forget:
        del keep
        db0.clear_cache()
        gc.collect()
    with pytest.raises(db0.ReferenceError):
        print(owner.keep[0].child)
    gc.collect()
    db0.commit()
    assert not db0.exists(identity)


def test_a_holder_that_was_evicted_is_found(store: str) -> None:
    child, owner = Holder(), Holder(keep=[])

    @db0.memo(id="tests/moving/Evicting")
    class Evicting:
        def __init__(self) -> None:
            self.child = child
            owner.keep.append(db0.materialized(self))
            db0.commit()
            db0.clear_cache()
            gc.collect()
            raise ValueError("on purpose")

    with pytest.raises(ValueError):
        Evicting()
    assert db0.getrefcount(child) == 0
    db0.commit()
    assert len(owner.keep) == 1
    with pytest.raises(db0.ReferenceError):
        print(owner.keep[0].child)


def test_in_a_block_a_counterpart_is_stored(store: str) -> None:
    holder, made = there(), db0.list()
    with db0.atomic():
        holder.value = made
        assert place(holder.value) == "there"
        holder.value.append(1)
    assert holder.value == [1] and place(made) == "main"
    with pytest.raises(KeyError), db0.atomic():
        holder.value = db0.list()
        raise KeyError
    assert holder.value == [1]
    db0.commit()
