"""``demo query``: what the language accepts, that its answers are those of a naive reading, and the command's errors."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

import dbzero as db0
from dbzero.cli.demo import build, language, scan, search
from dbzero.cli.demo.language import Both, Either, Node, Not, QueryError, Range, Request, Word, parse
from dbzero.cli.demo.model import Class, Function, Library, Module

from ..scripts import start

FILES = {
    "plain.py": '''"""Doc."""
import sys, os.path
class A: pass
class _B(A, Exception):
    "Doc of B"
    def __init__(self, a, b): pass
    def method(self): pass
    @property
    def value(self): pass
    class Inner(A):
        @staticmethod
        def still(a): pass
''',
    "pack/__init__.py": "import sys\n",
    "pack/deep.py": """import pack
async def run(a, b, c, d):
    "Doc of run"
    def inner():
        pass
    return inner
@deco(1)
@other
async def decorated(): pass
def _private():
    return [
        1,
        2,
    ]
""",
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    root = tmp_path_factory.mktemp("query")
    for name, text in FILES.items():
        (root / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "source" / name).write_text(text)
    db0.init(dbzero_root=str(root / "store"), autocommit=False)
    db0.open("demo", "rw")
    modules = scan.find_modules(root / "source")
    library = Library("3", str(root / "source"), len(modules))
    assert build.build(library, modules, Console(file=io.StringIO()))
    yield library
    db0.close()


def names(library: Library, text: str) -> list[str]:
    request = parse(text)
    found = search.ordered(library, request, search.selection(library, request))
    return [obj.name for obj in found[: request.limit]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("module", ["pack", "pack.deep", "plain"]),
        ("modules package", ["pack"]),
        ("imports:sys", ["pack", "plain"]),
        ("in:pack", ["_private", "decorated", "inner", "pack.deep", "run"]),
        ("base:Exception", ["_B"]),
        ("class derived", ["Inner", "_B"]),
        ("method not dunder", ["method", "still", "value"]),
        ("static or property", ["still", "value"]),
        ("async", ["decorated", "run"]),
        ("decorated", ["decorated", "still", "value"]),
        ("nested function", ["inner"]),
        ("nested", ["Inner", "inner"]),
        ("private", ["_B", "_private"]),
        ("dunder", ["__init__"]),
        ("documented function", ["run"]),
        ("function arguments>3", ["run"]),
        ("function arguments=2..3", ["__init__"]),
        ("methods>=1", ["Inner", "_B"]),
        ("name=A", ["A"]),
        ("name=pack*", ["pack", "pack.deep"]),
        ("name>still", ["value"]),
        ("name<B class", ["A"]),
        ("not (function or class) not in:pack", ["pack", "plain"]),
        ("in:nowhere", []),
    ],
)
def test_what_is_found(library: Library, text: str, expected: list[str]) -> None:
    assert sorted(names(library, text)) == expected


def test_orders_and_limits(library: Library) -> None:
    by_lines = [(-f.lines, f.name) for f in db0.find(Function)]
    assert names(library, "function sort lines desc, name") == [name for _, name in sorted(by_lines)]
    assert names(library, "function sort lines desc, name limit 2") == [name for _, name in sorted(by_lines)][:2]
    assert names(library, "sort size") == [m.name for m in sorted(db0.find(Module), key=lambda m: m.size)]
    assert len(names(library, "limit 3")) == 3


@pytest.mark.parametrize(
    ("text", "at", "what"),
    [
        ("functoin", 0, "did you mean 'function'"),
        ("class xyzzy", 6, "there are module, class, function"),
        ("lines", 0, "compare it, as in lines>100"),
        ("line>3", 0, "did you mean 'lines'"),
        ("lines>", 6, "a value is missing"),
        ("class lines>x", 12, "is a number"),
        ("class or", 8, "the query ends"),
        ("class and limit 3", 10, "'limit' stands"),
        ("(class", 6, "a ')' is missing"),
        ("class)", 5, "closes nothing"),
        ("", 0, "the query ends"),
        ("class limit 0", 12, "at least 1"),
        ("class limit 3 limit 4", 14, "already"),
        ("class sort", 10, "a field is missing"),
        ("class sort lines, lines", 18, "sorted by lines already"),
        ("class explain module", 14, "comes nothing else"),
        ("im:sys", 0, "unknown word with a colon 'im'"),
        ("imports:", 0, "a name is missing"),
        ("not not", 7, "the query ends"),
        ("class = 3", 0, "unknown field 'class'"),
    ],
)
def test_errors_show_where(text: str, at: int, what: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(text)
    message, shown, mark = str(caught.value).split("\n")
    assert what in message
    assert shown == f"  {text}"
    assert mark == "  " + " " * at + "^"


@given(st.text(alphabet="ab():,<>=*. 19\u00e9\u00b2" + "lines", max_size=20))
def test_any_text_is_a_query_or_an_error(text: str) -> None:
    try:
        assert isinstance(parse(text), Request)
    except QueryError:
        pass


WORDS = (*language.KINDS, "method", "documented", "private", "dunder", "derived", "in:pack", "in:plain")
LEAVES = st.one_of(
    st.sampled_from(WORDS).map(Word),
    st.builds(
        lambda name, low, high, *included: Range(name, low, high, *included),
        st.sampled_from(("lines", "arguments", "methods")),
        st.none() | st.integers(0, 6),
        st.none() | st.integers(0, 6),
        st.just(True),
        st.just(True),
    ),
)
NODES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.filter(lambda node: not isinstance(node, Not)).map(Not),
        st.lists(inner, min_size=2, max_size=3).map(lambda items: Both(tuple(items))),
        st.lists(inner, min_size=2, max_size=3).map(lambda items: Either(tuple(items))),
    ),
    max_leaves=8,
)


def naive(obj: Any, node: Node) -> bool:
    """Whether the node holds for an object, told by nothing but its attributes."""
    if isinstance(node, Not):
        return not naive(obj, node.item)
    if isinstance(node, Both):
        return all(naive(obj, item) for item in node.items)
    if isinstance(node, Either):
        return any(naive(obj, item) for item in node.items)
    if isinstance(node, Range):
        values: dict[str, Any] = {"lines": obj.lines, "arguments": getattr(obj, "arguments", None)}
        values["methods"] = len(obj.methods) if isinstance(obj, Class) else None
        value = values[node.field]
        return (
            value is not None and (node.low is None or value >= node.low) and (node.high is None or value <= node.high)
        )
    name = obj.name.rpartition(".")[2]
    dunder = name[:2] == name[-2:] == "__"
    home = obj.name.rpartition(".")[0] if isinstance(obj, Module) else obj.module
    return {
        "module": isinstance(obj, Module),
        "class": isinstance(obj, Class),
        "function": isinstance(obj, Function),
        "method": isinstance(obj, Function) and obj.qualname.startswith(("plain._B", "plain.A")),
        "documented": bool(obj.doc),
        "private": name[0] == "_" and not dunder,
        "dunder": dunder,
        "derived": isinstance(obj, Class) and len(obj.base_names) > 0,
        "in:pack": home.partition(".")[0] == "pack",
        "in:plain": home == "plain",
    }[node.text]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(node=NODES)
def test_answers_are_those_of_a_naive_reading(library: Library, node: Node) -> None:
    every = [obj for kind in search.EVERYTHING for obj in db0.find(kind)]
    assert len(every) == 3 + 3 + 8
    found = list(search.selection(library, Request(node)))
    assert {obj.qualname if hasattr(obj, "qualname") else obj.name for obj in found} == {
        obj.qualname if hasattr(obj, "qualname") else obj.name for obj in every if naive(obj, node)
    }
    assert len(found) == len(set(found))


def test_what_is_shown(library: Library) -> None:
    screen = io.StringIO()
    search.ask(library, parse("function sort arguments desc limit 1 explain"), Console(file=screen, width=120))
    shown = screen.getvalue()
    assert "class Function: 8 estimated, 8 found" in shown
    assert re.search(r"function │ pack.deep.run │ +5 │ +4 │ pack.deep:2 ", shown)
    assert re.search(r"^8 found, 1 shown: counted in [\d.]+ ms, 1 fetched in [\d.]+ ms\.$", shown, re.MULTILINE)
    screen = io.StringIO()
    search.ask(library, parse("module sort arguments"), Console(file=screen, width=120))
    assert "None of what was found has arguments to be sorted by." in screen.getvalue()


@pytest.mark.parametrize("text", search.EXAMPLES)
def test_examples_are_queries(text: str) -> None:
    assert parse(text).where is not None


def test_the_command_without_a_store_or_with_a_wrong_query(tmp_path: Path) -> None:
    for words, status, expected in (
        (["class"], 1, "run `python -m dbzero demo` first"),
        (["clas"], 1, "dbzero demo: unknown word 'clas': did you mean 'class'?\n  clas\n  ^\n"),
        ([], 0, "Examples:"),
    ):
        process = start("-m", "dbzero", "demo", "query", "--root", tmp_path / "none", *words, cwd=tmp_path)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == status, output
        assert expected in output
        assert not (tmp_path / "none").exists()
