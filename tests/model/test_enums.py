"""Enums: their values are equal everywhere, and stored by place."""

from __future__ import annotations

import pickle
import struct

import pytest

import dbzero as db0
from dbzero.model import enums
from tests.worker import Worker

Color = db0.enum("Color", ["RED", "GREEN", "BLUE"])
EARLY = Color.RED  # before init


@db0.enum(values=["LEFT", "RIGHT"], prefix="sides")
class Side:
    """Its body does not matter."""


@db0.memo(id="tests/enums/Holder", singleton=True)
class Holder:
    def __init__(self) -> None:
        self.color: object = None


@db0.memo(id="tests/enums/Item")
class Item:
    def __init__(self, color: object = None) -> None:
        self.color = color


def reopen(root: str, mode: str = "rw") -> None:
    db0.close()
    db0.init(root, autocommit=False)
    db0.open("main", mode)


def test_definition_and_access() -> None:
    assert [str(value) for value in Color.values()] == ["RED", "GREEN", "BLUE"] == [f"{value}" for value in Color]
    assert Color["GREEN"] == Color[1] == Color[-2] == Color.GREEN
    assert len(Color) == 3 and Color.RED in Color and "RED" not in Color
    with pytest.raises(AttributeError):
        Color.PINK
    with pytest.raises(KeyError):
        Color["PINK"]
    with pytest.raises(RuntimeError):
        Color["PINK"]
    with pytest.raises(IndexError):
        Color[3]
    assert db0.is_enum(Color) and not db0.is_enum(EARLY)
    assert db0.is_enum_value(EARLY) and not db0.is_enum_value(Color) and not db0.is_enum_value("RED")
    assert str(Side.LEFT) == "LEFT"


def test_definition_again() -> None:
    assert db0.enum("Color", ["RED", "GREEN", "BLUE"]) is Color
    for different in (["RED"], ["GREEN", "RED", "BLUE"], ["RED", "GREEN", "BLUE", "PINK"]):
        with pytest.raises(RuntimeError, match="different values"):
            db0.enum("Color", different)


@pytest.mark.parametrize("values", [None, (), [], ("A", "B"), {"A"}, "AB", [1], ["A", None]])
def test_bad_definitions(values: object) -> None:
    with pytest.raises(TypeError):
        db0.enum("Bad", values)


def test_values_are_constants(store: str) -> None:
    assert Color.RED is Color.RED
    for value in (EARLY, Color.RED):
        with pytest.raises(AttributeError):
            value.name = "x"
        with pytest.raises(TypeError):
            pickle.dumps(value)
    assert Color.RED != "RED" and Color.RED != Color.BLUE
    assert db0.enum("Other", ["RED"]).RED != Color.RED


def test_a_value_may_be_named_values() -> None:
    odd = db0.enum("Odd", ["values", "keys"])
    assert str(odd.values) == "values"
    assert len(odd) == 2


def test_unmaterialised_values_equal_the_others(store: str) -> None:
    assert repr(EARLY) == "<EnumValue ???.RED>" and str(EARLY) == "RED"
    assert repr(Color.RED) == "<EnumValue Color.RED>"
    assert EARLY == Color.RED and Color.RED == EARLY and hash(EARLY) == hash(Color.RED)
    assert EARLY != Color.BLUE
    item = Item(EARLY)
    assert item.color is Color.RED
    assert EARLY in db0.set([Color.RED]) and EARLY in db0.list([Color.RED]) and EARLY in db0.dict({Color.RED: 1})
    assert EARLY not in db0.set([Color.BLUE]) and EARLY not in db0.dict() and EARLY not in db0.list()


def test_stored_everywhere_and_read_back(store: str) -> None:
    holder = Holder()
    holder.color = Color.BLUE
    holder.list = [Color.RED, [Color.GREEN], (Color.BLUE, 1)]
    holder.dict = {Color.RED: Color.GREEN, ("x", Color.BLUE): 2}
    holder.set = {Color.RED, Color.BLUE}
    db0.commit()
    db0.clear_cache()
    for mode in ("rw", "r"):
        reopen(store, mode)
        holder = db0.fetch(Holder)
        assert holder.color is Color.BLUE and repr(holder.color) == "<EnumValue Color.BLUE>"
        assert db0.load(holder.list) == ["RED", ["GREEN"], ("BLUE", 1)]
        assert holder.dict[Color.RED] == Color.GREEN == holder.dict[EARLY]
        assert holder.dict["x", Color.BLUE] == 2
        assert Color.RED in holder.set and EARLY in holder.set and Color.GREEN not in holder.set
        assert db0.load(holder)["dict"] == {"RED": "GREEN", ("x", "BLUE"): 2}


def test_reading_makes_no_change(store: str) -> None:
    Holder().color = 1
    db0.commit()
    state = db0.get_state_num(finalized=True)
    assert str(Color.RED) == "RED" and len(Color.values()) == 3
    db0.commit()
    assert db0.get_state_num(finalized=True) == state
    reopen(store, "r")
    assert repr(Color.RED) == "<EnumValue ???.RED>"  # the prefix lacks the enum


def test_values_follow_the_prefix(store: str) -> None:
    first = Color.RED
    item = Item(first)
    db0.open("other")
    assert Color.RED is not first and first == Color.RED and hash(Color.RED) == hash(first)
    assert db0.get_prefix_of(Color.RED).name == "other" and db0.get_prefix_of(first).name == "main"
    copy = Item(first)
    assert db0.get_prefix_of(copy.color) == db0.get_prefix_of(copy)
    assert copy.color == item.color
    keys = db0.dict({first: 1})
    assert keys[Color.RED] == 1 and db0.get_prefix_of(next(iter(keys))).name == "other"


def test_scoped_enum(store: str) -> None:
    with pytest.raises(RuntimeError):
        Side.LEFT  # its prefix does not exist
    db0.open("sides")
    db0.open("main")
    assert db0.get_prefix_of(Side.LEFT).name == "sides" == db0.get_prefix_of(Side).name
    item = Item(Side.LEFT)
    assert db0.get_prefix_of(item.color).name == "main" and item.color == Side.LEFT


def test_many_values(store: str) -> None:
    many = db0.enum("Many", [f"V{i}" for i in range(500)])
    item = Item(list(many.values()))
    uuid = db0.uuid(item)
    holder = Holder()
    holder.color = item
    db0.commit()
    reopen(store)
    assert db0.load(db0.fetch(uuid).color) == [f"V{i}" for i in range(500)]


def test_a_longer_definition_later(root: str) -> None:
    script = """
        import dbzero as db0
        db0.init(root, autocommit=False)
        db0.open("main")
        Step = db0.enum("Step", names)
        @db0.memo(id="tests/enums/Steps", singleton=True)
        class Steps:
            def __init__(self):
                self.seen = []
        steps = Steps()
        steps.seen.extend(Step.values())
        result = [db0.load(steps.seen), [Step[name] in steps.seen for name in names], db0.hash(Step[names[-1]])]
        db0.close()
    """
    with Worker(root=root, names=["A", "B"]) as worker:
        assert worker.run(script)[:2] == [["A", "B"], [True, True]]
    with Worker(root=root, names=["C", "B", "A"]) as worker:  # reordered, too
        assert worker.run(script)[:2] == [["A", "B", "C", "B", "A"], [True] * 3]
    with Worker(root=root, names=["A", "B"]) as worker:  # the shorter one again: the old values stay
        assert worker.run(script)[0] == ["A", "B", "C", "B", "A", "A", "B"]


def test_a_reader_sees_values_added_later(store: str) -> None:
    holder = Holder()
    holder.color = Color.GREEN
    db0.commit()
    with Worker(root=store) as worker:
        read = """
            import dbzero as db0
            if "Holder" not in globals():
                db0.init(root)
                db0.open("main", "r")
                @db0.memo(id="tests/enums/Holder", singleton=True)
                class Holder:
                    def __init__(self):
                        pass
                Color = db0.enum("Color", ["RED"])
            db0.refresh()
            result = [str(db0.fetch(Holder).color), repr(db0.fetch(Holder).color)]
        """
        assert worker.run(read) == ["GREEN", "<EnumValue Color.GREEN>"]  # without its definition
        fresh = db0.enum("Fresh", ["NEW"])
        holder.color = fresh.NEW
        db0.commit()
        assert worker.run(read) == ["NEW", "<EnumValue Fresh.NEW>"]
        longer = enums.EnumValueRepr(enums.type_key(Color), "LATER", None)  # as a later definition would have it
        holder.color = longer
        db0.commit()
        assert worker.run(read) == ["LATER", "<EnumValue Color.LATER>"]


def test_damaged_values(store: str) -> None:
    view = Item(1)._p_view  # type: ignore[attr-defined]
    item = Item(Color.RED)
    assert item.color is Color.RED
    code = Color.RED._code
    for data in (b"", b"\0" * 12, code.to_bytes(8, "little") + b"\xff\0\0\0"):
        with pytest.raises((ValueError, struct.error)):
            enums._read(view, data)
