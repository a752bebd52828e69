"""Commits of several prefixes as one: what their frames say, and how it is found out whether one was made.

The *coordinator* is the first of the prefixes. Every other one appends a PREPARE frame and syncs it; then the coordinator
appends and syncs a DECISION frame, which holds its own part of the commit. That is the moment of the commit: a PREPARE
frame counts if the DECISION frame of the same transaction does, and an absent one means no (presumed abort).

A PREPARE frame that anything stands behind, or that a frame or mark knows to be durable, needs no asking: its writer went
on. Only one at the end of a log may be *in doubt*. The coordinator keeps its decisions in an object (OID 15) until
every participant is known to be out of doubt, so that they are found also when its log is gone.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Callable, Iterator
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from .. import errors
from . import discovery, names, table
from . import format as fmt
from . import records as rec
from .filestore import LocalFileStore
from .store import Frame, Meta
from .syscalls import storage_error

DECISIONS_OID: Final = 15
PREPARED: Final = 1
DECIDED: Final = 2
ABORTED: Final = 3  # a note of the coordinator's, without a commit: the transaction will not be decided for any more

_HEAD: Final = struct.Struct("<IHH16s")
_PART: Final = struct.Struct("<QQQH")
_READ_ATTEMPTS: Final = 20
_SHARED_PATIENCE: Final = 30.0  # the same, for one whose next shared writer recovers it
_PATIENCE: Final = 0.5  # seconds to wait for a coordinator that is in the middle of deciding, or of being recovered


class Part(Struct, frozen=True):
    """One prefix of a transaction: the state that the transaction makes of it, at its writer's epoch."""

    name: str
    uuid: int
    state: int
    epoch: int


class Together(Struct, frozen=True):
    """What the frames of a transaction say beside the commit: its id, and its parts, the coordinator first."""

    role: int
    number: bytes  # 16 random bytes
    parts: tuple[Part, ...]

    def encode(self) -> bytes:
        """The bytes in front of a frame's commit body."""
        parts = bytearray()
        for part in self.parts:
            name = part.name.encode("utf-8", "surrogateescape")
            parts += _PART.pack(part.uuid, part.state, part.epoch, len(name)) + name
        length = fmt.align8(_HEAD.size + len(parts))
        return (_HEAD.pack(length, self.role, len(self.parts), self.number) + parts).ljust(length, b"\0")

    @classmethod
    def decode(cls, body: bytes | memoryview) -> tuple[Together, memoryview]:
        """What stands in front of the commit body, and that. Raises rec.Damage."""
        view = memoryview(body)
        if len(view) < _HEAD.size:
            raise rec.Damage("the frame of a transaction across prefixes is too short")
        length, role, count, number = _HEAD.unpack_from(view)
        if length % 8 or not _HEAD.size <= length <= len(view) or role not in (PREPARED, DECIDED, ABORTED):
            raise rec.Damage("the frame of a transaction across prefixes is malformed")
        parts, at = [], _HEAD.size
        for _ in range(count):
            if at + _PART.size > length:
                raise rec.Damage("the parts of a transaction across prefixes are cut short")
            uuid, state, epoch, size = _PART.unpack_from(view, at)
            at += _PART.size
            if at + size > length:
                raise rec.Damage("the parts of a transaction across prefixes are cut short")
            name = bytes(view[at : at + size]).decode("utf-8", "surrogateescape")
            parts.append(Part(name, uuid, state, epoch))
            at += size
        if not parts:
            raise rec.Damage("a transaction across prefixes has no parts")
        return cls(role, number, tuple(parts)), view[length:]


Decide = Callable[[LocalFileStore, Together], bool]
Hold = Callable[[LocalFileStore], contextlib.AbstractContextManager["bool | None"]]
"""Given a coordinator that is open shared: while this process has the turn there, so that no other decides. Gives False: it was not to
be had in a second; None: the prefix is not shared in our segment."""


def _nobody(coordinator: LocalFileStore) -> contextlib.AbstractContextManager[bool | None]:
    return contextlib.nullcontext(None)


def commits(store: LocalFileStore, meta: Meta, decide: Decide, last: list[Together] | None = None) -> Iterator[Frame]:
    """The commits behind a checkpoint, whatever frames they stand in, each with nothing but the commit's body.

    Args:
        decide: asked about a transaction that is in doubt, at the end of the log: whether it was made.
        last: holds the transaction across prefixes that the commit given out last was part of, if it was of one.
    Raises:
        CorruptError and others of :meth:`LocalFileStore.read_log`. What `decide` raises.
    """
    doubtful: tuple[Frame, Together] | None = None
    last = [] if last is None else last
    for frame in store.read_log(meta):
        if doubtful is not None:
            last[:] = [doubtful[1]]
            yield doubtful[0]
            doubtful = None
        if frame.kind == fmt.COMMIT:
            last.clear()
            yield frame
            continue
        try:
            said, body = Together.decode(frame.body)
        except rec.Damage as exc:
            raise errors.CorruptError(
                f"prefix {store.prefix!r}: log file {frame.redo}, state {frame.state}: {exc}; restore the files from a copy"
            ) from None
        if said.role == ABORTED:
            continue
        plain = replace(frame, body=bytes(body))
        if said.role == PREPARED:
            doubtful = plain, said
        else:
            last[:] = [said]
            yield plain
    if doubtful is not None:
        durable = store.tail.durable if store.tail is not None else 0
        if durable >= doubtful[0].state or decide(store, doubtful[1]):
            last[:] = [doubtful[1]]
            yield doubtful[0]


def in_doubt(store: LocalFileStore) -> Together | None:
    """The transaction that is in doubt at the end of a prefix's log, if one is. Nobody may be writing the prefix."""
    asked: list[Together] = []

    def ask(_: LocalFileStore, said: Together) -> bool:
        asked.append(said)
        return False

    for _ in commits(store, store.read_meta(), ask):
        pass
    return asked[0] if asked else None


# --- what the coordinator keeps ------------------------------------------------------------------------------------------------------------------


def encode_decisions(made: list[Together]) -> bytes:
    """Payload of the coordinator's object."""
    return b"".join(decision.encode() for decision in made)


def decode_decisions(payload: bytes | memoryview) -> list[Together]:
    """What :func:`encode_decisions` was given. Raises rec.Damage."""
    made, rest = [], memoryview(payload)
    while len(rest):
        decision, rest = Together.decode(rest)
        made.append(decision)
    return made


def _kept(store: LocalFileStore, meta: Meta) -> list[Together]:
    """The decisions kept as of a checkpoint. Raises rec.Damage."""
    tree = table.Table(_Pages(store), store.identity.prefix_uuid, 0, meta.root, meta.depth)
    entry = tree.get(DECISIONS_OID)
    return [] if entry is None else decode_decisions(_payload(store, entry.address))


class _Pages:
    """A page file as a table reads it."""

    def __init__(self, store: LocalFileStore) -> None:
        self._store = store

    def read(self, address: int, length: int) -> bytes:
        return self._store.read_page(address, length)

    def write(self, address: int, data: bytes) -> None:
        raise AssertionError("a table that is only read is not written")

    def allocate(self) -> int:
        raise AssertionError("a table that is only read does not grow")


def _payload(store: LocalFileStore, address: int) -> bytes:
    """Whole payload of the record at an address. Raises rec.Damage."""
    deltas: list[rec.Record] = []
    while True:
        size = rec.record_size(store.read_page(address, 16))
        record = rec.decode_record(store.read_page(address, size), address, store.identity.prefix_uuid)
        if not record.flags & rec.DELTA:
            break
        deltas.append(record)
        address = record.prev
        if len(deltas) > rec.DELTAS_IN_A_ROW:
            raise rec.Damage(f"record at {address}: too many changes in a row")
    payload = record.body
    for delta in reversed(deltas):
        if delta.head + delta.tail > len(payload):
            raise rec.Damage(f"record at {delta.address} changes more than there is")
        payload = payload[: delta.head] + delta.body + payload[len(payload) - delta.tail :]
    return payload


# --- the outcome of a transaction ------------------------------------------------------------------------------------------------------------------


class _Seen(Struct, frozen=True):
    """What the coordinator's files say: decided (in which log file, 0: kept), aborted, or nothing; and their newest epoch."""

    decided: bool
    aborted: bool
    redo: int
    epoch: int
    open_end: (
        bool  # a log file behind that one has been created and not begun: its maker may not have seen the decision
    )

    @property
    def certain(self) -> bool:
        return self.decided and not self.open_end

    def undecidable(self, epoch: int) -> bool:
        """Whether no writer of `epoch` can decide any more."""
        return not self.decided and (self.aborted or self.epoch > epoch)


def look(store: LocalFileStore, said: Together) -> bool:
    """Whether the coordinator's files have the decision for a transaction that is in doubt in `store`. For who only
    reads: what is not decided now may yet be.
    """
    try:
        coordinator = _open(store, said, writable=False)
    except errors.StorageError:
        return False
    except errors.PrefixError:
        return False
    try:
        return _see(coordinator, said).decided
    finally:
        coordinator.close()


def settle(store: LocalFileStore, said: Together, hold: Hold = _nobody) -> bool:
    """Whether a transaction that is in doubt in `store` was made, once and for all: for who has the lease of `store`.

    Args:
        hold: for a coordinator that several processes write.
    Raises:
        InDoubtError: the coordinator's files are missing, or its writer lives and may yet decide.
    """
    epoch, begun, patience = said.parts[0].epoch, time.monotonic(), _PATIENCE
    coordinator = _open(store, said, writable=True)
    try:
        while True:
            seen = _see(coordinator, said)
            if seen.certain:
                _harden(coordinator, seen.redo)
                return True
            if seen.undecidable(epoch):
                return False
            try:
                coordinator.acquire()  # nobody can decide while we have it, and whoever could is dead
                break
            except errors.FileReplacedError:
                coordinator.close()
                coordinator = _open(store, said, writable=True)
            except errors.LeaseError as exc:
                with hold(coordinator) as ours:
                    if ours:
                        return _decided(coordinator, said)
                if ours is False:
                    patience = _SHARED_PATIENCE
                if time.monotonic() > begun + patience:
                    raise errors.InDoubtError(
                        f"prefix {store.prefix!r}: its last commit belongs together with one of prefix {said.parts[0].name!r}, whose "
                        f"writer may yet make or drop it ({exc}). End or continue that process, or take that prefix over first"
                    ) from exc
                store.system.sleep(0.01)
        return _decided(coordinator, said)
    finally:
        coordinator.close()


def _decided(coordinator: LocalFileStore, said: Together) -> bool:
    """While nobody can decide."""
    seen = _see(coordinator, said)
    if seen.decided:
        _harden(coordinator, seen.redo)
    return seen.decided


def _open(store: LocalFileStore, said: Together, *, writable: bool) -> LocalFileStore:
    """The coordinator's files, under the name it had or the one it has by now."""
    first = said.parts[0]
    name: str | None = first.name
    for _ in range(2):
        if name is None:
            break
        try:
            found = type(store).open(store.root, name, writable=writable, create=False, system=store.system)
        except errors.PrefixError:
            pass
        else:
            if found.identity.prefix_uuid == first.uuid:
                return found
            found.close()
        name = discovery.name_of(store.root, first.uuid, store.system)  # it may have been renamed
    raise errors.InDoubtError(
        f"prefix {store.prefix!r}: its last commit (state {_state(store, said)}) belongs together with one of prefix {first.name!r}, which is not "
        f"below {store.root}: whether it was made stands there. Put {names.page_path(names.base_path(store.root, first.name))} and its "
        "log files back; or restore a copy of both prefixes"
    )


def _state(store: LocalFileStore, said: Together) -> int:
    return next((part.state for part in said.parts if part.uuid == store.identity.prefix_uuid), 0)


def _see(coordinator: LocalFileStore, said: Together) -> _Seen:
    for attempt in range(_READ_ATTEMPTS):
        meta = coordinator.read_meta()
        try:
            return _see_once(coordinator, said, meta)
        except errors.CheckpointMovedError:
            continue
        except rec.Damage as exc:
            if attempt == _READ_ATTEMPTS - 1 or coordinator.read_meta().checkpoint == meta.checkpoint:
                raise errors.CorruptError(
                    f"prefix {coordinator.prefix!r}: {coordinator.path} is damaged where its decisions stand: {exc}; restore it from a copy"
                ) from None
    raise errors.StorageError(
        f"prefix {coordinator.prefix!r}: it got new checkpoints faster than it could be read; try again"
    )


def _see_once(coordinator: LocalFileStore, said: Together, meta: Meta) -> _Seen:
    epoch = max(meta.epoch, coordinator.begun_epoch())  # first: what an epoch that has begun did not see is void
    decided, aborted, redo = False, False, 0
    for frame in coordinator.read_log(meta):
        if frame.kind == fmt.DECISION:
            other, _ = Together.decode(frame.body)
            if other.number == said.number:
                decided, aborted, redo = other.role == DECIDED, other.role == ABORTED, frame.redo
    if not decided:
        decided = any(kept.number == said.number for kept in _kept(coordinator, meta))
    return _Seen(decided, aborted, redo, epoch, bool(redo) and coordinator.open_end())


def _harden(coordinator: LocalFileStore, redo: int) -> None:
    """Make the log file with the decision durable before anybody relies on it: its writer may not have come to that."""
    if not redo:
        return
    path, system = names.redo_path(coordinator.base, redo), coordinator.system
    try:
        fd = system.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return  # a checkpoint has it
    except OSError as exc:
        raise storage_error(exc, coordinator.prefix, path, "open") from exc
    try:
        system.fdatasync(fd)
    except OSError as exc:
        raise storage_error(exc, coordinator.prefix, path, "sync") from exc
    finally:
        system.close(fd)
