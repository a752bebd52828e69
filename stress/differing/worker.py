"""Runs programs in child processes and reports what each step came to. Started by ``stress/differential.py``, with ours
or with the original; so it needs nothing but the standard library and ``dbzero``.

In: a JSON line with ``steps`` (Python source) and ``timeout`` (seconds). Out: a JSON line with ``outcomes``, one for each
step that ended, and ``end``: "ok", "signal <n>" or "timeout".

An outcome is ``["value", plain form]`` or ``["raised", [names of the exception's classes, itself first], message]``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import decimal
import gc
import json
import os
import re
import select
import shutil
import signal
import sys
import tempfile
import time
import types

if "--builtin" in sys.argv:
    import builtin as db0
else:
    import dbzero as db0

Color = db0.enum("Color", ["RED", "GREEN", "BLUE"])


@db0.memo
class Thing:
    kind = "thing"

    def __init__(self, n, **fields):
        self.n = n
        for name, value in fields.items():
            setattr(self, name, value)

    def double(self):
        return self.n * 2


@db0.memo
class Part(Thing):
    pass


@db0.memo
@dataclasses.dataclass
class Record:
    n: int
    label: str = "none"


@db0.memo
class Equal:
    def __init__(self, n, x=0):
        self.n = n
        self.x = x

    def __eq__(self, other):
        return isinstance(other, Equal) and self.x == other.x

    def __hash__(self):
        return 7


@db0.memo(singleton=True)
class Root:
    def __init__(self):
        self.n = 0


@db0.memo(singleton=True)
class Config:
    def __init__(self, value):
        self.n = value


class Plain:
    pass


def function(x):
    return x + 1


CONTAINERS = {
    db0.types.List: "List",
    db0.types.Tuple: "Tuple",
    db0.types.Dict: "Dict",
    db0.types.Set: "Set",
    list: "list",
    tuple: "tuple",
    set: "set",
    frozenset: "frozenset",
    dict: "dict",
}


def plain(value, depth=0):
    """What a value looks like from outside, the same for both."""
    kind = type(value)
    if kind is str:
        return ["str", re.sub(" at 0x[0-9a-f]+", "", repr(value))]
    if value is None or kind in (bool, int, bytes, bytearray, float, decimal.Decimal):
        return [kind.__name__, repr(value)]
    if kind in (datetime.date, datetime.datetime, datetime.time, datetime.timedelta):
        return [kind.__name__, repr(value)]
    if kind in CONTAINERS:
        if depth > 6:
            return [CONTAINERS[kind], "..."]
        if kind in (dict, db0.types.Dict):
            items = [[plain(key, depth + 1), plain(item, depth + 1)] for key, item in list(value.items())]
            return [CONTAINERS[kind], sorted(items, key=repr)]
        items = [plain(item, depth + 1) for item in value]
        if kind not in (list, tuple, db0.types.List, db0.types.Tuple):
            items.sort(key=repr)
        return [CONTAINERS[kind], items]
    if kind is db0.types.ByteArray:
        return ["ByteArray", repr(bytes([value[i] for i in range(len(value))]))]
    if kind is db0.types.Index:
        return ["Index", len(value)]
    if kind is db0.types.WeakSet:
        return ["WeakSet", len(value)]
    if db0.is_enum_value(value):
        return ["enum", str(value)]
    if isinstance(value, type):
        return ["class", value.__name__]
    if isinstance(value, (types.FunctionType, types.ModuleType)):
        return ["named", value.__name__]
    if db0.expired(value):
        return ["expired"]
    if db0.is_memo(value):
        return ["memo", kind.__name__, plain(value.n, depth + 1)]
    if kind is db0.types.WeakProxy:
        return ["proxy"]
    if isinstance(value, db0.types.ObjectIterable):
        return ["query", [plain(item, depth + 1) for item in value]]
    return ["other", kind.__name__]


class Session:
    """One run: the names that steps see, and the store they work on."""

    def __init__(self, root):
        self.root = root
        self.kept = set()
        self.names = {
            "db0": db0,
            "datetime": datetime,
            "Decimal": decimal.Decimal,
            "Color": Color,
            "Plain": Plain,
            "function": function,
            "keep": self.keep,
            "reopen": self.reopen,
            "collect": gc.collect,
            **{cls.__name__: cls for cls in (Thing, Part, Record, Equal, Config)},
        }
        self.constants = set(self.names)

    def start(self):
        db0.init(self.root, autocommit=False)
        db0.open("main", "rw", autocommit=False)
        self.names["R"] = Root()

    def keep(self, name):
        """Have a variable survive ``reopen()``."""
        setattr(self.names["R"], name, self.names[name])
        self.kept.add(name)

    def reopen(self):
        """Close everything and open it again. Variables that were not kept are gone."""
        for name in [name for name in self.names if name not in self.constants]:
            del self.names[name]
        gc.collect()
        db0.close()
        self.start()
        for name in sorted(self.kept):
            self.names[name] = getattr(self.names["R"], name)

    def step(self, source):
        try:
            try:
                code = compile(source, "<step>", "eval")
            except SyntaxError:
                exec(compile(source, "<step>", "exec"), self.names)
                return ["value", None]
            return ["value", plain(eval(code, self.names))]
        except Exception as error:
            names = [cls.__name__ for cls in type(error).__mro__ if cls is not object]
            return ["raised", names, str(error)[:300]]
        finally:
            self.names.pop("__builtins__", None)


def child(steps, root, out):
    def say(value):
        os.write(out, json.dumps(value).encode() + b"\n")

    session = Session(root)
    session.start()
    for source in steps:
        say(session.step(source))
    session.names.clear()
    gc.collect()
    say("closing")
    db0.close()
    say("closed")


def run(steps, timeout):
    """Outcomes of a program run in a child of its own, and how that ended."""
    root = tempfile.mkdtemp(prefix="differential-")
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reading)
            nowhere = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(nowhere, fd)
            child(steps, root, writing)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    received = b""
    end = time.monotonic() + timeout
    late = False
    while True:
        ready, _, _ = select.select([reading], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            late = True
            break
        chunk = os.read(reading, 1 << 16)
        if not chunk:
            break
        received += chunk
    os.close(reading)
    if late:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    shutil.rmtree(root, ignore_errors=True)
    lines = [json.loads(line) for line in received.split(b"\n")[:-1]]
    outcomes = [line for line in lines if isinstance(line, list)]
    if late:
        return outcomes, "timeout"
    if os.WIFSIGNALED(status):
        return outcomes, f"signal {os.WTERMSIG(status)}"
    if lines[-1:] != ["closed"]:
        return outcomes, "stopped"
    return outcomes, "ok"


def main():
    for line in sys.stdin:
        program = json.loads(line)
        outcomes, end = run(program["steps"], program["timeout"])
        print(json.dumps({"outcomes": outcomes, "end": end}), flush=True)


if __name__ == "__main__":
    main()
