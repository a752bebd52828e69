"""The thread that keeps a process's views at the newest states."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

import dbzero as db0
from dbzero.runtime import watching
from dbzero.session import following
from dbzero.session.workspace import active
from tests.worker import Worker

MANY = 6
WRITE = """
import dbzero as db0
@db0.memo(singleton=True, id="tests/following/Counter")
class Counter:
    def __init__(self):
        self.value = 0
db0.init(root, prefix="p0", autocommit=False, cache_size=4 << 20)
counters = []
for n in range(many):
    db0.open(f"p{n}", "rw")
    counters.append(Counter())
db0.commit()
"""


@db0.memo(singleton=True, id="tests/following/Counter")
class Counter:
    def __init__(self) -> None:
        self.value = 0


def threads() -> int:
    return sum(thread.name.startswith("dbzero-follow") for thread in threading.enumerate())


def wait_for(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture
def writer(root: str) -> Any:
    with Worker(root=root, many=MANY) as worker:
        worker.run(WRITE)
        yield worker


def read(root: str) -> list[Any]:
    db0.init(root, prefix="p0", read_write=False, cache_size=4 << 20)
    found = []
    for n in range(MANY):
        db0.open(f"p{n}", "r")
        found.append(db0.fetch(Counter, prefix=f"p{n}"))
    return found


def bump(writer: Worker, n: int) -> None:
    writer.run(f"counters[{n}].value += 1; db0.commit('p{n}')")


@pytest.mark.parametrize("most", [128, 4, 1])
def test_all_prefixes_are_followed_by_as_few_threads_as_can_be(
    root: str, writer: Worker, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    if watching.most() < most:
        pytest.skip("the kernel does not know futex_waitv")
    monkeypatch.setattr(following, "most", lambda: most)
    counters = read(root)
    assert threads() == {128: 1, 4: 2, 1: MANY}[most]
    for n in (3, 0, 5, 1, 2, 4, 4):
        before = counters[n].value
        bump(writer, n)
        wait_for(lambda n=n, before=before: counters[n].value == before + 1)
    assert [one.value for one in counters] == [1, 1, 1, 1, 2, 1]
    for n in (0, 2, 4):
        db0.close(f"p{n}")
    bump(writer, 5)
    wait_for(lambda: counters[5].value == 2)
    db0.open("p2", "r")
    again = db0.fetch(Counter, prefix="p2")
    bump(writer, 2)
    wait_for(lambda: again.value == 2)
    db0.close()
    wait_for(lambda: threads() == 0)


def test_no_thread_without_anything_to_follow(root: str) -> None:
    db0.init(root, prefix="p0", autocommit=False, cache_size=4 << 20)
    Counter()
    db0.commit()
    assert threads() == 0
    db0.close()
    db0.init(root, prefix="p0", read_write=False, cache_size=4 << 20)
    assert threads() == 1
    db0.close("p0")
    wait_for(lambda: threads() == 0)
    db0.open("p0", "r")
    assert threads() == 1


def test_one_prefix_that_is_being_recovered_keeps_no_other_waiting(root: str, writer: Worker) -> None:
    """The slot of p1 begins anew and is filled by nobody for a while, as by a successor with much to replay."""
    counters = read(root)
    writer.run(
        "from dbzero.session.workspace import active\n"
        "from dbzero.runtime.starting import slot_lock\n"
        "slot = active().open_prefixes['p1'].prefix._slot\n"
        "held = slot_lock(slot); held.__enter__()\n"
        "slot.reset(active().open_prefixes['p1'].prefix._store.identity.file_id, active().open_prefixes['p1'].prefix.uuid)"
    )
    for value in range(1, 4):
        bump(writer, 2)
        wait_for(lambda value=value: counters[2].value == value)
    writer.kill()
    wait_for(lambda: active().open_prefixes["p1"].prefix.newest(0.0) is not None)
    assert counters[1].value == 0


def test_what_is_stopped_is_followed_no_more(root: str, writer: Worker) -> None:
    counters = read(root)
    followers = active().followers
    stopped = active().open_prefixes["p1"].follower
    assert stopped is not None
    stopped.stop()
    stopped.stop()
    bump(writer, 1)
    bump(writer, 2)
    wait_for(lambda: counters[2].value == 1)
    assert counters[1].value == 0
    assert db0.refresh() and counters[1].value == 1
    assert followers.discard(stopped) is not None and stopped.stopping


def test_a_look_that_could_not_wait_for_a_successor_is_made_again(
    root: str, writer: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page file was compacted, and its slot is not to be had just now: nothing is lost, and the next look moves the pin, too."""
    counters = read(root)
    opened = active().open_prefixes["p1"]
    prefix = opened.prefix
    assert opened.follower is not None and counters[1].value == 0
    opened.follower.stop()
    bump(writer, 1)
    writer.run("db0.compact('p1')")
    before = prefix._pin

    def busy(patience: float = 0.0) -> None:
        raise db0.SegmentError("taken")

    with monkeypatch.context() as patch:
        patch.setattr(prefix, "_ensure_filled", busy)
        assert prefix.newest(0.0) is None
        assert prefix.newest(0.0) is None
        assert prefix._pin is before
        assert prefix.changes(2) is None and prefix.changes_since(1, 2) is None and prefix.committed_at(2) is None
    assert db0.refresh()
    assert counters[1].value == 1
    assert prefix._pin is not before and prefix._pin is not None and prefix._pin.slot.index == prefix._slot.index
