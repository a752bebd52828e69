"""Committing several prefixes as one, and looking at several as one.

Prefixes that are open shared are committed in their turns, which the caller holds (:mod:`dbzero.session.shared`).
All commit locks are taken in the order of the prefixes' uuids, so that no two commits wait for each other. All views are
encoded under one hold of the operation lock: the transaction has whole operations, in all prefixes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from dbzero.errors import Error
from dbzero.model.base import operation
from dbzero.model.view import View
from dbzero.session.commit import Pending, commit_view, take
from dbzero.storage import together
from dbzero.storage.committing import DeltaRoomMade
from dbzero.storage.decisions import Part
from dbzero.storage.filestore import LocalFileStore
from dbzero.storage.prefix import Prefix
from dbzero.storage.vector import Window


class Committed(Protocol):
    """An open prefix, as far as it matters here."""

    view: View
    prefix: Prefix

    def taken(self) -> None:
        """A commit has all that is pending."""


def commit_together(opened: Sequence[Committed], root: str, unless: Callable[[], object] = lambda: None) -> bool:
    """Commit what is pending in several prefixes, all of it or nothing. Returns whether there was anything.

    Args:
        unless: asked under the operation lock whether to do nothing.
    Raises:
        StorageError and its kin: everything that was pending still is. PoisonedError, FencedError: whether it was
        made is unknown; the prefixes have to be reopened, and will agree.
    """
    ordered = sorted(opened, key=lambda one: one.prefix.uuid)
    with contextlib.ExitStack() as locks:
        for one in ordered:
            locks.enter_context(one.prefix.commit_lock)
        while True:
            changed = [o for o in ordered if o.view.has_changes() or o.view.autocommit_error is not None]
            if not changed:
                return False
            try:
                if len(changed) == 1:
                    return commit_view(changed[0].view, changed[0].prefix, unless, changed[0].taken)
                return _commit_once(changed, root, unless)
            except DeltaRoomMade:
                continue


def _commit_once(opened: Sequence[Committed], root: str, unless: Callable[[], object]) -> bool:
    waiting: list[Pending] = []
    interrupt: BaseException | None = None
    try:
        with operation:
            _report([one.view for one in opened])
            if unless():
                return False
            for one in opened:
                pending = take(one.view, one.prefix)
                if pending is not None:
                    waiting.append(pending)
            if not waiting:
                return False
            # A coordinator that several processes write has a successor at once, which can say what became of it.
            waiting.sort(key=lambda pending: (not pending.prefix.shared, pending.prefix.uuid))
            shares = [together.Share(pending.prefix, pending.batch) for pending in waiting]
            said = together.begin([share.prefix for share in shares])
            if len(shares) > 1:
                together.keep(shares[0], said, lambda part: _settled(part, [o.prefix for o in opened], root))
            moment = time.time_ns() // 1000
            for share in shares:
                share.prefix.seal(share.batch, moment)
            for one in opened:
                one.taken()
        try:
            if len(shares) == 1:
                shares[0].prefix.commit(shares[0].batch)
            else:
                together.commit(shares, said, Window(root))
        except together.Interrupted as made:
            interrupt = made.cause
    except BaseException as exc:
        if not isinstance(exc, Error) and waiting and _made(waiting):
            interrupt = exc  # a signal's, right behind the last step
        else:
            for pending in waiting:
                pending.put_back()
            raise
    for pending in waiting:
        state = pending.batch.state
        pending.batch.close()
        pending.settle(state)
    for pending in waiting:
        if len(waiting) > 1:
            pending.prefix.after_commit()
        pending.prefix.raise_interrupt()
        pending.make_room()
    if interrupt is not None:
        raise interrupt
    return True


def _made(waiting: Sequence[Pending]) -> bool:
    return all(pending.prefix.durable >= pending.batch.state for pending in waiting)


def _report(views: Sequence[View]) -> None:
    """Raise what the background commit met, once for all the views that it was to commit."""
    met = [view.autocommit_error for view in views if view.autocommit_error is not None]
    for view in views:
        view.autocommit_error = None
    if met:
        raise met[0]


def _settled(part: Part, prefixes: Iterable[Prefix], root: str) -> bool:
    """Whether a participant of an earlier transaction is known to be out of doubt, on disk."""
    for prefix in prefixes:
        if prefix.uuid == part.uuid:
            # A later frame is durable, and it says that this state was.
            return prefix.durable > part.state
    try:
        store = LocalFileStore.open(root, part.name, writable=False)
    except Error:
        return False
    try:
        return store.identity.prefix_uuid == part.uuid and store.read_meta().state >= part.state
    except Error:
        return False
    finally:
        store.close()


def consistent_states(prefixes: Iterable[Prefix], root: str) -> dict[str, int]:
    """The newest durable state of each prefix, by name, such that no transaction across them is shown by half."""
    wanted = list(prefixes)
    if len(wanted) < 2:
        return {prefix.name: prefix.newest_shown() for prefix in wanted}
    by_uuid = {prefix.uuid: prefix for prefix in wanted}
    found = Window(root).consistent(lambda: {uuid: prefix.newest_shown() for uuid, prefix in by_uuid.items()})
    return {prefix.name: found[prefix.uuid] for prefix in wanted}
