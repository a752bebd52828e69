"""The main job: the graph of a small tree checked in full, and the command itself on the real standard library, interrupted and followed."""

from __future__ import annotations

import io
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

import dbzero as db0
from dbzero.cli.demo import answers, build, scan
from dbzero.cli.demo.command import default_root
from dbzero.cli.demo.model import Class, Function, Library, Module

from ..scripts import run, start

FILES = {
    "base.py": "class Root:\n    def a(self): pass\n\nclass Middle(Root): pass\n",
    "facade.py": "from base import Middle as Renamed\nfrom base import *\n",
    "leaf.py": "import facade\nimport sys\n\nclass Leaf(facade.Renamed, Exception):\n    def long(self):\n        a = 1\n        b = 2\n",
    "star.py": "from facade import *\nfrom base import *\n\nclass Star(Root): pass\n\ndef loose(): pass\n",
    "odd.py": "class Odd(Odd): pass\n",
}


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    source = tmp_path / "source"
    source.mkdir()
    for name, text in FILES.items():
        (source / name).write_text(text)
    db0.init(dbzero_root=str(tmp_path / "store"), autocommit=False)
    db0.open("demo", "rw")
    modules = scan.find_modules(source)
    library = Library("3", str(source), len(modules))
    assert build.build(library, modules, Console(file=io.StringIO()))
    yield library
    db0.close()


def test_counters_agree_with_the_graph(library: Library) -> None:
    assert library.finished
    assert set(library.modules) == {"base", "facade", "leaf", "odd", "star"}
    assert library.classes == 5
    assert library.functions == 3
    assert [len(db0.find(kind)) for kind in (Module, Class, Function)] == [5, 5, 3]
    assert [len(index) for index in (library.by_lines, library.by_name)] == [13, 13]
    assert [len(index) for index in (library.by_size, library.by_methods, library.by_arguments)] == [5, 5, 3]
    assert library.lines == sum(text.count("\n") for text in FILES.values())
    assert library.linked == library.total == 5


def test_names_became_references(library: Library) -> None:
    middle = library.modules["base"].classes["Middle"]
    leaf = library.modules["leaf"].classes["Leaf"]
    assert len(leaf.bases) == 1
    assert leaf.bases[0] is middle
    assert middle.bases[0] is library.modules["base"].classes["Root"]
    assert library.modules["star"].classes["Star"].bases[0] is library.modules["base"].classes["Root"]
    assert [module.name for module in library.modules["leaf"].imports] == ["facade"]
    assert len(library.modules["odd"].classes["Odd"].bases) == 0


def test_answers(library: Library) -> None:
    chain = answers.deepest_hierarchy(library)
    assert all(type(found) is Class for found in chain)
    assert [found.qualname for found in chain] == ["leaf.Leaf", "base.Middle", "base.Root"]
    assert answers.most_imported(library, 2) == [("base", 2), ("facade", 2)]
    (function,) = answers.largest_functions(library, 1)
    assert (function.module, function.qualname, function.lines) == ("leaf", "leaf.Leaf.long", 3)
    screen = io.StringIO()
    answers.show(library, Console(file=screen, width=120))
    assert re.search(r"leaf\.Leaf\b.*\n.*base\.Middle.*\n.*base\.Root", screen.getvalue())


def test_an_empty_library_has_no_answers(tmp_path: Path) -> None:
    db0.init(dbzero_root=str(tmp_path), autocommit=False)
    try:
        answers.show(Library("3", "/nowhere", 0), Console(file=io.StringIO()))
    finally:
        db0.close()


def test_default_root_follows_the_users_data_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_root() == tmp_path / "dbzero" / "demo"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_root() == Path("/home/somebody/.local/share/dbzero/demo")


def test_command_interrupted_killed_followed_and_continued(tmp_path: Path) -> None:
    store = tmp_path / "store"
    demo = ("-m", "dbzero", "demo", "--root", store)
    follower = start(*demo, "--follow", "--idle", "60", cwd=tmp_path)
    try:
        modules = len(scan.find_modules(scan.library_path()))

        interrupted = start(*demo, cwd=tmp_path)
        wait_for_file(store)
        time.sleep(0.6)
        interrupted.send_signal(signal.SIGINT)
        output, _ = interrupted.communicate(timeout=60)
        stopped = re.search(r"Stopped after ([\d,]+) of ([\d,]+) modules", output)
        assert stopped, output
        assert interrupted.returncode == 130
        assert int(stopped[2].replace(",", "")) == modules

        killed = start(*demo, cwd=tmp_path)
        time.sleep(0.7)
        killed.kill()
        output, _ = killed.communicate(timeout=60)
        # The shell around may have been too slow for it to have printed its first line; then there is nothing to compare.
        if started := re.search(r"Process started with data: ([\d,]+) of", output):
            assert started[1] == stopped[1]

        output = run(*demo, cwd=tmp_path, timeout=120)
        assert "Process started with data" in output
        assert "Deepest class hierarchy" in output
        assert "Most imported modules" in output
        assert "Largest functions" in output

        followed, _ = follower.communicate(timeout=60)
        assert follower.returncode == 0, followed
        assert "The other process is done" in followed
        assert f"{modules:,}" in followed
    finally:
        follower.kill()
        follower.communicate()

    found = run(*demo, "query", "method lines>=100", "sort lines desc limit 3", cwd=tmp_path)
    assert re.search(r"^[\d,]+ found, 3 shown", found, re.MULTILINE)
    again = run(*demo, cwd=tmp_path)
    assert re.search(rf"Process started with data: {modules:,} of {modules:,} modules", again)
    assert "Reading modules" not in again
    assert (
        output[output.index("Deepest") : output.index("Answered")]
        == again[again.index("Deepest") : again.index("Answered")]
    )


def wait_for_file(directory: Path) -> None:
    deadline = time.monotonic() + 30
    while not list(directory.glob("*.db0")):
        assert time.monotonic() < deadline, f"no prefix appeared in {directory}"
        time.sleep(0.02)


def test_nothing_to_follow(tmp_path: Path) -> None:
    process = start("-m", "dbzero", "demo", "--root", tmp_path / "store", "--follow", "--idle", "0.2", cwd=tmp_path)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "in another terminal" in output


def test_an_unusable_root_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    process = start("-m", "dbzero", "demo", "--root", tmp_path / "file", cwd=tmp_path)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output.startswith("dbzero demo: ")
    assert "Traceback" not in output
