"""kill -9 at the failpoints of a commit of two prefixes, from each side.

A writer moves sums between accounts of two prefixes, so that the total over both never changes, and is killed at a named
point of the protocol, or at any moment. Then the prefixes are opened in one order or the other, by a reader or by a
writer, and must agree; a reader that is attached all the while looks at consistent vectors. Fails when any round shows
one half of a transaction, or when an acknowledged one is missing.

    python stress/two_prefixes.py --rounds 500
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import dbzero as db0
from dbzero.session.together import consistent_states
from dbzero.session.workspace import active
from dbzero.storage.verify import check_root

POINTS = (
    "reserved",
    "prepared",
    "prepares synced",
    "before decision",
    "decision appended",
    "decision synced",
    "first published",
    "noted",
    "first shown",
    "shown",
    "anywhere",
)
NAMES = ("left", "right")


def die(point: str, wanted: str) -> None:
    if point == wanted:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(10)


def install(wanted: str, at: int) -> None:
    """Die at the `at`-th time that a point is come to."""
    from dbzero.storage import together
    from dbzero.storage.prefix import Prefix
    from dbzero.storage.vector import Window

    left = [at]

    def hit(point: str) -> None:
        if point == wanted:
            left[0] -= 1
            if left[0] <= 0:
                die(point, wanted)

    def wrap(owner: Any, name: str, before: Any = None, after: Any = None) -> None:
        real = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if before:
                hit(before(*args))
            result = real(*args, **kwargs)
            if after:
                hit(after(*args))
            return result

        setattr(owner, name, call)

    wrap(together, "_commit", before=lambda *a: "reserved")
    wrap(
        Prefix,
        "append_batch",
        before=lambda p, b, kind, h: "before decision" if kind == 3 else "",
        after=lambda p, b, kind, h: "decision appended" if kind == 3 else "prepared",
    )
    wrap(together, "_show", before=lambda *a: "decision synced")
    wrap(Prefix, "sync", after=lambda p: "prepares synced")
    wrap(Prefix, "publish_batch", after=lambda p, b: "first published")
    wrap(Window, "note", after=lambda w, s: "noted")
    wrap(Prefix, "show_batch", after=lambda p, b: "first shown")
    wrap(Window, "done", after=lambda w, s: "shown")


@db0.memo(singleton=True, id="stress/two/Left", prefix="left")
class Left:
    def __init__(self) -> None:
        self.balance = 1000
        self.serial = 0
        self.stamp = bytes(8)


@db0.memo(singleton=True, id="stress/two/Right", prefix="right")
class Right:
    def __init__(self) -> None:
        self.balance = 1000
        self.serial = 0
        self.stamp = bytes(8)


def writer(root: str, seed: int, point: str, order: str) -> None:
    rng = random.Random(seed)
    db0.init(root, autocommit=False)
    for name in order.split(","):
        db0.open(name)
    left, right = Left(), Right()
    db0.commit()
    assert left.serial == right.serial and left.balance + right.balance == 2000, (left.serial, right.serial)
    print("found", left.serial, flush=True)
    install(point, rng.randint(1, 4))
    end = time.monotonic() + 5
    while time.monotonic() < end:
        amount = rng.randrange(-50, 50)
        left.balance -= amount
        right.balance += amount
        left.serial = right.serial = left.serial + 1
        left.stamp = right.stamp = left.serial.to_bytes(8, "little")
        db0.commit()
        print("ack", left.serial, flush=True)
        if rng.random() < 0.05:
            active().get(rng.choice(NAMES)).prefix.checkpoint()


def look(root: str, order: str, mode: str) -> None:
    """Open both once, in an order; print what is there."""
    db0.init(root, autocommit=False)
    for name in order.split(","):
        db0.open(name, mode)
    left, right = db0.fetch(Left), db0.fetch(Right)
    if mode == "rw":
        assert left.serial == right.serial and left.balance + right.balance == 2000, (left.serial, right.serial)
    print("found", left.serial, right.serial, flush=True)
    db0.close()


def reader(root: str) -> None:
    """Look at vectors until killed; print how often."""
    db0.init(root)
    for name in NAMES:
        db0.open(name, "r")
    oids = {"left": db0.fetch(Left)._p_oid, "right": db0.fetch(Right)._p_oid}
    prefixes = {name: active().get(name).prefix for name in NAMES}
    looks = last = 0
    while True:
        db0.refresh()
        found = consistent_states(prefixes.values(), root)
        payloads = [prefixes[name].read(oids[name], found[name]) for name in NAMES]
        serials = [_serial(payload[0]) for payload in payloads if payload is not None]
        if len(serials) != 2 or serials[0] != serials[1] or serials[0] < last:
            print("half", serials, last, found, flush=True)
            return
        last, looks = serials[0], looks + 1
        if looks % 100 == 0:
            print("looks", looks, last, flush=True)
        time.sleep(0.0005)


def _serial(payload: bytes) -> int:
    """The last field of a stored singleton: eight bytes."""
    return int.from_bytes(payload[-8:], "little")


def run(*arguments: Any) -> tuple[int, list[list[str]]]:
    done = subprocess.run(
        [sys.executable, __file__, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    text = done.stdout
    if done.returncode not in (0, -9):
        raise SystemExit(f"FAILED: {arguments} ended with {done.returncode}:\n{text[-3000:]}")
    return done.returncode, [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=44)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = random.SystemRandom().getrandbits(32) if options.seed is None else options.seed
    print(f"seed {seed}")
    rng = random.Random(seed)
    root = tempfile.mkdtemp(prefix="dbzero-two-")
    deadline = time.monotonic() + 60 * options.minutes
    least = commits = rounds = looks = 0
    kills = dict.fromkeys(POINTS, 0)
    attached: subprocess.Popen[str] | None = None
    run("writer-once", root)
    try:
        for rounds in range(1, options.rounds + 1):
            if attached is None and rng.random() < 0.5:
                attached = subprocess.Popen(
                    [sys.executable, __file__, "reader", root], stdout=subprocess.PIPE, text=True
                )
            point = POINTS[rounds % len(POINTS)]
            order = ",".join(rng.sample(NAMES, 2))
            if point == "anywhere":
                child = subprocess.Popen(
                    [sys.executable, __file__, "writer", root, str(rng.getrandbits(32)), point, order],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                time.sleep(rng.uniform(0.3, 1.2))
                child.kill()
                text = child.communicate()[0]
                status, lines = -9, [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]
            else:
                status, lines = run("writer", root, rng.getrandbits(32), point, order)
            kills[point] += status == -9
            for line in lines:
                serial = int(line[1])
                if not least <= serial <= least + 1:
                    raise SystemExit(f"FAILED in round {rounds} ({point}): {line} after {least}; store kept in {root}")
                least = serial
                commits += line[0] == "ack"
            if attached is None:  # with readers attached the slots may be half way: vectors are what counts then
                _, ((_, one, other),) = run("look", root, ",".join(rng.sample(NAMES, 2)), "r")
                if one != other or not least <= int(one) <= least + 1:
                    raise SystemExit(f"FAILED in round {rounds} ({point}): {one} and {other}; store kept in {root}")
            if rng.random() < 0.5:
                _, ((_, one, other),) = run("look", root, ",".join(rng.sample(NAMES, 2)), "rw")
                if one != other or not least <= int(one) <= least + 1:
                    raise SystemExit(f"FAILED in round {rounds} ({point}): {one} and {other}; store kept in {root}")
                least = int(one)
            if attached is not None and (rng.random() < 0.3 or rounds == options.rounds):
                attached.kill()
                for line in (attached.communicate()[0] or "").splitlines():
                    if line.startswith("half"):
                        raise SystemExit(
                            f"FAILED in round {rounds} ({point}): a reader saw {line}; store kept in {root}"
                        )
                    looks += 100
                attached = None
            if time.monotonic() > deadline:
                break
    finally:
        if attached is not None:
            attached.kill()
            attached.wait()
    problems = check_root(root)
    if problems:
        raise SystemExit(f"FAILED: {problems}; store kept in {root}")
    shutil.rmtree(root)
    told = ", ".join(f"{count} {point}" for point, count in kills.items())
    print(
        f"{rounds} rounds, kills: {told}; {commits} acknowledged transactions all there, none by half; {looks} vectors looked at"
    )
    return 0


if __name__ == "__main__":
    role = sys.argv[1] if len(sys.argv) > 1 else ""
    if role == "writer":
        writer(sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5])
    elif role == "writer-once":
        db0.init(sys.argv[2], autocommit=False)
        Left()
        Right()
        db0.close()
    elif role == "look":
        look(sys.argv[2], sys.argv[3], sys.argv[4])
    elif role == "reader":
        reader(sys.argv[2])
    else:
        sys.exit(main())
