"""What processes agree on through a prefix slot: lease, pins, delta, waiting."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbzero import errors
from dbzero._engine import ffi
from dbzero.runtime import codes, pins, watching
from dbzero.runtime.lease import LockFile, SlotLease
from dbzero.runtime.pins import Pin
from dbzero.runtime.segment import Segment
from dbzero.runtime.slot import DeltaEntry, PrefixSlot

CACHE = 2 << 20
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[PrefixSlot]:
    with Segment.open(tmp_path, CACHE) as segment:
        slot = PrefixSlot.find(segment, "a/b")
        slot.reset(11, 12)
        slot.start(epoch=1, state=1, data_end=8192, next_oid=16, floor=1)
        yield slot


def again(slot: PrefixSlot) -> PrefixSlot:
    """The same slot as another process sees it."""
    return PrefixSlot.find(Segment.open(slot.segment.root, CACHE), slot.prefix)


def test_status(slot: PrefixSlot) -> None:
    status = slot.status()
    assert (status.name, status.ready, status.retired, status.file_id, status.prefix_uuid) == (
        "a/b",
        True,
        False,
        11,
        12,
    )
    assert (status.published, status.durable, status.published_epoch, status.floor) == (1, 1, 1, 1)
    assert (status.data_end, status.next_oid, status.lease_owner) == (8192, 16, -1)
    assert slot.reserve_oids(10) == 16 and slot.reserve_oids(1) == 26
    slot.advance(10000, 20)
    assert (slot.status().data_end, slot.status().next_oid) == (10000, 27)
    slot.install_root(5, 1, 1)
    status = slot.status()
    assert (status.root_pointer, status.root_depth, status.root_state) == (5, 1, 1)


def test_lease_and_publish(slot: PrefixSlot) -> None:
    other = again(slot)
    with other.segment:
        mine, theirs = SlotLease(slot), SlotLease(other)
        assert mine.holder() == "nobody" and mine.owner == -1
        mine.take(2)
        assert (mine.epoch, mine.owner, theirs.holder()) == (2, 0, f"process {os.getpid()}")
        with pytest.raises(errors.LeaseError, match=rf"'a/b'.*process {os.getpid()}"):
            theirs.take(3)
        with pytest.raises(errors.FencedError):
            theirs.take(2)
        slot.publish(2, 1, 2)
        with pytest.raises(ValueError, match="publish"):
            slot.publish(2, 1, 2)
        assert (slot.published, slot.durable) == (2, 1)
        assert not theirs.drop(2)
        assert not theirs.wait(0.01)
        assert mine.drop(2)
        assert theirs.wait(5)
        theirs.take(2)
        theirs.take(2)
        with slot.segment.root_lock():
            assert slot.retire(3) == 2
            fresh = PrefixSlot.find_locked(slot.segment, "a/b")
        assert fresh.index != slot.index and slot.status().retired
        with pytest.raises(errors.FencedError):
            other.publish(2, 2, 3)
        slot.poison()
        with pytest.raises(errors.PoisonedError):
            slot.publish(3, 2, 3)


def test_lock_file(tmp_path: Path) -> None:
    path = str(tmp_path / "x.lock")
    with LockFile.open(path) as one, LockFile.open(path) as two:
        assert one.acquire() and not two.acquire(timeout=0.05) and two.taken() and not one.taken()
        assert two.acquire(7, shared=True) and one.acquire(7, shared=True)
        pid = os.fork()
        if pid == 0:
            try:
                with pytest.raises(errors.ForkedError):
                    one.acquire()
                one.close()
                with LockFile.open(path) as three:
                    os._exit(0 if three.taken() else 1)
            finally:
                os._exit(2)
        assert os.waitpid(pid, 0)[1] == 0
        one.release()
        assert two.acquire(timeout=None)
    with pytest.raises(errors.StorageError, match="nowhere"):
        LockFile.open(str(tmp_path / "nowhere" / "lock"))


def test_pins(slot: PrefixSlot) -> None:
    assert pins.oldest_pin(slot) is None
    with Pin(slot, 10) as pin:
        assert pins.raise_floor(slot, 20) == 10
        with pytest.raises(errors.PrefixError, match="state 9"):
            Pin(slot, 9)
        pin.move(15)
        assert pins.raise_floor(slot, 20) == 15
        with pytest.raises(errors.PrefixError):
            pin.move(3)
        assert pin.state == 15
        assert pins.oldest_pin(slot) == 15
    pin.close()
    with pytest.raises(errors.ClosedError):
        pin.move(30)
    assert pins.raise_floor(slot, 20) == 20
    many = [Pin(slot, 30 + i) for i in range(20)]
    assert pins.oldest_pin(slot) == 0  # more than a slot holds: everything is pinned
    for pin in many:
        pin.close()
    assert pins.oldest_pin(slot) is None


def test_delta(slot: PrefixSlot) -> None:
    assert slot.delta_find(16, 9) is None
    assert slot.delta_reserve(3)
    slot.delta_append([DeltaEntry(16, 2, 100, 1), DeltaEntry(17, 2, 200, 0), DeltaEntry(16, 3, 300, 2)])
    assert slot.delta_find(16, 2) == DeltaEntry(16, 2, 100, 1)
    assert slot.delta_find(16, 99) == DeltaEntry(16, 3, 300, 2)
    assert slot.delta_rotate(3) and not slot.delta_rotate(3)
    assert (slot.delta_count(), slot.delta_count(frozen=True)) == (0, 3)
    array, count = slot.delta_copy(frozen=True)
    assert [(array[i].oid, array[i].addr) for i in range(count)] == [(16, 100), (17, 200), (16, 300)]
    slot.install_root(1, 1, 3)
    slot.delta_retire()
    assert slot.delta_find(16, 99) is None and slot.delta_sweep() == 0
    assert not slot.delta_reserve(1 << 30)


def follow(root: str, start: int, results: object) -> None:
    with Segment.open(root, CACHE) as segment:
        slot = PrefixSlot.find(segment, "a/b")
        seen = start
        results.put("ready")  # type: ignore[attr-defined]
        while seen < 200:
            assert watching.wait_durable(slot, seen, slot.incarnation, 60)
            seen = slot.durable
        results.put(seen)  # type: ignore[attr-defined]


def test_another_process_follows_without_polling(slot: PrefixSlot) -> None:
    results = SPAWN.Queue()
    process = SPAWN.Process(target=follow, args=(slot.segment.root, 1, results))
    process.start()
    assert results.get(timeout=60) == "ready"
    for state in range(2, 201):
        slot.publish(1, state - 1, state)
        slot.set_durable(state)
        if state % 50 == 0:
            time.sleep(0.01)
    assert results.get(timeout=60) == 200
    process.join(60)
    assert process.exitcode == 0


def test_wait_times_out_and_ends_with_the_incarnation(slot: PrefixSlot) -> None:
    started = time.monotonic()
    assert not watching.wait_durable(slot, 1, slot.incarnation, 0.05)
    assert 0.04 < time.monotonic() - started < 5
    incarnation = slot.incarnation
    timer = threading.Timer(0.05, slot.reset, (1, 2))
    timer.start()
    assert watching.wait_durable(slot, 1, incarnation, 30)
    timer.join()


def test_wait_is_interruptible(slot: PrefixSlot) -> None:
    class Alarm(Exception):
        pass

    def ring(*_: object) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Alarm):
            watching.wait_durable(slot, 1, slot.incarnation, 30)
    finally:
        signal.signal(signal.SIGALRM, before)


def followed(*slots: PrefixSlot, again: float = 60.0) -> watching.Followed:
    made = watching.Followed(slots[0].segment, len(slots))
    for place, slot in enumerate(slots):
        made.note(place, watching.Watched(slot), (slot.durable, slot.incarnation), 0.0, time.monotonic() + again)
    return made


def test_followers_never_miss_a_call(slot: PrefixSlot) -> None:
    sleeper = followed(slot, again=30.0)
    slot.wake()
    assert sleeper.sleep() == 0  # woken before it slept
    start = time.monotonic()
    assert followed(slot, again=0.05).sleep() == 0
    assert time.monotonic() - start >= 0.05
    stop = threading.Event()

    def run() -> None:
        while True:
            follower = followed(slot)
            if stop.is_set():
                return
            follower.sleep()

    for _ in range(50):
        stop.clear()
        thread = threading.Thread(target=run)
        thread.start()
        stop.set()
        slot.wake()
        thread.join(30)
        assert not thread.is_alive()


def test_several_prefixes_are_followed_at_once(slot: PrefixSlot) -> None:
    if watching.most() == 1:
        pytest.skip("the kernel does not know futex_waitv")
    segment = slot.segment
    slots = [PrefixSlot.find(segment, f"p{n}") for n in range(5)]
    for one in slots:
        one.reset(11, 12)
        one.start(epoch=1, state=1, data_end=8192, next_oid=16, floor=1)
    for n in (3, 0, 4):
        sleeper = followed(*slots)
        thread = threading.Timer(0.02, slots[n].set_durable, (slots[n].durable + 1,))
        thread.start()
        assert sleeper.sleep() == n
        thread.join()
    # What is made here is no news, and who is left alone has none until it is due.
    made = ffi.new("uint64_t *", slots[1].durable + 1)
    sleeper = watching.Followed(segment, 3)
    now = time.monotonic()
    sleeper.note(0, watching.Watched(slots[1], made), (slots[1].durable, slots[1].incarnation), 0.0, now + 60)
    sleeper.note(1, watching.Watched(slots[2]), (slots[2].durable, slots[2].incarnation), now + 0.3, now + 60)
    sleeper.note(2, watching.Watched(slots[0]), (slots[0].durable, slots[0].incarnation), 0.0, now + 60)
    slots[1].set_durable(made[0])
    slots[2].set_durable(slots[2].durable + 1)
    assert sleeper.sleep() == 1
    assert time.monotonic() - now >= 0.3
    alone = watching.Followed(segment, 1)
    alone.note(0, watching.Watched(slots[2]), (slots[2].durable, slots[2].incarnation), now + 60, now + 60)
    assert alone.sleep() is None  # now and then it may look up


def test_closing_wakes_sleepers_and_voids_handles(tmp_path: Path) -> None:
    segment = Segment.open(tmp_path, CACHE)
    slot = PrefixSlot.find(segment, "a")
    slot.reset(1, 2)
    slot.start(epoch=1, state=1, data_end=4096, next_oid=16)
    pin = Pin(slot, 1)
    outcome: list[object] = []

    def follow() -> None:
        try:
            outcome.append(watching.wait_durable(slot, 1, slot.incarnation))
        except errors.ClosedError as exc:
            outcome.append(exc)

    threads = [threading.Thread(target=follow) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.02)
    segment.close()
    for thread in threads:
        thread.join(30)
    assert [type(o) for o in outcome] == [errors.ClosedError] * 3
    pin.close()
    for use in (lambda: slot.durable, slot.status, lambda: slot.delta_find(1, 1), segment.status, lambda: Pin(slot, 1)):
        with pytest.raises(errors.ClosedError):
            use()


def test_directory_watch(tmp_path: Path) -> None:
    with watching.DirectoryWatch(tmp_path) as watch:
        assert not watch.wait(0.01)
        (tmp_path / "x.redo.1").write_bytes(b"1")
        assert watch.wait(5)
        assert not watch.wait(0)
    with pytest.raises(errors.ClosedError):
        watch.wait(0)
    with pytest.raises(errors.StorageError, match="nowhere"):
        watching.DirectoryWatch(tmp_path / "nowhere")


def test_every_code_has_its_exception() -> None:
    seen = set()
    for code in range(codes.POISONED, 0):
        exc = codes.failure(code, "prefix 'p'")
        assert isinstance(exc, Exception) and "prefix 'p'" in str(exc)
        seen.add(type(exc))
    assert {
        errors.FencedError,
        errors.LeaseError,
        errors.PoisonedError,
        errors.CorruptError,
        errors.SegmentError,
    } <= seen
    assert codes.check(3, "x") == 3
