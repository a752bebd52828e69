"""Atomic blocks as users see them: ``atomic``, ``begin_atomic``, ``atomic_assign``."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from dbzero.reflection.helpers import assign
from dbzero.session import blocks, shared


class AtomicManager(blocks.Block):
    """An atomic block: a context manager, for ``with`` and ``async with``, or begun and ended by hand with ``begin()``
    and ``close()`` or ``cancel()``. Made by ``db0.atomic``; may be used again when it has ended.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> numbers = db0.list([1])
    >>> with db0.atomic() as block:
    ...     numbers.append(2)
    ...     isinstance(block, db0.AtomicManager), block.active
    (True, True)
    >>> db0.close()
    """

    @property
    def active(self) -> bool:
        """Whether the block is open."""
        return self.open

    async def __aenter__(self) -> AtomicManager:
        await self.begin_async()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.deferring = True
        try:
            if kind is None:
                self.close()
            else:
                self.cancel()
        finally:
            self.deferring = False
            pending = self.take_pending()
            if pending:
                import asyncio  # whoever awaits has imported it

                await asyncio.get_running_loop().run_in_executor(None, shared.await_all, pending)


def atomic(*, commit: bool = False, wait: float | None = None, timeout: float | None = None) -> AtomicManager:
    """A block whose changes stay all together or not at all.

    When it ends well its changes are part of what is pending, as if made outside. An exception, or ``cancel()``, puts
    every object, collection, class and deletion back as it was, on all prefixes, and the exception goes on; what was
    made inside raises ReferenceError. Blocks within a block are save-points. While one is open no commit happens, and
    other threads wait where they would touch what it touched, change anything, or load anything. In another asyncio
    task of the same thread such a touch raises AtomicError; ``async with db0.atomic()`` waits for its turn.

    On prefixes that are open shared an outermost block is a transaction: it waits for its turn among all processes, in order of
    arrival, begins at the newest state, and its changes are durable when it has ended. What it changed in several of them, and
    with `commit` in other prefixes as well, is one transaction: all of it is made, or nothing.

    Args:
        commit: commit the prefixes that changed when the outermost block has ended well.
        wait: seconds to wait for the turn of shared prefixes, None: for ever.
        timeout: seconds that the block may have that turn; then a process that waits may take it away (None: 10).

    Returns:
        A context manager, also with ``begin()``, ``close()`` and ``cancel()``. After ``cancel()`` the rest of the
        ``with`` body runs outside of the block.

    Raises:
        NotInitializedError: at the beginning, before ``db0.init()``. TurnTimeoutError: the turn did not come in time.
        FencedError: at the end, when the block had its turn for too long, or was stopped; nothing of it is committed.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> accounts = db0.dict({"ann": 10, "bob": 0})
    >>> with db0.atomic() as block:
    ...     accounts["ann"] -= 7
    ...     accounts["bob"] += 7
    >>> with db0.atomic() as block:
    ...     accounts["ann"] -= 7
    ...     block.cancel()
    >>> dict(accounts)
    {'ann': 3, 'bob': 7}
    >>> db0.close()
    """
    if not isinstance(commit, bool):
        raise TypeError(f"commit must be a bool, not {type(commit).__name__}")
    return AtomicManager(commit, seconds("wait", wait), seconds("timeout", timeout))


def seconds(name: str, value: float | None) -> float | None:
    """Check a duration. TypeError, ValueError."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not 0 <= value < 1e6:
        raise ValueError(f"{name} must be between 0 and 1,000,000 seconds, not {value}")
    return float(value)


def begin_atomic() -> AtomicManager:
    """An atomic block that has begun. End it with ``close()`` or ``cancel()``.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> numbers = db0.list([1])
    >>> block = db0.begin_atomic()
    >>> numbers.append(2)
    >>> block.cancel()
    >>> numbers
    [1]
    >>> db0.close()
    """
    manager = AtomicManager()
    manager.begin()
    return manager


def atomic_assign(*objects: Any, **attributes: Any) -> None:
    """Set every given attribute on every given object; when one cannot be set, none is.

    Raises:
        Error: an attribute cannot be set: no memo object, or a value that cannot be stored.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Thing:
    ...     pass
    >>> one, two = Thing(), Thing()
    >>> db0.atomic_assign(one, two, size=5)
    >>> one.size + two.size
    10
    >>> db0.close()
    """
    with atomic():
        assign(*objects, **attributes)
