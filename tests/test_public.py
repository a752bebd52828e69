"""The public names: each is there, and the example in its docstring runs."""

from __future__ import annotations

import doctest

import pytest

import dbzero
from dbzero import db0


def test_the_package_is_its_own_attribute() -> None:
    assert db0 is dbzero


def test_every_public_name_exists() -> None:
    assert [name for name in dbzero.__all__ if not hasattr(dbzero, name)] == []
    assert dbzero.__all__ == sorted(dbzero.__all__)


@pytest.mark.parametrize("name", [n for n in dbzero.__all__ if ">>>" in (getattr(dbzero, n).__doc__ or "")])
def test_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runner = doctest.DocTestRunner(verbose=False)
    try:
        for test in doctest.DocTestFinder(recurse=False).find(getattr(dbzero, name), name, globs={}):
            runner.run(test)
        assert runner.tries and not runner.failures, capsys.readouterr().out
    finally:
        dbzero.close()
