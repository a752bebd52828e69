"""The object graph that the demo keeps: a library of modules, their classes and functions, and how they refer to each other."""

from __future__ import annotations

from dataclasses import dataclass, field

import dbzero as db0


@db0.memo
@dataclass(eq=False)
class Function:
    """A function or method, nested ones included."""

    name: str
    qualname: str  # dotted, from the module's name on
    module: str  # name of the module that it stands in
    line: int
    lines: int
    arguments: int
    doc: str | None


@db0.memo
@dataclass(eq=False)
class Class:
    """A class statement."""

    name: str
    qualname: str  # dotted, from the module's name on
    module: str  # name of the module that it stands in
    line: int
    lines: int
    doc: str | None
    base_names: tuple[str, ...]  # as written
    methods: list[Function]
    bases: list[Class] = field(default_factory=list)  # those that are in the library


@db0.memo
@dataclass(eq=False)
class Module:
    """A source file."""

    name: str
    path: str
    size: int  # bytes
    lines: int
    doc: str | None
    bindings: dict[str, str]  # local name -> what an import statement bound it to, dotted
    stars: list[str]  # modules it imports everything from
    import_names: list[str]  # modules it imports, by name
    classes: dict[str, Class]  # by name within the module, dotted when nested
    functions: list[Function]  # those that are in no class
    imports: list[Module] = field(default_factory=list)  # those of `import_names` that are in the library
    linked: bool = False


@db0.memo(singleton=True)
class Library:
    """Root of the graph. The counters, the tags and the indexes agree with `modules` in every committed state."""

    def __init__(self, python: str, path: str, total: int) -> None:
        self.python = python
        self.path = path
        self.total = total  # modules there are to read
        self.modules: dict[str, Module] = {}
        self.classes = 0
        self.functions = 0
        self.lines = 0
        self.linked = 0
        self.links = 0
        self.finished = False
        self.imported: set[str] = set()  # names of all modules that some module imports, built-in ones included
        # What is counted or named can be asked for by range, and be sorted by.
        self.by_lines = db0.index()
        self.by_arguments = db0.index()  # functions
        self.by_methods = db0.index()  # classes
        self.by_size = db0.index()  # modules
        self.by_name = db0.index()
