"""Change data capture: what a query finds in one snapshot and not in another, and what changed of what both find."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from typing import Any

from pyroaring import BitMap64

from dbzero.errors import Error
from dbzero.model.scope import Context
from dbzero.model.view import View
from dbzero.query.base import Query, require_query
from dbzero.query.criteria import no
from dbzero.query.find import find


class ModIterable:
    """Pairs (old, new) of the objects that changed between two snapshots. It can be iterated again and has a length.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> now = db0.snapshot()
    >>> changes = db0.select_modified(db0.find("open"), now, now)
    >>> isinstance(changes, db0.ModIterable), isinstance(iter(changes), db0.ModIterator), len(changes)
    (True, True, 0)
    >>> db0.close()
    """

    __slots__ = ("_later", "_query", "_same", "_sooner")

    def __init__(self, query: Query, sooner: Context, later: Context, same: Callable[[Any, Any], Any] | None) -> None:
        self._query = query
        self._sooner = sooner
        self._later = later
        self._same = same

    def __iter__(self) -> ModIterator:
        return ModIterator(self._pairs())

    def _pairs(self) -> Iterator[tuple[Any, Any]]:
        before = _within(self._query, self._sooner)
        after = self._query._p_within(self._later)
        shards = self._query._p_shards
        if shards is None or before is None:
            yield from self._pairs_of(before, after)
            return
        for view in shards.views(self._later):
            part, earlier = after._p_on(view), self._sooner.view_of_uuid(view.uuid)
            if part is not None and earlier is not None:
                yield from self._pairs_of(before._p_on(earlier), part)

    def _pairs_of(self, before: Query | None, after: Query) -> Iterator[tuple[Any, Any]]:
        new = after._p_view()
        old = None if before is None else before._p_view()
        if before is None or old is None or new is None:
            return
        changed = changed_between(old, new)
        if not changed:
            return
        changed &= after._p_oids(new.uuid)
        if changed:
            changed &= before._p_oids(old.uuid)
        for oid in reversed(changed.to_array()):
            pair = old.get(oid), new.get(oid)
            if None not in pair and not (self._same is not None and self._same(*pair)):
                yield pair

    def __len__(self) -> int:
        return sum(1 for _ in self._pairs())

    def __bool__(self) -> bool:
        return next((True for _ in self._pairs()), False)

    def __getitem__(self, place: Any) -> Any:
        return list(self._pairs())[place]


class ModIterator(Iterator[tuple[Any, Any]]):
    """An iterator over pairs (old, new).

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> now = db0.snapshot()
    >>> changes = db0.select_modified(db0.find("open"), now, now)
    >>> isinstance(changes, db0.ModIterable), isinstance(iter(changes), db0.ModIterator), len(changes)
    (True, True, 0)
    >>> db0.close()
    """

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Iterator[tuple[Any, Any]]) -> None:
        self._pairs = pairs

    def __next__(self) -> tuple[Any, Any]:
        return next(self._pairs)


def changed_between(old: View, new: View) -> BitMap64:
    """OIDs of what the commits after the state of `old` up to that of `new` changed or touched. They cost what they
    list."""
    changed = BitMap64()
    for state in range(old.state + 1, new.state + 1):
        found = new.records.changes(state)
        if found is None:
            raise Error(
                f"prefix {new.name!r}: what state {state} changed is not known any more; take snapshots of newer states"
            )
        changed.update(found)
    return changed


def select_new(query: Query, pre_snapshot: Context | None, last_snapshot: Context) -> Query:
    """A query of what `query` finds in the later of two snapshots and not in the earlier one.

    Args:
        query: any query of one prefix; it is asked anew in both snapshots.
        pre_snapshot: the earlier snapshot. None, or one without the query's prefix: everything is new.
        last_snapshot: the later one. Its objects are what is found.

    Raises:
        Error: `query` is no query. ClosedError: a snapshot is closed.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p", autocommit=False)
    >>> @db0.memo
    ... class Task:
    ...     def __init__(self, name):
    ...         self.name = name
    >>> paint, mow = Task("paint"), Task("mow")
    >>> db0.tags(paint, mow).add("open")
    <ObjectTagManager of 2 objects>
    >>> db0.commit()
    >>> before = db0.snapshot()
    >>> plant, paint.name = Task("plant"), "paint the door"
    >>> _ = db0.tags(mow).remove("open"), db0.tags(plant).add("open")
    >>> db0.commit()
    >>> after = db0.snapshot()
    >>> [task.name for task in db0.select_new(db0.find("open"), before, after)]
    ['plant']
    >>> db0.close()
    """
    require_query("select_new", "query", query)
    later = query._p_within(_snapshot("select_new", "last_snapshot", last_snapshot))
    sooner = _within(query, pre_snapshot)
    return later if sooner is None else find(last_snapshot, later, no(sooner))


def select_deleted(query: Query, pre_snapshot: Context | None, last_snapshot: Context) -> Any:
    """A query of what `query` finds in the earlier of two snapshots and not in the later one.

    Args and errors as for `select_new`; what is found are objects of `pre_snapshot`. Without that: an empty list.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p", autocommit=False)
    >>> @db0.memo
    ... class Task:
    ...     def __init__(self, name):
    ...         self.name = name
    >>> paint, mow = Task("paint"), Task("mow")
    >>> db0.tags(paint, mow).add("open")
    <ObjectTagManager of 2 objects>
    >>> db0.commit()
    >>> before = db0.snapshot()
    >>> plant, paint.name = Task("plant"), "paint the door"
    >>> _ = db0.tags(mow).remove("open"), db0.tags(plant).add("open")
    >>> db0.commit()
    >>> after = db0.snapshot()
    >>> [task.name for task in db0.select_deleted(db0.find("open"), before, after)]
    ['mow']
    >>> db0.close()
    """
    require_query("select_deleted", "query", query)
    sooner = _within(query, pre_snapshot)
    if sooner is None:
        return []
    assert pre_snapshot is not None
    later = query._p_within(_snapshot("select_deleted", "last_snapshot", last_snapshot))
    return find(pre_snapshot, sooner, no(later))


def select_modified(
    query: Query,
    pre_snapshot: Context | None,
    last_snapshot: Context,
    compare_with: Callable[[Any, Any], Any] | None = None,
) -> Any:
    """Pairs (old, new) of the objects that `query` finds in both of two snapshots and that were changed in between.

    Changed is an object one of whose attributes was assigned, or that was touched (`touch`), in a commit between the
    two. A collection is an object of its own. The cost is that of what changed, not of what there is.

    Args:
        query, pre_snapshot, last_snapshot: as for `select_new`.
        compare_with: ``compare_with(old, new)`` is true for a pair that counts as unchanged: ``db0.compare``, say.

    Returns:
        Something to iterate again and again, with a length; an empty list without `pre_snapshot`.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p", autocommit=False)
    >>> @db0.memo
    ... class Task:
    ...     def __init__(self, name):
    ...         self.name = name
    >>> paint, mow = Task("paint"), Task("mow")
    >>> db0.tags(paint, mow).add("open")
    <ObjectTagManager of 2 objects>
    >>> db0.commit()
    >>> before = db0.snapshot()
    >>> plant, paint.name = Task("plant"), "paint the door"
    >>> _ = db0.tags(mow).remove("open"), db0.tags(plant).add("open")
    >>> db0.commit()
    >>> after = db0.snapshot()
    >>> [(old.name, new.name) for old, new in db0.select_modified(db0.find("open"), before, after)]
    [('paint', 'paint the door')]
    >>> db0.close()
    """
    require_query("select_modified", "query", query)
    _snapshot("select_modified", "last_snapshot", last_snapshot)
    if compare_with is not None and not callable(compare_with):
        raise Error(f"select_modified() argument 'compare_with' must be a function, not {type(compare_with).__name__}")
    if _within(query, pre_snapshot) is None:
        return []
    assert pre_snapshot is not None
    return ModIterable(query, pre_snapshot, last_snapshot, compare_with)


def _snapshot(function: str, argument: str, value: Any) -> Context:
    if not callable(getattr(value, "view_of_uuid", None)):
        raise Error(f"{function}() argument {argument!r} must be a snapshot, not {type(value).__name__}")
    snapshot: Context = value
    return snapshot


def _within(query: Query, snapshot: Context | None) -> Query | None:
    """The query in a snapshot; None when there is no snapshot, or it does not have the query's prefix."""
    if not snapshot:
        return None
    _snapshot("select", "pre_snapshot", snapshot)
    view = query._p_view()
    if view is not None and isinstance(snapshot, Container) and view.name not in snapshot:
        return None
    return query._p_within(snapshot)
