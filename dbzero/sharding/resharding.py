"""``reshard``: another number of shards for a class, while it is in use.

The protocol: hold the write leases of all shards that there are and will be; check that everything can move; put the new
layout in force, marked as moving; move instances in batches, each one commit across prefixes; take the mark away. Whoever
is killed anywhere leaves every instance in exactly one shard, and the next call goes on.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from dbzero.errors import Error, LeaseError, ReadOnlyError
from dbzero.model import base, scope
from dbzero.model.base import operation
from dbzero.model.memo import class_info
from dbzero.model.placement import jump
from dbzero.model.sharded import SPOT
from dbzero.model.view import View
from dbzero.session.deletion import pending_counts
from dbzero.session.turns import turn
from dbzero.session.workspace import OpenPrefix, refuse_in_block
from dbzero.sharding.layout import Layout, read
from dbzero.sharding.moving import Copier, Tags, drop, graph_of, members_of
from dbzero.sharding.places import Located, family_of, locate

BATCH = 256  # instances moved by one commit, at most
_LARGE = 4096  # objects in a batch above which no further instance is taken
_WAIT = 10.0  # seconds to wait for constructors that began before

Misplaced = tuple[int, int]
"""OID of an instance, and the number of the shard where it belongs."""


def reshard(cls: type, shards: int, /, *, progress: bool = True) -> int:
    """Give a sharded class another number of shards, and move the instances that belong elsewhere then.

    It can be called again, with the same number or another one, when it was interrupted or killed at any point: every
    instance is in exactly one shard all the time, and it goes on from there. Other processes read meanwhile, and a snapshot
    shows every instance once; other threads of this process may also write. An instance that moves gets another UUID: with
    its tags, declared fields and what only it owns it is a new object, the old one is deleted. Weak references to the old
    one, from wherever, read as expired.

    Args:
        cls: a sharded memo class. shards: the number of shards from now on, 1 or more.
        progress: show a progress bar where the standard error stream is a terminal.

    Returns:
        How many instances were moved.

    Raises:
        TypeError, ValueError: bad arguments. LeaseError: another process has a shard open for writing. ReadOnlyError: the
        class's base prefix is not open read-write. AtomicError: within an atomic block. Error: an instance that has to
        move, or something that it owns, is held by what stays, or by nothing that is stored; then nothing was moved.
        Errors of ``commit``: what was moved before stays moved.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="bank")
    >>> @db0.memo(shards=2, shard_by="owner")
    ... class Account:
    ...     def __init__(self, owner):
    ...         self.owner = owner
    ...         db0.tags(self).add("open")
    >>> for number in range(100):
    ...     _ = Account(f"owner {number}")
    >>> moved = db0.reshard(Account, 4)
    >>> 30 < moved < 70, len(db0.find(Account))
    (True, 100)
    >>> all(db0.shard_of(account) == db0.shard_of(Account, account.owner) for account in db0.find(Account))
    True
    >>> db0.close()
    """
    family = family_of("reshard", cls)
    if isinstance(shards, bool) or not isinstance(shards, int):
        raise TypeError(f"reshard() argument shards must be an int, not {type(shards).__name__}")
    if shards < 1:
        raise ValueError(f"reshard() argument shards must be at least 1, not {shards}")
    refuse_in_block("reshard")
    return _Resharding(locate(scope.live, family), shards).run(progress)


class _Resharding:
    """One run of ``reshard``."""

    def __init__(self, located: Located, shards: int) -> None:
        self.located = located
        self.title = located.family.title
        self.shards = shards
        self.opened: dict[int, OpenPrefix] = {}
        self.moved = 0

    def run(self, progress: bool) -> int:
        located = self.located
        read(located.directory, located.family)  # damaged, or another class's: before anything is opened
        with self._leases(), _bar(progress, f"reshard {located.family.name}") as advance:
            located.workspace.commit_together(self.opened.values())
            found = {number: list(self._misplaced(number)) for number in self.opened}
            for number, some in found.items():
                self._check(number, some)
            advance(0, sum(map(len, found.values())))
            located.put(Layout(located.family.key, self.shards, True))
            located.wait_for_others(_WAIT)
            while any(found.values()):
                for number, some in found.items():
                    self._move_all(number, some, advance)
                # What others created meanwhile by the old number, and what a tag changed of what was refused.
                found = {number: list(self._misplaced(number)) for number in self.opened}
            located.put(Layout(located.family.key, self.shards, False))
        return self.moved

    # --- leases -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _leases(self) -> Iterator[None]:
        """All shards open for writing, by this process alone; afterwards those that were not open are closed."""
        located = self.located
        workspace = located.workspace
        before = {name for name, opened in workspace.open_prefixes.items() if opened.writable}
        try:
            numbers: set[int] = set()
            while not numbers >= (wanted := {*located.numbers(), *range(self.shards)}):
                for number in sorted(wanted - numbers):
                    self._open(number)
                numbers = wanted
            yield
        finally:
            for opened in self.opened.values():
                if opened.name not in before:
                    workspace.close(opened.name)

    def _open(self, number: int) -> None:
        located = self.located
        base_ = located.workspace.open_prefixes.get(located.base)
        if base_ is None or not (base_.writable or base_.shared):
            raise ReadOnlyError(
                f"Cannot modify read-only prefix: reshard needs {located.base!r}, the base of the shards of {self.title}, open "
                f"read-write here"
            )
        try:
            opened = located.workspace.open(
                located.name(number), writable=True, make_current=False, autocommit=base_.autocommit, shared=False
            )
        except LeaseError as error:
            raise type(error)(f"reshard needs all shards of {self.title} for itself; shard {number}: {error}") from None
        opened.refuse_shared("reshard")
        self.opened[number] = opened

    # --- what is to be moved ------------------------------------------------------------------------------------------

    def _misplaced(self, number: int) -> Iterator[Misplaced]:
        view = self.opened[number].view
        with operation:
            oids = list(members_of(view, self.located.family.key))
        for oid in oids:
            obj = view.get(oid)
            if obj is not None and not obj._p_flags & base.INIT:
                place = jump(self._spot(obj), self.shards)
                if place != number:
                    yield oid, place

    def _spot(self, obj: Any) -> int:
        obj._p_activate()
        spot = base.state(obj).get(SPOT)
        if type(spot) is not int:
            raise Error(f"an instance of {self.title} in prefix {obj._p_view.name!r} was not created as a sharded one")
        return spot

    def _refuse(self, obj: Any) -> bool:
        info = class_info(type(obj))
        return info is not None and info.family is not None and info.family.key == self.located.family.key

    def _check(self, number: int, misplaced: Sequence[Misplaced]) -> None:
        view = self.opened[number].view
        rest = iter(misplaced)
        with operation:
            tags = Tags(view)
        try:
            while some := list(islice(rest, BATCH)):
                with operation:
                    tags.refresh()
                    counts = pending_counts(view)
                    for oid, _ in some:
                        if view.get(oid) is not None:
                            graph_of(view, oid, counts, tags, self._refuse)
        finally:
            tags.close()

    # --- moving -------------------------------------------------------------------------------------------------------

    def _move_all(
        self, number: int, misplaced: Sequence[Misplaced], advance: Callable[[int, int | None], None]
    ) -> None:
        view = self.opened[number].view
        left = list(reversed(misplaced))
        with operation:
            tags = Tags(view)
        try:
            while left:
                before = len(left)
                self._move_some(number, left, tags)
                advance(before - len(left), None)
        finally:
            tags.close()

    def _move_some(self, number: int, left: list[Misplaced], tags: Tags) -> None:
        """Take a batch from the end of `left`, move it and commit that."""
        source = self.opened[number]
        places = {place for _, place in left[-BATCH:]}
        involved = sorted([source, *(self.opened[place] for place in places)], key=lambda one: one.prefix.uuid)
        with turn.hold(), contextlib.ExitStack() as locks:
            for one in involved:
                locks.enter_context(one.commit_lock)  # nobody else commits half of it
            with operation:
                moved = self._switch(source.view, left, tags)
            self.located.workspace.commit_together(involved)
        self.moved += moved

    def _switch(self, source: View, left: list[Misplaced], tags: Tags) -> int:
        """Make the counterparts of a batch and delete the originals. Under the operation lock. If it fails, nothing has
        changed."""
        source.begin_changes()
        tags.refresh()
        counts = pending_counts(source)
        copiers: dict[int, Copier] = {}
        graphs: list[list[int]] = []
        size = taken = 0
        try:
            for oid, place in reversed(left[-BATCH:]):
                taken += 1
                if source.get(oid) is None:
                    continue  # it was deleted meanwhile
                graph = graph_of(source, oid, counts, tags, self._refuse)
                copier = copiers.get(place)
                if copier is None:
                    target = self.opened[place].view
                    target.begin_changes()
                    copier = copiers[place] = Copier(source, target, tags)
                copier.copy(graph)
                graphs.append(graph)
                size += len(graph)
                if size > _LARGE:
                    break
            for copier in copiers.values():
                copier.target.flush()
        except BaseException:
            for copier in copiers.values():
                copier.undo()
            raise
        drop(source, graphs, tags)
        del left[len(left) - taken :]
        return len(graphs)


@contextlib.contextmanager
def _bar(wanted: bool, title: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar, as ``advance(steps, total or None)``; on no terminal nothing is shown."""
    if not wanted or not sys.stderr.isatty():
        yield lambda steps, total: None
        return
    from rich.console import Console  # here: few see a bar, and it takes its time to load
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None)
        yield lambda steps, total: bar.update(task, advance=steps, total=total)


__all__ = ["BATCH", "reshard"]
