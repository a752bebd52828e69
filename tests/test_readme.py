"""The README is true: its programs print what it says, and what it points to exists.

A ``python`` block is a whole program; each ``text`` block right behind it is what one run of it prints, in order, all in one directory.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .scripts import ROOT, run

README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def programs() -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for language, text in BLOCK.findall(README):
        if language == "python":
            found.append((text, []))
        elif language == "text":
            found[-1][1].append(text)
    return found


@pytest.mark.parametrize("number", range(len(programs())))
def test_program(tmp_path: Path, number: int) -> None:
    source, outputs = programs()[number]
    assert outputs, "a program of the README shows no output"
    script = tmp_path / "program.py"
    script.write_text(source)
    assert [run(script, cwd=tmp_path) for _ in outputs] == outputs


def test_the_two_commands_stand_first_and_alone() -> None:
    shell = [text for language, text in BLOCK.findall(README) if language == "sh"]
    assert len(shell) == 2
    assert re.fullmatch(r"python3 -m venv \S+ && \S+ install \. && \S+ -m dbzero demo\n", shell[0])
    assert re.fullmatch(r"python3 -m venv \S+ && \S+ install '\.\[test\]' && \S+ -m pytest\n", shell[1])
    assert README.index(shell[0]) < README.index(shell[1]) < README.index("```python")


def test_every_promise_names_a_test_that_exists() -> None:
    rows = re.findall(r"^\| (R\d+) \| .* \| (.*) \|$", README, re.MULTILINE)
    assert [name for name, _ in rows] == [f"R{number}" for number in range(1, 11)]
    for name, cell in rows:
        places = re.findall(r"`([^`]+)`", cell)
        assert places, name
        for place in places:
            path, _, test = place.partition("::")
            assert (ROOT / path).exists(), f"{name}: {path}"
            assert not test or re.search(rf"\bdef {test}\b", (ROOT / path).read_text()), f"{name}: {place}"


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
