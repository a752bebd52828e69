"""The store interface: what the engine needs from whatever keeps one prefix's bytes.

A store holds one prefix: a page file (a flat array of bytes, addressed from 0), a log of frames, and a lease that decides who may write. The engine above never
opens, writes or syncs a file itself. ``tests/storage/conformance.py`` is the suite every store must pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from msgspec import Struct


class Identity(Struct, frozen=True):
    """Fixed facts of a prefix's page file."""

    file_id: int  # random 64 bits, new for every file that is created or copied
    prefix_uuid: int  # random 64 bits, kept by copies
    page_size: int
    format_version: int
    replaces: int = 0  # file id of the page file that a compaction put this one in place of


class Meta(Struct, frozen=True):
    """One checkpoint: the state up to which the page file alone is complete."""

    checkpoint: int  # number of the checkpoint, growing by one
    state: int
    root: int  # table page pointer, see csrc/reader.h
    depth: int
    next_oid: int
    data_end: int  # first address never used, a multiple of the page size
    redo: int  # number of the first log file that continues from here
    epoch: int  # newest epoch known when it was written
    chain: int  # checksum of the last frame it includes (0: none)
    free_head: int  # page pointer of the free list's first page (0: none)
    free_count: int
    time_us: int
    floor: int = 0  # oldest state that is kept; up to 1: every state is


class Frame(Struct, frozen=True):
    """One entry of the log, as read back and verified."""

    kind: int
    epoch: int
    state: int
    durable: int  # newest durable state its writer knew
    next_oid: int
    chain: int  # checksum of this frame, which seeds the next one's
    body: bytes
    redo: int  # number of the log file it stands in


class Store(Protocol):
    """Durable bytes of one prefix. All calls raise typed errors of :mod:`dbzero.errors` that name the prefix and the file."""

    @property
    def identity(self) -> Identity: ...

    def acquire(self, *, blocking: bool = False, timeout: float | None = None, force: bool = False) -> int:
        """Take the write lease. Returns the new epoch, greater than every earlier one. LeaseError names the holder when it is taken."""

    def release(self) -> None:
        """Give the lease back. No effect without it."""

    def begin_log(self, *, epoch: int, state: int, chain: int, data_base: int, data_limit: int) -> int:
        """Open the next numbered log file, which continues from (state, chain); data of its frames stands in [data_base, data_limit).

        FencedError when a file of that number exists already: another epoch has taken over."""

    def reserve(self, *, log_bytes: int, data_end: int) -> None:
        """Make sure that `log_bytes` more of log and page file bytes up to `data_end` can be written. DiskFullError leaves everything as it was."""

    def write_data(self, address: int, data: bytes | memoryview) -> None:
        """Write page file bytes at or above the last checkpoint's data_end. Not synced."""

    def sync_data(self) -> None:
        """Make all page file bytes durable."""

    def append(
        self, *, kind: int, epoch: int, state: int, durable: int, next_oid: int, body: bytes | memoryview
    ) -> int:
        """Append a frame iff the epoch is the lease's and the state follows the last frame's. Returns the new chain checksum. Not synced."""

    def rewind(self) -> None:
        """Forget the frame appended last (its commit failed before publication)."""

    def sync_log(self) -> None:
        """Make every appended frame durable. A failure poisons the store for good (PoisonedError from then on)."""

    def mark_durable(self, state: int) -> None:
        """Note behind the last frame, unsynced, that `state` is durable."""

    def read_meta(self) -> Meta:
        """The newest valid checkpoint. CorruptError when none is."""

    def read_log(self, meta: Meta) -> Iterator[Frame]:
        """The frames after `meta`, in order, fenced-off ones left out. Ends at a torn tail; CorruptError for damage before it."""

    def read_page(self, address: int, length: int) -> bytes:
        """Page file bytes; short when the file ends."""

    def fileno(self) -> int:
        """Descriptor from which C may read page file bytes, or -1."""

    def write_pages(self, pages: Iterable[tuple[int, bytes]]) -> None:
        """Write table pages (not reachable from any checkpoint that is in force). Not synced."""

    def put_meta(self, meta: Meta) -> None:
        """Sync the page file, then put `meta` in force: first slot, sync, second slot, sync."""

    def truncate_log(self, upto: int) -> None:
        """Delete log files with a number below `upto`."""

    def watch(self, timeout: float | None) -> bool:
        """Sleep until the log changed by another process. False on timeout."""

    def close(self) -> None: ...
