"""Reading Python source files: which there are, and what each declares. Knows nothing of dbzero."""

from __future__ import annotations

import ast
import sysconfig
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib-dynload"}


@dataclass(slots=True)
class FunctionFacts:
    name: str
    qualname: str
    line: int
    lines: int
    arguments: int
    doc: str | None
    marks: list[str] = field(default_factory=list)  # "async", and names of decorators


@dataclass(slots=True)
class ClassFacts:
    name: str
    qualname: str
    local: str  # name within the module
    line: int
    lines: int
    doc: str | None
    bases: list[str]
    marks: list[str] = field(default_factory=list)  # names of decorators
    methods: list[FunctionFacts] = field(default_factory=list)


@dataclass(slots=True)
class ModuleFacts:
    name: str
    path: Path
    size: int
    lines: int = 0
    doc: str | None = None
    bindings: dict[str, str] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    imports: list[str] = field(default_factory=list)
    classes: dict[str, ClassFacts] = field(default_factory=dict)
    functions: list[FunctionFacts] = field(default_factory=list)


def library_path() -> Path:
    """Directory of the running Python's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def find_modules(root: Path) -> list[tuple[str, Path]]:
    """Dotted name and path of every module below `root`, tests and installed packages left out, in a fixed order."""
    return sorted(_walk(root, ()))


def _walk(directory: Path, package: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for entry in directory.iterdir():
        if entry.is_dir():
            if entry.name not in SKIPPED and entry.name.isidentifier():
                yield from _walk(entry, (*package, entry.name))
        elif entry.suffix == ".py" and entry.stem.isidentifier():
            parts = package if entry.stem == "__init__" else (*package, entry.stem)
            if parts:
                yield ".".join(parts), entry


def read_module(name: str, path: Path) -> ModuleFacts:
    """What a source file declares. A file that is no valid Python declares nothing."""
    raw = path.read_bytes()
    facts = ModuleFacts(name, path, len(raw))
    try:
        with tokenize.open(path) as file:
            tree = ast.parse(file.read())
    except (SyntaxError, ValueError):
        return facts
    facts.lines = raw.count(b"\n")
    facts.doc = ast.get_docstring(tree)
    _Reader(facts, path.stem == "__init__").visit(tree)
    return facts


class _Reader(ast.NodeVisitor):
    def __init__(self, facts: ModuleFacts, is_package: bool) -> None:
        self.facts = facts
        self.package = facts.name if is_package else facts.name.rpartition(".")[0]
        self.scope: list[str] = []
        self.owner: ClassFacts | None = None  # the innermost class around, functions in between included

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._imported(alias.name)
            if alias.asname:
                self._bind(alias.asname, alias.name)
            else:
                first = alias.name.partition(".")[0]
                self._bind(first, first)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        source = node.module or ""
        if node.level:
            parts = self.package.split(".") if self.package else []
            if node.level - 1 >= len(parts):  # beyond the top: the file is no importable module
                return
            parts = parts[: len(parts) - (node.level - 1)]
            source = ".".join([*parts, source] if source else parts)
        self._imported(source)
        for alias in node.names:
            if alias.name == "*":
                if source not in self.facts.stars:
                    self.facts.stars.append(source)
            else:
                self._bind(alias.asname or alias.name, f"{source}.{alias.name}")

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        local = ".".join([*self.scope, node.name])
        bases = [name for name in map(_dotted, node.bases) if name]
        facts = ClassFacts(
            node.name,
            f"{self.facts.name}.{local}",
            local,
            node.lineno,
            _lines(node),
            ast.get_docstring(node),
            bases,
            _decorators(node),
        )
        if local in self.facts.classes:  # defined twice, by an `if` or `try`: the first is the usual one
            return
        self.facts.classes[local] = facts
        self._inside(node, facts)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        arguments = node.args
        count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
        qualname = ".".join([self.facts.name, *self.scope, node.name])
        marks = ["async", *_decorators(node)] if isinstance(node, ast.AsyncFunctionDef) else _decorators(node)
        facts = FunctionFacts(node.name, qualname, node.lineno, _lines(node), count, ast.get_docstring(node), marks)
        (self.owner.methods if self.owner else self.facts.functions).append(facts)
        self._inside(node, self.owner)

    def _inside(self, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, owner: ClassFacts | None) -> None:
        outer, self.owner = self.owner, owner
        self.scope.append(node.name)
        for child in node.body:
            self.visit(child)
        self.scope.pop()
        self.owner = outer

    def _imported(self, name: str) -> None:
        if name not in self.facts.imports:
            self.facts.imports.append(name)

    def _bind(self, local: str, target: str) -> None:
        self.facts.bindings.setdefault(local, target)


def _lines(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _decorators(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Dotted names of the decorators, arguments dropped; "?" for one that is no name."""
    found = (outer.func if isinstance(outer, ast.Call) else outer for outer in node.decorator_list)
    return [_dotted(name) or "?" for name in found]


def _dotted(node: ast.expr) -> str | None:
    """`a.b.c` of a base class expression, subscripts dropped; None for anything else (calls, ...)."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        outer = _dotted(node.value)
        return f"{outer}.{node.attr}" if outer else None
    if isinstance(node, ast.Subscript):
        return _dotted(node.value)
    return None
