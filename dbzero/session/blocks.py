"""The open atomic block of the process: its stack of save-points, and what it holds while it is open.

In this order: the turn (:mod:`dbzero.session.turns`), the commit lock of every open prefix, so that no commit is under
way, and the operation lock. The undo logs are C (csrc/pytypes_block.c).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

from dbzero.errors import AtomicError
from dbzero.model import base
from dbzero.model.base import operation
from dbzero.model.view import View
from dbzero.session import workspace as workspaces
from dbzero.session.turns import turn

_ATTEMPTS = 5
_token: ContextVar[object | None] = ContextVar("dbzero_block", default=None)
base.set_token_reader(_token.get)

_stack: list[Block] = []  # innermost last; as many as base.block_depth() between steps
_held: list[Any] = []  # commit locks
_commit_wanted: list[bool] = []


class Block:
    """One save-point."""

    __slots__ = ("commit",)

    def __init__(self, commit: bool) -> None:
        self.commit = commit

    @property
    def open(self) -> bool:
        """Whether it has not ended."""
        return self in _stack


def begin(commit: bool) -> Block:
    """Open a block, or a save-point within this context's open one. Waits for other threads' blocks."""
    if base.block_mine():
        return _push(commit)
    turn.acquire()
    try:
        for lock in _commit_locks():
            lock.acquire()
            _held.append(lock)
        operation.acquire()
    except BaseException:
        _let_go()
        turn.release()
        raise
    return _push_outermost(commit)


async def begin_async(commit: bool) -> Block:
    """:func:`begin`, while other tasks of the loop run."""
    import asyncio  # whoever awaits has imported it

    if base.block_mine():
        return _push(commit)
    await turn.acquire_async()
    try:
        while not _try_all():
            await asyncio.sleep(0.001)
    except BaseException:
        turn.release()
        raise
    return _push_outermost(commit)


def _commit_locks() -> list[Any]:
    active = workspaces.active()
    return [opened.commit_lock for opened in list(active.open_prefixes.values()) if opened.writable]


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


def end(block: Block, keep: bool) -> None:
    """End a block, and what is open within it: its changes stay, or are put back. Ended already: nothing happens.

    AtomicError in another context. What keeping cannot flush is put back, and raised.
    """
    if block not in _stack:
        return
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
    _persist(_settle)
    if errors:
        raise errors[0]
    if commit_now:
        commit_views(changed)


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


def _opening(commit_lock: Any) -> None:
    """A prefix is opened within the block: nobody else is to commit it meanwhile."""
    if base.block_mine():
        commit_lock.acquire()
        _held.append(commit_lock)


def _closing(view: View) -> None:
    """A prefix is closed within the block: what the block changed there is dropped."""
    if base.block_mine():
        with operation:
            view.discard_buffers()
            base.block_revert_view(view)


def _abandon() -> None:
    """The workspace is left, or this is a forked child: put everything back."""
    while base.block_depth():
        if not operation.held():
            operation.acquire()
        base.block_revert()
    _persist(_settle)


def _after_fork() -> None:
    _held.clear()
    turn.reset_after_fork()
    _abandon()
    _stack.clear()
    if _token.get() is not None:
        _token.set(None)


workspaces.block_hooks.opening = _opening
workspaces.block_hooks.closing = _closing
workspaces.block_hooks.abandon = _abandon
workspaces.block_hooks.after_fork = _after_fork
