"""The first examples that a user of dbzero meets, run as programs of their own, twice, so that the second run finds the first one's data."""

from __future__ import annotations

from pathlib import Path

from .scripts import run

HELLO = """
from dataclasses import dataclass
import dbzero as db0

@db0.memo(singleton=True)
@dataclass
class Root:
    greeting: str

    def greet(self):
        print(self.greeting)

if __name__ == "__main__":
    db0.init(dbzero_root="./data")

    if db0.exists(Root):
        print("Process started with data...")
        root = db0.fetch(Root)
    else:
        root = Root("Hello, World!")

    root.greet()  # Output: Hello, World!
"""

PERSON = """
import dbzero as db0

@db0.memo
class Person:
    def __init__(self, name: str, age: int):
        self.name = name
        self.age = age

@db0.memo(singleton=True)
class Directory:
    def __init__(self):
        self.people = []

if __name__ == "__main__":
    db0.init(storage_dir="./data", config={"autocommit": True, "autocommit_interval": 1000, "cache_size": 1024 * 1024 * 100})

    if db0.exists(Directory):
        print("Process started with data...")
        person = db0.fetch(Directory).people[0]
    else:
        # Instantiation works just like regular Python
        person = Person("Alice", 30)

        # Attributes can be modified dynamically
        person.age += 1
        person.address = "123 Main St"  # Add new attributes on the fly
        Directory().people.append(person)

    assert type(person) is Person
    print(person.name, person.age, person.address)
"""

PERSON_ALONE = """
import dbzero as db0

@db0.memo
class Person:
    def __init__(self, name: str, age: int):
        self.name = name
        self.age = age

db0.init(dbzero_root="./data")

# Instantiation works just like regular Python
person = Person("Alice", 30)

# Attributes can be modified dynamically
person.age += 1
person.address = "123 Main St"  # Add new attributes on the fly
print(person.name, person.age, person.address)
"""

SINGLETON = """
import dbzero as db0

@db0.memo(singleton=True)
class AppConfig:
    def __init__(self, version: str):
        self.version = version

db0.init(dbzero_root="./data")
config = AppConfig("1.0.0")
config_ref = db0.fetch(AppConfig)  # Same instance
assert config is config_ref
print(config.version)
"""

COLLECTIONS = """
import dbzero as db0

@db0.memo
class Task:
    def __init__(self, description):
        self.description = description

db0.init(dbzero_root="./data")
my_dict = db0.dict(name="Alice", age=30)
my_list = db0.list([1, 2, 3, 4, 5])
my_tuple = db0.tuple(("a", "b", "c"))

my_dict["city"] = "New York"
my_list.append(6)
print(len(my_list))  # 6

tasks = db0.list()
for i in range(100):
    tasks.append(Task(f"Task {i}"))

db0.commit()  # Persist all 100 tasks at once
print(dict(my_dict), my_tuple[1], tasks[99].description)
"""


def twice(tmp_path: Path, source: str) -> tuple[list[str], list[str]]:
    script = tmp_path / "example.py"
    script.write_text(source)
    return run(script, cwd=tmp_path).splitlines(), run(script, cwd=tmp_path).splitlines()


def test_hello_world(tmp_path: Path) -> None:
    first, second = twice(tmp_path, HELLO)
    assert first == ["Hello, World!"]
    assert second == ["Process started with data...", "Hello, World!"]


def test_person(tmp_path: Path) -> None:
    first, second = twice(tmp_path, PERSON)
    assert first == ["Alice 31 123 Main St"]
    assert second == ["Process started with data...", *first]


def test_person_without_a_referrer(tmp_path: Path) -> None:
    first, second = twice(tmp_path, PERSON_ALONE)
    assert first == second == ["Alice 31 123 Main St"]


def test_singleton(tmp_path: Path) -> None:
    first, second = twice(tmp_path, SINGLETON)
    assert first == second == ["1.0.0"]


def test_collections_and_manual_commit(tmp_path: Path) -> None:
    first, second = twice(tmp_path, COLLECTIONS)
    assert first == second == ["6", "{'name': 'Alice', 'age': 30, 'city': 'New York'} b Task 99"]
