"""The workspace's public functions: init, open, close, commit, refresh, wait, state numbers, discovery."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from dbzero.errors import Error, PrefixError
from dbzero.session.config import LockFlags, make_config, make_retention, merge_settings, resolve_root
from dbzero.session.refresh import refresh_view
from dbzero.session.restricted import restrict
from dbzero.session.workspace import Workspace, activate, active, active_or_none
from dbzero.storage.discovery import prefixes as discover

_IGNORED_OPEN_OPTIONS = frozenset({"slab_size", "meta_io_step_size", "page_io_step_size"})


class PrefixMetaData(NamedTuple):
    """Name and identity of a prefix.

    name: as given to `open`, without a leading slash; uuid: random 64-bit unsigned int, fixed at creation.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> db0.get_current_prefix().name
    'p'
    >>> db0.close()
    """

    name: str
    uuid: int


def init(
    dbzero_root: str | os.PathLike[str] | None = None,
    *,
    storage_dir: str | os.PathLike[str] | None = None,
    config: Mapping[str, Any] | None = None,
    prefix: str | None = None,
    read_write: bool = True,
    **settings: Any,
) -> None:
    """Start using the store in a directory.

    Args:
        dbzero_root: directory that holds everything; created when missing. `storage_dir` is another name for it.
        config: settings as a dict; keyword settings win over it.
        prefix: a prefix to open at once and make current; `read_write` tells how.
        settings: `autocommit` (bool), `autocommit_interval` (ms), `cache_size` (bytes), `lang_cache_size` (instances), `lock_flags` (dict),
            `no_auto_migrate`, `restricted`, `restricted_context`, `shared`, `retention` (see `open`).

    Raises:
        Error: already initialized. TypeError, ValueError: bad settings. StorageError: the directory cannot be used.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), autocommit=False)
    >>> db0.close()
    """
    current = active_or_none()
    if current is not None:
        if not current.forked:
            raise Error(f"dbzero is already initialized with {current.root}; call db0.close() first")
        _leave_parent(current)
    root = resolve_root(dbzero_root, storage_dir)
    merged = merge_settings(config, settings)
    if prefix is None and "prefix" in merged:
        prefix = merged.pop("prefix")
    if "read_write" in merged:
        read_write = bool(merged.pop("read_write"))
    workspace = Workspace(root, make_config(merged))
    activate(workspace)
    if prefix is not None:
        try:
            open(prefix, "rw" if read_write else "r")
        except BaseException:
            close()
            raise


def _leave_parent(workspace: Workspace) -> None:
    activate(None)
    workspace.shutdown()


def open(
    prefix_name: str,
    open_mode: str = "rw",
    *,
    autocommit: bool | None = None,
    lock_flags: Mapping[str, Any] | None = None,
    retention: int | Mapping[str, Any] | None = None,
    shared: bool | None = None,
    restricted: Any = None,
    restricted_context: Any = None,
    no_auto_migrate: bool | None = None,
    **options: Any,
) -> None:
    """Open a prefix and make it the current one.

    Args:
        prefix_name: non-empty; slashes make sub-directories; one leading slash is dropped.
        open_mode: "rw" or "w" read-write, created when missing, never truncated; "r" read-only, must exist.
        autocommit: overrides the workspace's setting for this prefix.
        lock_flags: `blocking`, `timeout` (seconds), `force_unlock` for a read-write open of a prefix that another process holds.
        retention: history to keep, for a prefix open read-write: a number of states, or a dict with `keep_states` and `keep_since` (seconds). When the
            file holds much more than that, it is compacted in the background (see `compact`). None: as set by `init`, where the default is all of it.
        shared: for a prefix open read-write: write it together with other processes that open it so. Each reads what the others commit; a write is
            made within `with db0.atomic():`, or a function decorated with `transaction`, and durable when that ends. None: as set by `init`.
        restricted, restricted_context: see ``set_restricted``, for this prefix.
        no_auto_migrate: whether changed declarations of fields wait for ``migrate``; None: as set by `init`.

    Raises:
        LeaseError: another process has it open read-write, or shared and this one not. PrefixError: bad name, bad mode, or missing.
        StorageError: its files cannot be used.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp())
    >>> db0.open("orders")
    >>> db0.get_current_prefix().name
    'orders'
    >>> db0.close()
    """
    for option in options:
        if option not in _IGNORED_OPEN_OPTIONS:
            raise TypeError(f"open() got an unexpected keyword argument {option!r}")
    if no_auto_migrate is not None and not isinstance(no_auto_migrate, bool):
        raise TypeError(f"open() argument no_auto_migrate must be a bool, not {type(no_auto_migrate).__name__}")
    if not isinstance(prefix_name, str):
        raise TypeError(f"prefix_name must be a str, not {type(prefix_name).__name__}")
    writable = _parse_mode(open_mode)
    flags = None if lock_flags is None else LockFlags.from_mapping(lock_flags)
    opened = active().open(
        prefix_name,
        writable=writable,
        autocommit=autocommit,
        lock_flags=flags,
        retention=make_retention(retention),
        no_auto_migrate=no_auto_migrate,
        shared=shared,
    )
    if restricted is not None or restricted_context is not None:
        restrict(opened.view, restricted, restricted_context)


def _parse_mode(open_mode: str) -> bool:
    if not isinstance(open_mode, str):
        raise TypeError(f"open_mode must be a str, not {type(open_mode).__name__}")
    if not open_mode or set(open_mode) - {"r", "w"}:
        raise PrefixError(f"open mode {open_mode!r} is unknown; use 'rw' (or 'w') to write and 'r' to read")
    return "w" in open_mode


def close(prefix_name: str | None = None) -> None:
    """Commit what is pending and close one prefix, or all of them and the workspace. Not open or not initialized: nothing happens.

    >>> import dbzero as db0
    >>> db0.close()
    """
    workspace = active_or_none()
    if workspace is None:
        return
    if prefix_name is not None:
        workspace.close(prefix_name)
        return
    try:
        workspace.shutdown()
    finally:
        activate(None)


def commit(prefix_name: str | None = None) -> None:
    """Make everything pending durable, in all prefixes open read-write or in the named one. When it returns, a crash loses nothing of it.

    Raises:
        DiskFullError: nothing was written, everything is still pending. PoisonedError: an fsync failed. PrefixError: the name is not open.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> numbers = db0.list([1, 2])
    >>> db0.commit()
    >>> db0.close()
    """
    active().commit(prefix_name)


def refresh() -> bool:
    """Move every read-only prefix to its newest state now instead of when the background thread gets to it. True when one moved.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp())
    >>> db0.refresh()
    False
    >>> db0.close()
    """
    moved = False
    for opened in active().open_prefixes.values():
        if not opened.writable:
            moved |= refresh_view(opened.view, opened.prefix)
    return moved


def wait(prefix: str, state: int, timeout: int | None = None) -> bool:
    """Sleep until a read-only prefix has reached a state.

    Args:
        prefix: name of a prefix open read-only. state: state number, 0 or greater. timeout: milliseconds; None waits for ever, 0 only looks.

    Returns:
        False on timeout.

    Raises:
        PrefixError: not open, or open read-write (then this process makes the states).

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> db0.close("p")
    >>> db0.open("p", "r")
    >>> db0.wait("p", 1), db0.wait("p", 99, timeout=1)
    (True, False)
    >>> db0.close()
    """
    for name, value in (("state", state), ("timeout", timeout)):
        if value is not None or name == "state":
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, not {type(value).__name__}")
            if value < 0:
                raise ValueError(f"{name} must not be negative")
    opened = active().get(prefix)
    if opened.writable:
        raise PrefixError(f"prefix {opened.name} is open read-write here: wait() is for processes that only read it")
    seconds = None if timeout is None else timeout / 1000
    if opened.view.state < state and not opened.prefix.wait(state - 1, seconds):
        return False
    refresh_view(opened.view, opened.prefix)
    return bool(opened.view.state >= state)


def get_state_num(prefix: str | None = None, finalized: bool = False) -> int:
    """A prefix's state number (commit sequence number).

    Args:
        prefix: its name; None is the current one. finalized: the last committed state; otherwise, on a prefix open read-write, the number that the
            next commit will get.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> db0.get_state_num(), db0.get_state_num(finalized=True)
    (2, 1)
    >>> db0.close()
    """
    workspace = active()
    opened = workspace.current() if prefix is None else workspace.get(prefix)
    return opened.state(finalized)


def get_current_prefix() -> PrefixMetaData:
    """The prefix on which new objects are made. PrefixError when none is open.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> db0.get_current_prefix().name
    'p'
    >>> db0.close()
    """
    workspace = active()
    if not workspace.recent:
        raise PrefixError("no prefix is open; open one with db0.open()")
    opened = workspace.open_prefixes[workspace.recent[-1]]
    return PrefixMetaData(opened.name, opened.prefix.uuid)


def get_mutable_prefixes() -> Iterator[PrefixMetaData]:
    """The prefixes that this process has open read-write, shared ones included.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> [prefix.name for prefix in db0.get_mutable_prefixes()]
    ['p']
    >>> db0.close()
    """
    opened = active().open_prefixes.values()
    return (PrefixMetaData(p.name, p.prefix.uuid) for p in opened if p.writable or p.shared)


def get_prefixes() -> Iterator[PrefixMetaData]:
    """Every prefix found on disk below the root directory, open or not.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> db0.open("orders/2024")
    >>> sorted(prefix.name for prefix in db0.get_prefixes())
    ['orders/2024', 'p']
    >>> db0.close()
    """
    return (PrefixMetaData(name, uuid) for name, uuid in discover(active().root))


def get_config() -> dict[str, Any]:
    """The workspace's settings, defaults filled in.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), autocommit_interval=100)
    >>> db0.get_config()["autocommit_interval"]
    100
    >>> db0.close()
    """
    config = active().config
    return {
        "dbzero_root": active().root,
        "cache_size": config.cache_size,
        "lang_cache_size": config.lang_cache_size,
        "autocommit": config.autocommit,
        "autocommit_interval": config.autocommit_interval,
        "no_auto_migrate": config.no_auto_migrate,
        "restricted": active().restricted,
        "shared": config.shared,
    }


def clear_cache() -> None:
    """Turn every loaded object that is clean into a ghost. Loses nothing: objects load again when they are touched.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> numbers = db0.list([1, 2])
    >>> db0.commit()
    >>> db0.clear_cache()
    >>> numbers == [1, 2]
    True
    >>> db0.close()
    """
    for opened in active().open_prefixes.values():
        opened.view.evict(0)


__all__ = [
    "PrefixMetaData",
    "clear_cache",
    "close",
    "commit",
    "get_config",
    "get_current_prefix",
    "get_mutable_prefixes",
    "get_prefixes",
    "get_state_num",
    "init",
    "open",
    "refresh",
    "wait",
]
