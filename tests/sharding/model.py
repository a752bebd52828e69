"""A bank in shards, its plain model, and random programs over both."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import dbzero as db0

TAGS = ("gold", "silver", "closed", "watched")
Branch = db0.enum("tests/sharding/Branch", ["NORTH", "SOUTH"])


@db0.memo(id="tests/sharding/Note")
class Note:
    """Something that an account owns."""

    def __init__(self, prefix: str, text: str) -> None:
        db0.set_prefix(self, prefix)
        self.text = text


@db0.memo(id="tests/sharding/Holder", shards=3, shard_by="owner")
@db0.indexed_fields("balance")
@db0.tag_fields("city")
@db0.fulltext("text")
class Holder:
    def __init__(self, owner: str, balance: int | None, city: str | None) -> None:
        self.owner = owner
        self.balance = balance
        self.city = city
        self.text = f"holder {owner} of {city}"
        self.log = [balance, (owner, [city])]
        self.notes = {owner: Note(db0.get_prefix_of(self).name, owner)}
        self.me = db0.weak_proxy(db0.materialized(self))
        db0.tags(self).add("holder", Branch.NORTH)


@db0.memo(id="tests/sharding/Company")
class Company(Holder):
    def __init__(self, owner: str, balance: int | None, city: str | None) -> None:
        super().__init__(owner, balance, city)
        self.raw = db0.bytearray(owner.encode())
        self.kinds = frozenset([Branch.SOUTH, owner])
        self.seen = db0.weak_set([self.notes[owner]])


@dataclass
class Plain:
    """The model of a holder."""

    owner: str
    balance: int | None
    city: str | None
    company: bool
    log: list[Any]
    tags: set[str] = field(default_factory=set)


class Program:
    """Random changes of a bank and of its model."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.model: dict[str, Plain] = {}
        self.made = 0

    def create(self) -> None:
        rng = self.rng
        self.made += 1
        owner = f"owner{self.made}"
        company = rng.random() < 0.3
        plain = Plain(
            owner, rng.choice([None, rng.randrange(100), -5]), rng.choice([None, "rome", "oslo"]), company, []
        )
        plain.log = [plain.balance]
        (Company if company else Holder)(owner, plain.balance, plain.city)
        self.model[owner] = plain

    def change(self) -> None:
        if not self.model:
            return
        rng = self.rng
        plain = rng.choice(list(self.model.values()))
        holder = find(plain.owner)
        kind = rng.randrange(6)
        if kind == 0:
            plain.balance = holder.balance = rng.choice([None, rng.randrange(100)])
        elif kind == 1:
            plain.city = holder.city = rng.choice([None, "rome", "oslo", "bonn"])
        elif kind == 2:
            number = rng.randrange(1000)
            plain.log.append(number)
            holder.log.append(number)
        elif kind in (3, 4):
            tag = rng.choice(TAGS)
            (plain.tags.add if kind == 3 else plain.tags.discard)(tag)
            (db0.tags(holder).add if kind == 3 else db0.tags(holder).remove)(tag)
        else:
            db0.tags(holder).remove("holder", Branch.NORTH, *TAGS)
            db0.delete(holder)
            del self.model[plain.owner]

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.create() if self.rng.random() < 0.4 else self.change()


def find(owner: str) -> Any:
    """A holder, in the shard of its key only."""
    (found,) = [one for one in db0.find(Holder) if one.owner == owner]
    return found


def key(balance: int | None) -> tuple[bool, int]:
    return balance is None, balance or 0


def check(model: dict[str, Plain], context: Any = db0) -> None:
    """Everything that can be asked of the bank, live or in a snapshot, is what the model says."""
    plains = list(model.values())
    everyone = context.find(Holder)
    found = list(everyone)
    assert sorted(one.owner for one in found) == sorted(model)
    assert len(everyone) == everyone.count() == len(model) and bool(everyone) == everyone.exists() == bool(model)
    for one in found:
        plain = model[one.owner]
        assert (one.balance, one.city, type(one) is Company) == (plain.balance, plain.city, plain.company)
        assert [one.log[0], *list(one.log)[2:]] == plain.log
        assert one.log[1][0] == one.owner and one.notes[one.owner].text == one.owner
        assert one.me is one
        assert db0.shard_of(one) == db0.shard_of(Holder, one.owner)
        assert one in everyone
        if plain.company:
            assert bytes(one.raw) == one.owner.encode() and one.kinds == {Branch.SOUTH, one.owner}
            assert list(one.seen) == [one.notes[one.owner]]
    owners = [one.owner for one in found]
    assert [one.owner for one in everyone] == owners, "the order is determinate"
    if found:
        assert [everyone[0].owner, everyone[-1].owner] == [owners[0], owners[-1]]
        assert everyone.first().owner == owners[0]
        assert [one.owner for one in everyone[len(found) // 2, 0]] == [owners[len(found) // 2], owners[0]]
    assert [one.owner for one in everyone[1:7:2]] == owners[1:7:2]
    assert [one.owner for one in everyone[-3:]] == owners[-3:]
    for tag in TAGS:
        assert {one.owner for one in context.find(Holder, tag)} == {p.owner for p in plains if tag in p.tags}
        assert {one.owner for one in context.find(Company, db0.no(tag))} == {
            p.owner for p in plains if p.company and tag not in p.tags
        }
    assert len(context.find(Holder, Branch.NORTH)) == len(model) and not context.find(Holder, Branch.SOUTH)
    gold = context.find(Holder, ["gold", "silver"])
    assert {one.owner for one in context.find(gold, "watched")} == {
        p.owner for p in plains if p.tags & {"gold", "silver"} and "watched" in p.tags
    }
    for city in ("rome", "oslo", "bonn"):
        assert {one.owner for one in context.find(Holder, city)} == {p.owner for p in plains if p.city == city}
    balances = context.index_of(Holder, "balance")
    assert len(balances) == len(model)
    some = context.find(Holder, balances.select(10, 60))
    inside = [p for p in plains if p.balance is not None and 10 <= p.balance <= 60]
    assert {one.owner for one in some} == {p.owner for p in inside} and len(some) == len(inside)
    for query, wanted in ((everyone, plains), (some, inside)):
        for desc in (False, True):
            ordered = balances.sort(query, desc=desc)
            expected = sorted([p.balance for p in wanted], key=key, reverse=desc)
            assert [one.balance for one in ordered] == expected
            assert [one.balance for one in ordered[:5]] == expected[:5]
        first = sorted([p.balance for p in wanted], key=lambda b: (b is not None, b or 0))
        assert [one.balance for one in balances.sort(query, null_first=True)] == first
    assert [entry for entry, _ in balances] == sorted([p.balance for p in plains], key=key)
    texts = context.find(Holder, db0.match("rome"))
    assert {one.owner for one in texts} == {one.owner for one in found if "rome" in one.text}
    assert texts.explain().actual == len(texts)


def check_groups(model: dict[str, Plain]) -> None:
    """Grouping over all shards, of what is committed."""
    plains = list(model.values())
    query = db0.find(Holder)
    cities: dict[Any, tuple[int, int]] = {}
    for p in plains:
        n, total = cities.get(p.city, (0, 0))
        cities[p.city] = n + 1, total + (p.balance or 0)
    amount = db0.make_sum(lambda one: one.balance or 0)
    assert db0.group_by(lambda one: one.city, query, ops=(db0.count_op, amount)) == cities

    def names(state: Any, removed: Any, added: Any) -> Any:
        return () if added is None else tuple(sorted({*state, *(one.owner for one in added)}))

    assert db0.group_by(lambda one: type(one) is Company, query, ops=names) == {
        flag: tuple(sorted(p.owner for p in plains if p.company is flag)) for flag in {p.company for p in plains}
    }
    counts = {tag: n for tag in TAGS[:2] if (n := sum(1 for p in plains if tag in p.tags))}
    gold = sum(1 for p in plains if "gold" in p.tags)
    silver = sum(1 for p in plains if "silver" in p.tags and "gold" not in p.tags)
    counts = {tag: n for tag, n in (("gold", gold), ("silver", silver)) if n}
    assert db0.group_by(["gold", "silver"], query) == counts
    assert len(db0.split_by(["gold", "silver"], query)) == gold + silver
    assert len(db0.filter(lambda one: one.balance == 5, query)) == sum(1 for p in plains if p.balance == 5)
