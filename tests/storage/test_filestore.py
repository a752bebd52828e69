"""Bad input and misuse of the local file store: each a typed error that names the thing and the way out."""

from __future__ import annotations

import os
import pathlib
import shutil
import struct
import subprocess
import sys
import threading
import warnings
from typing import Any

import pytest
import xxhash

from dbzero import errors
from dbzero.storage.filestore import LocalFileStore
from dbzero.storage.names import discover, normalize
from dbzero.storage.syscalls import NETWORK_FILE_SYSTEMS, System
from tests.storage.conformance import begin, bodies, checkpoint, commit
from tests.storage.memstore import MemoryDisk, MemoryStore

open_store = LocalFileStore.open


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "//a",
        "a/",
        "a//b",
        ".",
        "..",
        "../a",
        "a/../b",
        "a/..",
        "a/./b",
        "a\0b",
        "x" * 250,
        "\ud800",
        "a.db0/b",
        "a.redo.1/b",
    ],
)
def test_bad_names(tmp_path: pathlib.Path, name: str) -> None:
    with pytest.raises(errors.PrefixError, match="prefix name"):
        open_store(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_names(tmp_path: pathlib.Path) -> None:
    assert normalize("/org/x") == normalize("org/x") == "org/x"
    wanted = ["a", "a b", "deep/er/x", "ünïcødé", "x.redo.1", "..a", "b.db0"]
    for name in wanted:
        open_store(tmp_path, name).close()
    (tmp_path / "other.txt").write_text("no store")
    (tmp_path / ".db0").write_text("no store")
    assert sorted(discover(str(tmp_path))) == sorted(wanted)
    with pytest.raises(errors.PrefixError):
        normalize(3)  # type: ignore[arg-type]


def test_missing_root(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.StorageError, match="does not exist"):
        open_store(tmp_path / "nowhere", "p")


def test_no_store(tmp_path: pathlib.Path) -> None:
    for content in (b"", b"x", b"some text" * 1000):
        (tmp_path / "p.db0").write_bytes(content)
        with pytest.raises(errors.NotAStoreError, match=r"p\.db0"):
            open_store(tmp_path, "p")
        assert (tmp_path / "p.db0").read_bytes() == content
    (tmp_path / "d.db0").mkdir()
    for writable in (True, False):
        with pytest.raises(errors.NotAStoreError, match="directory"):
            open_store(tmp_path, "d", writable=writable)


def test_newer_format(tmp_path: pathlib.Path) -> None:
    open_store(tmp_path, "p").close()
    path = tmp_path / "p.db0"
    page = bytearray(path.read_bytes())
    struct.pack_into("<I", page, 8, 2)
    struct.pack_into("<Q", page, 4088, xxhash.xxh3_64_intdigest(bytes(page[:4088])))
    path.write_bytes(page)
    with pytest.raises(errors.FormatVersionError, match="newer dbzero"):
        open_store(tmp_path, "p")


class Nfs(System):
    def file_system(self, path: str) -> int:
        return 0x6969


def test_network_file_system_refuses_writers(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.UnsupportedFileSystemError, match="nfs"):
        open_store(tmp_path, "p", system=Nfs())
    assert list(tmp_path.iterdir()) == []
    open_store(tmp_path, "p").close()
    open_store(tmp_path, "p", writable=False, system=Nfs()).close()
    assert System().file_system(str(tmp_path)) not in NETWORK_FILE_SYSTEMS


def test_stale_page_file(tmp_path: pathlib.Path) -> None:
    """An earlier copy of the page file in place of the current one."""
    store = open_store(tmp_path, "p")
    epoch = begin(store)
    commit(store, epoch, b"one")
    shutil.copy(tmp_path / "p.db0", tmp_path / "copy")
    checkpoint(store, epoch)
    commit(store, epoch, b"two")
    store.close()
    shutil.copy(tmp_path / "copy", tmp_path / "p.db0")
    stale = open_store(tmp_path, "p")
    with pytest.raises(errors.StaleFileError, match="earlier copy"):
        list(stale.read_log(stale.read_meta()))
    stale.close()


def test_page_file_replaced_while_open(tmp_path: pathlib.Path) -> None:
    store = open_store(tmp_path, "p")
    os.rename(tmp_path / "p.db0", tmp_path / "elsewhere")
    other = open_store(tmp_path, "p")
    with pytest.raises(errors.StaleFileError, match="replaced"):
        store.acquire()
    other.acquire()
    other.close()
    store.close()


def test_log_of_another_file_is_set_aside(tmp_path: pathlib.Path) -> None:
    store = open_store(tmp_path, "p")
    epoch = begin(store)
    commit(store, epoch, b"one")
    store.close()
    for name in ("p.db0", "p.db0.lock"):
        (tmp_path / name).unlink()
    with pytest.warns(RuntimeWarning, match="another page file"):
        fresh = open_store(tmp_path, "p")
    assert list(fresh.read_log(fresh.read_meta())) == []
    assert (tmp_path / "p.redo.1.stray.1").exists() and not (tmp_path / "p.redo.1").exists()
    fresh.close()
    # The page file itself put under another's log: readers ignore it, the next writer moves it away.
    foreign = open_store(tmp_path, "q")
    commit(foreign, begin(foreign), b"foreign")
    foreign.close()
    shutil.move(tmp_path / "q.redo.1", tmp_path / "p.redo.1")
    reader = open_store(tmp_path, "p", writable=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(reader.read_log(reader.read_meta())) == []
    reader.close()
    writer = open_store(tmp_path, "p")
    with pytest.warns(RuntimeWarning, match="another page file"):
        epoch = begin(writer)
    commit(writer, epoch, b"mine")
    assert bodies(writer.read_log(writer.read_meta())) == [b"mine"]
    assert (tmp_path / "p.redo.1.stray.2").exists()
    writer.close()


def test_unreadable_lock_file_content(tmp_path: pathlib.Path) -> None:
    store = open_store(tmp_path, "p")
    for garbage in (b"\xff\xfe\0", b"-1 -1 x", b"9" * 400, b"", b"1"):
        (tmp_path / "p.db0.lock").write_bytes(garbage)
        assert store.acquire() >= 1
        store.release()
    store.close()


def test_lock_error_names_the_holder(tmp_path: pathlib.Path) -> None:
    store, other = open_store(tmp_path, "p"), open_store(tmp_path, "p")
    store.acquire()
    with pytest.raises(errors.LeaseError, match=f"process {os.getpid()} on .* since 2"):
        other.acquire()
    assert other.leased() and not open_store(tmp_path, "q").leased()
    store.close()
    assert not other.leased()
    other.close()


CHILD = """
import os, sys
from dbzero.storage.filestore import LocalFileStore
from tests.storage.conformance import begin, commit
store = LocalFileStore.open(sys.argv[1], "p")
epoch = begin(store)
print(commit(store, epoch, b"from the child"), flush=True)
sys.stdin.readline()
os._exit(9)
"""


def test_lease_dies_with_its_process(tmp_path: pathlib.Path) -> None:
    root = pathlib.Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root
    )
    assert child.stdin is not None and child.stdout is not None
    assert child.stdout.readline() == b"2\n"
    store = open_store(tmp_path, "p")
    with pytest.raises(errors.LeaseError, match=f"process {child.pid}"):
        store.acquire()
    timer = threading.Timer(0.05, child.kill)
    timer.start()
    epoch = store.acquire(blocking=True, timeout=10)
    assert epoch > 1
    assert bodies(store.read_log(store.read_meta())) == [b"from the child"]
    store.close()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    timer.join()


def test_fork_does_not_keep_the_lease(tmp_path: pathlib.Path) -> None:
    store = open_store(tmp_path, "p")
    begin(store)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            store.append(kind=1, epoch=1, state=2, durable=1, next_oid=16, body=b"")
        except errors.LeaseError:
            os.write(writing, b"1")
        os.read(reading, 1)  # lives on while the parent gives the lease back
        os._exit(0)
    store.release()
    other = open_store(tmp_path, "p")
    other.acquire(blocking=True, timeout=5)
    other.close()
    os.write(writing, b"22")
    assert os.waitpid(pid, 0)[1] == 0
    store.close()
    os.close(reading)
    os.close(writing)


def test_disk_full_leaves_everything(tmp_path: pathlib.Path) -> None:
    disk = MemoryDisk(capacity=300_000)
    store = MemoryStore.on(disk)
    epoch = begin(store)
    commit(store, epoch, b"one")
    end = store.read_meta().data_end
    with pytest.raises(errors.DiskFullError, match="free some space") as caught:
        store.reserve(log_bytes=100, data_end=end + 1_000_000)
    assert caught.value.errno == 28 and isinstance(caught.value, OSError)
    with pytest.raises(errors.DiskFullError):
        store.reserve(log_bytes=1_000_000, data_end=end)
    assert bodies(store.read_log(store.read_meta())) == [b"one"]
    commit(store, epoch, b"two")
    disk.capacity = None
    store.reserve(log_bytes=1_000_000, data_end=end + 1_000_000)
    commit(store, epoch, b"x" * 900_000)
    assert len(bodies(store.read_log(store.read_meta()))) == 3


def test_syncs_of_small_commits_write_no_metadata(tmp_path: pathlib.Path) -> None:
    """Log space is written ahead: between two steps the file's size and blocks stay as they are."""
    store = open_store(tmp_path, "p")
    epoch = begin(store)
    path = tmp_path / "p.redo.1"
    sizes = set()
    for _ in range(200):
        commit(store, epoch, b"y" * 100)
        info = path.stat()
        sizes.add((info.st_size, info.st_blocks))
    assert len(sizes) == 1
    store.close()


def test_close_leaves_no_descriptors(tmp_path: pathlib.Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    for _ in range(3):
        store = open_store(tmp_path, "p")
        commit(store, begin(store), b"x")
        store.watch(0)
        store.close()
    with pytest.raises(errors.PrefixError):
        open_store(tmp_path, "nope", create=False)
    assert count() == before


class Denied(System):
    """Permission denied, as for a user who is not root."""

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(13, os.strerror(13), path)
        return super().open(path, flags, mode)


def test_unwritable_root(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.StorageError, match="permissions") as caught:
        open_store(tmp_path, "p", system=Denied())
    assert str(tmp_path) in str(caught.value)
    open_store(tmp_path, "p").close()
    with pytest.raises(errors.StorageError, match="read-only"):
        open_store(tmp_path, "p", system=Denied())
    open_store(tmp_path, "p", writable=False, system=Denied()).close()


def test_concurrent_commits_share_syncs(tmp_path: pathlib.Path) -> None:
    """Appending while another thread syncs neither waits for it nor loses anything."""
    store = open_store(tmp_path, "p")
    epoch = begin(store)
    lock, failures = threading.Lock(), list[Any]()

    def work() -> None:
        try:
            for _ in range(50):
                with lock:
                    _, state, _ = store.position
                    store.reserve(log_bytes=10, data_end=0)
                    store.append(kind=1, epoch=epoch, state=state + 1, durable=1, next_oid=16, body=b"0123456789")
                store.sync_log()
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert failures == []
    assert [f.state for f in store.read_log(store.read_meta())] == list(range(2, 202))
    store.close()
