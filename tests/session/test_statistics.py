"""Numbers, the cache's size at run time, restricted prefixes."""

from __future__ import annotations

import contextvars
import os
from typing import Any

import pytest

import dbzero as db0


@db0.memo(id="tests/statistics/Thing")
class Thing:
    def __init__(self, text: str = "") -> None:
        self.text = text

    def shout(self) -> str:
        return self.text.upper()


@db0.memo(id="tests/statistics/Special")
class Special(Thing):
    pass


def test_the_cache_shrinks_at_once(store: str) -> None:
    things = [Thing("x" * 1000) for _ in range(1000)]
    db0.commit()
    before = db0.get_cache_stats()
    assert before["size"] > 1_000_000 and before["P_size"] == {"P0": before["size"], "P1": 0}
    db0.set_cache_size(512 << 10)
    after = db0.get_cache_stats()
    assert after["capacity"] == 512 << 10
    assert 0.95 <= after["size"] / after["capacity"] <= 1
    assert db0.get_config()["cache_size"] == 512 << 10
    assert {thing.text for thing in things} == {"x" * 1000}
    assert db0.get_cache_stats()["size"] <= 512 << 10


def test_the_size_holds_for_prefixes_opened_later(store: str) -> None:
    db0.set_cache_size(100_000)
    db0.open("later")
    things = [Thing("x" * 1000) for _ in range(300)]
    db0.commit()
    assert len(things) == 300 and db0.get_cache_stats()["size"] <= 100_000


@pytest.mark.parametrize("size", [None, "5", 1.5, True])
def test_sizes_are_ints(store: str, size: Any) -> None:
    with pytest.raises(TypeError):
        db0.set_cache_size(size)


@pytest.mark.parametrize("size", [0, -1])
def test_sizes_are_positive(store: str, size: int) -> None:
    with pytest.raises(ValueError):
        db0.set_cache_size(size)


def test_changed_objects_are_counted(store: str) -> None:
    one, two = Thing("a"), Thing("b")
    db0.commit()
    assert db0.get_prefix_stats()["cache"] == {"dirty_cache_bytes": 0, "dirty_dp_total": 0, "dirty_dp_cow": 0}
    one.text, three = "c" * 500, Thing()
    cache = db0.get_prefix_stats()["cache"]
    assert cache["dirty_dp_total"] == 2 and cache["dirty_dp_cow"] == 1 and 500 < cache["dirty_cache_bytes"] < 600
    assert db0.get_cache_stats()["P_size"]["P1"] == cache["dirty_cache_bytes"]
    assert db0.get_storage_stats()["dp_size_uncommited"] == cache["dirty_cache_bytes"]
    assert db0.get_lang_cache_stats()["size"] >= len([one, two, three])


def test_storage(store: str) -> None:
    things = [Thing("x" * 1000) for _ in range(100)]
    before = db0.get_storage_stats()
    db0.commit()
    after = db0.get_storage_stats()
    assert after["prefix_size"] == os.path.getsize(os.path.join(store, "main.db0"))
    assert after["log_size"] > 0
    assert after["file_bytes_written"] - before["file_bytes_written"] > 100_000
    assert after["file_rand_write_ops"] > before["file_rand_write_ops"]
    assert after["file_sync_ops"] > before["file_sync_ops"]
    assert after["dp_size_total"] - before["dp_size_total"] > 100_000
    slabs = db0.get_slab_metrics()
    assert slabs[0]["size"] == after["dp_size_total"]
    assert len(things) == 100
    with pytest.raises(db0.PrefixError):
        db0.get_storage_stats("elsewhere")


def test_types(store: str) -> None:
    with pytest.raises(db0.ClassNotFoundError):
        db0.get_type_stats(Special)
    one, special = Thing("a"), Special("b")
    holder = db0.list([one, one, Thing])
    stats = db0.get_type_stats(Thing)
    assert (stats["instances"], stats["fields"], stats["ref_counts"]["objects"]) == (1, 1, 2)
    assert stats["class_ref"] >= 1 and stats["type_id"] == "tests/statistics/Thing" and stats["prefix"] == "main"
    assert db0.get_type_stats(Special)["instances"] == 1
    before = db0.getrefcount(Thing)
    holder.append(Thing("c"))
    assert db0.getrefcount(Thing) == before + 1
    assert special.text == "b"
    with pytest.raises(TypeError):
        db0.get_type_stats(one)


def test_restricted_objects_hide_their_fields(store: str) -> None:
    thing = Thing("secret")
    db0.set_restricted(restricted=True)
    for reflect in (vars, lambda obj: obj.__dict__):
        with pytest.raises((AttributeError, TypeError)):
            reflect(thing)
    assert dir(thing) == []
    assert thing.text == "secret" and thing.shout() == "SECRET" and db0.load(thing) == {"text": "secret"}
    thing.text = "changed"
    assert db0.compare(thing, Thing("changed"))
    assert db0.describe(thing)["field_layout"]["pos_vt"] == ["str"]
    assert db0.get_prefix_stats()["restricted"] and db0.get_config()["restricted"]
    with pytest.raises(RuntimeError, match="cannot be weakened"):
        db0.set_restricted(restricted=False)
    db0.open("later")
    assert dir(Thing()) == []


def test_one_prefix_is_restricted(store: str) -> None:
    db0.open("hidden", restricted=True)
    hidden = Thing("x")
    db0.open("main")
    assert dir(hidden) == [] and vars(Thing("y")) == {"text": "y"}
    with pytest.raises(RuntimeError, match="cannot be weakened"):
        db0.set_restricted(restricted=False, prefix="hidden")
    with pytest.raises(db0.PrefixError):
        db0.set_restricted(restricted=True, prefix="unknown")


def test_a_context_restricts(store: str) -> None:
    hide: contextvars.ContextVar[bool] = contextvars.ContextVar("hide", default=False)
    db0.open("sometimes", restricted_context=hide)
    thing = Thing("x")
    assert vars(thing) == {"text": "x"}
    hide.set(True)
    assert dir(thing) == []
    with pytest.raises(RuntimeError, match="cannot be weakened"):
        db0.set_restricted(restricted=False, prefix="sometimes")
    with pytest.raises(TypeError):
        db0.set_restricted(restricted_context=5)  # type: ignore[arg-type]


def test_restricted_from_the_start(root: str) -> None:
    db0.init(root, autocommit=False, restricted=True)
    db0.open("main")
    assert dir(Thing("x")) == []


def test_interfaces(store: str) -> None:
    thing, color = Thing(), db0.enum("StatisticsColor", ["RED"])
    assert isinstance(thing, db0.Memo) and not isinstance(Thing, db0.Memo)
    assert all(isinstance(tag, db0.Tag) for tag in ("x", thing, color.RED, db0.weak_proxy(thing)))
    assert not isinstance(5, db0.Tag)
    assert isinstance(color, db0.EnumType) and isinstance(db0.index().select(), db0.QueryObject)
    assert isinstance(db0.weak_proxy(thing), db0.MemoWeakProxy)
    with pytest.raises(TypeError):
        db0.Memo()


def test_lambdas() -> None:
    double = lambda value: value * 2  # noqa: E731
    pair = (lambda one: one + 1, lambda other: other - 1)
    assert db0.get_lambda_source(double) == "value * 2"
    assert [db0.get_lambda_source(one) for one in pair] == ["one + 1", "other - 1"]
    with pytest.raises(TypeError):
        db0.get_lambda_source(len)
    with pytest.raises(ValueError):
        db0.get_lambda_source(Thing.shout)


def test_parameters_are_counted() -> None:
    assert not db0.check_params_not_equal(Thing.shout, 0)
    assert db0.check_params_not_equal(Thing.shout, 1)
    assert db0.check_params_not_equal(lambda *args: args, 0)
    assert db0.check_params_not_equal(lambda *, key: key, 0)
