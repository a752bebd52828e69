"""A prefix's slot in the segment: lease word, states, delta index and table root, as typed calls.

What each word means and which memory order orders it stands above `dbz_prefix` in csrc/segment.h.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any, Final

from dbzero._engine import ffi, lib
from dbzero.errors import CorruptError, FencedError, LeaseError, PoisonedError, SegmentError
from dbzero.runtime import codes
from dbzero.runtime.root import RootFile
from dbzero.runtime.segment import Segment

_FOREVER: Final = -1
_SLOT_LOCKS: Final = 1 << 21  # bytes of the root's identity file from here on: one per prefix slot
_PATIENCE: Final = 60.0  # seconds; a recovery can hold a slot's lock


class DeltaFullError(SegmentError):
    """The delta index has no room for a commit's changes: a checkpoint empties it."""


class Slot:
    """One prefix's slot. Attributes: index; name (for messages)."""

    def __init__(self, segment: Segment, index: int, name: str) -> None:
        self.segment: Final = segment
        self.index: Final = index
        self.name: Final = name
        self._seg: Final[Any] = segment.handle

    @classmethod
    def find(cls, segment: Segment, name: str, file_id: int) -> Slot:
        """The slot of a prefix's page file (another file under the same name has another slot). SegmentError when none is left."""
        key = hashlib.blake2b(f"{file_id:x}/{name}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
        with segment.root_lock():
            index = lib.dbz_prefix_find(segment.handle, key, name.encode("utf-8", "replace"))
        if index < 0:
            raise SegmentError(f"prefix {name!r}: the segment of {segment.root} has no free prefix slot; close prefixes or split the root directory")
        return cls(segment, index, name)

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Exclude every other process that wants to fill or take over this slot."""
        if not self.segment.shared:
            yield
            return
        file = RootFile.open(self.segment.root)
        try:
            code = lib.dbz_lock_wait(file.fd, _SLOT_LOCKS + self.index, 1, 1, int(_PATIENCE * 1e9))
            if code < 0:
                raise SegmentError(
                    f"prefix {self.name!r}: another process has been opening it for {_PATIENCE:.0f} s and may be stopped; end or continue it, then try again"
                )
            yield
        finally:
            file.close()

    # --- words ---------------------------------------------------------------------------------------------------------------------------

    def info(self) -> Any:
        """A copy of the slot's words (struct dbz_prefix_info)."""
        info = ffi.new("dbz_prefix_info *")
        if lib.dbz_prefix_status(self._seg, self.index, info) < 0:
            raise SegmentError(f"prefix {self.name!r}: its slot {self.index} is not in the segment; reopen the prefix")
        return info

    @property
    def ready(self) -> bool:
        return bool(self.info().ready)

    @property
    def published(self) -> int:
        return int(lib.dbz_state_published(self._seg, self.index))

    @property
    def durable(self) -> int:
        return int(lib.dbz_state_durable(self._seg, self.index))

    @property
    def incarnation(self) -> int:
        return int(lib.dbz_incarnation(self._seg, self.index))

    @property
    def led(self) -> bool:
        """Whether a live process that shares this segment holds the lease."""
        owner = int(lib.dbz_lease_word(self._seg, self.index)) & 0xFFFF
        if owner in (0, 0xFFFF):
            return owner != 0
        return bool(lib.dbz_proc_alive(self._seg, owner - 1))

    def reset(self, file_id: int, prefix_uuid: int) -> None:
        """Empty the slot for a new incarnation; it is not ready until `start`."""
        lib.dbz_prefix_reset(self._seg, self.index, file_id, prefix_uuid)

    def start(self, *, epoch: int, state: int, data_end: int, next_oid: int) -> None:
        """Set the words of a filled slot and make it usable."""
        if lib.dbz_prefix_start(self._seg, self.index, epoch, state, data_end, next_oid, 0) < 0:
            raise SegmentError(f"prefix {self.name!r}: state {state} is out of range")

    def advance(self, data_end: int, next_oid: int) -> None:
        lib.dbz_advance(self._seg, self.index, data_end, next_oid)

    def reserve_oids(self, n: int) -> int:
        return int(lib.dbz_oid_reserve(self._seg, self.index, n))

    # --- lease, publishing, waiting --------------------------------------------------------------------------------------------------------

    def take_lease(self, epoch: int, *, force: bool) -> None:
        """Put our epoch into the lease word and the published word. LeaseError: a live process holds it; FencedError: a newer epoch does."""
        rc = lib.dbz_lease_take(self._seg, self.index, epoch, int(force))
        if rc == codes.BUSY:
            raise LeaseError(f"prefix {self.name!r} is being written by another process; open it read-only, or with lock_flags")
        if rc < 0:
            raise FencedError(f"prefix {self.name!r}: a newer writer than epoch {epoch} has taken over; reopen the prefix")

    def drop_lease(self, epoch: int) -> None:
        lib.dbz_lease_drop(self._seg, self.index, epoch)

    def retire(self, epoch: int) -> None:
        """Leave the slot to a replaced holder that still lives; a fresh one takes its place."""
        state = ffi.new("uint64_t *")
        with self.segment.root_lock():
            if lib.dbz_prefix_retire(self._seg, self.index, epoch, state) < 0:
                raise FencedError(f"prefix {self.name!r}: a newer writer than epoch {epoch} has taken over; reopen the prefix")

    def publish(self, epoch: int, state: int, following: int) -> None:
        """Move published from (epoch, state) to (epoch, following)."""
        rc = lib.dbz_publish(self._seg, self.index, epoch, state, following)
        if rc == codes.POISONED:
            raise PoisonedError(f"prefix {self.name!r}: an earlier sync failed; close and reopen the prefix")
        if rc < 0:
            raise FencedError(
                f"prefix {self.name!r}: this process lost the write lease (epoch {epoch}) to a successor; what it had not committed is void. Reopen the prefix"
            )

    def set_durable(self, state: int) -> None:
        lib.dbz_durable(self._seg, self.index, state)

    def poison(self) -> None:
        lib.dbz_poison(self._seg, self.index)

    def wait(self, state: int, incarnation: int, timeout: float | None) -> bool:
        """Sleep until durable is above `state`, the incarnation differs, or a wake. False after `timeout` seconds."""
        ns = _FOREVER if timeout is None else max(0, int(timeout * 1e9))
        return int(lib.dbz_wait(self._seg, self.index, state, incarnation, ns)) != codes.TIMEOUT

    def wake(self) -> None:
        lib.dbz_wake(self._seg, self.index)

    # --- delta index and root ------------------------------------------------------------------------------------------------------------

    def reserve(self, entries: int) -> None:
        """Make room for so many entries. DeltaFullError when there is none."""
        if lib.dbz_delta_reserve(self._seg, self.index, entries) < 0:
            raise DeltaFullError(f"prefix {self.name!r}: no shared memory for {entries} changes")

    def apply(self, entries: Any, n: int) -> None:
        """Append a commit's entries; room has been reserved."""
        rc = lib.dbz_delta_apply(self._seg, self.index, entries, n)
        if rc < 0:
            raise SegmentError(f"prefix {self.name!r}: the delta index refused {n} changes (code {rc}); reopen the prefix")

    def count(self, *, frozen: bool) -> int:
        return int(lib.dbz_delta_count(self._seg, self.index, int(frozen)))

    def copy(self, *, frozen: bool) -> tuple[Any, int]:
        """The entries of one generation as (dbz_entry[], n)."""
        n = self.count(frozen=frozen)
        entries = ffi.new("dbz_entry[]", max(n, 1))
        got = lib.dbz_delta_copy(self._seg, self.index, int(frozen), entries, n)
        if got < 0:
            raise CorruptError(f"prefix {self.name!r}: the delta index is damaged; reopen the prefix")
        return entries, int(got)

    def rotate(self, state: int, expected: int = 0) -> None:
        """Freeze the active generation."""
        rc = lib.dbz_delta_rotate(self._seg, self.index, state, expected)
        if rc < 0:
            raise DeltaFullError(f"prefix {self.name!r}: the delta index cannot be rotated (code {rc}): the last checkpoint has not finished")

    def install_root(self, pointer: int, depth: int, state: int) -> None:
        """Put a checkpoint's table root in force."""
        lib.dbz_root_install(self._seg, self.index, pointer, depth, state)

    def retire_delta(self) -> None:
        """Drop the frozen generation; its entries are in the table."""
        lib.dbz_delta_retire(self._seg, self.index)

    def clear_delta(self, state: int) -> None:
        """Drop every entry: the table has them all."""
        if self.info().gens & 1:
            self.retire_delta()
        self.rotate(state)
        self.retire_delta()
