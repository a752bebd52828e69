"""@migration: old singletons get the attributes that new code sets."""

from __future__ import annotations

from typing import Any

import pytest

import dbzero as db0
from dbzero.model.migration import assigned

calls: list[str] = []


def first_version() -> Any:
    @db0.memo(singleton=True, id="tests/migration/Settings")
    class Settings:
        def __init__(self) -> None:
            self.size = 1

    return Settings


def second_version() -> Any:
    @db0.memo(singleton=True, id="tests/migration/Settings")
    class Settings:
        def __init__(self) -> None:
            self.size = 1
            self.color = "red"
            self.__secret = 5
            self.uncovered = 1

        @db0.migration
        def secret(self) -> None:
            calls.append("secret")
            self.__secret = self.size + 1

        @db0.migration
        def color_too(self) -> None:
            calls.append("color")
            assert db0.fetch(Settings) is self
            self.color = "blue"

        def read(self) -> tuple[Any, Any]:
            return self.color, self.__secret

    return Settings


def reopen(root: str, mode: str = "rw") -> None:
    db0.close()
    db0.init(root, autocommit=False)
    db0.open("main", mode)


@pytest.mark.parametrize("path", ["construct", "fetch", "find", "uuid"])
def test_every_way_to_the_singleton_migrates_once(store: str, path: str) -> None:
    calls.clear()
    uuid = db0.uuid(first_version()())
    reopen(store)
    kind = second_version()
    found = {
        "construct": kind,
        "fetch": lambda: db0.fetch(kind),
        "find": lambda: db0.find_singleton(kind),
        "uuid": lambda: db0.fetch(uuid),
    }[path]
    assert found().read() == ("blue", 2)
    assert calls == ["color", "secret"]  # in the order of __init__
    assert not hasattr(found(), "uncovered")
    reopen(store)
    assert found().read() == ("blue", 2) and calls == ["color", "secret"]


def test_new_instances_and_readers_are_left_alone(store: str) -> None:
    calls.clear()
    first_version()()
    reopen(store, "r")
    kind = second_version()
    assert db0.fetch(kind).size == 1 and not hasattr(db0.fetch(kind), "color")
    db0.open("fresh")
    assert kind().read() == ("red", 5)
    assert calls == []


def test_a_failing_migration_leaves_nothing(store: str) -> None:
    first_version()()
    reopen(store)

    @db0.memo(singleton=True, id="tests/migration/Settings")
    class Settings:
        def __init__(self) -> None:
            self.size = 1
            self.color = "red"

        @db0.migration
        def color_first(self) -> None:
            self.color = "blue"
            raise KeyError("not yet")

    for _ in range(2):
        with pytest.raises(KeyError):
            db0.fetch(Settings)
    with pytest.raises(KeyError):
        Settings()


def test_two_migrations_of_one_attribute() -> None:
    with pytest.raises(db0.MigrateError, match="both one and two"):

        @db0.memo(singleton=True)
        class Twice:
            def __init__(self) -> None:
                self.x = 1

            @db0.migration
            def one(self) -> None:
                self.x = 1

            @db0.migration
            def two(self) -> None:
                self.x = 2


def test_what_counts_as_assigned() -> None:
    def method(self: Any, other: Any) -> Any:
        self.a = other.b = 1
        other.c = self
        self.d: int = other
        if other:
            self.e, self.f = other
        self.g.h = 1
        return lambda: self

    assert assigned(method)[:3] == ["a", "d", "e"]
    assert set(assigned(method)) == {"a", "d", "e", "f"}
