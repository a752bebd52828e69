"""What is set in a large dict or added to a large set before its trees have it: seen at once, there after a commit, and
by every other method, in the order of setting."""

from __future__ import annotations

import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from dbzero.collections import Dict, List, Set, make_dict, make_list, make_set
from tests.collections.harness import Bench, small_nodes

SLOTS = st.integers(0, 60)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), SLOTS, st.integers()),
        st.tuples(st.just("many"), SLOTS, st.integers(0, 40)),
        st.tuples(st.sampled_from(["del", "get", "add", "drop", "in"]), SLOTS, st.just(0)),
        st.tuples(st.sampled_from(["len", "items", "last", "commit", "evict", "reopen"]), st.just(0), st.just(0)),
    ),
    max_size=60,
)


def key_of(slot: int) -> object:
    """Ints that share hashes, strs, tuples."""
    return (
        [slot % 2 + slot // 6 * (2**61 - 1), f"key {slot}", (slot, "x")][slot // 2 % 3]
        if slot % 5
        else -slot * (1 << 40)
    )


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_like_builtins(steps):
    bench = Bench()
    bench.use()
    with small_nodes(4, 3):
        made, group = make_dict({i: i for i in range(9)}), make_set(range(9))
        plain, members = {i: i for i in range(9)}, set(range(9))
        for what, slot, value in steps:
            key = key_of(slot)
            if what == "set":
                made[key] = plain[key] = value
            elif what == "many":
                for other in range(slot, slot + value):
                    made[key_of(other)] = plain[key_of(other)] = other
                    group.add(key_of(other))
                    members.add(key_of(other))
            elif what == "del":
                assert made.pop(key, "none") == plain.pop(key, "none")
            elif what == "get":
                assert made.get(key) == plain.get(key) and (key in made) == (key in plain)
            elif what == "add":
                group.add(key)
                members.add(key)
            elif what == "drop":
                group.discard(key)
                members.discard(key)
            elif what == "in":
                assert (key in group) == (key in members)
            elif what == "len":
                assert len(made) == len(plain) and len(group) == len(members)
            elif what == "items":
                assert list(made.items()) == list(plain.items()) and set(group) == members
            elif what == "last" and plain:
                assert made.popitem() == plain.popitem()
            elif what == "commit":
                bench.commit()
            elif what == "evict":
                bench.commit()
                bench.evict()
            elif what == "reopen":
                made = bench.reopen(Dict, made._p_oid)
                group = bench.view.ghost(Set, group._p_oid)
        made._check()
        group._check()
        assert list(made.items()) == list(plain.items()) and group == members


def test_what_is_pending_is_dropped_with_the_changes(bench, tiny):
    made, group = make_dict({i: i for i in range(50)}), make_set(range(50))
    bench.commit()
    made[50] = 1
    made[0] = 7
    group.add(50)
    group.add(51)
    assert made._data.pending == {50: 1, 0: 7} and group._data.pending == {50, 51}
    bench.view.discard_buffers()
    assert 50 not in made and made[0] == 0 and 50 not in group
    assert len(made) == len(group) == 50


def test_adding_what_is_there_keeps_a_set_clean(bench, tiny):
    group = make_set(range(50))
    bench.commit()
    group.add(7)
    group.update(range(50))
    assert not bench.view.dirty_count


def test_a_run_of_changes_writes_each_leaf_once(bench):
    made = make_dict({i: i for i in range(5000)})
    bench.commit()
    before = len(bench.commit())
    for i in range(5000):
        made[i] = -i
    assert len(bench.commit()) - before <= 5000 // 128 + 2  # the leaves of entries and the dict: no node of the index
    assert made[77] == -77


def test_uneven_lists_are_read_like_builtins(bench):
    made, plain = make_list(range(3000)), list(range(3000))
    for step in range(0, 3000, 61):
        made.insert(step, -step)
        plain.insert(step, -step)
    del made[100:700], plain[100:700]
    made[200:210] = plain[200:210] = list(range(900))
    del made[::3], plain[::3]
    del made[5], plain[5]
    made[50] = plain[50] = "here"
    assert not made._data.full
    assert [made[i] for i in range(-len(plain), len(plain))] == [plain[i] for i in range(-len(plain), len(plain))]
    made._check()
    made = bench.reopen(List, made._p_oid)
    assert list(made) == plain and [made[i] for i in range(len(plain))] == plain


def test_many_threads_set_and_read(bench):
    made, group, shared = make_dict(), make_set(), make_list()
    failures = []

    def work(number):
        try:
            for i in range(2000):
                made[number, i] = i
                made[f"{number} {i}"] = i
                group.add(number * 10_000 + i)
                shared.append(i)
                assert made[f"{number} {i}"] == i and number * 10_000 + i in group and shared[-1] is not None
                if i % 500 == 0:
                    assert len(made) >= 2 * i
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(made) == 16_000 and len(group) == len(shared) == 8000
    for collection in (made, group, shared):
        collection._check()
    assert sorted(shared) == sorted(list(range(2000)) * 4)


def test_a_copy_of_a_state_stays_as_it_was(bench, tiny):
    numbers, table, group = make_list(range(99)), make_dict({i: i for i in range(99)}), make_set(range(99))
    bench.commit()
    table[7] = numbers[3] = "new"
    table[100] = 100
    group.add(100)
    states = [made._data for made in (numbers, table, group)]
    states += [numbers._data.tree._data, table._data.index._data, table._data.last or table._data.entries._data]
    for state in states:
        if not hasattr(state, "copy"):
            continue
        made = state.copy()
        assert type(made) is type(state) and made is not state
        for name in dir(state):
            value, copied = getattr(state, name), getattr(made, name)
            if name == "front":
                assert not copied
            elif not name.startswith("_") and not callable(value):
                assert copied == value
                assert copied is not value or type(value) not in (list, dict, set)
