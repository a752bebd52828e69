"""The layout file of a family: how many shards are in force, and whether instances are being moved.

It is ``<root>/<base>/<family>/shards.json``, one line of JSON with its checksum, written beside and renamed in place, so
that it is there as a whole or not at all. The first writer makes it, with the number of its class; whoever loses that race
takes the winner's. After that only ``reshard`` writes it, and only while it holds the write leases of all shards: so
whoever holds one may go by what it read since.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading

from msgspec import Struct
from msgspec.structs import asdict
from xxhash import xxh64_hexdigest

from dbzero.errors import CorruptError, Error, FormatVersionError, StorageError
from dbzero.model.sharded import Family
from dbzero.storage.syscalls import SYSTEM

FILE = "shards.json"
FORMAT = 1


class Layout(Struct, frozen=True):
    """What a layout file says."""

    key: str  # of the class that founded the family
    shards: int  # new instances are placed among so many
    moving: bool  # there may be instances elsewhere: a reshard has begun and not ended


def read(directory: str, family: Family) -> Layout | None:
    """The layout in a directory; None when there is none.

    Raises CorruptError: the file is damaged. FormatVersionError: a newer dbzero wrote it. Error: it is another class's.
    """
    path = os.path.join(directory, FILE)
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"the layout file {path} cannot be read: {error}") from error
    found = _parse(path, text)
    if found.key != family.key:
        raise Error(
            f"the shards in {directory} belong to the class {found.key!r}, not to {family.key!r}: give one of the two "
            f"classes an `id`, or another prefix"
        )
    return found


def _parse(path: str, text: str) -> Layout:
    try:
        data = json.loads(text)
        checksum = data.pop("xxh64")
        version = data.pop("format")
        if checksum == _checksum(version, data) and version == FORMAT:
            found = Layout(**data)
            if type(found.shards) is int and found.shards > 0 and type(found.moving) is bool:
                return found
    except (AttributeError, KeyError, TypeError, ValueError):
        version = None
    if type(version) is int and version > FORMAT:
        raise FormatVersionError(f"the layout file {path} has format {version}, this dbzero knows {FORMAT}")
    raise CorruptError(
        f"the layout file {path} is damaged; put it back from a copy, or remove it and call db0.reshard() with the "
        f"number of shards that there should be"
    )


def _checksum(version: int, data: object) -> str:
    return xxh64_hexdigest(json.dumps([version, data], sort_keys=True).encode())


def create(directory: str, layout: Layout) -> None:
    """Make the layout file, unless there is one."""
    os.makedirs(directory, exist_ok=True)
    _write(directory, layout, exclusive=True)


def replace(directory: str, layout: Layout) -> None:
    """Put another layout in force. The caller holds the leases of all shards."""
    _write(directory, layout, exclusive=False)


def _write(directory: str, layout: Layout, exclusive: bool) -> None:
    data = asdict(layout)
    line = json.dumps({"format": FORMAT, **data, "xxh64": _checksum(FORMAT, data)}) + "\n"
    path = os.path.join(directory, FILE)
    beside = f"{path}.{os.getpid()}.{threading.get_ident()}"
    try:
        fd = SYSTEM.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            SYSTEM.pwritev(fd, [line.encode()], 0)
            SYSTEM.fsync(fd)
        finally:
            SYSTEM.close(fd)
        if exclusive:
            with contextlib.suppress(FileExistsError):
                SYSTEM.link(beside, path)
            SYSTEM.unlink(beside)
        else:
            SYSTEM.rename(beside, path)
        SYSTEM.sync_dir(directory)
    except OSError as error:
        raise StorageError(f"the layout file {path} cannot be written: {error.strerror}") from error
