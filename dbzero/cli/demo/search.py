"""Questions in the demo's language, asked of the store: a syntax tree becomes what ``find`` takes, and its answer is shown."""

from __future__ import annotations

import os
import time
from typing import Any

from rich.console import Console
from rich.table import Table

import dbzero as db0

from . import language
from .language import Either, Node, Not, Range, Request, Word
from .model import Class, Function, Library, Module

CLASSES: dict[str, type] = {"module": Module, "class": Class, "function": Function}
EVERYTHING = list(CLASSES.values())
EXAMPLES = (
    "function async lines>50 sort lines desc limit 5",
    "class base:Exception not documented",
    "(in:asyncio or in:concurrent) property",
    "name=read* method arguments>=4 sort name",
    "module imports:ctypes sort size desc explain",
)


def criterion(library: Library, node: Node) -> Any:
    """What ``find`` takes for a part of a query."""
    if isinstance(node, Word):
        return CLASSES.get(node.text, node.text)
    if isinstance(node, Range):
        return _range(library, node)
    if isinstance(node, Not):
        return (EVERYTHING, db0.no(criterion(library, node.item)))
    if isinstance(node, Either):
        return [criterion(library, item) for item in node.items]
    found = [criterion(library, item) for item in node.items if not isinstance(item, Not)]
    excluded = [criterion(library, item.item) for item in node.items if isinstance(item, Not)]
    return (*(found or [EVERYTHING]), db0.no(*excluded)) if excluded else tuple(found)


def _range(library: Library, node: Range) -> Any:
    index = getattr(library, f"by_{node.field}")
    found = index.select(node.low, node.high)
    if node.low is not None and not node.low_included:
        return (found, db0.no(index.select(node.low, node.low)))
    if node.high is not None and not node.high_included:
        return (found, db0.no(index.select(node.high, node.high)))
    return found


def selection(library: Library, request: Request) -> Any:
    """The query of a request, in no order that was asked for."""
    return db0.find(EVERYTHING if request.where is None else criterion(library, request.where))


def ordered(library: Library, request: Request, found: Any) -> Any:
    """A selection in the order of the request. What lacks a field that it is sorted by is left out."""
    for name, descending in reversed(request.order):
        found = getattr(library, f"by_{name}").sort(found, desc=descending)
    return found


def ask(library: Library, request: Request, console: Console) -> None:
    """Answer a request, and tell how long counting and fetching the shown results took."""
    started = time.perf_counter()
    found = selection(library, request)
    total = len(found)
    counted = time.perf_counter()
    shown = list(ordered(library, request, found)[: request.limit])
    done = time.perf_counter()
    if request.explain:
        console.print(str(found.explain()), markup=False, highlight=False)
    if shown:
        console.print(_table(library, request, shown))
    elif total:
        fields = " and ".join(name for name, _ in request.order)
        console.print(f"None of what was found has {fields} to be sorted by.")
    cut = f", {len(shown):,} shown" if len(shown) < total else ""
    console.print(
        f"{total:,} found{cut}: counted in {(counted - started) * 1e3:.2f} ms, "
        f"{len(shown):,} fetched in {(done - counted) * 1e3:.2f} ms."
    )


def _table(library: Library, request: Request, shown: list[Any]) -> Table:
    table = Table()
    fields = ["lines", *[name for name, _ in request.order if name not in ("lines", "name")]]
    for column in ("kind", "name", *fields, "where"):
        table.add_column(column, justify="right" if column in fields else "left", overflow="fold")
    for obj in shown:
        kind = type(obj).__name__.lower()
        name, where = (
            (obj.name, os.path.relpath(obj.path, library.path))
            if kind == "module"
            else (obj.qualname, f"{obj.module}:{obj.line}")
        )
        table.add_row(kind, name, *[f"{_value(obj, name):,}" for name in fields], where)
    return table


def _value(obj: Any, name: str) -> int:
    return len(obj.methods) if name == "methods" else int(getattr(obj, name))


def help_text() -> str:
    """The language in a screenful."""
    lines = ["Words select, and stand for kinds of objects and for labels:", f"  {', '.join(language.KINDS)}"]
    lines += [f"  {word:<12} {meaning}" for word, meaning in language.LABELS.items()]
    lines += [f"  {word + ':NAME':<12} {meaning}" for word, meaning in language.PREFIXES.items()]
    lines += [
        f"Fields are compared by > >= < <= =, as in lines>200, lines=100..200, name=read*: {', '.join(language.FIELDS)}.",
        "Parts that follow each other must all hold; also: not, or, and, parentheses.",
        f"At the end: sort FIELD [desc], FIELD [desc], ... and limit NUMBER (default {language.LIMIT}) and explain.",
        "Examples:",
    ]
    return "\n".join([*lines, *[f'  python -m dbzero demo query "{text}"' for text in EXAMPLES]])
