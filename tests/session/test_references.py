"""Weak references, references between prefixes, expired references, weak sets, delete."""

from __future__ import annotations

import doctest
import gc
import random
from typing import Any

import pytest

import dbzero as db0
from tests.model.samples import Holder, Root
from tests.worker import Worker


def reopen(root: str, *prefixes: str) -> None:
    db0.close()
    gc.collect()
    db0.init(root, autocommit=False)
    for prefix in prefixes:
        db0.open(prefix)


def other_prefix(name: str = "other") -> None:
    """Open another prefix and make "main" the current one again."""
    db0.open(name)


def foreign(value: object = None) -> Any:
    """A new object on prefix "other", kept there by that prefix's root."""
    db0.open("other")
    made = Holder(value)
    Root().items.append(made)
    db0.open("main")
    return made


def drop_foreign() -> None:
    db0.open("other")
    Root().items.clear()
    gc.collect()
    db0.commit()
    db0.open("main")


# --- weak references of the same prefix ------------------------------------------------------------------------------


def test_a_weak_reference_reads_as_its_target(store: str) -> None:
    target, top = Holder(1), Root()
    top.weak = db0.weak_proxy(target)
    top.items.extend([db0.weak_proxy(target), 5])
    top.table = {"k": db0.weak_proxy(target), db0.weak_proxy(target): 2}
    top.group = {db0.weak_proxy(target)}
    top.pair = (db0.weak_proxy(target),)
    for step in range(2):
        assert top.weak is target and vars(top)["weak"] is target
        assert top.items[0] is target and top.items[-2] is target and top.items[:1] == [target]
        assert next(iter(top.items)) is target and target in top.items and top.items.index(target) == 0
        assert top.table["k"] is target and top.table.get("k") is target and next(iter(top.table.values())) is target
        assert list(top.table) == ["k", target] and list(top.group) == [target] and top.pair[0] is target
        assert db0.getrefcount(target) == 0
        if step == 0:
            db0.commit()
            db0.clear_cache()
    assert top.items.pop(0) is target and top.table.pop("k") is target
    assert top.table.popitem() == (target, 2) and top.group.pop() is target
    assert top.table.setdefault("n", db0.weak_proxy(target)) is target


def test_copies_stay_weak(store: str) -> None:
    targets, top = [Holder(i) for i in range(200)], Root()
    top.lists = [db0.list(map(db0.weak_proxy, targets[:n])).copy() for n in (3, 200)]
    top.dicts = [db0.dict((i, db0.weak_proxy(targets[i])) for i in range(n)).copy() for n in (3, 200)]
    top.sets = [db0.set(map(db0.weak_proxy, targets[:n])).copy() for n in (3, 200)]
    for n, group in ((3, 0), (200, 1)):
        assert top.lists[group] == targets[:n] and top.dicts[group] == dict(enumerate(targets[:n]))
        assert set(top.sets[group]) == set(targets[:n])
        for made in (top.lists[group], top.dicts[group], top.sets[group]):
            made._check()
    assert not any(db0.getrefcount(target) for target in targets)
    del targets, made
    gc.collect()
    db0.commit()
    assert all(db0.expired(value) for value in [*top.lists[1], *top.dicts[1].values(), *top.sets[1]])


def test_a_proxy_is_like_its_target(store: str) -> None:
    target = Holder([1])
    proxy = db0.weak_proxy(target)
    assert type(proxy) is db0.types.WeakProxy and proxy.value == [1]
    proxy.extra = 2
    assert target.extra == 2
    del proxy.extra
    assert not hasattr(target, "extra") and not hasattr(proxy, "extra")
    assert db0.uuid(proxy) == db0.uuid(target) and db0.uuid(target) in repr(proxy)
    assert proxy == db0.weak_proxy(db0.weak_proxy(target)) and {proxy: 1}[db0.weak_proxy(target)] == 1
    assert proxy != db0.weak_proxy(Holder()) and not db0.expired(proxy)
    holder = Holder(proxy)
    holder.again = db0.weak_proxy(holder.value)
    assert holder.again is target
    for bad in (1, None, Holder, [target], db0.list([1])):
        with pytest.raises(TypeError):
            db0.weak_proxy(bad)


def test_a_weak_reference_does_not_keep_its_target(store: str) -> None:
    """While its holder stays loaded, too: nothing of the holder's state refers to the target."""
    target, top = Holder(1), Root()
    top.weak, identity = db0.weak_proxy(target), db0.uuid(target)
    top.items.append(db0.weak_proxy(target))
    assert top.weak is target
    del target
    db0.commit()
    assert not db0.exists(identity)
    for step in range(2):
        gone = top.weak
        assert db0.expired(gone) and db0.uuid(gone) == identity and identity in repr(gone)
        assert type(gone) is db0.types.ExpiredReference and vars(top)["weak"] == gone == top.items[0]
        for use in (getattr, delattr, lambda it, name: setattr(it, name, 1), lambda it, name: getattr(it, name)()):
            with pytest.raises(db0.ReferenceError, match="expired"):
                use(gone, "value")
        top.again = gone
        assert top.again == gone
        if step == 0:
            db0.commit()
            reopen(store, "main")
            top = Root()


def test_expired(store: str) -> None:
    target = Holder()
    proxy = db0.weak_proxy(target)
    for value in (target, proxy, 1, None, "x", Holder, db0.list()):
        assert not db0.expired(value)
    db0.delete(target)
    assert db0.expired(target) and db0.expired(proxy)
    with pytest.raises(db0.ReferenceError):
        proxy.value
    with pytest.raises(db0.ReferenceError):
        db0.weak_proxy(target)


# --- references between prefixes -------------------------------------------------------------------------------------


def test_a_foreign_object_is_referred_to_weakly(store: str) -> None:
    target, top = foreign("f"), Root()
    assert db0.get_prefix_of(target).name == "other" and db0.get_prefix_of(top).name == "main"
    top.attribute = target
    top.items = [target, [target, {"k": target}], (target,)]
    top.group, top.table = {target}, {target: target}
    for step in range(2):
        assert top.attribute is target and top.items[0] is target and top.items[1][1]["k"] is target
        assert top.items[2][0] is target and target in top.items and target in top.group and target in top.table
        assert top.table[target] is target and list(top.table.items()) == [(target, target)]
        assert db0.getrefcount(target) == 1
        if step == 0:
            db0.commit()
            db0.clear_cache()
    top.group.add(target)
    assert len(top.group) == 1
    top.group.remove(target)
    assert not top.group
    drop_foreign()
    assert top.attribute is target  # Python holds it
    identity = db0.uuid(target)
    del target
    db0.open("other")
    Root().items.append(1)
    db0.commit()
    assert not db0.exists(identity)
    assert db0.expired(top.attribute) and db0.expired(top.items[1][1]["k"]) and db0.expired(next(iter(top.table)))


def test_a_closed_prefix_is_named_and_opening_it_heals(store: str) -> None:
    target, top = foreign("f"), Root()
    identity = db0.uuid(target)
    top.attribute, top.items, top.table, top.group = target, [1, target], {"k": target}, {target}
    top.weak = db0.weak_set([target, top])
    top.keep = 5
    del target
    reopen(store, "main")
    top = Root()
    assert top.keep == 5 and top.items[0] == 1 and len(top.items) == 2 and len(top.group) == 1
    for read in (
        lambda: top.attribute,
        lambda: top.items[1],
        lambda: repr(top.items),
        lambda: list(top.items),
        lambda: top.items[:],
        lambda: top.table["k"],
        lambda: top.table.get("k"),
        lambda: list(top.table.values()),
        lambda: list(top.group),
        lambda: vars(top),
        lambda: len(top.weak),
        lambda: list(top.weak),
    ):
        with pytest.raises(db0.PrefixError, match="Prefix:"):
            read()
    top.keep = 6
    db0.commit()
    db0.open("other", "r")
    target = db0.fetch(identity)
    assert top.attribute is target and list(top.items) == [1, target] and top.table["k"] is target
    assert list(top.group) == [target] and set(top.weak) == {target, top} and target in top.weak
    db0.close("other")
    with pytest.raises(db0.PrefixError, match="Prefix:"):
        top.attribute
    db0.open("other")
    assert top.attribute is db0.fetch(identity) and top.attribute is not target


def test_another_process_reads_across_prefixes(store: str) -> None:
    target, top = foreign("f"), Root()
    top.attribute = target
    db0.commit()
    with Worker(root=store) as other:
        other.run(
            """
            import dbzero as db0
            from tests.model.samples import Root
            db0.init(root)
            db0.open("main", "r")
            top = Root()
            try:
                top.attribute
            except db0.PrefixError as error:
                result = "Prefix:" in str(error)
            """
        )
        assert other.run('db0.open("other", "r"); result = top.attribute.value') == "f"
        target.value = "g"
        db0.commit()
        assert other.run("db0.refresh(); result = top.attribute.value") == "g"
        del target
        drop_foreign()
        assert other.run("db0.refresh(); result = db0.expired(top.attribute)") is True


def test_collections_move_only_when_empty(store: str) -> None:
    db0.open("other")
    full: list[Any] = [db0.list([1]), db0.dict(a=1), db0.set([1])]
    empty: list[Any] = [db0.list(), db0.dict(), db0.set(), db0.weak_set()]
    pair = db0.tuple([1, 2])
    root = Root()
    members = db0.weak_set([root])
    db0.open("main")
    top = Root()
    for collection in full:
        with pytest.raises(AttributeError):
            top.value = collection
        with pytest.raises(db0.BadPrefixError):
            top.items.append(collection)
    assert not hasattr(top, "value") and len(top.items) == 0
    for collection in empty:
        top.value = collection
        assert db0.get_prefix_of(top.value).name == "main" and type(top.value) is type(collection)
    top.value = members
    assert top.value is members and list(members) == [root] and db0.get_prefix_of(members).name == "main"
    top.value = pair
    assert top.value == (1, 2) and db0.get_prefix_of(top.value).name == "main"
    top.value = full[0][:]
    assert top.value == [1]


def test_an_unfinished_foreign_object_is_refused(store: str) -> None:
    db0.open("other")
    db0.open("main")
    top, seen = Root(), []

    @db0.memo(prefix="other", id="tests/references/Early")
    class Early:
        def __init__(self) -> None:
            try:
                top.value = self
            except RuntimeError as error:
                seen.append(error)
            top.items.append(db0.materialized(self))

    made = Early()
    assert "materialized" in str(seen[0]) and not hasattr(top, "value") and top.items[0] is made


# --- weak sets -------------------------------------------------------------------------------------------------------


def test_weak_set(store: str) -> None:
    a, b, far = Holder("a"), Holder("b"), foreign("far")
    members = db0.weak_set([a, a, far])
    assert type(members) is db0.types.WeakSet
    assert len(members) == 2 and set(members) == {a, far} and a in members and b not in members
    assert 1 not in members and Holder not in members
    members.add(b)
    members.add(db0.weak_proxy(b))
    assert len(members) == 3 and db0.getrefcount(b) == 0
    members.remove(b)
    for missing in (b, 1):
        with pytest.raises(KeyError):
            members.remove(missing)
        members.discard(missing)
    members.discard(far)
    assert set(members) == {a} and repr(members) == f"weak_set({{{a!r}}})"
    twin = members.copy()
    assert twin is not members and set(twin) == {a} and twin != members and hash(twin) != hash(members)
    members.clear()
    assert not members and len(twin) == 1 and repr(members) == "weak_set({})"
    for bad in (1, [a], "x", Holder, db0.list()):
        with pytest.raises(RuntimeError, match="only accepts memo"):
            members.add(bad)
        with pytest.raises(RuntimeError):
            db0.weak_set([bad])
    with pytest.raises(TypeError):
        db0.weak_set(5)  # type: ignore[arg-type]
    for name in ("pop", "update", "__or__"):
        assert not hasattr(members, name)


def test_a_weak_set_survives_and_shrinks(store: str) -> None:
    top = Root()
    kept = [Holder(i) for i in range(300)]
    top.items = kept[::2]
    top.members = db0.weak_set(kept)
    assert len(top.members) == 300
    del kept
    gc.collect()
    db0.commit()
    assert len(top.members) == 150 and {member.value for member in top.members} == set(range(0, 300, 2))
    top.members._check()
    del top
    reopen(store, "main")
    top = Root()
    assert len(top.members) == 150 and all(item in top.members for item in top.items)
    assert db0.getrefcount(top.items[0]) == 1
    top.items = []
    db0.commit()
    assert len(top.members) == 0 and list(top.members) == [] and not top.members


# --- delete ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("committed", [False, True])
def test_delete(store: str, committed: bool) -> None:
    target = Holder([1, Holder("inner")])
    kept = Holder("kept")
    target.kept = kept
    inner, identity, kept_id = db0.uuid(target.value[1]), db0.uuid(target), db0.uuid(kept)
    if committed:
        db0.commit()
    gc.collect()
    db0.delete(target)
    assert not db0.exists(identity) and not db0.exists(inner) and db0.exists(kept_id)
    with pytest.raises(db0.ReferenceError, match="Memo instance expired"):
        target.value
    with pytest.raises(AttributeError):
        target.value = 1
    for use in (db0.uuid, db0.delete, db0.getrefcount, Root().items.append, db0.fetch):
        with pytest.raises(RuntimeError):
            use(identity if use is db0.fetch else target)
    assert target == target and repr(target) and kept.value == "kept" and db0.getrefcount(kept) == 0
    db0.commit()
    assert not db0.exists(identity) and not db0.exists(inner)
    del target
    reopen(store, "main")
    assert not db0.exists(identity) and not db0.exists(inner)


def test_what_is_referred_to_cannot_be_deleted(store: str) -> None:
    top, target = Root(), Holder(1)
    other = Holder(target)
    items = db0.list([1])
    for committed in (False, True):
        top.items = [target, items]
        if committed:
            db0.commit()
        for bad in (target, items):
            with pytest.raises(RuntimeError, match="Cannot delete a memo object with references"):
                db0.delete(bad)
        assert target.value == 1 and items == [1]
    top.items.clear()
    with pytest.raises(RuntimeError, match="with references"):
        db0.delete(target)
    db0.delete(other)
    db0.delete(items)
    assert items == [1]
    db0.delete(db0.weak_proxy(target))
    assert db0.expired(target)
    for ignored in (1, None, "x", Holder, [target]):
        db0.delete(ignored)


def test_a_singleton_can_be_deleted(store: str) -> None:
    top = Root()
    top.items.append(Holder(1))
    identity, member = db0.uuid(top), db0.uuid(top.items[0])
    db0.commit()
    gc.collect()
    db0.delete(top)
    assert not db0.exists(Root) and not db0.exists(identity) and not db0.exists(member)
    again = Root()
    assert again is not top and db0.exists(Root) and len(again.items) == 0
    db0.commit()
    held = Holder(again)
    with pytest.raises(RuntimeError, match="with references"):
        db0.delete(again)
    held.value = None
    db0.delete(again)
    db0.commit()
    assert not db0.exists(Root) and not db0.exists(identity)


def test_delete_needs_a_writable_finished_object(store: str) -> None:
    top = Root()
    with pytest.raises(RuntimeError):
        type("X", (), {"f": staticmethod(lambda: db0.delete(Unfinished()))}).f()
    db0.close()
    with pytest.raises(RuntimeError):
        db0.delete(top)
    reopen(store)
    db0.open("main", "r")
    top = Root()
    with pytest.raises(db0.ReadOnlyError):
        db0.delete(top)
    assert top.items == []


@db0.memo(id="tests/references/Unfinished")
class Unfinished:
    def __init__(self) -> None:
        db0.delete(self)


@pytest.mark.parametrize("name", ["delete", "weak_proxy", "expired", "weak_set"])
def test_examples_run(name: str) -> None:
    found = [test for test in doctest.DocTestFinder().find(getattr(db0, name), globs={}) if test.examples]
    assert found
    for test in found:
        assert doctest.DocTestRunner().run(test).failed == 0


def test_deep_deletion(store: str) -> None:
    chain: Any = None
    for _ in range(5000):
        chain = Holder(chain)
    db0.commit()
    last = db0.uuid(chain.value)
    db0.delete(chain)
    assert not db0.exists(last)
    before = db0.get_state_num(finalized=True)
    db0.commit()
    assert db0.get_state_num(finalized=True) == before + 1


def test_random_programs_agree_with_a_model(store: str) -> None:
    """Attributes, elements, weak references, deletion and commits over two prefixes, against plain Python."""
    rng = random.Random(5)
    db0.open("other")
    tops = {"other": Root()}
    db0.open("main")
    tops["main"] = Root()
    strong: dict[str, dict[str, str]] = {"main": {}, "other": {}}  # prefix -> slot -> uuid
    weak: dict[str, dict[str, str]] = {"main": {}, "other": {}}
    alive: set[str] = set()
    for step in range(1500):
        name = rng.choice(["main", "other"])
        slot = str(rng.randrange(6))
        act = rng.randrange(6)
        if act == 0:
            db0.open(name)
            made = Holder(step)
            setattr(tops[name], "s" + slot, made)
            strong[name][slot] = db0.uuid(made)
            alive.add(db0.uuid(made))
            del made
        elif act == 1 and slot in strong[name]:
            setattr(tops[name], "s" + slot, None)
            del strong[name][slot]
        elif act == 2:
            source = rng.choice(["main", "other"])
            if slot in strong[source]:
                target = getattr(tops[source], "s" + slot)
                setattr(tops[name], "w" + slot, db0.weak_proxy(target) if source == name else target)
                weak[name][slot] = strong[source][slot]
                del target
        elif act == 3:
            db0.commit()
            held = {identity for slots in strong.values() for identity in slots.values()}
            alive &= held
            for prefix, slots in weak.items():
                for number, identity in slots.items():
                    read = getattr(tops[prefix], "w" + number)
                    assert db0.expired(read) == (identity not in alive) and db0.uuid(read) == identity
                    del read
        elif act == 4:
            db0.clear_cache()
        elif slot in strong[name]:
            target = getattr(tops[name], "s" + slot)
            setattr(tops[name], "s" + slot, None)
            db0.delete(target)
            alive.discard(strong[name].pop(slot))
            del target
            if slot in weak[name] and weak[name][slot] not in alive:
                assert db0.expired(getattr(tops[name], "w" + slot))


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_what_only_a_dropped_new_object_held_goes_with_it(store: str, depth: int) -> None:
    kept = Holder()
    value: Any = kept
    for _ in range(depth):
        value = [{"x": value}]
    dropped = Holder()
    dropped.value = value
    del dropped, value
    gc.collect()
    state = db0.get_state_num()
    db0.commit()
    assert db0.getrefcount(kept) == 0
    assert db0.get_state_num() == state + 1
    db0.commit()
    assert db0.get_state_num() == state + 1
