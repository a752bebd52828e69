"""Making a prefix's page file: where it may be, and how it comes into being complete or not at all."""

from __future__ import annotations

import contextlib
import os
import time
import warnings

from .. import errors
from . import format as fmt
from . import log, names
from .filelease import FileLease
from .store import Identity
from .syscalls import NETWORK_FILE_SYSTEMS, System, storage_error, write_all


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def random64() -> int:
    """A random number from 1 to 2**63."""
    return (int.from_bytes(os.urandom(8), "little") >> 1) + 1


def check_file_system(system: System, root: str, prefix: str) -> None:
    """UnsupportedFileSystemError when `root` is where no writer may be."""
    try:
        magic = system.file_system(root)
    except OSError as exc:
        raise storage_error(exc, prefix, root, "inspect the file system of") from exc
    if magic in NETWORK_FILE_SYSTEMS:
        raise errors.UnsupportedFileSystemError(
            f"prefix {prefix!r}: {root} is on a network file system ({NETWORK_FILE_SYSTEMS[magic]}), whose locks and syncs cannot keep dbzero's "
            "promises; use a local directory, or open read-only"
        )


def create(system: System, root: str, prefix: str, base: str, lease: FileLease, prefix_uuid: int | None) -> None:
    """Put a complete page file in place under its name, or find that another process just did.

    Args:
        prefix_uuid: 64 bits, None: random ones.
    Raises:
        OSError, StorageError: nothing stands under the page file's name.
    """
    directory, path = os.path.dirname(base), names.page_path(base)
    _make_directories(system, root, directory)
    with lease.creation_lock():
        if system.exists(path):
            return
        leftover = log.inventory_numbers(system, base)
        identity = Identity(
            random64(), prefix_uuid if prefix_uuid is not None else random64(), fmt.PAGE, fmt.FORMAT_VERSION
        )
        meta = fmt.first_meta(now_us())
        temporary = base + ".db0.new"
        fd = system.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            slot = fmt.encode_meta(meta, identity.file_id)
            write_all(system, fd, [fmt.encode_header(identity, now_us()), slot, slot], 0)
            system.fsync(fd)
        finally:
            system.close(fd)
        for number in leftover:  # a deleted page file's log: its file id differs, but out of the way is clearer
            set_aside(system, prefix, names.redo_path(base, number))
        with contextlib.suppress(FileExistsError):
            system.link(temporary, path)
        system.unlink(temporary)
        system.sync_dir(directory)


def _make_directories(system: System, root: str, directory: str) -> None:
    missing = []
    while len(directory) > len(root) and not system.is_dir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):
            system.mkdir(path)
        system.sync_dir(os.path.dirname(path))


def set_aside(system: System, prefix: str, path: str) -> None:
    """Rename a log file that belongs to another page file, and warn."""
    target = log.set_aside(system, prefix, path)
    warnings.warn(
        f"prefix {prefix!r}: log file {path} belongs to another page file; it was not replayed and is now {target}",
        RuntimeWarning,
        stacklevel=2,
    )
