"""Threads and locks of the operating system, also where gevent has put its own in their place.

A thread here sleeps in the kernel until another process commits: as a greenlet it would put the whole process to sleep. A
lock here is held for moments, with the operation lock maybe: a greenlet that waited for it would let others run in the
middle of that. What waits for other greenlets - whose turn it is - does use `threading` as it is found.
"""

from __future__ import annotations

import _thread
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any


def _original(module: Any, name: str) -> Any:
    monkey = sys.modules.get("gevent.monkey")
    return getattr(module, name) if monkey is None else monkey.get_original(module.__name__, name)


Lock: Callable[[], threading.Lock] = _original(_thread, "allocate_lock")
RLock: Callable[[], threading.RLock] = (
    _thread.RLock
)  # never replaced; one thread's greenlets share it, and none switches with it
get_ident: Callable[[], int] = _original(_thread, "get_ident")
start_new_thread: Callable[[Callable[..., object], tuple[Any, ...]], int] = _original(_thread, "start_new_thread")
sleep: Callable[[float], None] = _original(time, "sleep")
# What threading.Thread starts with; the first since Python 3.13.
_STARTS = "_start_joinable_thread" if hasattr(threading, "_start_joinable_thread") else "_start_new_thread"


class Event:
    """A flag that threads wait for. It is set once."""

    __slots__ = ("_closed",)

    def __init__(self) -> None:
        self._closed = Lock()
        self._closed.acquire()

    def set(self) -> None:
        """Let all pass who wait, or will. Again: nothing happens."""
        if self._closed.locked():
            try:
                self._closed.release()
            except RuntimeError:  # another thread was first
                pass

    def wait(self, seconds: float) -> bool:
        """Whether it was set before that time was over."""
        if not self._closed.acquire(timeout=seconds):
            return False
        self.set()
        return True


class _Raw:
    """A thread that `threading` knows nothing of: it would make a greenlet of it."""

    def __init__(self, run: Callable[[], object]) -> None:
        self._run = run
        self._ident = 0
        self._process = os.getpid()  # a forked child has not got it
        self._ended = Event()

    def start(self) -> None:
        """Begin. Once."""
        self._ident = start_new_thread(self._body, ())

    def _body(self) -> None:
        self._ident = get_ident()
        try:
            self._run()
        finally:
            self._ended.set()

    @property
    def ident(self) -> int:
        """What :func:`get_ident` says in it."""
        return self._ident

    def is_alive(self) -> bool:
        """Whether it has begun and not ended."""
        return bool(self._ident) and self._process == os.getpid() and not self._ended.wait(0)

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""
        if self._process == os.getpid():
            self._ended.wait(threading.TIMEOUT_MAX if timeout is None else timeout)


Thread = threading.Thread | _Raw


def thread(run: Callable[[], object], name: str) -> Thread:
    """A thread, to be started, that does not keep the interpreter from ending."""
    if _original(threading, _STARTS) is not getattr(threading, _STARTS):
        return _Raw(run)
    return threading.Thread(target=run, name=name, daemon=True)


def forks_unheard() -> bool:
    """Whether this process will fork workers without telling Python, and so without the GIL: a worker that is forked while another
    thread has that waits for it forever. True of a uwsgi master without --py-call-uwsgi-fork-hooks."""
    uwsgi = sys.modules.get("uwsgi")  # it is there in processes of uwsgi only
    if uwsgi is None or getattr(uwsgi, "masterpid", int)() != os.getpid():
        return False
    return str(uwsgi.opt.get("py-call-uwsgi-fork-hooks", False)) not in ("True", "b'true'")


def is_current(other: Thread) -> bool:
    """Whether that thread runs this."""
    return other.ident == get_ident()
