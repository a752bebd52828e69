"""Committing to a prefix, and its checkpoints: the steps, each of which is argued in docs/design.md, sections 3 and 5."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable
from typing import Final

from dbzero.errors import (
    ClosedError,
    Error,
    ForkedError,
    PoisonedError,
    ReadOnlyError,
    StorageError,
)
from dbzero.runtime import osthreads
from dbzero.runtime.batch import Batch
from dbzero.runtime.segment import Segment
from dbzero.runtime.slot import PrefixSlot
from dbzero.storage import checkpoint as ckpt
from dbzero.storage import format as fmt
from dbzero.storage import merge
from dbzero.storage.filestore import DATA_REGION, LocalFileStore
from dbzero.storage.reading import Reading

LOG_LIMIT: Final = 16 << 20  # bytes of log after which a checkpoint is due
IN_PLACE: Final = 1 << 20  # data from this size on is synced in place instead of going through the log
_FRAME_ROOM: Final = 4096
_INTERRUPTS: Final = 100  # signals whose handlers raise, in one commit: more is a mistake


class DeltaRoomMade(Exception):
    """The delta index was emptied to make room: the batch has to be built again on top of that."""


class Committing(Reading):
    """A prefix whose lease this process holds, while it is `writable`."""

    def __init__(self, segment: Segment, store: LocalFileStore, slot: PrefixSlot, epoch: int) -> None:
        super().__init__(segment, store, slot)
        self.writable = epoch > 0
        self._epoch = epoch
        self._commit_lock = osthreads.RLock()
        self._interrupt: BaseException | None = None
        self._limit = 0  # end of the data region of the log file in use
        self._fresh = 0  # no OID from here on is stored
        self._changed = False  # something was committed since the last checkpoint
        self._through_table = False  # the next commit is too big for the delta index
        self._forked = False  # this process was forked from its writer
        self.after_checkpoint: Callable[[], None] = lambda: None  # called when one was made in the background
        self._checkpointer: osthreads.Thread | None = None
        self._checkpoint_error: Exception | None = None
        self._pending_cut: ckpt.Cut | None = None  # a cut whose checkpoint failed and is to be tried again

    @property
    def commit_lock(self) -> threading.RLock:
        """Held from the beginning of a batch to its end, and while the page file is being replaced."""
        return self._commit_lock

    def data_limit(self) -> int:
        """End of the data region of the log file in use."""
        return self._limit

    def begin(self) -> Batch:
        """An empty batch for the next state. Only the lease holder, under its operation lock."""
        if self._forked:
            raise ForkedError(
                f"prefix {self.name!r}: this process was forked from its writer; only that one may commit. Close and open it anew here"
            )
        if self._closed:
            raise ClosedError(f"prefix {self.name!r} is closed; open it again")
        if not self.writable:
            raise ReadOnlyError(f"Cannot modify read-only prefix: {self.name}")
        now = self._slot.now()
        state = now.state
        if self._batch_reader is None:
            self._batch_reader = self.make_reader()
        return Batch(self._batch_reader, state + 1, now.data_end, base=state, fresh=self._fresh)

    def seal(self, batch: Batch, time_us: int) -> None:
        """Finish a batch. time_us: commit time, microseconds since 1970."""
        batch.seal(time_us, in_place=batch.size >= IN_PLACE)

    def commit(self, batch: Batch) -> int:
        """Make a sealed batch the next state; returns its number when it is durable.

        Raises:
            DeltaRoomMade: nothing happened; build the batch anew. DiskFullError, StorageError: nothing happened.
            PoisonedError, FencedError: the prefix has to be reopened.
        """
        with self._commit_lock:
            self._report_checkpoint()
            if batch.address != self._slot.now().data_end:
                raise DeltaRoomMade  # a checkpoint came in between: that address is taken
            state = self._commit(batch)
            self.tidy()
            if self._store.log_size > LOG_LIMIT:
                self._start_checkpoint()
            return state

    def _commit(self, batch: Batch) -> int:
        slot, store, epoch = self._slot, self._store, self._epoch
        now = slot.now()
        before, next_oid = now.state, now.next_oid
        state = batch.state
        body, entries, end = batch.body, batch.entries, batch.end
        if end > self._limit:
            self._begin_log(batch.address, end, before)
        store.reserve(log_bytes=len(body) + _FRAME_ROOM, data_end=end)
        if not self._through_table:
            self._reserve_delta(entries.count)
        self._write_data(batch)
        if self._through_table:
            store.append(kind=fmt.COMMIT, epoch=epoch, state=state, durable=slot.durable, next_oid=next_oid, body=body)
            self._publish_through_table(batch, before, end, next_oid)
            self._acknowledge(state, next_oid)
            return state
        interrupt: BaseException | None = None
        for _ in range(_INTERRUPTS):
            try:
                if store.appended != state:
                    store.append(
                        kind=fmt.COMMIT, epoch=epoch, state=state, durable=slot.durable, next_oid=next_oid, body=body
                    )
                self._publish(batch, before, end, next_oid)
                self._acknowledge(state, next_oid)
                break
            except Error:
                raise
            except BaseException as error:
                # A signal's handler raised in the middle. Once the frame is in the log there is no way back, but the same steps again lead to the end.
                interrupt = error
                if store.appended != state:
                    raise
        else:
            assert interrupt is not None
            self._slot.poison()
            raise interrupt
        self._interrupt = interrupt
        return state

    def _write_data(self, batch: Batch) -> None:
        """Put a batch's data at its place, synced if the log is not to have it."""
        data = batch.data
        self._store.write_data(batch.address, data)
        if len(data) >= IN_PLACE:
            self._store.sync_data()

    def _publish(self, batch: Batch, before: int, end: int, next_oid: int) -> None:
        slot = self._slot
        if slot.published != batch.state:
            entries = batch.entries
            try:
                slot.delta_apply(entries.array, entries.count)
                slot.advance(end, next_oid)
                slot.publish(self._epoch, before, batch.state)
            except Error:
                with contextlib.suppress(Error):
                    self._store.rewind()
                raise

    def _acknowledge(self, state: int, next_oid: int) -> None:
        self._sync_log()
        self._fresh = next_oid
        self._changed = True
        self._store.mark_durable(state)
        self._slot.set_durable(state)

    def raise_interrupt(self) -> None:
        """Raise what a signal's handler raised in the middle of a commit that was finished nevertheless. Call it when that commit is settled."""
        interrupt, self._interrupt = self._interrupt, None
        if interrupt is not None:
            raise interrupt

    def _sync_log(self) -> None:
        try:
            self._store.sync_log()
        except PoisonedError:
            self._slot.poison()
            raise

    def _begin_log(self, start: int, end: int, state: int) -> None:
        """A log file whose data region holds a transaction that the present one's does not."""
        _, at, chain = self._store.position
        base = start - start % fmt.PAGE
        limit = base + max(DATA_REGION, 2 * (end - base))
        if at != state:
            raise StorageError(
                f"prefix {self.name!r}: its log is at state {at}, the segment at {state}; reopen the prefix"
            )
        self._store.begin_log(epoch=self._epoch, state=state, chain=chain, data_base=base, data_limit=limit)
        self._limit = limit

    def _reserve_delta(self, entries: int) -> None:
        if self._slot.delta_reserve(entries):
            return
        self.checkpoint()
        self._through_table = not self._slot.delta_reserve(entries)
        raise DeltaRoomMade

    def _publish_through_table(self, batch: Batch, before: int, end: int, next_oid: int) -> None:
        """A transaction whose changes do not fit into the segment: durable in the log, then merged into the table, then published."""
        self._sync_log()
        slot = self._slot
        extra = merge.Pile()
        extra.add(batch.entries)
        slot.advance(end, next_oid)
        cut = self._cut(extra=len(extra))
        self._run_checkpoint(cut, extra)
        slot.publish(self._epoch, before, batch.state)
        self._through_table = False

    # --- the steps of a commit, for transactions across prefixes (storage/together.py) ------------------------------------------------------

    @property
    def epoch(self) -> int:
        """Of the lease held, 0 without."""
        return self._epoch

    @property
    def durable(self) -> int:
        """Newest durable state."""
        return self._slot.durable

    def make_room(self, batch: Batch, extra: int) -> None:
        """Reserve all that a sealed batch needs, and `extra` bytes of its frame.

        Raises:
            DeltaRoomMade: build the batch anew. DiskFullError, StorageError: nothing happened.
        """
        self._report_checkpoint()
        if batch.address != self._slot.allocated()[0]:
            raise DeltaRoomMade
        end = batch.end
        if end > self._limit:
            self._begin_log(batch.address, end, batch.state - 1)
        self._store.reserve(log_bytes=len(batch.body) + extra + _FRAME_ROOM, data_end=end)
        if not self._through_table:
            self._reserve_delta(batch.entries.count)

    def check_turn(self) -> None:
        """FencedError when another process has taken over writing, as far as that is known without asking the disk."""

    def append_batch(self, batch: Batch, kind: int, head: bytes) -> None:
        """Write a batch's data, and its frame with `head` in front of the body. Not synced."""
        self._write_data(batch)
        self._store.append(
            kind=kind,
            epoch=self._epoch,
            state=batch.state,
            durable=self._slot.durable,
            next_oid=self._slot.allocated()[1],
            body=head + bytes(batch.body),
        )

    def append_note(self, kind: int, body: bytes) -> None:
        """Append a frame that makes no state, and sync it."""
        store = self._store
        store.reserve(log_bytes=len(body) + _FRAME_ROOM, data_end=0)
        store.append(
            kind=kind,
            epoch=self._epoch,
            state=store.appended,
            durable=self._slot.durable,
            next_oid=self._slot.allocated()[1],
            body=body,
        )
        self.sync()

    def take_back(self) -> None:
        """Take back the frame appended last. PoisonedError: whether it is taken back is unknown."""
        try:
            self._store.rewind()
        except PoisonedError:
            self._slot.poison()
            raise

    def sync(self) -> None:
        """Make every appended frame durable. PoisonedError, FencedError."""
        self._sync_log()

    def publish_batch(self, batch: Batch) -> None:
        """Put a batch, whose frame is durable, into the segment. Only :meth:`show_batch` shows it to readers."""
        slot, before, end = self._slot, batch.state - 1, batch.end
        if self._through_table:
            self._publish_through_table(batch, before, end, slot.allocated()[1])
            return
        entries = batch.entries
        slot.delta_apply(entries.array, entries.count)
        slot.advance(end, slot.allocated()[1])
        slot.publish(self._epoch, before, batch.state)

    def show_batch(self, batch: Batch) -> None:
        """Show a published batch, whose frame is durable, to readers."""
        self._fresh = self._slot.allocated()[1]
        self._changed = True
        self._store.mark_durable(batch.state)
        self._slot.set_durable(batch.state)

    def poison(self) -> None:
        """Refuse every further write: what its files say is for the next who opens them to find out."""
        self._store.poison()
        self._slot.poison()

    def after_commit(self) -> None:
        """What is due now and then behind a commit."""
        self.tidy()
        if self._store.log_size > LOG_LIMIT:
            self._start_checkpoint()

    # --- checkpoints -----------------------------------------------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Bring the page file to the newest state and begin an empty log."""
        with self._commit_lock:
            self._finish_pending()
            self._run_checkpoint(self._cut())

    def _cut(self, extra: int = 0) -> ckpt.Cut:
        slot, store = self._slot, self._store
        info = slot.status()
        cut = ckpt.cut(
            store,
            self._segment.handle,
            slot.index,
            meta=store.read_meta(),
            data_end=int(info.data_end),
            next_oid=int(info.next_oid),
            extra=extra,
        )
        slot.advance(cut.data_end, cut.next_oid)
        self._limit = cut.data_end + DATA_REGION
        self._pending_cut = cut
        return cut

    def _run_checkpoint(self, cut: ckpt.Cut, extra: merge.Pile | None = None) -> None:
        reader = self.make_reader()  # its own: this may run beside other readers of this process
        try:
            ckpt.checkpoint(self._store, self._segment.handle, self._slot.index, reader, cut, extra)
        except PoisonedError:
            self._slot.poison()
            raise
        finally:
            reader.close()
        self._pending_cut = None

    def _start_checkpoint(self) -> None:
        """Cut here; merge and write in the background, beside further commits."""
        if self._checkpointer is not None and self._checkpointer.is_alive():
            return
        try:
            cut = self._pending_cut or self._cut()
        except Error as error:
            self._checkpoint_error = error
            return
        self._checkpointer = osthreads.thread(
            lambda: self._checkpoint_in_background(cut), f"dbzero-checkpoint-{self.name}"
        )
        self._checkpointer.start()

    def _checkpoint_in_background(self, cut: ckpt.Cut) -> None:
        try:
            self._run_checkpoint(cut)
        except Exception as error:
            self._checkpoint_error = error
        else:
            self.after_checkpoint()

    def _report_checkpoint(self) -> None:
        error, self._checkpoint_error = self._checkpoint_error, None
        if isinstance(error, PoisonedError):
            raise error
        if error is not None:
            warnings.warn(
                f"prefix {self.name!r}: a checkpoint failed and will be tried again ({error}). Commits go on; the log grows until it succeeds",
                RuntimeWarning,
                stacklevel=4,
            )

    def _finish_pending(self) -> None:
        """Wait for the background checkpoint; if it failed, do it now."""
        if self._checkpointer is not None and not osthreads.is_current(self._checkpointer):
            self._checkpointer.join()
            self._checkpointer = None
        self._checkpoint_error = None
        if self._pending_cut is not None:
            self._run_checkpoint(self._pending_cut)
