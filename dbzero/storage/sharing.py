"""A prefix that several processes of one segment write in turns.

Everybody reads; who wants to write takes the turn (:mod:`dbzero.storage.turntaking`), brings itself to what was published last,
commits as an exclusive writer does, publishes, and gives the turn back. Only then comes the sync: one of those whose commits wait
does it for all (:mod:`dbzero.storage.groupsync`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from dbzero.errors import (
    Error,
    FencedError,
    LeaseError,
    SegmentError,
    TurnTimeoutError,
)
from dbzero.runtime.batch import Batch
from dbzero.runtime.lease import SlotLease
from dbzero.runtime.pins import Pin
from dbzero.runtime.segment import Segment
from dbzero.runtime.slot import PrefixSlot
from dbzero.runtime.starting import led, slot_lock
from dbzero.runtime.turns import TORN, FairLock, Turns
from dbzero.storage import checkpoint as ckpt
from dbzero.storage.committing import LOG_LIMIT
from dbzero.storage.filestore import LocalFileStore
from dbzero.storage.groupsync import GLANCE, GroupSync, Published
from dbzero.storage.prefix import shared_hooks, while_replaced
from dbzero.storage.store import Meta
from dbzero.storage.turntaking import ALLOWED, RECOVERING


class SharedPrefix(GroupSync):
    """A prefix open for shared writing. `writable` only during a turn."""

    def __init__(self, segment: Segment, store: LocalFileStore, slot: PrefixSlot, epoch: int) -> None:
        super().__init__(segment, store, slot, epoch)
        self._closing = False
        self._next_pin: Pin | None = None  # in the slot of a compacted file, before that has its name

    # --- opening and closing ------------------------------------------------------------------------------------------

    @classmethod
    def share(
        cls,
        segment: Segment,
        root: str,
        name: str,
        *,
        blocking: bool = False,
        timeout: float | None = None,
        force: bool = False,
    ) -> SharedPrefix:
        """Open a prefix, created when missing, for writing together with others.

        Args:
            segment: the root's segment. root: its directory. name: of the prefix.
            blocking, timeout (seconds), force: how to deal with an exclusive writer.
        Raises:
            LeaseError: an exclusive writer has it, or processes with other shared memory write it. SegmentError: no slot is
            left for this process. PrefixError, StorageError and subclasses: the files cannot be used.
        """
        return while_replaced(lambda: cls._share(segment, root, name, blocking, timeout, force))

    @classmethod
    def _share(
        cls, segment: Segment, root: str, name: str, blocking: bool, timeout: float | None, force: bool
    ) -> SharedPrefix:
        store = LocalFileStore.open(root, name, writable=True)
        try:
            if segment.slot < 0:
                raise SegmentError(
                    f"prefix {name!r}: this process has no slot in the shared segment (4096 processes are attached), "
                    "so it cannot write; close some of them"
                )
            with store.gate():
                first = store.share(segment.identity, blocking=blocking, timeout=timeout, force=force)
                store.check_name()
                slot = PrefixSlot.find(segment, store.prefix, store.identity.file_id)
                if first and force and led(slot, lambda: True):
                    slot.retire(store.epoch)
                    slot = PrefixSlot.find(segment, store.prefix, store.identity.file_id)
                prefix = cls(segment, store, slot, store.epoch)
                try:
                    prefix._begin(first, force)
                    prefix.pin(prefix.head())  # as long as we are here, nobody else gets the slot
                    if not prefix._is_present():
                        prefix._change_slot()
                except BaseException:
                    prefix._reader.close()
                    raise
        except BaseException:
            store.close()
            raise
        return prefix

    def _begin(self, first: bool, force: bool) -> None:
        if first:
            with slot_lock(self._slot):
                turns = self._turns
                while not turns.seize(turns.status().word, RECOVERING):
                    pass  # whoever had it is dead, or a reader that fills the slot, which ends with its lock on it
                self._renew_reader()
                turns.set_torn(TORN)
                self._take_over(forced=force)
                self._hand_out()
                self.writable = True
            self._end_turn()
            self._store.let_in()
        elif self._slot.status().ready:
            self._renew_reader()
        else:
            self.acquire_turn(RECOVERING)
            self.yield_turn()

    def _close_writer(self) -> None:
        """The last to leave makes the page file complete in itself."""
        with self._store.gate():
            if not self._store.shut_out():
                return
            try:
                self.acquire_turn(RECOVERING)
            except FencedError:
                return
            store, slot = self._store, self._slot
            done = False
            try:
                if store.read_meta().state < slot.published or self._pending_cut is not None:
                    self.begin_writing()
                    self._checkpoint_here()
                store.truncate_log(store.position[0] + 1)
                store.trim()
                store.remove_unfinished()
                done = True
            finally:
                if done:
                    self._turns.share_lease(self._epoch, False)
                    SlotLease(slot).drop(self._epoch)
                    self._turns.set_torn(0)
                self.writable = self._entered = False
                self._turns.drop()
                store.release()
                self._mine.release()

    def close(self) -> None:
        """Leave the prefix. The last of the shared writers makes a last checkpoint."""
        with self._lock:
            closing, self._closing = self._closing, True
        try:
            if not closing and not self._detached and not self._store.poisoned:
                self._close_writer()  # not under the commit lock: whose turn it is may want that
        finally:
            self.writable = False
            super().close()

    # --- committing ---------------------------------------------------------------------------------------------------

    def begin(self) -> Batch:
        """An empty batch for the next state; in a turn. FencedError when another process has taken that away."""
        if self.writable:
            self._check_slot()
        batch = super().begin()
        self.begin_writing()
        return batch

    def commit(self, batch: Batch) -> int:
        """Publish and wait until it is durable, without giving the turn back in between."""
        published = self.publish(batch)
        self.await_durable(published)
        return published.state

    def publish(self, batch: Batch) -> Published:
        """Make a sealed batch the newest published state, in a turn. It is durable after :meth:`await_durable`.

        Raises: as :meth:`commit`.
        """
        with self._commit_lock:
            if self._checkpoint_error is not None:
                self._report_checkpoint()
            self._check_slot()
            state = self._commit(batch)
            self._seen[0] = state
            self._made = state
            store = self._store
            published = Published(
                state, batch.address, batch.end, self._incarnation, store.position[0], store.identity.file_id
            )
            if self._store.log_size > LOG_LIMIT:
                try:
                    self._checkpoint_here()
                except Error as error:
                    self._checkpoint_error = error
            return published

    # --- the steps of a transaction across prefixes, in the turns of all of them ---------------------------------------

    def check_turn(self) -> None:
        self._turns.extend(self._allowed)  # as long as it is ours
        self._check_slot()

    def poison(self) -> None:
        """What became of a transaction has to be asked for: the next holder of the turn does, we or another process."""
        self._sound = False

    def publish_batch(self, batch: Batch) -> None:
        super().publish_batch(batch)
        self._seen[0] = self._made = batch.state

    def after_commit(self) -> None:
        self.tidy()
        if self._store.log_size > LOG_LIMIT:
            try:
                self._checkpoint_here()
            except Error as error:
                self._checkpoint_error = error

    def _acknowledge(self, state: int, next_oid: int) -> None:
        self._fresh = next_oid
        self._changed = True

    def _begin_log(self, start: int, end: int, state: int) -> None:
        super()._begin_log(start, end, state)
        self._rotated(state)

    def _rotated(self, state: int) -> None:
        """A log file was begun: what stands in the ones before is durable, and syncs of those cover nothing newer."""
        self._note_place()
        self._slot.set_durable(state)

    def _cut(self, extra: int = 0) -> ckpt.Cut:
        cut = super()._cut(extra)
        self._rotated(cut.state)
        return cut

    def _start_checkpoint(self) -> None:
        raise AssertionError("shared writers make checkpoints in their turn")

    def checkpoint(self) -> None:
        """Bring the page file to the newest state and begin an empty log. In a turn."""
        with self._commit_lock:
            self._checkpoint_here()

    def _checkpoint_here(self) -> None:
        self._turns.extend(max(RECOVERING, self._allowed))
        if self._pending_cut is None and self._slot.status().has_frozen:
            # Another process could not finish its checkpoint. The log has everything.
            self._recover_again(TORN)
            self.begin_writing()
        else:
            self._finish_pending()
            self._run_checkpoint(self._cut())
        self._turns.extend(self._allowed)
        self.after_checkpoint()

    # --- compaction, by one of the writers beside the others ----------------------------------------------------------

    @contextlib.contextmanager
    def upkeep(self, stop: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """A turn in which nothing is committed. TurnTimeoutError: `stop` said so."""
        self.acquire_turn(None, RECOVERING, stop)
        try:
            self.begin_writing()
            yield
        finally:
            # Interrupted between the file's change of name and what follows: the next holder finds out.
            self._end_turn(sound=not self._store.replaced())
            self._mine.release()

    def begin_compaction(self) -> None:
        self._store.begin_compaction()

    def end_compaction(self) -> None:
        self._store.end_compaction()

    def _filling(self, slot: PrefixSlot) -> contextlib.AbstractContextManager[None]:
        return (
            contextlib.nullcontext()
        )  # what keeps others off is that the turn is ours there: see Prefix._ensure_filled

    def _prepare(self, slot: PrefixSlot, meta: Meta) -> None:
        """Whoever finds that slot waits for our turn there, and if we die recovers from the new file before anything else. If
        we are stopped and replaced, our pin keeps the slot from being used for anything else."""
        turns = Turns(slot)
        turns.set_torn(TORN)
        if not turns.seize(0, RECOVERING):
            raise self._fenced()
        self._next_pin = Pin(slot, meta.state)
        turns.share_lease(self._epoch, True)

    def _give_back(self, slot: PrefixSlot) -> None:
        turns, pin = Turns(slot), self._next_pin
        if pin is not None:
            pin.close()
        self._next_pin = None
        with contextlib.suppress(FencedError):
            turns.share_lease(self._epoch, False)
        turns.drop()
        super()._give_back(slot)

    def _go_on_in(self, slot: PrefixSlot, meta: Meta) -> None:
        try:
            super()._go_on_in(slot, meta)
            self._note_place()
        finally:
            pin, self._next_pin = self._next_pin, None
            if pin is not None and self._pin is not None and self._pin.slot.index == slot.index:
                pin.close()

    def _leave(self, old: PrefixSlot) -> None:
        with self._segment.root_lock():
            with contextlib.suppress(FencedError):  # a successor has done it
                old.leave(self._epoch)
            self._ended.add(old.left)
        Turns(old).drop()

    def _broken(self, slot: PrefixSlot, exc: BaseException) -> None:
        """Nothing is lost: the slot is torn, and whoever has the next turn recovers from the new file."""

    # --- forks --------------------------------------------------------------------------------------------------------

    def after_fork(self) -> None:
        """In a forked child: no turn, no lock; reading goes on."""
        self.writable = self._entered = self._given = False
        super().after_fork()
        self._mine = FairLock()
        self._place = None

    def attach(self) -> None:
        """In a forked child whose segment was rejoined: one of the shared writers again, unless an exclusive one has come."""
        self._store.share_again()
        super().attach()


@contextlib.contextmanager
def hold_turn(segment: Segment, store: LocalFileStore) -> Iterator[bool | None]:
    """While this process has the turn of a prefix that is open shared; see :data:`dbzero.storage.decisions.Hold`."""
    if not store.shared_in(segment.identity):
        yield None
        return
    try:
        prefix = SharedPrefix.share(segment, store.root, store.prefix)
    except LeaseError:
        yield None
        return
    try:
        turns = Turns(prefix._slot)
        if turns.own_word and turns.status().word == turns.own_word:
            yield True  # another thread has it, or we do, further up
            return
        try:
            prefix.acquire_turn(GLANCE, RECOVERING)
        except TurnTimeoutError:
            yield False
            return
        try:
            yield True
        finally:
            prefix.yield_turn()
    finally:
        prefix.close()


shared_hooks.hold = hold_turn


def prefix_is_shared(segment: Segment, root: str, name: str) -> bool:
    """Whether processes that share this segment have the prefix open for shared writing."""
    store = LocalFileStore.open(root, name, writable=False)
    try:
        return store.shared_in(segment.identity)
    finally:
        store.close()


__all__ = ["ALLOWED", "Published", "SharedPrefix", "prefix_is_shared"]
