"""Fixtures: a store directory that is checked as a whole after every test that used it.

Property tests run the same examples each time, so that what passes once passes again, on a busy machine, too. With
DBZERO_EXPLORE=1 they look for new ones. (The programs of `stress/` do that by their seeds.)
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import dbzero as db0
from dbzero.model import scope
from dbzero.query.check import check_index
from dbzero.storage.verify import check_root

settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("steady", settings.get_profile("explore"), derandomize=True)
settings.load_profile("explore" if os.environ.get("DBZERO_EXPLORE") else "steady")


@pytest.fixture(autouse=True)
def _session_scope() -> Iterator[None]:
    """Tests of lower layers install views of their own; the session's answers are back in force after each."""
    answers = scope._view_of, scope._view_of_uuid
    yield
    scope.install(*answers)
    scope.set_current(None)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[str]:
    """An empty root directory. Afterwards dbzero is closed, every prefix below the directory has to pass the whole check,
    and its tag index has to say what its objects do."""
    directory = str(tmp_path / "root")
    yield directory
    db0.close()
    gc.collect()
    assert check_root(directory) == []
    assert index_problems(directory) == []


def index_problems(directory: str) -> list[str]:
    """What the tag indexes of the prefixes below a directory say wrong."""
    db0.init(directory, autocommit=False)
    try:
        problems = []
        for prefix in list(db0.get_prefixes()):
            db0.open(prefix.name, "r")
            problems += check_index(scope.current_view(False))
        return problems
    finally:
        db0.close()


@pytest.fixture
def store(root: str) -> str:
    """A root directory with dbzero initialized on it (autocommit off) and prefix "main" current."""
    db0.init(root, autocommit=False)
    db0.open("main")
    return root
