"""Who may fill a prefix slot: one process at a time, and none but the writer while there is one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from dbzero._engine import lib
from dbzero.errors import SegmentError
from dbzero.runtime import codes, osthreads
from dbzero.runtime.lease import GROUP, NO_SLOT, SlotLease
from dbzero.runtime.root import RootFile
from dbzero.runtime.slot import PrefixSlot

_FIRST_BYTE: Final = 1 << 21  # of the root's identity file: one byte per prefix slot from here on
_PATIENCE: Final = 60.0  # seconds; a recovery may hold the lock for long
_private = osthreads.RLock()


@contextlib.contextmanager
def slot_lock(slot: PrefixSlot, patience: float = _PATIENCE) -> Iterator[None]:
    """Exclude every other process and thread that wants to fill or take over this slot. The kernel drops the lock with its holder.

    Raises SegmentError when it was not to be had within `patience` seconds.
    """
    if not slot.segment.shared:
        with _private:
            yield
        return
    file = RootFile.open(slot.segment.root)
    try:
        code = lib.dbz_lock_wait(file.fd, _FIRST_BYTE + slot.index, 1, 1, int(patience * 1e9))
        if code == codes.TIMEOUT:
            raise SegmentError(
                f"prefix {slot.prefix!r}: another process has been opening it for {patience:.0f} s and may be stopped; end or continue it, then try again"
            )
        codes.check(code, f"prefix {slot.prefix!r}: lock its slot")
        yield
    finally:
        file.close()


def led(slot: PrefixSlot, shared: Callable[[], bool]) -> bool:
    """Whether a live process that shares this segment holds the lease. shared: tells it of shared writers."""
    owner = SlotLease(slot).word & 0xFFFF
    if owner == GROUP:
        return shared()
    if owner in (0, NO_SLOT):
        return owner == NO_SLOT
    return bool(lib.dbz_proc_alive(slot.segment.handle, owner - 1)) or owner - 1 == slot.segment.slot


def clear_delta(slot: PrefixSlot, state: int) -> None:
    """Drop every entry of the delta index: the installed root has them all, up to `state`. Under the checkpoint lock."""
    if slot.status().has_frozen:
        slot.delta_retire()
    slot.delta_rotate(state)
    slot.delta_retire()
