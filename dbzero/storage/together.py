"""Commits of several prefixes as one: all of it on disk, or none.

The protocol, and what a crash after each step leaves, is argued in docs/design.md, "Transactions across prefixes". The
caller holds the commit lock of every prefix.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from dbzero import errors
from dbzero.runtime import osthreads
from dbzero.runtime.batch import Batch
from dbzero.storage import decisions
from dbzero.storage import format as fmt
from dbzero.storage.decisions import DECISIONS_OID, Part, Together
from dbzero.storage.prefix import Prefix
from dbzero.storage.vector import Window

_KINDS: Final = {decisions.PREPARED: fmt.PREPARE, decisions.DECIDED: fmt.DECISION, decisions.ABORTED: fmt.DECISION}


class Share(NamedTuple):
    """One prefix's part of a transaction: what is committed there."""

    prefix: Prefix
    batch: Batch


def begin(prefixes: Sequence[Prefix]) -> Together:
    """A transaction of these prefixes, the first of which coordinates. Each one's next state belongs to it."""
    parts = tuple(Part(p.name, p.uuid, p.head() + 1, p.epoch) for p in prefixes)
    return Together(decisions.DECIDED, os.urandom(16), parts)


def keep(coordinator: Share, said: Together, settled: Callable[[Part], bool]) -> None:
    """Put the decision into the coordinator's batch, beside those before it that a participant may still ask for.

    Args:
        settled: whether a participant is known to be out of doubt.
    """
    prefix = coordinator.prefix
    found = prefix.read(DECISIONS_OID, prefix.head())
    before = decisions.decode_decisions(found[0]) if found is not None else []
    kept = [d for d in before if not all(settled(part) for part in d.parts[1:])]
    coordinator.batch.put(DECISIONS_OID, decisions.encode_decisions([*kept, said]), ())


def commit(shares: Sequence[Share], said: Together, window: Window) -> None:
    """Make sealed batches the next states of their prefixes, all or none. The first one's prefix coordinates.

    Signals are for afterwards: the steps run in a thread of their own, to the end.

    Raises:
        DeltaRoomMade: nothing happened; build the batches anew. DiskFullError, StorageError: nothing happened.
        PoisonedError, FencedError: whether it was made is unknown; the prefixes have to be reopened, and will agree.
        BaseException: what a signal's handler raised meanwhile; the transaction is made.
    """
    head = len(said.encode())
    window.prepare(said)
    for prefix, batch in shares:
        prefix.make_room(batch, head)
    _to_the_end(lambda: _commit(shares, said, window))


def _to_the_end(steps: Callable[[], None]) -> None:
    """Run `steps` where no signal's handler can raise into them: in a thread of their own."""
    begun, ended = osthreads.Lock(), osthreads.Lock()
    ended.acquire()
    outcome: list[BaseException] = []

    def run() -> None:
        if not begun.acquire(blocking=False):
            return  # a signal came right behind the start of another such thread
        try:
            steps()
        except BaseException as exc:
            outcome.append(exc)
        finally:
            done.append(True)
            ended.release()

    done: list[bool] = []
    interrupt: BaseException | None = None
    launched = False
    while not done:
        try:
            if not launched:
                try:
                    osthreads.start_new_thread(run, ())
                except RuntimeError:  # the system gives no more threads
                    run()
                launched = True
            ended.acquire()
        except BaseException as exc:
            interrupt = exc
    if outcome:
        raise outcome[0]
    if interrupt is not None:
        raise Interrupted(interrupt)


class Interrupted(BaseException):
    """A signal's handler raised in the middle of a transaction that was made all the same: raise `cause` when it is settled."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__()
        self.cause = cause


def _commit(shares: Sequence[Share], said: Together, window: Window) -> None:
    coordinator, others = shares[0], shares[1:]
    for share in shares:
        share.prefix.check_turn()
    prepared = Together(decisions.PREPARED, said.number, said.parts).encode()
    appended: list[Share] = []
    try:
        for share in others:
            share.prefix.append_batch(share.batch, fmt.PREPARE, prepared)
            appended.append(share)
        for share in others:
            share.prefix.sync()
        for share in shares:
            share.prefix.check_turn()  # what is dropped now has not to be asked for
        coordinator.prefix.append_batch(coordinator.batch, fmt.DECISION, said.encode())
    except BaseException:
        _take_back(coordinator, appended, said)
        raise
    try:
        coordinator.prefix.sync()
    except BaseException:
        # Whether the decision is on disk is unknown, and so is what the others have to show.
        for share in others:
            share.prefix.poison()
        raise
    _show(shares, said, window)


def _take_back(coordinator: Share, appended: list[Share], said: Together) -> None:
    """Nothing was decided, and nothing will be."""
    doubtful = False
    for share in appended:
        try:
            share.prefix.take_back()
        except errors.Error:
            doubtful = True
    if doubtful:  # a participant is to find out when it is reopened, also as long as the coordinator goes on here
        note = Together(decisions.ABORTED, said.number, said.parts)
        try:
            coordinator.prefix.append_note(fmt.DECISION, note.encode())
        except BaseException:
            coordinator.prefix.poison()  # whoever recovers it begins an epoch in which this is not decided for
            raise


def _show(shares: Sequence[Share], said: Together, window: Window) -> None:
    """It is made. A prefix that cannot show it has been taken over or fails, and shows it when it is reopened."""
    try:
        window.note(said)  # first: what is published, another process that shares the writing may sync and show at once
    except errors.Error as exc:  # then readers would see a half: nobody is shown anything
        for share in shares:
            share.prefix.poison()
        raise errors.PoisonedError(
            f"the transaction is made in {', '.join(part.name for part in said.parts)}, but cannot be shown to readers ({exc}); "
            "close and reopen these prefixes"
        ) from exc
    failed: list[errors.Error] = []
    published: list[Share] = []
    for share in shares:
        try:
            share.prefix.publish_batch(share.batch)
            published.append(share)
        except errors.Error as exc:
            share.prefix.poison()
            failed.append(exc)
    for share in published:
        share.prefix.show_batch(share.batch)
    if failed:
        raise failed[0]
    with contextlib.suppress(errors.Error):  # what stays there says nothing that is not so
        window.done(said)
