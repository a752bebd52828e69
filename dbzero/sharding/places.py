"""The shards of families as this process has them: which exist, which are open, and where an instance goes.

A shard is an ordinary prefix, ``<base>/<family>/shard-<k>``. Which shards exist is what is on disk: queries look into all
of them, so an instance is found wherever it is. The layout says only where new ones are placed.

*Why nobody writes by an old layout.* ``reshard`` holds the write leases of all shards before it changes the layout. Here
a shard is written only after the layout was read while its lease was held; as long as that view stays open and writable
the lease is, and the layout is what it was.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from dbzero.errors import ClosedError, CorruptError, Error, LeaseError, ReadOnlyError
from dbzero.model import scope
from dbzero.model.memo import MemoObject, class_info
from dbzero.model.placement import install, jump, spot_of
from dbzero.model.sharded import Family, families
from dbzero.model.view import View
from dbzero.session.snapshots import install_completion
from dbzero.session.workspace import OpenPrefix, Workspace, active, active_or_none
from dbzero.sharding import layout
from dbzero.sharding.layout import Layout
from dbzero.storage.names import PAGE_SUFFIX, base_path

_FILE = re.compile(r"shard-(0|[1-9][0-9]{0,8})" + re.escape(PAGE_SUFFIX) + r"\Z")
_SHARD = re.compile(r"(.+)/([^/]+)/shard-(0|[1-9][0-9]{0,8})\Z")
_SETTLED_NS = (
    1_000_000_000  # a directory that was changed less than this ago may be changed again within its clock's tick
)
_NOT_GIVEN: Any = object()


class Located:
    """The shards of a family below one base prefix."""

    def __init__(self, workspace: Workspace, family: Family, base: str) -> None:
        self.workspace = workspace
        self.family = family
        self.base = base
        self.stem = f"{base}/{quote(family.name, safe=' <>()[],=@+~')}/shard-"
        self.directory = os.path.dirname(base_path(workspace.root, f"{self.stem}0"))
        self._lock = threading.Lock()
        self._shards = 0  # in force when `_checked` was filled
        self._checked: dict[int, View] = {}  # shards that may be written by that number
        self._placing: Counter[int] = Counter()  # constructions under way, by the number of shards they go by
        self._listed: tuple[int, list[int]] = (-1, [])

    def name(self, number: int) -> str:
        """The prefix that is a shard."""
        return f"{self.stem}{number}"

    # --- reading ------------------------------------------------------------------------------------------------------

    def numbers(self) -> list[int]:
        """The shards that exist on disk, ascending."""
        try:
            changed = os.stat(self.directory).st_mtime_ns
        except FileNotFoundError:
            return []
        if changed != self._listed[0]:
            before = time.time_ns()
            found = sorted(int(match[1]) for match in map(_FILE.match, os.listdir(self.directory)) if match)
            if before - changed < _SETTLED_NS:
                return found
            self._listed = changed, found
        return self._listed[1]

    def views(self, context: scope.Context) -> list[View]:
        """The views of all shards that a context has, in the order of their numbers. What is not open opens by itself."""
        if active_or_none() is not self.workspace:
            raise ClosedError(f"the store of a query of {self.family.title} was closed: open it and find again")
        if context is scope.live:
            return [self.opened(number).view for number in self.numbers()]
        known: Any = context
        return [context.view(name) for name in map(self.name, self.numbers()) if name in known]

    def opened(self, number: int) -> OpenPrefix:
        """A shard, opened as its base is if it was not open: for writing too, where the lease is free."""
        name = self.name(number)
        found = self.workspace.open_prefixes.get(name)
        if found is not None:
            return found
        base = self.workspace.open_prefixes.get(self.base)
        if base is not None and (base.writable or base.shared):
            try:
                return self._open(number, base)
            except LeaseError:
                pass
        return self.workspace.open(name, writable=False, make_current=False)

    def complete(self) -> bool:
        """Open every shard. True when one was not open."""
        missing = [number for number in self.numbers() if self.name(number) not in self.workspace.open_prefixes]
        for number in missing:
            self.opened(number)
        return bool(missing)

    def _open(self, number: int, base: OpenPrefix | None) -> OpenPrefix:
        return self.workspace.open(
            self.name(number),
            writable=True,
            make_current=False,
            autocommit=None if base is None else base.autocommit,
        )

    # --- placing ------------------------------------------------------------------------------------------------------

    def read(self) -> Layout | None:
        """The layout as it is on disk now; None: there are no shards yet. CorruptError: it is gone, and shards are
        there."""
        found = layout.read(self.directory, self.family)
        if found is None and self.numbers():
            raise CorruptError(
                f"the layout file of {self.family.title} in {self.directory} is missing: put it back from a copy, or call "
                f"db0.reshard() with the number of shards that there should be"
            )
        return found

    def shards(self) -> int:
        """How many shards new instances are placed among now."""
        found = self.read()
        return self.family.shards if found is None else found.shards

    @contextmanager
    def place(self, spot: int) -> Iterator[View]:
        """The view that an instance with that spot is to be created in, while it is. Errors name the shard."""
        with self._lock:
            shards = self._shards
            view = self._checked.get(jump(spot, shards)) if shards else None
            if view is not None and not view.closed and (view.writable or view.shared):
                self._placing[shards] += 1
            else:
                view = None
        if view is None:
            shards, view = self._enter(spot)
        try:
            yield view
        finally:
            with self._lock:
                self._placing[shards] -= 1

    def _enter(self, spot: int) -> tuple[int, View]:
        while True:
            found = self.read()
            number = jump(spot, self.family.shards if found is None else found.shards)
            base = self._may_write(number)
            if found is None:
                layout.create(self.directory, Layout(self.family.key, self.family.shards, False))
                continue
            opened = self._writable(number, base)
            with self._lock:
                # The lease is held from here on, so what is read now stays.
                again = layout.read(self.directory, self.family)
                if again is None or again.shards != found.shards:
                    continue
                if self._shards != again.shards:
                    self._shards = again.shards
                    self._checked.clear()
                self._checked[number] = opened.view
                self._placing[again.shards] += 1
            return again.shards, opened.view

    def _may_write(self, number: int) -> OpenPrefix | None:
        """The base, if it is open. ReadOnlyError unless a shard may be opened for writing, or is."""
        base = self.workspace.open_prefixes.get(self.base)
        shard = self.workspace.open_prefixes.get(self.name(number))
        if shard is not None and (shard.writable or shard.shared):
            return base
        if base is None and self.family.prefix is not None:
            return base
        if base is None or not (base.writable or base.shared):
            raise ReadOnlyError(
                f"Cannot modify read-only prefix: {self.name(number)}, shard {number} of {self.family.title}: its base "
                f"{self.base!r} is {'not open' if base is None else 'open read-only'} here; open the shard itself with "
                f"db0.open({self.name(number)!r}, 'rw')"
            )
        return base

    def _writable(self, number: int, base: OpenPrefix | None) -> OpenPrefix:
        found = self.workspace.open_prefixes.get(self.name(number))
        if found is not None and (found.writable or found.shared):
            return found
        try:
            return self._open(number, base)
        except LeaseError as error:
            raise type(error)(f"shard {number} of {self.family.title} cannot be written here: {error}") from None

    # --- resharding ---------------------------------------------------------------------------------------------------

    def put(self, new: Layout) -> None:
        """Put a layout in force. The caller holds the leases of all shards, those it names included."""
        os.makedirs(self.directory, exist_ok=True)
        with self._lock:
            layout.replace(self.directory, new)
            self._shards = new.shards
            self._checked.clear()

    def wait_for_others(self, seconds: float) -> None:
        """Wait until no construction is under way that goes by another number of shards than the one in force."""
        deadline = time.monotonic() + seconds
        while True:
            with self._lock:
                if not any(n for shards, n in self._placing.items() if shards != self._shards):
                    return
            if time.monotonic() > deadline:
                raise Error(
                    f"a constructor of {self.family.title} that began before the number of shards changed still runs: "
                    f"call db0.reshard() again when it has ended"
                )
            time.sleep(0.001)


def base_of(workspace: Workspace, prefix_name: str) -> str:
    """The base prefix that a prefix stands for: of a shard that was opened by hand, the one that it is a shard of."""
    match = _SHARD.match(prefix_name)
    if match and os.path.exists(os.path.join(base_path(workspace.root, f"{match[1]}/{match[2]}"), layout.FILE)):
        return match[1]
    return prefix_name


def locate(context: scope.Context, family: Family) -> Located:
    """The shards of a family below its static prefix, or below the current one of a context."""
    workspace = active()
    if family.prefix is not None:
        base = family.prefix
    else:
        view = scope.current_or_none() if context is scope.live else None
        view = context.view(None) if view is None or view.closed else view
        base = base_of(workspace, view.name)
    return located(workspace, family, base)


def located(workspace: Workspace, family: Family, base: str) -> Located:
    """The shards of a family below a base prefix."""
    key = Located, base, family.key
    found: Located | None = workspace.kept.get(key)
    if found is None or found.family is not family:
        found = workspace.kept[key] = Located(workspace, family, base)
    return found


def _complete(workspace: Workspace) -> bool:
    """Open all shards of the families that this process knows, below its open prefixes. True when one was not open."""
    opened = False
    for family in list(families.values()):
        bases = [family.prefix] if family.prefix is not None else list(workspace.open_prefixes)
        for base in dict.fromkeys(base_of(workspace, name) for name in bases):
            opened |= located(workspace, family, base).complete()
    return opened


def family_of(function: str, cls: Any) -> Family:
    """The family of a sharded class. TypeError for anything else."""
    info = class_info(cls)
    if info is None or info.family is None:
        raise TypeError(f"{function}() takes a sharded memo class (memo(shards=..., shard_by=...)), not {cls!r}")
    return info.family


def shard_of(obj: Any, key: Any = _NOT_GIVEN, /) -> int:
    """The number of the shard that an instance is in, or that a key's instances are created in.

    Args:
        obj: an instance of a sharded class; or, with `key`, the class.
        key: what ``shard_by`` gives for an instance.

    Returns:
        A number from 0; the shard is the prefix ``<base>/<class>/shard-<number>``.

    Raises:
        TypeError: neither an instance of a sharded class, nor such a class and a key. UnsupportedTypeError: a key of
        that type cannot be one.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="bank")
    >>> @db0.memo(id="Account", shards=4, shard_by="owner")
    ... class Account:
    ...     def __init__(self, owner):
    ...         self.owner = owner
    >>> ann = Account("ann")
    >>> db0.shard_of(ann) == db0.shard_of(Account, "ann")
    True
    >>> db0.get_prefix_of(ann).name == f"bank/Account/shard-{db0.shard_of(ann)}"
    True
    >>> db0.close()
    """
    if key is not _NOT_GIVEN:
        family = family_of("shard_of", obj)
        return jump(spot_of(key), locate(scope.live, family).shards())
    if isinstance(obj, MemoObject):
        info = class_info(type(obj))
        match = _SHARD.match(obj._p_view.name) if obj._p_view is not None else None
        if info is not None and info.family is not None and match is not None:
            return int(match[3])
    raise TypeError(f"shard_of() takes an instance of a sharded class, or such a class and a key, not {obj!r}")


def _after_fork() -> None:
    """Locks may be held by threads that the child does not have."""
    workspace = active_or_none()
    if workspace is not None:
        workspace.kept.clear()


install(locate)
os.register_at_fork(after_in_child=_after_fork)
install_completion(_complete)

__all__ = ["Located", "base_of", "family_of", "locate", "located", "shard_of"]
