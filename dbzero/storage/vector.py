"""Consistent vectors of states: what belongs together is shown together.

A transaction across prefixes becomes visible prefix by prefix, each through its own slot. For as long as it is visible in
some and not in others, it stands in the root's *window file*; who takes several prefixes' states at once looks there and,
where it finds one half shown, takes the states before it. The file has two slots of 32 KiB, of which the valid one with
the higher version counts:

    0   8  xxh3_64 of bytes 16..    8   8  their number    16  8  version    24  4  transactions    32  them (:meth:`Together.encode`)

Writers change the other slot, under a byte lock: one that is torn by a crash leaves what was before. Readers take no
lock: they read the file before and after they look at the states, and repeat when the version moved. An entry goes when
its states are all shown; one of a writer that died stays until others take its room, and is harmless by then or right.
The file says nothing that recovery needs, so it is not synced.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Mapping
from typing import Final

from dbzero.runtime import osthreads

from .. import errors
from . import format as fmt
from . import records as rec
from .decisions import Together
from .syscalls import SYSTEM, System, read_exact, storage_error, write_all

NAME: Final = ".dbzero.together"
_HEAD: Final = struct.Struct("<QI4x")
_U64: Final = struct.Struct("<Q")
_SLOT: Final = 1 << 15
_ROOM: Final = 2 * _SLOT
_KEPT: Final = 64  # transactions of writers that died
_TRIES: Final = 10_000
_PATIENCE: Final = 10.0  # seconds to wait for another writer's turn at the file
_in_process: Final = osthreads.Lock()  # the byte lock tells processes apart, not threads


class Window:
    """The window file of a root directory."""

    def __init__(self, root: str, system: System = SYSTEM) -> None:
        self.path: Final = os.path.join(root, NAME)
        self._system: Final = system

    def _fail(self, exc: OSError, action: str) -> errors.StorageError:
        return storage_error(exc, "", self.path, action)

    def read(self) -> tuple[int, list[Together]]:
        """(version, transactions); (0, []) when there is nothing."""
        try:
            fd = self._system.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return 0, []
        except OSError as exc:
            raise self._fail(exc, "open") from exc
        try:
            return self._newest(fd)[1:]
        except OSError as exc:
            raise self._fail(exc, "read") from exc
        finally:
            self._system.close(fd)

    def _newest(self, fd: int) -> tuple[int, int, list[Together]]:
        """(number of the slot that counts, version, transactions)."""
        found = []
        for slot in range(2):
            raw = read_exact(self._system, fd, 512, slot * _SLOT)
            if len(raw) >= 16 and 16 + _U64.unpack_from(raw, 8)[0] > len(raw):
                raw = read_exact(self._system, fd, _SLOT, slot * _SLOT)
            found.append((slot, *_decode(raw)))
        return max(found, key=lambda one: one[1])

    def prepare(self, said: Together) -> None:
        """Make the file, with room for what will be noted: a decided transaction must not fail for want of a page."""
        if len(said.encode()) > _SLOT - _HEAD.size - 16:
            raise errors.StorageError(
                f"{len(said.parts)} prefixes are too many for one transaction; commit fewer at once"
            )
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

    def recovered(self, uuid: int, state: int) -> None:
        """A prefix's new writer has recovered all there was, and shows `state`. A noted part of it beyond that was taken
        away (an older copy was put in place): nobody is to wait for it.
        """

        def gone(said: Together) -> bool:
            return any(part.uuid == uuid and part.state > state for part in said.parts)

        if any(gone(said) for said in self.read()[1]):
            self._change(lambda noted: [said for said in noted if not gone(said)])

    def _change(self, change: Callable[[list[Together]], list[Together]]) -> None:
        with _in_process:
            try:
                fd = self._system.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
                try:
                    self._lock(fd)
                    slot, version, noted = self._newest(fd)
                    encoded = _encode(version + 1, change(noted))
                    write_all(self._system, fd, [encoded], (1 - slot) * _SLOT)
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

    def consistent(self, states: Callable[[], Mapping[int, int]]) -> dict[int, int]:
        """Newest states of several prefixes, no transaction half of them.

        Args:
            states: gives prefix uuid -> newest durable state, anew with every call.
        """
        for attempt in range(_TRIES):
            version, noted = self.read()
            found = dict(states())
            if self.read()[0] == version:
                return lowered(found, noted) if noted else found
            if attempt > 10:
                self._system.sleep(0.0002)
        raise errors.StorageError(f"{self.path} does not come to rest: other processes commit too fast; try again")


def lowered(found: dict[int, int], noted: list[Together]) -> dict[int, int]:
    """States of which no noted transaction shows some parts and not others."""
    moved = True
    while moved:  # lowering one prefix may cut another transaction in half
        moved = False
        for said in noted:
            parts = [part for part in said.parts if part.uuid in found]
            if any(found[part.uuid] < part.state for part in parts):
                for part in parts:
                    if found[part.uuid] >= part.state:
                        found[part.uuid] = part.state - 1
                        moved = True
    return found


def _encode(version: int, noted: list[Together]) -> bytes:
    parts = [said.encode() for said in noted]
    while sum(map(len, parts)) > _SLOT - _HEAD.size - 16:
        del parts[0]
    body = _HEAD.pack(version, len(parts)) + b"".join(parts)
    return _U64.pack(fmt.xxh3(body)) + _U64.pack(len(body)) + body


def _decode(raw: bytes) -> tuple[int, list[Together]]:
    if len(raw) < 16 + _HEAD.size:
        return 0, []
    checksum, length = _U64.unpack_from(raw)[0], _U64.unpack_from(raw, 8)[0]
    body = raw[16 : 16 + length]
    if len(body) != length or checksum != fmt.xxh3(body):
        return 0, []
    version, count = _HEAD.unpack_from(body)
    noted, rest = [], memoryview(body)[_HEAD.size :]
    try:
        for _ in range(count):
            said, rest = Together.decode(rest)
            noted.append(said)
    except rec.Damage:
        return 0, []
    return version, noted
