"""The check and status commands: silent about nothing, honest in its exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

import dbzero as db0
from dbzero.cli.main import main


@pytest.fixture
def store(tmp_path: Path) -> Path:
    db0.init(tmp_path, autocommit=False)
    for name in ("one", "two/deep"):
        db0.open(name)
        kept = db0.list([db0.list([name, number]) for number in range(100)])
        db0.commit()
        del kept
    db0.close()
    return tmp_path


def test_every_prefix_is_checked(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--root", str(store)]) == 0
    assert capsys.readouterr().out.split("\n") == ["one: sound", "two/deep: sound", ""]


def test_one_prefix(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--root", str(store), "/two/deep"]) == 0
    assert capsys.readouterr().out == "two/deep: sound\n"


def test_damage_is_named_and_sound_prefixes_are_still_checked(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = store / "one.db0"
    raw = bytearray(file.read_bytes())
    raw[3 * 4096 + 100] ^= 1  # in the first data page
    file.write_bytes(raw)
    assert main(["check", "--root", str(store)]) == 1
    captured = capsys.readouterr()
    assert "two/deep: sound" in captured.out
    assert any(line.startswith("one: ") and "sound" not in line for line in captured.out.splitlines())
    assert "1 of 2 prefixes damaged: one" in captured.err


def test_what_is_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--root", str(tmp_path / "missing")]) == 1
    assert "no directory" in capsys.readouterr().err
    assert main(["check", "--root", str(tmp_path)]) == 1
    assert "holds no prefix" in capsys.readouterr().err
    (tmp_path / "text.db0").write_text("nothing of the kind\n" * 1000)
    assert main(["check", "--root", str(tmp_path)]) == 1
    assert "text.db0" in capsys.readouterr().out
    assert main(["check", "--root", str(tmp_path), "../outside"]) == 1


def test_wrong_usage_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["chek"])
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_status_lists_prefixes_with_their_last_commit(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--root", str(store)]) == 0
    rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
    found = {cells[1].strip(): int(cells[3]) for cells in rows}
    db0.init(store)
    try:
        for name in ("one", "two/deep"):
            db0.open(name, "r")
        assert found == {name: db0.get_state_num(name, finalized=True) for name in ("one", "two/deep")}
        assert min(found.values()) >= 2
    finally:
        db0.close()


def test_status_of_what_is_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--root", str(tmp_path)]) == 1
    assert "holds no prefix" in capsys.readouterr().err
    (tmp_path / "text.db0").write_text("nothing of the kind\n" * 1000)
    assert main(["status", "--root", str(tmp_path)]) == 1
    assert "text.db0" in capsys.readouterr().err
