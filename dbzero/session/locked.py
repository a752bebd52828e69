"""Locked blocks: autocommit waits, and what was changed is told with the state number it has, or will have."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dbzero.errors import Error, PrefixError
from dbzero.model import base
from dbzero.model.base import operation
from dbzero.session import workspace as workspaces
from dbzero.session.workspace import OpenPrefix, active, active_or_none

if TYPE_CHECKING:
    import asyncio

MutationLog = list[tuple[str, int]]


class LockedManager:
    """A locked block: a context manager, for ``with`` and ``async with``. Made by ``db0.locked``; may be used again.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> with db0.locked() as block:
    ...     isinstance(block, db0.LockedManager)
    True
    >>> db0.close()
    """

    def __init__(self, await_commit: bool = False) -> None:
        self._await_commit = await_commit
        self._depth = 0
        self._before: dict[OpenPrefix, int] = {}
        self._closed: dict[str, int] = {}
        self._log: MutationLog = []

    def get_mutation_log(self) -> MutationLog:
        """(prefix name, state number) of each prefix that changed in the block; the number is the one that the commit
        of the last change had, or will have. Empty until the block has ended."""
        return list(self._log)

    def close(self) -> None:
        """End the block. Error when it has ended."""
        if not self._depth:
            raise Error("the locked block has ended")
        self._depth -= 1
        if self._depth:
            return
        with operation:
            workspace = active_or_none()
            base.watch_changes(-1)
            workspaces.locked_blocks.remove(self)
            found = dict(self._closed)
            for opened in [] if workspace is None else workspace.open_prefixes.values():
                state = self._mutated(opened)
                if state:
                    found[opened.name] = state
            self._before.clear()
            self._log = list(found.items())

    def begin(self) -> None:
        """Begin the block. Waits while a commit is being encoded."""
        workspace = active()
        with operation:
            self._depth += 1
            if self._depth > 1:
                return
            self._closed.clear()
            self._log = []
            for opened in workspace.open_prefixes.values():
                if opened.writable:
                    opened.view.flush()
                self._before[opened] = opened.view.changes
            base.watch_changes(1)
            workspaces.locked_blocks.append(self)

    def _mutated(self, opened: OpenPrefix) -> int:
        """The state number of the last change in a prefix since the block began; 0: there was none."""
        view = opened.view
        if not (opened.writable or opened.shared) or view.closed:
            return 0
        if opened.writable:
            view.flush()
        if view.changes == self._before.get(opened, 0):
            return 0
        if not opened.writable:
            return int(view.state)  # its transactions have committed
        return opened.state(finalized=view.changes == opened.committed_changes)

    def note_closing(self, opened: OpenPrefix) -> None:
        """A prefix is about to be closed, after its last commit."""
        state = self._mutated(opened)
        if state:
            self._closed[opened.name] = state

    def __enter__(self) -> LockedManager:
        if self._await_commit:
            raise Error("await_commit needs `async with db0.locked(await_commit=True)`")
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> LockedManager:
        self.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if kind is None and self._await_commit and not self._depth:
            await await_commit(self._log)


def locked(await_commit: bool = False) -> LockedManager:
    """A block in which autocommit waits, so that its changes land in one commit.

    Nothing is put back when it fails, other threads go on reading and writing, and an explicit ``commit()`` is allowed.
    After the block ``get_mutation_log()`` tells which prefixes changed, whoever changed them.

    Args:
        await_commit: for ``async with`` only: when the block has ended well, wait until its changes are durable; on
            prefixes without autocommit, commit them.

    Raises:
        Error: at the beginning of a plain ``with``, if `await_commit`. NotInitializedError.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> numbers = db0.list()
    >>> with db0.locked() as block:
    ...     numbers.append(1)
    >>> block.get_mutation_log()
    [('p', 2)]
    >>> db0.close()
    """
    return LockedManager(bool(await_commit))


def begin_locked() -> LockedManager:
    """A locked block that has begun. End it with ``close()``.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> block = db0.begin_locked()
    >>> block.close()
    >>> block.get_mutation_log()
    []
    >>> db0.close()
    """
    manager = LockedManager()
    manager.begin()
    return manager


async def await_commit(mutation_log: Iterable[tuple[str, int]]) -> None:
    """Wait until every state of a mutation log is durable; prefixes without autocommit are committed.

    Args:
        mutation_log: pairs of prefix name and state number, as ``get_mutation_log()`` gives them. A prefix that was
            closed meanwhile was committed then.

    Raises:
        StorageError: a commit failed.

    >>> import asyncio, dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p", autocommit=False)
    >>> numbers = db0.list()
    >>> with db0.locked() as block:
    ...     numbers.append(1)
    >>> asyncio.run(db0.await_commit(block.get_mutation_log()))
    >>> db0.get_state_num(finalized=True)
    2
    >>> db0.close()
    """
    workspace = active()
    for name, state in list(mutation_log):
        opened = workspace.open_prefixes.get(name)
        if opened is None:
            continue
        if opened.writable and not opened.autocommit and opened.state(finalized=True) < state:
            workspace.commit(name)
        await async_wait(name, state)


def async_wait(prefix: str, state_num: int) -> asyncio.Future[None]:
    """A future that is done when a prefix has reached a state, whoever commits it.

    Args:
        prefix: name of an open prefix. state_num: state number, above 0.

    Raises:
        PrefixError: it is not open; in the future: it was closed before it got there. Error: no event loop runs.
        TypeError, ValueError: no such state number.

    >>> import asyncio, dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> async def main():
    ...     await db0.async_wait("p", 1)
    >>> asyncio.run(main())
    >>> db0.close()
    """
    if isinstance(state_num, bool) or not isinstance(state_num, int):
        raise TypeError(f"state_num must be an int, not {type(state_num).__name__}")
    if state_num <= 0:
        raise ValueError("state_num must be above 0")
    if not isinstance(prefix, str):
        raise TypeError(f"prefix must be a str, not {type(prefix).__name__}")
    import asyncio  # slow to import, and whoever runs a loop has

    opened = active().get(prefix)
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    if _reached(opened, state_num):
        future.set_result(None)
        return future
    task = loop.create_task(_watch(opened, state_num, future))
    future.add_done_callback(lambda _: task.cancel())
    return future


def _reached(opened: OpenPrefix, state: int) -> bool:
    return opened.state(finalized=True) >= state


async def _watch(opened: OpenPrefix, state: int, future: asyncio.Future[Any]) -> None:
    import asyncio

    # Looks, with growing pauses: a look is a load from shared memory, and needs neither a thread nor a lock.
    pause = 0.001
    try:
        while not future.done():
            if opened.view.closed:
                raise PrefixError(f"prefix {opened.name} was closed before it reached state {state}")
            if _reached(opened, state):
                future.set_result(None)
                return
            error = opened.view.autocommit_error
            if error is not None:
                raise error
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.02)
    except Exception as error:
        if not future.done():
            future.set_exception(error)


def _closing(opened: OpenPrefix) -> None:
    for block in list(workspaces.locked_blocks):
        block.note_closing(opened)


workspaces.block_hooks.closed = _closing
