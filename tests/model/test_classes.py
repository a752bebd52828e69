from __future__ import annotations

import abc
import dataclasses
import threading
from typing import Any, ClassVar, Generic, TypeVar
from unittest import mock

import pytest

from dbzero.model import base
from dbzero.model.memo import MemoBase, class_info, is_memo, memo
from dbzero.model.view import View
from tests.model.memory import Memory, current, reopen

T = TypeVar("T")


@memo
class Person:
    """A person."""

    species = "human"

    def __init__(self, name: str, age: int = 0) -> None:
        self.name = name
        self.age = age

    def greet(self) -> str:
        return f"I am {self.name}"

    @staticmethod
    def double(n: int) -> int:
        return 2 * n

    @classmethod
    def make(cls, name: str) -> Any:
        return cls(name)


def test_the_class_stays_what_it_was(view: View) -> None:
    assert (Person.__name__, Person.__qualname__, Person.__module__, Person.__doc__) == (
        "Person",
        "Person",
        __name__,
        "A person.",
    )
    person = Person.make("Ann")
    assert type(person) is Person
    assert isinstance(person, Person)
    assert person.greet() == "I am Ann"
    assert (Person.double(2), person.species) == (4, "human")
    assert is_memo(Person) and is_memo(person) and not is_memo(3) and not is_memo(object)


def test_monkeypatching_takes_effect(view: View) -> None:
    person = Person("Ann")
    with mock.patch.object(Person, "greet", lambda self: "patched"):
        assert person.greet() == "patched"
    assert person.greet() == "I am Ann"
    with mock.patch.object(Person, "__init__", lambda self: setattr(self, "name", "new")):
        assert Person().name == "new"
    assert Person("x").age == 0


def test_options_are_validated() -> None:
    for options in ({"prefix": 3}, {"id": b"x"}, {"no_cache": 1}, {"immutable": "yes"}, {"lofi": True}):
        with pytest.raises(TypeError):
            memo(**options)(type("C", (), {}))  # type: ignore[arg-type]
    made: Any = memo(
        singleton=True, prefix="p", id="i", no_default_tags=True, no_cache=True, immutable=True, access_control=True
    )(type("C", (), {}))
    info = class_info(made)
    assert info is not None and info.singleton and info.prefix == "p" and info.key == "=i"
    assert class_info(memo()(type("D", (), {}))) is not None


@pytest.mark.parametrize("what", [3, "x", lambda: 1, len])
def test_only_classes_can_be_memo(what: Any) -> None:
    with pytest.raises(TypeError, match="needs a class"):
        memo(what)


@pytest.mark.parametrize("builtin", [int, str, list, dict, tuple, Exception, type])
def test_builtin_subclasses_cannot(builtin: type) -> None:
    with pytest.raises(TypeError):
        memo(type("C", (builtin,), {}))


def test_inheritance(view: View) -> None:
    class Mixin:
        def __init__(self) -> None:
            self.mixed = True

        def both(self) -> Any:
            return self.mixed, self.name  # type: ignore[attr-defined]

    @memo
    class Base:
        def __init__(self, name: str) -> None:
            self.name = name

        def who(self) -> str:
            return "base"

    @memo
    class Derived(Base, Mixin):
        def __init__(self, name: str) -> None:
            super().__init__(name)
            Mixin.__init__(self)

        def who(self) -> str:
            return "derived of " + super().who()

    class Other:
        pass

    @memo
    class MixedFirst(Other, Derived):
        def __init__(self, name: str) -> None:
            Derived.__init__(self, name)

    @memo
    class Silent(Base):
        pass

    for cls in (Derived, MixedFirst):
        obj = cls("n")
        assert obj.both() == (True, "n")
        assert obj.who() == "derived of base"
        assert isinstance(obj, Base) and issubclass(cls, Base)
        assert vars(obj) == {"name": "n", "mixed": True}
    vars(obj)["name"] = "other"
    assert obj.name == "n"
    assert Silent("q").name == "q"
    record = view.layout(MixedFirst).record
    assert [view.class_record(oid).data.qualname.rsplit(".")[-1] for oid in record.data.bases] == ["Derived", "Base"]


def test_plain_subclass_is_refused(view: View) -> None:
    class Plain(Person):
        pass

    with pytest.raises(TypeError, match="not a registered memo type"):
        Plain("x")
    with pytest.raises(TypeError, match="not a registered memo type"):
        Plain.__new__(Plain)
    assert not is_memo(Plain)
    assert view.dirty_count == 0


def test_abc_and_metaclasses(view: View) -> None:
    @memo
    class Shape(abc.ABC):
        @abc.abstractmethod
        def area(self) -> float: ...

    @memo
    class Square(Shape):
        def __init__(self, side: float) -> None:
            self.side = side

        def area(self) -> float:
            return self.side**2

    with pytest.raises(TypeError, match="abstract"):
        Shape()
    assert Square(2.0).area() == 4.0
    Shape.register(int)
    assert isinstance(3, Shape)

    class Counting(type):
        calls = 0

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            Counting.calls += 1
            return super().__call__(*args, **kwargs)

    @memo
    class Counted(metaclass=Counting):
        pass

    assert isinstance(Counted(), Counted) and Counting.calls == 1


def test_generic(view: View) -> None:
    @memo
    class Box(Generic[T]):
        def __init__(self, value: T) -> None:
            self.value = value

    assert Box[int](2).value == 2
    assert Box("x").value == "x"


def test_init_subclass_sees_the_final_class() -> None:
    class Registry:
        last: ClassVar[Any] = None

        def __init_subclass__(cls) -> None:
            Registry.last = cls

    made = memo(type("Child", (Registry,), {}))
    assert Registry.last is made


def test_slots_classes_are_rebuilt(view: View) -> None:
    @memo
    class Slotted:
        __slots__ = ("__hidden", "x")

        def __init__(self) -> None:
            self.x = 1
            self.__hidden = 2

        def me(self) -> Any:
            return __class__  # type: ignore[name-defined]

    obj = Slotted()
    obj.free = 3  # type: ignore[attr-defined]
    assert vars(obj) == {"x": 1, "_Slotted__hidden": 2, "free": 3}
    assert isinstance(obj, obj.me())

    class Base:
        __slots__ = ("a",)

    with pytest.raises(TypeError, match="Base has __slots__"):
        memo(type("C", (Base,), {}))


def test_dataclasses(view: View) -> None:
    @memo
    @dataclasses.dataclass(order=True)
    class Point:
        x: int
        y: int = 7
        kind: ClassVar[str] = "point"
        _X__lock: Any = dataclasses.field(default_factory=threading.Lock, compare=False, repr=False)

        def __post_init__(self) -> None:
            self.total = self.x + self.y

    point = Point(1)
    assert (point.x, point.y, point.total, point.kind) == (1, 7, 8, "point")
    assert repr(point).endswith("Point(x=1, y=7)")
    assert point == Point(1, 7) and point < Point(2)
    assert {point: 1}[point] == 1, "hashable by identity though it defines __eq__"
    with point._X__lock:
        pass
    assert vars(point) == {"x": 1, "y": 7, "total": 8}
    assert [f.name for f in dataclasses.fields(Point)][:2] == ["x", "y"]
    assert dataclasses.replace(point, x=5, _X__lock=None).x == 5

    @memo
    @dataclasses.dataclass(kw_only=True)
    class Point3(Point):
        z: int = 3

    assert Point3(4, z=9).z == 9 and isinstance(Point3(1), Point)


@pytest.mark.parametrize("options", [{}, {"slots": True}])
def test_frozen_dataclasses(memory: Memory, view: View, options: Any) -> None:
    @memo
    @dataclasses.dataclass(frozen=True, **options)
    class Money:
        amount: int
        currency: str = "EUR"

    money = Money(5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        money.amount = 6  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del money.currency
    assert hash(money) == hash(Money(5)) and money == Money(5) and money.currency == "EUR"
    memory.commit(view)
    with current(other := reopen(memory, view)):
        assert other.get(money._p_oid).amount == 5


def test_slots_dataclass_keeps_defaults(view: View) -> None:
    @memo
    @dataclasses.dataclass(slots=True)
    class P:
        a: int
        b: str = "b"
        c: list[int] = dataclasses.field(default_factory=list, repr=False)

        def __post_init__(self) -> None:
            self.c = None  # type: ignore[assignment]

    obj = P.__new__(P)
    assert obj.b == "b"


def test_special_methods_work(view: View) -> None:
    @memo
    class Special:
        def __init__(self) -> None:
            self.n = 3

        def __len__(self) -> int:
            return self.n

        def __getitem__(self, i: int) -> int:
            if i >= self.n:
                raise IndexError
            return i

        def __contains__(self, x: object) -> bool:
            return x == self.n

        def __call__(self, x: int) -> int:
            return self.n + x

        def __add__(self, other: int) -> int:
            return self.n + other

        def __enter__(self) -> int:
            return self.n

        def __exit__(self, *args: object) -> None:
            self.n = 0

        def __format__(self, spec: str) -> str:
            return f"<{spec}>"

        def __repr__(self) -> str:
            return "special"

        def __eq__(self, other: object) -> bool:
            return isinstance(other, int) and other == self.n

    obj = Special()
    assert (len(obj), obj[1], 3 in obj, obj(1), obj + 1, f"{obj:x}", str(obj), obj == 3, obj != 4) == (
        3,
        1,
        True,
        4,
        4,
        "<x>",
        "special",
        True,
        True,
    )
    assert list(iter(obj)) == [0, 1, 2]
    assert hash(obj) is not None
    view.evict(0)
    with obj as n:
        assert n == 3
    assert obj.n == 0 and not obj


def test_finalizers_are_not_called(view: View) -> None:
    calls = []

    class Mixin:
        def __del__(self) -> None:
            calls.append(self)

    @memo
    class Final(Mixin):
        pass

    with current(reopen(Memory(), view)):
        Final()
    assert calls == []


def test_user_attribute_hooks(memory: Memory, view: View) -> None:
    @memo
    class Hooked:
        def __getattr__(self, name: str) -> str:
            if name.startswith("_"):
                raise AttributeError(name)
            return f"no {name}"

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, ("set " + value) if isinstance(value, str) else value)

    @memo
    class All:
        def __init__(self) -> None:
            self.x = 1

        def __getattribute__(self, name: str) -> Any:
            return 42 if name == "answer" else super().__getattribute__(name)

    obj = Hooked()
    obj.x = "y"
    assert (obj.x, obj.z) == ("set y", "no z")
    all_ = All()
    memory.commit(view)
    view.evict(0)
    assert (obj.x, obj.z, all_.answer, all_.x) == ("set y", "no z", 42, 1)
    all_.__setattr__("q", 5)
    assert all_.q == 5


def test_user_new(view: View) -> None:
    made = []

    @memo
    class New:
        def __new__(cls, *args: Any) -> Any:
            if args and args[0] in ("again",):
                return made[0]
            obj = super().__new__(cls)
            made.append(obj)
            obj.early = "new"
            return obj

        def __init__(self, *args: Any) -> None:
            self.args = len(args)

    obj = New(1, 2)
    assert (obj.early, obj.args) == ("new", 2)
    assert New("again") is obj and obj.args == 1
    assert not obj._p_flags & base.INIT


def test_redefined_class_gets_the_old_objects(memory: Memory, view: View) -> None:
    def define(extra: int) -> Any:
        class Local:
            number = extra

            def __init__(self) -> None:
                self.x = extra

        return memo(Local)

    first = define(1)
    obj = first()
    memory.commit(view)
    second = define(2)
    with current(other := reopen(memory, view)):
        loaded = other.get(obj._p_oid)
        assert type(loaded) is second and loaded.x == 1 and loaded.number == 2


def test_id_survives_a_rename(memory: Memory, view: View) -> None:
    first = memo(id="stable")(type("Old", (), {}))
    obj = first()
    obj.x = 5
    memory.commit(view)
    second = memo(id="stable")(type("Renamed", (), {}))
    with current(other := reopen(memory, view)):
        loaded = other.get(obj._p_oid)
        assert type(loaded) is second and loaded.x == 5


def test_unknown_class_reads_as_memo_base(memory: Memory, view: View) -> None:
    from dbzero.model import kinds

    gone: Any = memo(type("Gone", (), {"__init__": lambda self, other: setattr(self, "other", other)}))
    holder = Person("h")
    obj = gone(gone(None))
    holder.gone = obj  # type: ignore[attr-defined]
    memory.commit(view)
    del kinds.classes[class_info(gone).key]  # type: ignore[union-attr]
    kinds.version += 1
    with current(other := reopen(memory, view)):
        loaded = other.get(holder._p_oid)
        stranger = loaded.gone
        assert type(stranger) is MemoBase and type(stranger.other) is MemoBase and stranger.other.other is None
        assert list(vars(stranger)) == ["other"]
        stranger.seen = True
        loaded.name = "new"
        memory.commit(other)
    kinds.register_class(class_info(gone).key, gone)  # type: ignore[union-attr]
    with current(third := View(memory, other.state)):
        found = third.get(holder._p_oid).gone
        assert type(found) is gone and found.seen is True
    with pytest.raises(TypeError, match="MemoBase"):
        MemoBase()
    assert view.dirty_count == 0
