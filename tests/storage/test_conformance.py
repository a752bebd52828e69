"""Both stores pass the conformance suite."""

from __future__ import annotations

import os
import pathlib

import pytest

from dbzero.storage.filestore import LocalFileStore
from tests.storage.conformance import StoreConformance
from tests.storage.memstore import MemoryDisk, MemoryStore


class TestLocalFileStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def _root(self, tmp_path: pathlib.Path) -> None:
        self.root = tmp_path
        self.opened: list[LocalFileStore] = []

    def open_store(self, prefix: str = "p", *, writable: bool = True, create: bool = True) -> LocalFileStore:
        store = LocalFileStore.open(self.root, prefix, writable=writable, create=create)
        self.opened.append(store)
        return store

    def crash(self) -> None:
        """Give up descriptors as the kernel would: no method of the store runs."""
        for store in self.opened:
            lease, page, log = store._lease, store._page, store._log
            for fd in (lease.fd, page.fd, log.begun_fd, log.writer.fd if log.writer else -1):
                if fd >= 0:
                    os.close(fd)
            lease.fd = page.fd = log.begun_fd = -1
            log.writer, store._epoch = None, 0
        self.opened.clear()


class TestMemoryStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def _disk(self) -> None:
        self.disk = MemoryDisk()

    def open_store(self, prefix: str = "p", *, writable: bool = True, create: bool = True) -> LocalFileStore:
        return MemoryStore.on(self.disk, prefix, writable=writable, create=create)

    def crash(self) -> None:
        self.disk = self.disk.kill()
