"""Fixtures: a store directory that is checked as a whole after every test that used it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

import dbzero as db0
from dbzero.storage.verify import check_root


@pytest.fixture
def root(tmp_path: Path) -> Iterator[str]:
    """An empty root directory. Afterwards dbzero is closed and every prefix below the directory has to pass the whole check."""
    directory = str(tmp_path / "root")
    yield directory
    db0.close()
    gc.collect()
    assert check_root(directory) == []


@pytest.fixture
def store(root: str) -> str:
    """A root directory with dbzero initialized on it (autocommit off) and prefix "main" current."""
    db0.init(root, autocommit=False)
    db0.open("main")
    return root
