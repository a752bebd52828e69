"""The open atomic block of the process: its stack of save-points, and what it holds while it is open.

In this order: the turn (:mod:`dbzero.session.turns`), the commit lock of every open prefix, so that no commit is under
way, and the operation lock. The undo logs are C (csrc/pytypes_block.c).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

from dbzero.errors import AtomicError
from dbzero.model import base
from dbzero.model.base import operation
from dbzero.model.view import View
from dbzero.session import shared
from dbzero.session import workspace as workspaces
from dbzero.session.turns import turn

_ATTEMPTS = 5
_token: ContextVar[object | None] = ContextVar("dbzero_block", default=None)
base.set_token_reader(_token.get)

_stack: list[Block] = []  # innermost last; as many as base.block_depth() between steps
_held: list[Any] = []  # commit locks
_holds: list[Any] = []  # a second hold on the operation lock, while shared prefixes are being written


class Block:
    """One save-point."""

    __slots__ = ("commit",)

    def __init__(self, commit: bool) -> None:
        self.commit = commit

    @property
    def open(self) -> bool:
        """Whether it has not ended."""
        return self in _stack


def begin(commit: bool, wait: float | None = None, allowed: float | None = None) -> Block:
    """Open a block, or a save-point within this context's open one. Waits for other threads' blocks, and for the turn of
    shared prefixes (`wait`, `allowed`: see :func:`dbzero.session.shared.acquire`)."""
    if base.block_mine():
        return _push(commit)
    turn.acquire()
    try:
        if prefixes := shared.wanted():
            shared.acquire(prefixes, wait, allowed)
        for lock in _commit_locks():
            lock.acquire()
            _held.append(lock)
        operation.acquire()
    except BaseException:
        _let_go()
        shared.give_back()
        turn.release()
        raise
    return _push_outermost(commit)


async def begin_async(commit: bool, wait: float | None = None, allowed: float | None = None) -> Block:
    """:func:`begin`, while other tasks of the loop run."""
    import asyncio  # whoever awaits has imported it

    if base.block_mine():
        return _push(commit)
    await turn.acquire_async()
    try:
        if prefixes := shared.wanted():
            await _acquire_beside(prefixes, wait, allowed)
        while not _try_all():
            await asyncio.sleep(0.001)
    except BaseException:
        shared.give_back()
        turn.release()
        raise
    return _push_outermost(commit)


async def _acquire_beside(prefixes: list[workspaces.OpenPrefix], wait: float | None, allowed: float | None) -> None:
    """Take the turns in a thread of its own, so that the loop goes on."""
    import asyncio  # whoever awaits has imported it

    stop: list[bool] = []
    taking = asyncio.get_running_loop().run_in_executor(
        None, shared.acquire, prefixes, wait, allowed, lambda: bool(stop)
    )
    try:
        await asyncio.shield(taking)
    except asyncio.CancelledError:
        stop.append(True)
        while not taking.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([taking])
        taking.exception()
        raise


def _commit_locks() -> list[Any]:
    active = workspaces.active()
    opened = list(active.open_prefixes.values())
    return [one.commit_lock for one in opened if one.writable and not one.shared]


def _try_all() -> bool:
    for lock in _commit_locks():
        if not lock.acquire(blocking=False):
            _let_go()
            return False
        _held.append(lock)
    if operation.try_acquire():
        return True
    _let_go()
    return False


def _let_go() -> None:
    while _held:
        _held.pop().release()


def _push_outermost(commit: bool) -> Block:
    """Everything is held; the operation lock once."""
    before = base.block_depth()
    try:
        _token.set(token := object())
        if shared.begin():
            # From the end of the block to the commit nobody else gets at its objects.
            operation.acquire()
            _holds.append(operation)
        _flush(_views())
        base.block_begin(token)
        block = Block(commit)
        _stack.append(block)
        return block
    except BaseException:
        if base.block_depth() > before:
            base.block_revert()
        else:
            operation.release()
        _settle()
        raise


def _push(commit: bool) -> Block:
    operation.acquire()
    before = base.block_depth()
    try:
        _flush(_views())
        base.block_begin(None)
        block = Block(commit)
        _stack.append(block)
        return block
    except BaseException:
        if base.block_depth() > before:
            base.block_revert()
        else:
            operation.release()
        _settle()
        raise


def _views() -> list[View]:
    active = workspaces.active_or_none()
    return [] if active is None else [opened.view for opened in list(active.open_prefixes.values())]


def _flush(views: Iterable[View]) -> None:
    for view in views:
        if not view.closed:
            view.flush()


def _settle() -> None:
    """Bring what is held in line with the frames that are open. May be repeated."""
    depth = base.block_depth()
    del _stack[depth:]
    if depth or turn._owner is None:
        return
    while _held:
        _held[-1].release()
        _held.pop()
    shared.give_back()
    while _holds:
        _holds.pop().release()
    if _token.get() is not None:
        _token.set(None)
        turn.release()


def _persist(step: Callable[[], Any]) -> Any:
    """Do a step that must be done. What a signal handler raises meanwhile is raised when it is."""
    first: BaseException | None = None
    for _ in range(_ATTEMPTS):
        try:
            result = step()
            break
        except BaseException as error:
            first = first or error
    if first is not None:
        raise first
    return result


def end(block: Block, keep: bool) -> list[shared.Pending]:
    """End a block, and what is open within it: its changes stay, or are put back. Ended already: nothing happens.

    Returns:
        Commits of shared prefixes that are published; the caller waits until they are durable.
    AtomicError in another context. What keeping cannot flush is put back, and raised.
    """
    if block not in _stack:
        return []
    if not base.block_mine():
        raise AtomicError("an atomic block ends in the thread and task that began it")
    changed: list[View] = []
    commit = False
    errors: list[BaseException] = []
    depth = _stack.index(block)
    while base.block_depth() > depth:
        level = base.block_depth()
        try:
            if keep:
                _flush(_views())
                commit = any(one.commit for one in _stack)
                changed = base.block_keep()
            else:
                _revert()
        except BaseException as error:
            errors.append(error)
            if base.block_depth() == level:
                keep = False
    commit_now = commit and keep and not depth
    if not commit_now and keep and commit and depth:
        _stack[depth - 1].commit = True  # made good on when the outermost block ends
    pending: list[shared.Pending] = []
    if not depth and _holds:
        try:
            pending = shared.finish(keep)
        except BaseException as error:
            errors.append(error)
    _persist(_settle)
    if errors:
        shared.await_all(pending)
        raise errors[0]
    if commit_now:
        commit_views(changed)
    return pending


def _revert() -> None:
    views = _views()
    try:
        base.block_revert()
    finally:
        with operation:
            for view in views:
                if not view.closed:
                    view.discard_buffers()


def commit_views(views: Iterable[View]) -> None:
    """Commit what a block changed, one prefix after the other."""
    active = workspaces.active_or_none()
    wanted = {id(view) for view in views}
    for opened in [] if active is None else list(active.open_prefixes.values()):
        if id(opened.view) in wanted and opened.writable:
            opened.commit()


def _opening(opened: workspaces.OpenPrefix) -> None:
    """A prefix is opened within the block: nobody else is to commit it meanwhile."""
    if not base.block_mine():
        return
    if opened.shared:
        if not _holds:
            raise AtomicError(
                f"prefix {opened.name!r} cannot be opened shared within an atomic block that began without a shared prefix; open it before"
            )
        shared.late(opened)
    else:
        opened.commit_lock.acquire()
        _held.append(opened.commit_lock)


def _closing(opened: workspaces.OpenPrefix) -> None:
    """A prefix is closed within the block: what the block changed there is dropped."""
    if base.block_mine():
        with operation:
            opened.view.discard_buffers()
            base.block_revert_view(opened.view)
            shared.closing(opened)


def _abandon() -> None:
    """The workspace is left, or this is a forked child: put everything back."""
    while base.block_depth():
        if not operation.held():
            operation.acquire()
        base.block_revert()
    _persist(_settle)


def _after_fork() -> None:
    _held.clear()
    _holds.clear()
    shared.after_fork()
    turn.reset_after_fork()
    _abandon()
    _stack.clear()
    if _token.get() is not None:
        _token.set(None)


workspaces.block_hooks.opening = _opening
workspaces.block_hooks.closing = _closing
workspaces.block_hooks.abandon = _abandon
workspaces.block_hooks.after_fork = _after_fork
