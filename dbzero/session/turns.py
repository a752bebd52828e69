"""Whose turn it is: atomic blocks, and the opening and closing of prefixes, come one after the other, first come first
served.

A turn belongs to a context: a thread, or one asyncio task of it. A thread waits; a task may wait without blocking its
loop. What must not happen is that a loop's thread waits for one of its own tasks: that is refused at once.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from dbzero.errors import AtomicError
from dbzero.model.base import Ending
from dbzero.runtime import osthreads

Owner = tuple[int, Any]


def context() -> Owner:
    """(thread, asyncio task or None) that runs this."""
    asyncio = sys.modules.get("asyncio")
    running = getattr(asyncio, "_get_running_loop", None)
    if asyncio is None or running is None or running() is None:
        return threading.get_ident(), None
    return threading.get_ident(), asyncio.current_task()


class _Waiter:
    __slots__ = ("key", "keys", "owner", "wake")

    def __init__(self, owner: Owner, key: object, wake: Callable[[], object]) -> None:
        self.owner = owner
        self.key = key
        self.keys = [key]
        self.wake = wake


class Turn:
    """A fair lock, reentrant for the context that has it. Whoever acquires it gives a key, and the same to release():
    what was interrupted somewhere in acquire() or release() is made good by another release().

    A signal handler runs, and may raise, after a call, at a function's start and where a loop turns; so what must not
    be torn are assignments without calls between them.
    """

    def __init__(self) -> None:
        self._mutex = osthreads.Lock()
        self._owner: Owner | None = None
        self._keys: list[object] = []  # of the owner
        self._waiting: deque[_Waiter] = deque()
        self._granted: _Waiter | None = None  # to be woken

    def _take(self, me: Owner, key: object) -> bool:
        if self._owner is not None and self._owner != me:
            return False
        keys = [*self._keys, key]
        self._owner, self._keys = me, keys
        return True

    def acquire(self, key: object) -> None:
        """Wait for the turn. AtomicError when another task of this thread has it, or waits for it before us."""
        me = context()
        with self._mutex:
            self._wake_granted()
            if self._take(me, key):
                return
            event = threading.Event()
            ahead = [self._owner, *(other.owner for other in self._waiting)]
            if any(owner is not None and owner[0] == me[0] for owner in ahead):
                raise AtomicError(
                    "an atomic block of another task of this thread is open, or about to be: let it end first; "
                    "`async with db0.atomic()` waits for its turn"
                )
            self._waiting.append(_Waiter(me, key, event.set))
        event.wait()

    async def acquire_async(self, key: object) -> None:
        """Wait for the turn while other tasks of the loop run."""
        import asyncio  # whoever awaits has imported it

        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def settle() -> None:
            if not future.done():
                future.set_result(None)

        def wake() -> None:
            loop.call_soon_threadsafe(settle)

        me = context()
        with self._mutex:
            self._wake_granted()
            if self._take(me, key):
                return
            self._waiting.append(_Waiter(me, key, wake))
        await future

    def holds(self, key: object) -> bool:
        """Whether the turn was acquired with that key and not released."""
        for one in self._keys:  # noqa: SIM110 - a generator costs each transaction more than the question itself
            if one is key:
                return True
        return False

    def release(self, key: object) -> None:
        """Give the turn to who came next, or stop waiting for it. Neither had nor waited for: nothing happens."""
        with self._mutex:
            if self._waiting:
                self._waiting = deque([waiter for waiter in self._waiting if waiter.key is not key])
            self._keys = [one for one in self._keys if one is not key]
            while self._owner is not None and not self._keys:
                if not self._waiting:
                    self._owner = None
                    return
                waiter = self._waiting[0]
                self._owner, self._keys, self._granted = waiter.owner, waiter.keys, waiter
                self._wake_granted()
            self._wake_granted()

    def _wake_granted(self) -> None:
        waiter = self._granted
        if waiter is None:
            return
        if self._waiting and self._waiting[0] is waiter:
            self._waiting.popleft()
        try:
            waiter.wake()
        except RuntimeError:  # its loop was closed
            self._keys = []
        self._granted = None

    def reset_after_fork(self) -> None:
        """The child's other threads do not exist."""
        self.__init__()  # type: ignore[misc]

    def hold(self) -> Hold:
        """The turn as a context manager."""
        return Hold()


turn = Turn()
"""The one of this process."""


class Hold(Ending):  # type: ignore[misc]
    """Has the turn from begin to end."""

    def _begin(self) -> None:
        turn.acquire(self)

    def _finish(self, keep: bool) -> None:
        turn.release(self)
