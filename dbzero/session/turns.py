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

Owner = tuple[int, Any]


def context() -> Owner:
    """(thread, asyncio task or None) that runs this."""
    asyncio = sys.modules.get("asyncio")
    running = getattr(asyncio, "_get_running_loop", None)
    if asyncio is None or running is None or running() is None:
        return threading.get_ident(), None
    return threading.get_ident(), asyncio.current_task()


class _Waiter:
    __slots__ = ("owner", "wake")

    def __init__(self, owner: Owner, wake: Callable[[], object]) -> None:
        self.owner = owner
        self.wake = wake


class Turn:
    """A fair lock, reentrant for the context that has it."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._owner: Owner | None = None
        self._depth = 0
        self._waiting: deque[_Waiter] = deque()

    def _take(self, me: Owner) -> bool:
        if self._owner == me:
            self._depth += 1
            return True
        if self._owner is None:
            self._owner, self._depth = me, 1
            return True
        return False

    def acquire(self) -> None:
        """Wait for the turn. AtomicError when another task of this thread has it, or waits for it before us."""
        me = context()
        event = threading.Event()
        waiter = _Waiter(me, event.set)
        with self._mutex:
            if self._take(me):
                return
            ahead = [self._owner, *(other.owner for other in self._waiting)]
            if any(owner is not None and owner[0] == me[0] for owner in ahead):
                raise AtomicError(
                    "an atomic block of another task of this thread is open, or about to be: let it end first; "
                    "`async with db0.atomic()` waits for its turn"
                )
            self._waiting.append(waiter)
        try:
            event.wait()
        except BaseException:
            self._give_up(waiter)
            raise

    async def acquire_async(self) -> None:
        """Wait for the turn while other tasks of the loop run."""
        import asyncio  # whoever awaits has imported it

        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            loop.call_soon_threadsafe(lambda: turn.done() or turn.set_result(None))

        me = context()
        waiter = _Waiter(me, wake)
        with self._mutex:
            if self._take(me):
                return
            self._waiting.append(waiter)
        try:
            await turn
        except BaseException:
            self._give_up(waiter)
            raise

    def _give_up(self, waiter: _Waiter) -> None:
        with self._mutex:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                return
            self._pass_on()

    def release(self) -> None:
        """Give the turn to who came next."""
        with self._mutex:
            self._depth -= 1
            if not self._depth:
                self._pass_on()

    def _pass_on(self) -> None:
        self._owner, self._depth = None, 0
        while self._waiting:
            waiter = self._waiting.popleft()
            self._owner, self._depth = waiter.owner, 1
            try:
                waiter.wake()
                return
            except RuntimeError:  # its loop was closed
                self._owner, self._depth = None, 0

    def reset_after_fork(self) -> None:
        """The child's other threads do not exist."""
        self.__init__()  # type: ignore[misc]

    def __enter__(self) -> Turn:
        self.acquire()
        return self

    def __exit__(self, *unused: object) -> None:
        self.release()


turn = Turn()
"""The one of this process."""
