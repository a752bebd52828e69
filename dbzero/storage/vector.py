"""Consistent vectors of states: what belongs together is shown together.

A transaction across prefixes becomes visible prefix by prefix, each through its own slot. For as long as it is visible in
some and not in others, it stands in the root's *window file*; who takes several prefixes' states at once looks there and,
where it finds one half shown, takes the states before it. The file:

    0   8  xxh3_64 of bytes 16..    8   8  their number    16  8  version    24  4  transactions    32  them (:meth:`Together.encode`)

Writers change it under a byte lock, in one write. Readers take no lock: they read the file before and after they look at
the states, and repeat when the version moved. An entry goes when its states are all shown; one of a writer that died stays
until others take its room, and is harmless by then or right. The file says nothing that recovery needs, so it is not synced.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from .. import errors
from . import format as fmt
from . import records as rec
from .decisions import Together
from .syscalls import SYSTEM, System, read_exact, storage_error, write_all

NAME: Final = ".dbzero.together"
_HEAD: Final = struct.Struct("<QI4x")
_U64: Final = struct.Struct("<Q")
_MOST: Final = 1 << 20  # bytes of the file
_ROOM: Final = 1 << 16
_KEPT: Final = 64  # transactions of writers that died
_TRIES: Final = 10_000
_PATIENCE: Final = 10.0  # seconds to wait for another writer's turn at the file
_in_process: Final = threading.Lock()  # the byte lock tells processes apart, not threads


class Window:
    """The window file of a root directory."""

    def __init__(self, root: str, system: System = SYSTEM) -> None:
        self.path: Final = os.path.join(root, NAME)
        self._system: Final = system

    def _fail(self, exc: OSError, action: str) -> errors.StorageError:
        return storage_error(exc, "", self.path, action)

    def read(self) -> tuple[int, list[Together]]:
        """(version, transactions). (0, []) when there is no file; (-1, []) when it is being written just now."""
        try:
            fd = self._system.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return 0, []
        except OSError as exc:
            raise self._fail(exc, "open") from exc
        try:
            return _decode(self._content(fd))
        except OSError as exc:
            raise self._fail(exc, "read") from exc
        finally:
            self._system.close(fd)

    def _content(self, fd: int) -> bytes:
        raw = read_exact(self._system, fd, 512, 0)
        if len(raw) >= 16 and 16 + _U64.unpack_from(raw, 8)[0] > len(raw):
            raw = read_exact(self._system, fd, _MOST, 0)
        return raw

    def prepare(self) -> None:
        """Make the file, with room for what will be noted: a decided transaction must not fail for want of a page."""
        try:
            fd = self._system.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                if self._system.size(fd) < _ROOM:
                    self._system.fallocate(fd, 0, _ROOM)
            finally:
                self._system.close(fd)
        except OSError as exc:
            raise self._fail(exc, "create") from exc

    def note(self, said: Together) -> None:
        """Note a transaction that is made, before the first part of it is shown."""
        self._change(lambda noted: noted if any(n.number == said.number for n in noted) else [*noted[-_KEPT:], said])

    def done(self, said: Together) -> None:
        """Every part of a transaction is shown."""
        self._change(lambda noted: [n for n in noted if n.number != said.number])

    def _change(self, change: Callable[[list[Together]], list[Together]]) -> None:
        with _in_process:
            try:
                fd = self._system.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
                try:
                    self._lock(fd)
                    version, noted = _decode(self._content(fd))
                    write_all(self._system, fd, [_encode(max(version, 0) + 1, change(noted))], 0)
                finally:
                    self._system.close(fd)  # and the lock with it
            except OSError as exc:
                raise self._fail(exc, "write") from exc

    def _lock(self, fd: int) -> None:
        deadline, pause = time.monotonic() + _PATIENCE, 0.0001
        while not self._system.try_lock(fd, 0):
            if time.monotonic() > deadline:
                raise errors.LeaseError(
                    f"{self.path}: another process has been holding its lock for {_PATIENCE:g} s and may be stopped; end or continue it"
                )
            self._system.sleep(pause)
            pause = min(2 * pause, 0.01)

    def consistent(self, states: Callable[[], Mapping[int, int]], epoch: Callable[[int], int]) -> dict[int, int]:
        """Newest states of several prefixes, no transaction half of them.

        Args:
            states: gives prefix uuid -> newest durable state, anew with every call.
            epoch: the newest epoch in which a prefix (its uuid) was written, as far as is known here.
        """
        for attempt in range(_TRIES):
            version, noted = self.read()
            if version >= 0:
                found = dict(states())
                if self.read()[0] == version:
                    return lowered(found, noted, epoch) if noted else found
            if attempt > 10:
                self._system.sleep(0.0002)
        raise errors.StorageError(f"{self.path} does not come to rest; delete it when no process uses the directory")


def lowered(found: dict[int, int], noted: list[Together], epoch: Callable[[int], int]) -> dict[int, int]:
    """States of which no noted transaction shows some parts and not others.

    A later epoch of a prefix has recovered all there was. What it does not show was taken away (an older copy was put in
    place), and waiting for it would be for ever.
    """
    moved = True
    while moved:  # lowering one prefix may cut another transaction in half
        moved = False
        for said in noted:
            parts = [part for part in said.parts if part.uuid in found]
            if any(found[part.uuid] < part.state and epoch(part.uuid) <= part.epoch for part in parts):
                for part in parts:
                    if found[part.uuid] >= part.state:
                        found[part.uuid] = part.state - 1
                        moved = True
    return found


def _encode(version: int, noted: list[Together]) -> bytes:
    body = _HEAD.pack(version, len(noted)) + b"".join(said.encode() for said in noted)
    return _U64.pack(fmt.xxh3(body)) + _U64.pack(len(body)) + body


def _decode(raw: bytes) -> tuple[int, list[Together]]:
    if not raw.strip(b"\0"):
        return 0, []
    if len(raw) < 16 + 16:
        return -1, []
    checksum, length = _U64.unpack_from(raw)[0], _U64.unpack_from(raw, 8)[0]
    body = raw[16 : 16 + length]
    if len(body) != length or checksum != fmt.xxh3(body):
        return -1, []
    version, count = _HEAD.unpack_from(body)
    noted, rest = [], memoryview(body)[_HEAD.size :]
    try:
        for _ in range(count):
            said, rest = Together.decode(rest)
            noted.append(said)
    except rec.Damage:
        return -1, []
    return version, noted
