"""The pages whose programs run by themselves print what the pages say."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbzero.storage.verify import check_root
from tests.scripts import run

from .pages import page

PAGES = ["pipeline.md", "jobs.md", "limits.md"]


@pytest.mark.parametrize("name", PAGES)
def test_programs_print_what_the_page_says(tmp_path: Path, name: str) -> None:
    guide = page(name)
    guide.write(tmp_path)
    assert guide.printed, "the page shows no output"
    for command, expected in guide.printed:
        assert command[0] == "python"
        assert run(*command[1:], cwd=tmp_path) == expected, command
    assert check_root(str(tmp_path / "data")) == []


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_the_pipeline_with_other_start_methods(tmp_path: Path, method: str) -> None:
    guide = page("pipeline.md")
    guide.write(tmp_path)
    assert run("pipeline.py", method, cwd=tmp_path) == guide.printed[0][1]


def test_the_jobs_survive_every_kill(tmp_path: Path) -> None:
    """More kills than the page has, of workers that have taken a job or are just finishing it."""
    page("jobs.md").write(tmp_path)
    output = run("jobs.py", "40", "7", cwd=tmp_path, timeout=110)
    assert output == "jobs done: 40 of 40\nsome begun again: True\nleft over: 0\neach result once: True\n"
    assert check_root(str(tmp_path / "data")) == []
