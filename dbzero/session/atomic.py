"""Atomic blocks as users see them: ``atomic``, ``begin_atomic``, ``atomic_assign``."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from dbzero.reflection.helpers import assign
from dbzero.session import blocks


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
        if kind is None:
            self.close()
        else:
            self.cancel()


def atomic(*, commit: bool = False) -> AtomicManager:
    """A block whose changes stay all together or not at all.

    When it ends well its changes are part of what is pending, as if made outside. An exception, or ``cancel()``, puts
    every object, collection, class and deletion back as it was, on all prefixes, and the exception goes on; what was
    made inside raises ReferenceError. Blocks within a block are save-points. While one is open no commit happens, and
    other threads wait where they would touch what it touched, change anything, or load anything. In another asyncio
    task of the same thread such a touch raises AtomicError; ``async with db0.atomic()`` waits for its turn.

    Args:
        commit: commit the prefixes that changed when the outermost block has ended well.

    Returns:
        A context manager, also with ``begin()``, ``close()`` and ``cancel()``. After ``cancel()`` the rest of the
        ``with`` body runs outside of the block.

    Raises:
        NotInitializedError: at the beginning, before ``db0.init()``.

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
    return AtomicManager(commit)


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
