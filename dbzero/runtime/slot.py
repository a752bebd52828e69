"""One prefix in the segment: published and durable state, the delta index, and the slot's life.

Life of a slot: found (assigned), reset for an incarnation, filled (delta and root), started; then used by any number
of readers and the lease holder. A holder that died
is followed by a reset in place; one that was replaced alive keeps the slot (:meth:`PrefixSlot.retire`), and everybody
finds a fresh one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import xxhash
from msgspec import Struct

from dbzero._engine import ffi, lib
from dbzero.runtime import codes
from dbzero.runtime.native import persistent
from dbzero.runtime.segment import Segment

STATE_MASK: Final = (1 << 40) - 1


class SlotStatus(Struct, frozen=True):
    """Words of a prefix slot, each as of its own load."""

    name: str
    ready: bool
    retired: bool
    incarnation: int
    cache_key: int
    poisoned: bool
    waiters: int
    file_id: int
    prefix_uuid: int
    floor: int  # oldest state that is promised
    lease_epoch: int
    lease_owner: int  # process slot, -1 when free, 65534 for a process without a slot
    published: int
    published_epoch: int  # low 24 bits
    durable: int
    data_end: int
    next_oid: int
    root_number: int
    root_pointer: int
    root_depth: int
    root_state: int
    active_entries: int  # of the delta index
    frozen_entries: int
    has_frozen: bool
    chunks: int


class DeltaEntry(Struct, frozen=True):
    """One change of the object table."""

    oid: int
    state: int
    addr: int
    refcount: int


class PrefixSlot(persistent.Slot):  # type: ignore[misc,name-defined]
    """A prefix's slot in a segment. What all of its users ask again and again, the base answers in C, without letting go of the GIL
    (csrc/pytypes_words.c); ClosedError once the segment is closed.

    Attributes:
        segment, prefix: as given to :meth:`find`.
        index: number of the slot; what the engine's calls take.
        published: newest published state, what only the lease holder builds on.
        durable: newest durable state, what views follow.
        incarnation: changes when a successor resets or retires the slot.
        ticket: wake-ups so far. log_number: the log file in use, as the last turn left it.
    """

    __slots__ = ("prefix", "segment")

    segment: Segment
    prefix: str
    index: int
    published: int
    durable: int
    incarnation: int
    ticket: int
    log_number: int
    now: Callable[[], Any]
    advance: Callable[[int, int], int]

    def __new__(cls, segment: Segment, prefix: str, index: int) -> PrefixSlot:
        slot: PrefixSlot = super().__new__(cls, segment.words, index)
        slot.segment = segment
        slot.prefix = prefix
        return slot

    @classmethod
    def find(cls, segment: Segment, prefix: str, file_id: int = 0) -> PrefixSlot:
        """The slot of `prefix`, assigned now if it has none. Takes the root's file lock. SegmentError when the
        table or memory is full.

        Another page file under the same name (`file_id`) has another slot, so that whoever still has the old file
        open keeps seeing it.
        """
        with segment.root_lock():
            return cls.find_locked(segment, prefix, file_id)

    @classmethod
    def find_locked(cls, segment: Segment, prefix: str, file_id: int = 0) -> PrefixSlot:
        """:meth:`find` for callers that hold :meth:`Segment.root_lock`."""
        name = prefix.encode("utf-8", "surrogateescape")
        key = xxhash.xxh3_128_digest(name, seed=file_id)
        code = lib.dbz_prefix_find(segment.handle, key, ffi.new("char[]", name.replace(b"\0", b"?")))
        return cls(segment, prefix, codes.check(code, f"prefix {prefix!r}: find its slot", segment.errno()))

    def _check(self, code: int, what: str) -> int:
        return code if code >= 0 else codes.check(code, f"prefix {self.prefix!r}: {what}", self.segment.errno())

    # --- life ---------------------------------------------------------------------------------------------------------

    def reset(self, file_id: int, prefix_uuid: int) -> None:
        """Begin an incarnation: no delta, no root, not ready. No live process may be writing through this slot."""
        lib.dbz_prefix_reset(self.segment.handle, self.index, file_id, prefix_uuid)

    def start(self, *, epoch: int, state: int, data_end: int, next_oid: int, floor: int = 0) -> None:
        """Make the slot ready at `state`, published and durable, after delta and root were filled."""
        self._check(
            lib.dbz_prefix_start(self.segment.handle, self.index, epoch, state, data_end, next_oid, floor), "start"
        )

    def retire(self, epoch: int) -> int:
        """Replace a live holder by `epoch` and leave the slot to it. Caller holds the root's file lock, and finds a
        fresh slot next.

        Returns: the last state the old holder published. FencedError: a newer epoch is there.
        """
        out = ffi.new("uint64_t *")
        self._check(lib.dbz_prefix_retire(self.segment.handle, self.index, epoch, out), f"retire for epoch {epoch}")
        return int(out[0])

    def status(self) -> SlotStatus:
        """All words, for status output and for opening."""
        i = ffi.new("dbz_prefix_info *")
        self._check(lib.dbz_prefix_status(self.segment.handle, self.index, i), "status")
        return SlotStatus(
            name=ffi.string(i.name).decode("utf-8", "replace"),
            ready=bool(i.ready),
            retired=i.assigned == 2,
            incarnation=i.incarnation,
            cache_key=i.cache_key,
            poisoned=bool(i.poisoned),
            waiters=i.waiters,
            file_id=i.file_id,
            prefix_uuid=i.prefix_uuid,
            floor=i.floor,
            lease_epoch=i.lease >> 16,
            lease_owner=(i.lease & 0xFFFF) - 1,
            published=i.published & STATE_MASK,
            published_epoch=i.published >> 40,
            durable=i.durable,
            data_end=i.data_end,
            next_oid=i.next_oid,
            root_number=i.root_no,
            root_pointer=i.root_pointer,
            root_depth=i.root_depth,
            root_state=i.root_state,
            active_entries=i.active_entries,
            frozen_entries=i.frozen_entries,
            has_frozen=bool(i.gens & 1),
            chunks=i.chunks,
        )

    def allocated(self) -> tuple[int, int]:
        """(data end, next OID): where the next commit's data stands, and the first OID that was never given out."""
        now = self.now()
        return now.data_end, now.next_oid

    def leave(self, epoch: int) -> None:
        """In a turn of shared writers: leave the slot to those who still read the page file that another one has taken the
        place of. Caller holds the root's file lock. FencedError: the lease is not shared at `epoch`, or the slot was left before.
        """
        self._check(lib.dbz_prefix_leave(self.segment.handle, self.index, epoch), "leave")

    @property
    def left(self) -> int:
        """The incarnation that ended by :meth:`leave`, 0: none. What was published in it is durable in the other file."""
        return int(lib.dbz_prefix_left(self.segment.handle, self.index))

    # --- states -------------------------------------------------------------------------------------------------------

    def publish(self, epoch: int, state: int, next_state: int) -> None:
        """Move published from `state` to `next_state` iff it is still this epoch's.

        Raises FencedError (another epoch), PoisonedError, ValueError (another state).
        """
        if code := self.step(epoch, state, next_state):
            self._check(code, f"publish state {next_state}")

    def set_durable(self, state: int) -> None:
        """Raise durable and wake who waits for it."""
        lib.dbz_durable(self.segment.handle, self.index, state)

    def reserve_oids(self, n: int) -> int:
        """First of `n` fresh OIDs."""
        return int(lib.dbz_oid_reserve(self.segment.handle, self.index, n))

    def poison(self) -> None:
        """After a failed fsync: nothing can be published in this incarnation any more."""
        lib.dbz_poison(self.segment.handle, self.index)

    def wake(self) -> None:
        """Make everybody who waits on this prefix look around."""
        lib.dbz_wake(self.segment.handle, self.index)

    # --- delta index --------------------------------------------------------------------------------------------------

    def delta_reserve(self, n: int) -> bool:
        """Make room for `n` more entries. False: shared memory or the arena is full; rotate and checkpoint."""
        code = lib.dbz_delta_reserve(self.segment.handle, self.index, n)
        return code == codes.OK or (code != codes.NOSPACE and self._check(code, f"reserve {n} delta entries") == 0)

    def delta_apply(self, entries: Any, n: int) -> None:
        """Append `n` entries (a cffi `dbz_entry *`), for which room was reserved. Lease holder, recovery or
        follower."""
        if code := lib.dbz_delta_apply(self.segment.handle, self.index, entries, n):
            self._check(code, f"apply {n} delta entries")

    def delta_append(self, entries: Sequence[DeltaEntry]) -> None:
        """:meth:`delta_apply` for Python values."""
        array = ffi.new("dbz_entry[]", [(e.oid, e.state, e.addr, e.refcount, 0) for e in entries])
        self.delta_apply(array, len(entries))

    def delta_rotate(self, state: int, expected: int = 0) -> bool:
        """Freeze the active entries at `state` and start an empty generation sized for `expected`. False while a
        frozen one exists.

        Under the checkpoint lock, by the lease holder.
        """
        code = lib.dbz_delta_rotate(self.segment.handle, self.index, state, expected)
        return code != codes.BUSY and self._check(code, "rotate the delta") == 0

    def delta_count(self, *, frozen: bool = False) -> int:
        """Entries in the active or the frozen generation."""
        return int(lib.dbz_delta_count(self.segment.handle, self.index, frozen))

    def delta_copy(self, *, frozen: bool = False) -> tuple[Any, int]:
        """All entries of a generation, oldest first: a cffi `dbz_entry[]` and how many it holds."""
        count = self.delta_count(frozen=frozen)
        array = ffi.new("dbz_entry[]", max(count, 1))
        return array, self._check(
            lib.dbz_delta_copy(self.segment.handle, self.index, frozen, array, count), "copy the delta"
        )

    def delta_find(self, oid: int, state: int) -> DeltaEntry | None:
        """Newest entry of an object at or below `state`; one of the newer ones when these are many."""
        e = ffi.new("dbz_entry *")
        code = lib.dbz_delta_find(self.segment.handle, self.index, oid, state, e)
        if code == codes.NOTFOUND:
            return None
        self._check(code, f"look up object {oid} at state {state}")
        return DeltaEntry(e.oid, e.state, e.addr, e.refcount)

    def install_root(self, pointer: int, depth: int, state: int) -> None:
        """Put a checkpoint's object table in force. Then :meth:`delta_retire`. Both under the checkpoint lock."""
        lib.dbz_root_install(self.segment.handle, self.index, pointer, depth, state)

    def delta_retire(self) -> None:
        """Drop the frozen generation: the object table has it now."""
        lib.dbz_delta_retire(self.segment.handle, self.index)

    def delta_sweep(self) -> int:
        """Give back memory that a process left behind that died while rotating. Lease holder, under the checkpoint
        lock."""
        return int(lib.dbz_delta_sweep(self.segment.handle, self.index))
