"""Prefixes as a whole: dropping, copying, and bounding their history."""

from __future__ import annotations

import datetime
import os
import time

from dbzero.errors import LeaseError, PrefixError, ReadOnlyError
from dbzero.session.config import check_states
from dbzero.session.turns import turn
from dbzero.session.workspace import OpenPrefix, Workspace, active, refuse_in_block
from dbzero.storage import copying, dropping, history
from dbzero.storage.history import Compacted
from dbzero.storage.names import base_path, normalize, page_path
from dbzero.storage.newfile import Progress
from dbzero.storage.sharing import prefix_is_shared


def drop(prefix_name: str, /) -> None:
    """Delete a prefix with all its history. One that is open here is closed first; what was not committed is given up.

    A prefix that does not exist is no error. Objects of the prefix that are in use become inaccessible. Other processes
    that have it open read-only go on reading what they have open.

    Args:
        prefix_name: its name.

    Raises:
        LeaseError: another process has it open read-write; nothing is deleted. StorageError: the files cannot be
        deleted.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="scratch")
    >>> db0.drop("scratch")
    >>> list(db0.get_prefixes())
    []
    >>> db0.close()
    """
    workspace = active()
    workspace.check_fork()
    name = normalize(prefix_name)
    with workspace.lock:
        workspace.close(name, commit=False)
        dropping.settle_others(workspace.segment, workspace.root, name)
        dropping.drop(workspace.segment, workspace.root, name)


def copy_prefix(
    output: str | os.PathLike[str],
    prefix: str | None = None,
    page_io_step_size: int | None = None,
    *,
    verify: bool = True,
) -> None:
    """Copy the last committed state of a prefix, with its history, into one self-contained file.

    Readers and writers of the prefix, here and in other processes, go on meanwhile. Put in place of a prefix's file
    (`<name>.db0`) while that is closed, the copy is that prefix again. An interrupted copy leaves `<output>.partial`;
    the next call with the same output goes on from there.

    Args:
        output: path of the copy; must not exist. Missing directories are made.
        prefix: name of the prefix, open or not; None is the current one.
        page_io_step_size: bytes copied at a time, at least 4096; None: 1 MiB.
        verify: check every record of the copy before it gets its name.

    Raises:
        FileExistsError: `output` exists. PrefixError: there is no such prefix. CorruptError: the prefix, or the copy
        as it was read back, is damaged. DiskFullError, StorageError: the copy cannot be written.

    >>> import dbzero as db0, os, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> numbers = db0.list([1, 2])
    >>> db0.commit()
    >>> backup = os.path.join(tempfile.mkdtemp(), "p.db0")
    >>> db0.copy_prefix(backup)
    >>> os.path.exists(backup)
    True
    >>> db0.close()
    """
    workspace = active()
    name = _name(workspace, prefix)
    if page_io_step_size is None:
        step = copying.STEP
    elif isinstance(page_io_step_size, bool) or not isinstance(page_io_step_size, int):
        raise TypeError(f"page_io_step_size must be an int, not {type(page_io_step_size).__name__}")
    elif page_io_step_size < 4096:
        raise ValueError("page_io_step_size must be at least 4096 bytes")
    else:
        step = page_io_step_size
    copying.copy(workspace.root, name, os.fspath(output), step=step, check=verify)


def compact(
    prefix: str | None = None,
    *,
    keep_states: int | None = None,
    keep_since: datetime.datetime | float | None = None,
) -> Compacted:
    """Drop the old history of a prefix and give its space back to the file system.

    Every state that is kept looks as before. Reads and commits go on meanwhile, here and in other processes; commits wait
    for a moment at the end. Of the processes that have a prefix open shared any can do it, one at a time. A state that a
    snapshot or a view has pinned is kept, and so is all that is newer. A crash at any moment leaves the old file or the
    new one, each with everything that was committed.

    Args:
        prefix: its name; None is the current one. One that is not open is opened for the time being.
        keep_states: keep the newest so many states.
        keep_since: keep what was current at that time (a datetime, or seconds ago) and later. With both bounds a state
            stays that either of them keeps; with none, all states stay and only unused space goes.

    Returns:
        (oldest_state, before, after): the oldest state that is kept, and the file's size in bytes before and after.

    Raises:
        LeaseError: another process writes the prefix alone, and can call this; or is compacting it. ReadOnlyError: it is
        open read-only here. AtomicError: within an atomic block, when the prefix is open shared.
        DiskFullError: there is no room for the new file beside the old one; nothing has changed. CorruptError,
        StorageError.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p", autocommit=False)
    >>> numbers = db0.list()
    >>> for n in range(10):
    ...     numbers.append(n)
    ...     db0.commit()
    >>> db0.compact(keep_states=3).oldest_state
    9
    >>> db0.close()
    """
    return compact_prefix(active(), prefix, keep_states, keep_since)


def compact_prefix(
    workspace: Workspace,
    prefix: str | None,
    keep_states: int | None,
    keep_since: datetime.datetime | float | None,
    progress: Progress | None = None,
) -> Compacted:
    """:func:`compact` in a workspace. progress: called with (OIDs done, OIDs in all)."""
    if keep_states is not None:
        check_states(keep_states)
    since = _moment(keep_since)
    workspace.check_fork()
    name = _name(workspace, prefix)
    opened, borrowed = workspace.open_prefixes.get(name), False
    if opened is None:
        if not os.path.exists(page_path(base_path(workspace.root, name))):
            raise PrefixError(f"prefix {name!r} does not exist below {workspace.root}")
        try:
            opened = _open_to_compact(workspace, name)
        except LeaseError as error:
            raise LeaseError(
                f"{error}. Or call compact() there: the process that writes a prefix compacts it"
            ) from None
        borrowed = True
    try:
        if opened.shared:
            refuse_in_block("compact")
            with turn.hold():  # AtomicError: another task of this thread is in a block, and could not end it meanwhile
                pass
        elif not opened.writable:
            raise ReadOnlyError(f"prefix {name!r} is open read-only here: its writer can compact it")
        kept = opened.prefix
        return history.compact(kept, lambda: history.oldest_to_keep(kept, keep_states, since), progress)
    finally:
        if borrowed:
            workspace.close(name)


def _open_to_compact(workspace: Workspace, name: str) -> OpenPrefix:
    """Alone, or together with those who write it shared."""
    try:
        return workspace.open(name, writable=True, autocommit=False, make_current=False)
    except LeaseError:
        if not prefix_is_shared(workspace.segment, workspace.root, name):
            raise
    return workspace.open(name, writable=True, autocommit=False, make_current=False, shared=True)


def _name(workspace: Workspace, prefix: str | None) -> str:
    if prefix is not None:
        return normalize(prefix)
    if not workspace.recent:
        raise PrefixError("no prefix is open; open one with db0.open(), or name one")
    return workspace.recent[-1]


def _moment(since: datetime.datetime | float | None) -> float | None:
    if since is None:
        return None
    if isinstance(since, datetime.datetime):
        return since.timestamp()
    if isinstance(since, bool) or not isinstance(since, (int, float)):
        raise TypeError(f"keep_since must be a datetime or a number of seconds, not {type(since).__name__}")
    if since < 0:
        raise ValueError("keep_since must not be negative: it counts seconds back from now")
    return time.time() - since


__all__ = ["compact", "copy_prefix", "drop"]
