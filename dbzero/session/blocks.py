"""The open atomic block of the process: its stack of save-points, and what it holds while it is open.

In this order: the turn (:mod:`dbzero.session.turns`), the commit lock of every open prefix, so that no commit is under
way, and the operation lock. The undo logs are C (csrc/pytypes_block.c).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

from dbzero.errors import AtomicError, Error
from dbzero.model import base
from dbzero.model.base import Ending, operation
from dbzero.model.view import View
from dbzero.session import shared
from dbzero.session import workspace as workspaces
from dbzero.session.turns import turn

_token: ContextVar[object | None] = ContextVar("dbzero_block", default=None)
base.set_token_reader(_token.get)

_held: list[Any] = []  # commit locks


class Block(Ending):  # type: ignore[misc]
    """One save-point. `begin()`, `close()` and `cancel()` come from Ending: they are whole whatever a signal handler
    raises meanwhile."""

    def __init__(self, commit: bool = False, wait: float | None = None, allowed: float | None = None) -> None:
        """wait, allowed: for the turn of shared prefixes, see :func:`dbzero.session.shared.acquire`."""
        self.commit = commit
        self._waits = wait, allowed
        self._pending: list[shared.Pending] = []  # commits of shared prefixes that are not known to be durable
        self.deferring = False  # whoever ends it waits for those
        self._begun = False  # or it may have been: there is something to end
        self._ending = False
        self._keep = False
        self._changed: list[View] = []
        self._clean: set[int] = set()  # ids of the views without a pending change when the outermost block began
        self._error: BaseException | None = None

    @property
    def open(self) -> bool:
        """Whether it was begun and has not ended."""
        return self in base.open_blocks()

    def _begin(self) -> None:
        if self.open:
            return
        self._begun = True
        if not base.block_mine():
            workspaces.active()  # or else there is nothing to wait for
            turn.acquire(self)
            if prefixes := workspaces.active().arranged().shared:
                if self.commit:
                    self._commit_before()
                shared.acquire(prefixes, *self._waits)
            for opened in workspaces.active().arranged().exclusive:
                if opened.writable:
                    _hold(opened.commit_lock)
        self._open_frame()

    async def begin_async(self) -> None:
        """:meth:`begin`, while other tasks of the loop run."""
        import asyncio  # whoever awaits has imported it

        if self.open:
            return
        if base.block_mine():
            self.begin()
            return
        workspaces.active()
        self._begun = True
        try:
            await turn.acquire_async(self)
            if prefixes := workspaces.active().arranged().shared:
                if self.commit:
                    self._commit_before()
                await _acquire_beside(prefixes, *self._waits)
            while not _try_all():
                await asyncio.sleep(0.001)
            self._open_frame()
        except BaseException:
            self.cancel()
            raise

    def _open_frame(self) -> None:
        """Everything else is held; the frame has a hold on the operation lock of its own."""
        self._ending, self._error, self._changed = False, None, []
        with operation:
            first = not base.block_depth()
            if first:
                if shared.begin():
                    operation.acquire()  # from the end of the block to the commit nobody else gets at its objects
                # Outside of blocks nothing of the shared ones is changed.
                views = [opened.view for opened in workspaces.active().arranged().exclusive]
                _flush(views)
                self._clean = {id(view) for view in views if not view.closed and not view.has_changes()}
                token = object()
            else:
                _flush(_views())
                token = _token.get()
            _token.set(token)
            base.block_begin(token, self)

    def _finish(self, keep: bool) -> BaseException | None:
        """End it, and what is open within it. May be repeated from anywhere, and goes on."""
        if not self._begun:
            return None
        if not self._ending:
            if self in base.open_blocks() and not base.block_mine():
                return AtomicError("an atomic block ends in the thread and task that began it")
            self._keep, self._ending = keep, True
        while self in base.open_blocks():
            level = base.block_depth()
            try:
                if self._keep:
                    _flush(_views())
                    inner, *_ = reversed(base.open_blocks())
                    changed = base.block_keep()
                    self._changed = changed
                    if inner is not self:
                        self.commit_wanted = self.commit_wanted or inner.commit or inner.commit_wanted
                        inner._begun = False
                else:
                    _revert()
            except Exception as error:
                if self._error is None:
                    self._error = error
                if base.block_depth() == level:
                    self._keep = False
        outer = base.open_blocks()
        if outer and base.block_mine():
            if self._keep and (self.commit or self.commit_wanted):
                outer[-1].commit_wanted = True
        elif turn.holds(self):
            self._leave_shared()
            _let_go()
            _token.set(None)
            turn.release(self)
        else:
            turn.release(self)  # it may have waited for it
        failed = self._error
        if failed is None and self._keep and self._changed and not outer and (self.commit or self.commit_wanted):
            changed, self._changed = self._changed, []
            commit_views(changed)
        if self._pending and not self.deferring and not outer:
            try:
                shared.await_all(self._pending)
            except Error as error:
                failed = failed or error
            self._pending = []
        self._ending = self.commit_wanted = self._begun = False
        return failed

    def _leave_shared(self) -> None:
        """The outermost block has ended: publish what it changed on shared prefixes, and give their turns back."""
        if shared.entered():
            beside = self._beside() if self.commit or self.commit_wanted else []
            try:
                if operation.held():
                    shared.finish(self._keep and self._error is None, self._pending, beside)
                else:
                    shared.give_back()  # it never began
            except Exception as error:
                if self._error is None:
                    self._error = error
                for opened in beside:  # it is nothing on disk, and not to become a half
                    if id(opened.view) in self._clean and not opened.view.closed:
                        opened.view.forget_changes()
            while operation.held():
                operation.release()

    def _commit_before(self) -> None:
        """What was pending before a block that commits is no part of it: should the block's own commit fail, that is all gone."""
        active = workspaces.active()
        active.commit_together(active.writable_prefixes())

    def _beside(self) -> list[workspaces.OpenPrefix]:
        """The exclusive prefixes that are to be committed together with the shared ones."""
        active = workspaces.active_or_none()
        if active is None:
            return []
        wanted = {id(view) for view in self._changed}
        return [one for one in active.writable_prefixes() if not one.shared and id(one.view) in wanted]

    def take_pending(self) -> list[shared.Pending]:
        """The commits that the one who ended it is to wait for."""
        pending, self._pending = self._pending, []
        return pending

    commit_wanted = False


def _hold(lock: Any) -> None:
    _held.append(lock)  # first: a signal handler may raise right after acquire()
    lock.acquire()


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


def _try_all() -> bool:
    for opened in workspaces.active().arranged().exclusive:
        if opened.writable:
            _held.append(opened.commit_lock)
            if not opened.commit_lock.acquire(blocking=False):
                _let_go()
                return False
    return True


def _let_go() -> None:
    while _held:
        _release(_held[-1])
        _held.pop()


def _release(lock: Any) -> None:
    with contextlib.suppress(RuntimeError):  # it was not acquired, or released before
        lock.release()


def _views() -> list[View]:
    active = workspaces.active_or_none()
    return [] if active is None else active.arranged().views


def _flush(views: Iterable[View]) -> None:
    for view in views:
        if not view.closed:
            view.flush()


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
    """Commit what a block changed, in all prefixes or in none."""
    active = workspaces.active_or_none()
    wanted = {id(view) for view in views}
    if active is not None:
        active.commit_together(opened for opened in active.writable_prefixes() if id(opened.view) in wanted)


def _opening(opened: workspaces.OpenPrefix) -> None:
    """A prefix is opened within the block: nobody else is to commit it meanwhile."""
    if not base.block_mine():
        return
    if opened.shared:
        if not shared.entered():
            raise AtomicError(
                f"prefix {opened.name!r} cannot be opened shared within an atomic block that began without a shared prefix; "
                "open it before"
            )
        shared.late(opened)
    else:
        _hold(opened.commit_lock)


def _closing(opened: workspaces.OpenPrefix, commit: bool) -> bool:
    """A prefix is closed within the block: what the block changed there is dropped, what was pending before it is
    committed. Then its commit lock is free, since threads that are about to be stopped may wait for it."""
    if not base.block_mine():
        return False
    try:
        with operation:
            base.block_revert_view(opened.view)
            opened.view.discard_buffers()
            shared.closing(opened)
        if commit and opened.writable:
            opened.commit()
    finally:
        if opened.commit_lock in _held:
            _release(opened.commit_lock)
            _held.remove(opened.commit_lock)
    return True


def _abandon() -> None:
    """The workspace is left, or this is a forked child: put everything back."""
    blocks = base.open_blocks()
    while base.block_depth():
        if not operation.held():
            operation.acquire()
        base.block_revert()
    _let_go()
    shared.give_back()
    while operation.held():
        operation.release()
    if blocks:
        _token.set(None)
        turn.release(blocks[0])


def _after_fork() -> None:
    _held.clear()
    shared.after_fork()
    turn.reset_after_fork()
    _abandon()
    if _token.get() is not None:
        _token.set(None)


workspaces.block_hooks.opening = _opening
workspaces.block_hooks.closing = _closing
workspaces.block_hooks.abandon = _abandon
workspaces.block_hooks.after_fork = _after_fork
