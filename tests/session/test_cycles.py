"""collect_cycles: what only holds itself goes, what anything leads to stays."""

from __future__ import annotations

import gc
import random
from typing import Any

import pytest

import dbzero as db0
from tests.worker import Worker


@db0.memo(id="tests/cycles/Node")
class Node:
    def __init__(self) -> None:
        self.out: list[Any] = []


@db0.memo(id="tests/cycles/Top", singleton=True)
class Top:
    def __init__(self) -> None:
        self.out: list[Any] = []


def reopen(root: str, mode: str = "rw") -> None:
    db0.close()
    gc.collect()
    db0.init(root, autocommit=False)
    db0.open("main", mode)


@pytest.mark.parametrize("seed", range(8))
def test_random_graphs(store: str, seed: int) -> None:
    dice = random.Random(seed)
    nodes = [Node() for _ in range(60)]
    edges: dict[int, list[int]] = {i: [dice.randrange(60) for _ in range(dice.randrange(3))] for i in range(60)}
    for i, targets in edges.items():
        nodes[i].out.extend(nodes[t] for t in targets)
    rooted, held = dice.sample(range(60), 3), dice.sample(range(60), 2)
    top = Top()
    top.out.extend(nodes[i] for i in rooted)
    uuids = [db0.uuid(node) for node in nodes]
    db0.commit()
    in_hand = [nodes[i] for i in held]
    nodes.clear()
    if seed % 2:
        db0.clear_cache()
    db0.collect_cycles()
    expected, stack = set(), [*rooted, *held]
    while stack:
        i = stack.pop()
        if i not in expected:
            expected.add(i)
            stack.extend(edges[i])
    assert {i for i in range(60) if db0.exists(uuids[i])} == expected
    assert db0.collect_cycles() == 0
    for i in expected:
        assert [db0.uuid(n) for n in db0.fetch(uuids[i]).out] == [uuids[t] for t in edges[i]]
    in_hand.clear()
    top.out.clear()
    del top
    gc.collect()
    db0.collect_cycles()
    assert not any(db0.exists(uuid) for uuid in uuids)
    reopen(store)
    assert list(db0.fetch(Top).out) == [] and not any(db0.exists(uuid) for uuid in uuids)


def test_pending_objects_stay_and_readers_refuse(store: str) -> None:
    one, two = Node(), Node()
    one.out.append(two)
    two.out.append(one)
    uuid = db0.uuid(two)
    del two
    assert db0.collect_cycles("main") == 0  # reached from one
    assert db0.exists(uuid)
    del one
    assert db0.collect_cycles() == 4  # two nodes, two lists
    with pytest.raises(RuntimeError):
        db0.collect_cycles("not open")
    reopen(store, "r")
    with pytest.raises(db0.ReadOnlyError):
        db0.collect_cycles()


def test_a_reader_sees_them_go(store: str) -> None:
    one = Node()
    one.out.append(one)
    uuid = db0.uuid(one)
    db0.commit()
    with Worker(root=store, uuid=uuid) as worker:
        look = """
            import dbzero as db0
            if "opened" not in globals():
                opened = True
                db0.init(root)
                db0.open("main", "r")
            db0.refresh()
            result = db0.exists(uuid)
        """
        assert worker.run(look) is True
        del one
        assert db0.collect_cycles() == 2
        assert worker.run(look) is False
