"""Taking a prefix's files away."""

from __future__ import annotations

import os
from typing import Final

from dbzero import errors
from dbzero.runtime.lease import SlotLease
from dbzero.runtime.pins import oldest_pin
from dbzero.runtime.segment import Segment
from dbzero.runtime.slot import PrefixSlot
from dbzero.storage import decisions, discovery, names, newfile
from dbzero.storage import format as fmt
from dbzero.storage.filelease import FileLease
from dbzero.storage.filestore import LocalFileStore
from dbzero.storage.prefix import Prefix
from dbzero.storage.syscalls import SYSTEM, System, read_exact, storage_error

_PATIENCE: Final = 10.0  # seconds to wait for who is recovering a prefix that we want to recover


def drop(segment: Segment, root: str, name: str, system: System = SYSTEM) -> bool:
    """Delete a prefix that no process has open for writing; the lock file stays. False when there is none.

    The page file goes first: with its name gone the prefix is gone, and log files that a crash leaves behind are set
    aside when a prefix of that name is made anew. Readers that have the file open can still read it.

    Raises:
        LeaseError: a process is writing it. StorageError: the files cannot be deleted.
    """
    name = names.normalize(name)
    base = names.base_path(root, name)
    path = names.page_path(base)
    if not system.exists(path):
        return False
    lease = FileLease(system, name, base)
    try:
        lease.acquire(blocking=False, timeout=None, fence=None)
        with lease.creation_lock():
            file_id = _file_id(system, path)
            try:
                newfile.remove(system, path)
                system.sync_dir(os.path.dirname(base))
                for number in names.redo_numbers(system, base):
                    newfile.remove(system, names.redo_path(base, number))
                for unfinished in names.compact_paths(system, base):
                    newfile.remove(system, unfinished)
                system.sync_dir(os.path.dirname(base))
            except OSError as exc:
                raise storage_error(exc, name, path, "delete") from exc
        _leave_slot(segment, name, file_id)
    finally:
        lease.close()
    return True


def settle_others(segment: Segment, root: str, name: str) -> None:
    """Before a prefix is dropped: let every prefix that is in doubt about a transaction of its find out.

    Raises:
        StorageError: one cannot. It would not find out later either.
    """
    name = names.normalize(name)
    uuid = next((uuid for found, uuid in discovery.prefixes(root) if found == name), None)
    if uuid is None:
        return
    for other in names.discover(root):
        if other == name or not names.redo_numbers(SYSTEM, names.base_path(root, other)):
            continue
        try:
            store = LocalFileStore.open(root, other, writable=False)
        except errors.Error:
            continue  # damaged: nothing depends on it being found out
        try:
            said = None if store.leased() else decisions.in_doubt(store)
        except errors.StorageError:
            said = None  # damaged, or somebody is recovering it just now
        finally:
            store.close()
        if said is not None and said.parts[0].uuid == uuid:
            Prefix.open(segment, root, other, writable=True, blocking=True, timeout=_PATIENCE).close()


def _file_id(system: System, path: str) -> int:
    """File id of the page file, 0 when that cannot be read."""
    try:
        fd = system.open(path, os.O_RDONLY)
        try:
            return fmt.decode_header(read_exact(system, fd, fmt.PAGE, 0), path).file_id
        finally:
            system.close(fd)
    except (OSError, errors.StorageError):
        return 0


def _leave_slot(segment: Segment, name: str, file_id: int) -> None:
    """Give the prefix's slot back, unless somebody reads from it."""
    if not file_id:
        return
    slot = PrefixSlot.find(segment, name, file_id)
    if oldest_pin(slot) is None:
        with segment.root_lock():
            slot.retire(SlotLease(slot).epoch + 1)
