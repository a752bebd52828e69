"""Atomic blocks on prefixes that are open shared: the turn to write, the newest state, the commit at the end.

The outermost block takes the turn of every shared prefix that is open - in the order of their uuids, so that two processes
never wait for each other -, shows what was published last, and publishes what the block changed before it gives the turns
back. Then, without turn or lock, it waits until that is durable.

What it changed in several prefixes is one transaction: that is made durable in the turns of all of them, since no half of
it may be published.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from msgspec import Struct

from dbzero.errors import Error
from dbzero.model.base import operation
from dbzero.session.commit import commit_view
from dbzero.session.refresh import show
from dbzero.session.together import commit_together
from dbzero.session.workspace import OpenPrefix, active
from dbzero.storage.sharing import ALLOWED, Published, SharedPrefix

_LATE = 10.0  # seconds to wait for the turn of a prefix that is opened within a block, out of order

_entered: list[OpenPrefix] = []  # prefixes whose turn the open block has


class Pending(Struct, frozen=True):
    """What a block has published, or shown, that is to become durable before it returns."""

    prefix: SharedPrefix
    commit: Published | None
    state: int

    def wait(self) -> None:
        """PoisonedError, FencedError: see :meth:`SharedPrefix.await_durable`."""
        if self.commit is not None:
            self.prefix.await_durable(self.commit)
        else:
            self.prefix.wait_durable(self.state)


def acquire(
    prefixes: list[OpenPrefix],
    wait: float | None,
    allowed: float | None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Take the turn of each. Not under the operation lock.

    Args:
        wait: seconds to wait for all of them together, None: for ever. allowed: seconds after which a process that waits may
            take the turns away. stop: asked now and then whether to give up.
    Raises:
        TurnTimeoutError and others of :meth:`SharedPrefix.acquire_turn`; then none is held.
    """
    deadline = None if wait is None else time.monotonic() + wait
    try:
        for opened in prefixes:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            prefix = opened.prefix
            assert isinstance(prefix, SharedPrefix)
            prefix.acquire_turn(left, ALLOWED if allowed is None else allowed, stop)
            _entered.append(opened)
    except BaseException:
        give_back()
        raise


def begin() -> bool:
    """Under the operation lock: show the newest states and allow writing. False when no turn is held."""
    for opened in _entered:
        prefix, view = opened.prefix, opened.view
        show(view, prefix, prefix.head(), prefix.incarnation)
        prefix.pin(view.state)
        view.writable = True
    return bool(_entered)


def late(opened: OpenPrefix) -> None:
    """A shared prefix is opened within an open block."""
    acquire([opened], _LATE, None)
    with operation:
        begin()


def entered() -> bool:
    """Whether turns are held."""
    return bool(_entered)


def finish(keep: bool, pending: list[Pending], beside: Sequence[OpenPrefix] = ()) -> None:
    """Under the operation lock, the block having ended: publish (`keep`), and give the turns back. May be repeated, and goes on.

    Args:
        pending: gets what has to become durable. beside: prefixes that are open for exclusive writing and whose changes are to be
            committed as well.

    Raises:
        What a commit raises. The changes of all prefixes are put back, and those of shared ones are gone.
    """
    failed: BaseException | None = None
    if keep and _entered and len(_entered) + len(beside) > 1:
        changed = [one for one in (*_entered, *beside) if not one.view.closed and one.view.has_changes()]
        if len(changed) > 1:
            try:
                commit_together(changed, active().root)
            except BaseException as error:
                failed = error
    while _entered:
        opened = _entered[0]
        prefix, view = opened.prefix, opened.view
        assert isinstance(prefix, SharedPrefix)
        known = len(pending)

        def published(made: Published, prefix: SharedPrefix = prefix) -> None:
            pending.append(Pending(prefix, made, made.state))
            prefix.hand_over()  # what follows concerns this process alone

        try:
            if keep and failed is None and not view.closed:
                commit_view(view, prefix, publish=published)
        except BaseException as error:
            failed = failed or error
        if len(pending) == known:
            pending.append(Pending(prefix, None, view.state))  # what was shown
        _leave(opened)
        if not view.closed and view.has_changes():
            view.forget_changes()  # after the turn: whoever took it away has left us a slot that cannot be read
    if failed is not None:
        raise failed


def _leave(opened: OpenPrefix) -> None:
    prefix = opened.prefix
    assert isinstance(prefix, SharedPrefix)
    opened.view.writable = False
    prefix.yield_turn()
    _entered.remove(opened)


def give_back() -> None:
    """Give every turn back that is held; what was changed has been put back."""
    while _entered:
        _leave(_entered[-1])


def closing(opened: OpenPrefix) -> None:
    """A prefix is closed within the block."""
    if opened in _entered:
        _leave(opened)


def after_fork() -> None:
    """The turns are the parent's."""
    _entered.clear()


def await_all(pending: list[Pending]) -> None:
    """Wait until all of it is durable. The first error is raised after everything was waited for."""
    failed: Error | None = None
    for one in pending:
        try:
            one.wait()
        except Error as error:
            failed = failed or error
    if failed is not None:
        raise failed
