"""kill -9 at the failpoints of a commit of two prefixes, from each side.

A writer moves sums between accounts of two prefixes, so that the total over both never changes, and is killed at a named
point of the protocol, or at any moment. Then the prefixes are opened in one order or the other, by a reader or by a
writer, and must agree; a reader that is attached all the while looks at consistent vectors. Fails when any round shows
one half of a transaction, or when an acknowledged one is missing.

With `--shared` one or both of the prefixes are open shared, and another process with the same ones goes on in its own
transactions, of one prefix or both, before, during and after each kill; it looks at snapshots in between.

    python stress/two_prefixes.py --rounds 500 [--shared]
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


def check(left: Any, right: Any) -> None:
    assert left.serial == right.serial and left.balance + right.balance == 2000, (left.serial, right.serial)
    assert left.stamp == right.stamp == left.serial.to_bytes(8, "little"), (left.serial, left.stamp, right.stamp)


def move(rng: random.Random, left: Any, right: Any) -> None:
    amount = rng.randrange(-50, 50)
    left.balance -= amount
    right.balance += amount
    left.serial = right.serial = left.serial + 1
    left.stamp = right.stamp = left.serial.to_bytes(8, "little")


def writer(root: str, seed: int, point: str, order: str, shared: str = "") -> None:
    """shared: the prefixes that are opened shared, which others write meanwhile."""
    rng = random.Random(seed)
    db0.init(root, autocommit=False)
    for name in order.split(","):
        db0.open(name, shared=name in shared.split(","))
    with db0.atomic(commit=True):
        left, right = Left(), Right()
        check(left, right)
        print("found", left.serial, flush=True)
    install(point, rng.randint(1, 4))
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if shared:
            with db0.atomic(commit=True):
                check(left, right)
                move(rng, left, right)
                serial = left.serial
        else:
            move(rng, left, right)
            db0.commit()
            serial = left.serial
        print("ack", serial, flush=True)
        if rng.random() < 0.05:
            with (prefix := active().get(rng.choice(NAMES)).prefix).upkeep():
                prefix.checkpoint()


def beside(root: str, seed: int, shared: str) -> None:
    """Go on with the shared prefixes until killed: alone in each, and in both together if both are shared. Lines as of a writer."""
    rng = random.Random(seed)
    db0.init(root, autocommit=False)
    names = shared.split(",")
    for name in names:
        db0.open(name, shared=True)
    kinds = {"left": Left, "right": Right}
    mine: dict[str, Any] = {}
    with db0.atomic():
        for name in names:
            mine[name] = kinds[name]()
    last = 0
    while True:
        if len(names) == 2:
            with db0.atomic():
                check(mine["left"], mine["right"])
                assert mine["left"].serial >= last
                if rng.random() < 0.5:
                    move(rng, mine["left"], mine["right"])
                last = mine["left"].serial
            print("ack", last, flush=True)
            with db0.snapshot() as past:
                check(past.fetch(Left), past.fetch(Right))
            if rng.random() < 0.02:
                try:
                    db0.compact(rng.choice(names), keep_states=rng.randrange(1, 5))
                except db0.LeaseError:
                    pass
        else:
            with db0.atomic():
                one = mine[names[0]]
                assert one.serial >= last
                last = one.serial
                one.other = rng.random()
        time.sleep(rng.random() * 0.01)


def look(root: str, order: str, mode: str) -> None:
    """Open both once, in an order; print what is there."""
    db0.init(root, autocommit=False)
    for name in order.split(","):
        db0.open(name, mode)
    left, right = db0.fetch(Left), db0.fetch(Right)
    if mode == "rw":
        check(left, right)
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


def shared_rounds(options: argparse.Namespace, rng: random.Random, root: str, deadline: float) -> int:
    """The rounds of `--shared`: the one beside is started, and killed, every few of them."""
    least = commits = rounds = 0
    kills = dict.fromkeys(POINTS, 0)
    other: subprocess.Popen[str] | None = None
    log: Any = None
    shared = ""

    def acknowledged() -> int:
        """The newest serial that the one beside told, which must be alive."""
        assert other is not None
        with open(log.name) as file:
            text = file.read()
        if other.poll() is not None:
            raise SystemExit(
                f"FAILED in round {rounds} ({shared} shared): the one beside ended:\n{text[-3000:]}\nstore kept in {root}"
            )
        return max(
            [int(line.split()[1]) for line in text[: text.rfind("\n") + 1].splitlines() if line.startswith("ack")],
            default=0,
        )

    def end() -> None:
        nonlocal other, least, commits
        if other is not None:
            least = max(least, acknowledged())
            with open(log.name) as file:
                commits += len({line for line in file if line.startswith("ack") and line.endswith("\n")})
            other.kill()
            other.wait()
        other = None

    try:
        for rounds in range(1, options.rounds + 1):
            if other is None:
                shared = rng.choice(("left,right", "left,right", "left", "right"))
                log = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115
                command = [sys.executable, __file__, "beside", root, str(rng.getrandbits(32)), shared]
                other = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True)
            point = POINTS[rounds % len(POINTS)]
            order = ",".join(rng.sample(NAMES, 2))
            role = [sys.executable, __file__, "writer", root, str(rng.getrandbits(32)), point, order, shared]
            child = subprocess.Popen(role, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if point == "anywhere":
                time.sleep(rng.uniform(0.3, 1.2))
                child.kill()
            text = child.communicate()[0]
            if child.returncode not in (0, -9):
                raise SystemExit(
                    f"FAILED in round {rounds} ({point}, {shared} shared):\n{text[-3000:]}\nstore kept in {root}"
                )
            kills[point] += child.returncode == -9
            for line in [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]:
                if int(line[1]) < least:
                    raise SystemExit(f"FAILED in round {rounds} ({point}): {line} after {least}; store kept in {root}")
                least = int(line[1])
                commits += line[0] == "ack"
            least = max(least, acknowledged())
            if rng.random() < 0.3:
                end()
                _, ((_, one, two),) = run("look", root, ",".join(rng.sample(NAMES, 2)), rng.choice(("r", "rw")))
                if one != two or int(one) < least:
                    raise SystemExit(
                        f"FAILED in round {rounds} ({point}): {one} and {two} after {least}; store kept in {root}"
                    )
            if time.monotonic() > deadline:
                break
        end()
    finally:
        if other is not None:
            other.kill()
            other.wait()
    problems = check_root(root)
    if problems:
        raise SystemExit(f"FAILED: {problems}; store kept in {root}")
    shutil.rmtree(root)
    told = ", ".join(f"{count} {point}" for point, count in kills.items())
    print(
        f"{rounds} rounds with shared prefixes, kills: {told}; {commits} acknowledged transactions all there, none by half"
    )
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=44)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--shared", action="store_true", help="one or both prefixes are open shared")
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
    if options.shared:
        return shared_rounds(options, rng, root, deadline)
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
        writer(sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
    elif role == "beside":
        beside(sys.argv[2], int(sys.argv[3]), sys.argv[4])
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
