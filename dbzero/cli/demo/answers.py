"""What the graph holds, and a few questions to it: ``find`` and indexes select, then it is walked as ordinary Python objects."""

from __future__ import annotations

import heapq

from rich.console import Console
from rich.table import Table

import dbzero as db0

from .model import Class, Function, Library


def summary(library: Library) -> Table:
    """The counters, as they are now."""
    table = Table(title=f"The standard library of Python {library.python}", title_justify="left")
    for column in ("modules", "classes", "functions", "lines of code", "references resolved"):
        table.add_column(column, justify="right")
    read = len(library.modules)
    modules = f"{read:,}" if read == library.total else f"{read:,} of {library.total:,}"
    counts = (library.classes, library.functions, library.lines, library.links)
    table.add_row(modules, *(f"{count:,}" for count in counts))
    return table


def deepest_hierarchy(library: Library) -> list[Class]:
    """The longest chain of base classes, most derived class first."""
    depths: dict[str, int] = {}

    def depth(found: Class, below: frozenset[str]) -> int:
        name = found.qualname
        if name not in depths:
            # A class whose definition depends on a condition can seem to be its own ancestor.
            bases = [base for base in found.bases if base.qualname not in below]
            depths[name] = 1 + max((depth(base, below | {name}) for base in bases), default=0)
        return depths[name]

    # Where no class has a base, any class is a chain.
    every = db0.find(Class, "derived") or db0.find(Class)
    if not every:
        return []
    chain = [max(library.by_name.sort(every), key=lambda found: depth(found, frozenset()))]
    while True:
        seen = {found.qualname for found in chain}
        bases = [base for base in chain[-1].bases if base.qualname not in seen]
        if not bases:
            return chain
        chain.append(max(bases, key=lambda base: depths[base.qualname]))


def most_imported(library: Library, count: int) -> list[tuple[str, int]]:
    """Names of the modules that the most modules import, built-in ones included, each with the number of its importers."""
    importers = ((name, len(db0.find(f"imports:{name}"))) for name in library.imported)
    return heapq.nsmallest(count, importers, key=lambda item: (-item[1], item[0]))


def largest_functions(library: Library, count: int) -> list[Function]:
    """Functions with the most lines. Reads the end of the index, not all functions."""
    found: list[Function] = list(library.by_lines.sort(db0.find(Function), desc=True)[:count])
    return found


def show(library: Library, console: Console) -> None:
    """Print what the library holds and the answers."""
    console.print(summary(library))

    chain = deepest_hierarchy(library)
    table = Table(title=f"Deepest class hierarchy: {len(chain)} levels", title_justify="left")
    table.add_column("class")
    table.add_column("methods", justify="right")
    for level, found in enumerate(chain):
        table.add_row(("└ " if level else "").rjust(2 * level) + found.qualname, str(len(found.methods)))
    if chain and chain[-1].base_names:
        table.add_row("└ ".rjust(2 * len(chain)) + ", ".join(chain[-1].base_names), "")
    console.print(table)

    table = Table(title="Most imported modules", title_justify="left")
    for column in ("module", "importers", "lines"):
        table.add_column(column, justify="left" if column == "module" else "right")
    for name, importers in most_imported(library, 10):
        imported = library.modules.get(name)
        table.add_row(name, str(importers), f"{imported.lines:,}" if imported else "built in")
    console.print(table)

    table = Table(title="Largest functions", title_justify="left")
    for column in ("function", "lines", "where"):
        table.add_column(column, justify="right" if column == "lines" else "left")
    for function in largest_functions(library, 10):
        table.add_row(function.qualname, f"{function.lines:,}", f"{function.module}:{function.line}")
    console.print(table)
