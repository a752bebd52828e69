"""Signals whose handlers raise, at every moment of a commit."""

from __future__ import annotations

import os
import signal
from types import FrameType

import pytest

import dbzero as db0
from dbzero.runtime.slot import PrefixSlot
from dbzero.storage.log import LogWriter
from dbzero.storage.prefix import Prefix


@db0.memo(singleton=True, id="tests/signals/Box")
class Box:
    def __init__(self) -> None:
        self.serial = 0
        self.items = []


STEPS = [
    (LogWriter, "append"),
    (PrefixSlot, "delta_apply"),
    (PrefixSlot, "advance"),
    (PrefixSlot, "publish"),
    (Prefix, "_sync_log"),
    (PrefixSlot, "set_durable"),
]


@pytest.mark.parametrize(("cls", "name"), STEPS, ids=[name for _, name in STEPS])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_interrupted_commit(root: str, monkeypatch: pytest.MonkeyPatch, cls: type, name: str, after: bool) -> None:
    """The story: Ctrl-C between the frame's append and its publication left log and segment one state apart, and every later commit of the process
    failed with "frame of state 4 does not follow state 4"."""
    db0.init(root, autocommit=False)
    db0.open("p")
    box = Box()
    db0.commit()
    state = db0.get_state_num(finalized=True)
    real = getattr(cls, name)
    hits = [0]

    def interrupted(self: object, *args: object, **kwargs: object) -> object:
        hits[0] += 1
        if hits[0] == 1 and not after:
            os.kill(os.getpid(), signal.SIGINT)
        result = real(self, *args, **kwargs)
        if hits[0] == 1 and after:
            os.kill(os.getpid(), signal.SIGINT)
        return result

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        box.serial = 1
        box.items.append("one")
        with monkeypatch.context() as patch:
            patch.setattr(cls, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                db0.commit()
    finally:
        signal.signal(signal.SIGINT, before)
    assert hits[0]
    assert box.serial == 1
    db0.commit()
    assert db0.get_state_num(finalized=True) == state + 1
    box.serial = 2
    box.items.append("two")
    db0.commit()
    assert db0.get_state_num(finalized=True) == state + 2
    db0.close()
    db0.init(root)
    db0.open("p", "r")
    assert (Box().serial, list(Box().items)) == (2, ["one", "two"])


def test_a_handler_that_raises_in_a_wait(root: str) -> None:
    class Alarm(Exception):
        pass

    def ring(number: int, frame: FrameType | None) -> None:
        raise Alarm

    db0.init(root, autocommit=False)
    db0.open("p")
    db0.list([1])
    db0.close("p")
    db0.open("p", "r")
    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Alarm):
            db0.wait("p", 100, 20_000)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
