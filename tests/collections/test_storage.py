"""What collections cost and how they meet damage: nodes touched per operation, memory, corrupt records."""

from __future__ import annotations

import gc
import random
from functools import partial

import pytest

from dbzero.collections import Dict, List, Set, Tuple, make_dict, make_list, make_set, make_tuple
from dbzero.errors import CorruptError, Error
from dbzero.model.base import GHOST

SIZES = (10_000, 100_000)


def fresh(bench, obj):
    """The same object in a new view, nothing loaded; and counters at zero."""
    found = bench.reopen(type(obj), obj._p_oid)
    bench.use()
    bench.records.reads = 0
    return found


def touched(bench, act):
    """(records read, records written) by `act` and a commit."""
    bench.records.reads = 0
    act()
    return bench.records.reads, len(bench.commit())


@pytest.mark.parametrize(
    "act",
    [
        lambda made: made[len(made) // 3],
        lambda made: made.append(1),
        lambda made: made.__setitem__(len(made) // 3, 1),
        lambda made: made.insert(len(made) // 3, 1),
        lambda made: made.pop(len(made) // 3),
        lambda made: made.pop(),
        lambda made: made[500:510],
    ],
)
def test_list_cost_does_not_grow(bench, act):
    costs = []
    for n in SIZES:
        made = fresh(bench, make_list(range(n)))
        costs.append(touched(bench, partial(act, made)))
    small, large = costs
    assert large[0] <= small[0] + 2 and large[1] <= small[1] + 2
    assert large[0] <= 6 and large[1] <= 6


@pytest.mark.parametrize(
    "act",
    [
        lambda made, n: made[n // 3],
        lambda made, n: made.get("missing"),
        lambda made, n: made.__setitem__(n // 3, 0),
        lambda made, n: made.__setitem__("new", 0),
        lambda made, n: made.pop(n // 3),
        lambda made, n: made.popitem(),
        lambda made, n: next(iter(made.items())),
    ],
)
def test_dict_cost_does_not_grow(bench, act):
    costs = []
    for n in SIZES:
        made = fresh(bench, make_dict({i: i for i in range(n)}))
        costs.append(touched(bench, partial(act, made, n)))
    small, large = costs
    assert large[0] <= small[0] + 2 and large[1] <= small[1] + 1
    assert large[0] <= 10 and large[1] <= 5


@pytest.mark.parametrize(
    "act",
    [
        lambda made, n: n // 3 in made,
        lambda made, n: made.add("new"),
        lambda made, n: made.remove(n // 3),
        lambda made, n: made.pop(),
        lambda made, n: next(iter(made)),
    ],
)
def test_set_cost_does_not_grow(bench, act):
    costs = []
    for n in SIZES:
        made = fresh(bench, make_set(range(n)))
        costs.append(touched(bench, partial(act, made, n)))
    small, large = costs
    assert large[0] <= small[0] + 1 and large[1] <= small[1] + 1
    assert large[0] <= 5 and large[1] <= 4


def test_changing_an_entry_writes_one_leaf(bench):
    mapping = fresh(bench, make_dict({i: i for i in range(5000)}))
    assert touched(bench, lambda: mapping.__setitem__(77, 1))[1] == 2  # the small root, the leaf
    numbers = fresh(bench, make_list(range(5000)))
    assert touched(bench, lambda: numbers.__setitem__(77, 1))[1] == 1
    assert touched(bench, lambda: numbers.append(1))[1] == 1


def test_records_are_bounded(bench):
    made = make_list([make_list(range(20_000)), {i: i for i in range(20_000)}, set(range(20_000))])
    bench.commit()
    assert made
    assert max(map(len, bench.records.payloads.values())) < 4096


def test_random_changes_keep_leaves_filled(bench):
    rng = random.Random(1)
    numbers, mapping, group = make_list(), make_dict(), make_set()
    for i in range(20_000):
        numbers.insert(rng.randrange(len(numbers) + 1), i)
        mapping[rng.random()] = i
        group.add(rng.random())
    for made in (numbers, mapping, group):
        made._check()
    for _ in range(15_000):
        numbers.pop(rng.randrange(len(numbers)))
        mapping.popitem()
        group.pop()
    for made in (numbers, mapping, group):
        made._check()
    bench.reopen(List, numbers._p_oid)
    del made
    before = len(bench.records.payloads)
    keep = [make_list(list(numbers)), make_dict(dict(mapping)), make_set(set(group))]
    fresh_nodes = len(bench.commit())
    assert keep
    live = set()
    for root in (numbers, mapping, group):
        stack = [root]
        while stack:
            node = stack.pop()
            live.add(node._p_oid)
            _, refs = node._p_encode()
            stack += [node._p_view.peek(oid) or node._p_view.get(oid) for oid in refs]
    assert before >= len(live)
    assert len(live) < 4 * fresh_nodes


@pytest.mark.parametrize("kind", ["list", "tuple", "dict", "set"])
def test_traversal_in_bounded_memory(bench, kind):
    n = 50_000
    make = {
        "list": make_list,
        "tuple": make_tuple,
        "dict": lambda keys: make_dict(dict.fromkeys(keys)),
        "set": make_set,
    }[kind]
    made = fresh(bench, make(range(n)))
    view = bench.view
    view.limit = 150_000
    most = count = 0
    for value in made:
        count += 1
        most = max(most, view.weight)
        if kind != "set":
            assert value == count - 1
    assert count == n
    assert most < 2 * view.limit
    rng = random.Random(2)
    for _ in range(2000):
        key = rng.randrange(n)
        assert made[key] == key if kind in ("list", "tuple") else key in made
        assert view.weight < 2 * view.limit
    made._check()


def test_evicted_nodes_leave_no_wrappers(bench):
    made = make_list(range(50_000))
    mapping = make_dict({i: i for i in range(50_000)})
    bench.commit()
    assert bench.view.live_count > 1000
    bench.evict()
    gc.collect()
    assert bench.view.live_count < 10
    assert made[40_000] == mapping[40_000] == 40_000


def test_state_follows_the_records(bench, tiny):
    """What another process wrote is seen once the changed objects are invalidated: fronts don't survive that."""
    numbers, mapping, group = make_list(range(200)), make_dict({i: i for i in range(200)}), make_set(range(200))
    bench.commit()
    other = type(bench)("test", 7)
    other.records = bench.records
    other.open()
    theirs = [other.view.ghost(type(made), made._p_oid) for made in (numbers, mapping, group)]
    for i in range(200):
        assert theirs[0][i] == theirs[1][i] == i and i in theirs[2]
    running = [iter(made) for made in theirs]
    assert [next(walk) for walk in running[:2]] == [0, 0]
    numbers[100] = "x"
    mapping[100] = "x"
    mapping.pop(150)
    group.remove(100)
    group.add("x")
    other.view.invalidate(bench.commit())
    assert theirs[0][100] == theirs[1][100] == "x"
    assert 100 not in theirs[2] and "x" in theirs[2]
    assert 150 not in theirs[1] and theirs[1].get(150) is None
    assert list(running[0])[99] == "x"
    assert len(list(running[1])) == 198
    assert set(running[2]) <= set(range(200)) | {"x"}
    for mine, their in zip((numbers, mapping, group), theirs, strict=True):
        assert mine == their
        their._check()


def everything():
    made = make_list(
        [
            [1, "a", None],
            (1, (2, 3)),
            {1: "a", (1, 2): [3]},
            {1, (2, 3), "x"},
            list(range(60)),
            {i: i for i in range(60)},
            set(range(60)),
            tuple(range(60)),
        ]
    )
    made[4].pop(3)
    return made


def walk(bench, oid):
    bench.open()
    bench.use()
    root = bench.view.ghost(List, oid)
    for part in root:
        list(part)
        if isinstance(part, Dict):
            list(part.items())
            for key in range(-1, 60):
                part.get(key)
        elif isinstance(part, (List, Tuple)):
            for i in range(len(part)):
                part[i]
        elif isinstance(part, Set):
            for key in range(-1, 60):
                part.isdisjoint([key])
        repr(part)


def test_damaged_records_raise_typed_errors(bench, tiny):
    root = everything()
    bench.commit()
    oid = root._p_oid
    good = dict(bench.records.payloads)
    rng = random.Random(3)
    failures = 0
    for victim, payload in good.items():
        broken = [payload[:n] for n in range(min(len(payload), 6))]
        broken += [
            payload + b"\0",
            payload[:1] + b"\x90",
            payload[:1] + b"\xc1",
            b"\x08" + payload[1:],
            b"\x0b" + payload[1:],
        ]
        for _ in range(25):
            at = rng.randrange(len(payload))
            broken.append(payload[:at] + bytes([rng.randrange(256)]) + payload[at + 1 :])
        for damaged in broken:
            bench.records.payloads = {**good, victim: damaged}
            try:
                walk(bench, oid)
            except Error:
                failures += 1
    assert failures > len(good) * 5
    bench.records.payloads = good
    walk(bench, oid)


def test_records_of_the_wrong_kind(bench, tiny):
    numbers, mapping = make_list(range(100)), make_dict({i: i for i in range(100)})
    bench.commit()
    for made in (numbers, mapping):
        _, refs = made._p_encode()
        other = (mapping if made is numbers else numbers)._p_oid
        for oid in refs:
            saved = bench.records.payloads[oid]
            bench.records.payloads[oid] = bench.records.payloads[other]
            bench.open()
            found = bench.view.ghost(type(made), made._p_oid)
            with pytest.raises(CorruptError, match=f"object {oid}.*damaged"):
                list(found)
                found[5]
            bench.records.payloads[oid] = saved


def test_a_cycle_of_nodes_is_an_error(bench, tiny):
    made = make_list(range(1000))
    bench.commit()
    root = made._p_encode()[1][0]
    node = bench.view.peek(root)
    child = node._data.children[0]
    with _swapped(bench, child, node):
        found = bench.view.ghost(List, made._p_oid)
        with pytest.raises(CorruptError):
            found[0]


class _swapped:
    """A child's record is replaced by one of a node that has that child below it."""

    def __init__(self, bench, child, node):
        self.bench, self.child, self.node = bench, child, node

    def __enter__(self):
        payloads = self.bench.records.payloads
        self.saved = payloads[self.child._p_oid]
        payloads[self.child._p_oid] = payloads[self.node._p_oid]
        self.bench.open()

    def __exit__(self, *error):
        self.bench.records.payloads[self.child._p_oid] = self.saved


def test_ghosts_cost_nothing_until_touched(bench):
    made = make_list([make_list([i]) for i in range(100)])
    again = fresh(bench, made)
    assert len(again) == 100
    assert bench.records.reads == 1
    children = list(again)
    assert all(child._p_flags & GHOST for child in children)
    assert children[7] == [7]
    assert bench.records.reads == 2


CHANGES = [
    lambda made: made.append("new"),
    lambda made: made.insert(70, "new"),
    lambda made: made.__setitem__(50, "new"),
    lambda made: made.pop(50),
    lambda made: made.pop(),
    lambda made: made.remove(60),
    lambda made: made.__delitem__(slice(10, 40)),
    lambda made: made.__setitem__(slice(30, 35), [1]),
    lambda made: made.extend([1, 2]),
    lambda made: made.reverse(),
    lambda made: made.__setitem__(40, "new"),
    lambda made: made.__setitem__("new", "new"),
    lambda made: made.pop(40),
    lambda made: made.popitem(),
    lambda made: made.setdefault("theirs", "mine"),
    lambda made: made.setdefault("new", "mine"),
    lambda made: made.update({1: 2, "x": 3}),
    lambda made: made.add("new"),
    lambda made: made.add("theirs"),
    lambda made: made.add(90),
    lambda made: made.discard(40),
    lambda made: made.discard("theirs"),
    lambda made: made.__isub__({20, 21, 22}),
]


@pytest.mark.parametrize("number", range(len(CHANGES)))
@pytest.mark.parametrize("n", [100, 5])
def test_a_change_builds_on_the_newest_state(bench, tiny, number, n):
    """The first change moves the view to what another process committed; nothing read before may count."""
    change = CHANGES[number]
    if number < 10:
        mine, plain = make_list(range(n)), list(range(n))
    elif number < 17:
        mine, plain = make_dict({i: i for i in range(n)}), {i: i for i in range(n)}
    else:
        mine, plain = make_set(range(n)), set(range(n))
    bench.commit()
    list(mine)
    other = type(bench)("test", 7)
    other.records = bench.records
    theirs = other.open().ghost(type(mine), mine._p_oid)
    for made in (theirs, plain):
        if number < 10:
            made[5 : n // 2] = ["theirs"]
            made.insert(0, "theirs")
        elif number < 17:
            made["theirs"] = "theirs"
            for i in range(3, n // 3):
                del made[i]
        else:
            made.add("theirs")
            made -= set(range(3, n // 3)) | {90}
    moved = other.commit()

    class Moving(type(bench.view)):
        def _first_dirty(self):
            self.invalidate(moved)
            moved.clear()

    bench.view.__class__ = Moving
    try:
        expected = change(plain)
    except (KeyError, IndexError, ValueError) as error:
        with pytest.raises(type(error)):
            change(mine)
    else:
        found = change(mine)
        assert found == expected or found is mine
    assert mine == plain
    mine._check()
