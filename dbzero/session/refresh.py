"""Following another process's commits: a read-only view moves forward by itself.

One thread sleeps on the prefix's futex word. When the durable state has moved it takes the operation lock - so no
compound operation is under way - turns the loaded objects that changed into ghosts, and moves the view. Handles stay
the same Python objects and load the new state at their next use.
"""

from __future__ import annotations

from dbzero.errors import Error
from dbzero.model.base import operation
from dbzero.model.view import View
from dbzero.runtime import osthreads
from dbzero.storage.prefix import Prefix

# Beyond this many states behind, turning every loaded object into a ghost costs less than reading each commit's list of changes.
_MAX_STEPS = 1000
_HEALTH_CHECK_SECONDS = 1.0
_AGAIN_SECONDS = 0.005  # while a successor recovers, or a transaction of this process has lost its turn


def refresh_view(view: View, prefix: Prefix) -> bool:
    """Move a read-only view to the newest durable state. True when it moved."""
    if prefix.newest() == (view.state, view.incarnation):
        return False
    with operation:
        newest = prefix.newest()
        if newest is None or view.closed:
            return False
        if not show(view, prefix, *newest):
            return False
        prefix.pin(view.state)
    return True


def show(view: View, prefix: Prefix, head: int, incarnation: int) -> bool:
    """Under the operation lock: move the view to state `head`. True when it moved."""
    old = view.state
    if incarnation == view.incarnation and head <= old:
        return False  # a shared writer may have shown what is published and not durable yet: never backwards
    if incarnation != view.incarnation or head - old > _MAX_STEPS:
        if incarnation != view.incarnation:
            view.forget_oids()  # the successor may not know of what was reserved
        view.incarnation = incarnation
        view.invalidate_all()
    else:
        changed = prefix.changes_since(old, head)
        if changed is None:
            view.invalidate_all()
        else:
            view.invalidate(changed)
    if head == old:
        return False
    view.advance(head)
    return True


class Follower:
    """The thread that keeps one read-only view at the newest durable state."""

    def __init__(self, view: View, prefix: Prefix) -> None:
        self._view = view
        self._prefix = prefix
        self._stopping = False
        self._thread = osthreads.thread(self._run, f"dbzero-follow-{prefix.name}")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop and wait for the thread."""
        self._stopping = True
        self._prefix.wake()
        # Whoever holds the operation lock must not wait for a thread that may be waiting for it: that one ends by itself.
        if not osthreads.is_current(self._thread) and not operation.held():
            while self._thread.is_alive():
                self._prefix.wake()
                self._thread.join(0.05)

    def _run(self) -> None:
        pause = 0.0
        while not self._stopping:
            try:
                waiter = self._prefix.waiter()  # anew: the prefix may have gone on in another slot
                if self._stopping:
                    return
                if not waiter.sleep(self._view.state, self._view.incarnation, _HEALTH_CHECK_SECONDS, pause):
                    self._prefix.tidy()
                    while not self._stopping and self._prefix.follow_log(_HEALTH_CHECK_SECONDS):
                        refresh_view(self._view, self._prefix)
                if not self._stopping:
                    pause = self._prefix.pause(refresh_view(self._view, self._prefix))
                    if self._prefix.newest() is None:
                        osthreads.sleep(_AGAIN_SECONDS)
            except Error as error:
                # The next operation of the user meets the same damage and raises it; a thread has no caller.
                self._view.follow_error = error
                if self._stopping or self._view.closed:
                    return
                osthreads.sleep(_HEALTH_CHECK_SECONDS)
