"""Reading source files for the demo: pure functions over a small tree."""

from __future__ import annotations

from pathlib import Path

from dbzero.cli.demo import scan

SOURCE = '''"""Doc of the module."""
import os.path
import json as j
from . import sibling
from .sibling import Base as B, helper
from elsewhere import *

class Outer(B, j.JSONDecoder, metaclass=type):
    """Doc of Outer."""

    class Inner(Outer[int]):
        def deep(self): ...

    async def method(self, a, /, b, *, c):
        def local():
            import re

def function(x):
    """Doc of function."""
    return x

if True:
    class Twice: pass
else:
    class Twice: pass
'''


def tree(root: Path) -> Path:
    package = root / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "main.py").write_text(SOURCE)
    (package / "test").mkdir()
    (package / "test" / "ignored.py").write_text("")
    (root / "site-packages").mkdir()
    (root / "site-packages" / "foreign.py").write_text("")
    (root / "not-a-name.py").write_text("")
    (root / "broken.py").write_text("def (:\n")
    return package / "main.py"


def test_find_modules_skips_tests_packages_and_what_is_no_module(tmp_path: Path) -> None:
    tree(tmp_path)
    assert [name for name, _ in scan.find_modules(tmp_path)] == ["broken", "pack", "pack.main"]


def test_declarations(tmp_path: Path) -> None:
    path = tree(tmp_path)
    facts = scan.read_module("pack.main", path)
    assert facts.doc == "Doc of the module."
    assert facts.size == len(SOURCE)
    assert facts.lines == SOURCE.count("\n")
    assert list(facts.classes) == ["Outer", "Outer.Inner", "Twice"]
    outer = facts.classes["Outer"]
    assert (outer.qualname, outer.bases, outer.doc) == ("pack.main.Outer", ["B", "j.JSONDecoder"], "Doc of Outer.")
    assert [(m.name, m.arguments) for m in outer.methods] == [("method", 4), ("local", 0)]
    assert facts.classes["Outer.Inner"].bases == ["Outer"]
    assert [m.qualname for m in facts.classes["Outer.Inner"].methods] == ["pack.main.Outer.Inner.deep"]
    (function,) = facts.functions
    assert (function.qualname, function.lines, function.arguments, function.doc) == (
        "pack.main.function",
        3,
        1,
        "Doc of function.",
    )


def test_imports(tmp_path: Path) -> None:
    facts = scan.read_module("pack.main", tree(tmp_path))
    assert facts.imports == ["os.path", "json", "pack", "pack.sibling", "elsewhere", "re"]
    assert facts.stars == ["elsewhere"]
    expected = {
        "os": "os",
        "j": "json",
        "sibling": "pack.sibling",
        "B": "pack.sibling.Base",
        "helper": "pack.sibling.helper",
    }
    assert expected.items() <= facts.bindings.items()


def test_a_file_that_is_no_python_declares_nothing(tmp_path: Path) -> None:
    tree(tmp_path)
    facts = scan.read_module("broken", tmp_path / "broken.py")
    assert (facts.size, facts.lines, facts.classes, facts.functions) == (7, 0, {}, [])


def test_the_standard_library_is_found() -> None:
    names = dict(scan.find_modules(scan.library_path()))
    assert {"ast", "collections", "json.decoder"} <= names.keys()
    assert not [name for name in names if ".test" in name]
