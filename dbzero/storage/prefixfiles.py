"""The files of one prefix, as whoever reads them needs them: the page file that has the prefix's name, the checkpoint in
force, the log behind it, and whether any of these changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from .. import errors
from . import log, names
from .pagefile import PageFile
from .store import Frame, Identity, Meta
from .syscalls import System, Watch, storage_error, typed

_READ_ATTEMPTS: Final = 3


class PrefixFiles:
    """Reads a prefix's files. May be called from several threads.

    Attributes: prefix; root: the directory that names are looked up in; base: path of its files without their endings;
        path: of the page file; writable: whether it was opened to be written.
    """

    def __init__(self, system: System, root: str, prefix: str, *, writable: bool, path: str | None = None) -> None:
        self.prefix: Final = names.normalize(prefix)
        self.root: Final = root
        self.base: Final = names.base_path(root, prefix) if path is None else path
        self.path: Final = names.page_path(self.base) if path is None else path
        self.writable: Final = writable
        self._system: Final = system
        self._page = PageFile(system, self.prefix, self.path)
        self._tail: log.Tail | None = None
        self._watch: Watch | None = None

    @property
    def identity(self) -> Identity:
        return self._page.identity

    @property
    def system(self) -> System:
        """What its files are reached through."""
        return self._system

    def _fail(self, exc: OSError, action: str, path: str | None = None) -> errors.StorageError:
        return storage_error(exc, self.prefix, path or self.path, action)

    def _closed(self) -> errors.ClosedError:
        return errors.ClosedError(f"prefix {self.prefix!r} is closed; open it again")

    # --- the page file ------------------------------------------------------------------------------------------------

    def read_meta(self) -> Meta:
        """The newest valid checkpoint. CorruptError when none is, or when the page file is shorter than it says."""
        return self._page.read_meta()

    def read_page(self, address: int, length: int) -> bytes:
        """Page file bytes; short when the file ends."""
        return self._page.read(address, length)

    def fileno(self) -> int:
        """Descriptor from which C may read page file bytes, -1 when it must ask :meth:`read_page`."""
        return self._page.fileno()

    @typed("read")
    def overlay(self, address: int, data: bytes | memoryview) -> None:
        """Show `data` at `address` to this instance's readers without writing (a reader that may not write replays the log)."""
        self._page.overlay(address, data)

    def replaced(self) -> bool:
        """Whether the prefix's name leads to another page file than the one open here."""
        return not self._system.same_file(self._page.fd, self.path)

    def check_name(self) -> None:
        """FileReplacedError when the prefix's name leads to another page file than the one open here."""
        if self.replaced():
            raise errors.FileReplacedError(
                f"prefix {self.prefix!r}: {self.path} was replaced by another file while it was open; close the prefix and open it again"
            )

    def _newer_under_name(self) -> PageFile:
        """The page file that has the prefix's name now, open: a compacted one that has everything of the one open here."""
        page = PageFile(self._system, self.prefix, self.path)
        try:
            page.open(os.O_RDWR if self.writable else os.O_RDONLY)
            page.read_header()
            if (
                page.identity.prefix_uuid != self.identity.prefix_uuid
                or page.read_meta().state < self.read_meta().state
            ):
                self.check_name()
        except FileNotFoundError:
            page.close()
            self.check_name()
            raise
        except BaseException:
            page.close()
            raise
        return page

    def _go_on_with(self, page: PageFile) -> PageFile:
        """Go on with a page file that holds everything of the one before; returns that."""
        old, self._page = self._page, page
        self._tail = None
        return old

    # --- the log ------------------------------------------------------------------------------------------------------

    def read_log(self, meta: Meta) -> Iterator[Frame]:
        """The frames after `meta`, in order, fenced-off and taken-back ones left out. Ends at a torn tail.

        Raises:
            CorruptError: damage before the end. StaleFileError: the page file is older than its log.
            CheckpointMovedError: read the meta again.
        """
        if self._page.fd < 0:
            raise self._closed()
        for attempt in range(_READ_ATTEMPTS):
            tail = log.Tail(0, meta.state, meta.chain, 0, meta.data_end, meta.data_end)
            begun = False
            try:
                for frame in log.read_frames(
                    self._system, self.prefix, self.base, self._page.identity.file_id, meta, tail
                ):
                    begun = True
                    yield frame
                self._tail = tail
                return
            except errors.StorageError as exc:
                if self.read_meta().checkpoint != meta.checkpoint:
                    raise errors.CheckpointMovedError(
                        f"prefix {self.prefix!r}: a checkpoint was put in force while the log behind checkpoint "
                        f"{meta.checkpoint} was read; read the meta again"
                    ) from exc
                if begun or attempt == _READ_ATTEMPTS - 1:
                    raise  # otherwise a log file that held nothing may just have been deleted

    @property
    def tail(self) -> log.Tail | None:
        """Where the newest complete :meth:`read_log` ended."""
        return self._tail

    def begun_epoch(self) -> int:
        """The newest epoch of which there is a log file, 0 without any."""
        found = self._inventory()
        return max((file.header.epoch for file in found.files), default=0)

    def open_end(self) -> bool:
        """Whether a log file was created behind the newest one that was begun."""
        found = self._inventory()
        return found.highest > max((file.number for file in found.files), default=0)

    def _inventory(self) -> log.Inventory:
        return log.inventory(self._system, self.prefix, self.base, self._page.identity.file_id)

    def _find_position(self, state: int, chain: int) -> tuple[int, int]:
        """(number of the log file in which (state, chain) stands - 0: the checkpoint -, next free number)."""
        meta = self.read_meta()
        found = self._inventory()
        following = max(found.highest, meta.redo - 1) + 1
        if (state, chain) == (meta.state, meta.chain):
            return 0, following
        tail = self._tail
        if tail is None or (tail.state, tail.chain) != (state, chain):
            for frame in self.read_log(meta):
                if (frame.state, frame.chain) == (state, chain):
                    tail = log.Tail(frame.redo, state, chain, 0, 0, 0)
                    break
            else:
                tail = self._tail
        if tail is None or (tail.state, tail.chain) != (state, chain):
            raise errors.StorageError(
                f"prefix {self.prefix!r}: state {state} with chain {chain:#x} stands neither in the log nor in the checkpoint; reopen the prefix"
            )
        return tail.number, following

    # --- following ----------------------------------------------------------------------------------------------------

    def watch(self, timeout: float | None) -> bool:
        """Sleep until a file of this prefix changed since the last call. False after `timeout` seconds (None: wait for ever)."""
        if self._page.fd < 0:
            raise self._closed()
        directory, stem = os.path.split(self.base)
        try:
            if self._watch is None:
                self._watch = self._system.watch(directory)
            return self._watch.wait(stem + ".redo.", timeout)
        except OSError as exc:
            raise self._fail(exc, "watch", directory) from exc

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
