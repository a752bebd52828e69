"""Committing several prefixes as one, and looking at several as one.

All commit locks are taken in the order of the prefixes' uuids, so that no two commits wait for each other. All views are
encoded under one hold of the operation lock: the transaction has whole operations, in all prefixes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence

from dbzero.errors import Error
from dbzero.model.base import operation
from dbzero.model.view import View
from dbzero.session.commit import Pending, commit_view, encode
from dbzero.storage import together
from dbzero.storage.decisions import Part
from dbzero.storage.filestore import LocalFileStore
from dbzero.storage.prefix import DeltaRoomMade, Prefix
from dbzero.storage.vector import Window


def commit_together(pairs: Sequence[tuple[View, Prefix]], root: str) -> bool:
    """Commit what is pending in several views, all of it or nothing. Returns whether there was anything.

    Raises:
        StorageError and its kin: everything that was pending still is. PoisonedError, FencedError: whether it was
        made is unknown; the prefixes have to be reopened, and will agree.
    """
    ordered = sorted(pairs, key=lambda pair: pair[1].uuid)
    with contextlib.ExitStack() as locks:
        for _, prefix in ordered:
            locks.enter_context(prefix.commit_lock)
        while True:
            changed = [pair for pair in ordered if pair[0].has_changes() or pair[0].autocommit_error is not None]
            if not changed:
                return False
            if len(changed) == 1:
                return commit_view(*changed[0])
            try:
                return _commit_once(changed, root)
            except DeltaRoomMade:
                continue


def _commit_once(pairs: Sequence[tuple[View, Prefix]], root: str) -> bool:
    waiting: list[Pending] = []
    interrupt: BaseException | None = None
    try:
        with operation:
            _report([view for view, _ in pairs])
            for view, prefix in pairs:
                pending = encode(view, prefix)
                if pending is not None:
                    waiting.append(pending)
            moment = time.time_ns() // 1000
            if not waiting:
                return False
            shares = [together.Share(pending.prefix, pending.batch) for pending in waiting]
            said = together.begin([share.prefix for share in shares])
            if len(shares) > 1:
                together.keep(shares[0], said, lambda part: _settled(part, [p for _, p in pairs], root))
            for share in shares:
                share.prefix.seal(share.batch, moment)
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
            _give_up(waiting)
            raise
    for pending in waiting:
        state = pending.batch.state
        pending.batch.close()
        pending.settle(state)
    for pending in waiting:
        if len(waiting) > 1:
            pending.prefix.after_commit()
        pending.prefix.raise_interrupt()
    if interrupt is not None:
        raise interrupt
    return True


def _made(waiting: Sequence[Pending]) -> bool:
    return all(pending.prefix.durable >= pending.batch.state for pending in waiting)


def _give_up(waiting: Sequence[Pending]) -> None:
    for pending in waiting:
        pending.batch.close()
        pending.put_back()


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
        return {prefix.name: prefix.durable for prefix in wanted}
    by_uuid = {prefix.uuid: prefix for prefix in wanted}
    found = Window(root).consistent(lambda: {uuid: prefix.durable for uuid, prefix in by_uuid.items()})
    return {prefix.name: found[prefix.uuid] for prefix in wanted}
