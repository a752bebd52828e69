"""The process's workspace: one root directory, its segment, and the prefixes open in it.

There is at most one workspace per process (`active()`). Everything that must not outlive a fork hangs off it, so that a forked child can let go of all of it
in one place.
"""

from __future__ import annotations

import atexit
import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from dbzero.errors import AtomicError, ForkedError, LeaseError, NotInitializedError, PrefixError, StorageError
from dbzero.model import scope
from dbzero.model.base import block_mine, operation
from dbzero.model.view import View
from dbzero.runtime import osthreads
from dbzero.runtime.segment import Segment
from dbzero.session.commit import commit_view
from dbzero.session.config import DEFAULT_PREFIX, Config, LockFlags
from dbzero.session.following import Follower, Followers
from dbzero.session.together import commit_together
from dbzero.session.turns import turn
from dbzero.storage.history import Retainer, Retention
from dbzero.storage.names import normalize
from dbzero.storage.prefix import Prefix
from dbzero.storage.sharing import SharedPrefix


class BlockHooks:
    """What atomic blocks (dbzero.session.blocks, which needs this module) have to do with opening, closing and forks."""

    opening: Callable[[OpenPrefix], None]
    closing: Callable[[OpenPrefix, bool], bool]  # True: it has committed, if that was asked for
    closed: Callable[[OpenPrefix], None]  # after its last commit
    abandon: Callable[[], None]
    after_fork: Callable[[], None]


block_hooks = BlockHooks()
locked_blocks: list[Any] = []  # the open ones, of all threads: while there is one, autocommit waits


class Arrangement(NamedTuple):
    """The open prefixes as an atomic block wants them."""

    prefixes: dict[str, OpenPrefix]  # that it was made of
    views: list[View]
    shared: list[OpenPrefix]  # in the order in which turns are taken
    exclusive: list[
        OpenPrefix
    ]  # in the order in which a commit of several takes their locks, so that the two never wait for each other


class OpenPrefix:
    """One prefix as this process uses it: its storage, its live view, and who keeps the view moving."""

    def __init__(self, prefix: Prefix, view: View, autocommit: bool) -> None:
        self.prefix = prefix
        self.view = view
        self.autocommit = autocommit
        self.commit_lock = prefix.commit_lock  # one lock, so that the page file is not replaced under a batch
        self.follower: Follower | None = None
        self.retainer: Retainer | None = None
        self.retention: Retention | None = None
        self.committed_changes = 0  # view.changes when the last commit took what was pending

    def retain(self, retention: Retention | None) -> None:
        """Keep history bounded from now on, or (None) as it is."""
        self.retention = retention
        before, self.retainer = self.retainer, None
        if before is not None:
            self.prefix.after_checkpoint = lambda: None
            before.stop()
        if retention is not None and (self.writable or self.shared):
            self.retainer = Retainer(self.prefix, retention, self._not_retained)
            self.prefix.after_checkpoint = self.retainer.look

    def _not_retained(self, error: Exception) -> None:
        warnings.warn(
            f"prefix {self.name!r}: its history could not be bounded ({error}). It is tried again after a later checkpoint",
            RuntimeWarning,
            stacklevel=2,
        )

    @property
    def name(self) -> str:
        return self.prefix.name

    @property
    def writable(self) -> bool:
        """Whether it may be written just now."""
        return self.prefix.writable

    @property
    def shared(self) -> bool:
        """Whether several processes write it, in transactions."""
        return self.prefix.shared

    def refuse_shared(self, what: str) -> None:
        """PrefixError when the prefix is open shared, for what only an exclusive writer can do."""
        if self.shared:
            raise PrefixError(
                f"prefix {self.name!r} is open shared: {what} needs it for itself. Close it in every process, then open it "
                "without shared=True"
            )

    def state(self, finalized: bool) -> int:
        """The last committed state, or (writer, not finalized) the number the next commit will get."""
        if not self.view.writable:
            return int(self.view.state)
        return self.prefix.head() + (0 if finalized else 1)

    def commit(self, unless: Callable[[], object] | None = None) -> bool:
        """Commit what is pending. True when a new state was made. `unless` is asked when nobody can change anything."""
        if self.shared:
            return False  # its transactions do that
        with self.commit_lock:
            return commit_view(self.view, self.prefix, unless, self.taken)

    def taken(self) -> None:
        self.committed_changes = self.view.changes

    def close(self, *, commit: bool) -> None:
        """Commit (a writer), stop following, make every handle inaccessible, release the prefix."""
        settled = False
        try:
            settled = block_hooks.closing(self, commit)
        finally:
            self._close(commit=commit and not settled)

    def _close(self, *, commit: bool) -> None:
        if self.follower is not None:
            self.follower.stop()
        if self.retainer is not None:
            self.retainer.stop()
        try:
            if commit and self.writable:
                self.commit()
            block_hooks.closed(self)
        finally:
            with operation:
                self.view.close()
            self.prefix.close()


class Workspace:
    """All that `init()` sets up. Attributes: root (absolute path), config, segment."""

    def __init__(self, root: str, config: Config) -> None:
        self.root = root
        self.config = config
        self.pid = os.getpid()
        _make_root(root)
        self.segment = Segment.open(root, config.cache_size)
        self.followers = Followers(self.segment)
        self.open_prefixes: dict[str, OpenPrefix] = {}  # never changed: each change makes another dict
        self._arranged: Arrangement | None = None
        self.recent: list[str] = []  # open prefixes that were current, latest last
        self.lock = osthreads.RLock()
        self.restricted = config.restricted  # of prefixes opened from now on
        self.restricted_context = config.restricted_context
        self.snapshots: weakref.WeakSet[Any] = weakref.WeakSet()  # of dbzero.session.snapshots
        self.latest_snapshot: weakref.ref[Any] | None = None
        self.kept: dict[Any, Any] = {}  # what higher layers keep as long as the workspace lives
        self._closed = False
        self._autocommit: osthreads.Thread | None = None
        self._stop = osthreads.Event()

    # --- prefixes ------------------------------------------------------------------------------------------------------------------------

    def get(self, name: str) -> OpenPrefix:
        """The open prefix of that name. PrefixError when it is not open."""
        found = self.open_prefixes.get(normalize(name))
        if found is None:
            raise PrefixError(
                f"Prefix: {normalize(name)} not found: it is not open in this process; open it with db0.open()"
            )
        return found

    def open(
        self,
        name: str,
        *,
        writable: bool,
        autocommit: bool | None = None,
        lock_flags: LockFlags | None = None,
        make_current: bool = True,
        retention: Retention | None = None,
        no_auto_migrate: bool | None = None,
        shared: bool | None = None,
    ) -> OpenPrefix:
        """Open a prefix, or return it when it is open already (a read-only one is closed and reopened when a writer asks).

        shared: for writing together with other processes; None: as the workspace's settings say.
        """
        name = normalize(name)
        with turn.hold(), self.lock:
            if self._closed:
                raise NotInitializedError("dbzero was closed by another thread: call db0.init(<directory>) first")
            opened = self.open_prefixes.get(name)
            if opened is not None and writable and not opened.writable and not opened.shared:
                self.close(name)
                opened = None
            if opened is not None and shared and writable and not opened.shared:
                raise PrefixError(
                    f"prefix {name!r} is open here for exclusive writing; close it before it is opened shared"
                )
            if opened is None:
                flags = lock_flags or self.config.lock_flags
                together = writable and (self.config.shared if shared is None else shared)
                opened = self._open_new(name, writable, together, autocommit, flags)
            if no_auto_migrate is not None:
                opened.view.auto_migrate = not no_auto_migrate
            if retention is not None:
                opened.retain(retention)
            if make_current:
                self._make_current(name)
            return opened

    def _open_new(
        self, name: str, writable: bool, shared: bool, autocommit: bool | None, flags: LockFlags
    ) -> OpenPrefix:
        how: dict[str, Any] = {
            "blocking": flags.blocking,
            "timeout": flags.timeout,
            "force": flags.force_unlock,
        }
        if shared:
            prefix: Prefix = SharedPrefix.share(self.segment, self.root, name, **how)
        else:
            prefix = Prefix.open(self.segment, self.root, name, writable=writable, **how)
        try:
            view = View(prefix, prefix.head())
            prefix.pin(view.state)
            view.weight_limit = self.config.cache_size
            view.auto_migrate = not self.config.no_auto_migrate
            view.shared = shared
            view.restricted, view.restricted_context = self.restricted, self.restricted_context
            opened = OpenPrefix(prefix, view, self.config.autocommit if autocommit is None else autocommit)
            if not prefix.writable:
                opened.follower = self.followers.add(view, prefix)
        except BaseException:
            prefix.close()
            raise
        try:
            block_hooks.opening(opened)
        except BaseException:
            opened.close(commit=False)
            raise
        self.open_prefixes = {**self.open_prefixes, name: opened}
        opened.retain(self.config.retention)
        if prefix.writable and opened.autocommit:
            self._start_autocommit()
        return opened

    def _make_current(self, name: str) -> None:
        if name in self.recent:
            self.recent.remove(name)
        self.recent.append(name)
        scope.set_current(self.open_prefixes[name].view)

    def current(self) -> OpenPrefix:
        """The current prefix; the default one is opened read-write when none is."""
        with self.lock:
            if self.recent:
                return self.open_prefixes[self.recent[-1]]
        with turn.hold(), self.lock:
            if not self.recent:
                return self.open(DEFAULT_PREFIX, writable=True)
            return self.open_prefixes[self.recent[-1]]

    def arranged(self) -> Arrangement:
        """The prefixes that are open; not to be changed."""
        found, prefixes = self._arranged, self.open_prefixes
        if found is None or found.prefixes is not prefixes:
            ordered = sorted(prefixes.values(), key=lambda one: one.prefix.uuid)
            found = self._arranged = Arrangement(
                prefixes,
                [one.view for one in prefixes.values()],
                [one for one in ordered if one.shared],
                [one for one in ordered if not one.shared],
            )
        return found

    def writable_prefixes(self) -> Iterator[OpenPrefix]:
        return (p for p in self.open_prefixes.values() if p.writable)

    def commit(self, name: str | None = None) -> None:
        """Commit one prefix, or all that are open read-write."""
        self.check_fork()
        refuse_in_block("commit")
        if name is not None:
            opened = self.get(name)
            if opened.writable:
                opened.commit()
            return
        self.commit_together(self.writable_prefixes())

    def commit_together(self, opened: Iterable[OpenPrefix], unless: Callable[[], object] = lambda: None) -> bool:
        """Commit what is pending in several prefixes, all of it or nothing. True when there was anything.

        Prefixes open for shared writing are left out: their own transactions commit them.
        """
        return commit_together([one for one in opened if not one.shared], self.root, unless)

    def close(self, name: str, *, commit: bool = True) -> None:
        """Close one prefix; not open: nothing. The prefix used before it becomes current. commit: what is pending."""
        with turn.hold(), self.lock:
            name = normalize(name)
            opened = self.open_prefixes.get(name)
            if opened is None:
                return
            self.open_prefixes = {other: one for other, one in self.open_prefixes.items() if other != name}
            if opened.name in self.recent:
                self.recent.remove(opened.name)
            scope.set_current(self.open_prefixes[self.recent[-1]].view if self.recent else None)
            opened.close(commit=commit and not self.forked)

    def shutdown(self) -> None:
        """Close every prefix and let go of the segment. The first error is raised after everything was tried."""
        self._stop.set()
        errors: list[BaseException] = []
        if block_mine():
            block_hooks.abandon()
        with turn.hold(), self.lock:
            self._closed = True  # a thread that still has this workspace in hand opens nothing any more
            if not self.forked:
                try:  # as one; what this leaves pending is each prefix's own to commit
                    self.commit_together(self.writable_prefixes())
                except Exception as error:
                    errors.append(error)
            for snapshot in list(self.snapshots):
                snapshot.close()
            for name in reversed(list(self.open_prefixes)):
                try:
                    self.close(name)
                except Exception as error:
                    errors.append(error)
            scope.set_current(None)
        thread = self._autocommit
        if thread is not None and not osthreads.is_current(thread) and not self.forked:
            thread.join()
        self.segment.close()
        if errors:
            raise errors[0]

    # --- autocommit ----------------------------------------------------------------------------------------------------------------------

    def _start_autocommit(self) -> None:
        if self._autocommit is None or not self._autocommit.is_alive():
            self._autocommit = osthreads.thread(self._autocommit_loop, "dbzero-autocommit")
            self._autocommit.start()

    def _autocommit_loop(self) -> None:
        interval = self.config.autocommit_interval / 1000
        while not self._stop.wait(interval):
            if locked_blocks:
                continue
            due = [opened for opened in self.writable_prefixes() if opened.autocommit and opened.view.has_changes()]
            try:
                self.commit_together(due, unless=lambda: locked_blocks)
            except Exception as error:
                # Kept for the next explicit commit to report: a thread has no caller to raise to. What was pending still is.
                for opened in due:
                    opened.view.autocommit_error = error

    # --- fork ----------------------------------------------------------------------------------------------------------------------------

    @property
    def forked(self) -> bool:
        """This workspace was made by a parent of this process."""
        return os.getpid() != self.pid

    def check_fork(self) -> None:
        """ForkedError when a child tries to write through its parent's prefixes."""
        parents = [p.name for p in self.open_prefixes.values() if p.prefix.forked]
        if parents:
            raise ForkedError(
                "this process was forked from one that holds the prefixes "
                f"{', '.join(parents)} open for writing; only that one may commit them. "
                "Call db0.close() and db0.init() in the child, then open them read-only"
            )


def refuse_in_block(what: str) -> None:
    """AtomicError inside an atomic block of the running context."""
    if block_mine():
        raise AtomicError(f"{what} cannot run inside an active atomic block: let it end first, or cancel it")


def _make_root(root: str) -> None:
    try:
        os.makedirs(root, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"the root directory {root} cannot be created: {error.strerror}; give a directory that this user may write"
        ) from error


_active: Workspace | None = None


def active() -> Workspace:
    """The workspace of this process. NotInitializedError before `init()` and after `close()`."""
    if _active is None:
        raise NotInitializedError("dbzero not initialized: call db0.init(<directory>) first")
    return _active


def active_or_none() -> Workspace | None:
    return _active


def activate(workspace: Workspace | None) -> None:
    global _active
    _active = workspace


def _view_of(prefix_name: str | None, writable: bool) -> View:
    workspace = active()
    if prefix_name is None:
        return workspace.current().view
    name = normalize(prefix_name)
    opened = workspace.open_prefixes.get(name)
    if opened is None or (writable and not opened.writable and not opened.shared):
        try:
            opened = workspace.open(name, writable=writable, make_current=False)
        except LeaseError:
            if opened is None:
                raise
    return opened.view


def _view_of_uuid(prefix_uuid: int) -> View | None:
    workspace = active()
    for opened in workspace.open_prefixes.values():
        if opened.prefix.uuid == prefix_uuid:
            return opened.view
    return None


def _opened(prefix_name: str) -> View:
    return active().get(prefix_name).view


scope.install(view_of=_view_of, view_of_uuid=_view_of_uuid, opened=_opened)


@atexit.register
def _at_exit() -> None:
    """What is pending is committed when the interpreter ends normally."""
    if _active is not None and not _active.forked:
        workspace = _active
        activate(None)
        workspace.shutdown()


_fork_holds: list[Prefix] = []


def _before_fork() -> None:
    # A child is a copy of one thread. What other threads were in the middle of would stay half done there for ever.
    operation.freeze()
    if _active is not None and not _active.forked:
        for opened in _active.open_prefixes.values():
            opened.prefix.before_fork()
            _fork_holds.append(opened.prefix)


def _after_fork_in_parent() -> None:
    while _fork_holds:
        _fork_holds.pop().fork_done()
    operation.release()


def _after_fork_in_child() -> None:
    """The child inherits handles to read with, and nothing else: no lease, thread, slot or pending change."""
    _fork_holds.clear()
    if _active is not None:
        operation.reset_after_fork()
        block_hooks.after_fork()
        _active.lock = osthreads.RLock()
        _active.followers = Followers(_active.segment)  # the thread is the parent's
        for opened in _active.open_prefixes.values():
            opened.follower = opened.retainer = None
            opened.prefix.after_checkpoint = lambda: None  # the parent's thread
            opened.prefix.after_fork()
            opened.commit_lock = opened.prefix.commit_lock
            opened.view.after_fork()
        _attach_child(_active)


def _attach_child(workspace: Workspace) -> None:
    """Give a forked child a place of its own in the segment, so that its views are pinned and follow the writers, and its
    shared prefixes can be written. What cannot be had it does without: it reads what its parent showed."""
    try:
        if not workspace.segment.rejoin():
            return
        for opened in workspace.open_prefixes.values():
            opened.prefix.attach()
            opened.prefix.pin(opened.view.state)
            opened.follower = workspace.followers.add(opened.view, opened.prefix)
            if opened.shared:
                opened.retain(opened.retention)
    except Exception as error:
        for opened in workspace.open_prefixes.values():
            opened.view.follow_error = error


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
