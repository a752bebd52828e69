"""Filling the library, in batches, from wherever an earlier run stopped.

First every module is read and stored (phase one), then names are turned into references between stored objects (phase two). A module is hung into
`Library.modules` whole, together with the counters, and marked `linked` when all its names are resolved; so the store itself says what is left to do.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import dbzero as db0

from . import scan
from .labels import enter
from .model import Class, Function, Library, Module

BATCH = 16  # modules a commit
HOPS = 8  # re-exports followed when a name is resolved


class StopRequest:
    """Whether Ctrl-C or a TERM signal asked to stop. The builder looks between modules, so that it never stops inside one."""

    def __init__(self) -> None:
        self.stopped = False

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        self.stopped = True

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def build(library: Library, modules: list[tuple[str, Path]], console: Console) -> bool:
    """Read and link what is missing. Returns False when asked to stop before the end."""
    with StopRequest().listening() as stop, _progress(console) as progress:
        if not _store_all(library, modules, progress, stop) or not _link_all(library, progress, stop):
            db0.commit()
            return False
    library.finished = True
    db0.commit()
    return True


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[what]}"))
    return Progress(*columns, TimeRemainingColumn(), console=console)


def _store_all(library: Library, modules: list[tuple[str, Path]], progress: Progress, stop: StopRequest) -> bool:
    missing = [(name, path) for name, path in modules if name not in library.modules]
    done = len(modules) - len(missing)
    task = progress.add_task("Reading modules ", total=len(modules), completed=done, what="")
    for count, (name, path) in enumerate(missing, 1):
        if stop.stopped:
            return False
        store_module(library, scan.read_module(name, path))
        if count % BATCH == 0:
            db0.commit()
        progress.update(task, advance=1, what=f"{library.classes:,} classes, {library.functions:,} functions")
    db0.commit()
    return True


def store_module(library: Library, facts: scan.ModuleFacts) -> Module:
    """Make the objects of one module and hang them into the library."""
    classes = {
        local: Class(
            found.name,
            found.qualname,
            facts.name,
            found.line,
            found.lines,
            found.doc,
            tuple(found.bases),
            [_function(facts.name, method) for method in found.methods],
        )
        for local, found in facts.classes.items()
    }
    module = Module(
        facts.name,
        str(facts.path),
        facts.size,
        facts.lines,
        facts.doc,
        facts.bindings,
        facts.stars,
        facts.imports,
        classes,
        [_function(facts.name, found) for found in facts.functions],
    )
    enter(library, module, facts)
    library.modules[facts.name] = module
    library.classes += len(facts.classes)
    library.functions += len(facts.functions) + sum(len(found.methods) for found in facts.classes.values())
    library.lines += facts.lines
    return module


def _function(module: str, facts: scan.FunctionFacts) -> Function:
    return Function(facts.name, facts.qualname, module, facts.line, facts.lines, facts.arguments, facts.doc)


def _link_all(library: Library, progress: Progress, stop: StopRequest) -> bool:
    task = progress.add_task("Linking names   ", total=len(library.modules), completed=library.linked, what="")
    missing = [module for module in library.modules.values() if not module.linked]
    for count, module in enumerate(missing, 1):
        if stop.stopped:
            return False
        library.links += link_module(library, module)
        library.linked += 1
        if count % BATCH == 0:
            db0.commit()
        progress.update(task, advance=1, what=f"{library.links:,} references")
    db0.commit()
    return True


def link_module(library: Library, module: Module) -> int:
    """Turn the names of imports and base classes into references, as far as the library has what they name. Returns how many there are."""
    imports = [library.modules[name] for name in module.import_names if name in library.modules]
    module.imports = imports
    links = len(imports)
    for found in module.classes.values():
        bases = [base for name in found.base_names if (base := resolve(library, module, name)) and base is not found]
        if bases:
            found.bases = bases
            links += len(bases)
    module.linked = True
    return links


def resolve(library: Library, module: Module, name: str) -> Class | None:
    """The stored class that `name` means inside `module`, through imports and re-exports."""
    for _ in range(HOPS):
        if name in module.classes:
            return module.classes[name]
        first, _, rest = name.partition(".")
        target = module.bindings.get(first)
        if target is None:
            return _resolve_star(library, module, name)
        found = _owner(library, f"{target}.{rest}" if rest else target)
        if found is None:
            return None
        module, name = found
    return None


def _resolve_star(library: Library, module: Module, name: str) -> Class | None:
    for star in module.stars:
        source = library.modules.get(star)
        if source is not None and name in source.classes:
            return source.classes[name]
    return None


def _owner(library: Library, dotted: str) -> tuple[Module, str] | None:
    """The module that a dotted name goes into, and the name inside it."""
    parts = dotted.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module = library.modules.get(".".join(parts[:cut]))
        if module is not None:
            return module, ".".join(parts[cut:])
    return None
