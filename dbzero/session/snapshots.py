"""Snapshots: what was committed, at states that do not move.

A snapshot holds states (:meth:`Prefix.hold`) and makes a view of a prefix when it is first asked for one, so opening
costs a pin at most and copies nothing. It is the context of its views (:class:`dbzero.model.scope.Context`): whatever
is reached from one of its objects is of the same snapshot. Objects and queries keep their snapshot alive.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, cast

from dbzero.errors import ClosedError, Error, PrefixError, ReferenceError
from dbzero.model import scope
from dbzero.model.base import operation
from dbzero.model.memo import MemoObject, class_info
from dbzero.model.uuids import parse_uuid
from dbzero.model.view import View
from dbzero.query.base import Query
from dbzero.query.fanindex import FannedIndex
from dbzero.query.find import find
from dbzero.query.forms import deserialize_in
from dbzero.query.indexes import index_in
from dbzero.query.managed import ManagedIndex
from dbzero.session.lookup import matches, object_of, require, swapped
from dbzero.session.together import consistent_states
from dbzero.session.workspace import Workspace, active
from dbzero.storage.discovery import name_of as discover_uuid
from dbzero.storage.format import FIRST_STATE
from dbzero.storage.names import normalize
from dbzero.storage.prefix import Prefix


class _Held:
    """One prefix at one state, held until it is released."""

    __slots__ = ("prefix", "state")

    def __init__(self, prefix: Prefix, state: int) -> None:
        prefix.hold(state)
        self.prefix = prefix
        self.state = state


def _release(held: dict[str, _Held]) -> None:
    """Let all of it go. It may run in any thread, in the collector."""
    while held:
        _, one = held.popitem()
        one.prefix.release(one.state)


class SnapshotBase:
    """What can be asked of a snapshot."""

    __slots__ = ("__weakref__",)

    def view(self, prefix_name: str | None) -> View:
        """The view of a prefix; None: of the one that was current. PrefixError, ClosedError."""
        raise NotImplementedError

    def view_of_uuid(self, prefix_uuid: int) -> View | None:
        """The view of the prefix with that uuid; None: the snapshot has none."""
        raise NotImplementedError

    def fetch(self, id: Any, type: Any = None, prefix: str | None = None) -> Any:
        """The object with a UUID, or the instance of a singleton class, as it was.

        Args:
            id, type, prefix: as the arguments of ``db0.fetch``.

        Raises:
            ReferenceError: it did not exist. Error: malformed UUID, wrong type, no instance. ClosedError.
        """
        identifier, expected = swapped(id, type)
        if isinstance(identifier, str):
            obj = self._by_uuid(identifier)
            if obj is None:
                raise ReferenceError(f"Memo instance expired: no object has the UUID {identifier} in this snapshot")
        else:
            obj = self._singleton(identifier, prefix)
            if obj is None:
                raise Error(f"Singleton instance does not exist in this snapshot: {identifier.__qualname__}")
        require(obj, expected)
        return obj

    def exists(self, id: Any, type: Any = None, prefix: str | None = None) -> bool:
        """Whether `fetch` would find it. Malformed UUIDs and unknown prefixes give False. ClosedError."""
        identifier, expected = swapped(id, type)
        try:
            obj = self._by_uuid(identifier) if isinstance(identifier, str) else self._singleton(identifier, prefix)
        except ClosedError:
            raise
        except Error:
            return False
        return obj is not None and matches(obj, expected)

    def find(self, *criteria: Any, prefix: str | None = None) -> Query:
        """A query of this snapshot's objects; criteria as of ``db0.find``. Criteria that are live objects, or queries of other
        snapshots, stand for the objects with the same identity here."""
        return find(self, *criteria, prefix=prefix)

    def index_of(self, cls: Any, field: str | None = None, *, prefix: str | None = None) -> ManagedIndex | FannedIndex:
        """The managed index of a declared field as it was. As ``db0.index_of``."""
        return index_in(self, cls, field, prefix)

    def deserialize(self, data: bytes, /) -> Any:
        """What ``db0.serialize`` made these bytes of; a query is asked of this snapshot."""
        return deserialize_in(self, data)

    def get_state_num(self, prefix: str | None = None) -> int:
        """The state that a prefix has here; by default of the one that was current."""
        return int(self.view(prefix).state)

    def _by_uuid(self, text: str) -> Any:
        prefix_uuid, oid = parse_uuid(text)
        view = self.view_of_uuid(prefix_uuid)
        if view is None:
            raise PrefixError(f"the prefix of the object {text} is not in this snapshot, and not below its root")
        return object_of(view, oid)

    def _singleton(self, cls: Any, prefix: str | None) -> Any:
        info = class_info(cls)
        if info is None or not info.singleton:
            raise Error(f"Not a dbzero singleton type: {cls!r}")
        view = self.view(info.prefix if prefix is None else prefix)
        with operation:
            return view.singleton(cls)


class Snapshot(SnapshotBase):
    """A read-only view of prefixes at fixed states: what ``snapshot`` returns. A context manager."""

    __slots__ = ("_by_uuids", "_closed", "_default", "_finalizer", "_held", "_limit", "_names", "_views", "_workspace")

    def __init__(self, workspace: Workspace, states: Mapping[str, tuple[Prefix, int]], default: str | None) -> None:
        self._workspace = workspace
        self._default = default
        self._limit = workspace.config.cache_size
        self._held: dict[str, _Held] = {}  # the finalizer has it: so nothing in it may lead back here
        self._names = set(states)  # also when it is closed
        self._views: dict[str, View] = {}
        self._by_uuids: dict[int, View] = {}  # the same; empty when it is closed
        self._closed = False
        try:
            for name, (prefix, state) in states.items():
                self._held[name] = _Held(prefix, state)
        except BaseException:
            _release(self._held)
            raise
        self._finalizer = weakref.finalize(self, _release, self._held)
        self._finalizer.atexit = False
        workspace.snapshots.add(self)

    def __repr__(self) -> str:
        if self._closed:
            return "<Snapshot, closed>"
        return f"<Snapshot {', '.join(f'{name}: {held.state}' for name, held in self._held.items())}>"

    def __bool__(self) -> bool:
        return True

    def __contains__(self, prefix_name: object) -> bool:
        return isinstance(prefix_name, str) and normalize(prefix_name) in self._names

    def __enter__(self) -> Snapshot:
        self._alive()
        return self

    def __exit__(self, *exc: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go. Every object and query of this snapshot raises ClosedError from now on. Again: nothing happens."""
        with operation:
            if self._closed:
                return
            self._closed = True
            self._by_uuids.clear()
            views, self._views = self._views, {}  # they refer to this snapshot: nothing is left to the collector
            for view in views.values():
                view.close()
        self._finalizer()

    def _alive(self) -> None:
        if self._closed:
            raise ClosedError("the snapshot was closed: take another one with db0.snapshot()")

    def fetch(self, id: Any, type: Any = None, prefix: str | None = None) -> Any:
        """The object with a UUID, or the instance of a singleton class, as it was.

        Args:
            id, type, prefix: as the arguments of ``db0.fetch``.

        Raises:
            ReferenceError: it did not exist. Error: malformed UUID, wrong type, no instance. ClosedError.
        """
        if type is None and isinstance(id, str):  # the ordinary case, without a detour
            prefix_uuid, oid = parse_uuid(id)
            known = self._by_uuids.get(prefix_uuid)
            obj = None if known is None else known.get(oid)
            if isinstance(obj, MemoObject):
                return obj
        return super().fetch(id, type, prefix)

    def view(self, prefix_name: str | None) -> View:
        """The view of a prefix; None: of the one that was current. A prefix that was not open when the snapshot was taken
        is opened read-only, and shown as it is then. PrefixError, ClosedError."""
        self._alive()
        if prefix_name is None:
            if self._default is None:
                raise PrefixError("no prefix was open when the snapshot was taken: name one")
            name = self._default
        else:
            name = normalize(prefix_name)
        return self._view(name)

    def view_of_uuid(self, prefix_uuid: int) -> View | None:
        """The view of the prefix with that uuid, opened if need be; None: there is no such prefix. ClosedError."""
        known = self._by_uuids.get(prefix_uuid)
        if known is not None:
            return known
        self._alive()
        for name, held in list(self._held.items()):
            if held.prefix.uuid == prefix_uuid:
                return self._view(name)
        found = discover_uuid(self._workspace.root, prefix_uuid)
        return None if found is None else self._view(found)

    def _view(self, name: str) -> View:
        view = self._views.get(name)
        if view is None:
            held = self._held.get(name) or self._admit(name)
            with operation:
                self._alive()
                view = self._views.get(name)
                if view is None:
                    view = View(held.prefix, held.state, self)
                    view.weight_limit = self._limit
                    self._views[name] = self._by_uuids[view.uuid] = view
        return view

    def _admit(self, name: str) -> _Held:
        opened = self._workspace.open_prefixes.get(name)
        if opened is None:
            opened = self._workspace.open(name, writable=False, make_current=False)
        with operation:
            self._alive()
            held = self._held.get(name)
            if held is None:
                held = self._held[name] = _Held(opened.prefix, opened.prefix.committed())
                self._names.add(name)
            return held

    def _again(self) -> Snapshot:
        """Another snapshot of the same states."""
        self._alive()
        states = {name: (held.prefix, held.state) for name, held in self._held.items()}
        return Snapshot(self._workspace, states, self._default)


class LiveSnapshot(SnapshotBase):
    """The live objects, asked like a snapshot: what ``get_snapshot_of`` gives for a live object. It moves, and shows what is
    not committed."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def view(self, prefix_name: str | None) -> View:
        """The live view of a prefix; None: of the object's."""
        return scope.live.view(self._name if prefix_name is None else prefix_name)

    def view_of_uuid(self, prefix_uuid: int) -> View | None:
        """The live view of the prefix with that uuid."""
        return scope.live.view_of_uuid(prefix_uuid)

    def find(self, *criteria: Any, prefix: str | None = None) -> Query:
        """As ``db0.find``, in the object's prefix."""
        return find(scope.live, *criteria, prefix=self._name if prefix is None else prefix)

    def deserialize(self, data: bytes, /) -> Any:
        """As ``db0.deserialize``."""
        return deserialize_in(scope.live, data)

    def __enter__(self) -> LiveSnapshot:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def close(self) -> None:
        """Nothing to let go of."""


def _nothing_more(workspace: Workspace) -> bool:
    return False


_complete: Callable[[Workspace], bool] = _nothing_more


def install_completion(complete: Callable[[Workspace], bool]) -> None:
    """Set what opens the prefixes that belong to the open ones, before a snapshot is taken: it returns whether it opened
    any."""
    global _complete
    _complete = complete


def snapshot(
    state_spec: int | Mapping[str, int] | None = None, *, frozen: bool = False, state_num: Any = None
) -> Snapshot:
    """A read-only view of what is committed, which does not move while the live objects do.

    Args:
        state_spec: None: every open prefix at its newest committed state. An int: the current prefix at that state, all
            others at their newest. A dict of prefix name -> state: those prefixes at these states, all others at their
            newest. `state_num` is another name of it.
        frozen: give another view of the states that the latest snapshot which is still open has, provided that
            nothing was committed since.

    Returns:
        A snapshot with ``fetch``, ``exists``, ``find``, ``deserialize``, ``get_state_num`` and ``close``; a context manager.

    Raises:
        PrefixError: there is no such state, or no such prefix. StateNotKeptError: the state was dropped by a compaction.
        TypeError: `state_spec` is something else.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p", autocommit=False)
    >>> @db0.memo(singleton=True)
    ... class Counter:
    ...     def __init__(self):
    ...         self.value = 123
    >>> counter = Counter()
    >>> db0.commit()
    >>> with db0.snapshot() as past:
    ...     counter.value = 999
    ...     db0.commit()
    ...     print(past.fetch(Counter).value, counter.value)
    123 999
    >>> db0.close()
    """
    if state_num is not None:
        if state_spec is not None:
            raise TypeError("snapshot() takes state_spec or state_num, not both")
        state_spec = state_num
    workspace = active()
    if frozen:
        if state_spec is not None:
            raise TypeError("snapshot(frozen=True) takes no state: it shows what the latest snapshot shows")
        return _frozen(workspace)
    default = workspace.recent[-1] if workspace.recent else None
    pinned = _pinned(workspace, default, state_spec)
    states: dict[str, tuple[Prefix, int]] = {}
    while True:
        _complete(workspace)
        prefixes = {name: opened.prefix for name, opened in workspace.open_prefixes.items()}
        heads = consistent_states([prefix for name, prefix in prefixes.items() if name not in pinned], workspace.root)
        if not _complete(workspace):  # else something came into being that these states may depend on
            break
    for name, prefix in prefixes.items():
        state = pinned.pop(name, None)
        if state is not None and state > (newest := prefix.committed()):
            raise PrefixError(
                f"state {state} of prefix {name!r} is not available: the newest committed one is {newest}"
            )
        states[name] = (prefix, heads[prefix.name] if state is None else state)
    for name in pinned:
        raise PrefixError(f"Prefix: {name} not found: it is not open in this process; open it with db0.open()")
    made = Snapshot(workspace, states, default)
    workspace.latest_snapshot = weakref.ref(made)
    return made


def _pinned(workspace: Workspace, default: str | None, spec: Any) -> dict[str, int]:
    """Prefix name -> state, as `spec` says."""
    if spec is None:
        return {}
    if isinstance(spec, Mapping):
        pinned = {normalize(name): state for name, state in spec.items()}
    elif isinstance(spec, int) and not isinstance(spec, bool):
        if default is None:
            raise PrefixError("no prefix is open; open one with db0.open()")
        pinned = {default: spec}
    else:
        raise TypeError(f"snapshot() argument state_spec must be an int, a dict or None, not {type(spec).__name__}")
    for name, state in pinned.items():
        if not isinstance(state, int) or isinstance(state, bool):
            raise TypeError(f"the state of prefix {name!r} must be an int, not {type(state).__name__}")
        if state < FIRST_STATE:
            raise PrefixError(f"state {state} of prefix {name!r} is not available: the first one is {FIRST_STATE}")
    return pinned


def _frozen(workspace: Workspace) -> Snapshot:
    latest = None if workspace.latest_snapshot is None else cast("Snapshot | None", workspace.latest_snapshot())
    if latest is None or latest._closed:
        raise Error("no frozen snapshot is available: no snapshot is open; take one with db0.snapshot()")
    for name, held in latest._held.items():
        opened = workspace.open_prefixes.get(name)
        if opened is None or opened.prefix.committed() != held.state:
            raise Error(f"no frozen snapshot is available: prefix {name!r} went on since; take a new db0.snapshot()")
    return latest._again()


def get_snapshot_of(obj: Any, /) -> SnapshotBase:
    """A snapshot of the states that a memo object was read at; for a live object, the live state.

    Raises TypeError for anything else.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Thing:
    ...     pass
    >>> thing = Thing()
    >>> db0.get_snapshot_of(thing).find(Thing).first() is thing
    True
    >>> db0.close()
    """
    if not isinstance(obj, MemoObject):
        raise TypeError(f"get_snapshot_of() takes a memo object, not {type(obj).__name__}")
    context = obj._p_view.context
    return context._again() if isinstance(context, Snapshot) else LiveSnapshot(obj._p_view.name)


class SnapshotWindow:
    """A context manager that gives two snapshots, of an earlier and a later state: ``(pre, last)``.

    Args:
        from_state: the earlier state. None or below 2: the first, which is empty; without `prefix`, ``pre`` is None then.
        to_state: the later state; None: the newest.
        prefix: the prefix whose states these are; None: the current one.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p", autocommit=False)
    >>> @db0.memo
    ... class Thing:
    ...     pass
    >>> db0.tags(Thing()).add("new")
    <ObjectTagManager of 1 object>
    >>> db0.commit()
    >>> with db0.SnapshotWindow(1, prefix="p") as (pre, last):
    ...     print(len(db0.select_new(db0.find("new"), pre, last)))
    1
    >>> db0.close()
    """

    def __init__(self, from_state: int | None, to_state: int | None = None, prefix: str | None = None) -> None:
        self._from = from_state
        self._to = to_state
        self._prefix = prefix
        self._open: list[Snapshot] = []

    def __enter__(self) -> tuple[Snapshot | None, Snapshot]:
        first = self._from is None or self._from < 2
        if self._prefix is not None:
            start: Any = {self._prefix: FIRST_STATE if first else self._from}
            end: Any = None if self._to is None else {self._prefix: self._to}
        else:
            start, end = (None if first else self._from), self._to
        try:
            pre = None if start is None else self._take(start)
            return pre, self._take(end)
        except BaseException:
            self.__exit__()
            raise

    def _take(self, spec: Any) -> Snapshot:
        made = snapshot(spec)
        self._open.append(made)
        return made

    def __exit__(self, *exc: object) -> None:
        while self._open:
            self._open.pop().close()


class _Committed:
    def snapshot(self) -> scope.Context:
        return snapshot()

    def past(self, view: View, state: int) -> View:
        return snapshot({view.name: state}).view(view.name)

    def shown(self, view: View) -> bool:
        opened = active().open_prefixes.get(view.name)
        return opened is not None and opened.view is view and opened.prefix.committed() == view.state

    def settled(self) -> object:
        opened = active().open_prefixes.values()
        if len(opened) > 1 and not all(one.writable and not one.shared for one in opened):
            return None  # views that follow others' commits follow them one by one
        marks = [one.view.settled() for one in opened]
        return None if None in marks or not all(self.shown(one.view) for one in opened) else marks


scope.install_committed(_Committed())
