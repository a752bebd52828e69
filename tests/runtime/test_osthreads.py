"""Whether a process forks without telling Python: what a uwsgi master says of itself."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest

from dbzero.runtime import osthreads

HOOKS = "py-call-uwsgi-fork-hooks"


@pytest.mark.parametrize(
    ("master", "options", "unheard"),
    [
        (os.getpid, {}, True),
        (os.getpid, {HOOKS: b"false"}, True),
        (os.getpid, {HOOKS: True}, False),  # of a command line
        (os.getpid, {HOOKS: b"true"}, False),  # of a file
        (os.getppid, {}, False),  # a worker that imports by itself
        (lambda: 0, {}, False),  # no master
    ],
)
def test_a_master_of_uwsgi(
    monkeypatch: pytest.MonkeyPatch, master: object, options: dict[str, object], unheard: bool
) -> None:
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(masterpid=master, opt=options))  # type: ignore[arg-type]
    assert osthreads.forks_unheard() is unheard


def test_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not osthreads.forks_unheard()
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace())  # type: ignore[arg-type]
    assert not osthreads.forks_unheard(), "somebody's module of that name"
