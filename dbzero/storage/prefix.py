"""One open prefix in this process: store, slot in the segment and reader, tied together by the commit protocol.

Everything above sees records and states only. The protocol's steps and what a crash after each leaves are argued in docs/design.md, sections 3 to 6.
"""

from __future__ import annotations

import threading
import time
import warnings
from typing import Final

from ..errors import CorruptError, DiskFullError, FencedError, ForkedError, PoisonedError, SegmentError
from ..runtime.batch import Batch
from ..runtime.reader import Reader
from ..runtime.segment import Segment
from ..runtime.slot import DeltaFullError, Slot
from . import format as fmt
from .checkpoint import Cut, Grant, checkpoint, table_pages_needed
from .filestore import DATA_REGION, LocalFileStore
from .recovery import recover, replay_into
from .store import Meta

LOG_LIMIT: Final = 16 << 20  # bytes of log after which a checkpoint is due
IN_PLACE: Final = 1 << 20  # data from this size on is synced in place instead of going through the log
OID_STEP: Final = 256


class Prefix:
    """A prefix that is open for reading, or (`writable`) whose lease this process holds.

    Attributes: name; uuid (64 bits, fixed at creation); writable; root_dir.
    """

    def __init__(self, segment: Segment, store: LocalFileStore, slot: Slot, writable: bool) -> None:
        self.name: Final = store.prefix
        self.uuid: Final = store.identity.prefix_uuid
        self.writable = writable
        self._segment = segment
        self._store = store
        self._slot = slot
        self._reader = Reader(segment, slot.index, store.fileno(), self.name, store.path)
        self._lock = threading.RLock()  # the reader is for one thread at a time
        self._commit_lock = threading.RLock()
        self._epoch = 0
        self._chain = 0
        self._fresh_from = 0
        self._checkpointer: threading.Thread | None = None
        self._checkpoint_error: Exception | None = None
        self._forked = False
        self._foreign = False

    # --- opening ---------------------------------------------------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        segment: Segment,
        root: str,
        name: str,
        *,
        writable: bool,
        blocking: bool = False,
        timeout: float | None = None,
        force: bool = False,
    ) -> Prefix:
        """Open a prefix, created when missing and `writable`.

        Args:
            segment: the root's segment. root: its directory. name: of the prefix.
            blocking, timeout (seconds), force: how to get the lease when another process holds it.

        Raises:
            LeaseError: held by another process. PrefixError, StorageError and subclasses: the files cannot be used.
        """
        store = LocalFileStore.open(root, name, writable=writable)
        try:
            epoch = store.acquire(blocking=blocking, timeout=timeout, force=force) if writable else 0
            slot = Slot.find(segment, store.prefix, store.identity.file_id)
            prefix = cls(segment, store, slot, writable)
            with slot.starting():
                if writable:
                    prefix._take_over(epoch, force)
                elif not slot.ready:
                    prefix._fill_from_disk()
        except BaseException:
            store.close()
            raise
        return prefix
