"""Prefix names and where their files stand.

A name is a relative path without extension: ``a/b`` under root ``R`` is ``R/a/b.db0``, ``R/a/b.db0.lock`` and
``R/a/b.redo.<n>``. One leading slash is dropped. No name can point outside the root or collide with another prefix's
files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final

from ..errors import PrefixError
from .syscalls import SYSTEM, System

PAGE_SUFFIX: Final = ".db0"
LOCK_SUFFIX: Final = ".db0.lock"
_REDO: Final = re.compile(r"\.redo\.(0|[1-9][0-9]{0,18})\Z")
_TAKEN: Final = re.compile(r"(\.db0|\.db0\.lock|\.db0\.new|\.db0\.compact\.[0-9]+|\.redo\.[0-9]+(\.stray\.[0-9]+)?)\Z")
_LONGEST: Final = 255 - 32  # a component plus the longest suffix still fits NAME_MAX


def normalize(name: str) -> str:
    """The canonical form of a prefix name.

    Args:
        name: as the user wrote it.
    Returns:
        the name without its one leading slash.
    Raises:
        PrefixError: empty, not a string, with a NUL, ``.``, ``..`` or an empty component, too long, not encodable, or
        a directory named like a store's file.
    """
    if not isinstance(name, str):
        raise PrefixError(f"a prefix name is a str, not {type(name).__name__}")
    bare = name[1:] if name.startswith("/") else name
    if not bare:
        raise PrefixError(f"prefix name {name!r} is empty; give it at least one character besides a leading slash")
    if "\0" in bare:
        raise PrefixError(f"prefix name {name!r} contains a NUL character; remove it")
    try:
        bare.encode("utf-8")
    except UnicodeEncodeError:
        raise PrefixError(f"prefix name {name!r} cannot be encoded as UTF-8; remove the lone surrogates") from None
    parts = bare.split("/")
    for position, part in enumerate(parts):
        if part == "":
            raise PrefixError(f"prefix name {name!r} has an empty component; remove doubled and trailing slashes")
        if part in (".", ".."):
            raise PrefixError(
                f"prefix name {name!r} contains {part!r}; names are relative to the root and cannot leave it"
            )
        if len(part.encode("utf-8")) > _LONGEST:
            raise PrefixError(f"prefix name {name!r} has a component longer than {_LONGEST} bytes; shorten it")
        if position < len(parts) - 1 and _TAKEN.search(part):
            raise PrefixError(
                f"prefix name {name!r}: {part!r} is how files of a store are named; choose another directory name"
            )
    if len(bare.encode("utf-8")) > 2048:
        raise PrefixError(f"prefix name {name[:64]!r}... is longer than 2048 bytes; shorten it")
    return bare


def base_path(root: str, name: str) -> str:
    """``<root>/<name>``: what all files of the prefix start with."""
    return os.path.join(root, *normalize(name).split("/"))


def page_path(base: str) -> str:
    return base + PAGE_SUFFIX


def compact_path(base: str, epoch: int) -> str:
    """Where the lease holder of an epoch lets a compacted page file come into being."""
    return f"{base}.db0.compact.{epoch}"


def compact_paths(system: System, base: str) -> list[str]:
    """Compacted page files that were not finished, whoever's."""
    directory, stem = os.path.split(base)
    return [os.path.join(directory, e) for e in system.listdir(directory) if e.startswith(stem + ".db0.compact.")]


def lock_path(base: str) -> str:
    return base + LOCK_SUFFIX


def redo_path(base: str, number: int) -> str:
    return f"{base}.redo.{number}"


def redo_numbers(system: System, base: str) -> list[int]:
    """Numbers of the log files that stand beside a page file, ascending."""
    directory, stem = os.path.split(base)
    found = []
    for entry in system.listdir(directory):
        if entry.startswith(stem):
            match = _REDO.fullmatch(entry, len(stem))
            if match:
                found.append(int(match[1]))
    return sorted(found)


def discover(root: str, system: System = SYSTEM) -> Iterator[str]:
    """Names of all prefixes under a root, sorted within each directory. Unreadable directories are left out."""

    def walk(directory: str, relative: str) -> Iterator[str]:
        try:
            entries = sorted(system.listdir(directory))
        except OSError:
            return
        for entry in entries:
            path = os.path.join(directory, entry)
            if system.is_dir(path):
                yield from walk(path, f"{relative}{entry}/")
            elif entry.endswith(PAGE_SUFFIX) and len(entry) > len(PAGE_SUFFIX):
                name = relative + entry[: -len(PAGE_SUFFIX)]
                try:
                    if normalize(name) == name:
                        yield name
                except PrefixError:
                    continue

    yield from walk(root, "")
