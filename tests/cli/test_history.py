"""The copy and compact commands."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

import dbzero as db0
from dbzero.cli.history import moment
from dbzero.cli.main import main
from dbzero.storage.verify import check_root


@pytest.fixture
def store(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    db0.init(root, autocommit=False)
    for name in ("one", "two/deep"):
        db0.open(name)
        kept = db0.list()
        for number in range(30):
            kept.append("x" * 1000 + str(number))
            db0.commit()
        del kept
    db0.close()
    return root


def test_copy(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "copies" / "deep.db0"
    assert main(["copy", "--root", str(store), "/two/deep", str(output)]) == 0
    assert capsys.readouterr().out.startswith("two/deep: state 32, ")
    assert check_root(str(output.parent)) == []
    assert main(["copy", "--root", str(store), "two/deep", str(output)]) == 1
    assert "never written over" in capsys.readouterr().err
    assert main(["copy", "--root", str(store), "three", str(tmp_path / "x")]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_compact(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (store / "one.db0").stat().st_size, (store / "two/deep.db0").stat().st_size
    assert main(["compact", "--root", str(store), "one", "--keep-states", "2"]) == 0
    assert capsys.readouterr().out.endswith("oldest state 31\n")
    assert (store / "one.db0").stat().st_size < before[0]
    assert (store / "two/deep.db0").stat().st_size == before[1]
    assert main(["compact", "--root", str(store), "--keep-since", "0"]) == 0
    out = capsys.readouterr().out
    assert out.count("oldest state 32") == 2
    assert (store / "two/deep.db0").stat().st_size < before[1]
    assert main(["compact", "--root", str(store), "--keep-since", "tomorrow"]) == 1
    assert main(["compact", "--root", str(store), "--keep-states", "0"]) == 1
    assert main(["compact", "--root", str(store / "missing")]) == 1
    assert check_root(str(store)) == []


def test_moments() -> None:
    assert moment("90") == 90.0
    assert moment("2026-01-02") == datetime.datetime(2026, 1, 2)
    assert moment("2026-01-02T03:04:05+00:00") == datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
