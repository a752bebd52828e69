"""What makes the graph searchable: the tags of its objects, and their places in the library's indexes.

Tags are those of :mod:`.language`: labels, and ``in:``, ``imports:`` and ``base:`` with a name. Objects are entered once, with the module that
they stand in; nothing of what tags and indexes tell changes later.
"""

from __future__ import annotations

from collections.abc import Iterator

import dbzero as db0

from .model import Class, Function, Library, Module
from .scan import ClassFacts, FunctionFacts, ModuleFacts

_MARKS = {
    "async": "async",
    "property": "property",
    "cached_property": "property",
    "functools.cached_property": "property",
}
_MARKS |= {"staticmethod": "static", "classmethod": "classmethod"}


def enter(library: Library, module: Module, facts: ModuleFacts) -> None:
    """Tag and index a module that was just made of `facts`, with all that stands in it."""
    parts = facts.name.split(".")
    places = [f"in:{'.'.join(parts[:count])}" for count in range(1, len(parts) + 1)]
    package = ("package",) if facts.path.stem == "__init__" else ()
    imports = [f"imports:{name}" for name in facts.imports]
    db0.tags(module).add(*_common(facts.name.rpartition(".")[2], facts.doc), *package, *imports, *places[:-1])
    library.by_lines.add(facts.lines, module)
    library.by_size.add(facts.size, module)
    library.by_name.add(facts.name, module)
    library.imported.update(facts.imports)
    top = len(facts.name) + 1
    for function, found in zip(module.functions, facts.functions, strict=True):
        _enter_function(library, function, found, top, places)
    for stored, found_class in zip(module.classes.values(), facts.classes.values(), strict=True):
        _enter_class(library, stored, found_class, places)
        for function, found in zip(stored.methods, found_class.methods, strict=True):
            _enter_function(library, function, found, len(found_class.qualname) + 1, ["method", *places])


def _enter_function(library: Library, function: Function, facts: FunctionFacts, top: int, tags: list[str]) -> None:
    marks = {_MARKS[mark] for mark in facts.marks if mark in _MARKS}
    if facts.marks != ["async"] and facts.marks:
        marks.add("decorated")
    if "." in facts.qualname[top:]:
        marks.add("nested")
    db0.tags(function).add(*_common(facts.name, facts.doc), *marks, *tags)
    library.by_lines.add(facts.lines, function)
    library.by_arguments.add(facts.arguments, function)
    library.by_name.add(facts.name, function)


def _enter_class(library: Library, stored: Class, facts: ClassFacts, tags: list[str]) -> None:
    bases = [f"base:{name.rpartition('.')[2]}" for name in facts.bases]
    marks = ["decorated"] if facts.marks else []
    if "." in facts.local:
        marks.append("nested")
    if bases:
        marks.append("derived")
    db0.tags(stored).add(*_common(facts.name, facts.doc), *marks, *bases, *tags)
    library.by_lines.add(facts.lines, stored)
    library.by_methods.add(len(facts.methods), stored)
    library.by_name.add(facts.name, stored)


def _common(name: str, doc: str | None) -> Iterator[str]:
    if doc:
        yield "documented"
    if name.startswith("__") and name.endswith("__"):
        yield "dunder"
    elif name.startswith("_"):
        yield "private"
