"""Bad files and full disks, met through the public API: a typed error that names the thing, state unchanged, interpreter alive."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import dbzero as db0
from tests.worker import RemoteError, Worker

PAGE = 4096


@db0.memo(singleton=True, id="tests/faults/Top")
class Top:
    def __init__(self) -> None:
        self.value = 0
        self.blob = b""


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    """A root directory with a cleanly closed prefix "p" whose Top().value is 7. Left unchecked: the tests damage it."""
    root = tmp_path / "root"
    db0.init(root, autocommit=False)
    db0.open("p")
    Top().value = 7
    Top().blob = bytes(range(256)) * 20
    db0.commit()
    db0.close()
    yield root
    db0.close()


def killed_writer(root: Path, commits: int = 3) -> None:
    """Leave a log behind: a process that committed value = 100, 101, ... and was killed."""
    with Worker(root=str(root)) as writer:
        writer.run(
            """
            import dbzero as db0
            @db0.memo(singleton=True, id="tests/faults/Top")
            class Top:
                def __init__(self):
                    self.value = 0
                    self.blob = b""
            db0.init(root, autocommit=False)
            db0.open("p")
            """
        )
        for n in range(commits):
            writer.run(f"Top().value = {100 + n}; db0.commit()")
        writer.kill()


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def value(root: Path, mode: str = "r") -> int:
    db0.init(root, autocommit=False)
    try:
        db0.open("p", mode)
        assert Top().blob == bytes(range(256)) * 20
        return int(Top().value)
    finally:
        db0.close()


def test_a_file_that_is_no_store(base: Path) -> None:
    db0.init(base)
    for content in (b"", b"hello", b"\0" * 10_000, os.urandom(20_000)):
        (base / "other.db0").write_bytes(content)
        for mode in ("r", "rw"):
            with pytest.raises(db0.StorageError, match=r"other\.db0"):
                db0.open("other", mode)
        assert (base / "other.db0").read_bytes() == content
    db0.open("p")
    assert Top().value == 7


def test_a_newer_format_version(base: Path) -> None:
    import xxhash

    page = bytearray((base / "p.db0").read_bytes()[:PAGE])
    page[8:12] = struct.pack("<I", 99)
    page[4088:4096] = struct.pack("<Q", xxhash.xxh3_64_intdigest(bytes(page[:4088])))
    with open(base / "p.db0", "r+b") as file:
        file.write(page)
    db0.init(base)
    with pytest.raises(db0.FormatVersionError, match=r"p\.db0"):
        db0.open("p")


@pytest.mark.parametrize("keep", [0, 1, 100, 4095, 4096, 12_000, 12_288])
def test_a_truncated_file(base: Path, keep: int) -> None:
    path = base / "p.db0"
    with open(path, "r+b") as file:
        file.truncate(keep)
    db0.init(base)
    for mode in ("r", "rw"):
        with pytest.raises(db0.StorageError, match=r"p\.db0"):
            db0.open("p", mode)


def test_every_flipped_page_byte_is_detected_or_harmless(base: Path) -> None:
    path = base / "p.db0"
    good = path.read_bytes()
    for offset in [*range(0, 3 * PAGE, 509), *range(3 * PAGE, len(good), 97)]:
        flip(path, offset)
        try:
            assert value(base) == 7
        except db0.StorageError as error:
            assert "p" in str(error)
        path.write_bytes(good)
    assert value(base) == 7


def test_every_flipped_log_byte_is_detected_or_harmless(base: Path) -> None:
    killed_writer(base)
    (log,) = base.glob("p.redo.*")
    good = log.read_bytes()
    used = len(good.rstrip(b"\0"))
    for offset in [*range(0, PAGE, 257), *range(PAGE, used, 11)]:
        flip(log, offset)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert value(base) == 102
            except db0.StorageError:
                pass
        log.write_bytes(good)
    assert value(base) == 102
    assert value(base, "rw") == 102


def test_a_torn_tail_is_cut(base: Path) -> None:
    killed_writer(base)
    (log,) = base.glob("p.redo.*")
    data = log.read_bytes()
    used = len(data.rstrip(b"\0"))
    log.write_bytes(data + os.urandom(777))
    assert value(base) == 102
    # As a power loss could leave it: the mark and the end of the last frame never reached the disk.
    log.write_bytes(data[: used - 120] + bytes(len(data) - used + 120))
    assert value(base) in (101, 102)
    assert value(base, "rw") in (101, 102)


def test_the_log_of_another_file_is_not_replayed(base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    db0.init(other, autocommit=False)
    db0.open("p")
    Top().blob = b"other"
    db0.close()
    killed_writer(other)
    for log in other.glob("p.redo.*"):
        shutil.copy(log, base / log.name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert value(base, "rw") == 7
    assert any("p.redo" in str(w.message) for w in caught)
    assert value(base) == 7


def test_an_older_copy_of_the_same_file_is_refused(base: Path) -> None:
    old = (base / "p.db0").read_bytes()
    for n in range(3):
        assert value(base, "rw") in (7, 50, 51, 52)
        db0.init(base, autocommit=False)
        db0.open("p")
        Top().value = 50 + n
        db0.close()
    killed_writer(base)
    (base / "p.db0").write_bytes(old)
    db0.init(base)
    for mode in ("r", "rw"):
        with pytest.raises(db0.StaleFileError, match=r"p\.redo"):
            db0.open("p", mode)


def test_unsupported_values_change_nothing(base: Path) -> None:
    db0.init(base, autocommit=False)
    db0.open("p")
    top = Top()
    state = db0.get_state_num(finalized=True)
    items = db0.list([1, 2])
    for bad in (object(), (n for n in ()), {1: object()}, [object()], iter([])):
        with pytest.raises(AttributeError):
            top.value = bad
        with pytest.raises((RuntimeError, TypeError)):
            items.append(bad)
    assert top.value == 7
    assert items == [1, 2]
    del items
    db0.commit()
    assert db0.get_state_num(finalized=True) == state


def _mounts_work() -> bool:
    command = ["unshare", "-m", "sh", "-c", "mount -t tmpfs -o size=1m none /mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


needs_mounts = pytest.mark.skipif(not _mounts_work(), reason="needs the right to mount in a namespace of its own")


def run_in_namespace(mount: str, code: str) -> str:
    script = f'{mount} && exec {sys.executable} -X faulthandler -c "$CODE"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "CODE": code},
        cwd=Path(__file__).resolve().parent.parent.parent,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@needs_mounts
def test_disk_full_in_mid_commit(tmp_path: Path) -> None:
    root = tmp_path / "full"
    root.mkdir()
    output = run_in_namespace(
        f"mount -t tmpfs -o size=6m none {root}",
        f"""
import os, dbzero as db0
@db0.memo(singleton=True)
class Top:
    def __init__(self):
        self.value = 0
        self.blob = b""
db0.init({str(root)!r}, autocommit=False)
db0.open("p")
top = Top()
db0.commit()
ballast = open({str(root / "ballast")!r}, "wb")
ballast.write(bytes(os.statvfs({str(root)!r}).f_bavail * 4096 - 1_300_000)); ballast.flush()
done = 0
try:
    for n in range(1, 200):
        top.value, top.blob = n, os.urandom(60_000)
        db0.commit()
        done = n
    print("never full")
except db0.DiskFullError as error:
    print("full", "p" in str(error), top.value == done + 1)
state = db0.get_state_num(finalized=True)
try:
    db0.commit()
    print("no space, but committed")
except db0.DiskFullError:
    pass
print("state kept", db0.get_state_num(finalized=True) == state == done + 2)
os.unlink({str(root / "ballast")!r}); ballast.close()
db0.commit()
print("resumed", db0.get_state_num(finalized=True) == state + 1)
db0.close()
db0.init({str(root)!r}); db0.open("p", "r")
print("read back", Top().value == done + 1)
db0.close()
""",
    )
    assert output.split("\n")[:4] == ["full True True", "state kept True", "resumed True", "read back True"], output


@needs_mounts
@pytest.mark.parametrize("size", ["64k", "4m", "24m"])
def test_small_shared_memory(tmp_path: Path, size: str) -> None:
    output = run_in_namespace(
        f"mount -t tmpfs -o size={size} none /dev/shm",
        f"""
import warnings, dbzero as db0
warnings.simplefilter("ignore")
@db0.memo
class Item:
    def __init__(self, n):
        self.n = n
        self.text = "x" * 100
@db0.memo(singleton=True)
class Top:
    def __init__(self):
        self.items = []
db0.init({str(tmp_path)!r}, autocommit=False)
db0.open("p")
top = Top()
for part in range(10):
    top.items.extend(Item(n) for n in range(3000))
    db0.commit()
db0.clear_cache()
print(sum(item.n for item in top.items) == 10 * sum(range(3000)))
db0.close()
db0.init({str(tmp_path)!r}); db0.open("p", "r")
print(len(Top().items))
db0.close()
""",
    )
    assert output.split() == ["True", "30000"]


def test_a_failed_fsync_poisons_until_reopen(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dbzero.storage.syscalls import System

    db0.init(base, autocommit=False)
    db0.open("p")
    Top().value = 8
    db0.commit()
    real = System.fdatasync

    def fail(self: System, fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(System, "fdatasync", fail)
    Top().value = 9
    with pytest.raises(db0.PoisonedError, match="p"):
        db0.commit()
    monkeypatch.setattr(System, "fdatasync", real)
    with pytest.raises(db0.PoisonedError):
        db0.commit()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            db0.close()
        except db0.PoisonedError:
            pass
    db0.init(base, autocommit=False)
    db0.open("p")
    assert Top().value in (8, 9)
    Top().value = 10
    db0.commit()
    db0.close()
    assert value(base) == 10


def test_remote_errors_are_typed(base: Path) -> None:
    with Worker(root=str(base)) as worker:
        worker.run("import dbzero as db0; db0.init(root)")
        with pytest.raises(RemoteError) as caught:
            worker.run("db0.open('a/../../p')")
        assert "PrefixError" in caught.value.kinds
