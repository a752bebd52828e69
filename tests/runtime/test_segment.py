"""The segment of a root: found, shared, removed, and what happens when it can't be."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import posix_ipc
import pytest

from dbzero import errors
from dbzero.runtime import registry, segment
from dbzero.runtime.pins import Pin, oldest_pin, raise_floor
from dbzero.runtime.root import RootFile
from dbzero.runtime.segment import Segment, segment_name
from dbzero.runtime.slot import PrefixSlot

CACHE = 4 << 20


def name_of(root: Path) -> str:
    root_file = RootFile.open(str(root))
    try:
        return segment_name(root_file.identity)
    finally:
        root_file.close()


def exists(root: Path) -> bool:
    return os.path.exists(segment.SHM_DIRECTORY + name_of(root))


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    if tmp_path.exists() and (tmp_path / ".dbzero").is_file():
        assert not exists(tmp_path)


CHILD = """
import sys
from dbzero.runtime.segment import Segment
from dbzero.runtime.slot import PrefixSlot
from dbzero.runtime.pins import Pin
from dbzero.runtime.lease import SlotLease
segment = Segment.open(sys.argv[1], int(sys.argv[2]))
slot = PrefixSlot.find(segment, "a")
"""


def child(root: Path, body: str, cache: int = CACHE) -> subprocess.Popen[str]:
    """Another process, attached, with a slot for prefix "a"; runs `body` and talks over pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + body, str(root), str(cache)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str], sign: int = 0) -> None:
    if sign:
        process.send_signal(sign)
    process.communicate(timeout=30)
    assert process.returncode == (-sign if sign else 0)


WAIT = 'print("ready", flush=True)\nsys.stdin.readline()\n'
LEAVE = WAIT + "segment.close()\n"


def test_created_attached_and_removed_by_the_last(tmp_path: Path) -> None:
    with Segment.open(tmp_path, CACHE) as first:
        assert first.shared and first.slot == 0 and exists(tmp_path)
        path = segment.SHM_DIRECTORY + name_of(tmp_path)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert first.status().cache_bytes == CACHE
        with Segment.open(tmp_path, CACHE * 64) as second:
            assert second.slot == 1
            assert second.status().cache_bytes == CACHE  # the creator decides
            assert second.status().processes == 2
        assert exists(tmp_path)
    assert not exists(tmp_path)
    first.close()
    assert first.closed


def test_two_processes_share_words(tmp_path: Path) -> None:
    with Segment.open(tmp_path, CACHE) as here:
        slot = PrefixSlot.find(here, "a")
        slot.reset(1, 2)
        slot.start(epoch=1, state=1, data_end=4096, next_oid=16)
        other = child(
            tmp_path,
            "print(slot.index, slot.durable, flush=True)\nslot.publish(1, 1, 2)\nslot.set_durable(2)\n" + LEAVE,
        )
        assert read_line(other) == f"{slot.index} 1"
        assert read_line(other) == "ready"
        assert slot.published == slot.durable == 2
        assert {p.pid for p in registry.processes(here)} == {os.getpid(), other.pid}
        end(other)
        assert registry.count(here) == 1


def test_survivor_of_kill_is_clean(tmp_path: Path) -> None:
    with Segment.open(tmp_path, CACHE) as here:
        slot = PrefixSlot.find(here, "a")
        slot.reset(1, 2)
        slot.start(epoch=1, state=9, data_end=4096, next_oid=16)
        other = child(tmp_path, "pin = Pin(slot, 5)\nSlotLease(slot).take(2)\n" + WAIT)
        assert read_line(other) == "ready"
        assert raise_floor(slot, 8) == 5
        assert [p.pins for p in registry.processes(here) if p.pid == other.pid] == [((slot.index, 5),)]
        end(other, signal.SIGKILL)
        assert not registry.alive(here, 1)
        assert registry.reclaim(here) == 1
        assert oldest_pin(slot) is None
        assert raise_floor(slot, 8) == 8


def test_everyone_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    others = [child(tmp_path, WAIT) for _ in range(3)]
    for other in others:
        assert read_line(other) == "ready"
    for other in others:
        end(other, signal.SIGKILL)
    assert exists(tmp_path)
    # The next one doesn't trust what it finds, and takes its own cache size.
    with Segment.open(tmp_path, CACHE * 2) as here:
        assert here.status().cache_bytes == CACHE * 2
        assert here.status().prefixes == 0


def test_leftover_of_a_removed_root_is_found(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    other = child(gone, WAIT)
    assert read_line(other) == "ready"
    path = segment.SHM_DIRECTORY + name_of(gone)
    segment.remove_leftovers()
    assert os.path.exists(path)  # in use
    end(other, signal.SIGKILL)
    (gone / ".dbzero").unlink()
    gone.rmdir()
    assert os.path.exists(path)
    with Segment.open(tmp_path, CACHE):
        assert not os.path.exists(path)


def test_name_deleted_while_in_use(tmp_path: Path) -> None:
    with Segment.open(tmp_path, CACHE) as old:
        PrefixSlot.find(old, "a")
        posix_ipc.unlink_shared_memory(name_of(tmp_path))
        with Segment.open(tmp_path, CACHE) as new:
            assert new.shared and new.status().prefixes == 0 and old.status().prefixes == 1
            # Process slots are arbitrated by the root's lock file, so the two never share a number.
            assert new.slot != old.slot
    assert not exists(tmp_path)


def test_copied_root_is_another_root(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    with Segment.open(one, CACHE) as a:
        (two / ".dbzero").write_bytes((one / ".dbzero").read_bytes())
        with Segment.open(two, CACHE) as b:
            assert a.name != b.name
            one.rename(tmp_path / "moved")
            with Segment.open(tmp_path / "moved", CACHE) as c:
                assert c.name == a.name and c.slot == 1
    assert not os.path.exists(segment.SHM_DIRECTORY + a.name)


def test_missing_root(tmp_path: Path) -> None:
    with pytest.raises(errors.StorageError, match="nowhere"):
        Segment.open(tmp_path / "nowhere", CACHE)
    (tmp_path / "file").touch()
    with pytest.raises(errors.StorageError, match="no directory"):
        Segment.open(tmp_path / "file", CACHE)


@pytest.mark.parametrize("content", [b"hello, this is a text", b"\xff\xfe\x00", b"00" * 15])
def test_identity_file_is_something_else(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".dbzero").write_bytes(content)
    with pytest.raises(errors.NotAStoreError, match=r"\.dbzero"):
        Segment.open(tmp_path, CACHE)
    assert (tmp_path / ".dbzero").read_bytes() == content
    (tmp_path / ".dbzero").unlink()


def test_identity_path_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / ".dbzero").mkdir()
    with pytest.raises(errors.NotAStoreError):
        Segment.open(tmp_path, CACHE)


def test_unwritable_root_gives_a_private_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        if str(path).endswith(".dbzero"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.warns(RuntimeWarning, match=r"\.dbzero cannot be written"):
        here = Segment.open(tmp_path, CACHE)
    with here:
        assert not here.shared and here.slot == 0
        slot = PrefixSlot.find(here, "a")
        slot.reset(1, 2)
        slot.start(epoch=1, state=1, data_end=4096, next_oid=16)
        with Pin(slot, 1):
            assert oldest_pin(slot) == 1


@pytest.mark.parametrize("free_mib", [0, 8])
def test_full_shared_memory_gives_a_private_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_mib: int
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: statvfs_result(free_mib << 20))
    with pytest.warns(RuntimeWarning, match="no room"):
        here = Segment.open(tmp_path, CACHE)
    with here:
        assert not here.shared


def statvfs_result(free: int) -> os.statvfs_result:
    return os.statvfs_result((4096, 4096, free // 4096 + 1000, free // 4096, free // 4096, 0, 0, 0, 0, 255))


def test_small_shared_memory_cuts_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: statvfs_result(64 << 20))
    with pytest.warns(RuntimeWarning, match="cache_size cut"):
        here = Segment.open(tmp_path, 1 << 30)
    with here:
        assert here.shared and segment.MINIMUM_CACHE <= here.status().cache_bytes < 64 << 20


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_really_full_tmpfs_never_kills(tmp_path: Path) -> None:
    """In a mount namespace of its own, with a 24 MiB /dev/shm that is full: reserve fails, nothing dies of SIGBUS."""
    script = """
import os, sys, warnings
warnings.simplefilter("ignore")
from dbzero._engine import lib
from dbzero.runtime import codes, segment
from dbzero.runtime.segment import Segment
from dbzero.runtime.slot import DeltaEntry, PrefixSlot
here = Segment.open(sys.argv[1], 8 << 20)
assert here.shared
slot = PrefixSlot.find(here, "a")
slot.reset(1, 2)
slot.start(epoch=1, state=1, data_end=4096, next_oid=16)
with open("/dev/shm/ballast", "wb") as ballast:
    try:
        while True:
            ballast.write(bytes(65536))
            ballast.flush()
    except OSError:
        pass
assert not slot.delta_reserve(10)
at = here.status().size - (1 << 20)
assert lib.dbz_seg_reserve(here.handle, at, 4096) == codes.NOSPACE
os.unlink("/dev/shm/ballast")
assert slot.delta_reserve(10)
slot.delta_append([DeltaEntry(16, 2, 4096, 1)])
assert slot.delta_find(16, 2) is not None
here.close()
print("survived")
"""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no mount namespaces here")
    shell = 'mount -t tmpfs -o size=24m none /dev/shm && exec "$0" -c "$1" "$2"'
    command = ["unshare", "-m", "sh", "-c", shell, sys.executable, script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if "mount:" in done.stderr:
        pytest.skip("mounting is not allowed here")
    assert done.stdout.strip() == "survived", done.stderr


def test_damaged_segment_is_not_trusted(tmp_path: Path) -> None:
    other = child(tmp_path, LEAVE)
    assert read_line(other) == "ready"
    with open(segment.SHM_DIRECTORY + name_of(tmp_path), "r+b") as file:
        file.write(b"garbage!")
    with pytest.warns(RuntimeWarning, match="another version of dbzero or was damaged"):
        here = Segment.open(tmp_path, CACHE)
    with here:
        assert not here.shared
    end(other)


def test_fork_inherits_nothing(tmp_path: Path) -> None:
    with Segment.open(tmp_path, CACHE) as here:
        slot = PrefixSlot.find(here, "a")
        slot.reset(1, 2)
        slot.start(epoch=1, state=5, data_end=4096, next_oid=16)
        pin = Pin(slot, 5)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                assert here.inherited and here.slot == -1
                pin.close()  # the parent's: no effect
                with Segment.open(tmp_path, CACHE) as mine:
                    assert mine.slot == 1 and not mine.inherited and mine.shared
                    assert oldest_pin(PrefixSlot.find(mine, "a")) == 5
                here.close()
                assert exists(tmp_path)
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        assert oldest_pin(slot) == 5 and registry.count(here) == 1
        pin.close()


def test_a_slot_of_a_closed_segment_says_so(tmp_path: Path) -> None:
    segment = Segment.open(tmp_path, CACHE)
    slot = PrefixSlot.find(segment, "p")
    assert slot.published == slot.durable == 0
    segment.close()
    for ask in (
        lambda: slot.published,
        lambda: slot.durable,
        lambda: slot.incarnation,
        lambda: slot.ticket,
        lambda: slot.log_number,
        slot.now,
        lambda: slot.advance(1, 1),
        lambda: slot.repin(0, 1),
        lambda: slot.turn_try(1),
        lambda: slot.turn_end(1, 1, 1),
        lambda: slot.turn_torn(1),
        lambda: slot.publish(1, 1, 2),
    ):
        with pytest.raises(errors.ClosedError, match=re.escape(f"root {tmp_path}: its segment is closed")):
            ask()
    with pytest.raises(TypeError, match="numbers are needed"):
        slot.advance(1)  # type: ignore[call-arg]
    assert slot.index >= 0


def test_a_parents_death_is_seen_beside_its_living_child(tmp_path: Path) -> None:
    body = """
import os, time
out, into = os.pipe()
pid = os.fork()
if pid == 0:
    os.write(into, b".")  # it has run, and so has let go of what it inherited
    time.sleep(60)
    os._exit(0)
os.read(out, 1)
print(pid, flush=True)
"""
    with Segment.open(tmp_path, CACHE) as here:
        other = child(tmp_path, body + WAIT)
        orphan = int(read_line(other))
        try:
            assert read_line(other) == "ready"
            other.kill()
            other.wait(timeout=30)
            assert not registry.alive(here, 1)
            assert registry.reclaim(here) == 1
            os.kill(orphan, 0)
        finally:
            os.kill(orphan, signal.SIGKILL)
            for pipe in (other.stdin, other.stdout):
                assert pipe is not None
                pipe.close()


def test_many_processes_open_and_close_at_once(tmp_path: Path) -> None:
    body = """
import warnings
warnings.simplefilter("error")
segment.close()
for _ in range(25):
    segment = Segment.open(sys.argv[1], 1 << 20)
    assert segment.shared
    PrefixSlot.find(segment, "a")
    segment.close()
"""
    others = [child(tmp_path, body) for _ in range(4)]
    for other in others:
        end(other)
    assert not exists(tmp_path)
