"""dbzero in a process of greenlets: gevent has replaced threads, locks and sleeping before it was imported."""

from __future__ import annotations

import importlib.util
import textwrap
from pathlib import Path

import pytest

from tests.scripts import run

pytestmark = pytest.mark.skipif(importlib.util.find_spec("gevent") is None, reason="gevent is not installed")

BEGIN = """
from gevent import monkey
monkey.patch_all()
"""

PROGRAM = """
import subprocess, sys, threading, time
import gevent
import dbzero as db0

@db0.memo(singleton=True, id="greenlets/Board")
class Board:
    def __init__(self):
        self.value = 0
        self.log = []

def bump(times, pause):
    for _ in range(times):
        with db0.atomic():
            board.value += 1
            board.log.append(threading.get_ident())
        time.sleep(pause)

root = sys.argv[1]
ticks = [0]

def tick():
    while True:
        ticks[0] += 1
        gevent.sleep(0.005)

def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come"
        gevent.sleep(0.002)

if sys.argv[2:] == ["other"]:
    db0.init(root, prefix="p", shared=True, cache_size=64 << 20)
    with db0.atomic():
        board = Board()
    bump(50, 0.002)
    db0.close()
    sys.exit()
"""

FOLLOWS = """
gevent.spawn(tick)
db0.init(root, prefix="p", shared=True, cache_size=64 << 20)
with db0.atomic():
    board = Board()
db0.close()
db0.init(root, cache_size=64 << 20)
db0.open("p", "r")
board = db0.fetch(Board)
began = time.monotonic()
before = ticks[0]
gevent.sleep(0.5)
print("others run while nobody commits:", ticks[0] - before > 5)
other = subprocess.Popen([sys.executable, __file__, root, "other"])
seen = set()
def all_there():
    seen.add(board.value)
    return board.value == 50
until(all_there)
print("followed on the way:", len(seen) > 2, "and to the end:", len(board.log) == 50)
other.wait()
began = time.monotonic()
db0.close()
print("closed at once:", time.monotonic() - began < 10)
"""

WRITES = """
gevent.spawn(tick)
db0.init(root, prefix="p", shared=True, cache_size=64 << 20)
with db0.atomic():
    board = Board()
other = subprocess.Popen([sys.executable, __file__, root, "other"])
greenlets = [gevent.spawn(bump, 50, 0.001) for _ in range(4)]
gevent.joinall(greenlets, timeout=30, raise_error=True)
print("all ended:", all(one.dead for one in greenlets))
other.wait()
until(lambda: board.value == 250)
print("nothing got lost:", len(board.log) == 250, "- others ran:", ticks[0] > 5)

def slowly():
    with db0.atomic():
        board.value = 0
        gevent.sleep(0.2)  # bad manners, but no reason to hang
        board.value = 1000

slow = gevent.spawn(slowly)
gevent.sleep(0.05)
waiting = [gevent.spawn(bump, 1, 0) for _ in range(3)]
gevent.joinall([slow, *waiting], timeout=20, raise_error=True)
print("a block that switches keeps the turn:", board.value == 1003)
db0.close()
"""

EXCLUSIVE = """
db0.init(root, prefix="p", autocommit=True, autocommit_interval=50, cache_size=64 << 20)
gevent.spawn(tick)
board = Board()
board.value = 7
before = ticks[0]
until(lambda: db0.get_state_num("p", finalized=True) > 1)
gevent.sleep(0.2)
print("committed by itself:", not db0.status()["prefixes"]["p"].get("error"), ticks[0] - before > 10)
board.value = 8
db0.close()
"""


def program(tmp_path: Path, body: str) -> str:
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(BEGIN + PROGRAM + body))
    return str(path)


def test_live_handles_follow_commits(root: str, tmp_path: Path) -> None:
    assert run(program(tmp_path, FOLLOWS), root, cwd=tmp_path) == (
        "others run while nobody commits: True\nfollowed on the way: True and to the end: True\nclosed at once: True\n"
    )


def test_greenlets_write(root: str, tmp_path: Path) -> None:
    assert run(program(tmp_path, WRITES), root, cwd=tmp_path) == (
        "all ended: True\nnothing got lost: True - others ran: True\na block that switches keeps the turn: True\n"
    )


def test_autocommit_and_exclusive_writing(root: str, tmp_path: Path) -> None:
    assert run(program(tmp_path, EXCLUSIVE), root, cwd=tmp_path) == "committed by itself: True True\n"
