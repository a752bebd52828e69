"""Random programs: queries over shards against a plain model, with reshards, snapshots and reopenings in between."""

from __future__ import annotations

import copy
import gc

import pytest

import dbzero as db0
from tests.sharding.model import Holder, Program, check, check_groups


@pytest.mark.parametrize("seed", range(6))
def test_everything_is_as_in_the_model(root: str, seed: int) -> None:
    program = Program(seed)
    rng = program.rng
    db0.init(root, prefix="bank", autocommit=False)
    for _ in range(8):
        program.run(30)
        check(program.model)
        db0.commit()
        check_groups(program.model)
        before = copy.deepcopy(program.model)
        with db0.snapshot() as past:
            program.run(10)
            check(before, past)
            db0.commit()
            step = rng.randrange(3)
            if step == 0:
                db0.reshard(Holder, rng.randrange(1, 7), progress=False)
            check(program.model)
        if step == 1:
            db0.close()
            gc.collect()
            db0.init(root, prefix="bank", autocommit=False)
        elif step == 2:
            db0.clear_cache()


def test_changes_between_two_snapshots(root: str) -> None:
    program = Program(99)
    db0.init(root, prefix="bank", autocommit=False)
    program.run(40)
    db0.commit()
    query = db0.find(Holder)
    before, old = db0.snapshot(), copy.deepcopy(program.model)
    for holder in list(query)[:5]:
        holder.balance = 77
        program.model[holder.owner].balance = 77
    program.run(40)
    db0.commit()
    after, new = db0.snapshot(), program.model
    assert {one.owner for one in db0.select_new(query, before, after)} == new.keys() - old.keys()
    assert {one.owner for one in db0.select_deleted(query, before, after)} == old.keys() - new.keys()
    changed = {one.owner for _, one in db0.select_modified(query, before, after)}
    assert {
        o for o in new.keys() & old.keys() if (new[o].balance, new[o].city) != (old[o].balance, old[o].city)
    } <= changed
    assert changed <= new.keys() & old.keys()


def test_atomic_blocks_over_shards(root: str) -> None:
    db0.init(root, prefix="bank", autocommit=False)
    with db0.atomic():  # makes the layout and every shard
        for number in range(30):
            Holder(f"o{number}", number, None)
    db0.commit()
    with pytest.raises(KeyError), db0.atomic():
        for number in range(30, 60):
            Holder(f"o{number}", number, None)
        next(iter(db0.find(Holder))).balance = 1000
        raise KeyError
    assert sorted(one.balance for one in db0.find(Holder)) == list(range(30))
    with db0.atomic(commit=True):
        for one in db0.find(Holder):
            one.balance += 1
    with db0.snapshot() as now:
        assert sorted(one.balance for one in now.find(Holder)) == list(range(1, 31))


def test_joins_over_shards(root: str) -> None:
    db0.init(root, prefix="bank", autocommit=False)
    holders = [Holder(f"o{number}", number, None) for number in range(12)]

    @db0.memo(id="tests/sharding/Card", shards=2, shard_by="number")
    class Card:
        def __init__(self, number: int, holder: Holder) -> None:
            self.number = number
            db0.tags(self, holder).add(db0.as_tag(holder))

    for number in range(24):
        Card(number, holders[number % 12])
    joined = db0.join(Holder, Card, on=Holder)
    assert sorted((h.balance, c.number) for h, c in joined) == sorted((n % 12, n) for n in range(24))
    assert len(joined) == 24 and joined
    with pytest.raises(db0.BadPrefixError, match="sharded classes"):
        db0.find(Holder, db0.find(Card))
