"""Settings of a workspace: what `init()` accepts, validated once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from dbzero.storage.history import Retention

DEFAULT_PREFIX = "main"
MIN_LANG_CACHE = 128
MIN_CACHE = 1 << 16


class LockFlags(Struct, frozen=True):
    """How a read-write open behaves when another process holds the lease.

    blocking: wait for the holder; timeout: seconds to wait (None: for ever); force_unlock: replace the holder, which is fenced.
    """

    blocking: bool = False
    timeout: float | None = None
    force_unlock: bool = False

    @classmethod
    def from_mapping(cls, flags: Mapping[str, Any] | None) -> LockFlags:
        """Read the user's dict. Unknown keys are ignored, as callers share one dict between versions. TypeError for anything but a mapping."""
        if flags is None:
            return cls()
        if not isinstance(flags, Mapping):
            raise TypeError(f"lock_flags must be a dict, not {type(flags).__name__}")
        timeout = flags.get("timeout")
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float))):
            raise TypeError(f"lock_flags['timeout'] must be a number of seconds, not {type(timeout).__name__}")
        return cls(bool(flags.get("blocking", False)), timeout, bool(flags.get("force_unlock", False)))


class Config(Struct, frozen=True):
    """Settings with their defaults.

    autocommit: commit open read-write prefixes in the background; autocommit_interval: milliseconds between two such commits;
    cache_size: bytes of shared page cache, and of loaded object state in each process; lang_cache_size: instances kept alive by the library;
    retention: how much history each prefix keeps by itself, None: all of it;
    shared: read-write opens share the writing with other processes; lock_flags: default behaviour of read-write opens;
    no_auto_migrate, restricted, restricted_context: see `db0.migrate` and `db0.set_restricted`.
    """

    autocommit: bool = True
    autocommit_interval: int = 250
    cache_size: int = 2 << 30
    lang_cache_size: int = 1024
    lock_flags: LockFlags = field(default_factory=LockFlags)
    no_auto_migrate: bool = False
    shared: bool = False
    restricted: bool = False
    restricted_context: Any = None
    rpc: Any = None
    retention: Retention | None = None


_ALIASES = {"no_auto_migration": "no_auto_migrate"}
_NAMES = frozenset(Config.__struct_fields__)


def make_config(settings: Mapping[str, Any]) -> Config:
    """Validate the user's settings.

    Raises TypeError for unknown names and wrong types, ValueError for values out of range.
    """
    values: dict[str, Any] = {}
    for name, value in settings.items():
        target = _ALIASES.get(name, name)
        if target not in _NAMES:
            raise TypeError(f"init() got an unknown setting {name!r}; known are {', '.join(sorted(_NAMES))}")
        values[target] = value
    for name in ("autocommit_interval", "cache_size", "lang_cache_size"):
        if name in values:
            _require_int(name, values[name])
    if values.get("autocommit_interval", 1) <= 0:
        raise ValueError("autocommit_interval must be at least 1 millisecond")
    if values.get("cache_size", MIN_CACHE) <= 0:
        raise ValueError("cache_size must be positive")
    if "lang_cache_size" in values:
        values["lang_cache_size"] = max(MIN_LANG_CACHE, values["lang_cache_size"])
    if "lock_flags" in values:
        values["lock_flags"] = LockFlags.from_mapping(values["lock_flags"])
    if "retention" in values:
        values["retention"] = make_retention(values["retention"])
    if values.get("rpc") is not None:
        raise TypeError("the rpc setting is not supported: dbzero shares memory between the processes of one machine")
    for name in ("autocommit", "no_auto_migrate", "restricted", "shared"):
        if name in values:
            values[name] = bool(values[name])
    return Config(**values)


def make_retention(value: Any) -> Retention | None:
    """A retention as the user wrote it: a number of states, or a dict with `keep_states` and `keep_since` (seconds).

    Raises TypeError, ValueError.
    """
    if value is None or isinstance(value, Retention):
        return value
    if isinstance(value, Mapping):
        if unknown := set(value) - {"keep_states", "keep_since"}:
            raise TypeError(
                f"retention has an unknown key {sorted(unknown)[0]!r}; known are keep_states and keep_since"
            )
        states, seconds = value.get("keep_states"), value.get("keep_since")
    else:
        states, seconds = value, None
    if states is not None:
        check_states(states)
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, (int, float))):
        raise TypeError(f"retention['keep_since'] must be a number of seconds, not {type(seconds).__name__}")
    if seconds is not None and seconds < 0:
        raise ValueError("retention['keep_since'] must not be negative")
    return None if states is None and seconds is None else Retention(states, seconds)


def check_states(states: Any) -> None:
    """TypeError, ValueError when `states` is no number of states to keep."""
    if isinstance(states, bool) or not isinstance(states, int):
        raise TypeError(f"the number of states to keep must be an int, not {type(states).__name__}")
    if states < 1:
        raise ValueError("at least one state is kept: the newest")


class ConfigTypeError(TypeError, RuntimeError):
    """A setting has the wrong type (users of the original API catch RuntimeError)."""


def _require_int(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigTypeError(f"{name} must be an int, not {type(value).__name__}")


def merge_settings(config: Mapping[str, Any] | None, explicit: Mapping[str, Any]) -> dict[str, Any]:
    """`config={...}` and keyword settings as one dict; explicit keywords win. TypeError when config is no mapping."""
    if config is None:
        return dict(explicit)
    if not isinstance(config, Mapping):
        raise TypeError(f"config must be a dict, not {type(config).__name__}")
    return {**config, **explicit}


def resolve_root(dbzero_root: str | os.PathLike[str] | None, storage_dir: str | os.PathLike[str] | None) -> str:
    """The root directory as an absolute path, whichever of the two names it was given by.

    Raises TypeError when neither is given or the type is wrong, ValueError when they differ.
    """
    paths = []
    for value in (dbzero_root, storage_dir):
        if value is None:
            continue
        path = os.fspath(value)
        if not isinstance(path, str):
            raise TypeError(f"the root directory must be a str or path, not {type(value).__name__}")
        if not path or "\0" in path:
            raise ValueError("the root directory must be a non-empty path without NUL characters")
        paths.append(os.path.abspath(path))
    if not paths:
        raise TypeError(
            "init() needs the root directory: init('./data'), init(dbzero_root=...) or init(storage_dir=...)"
        )
    if len(set(paths)) > 1:
        raise ValueError(f"dbzero_root and storage_dir name different directories: {paths[0]} and {paths[1]}")
    return paths[0]
