"""Indexes that the library manages: those of declared fields, in one prefix; and ``migrate``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyroaring import BitMap64

from dbzero.collections.index import Batch
from dbzero.collections.selections import Selection, Sorting
from dbzero.errors import ClosedError, Error, MigrateError, ReadOnlyError, ReferenceError
from dbzero.model import scope
from dbzero.model.base import operation
from dbzero.model.codec import encode_values
from dbzero.model.declared import INDEXED, declared, plan_of
from dbzero.model.instances import instances
from dbzero.model.memo import class_info
from dbzero.model.placement import shards_of
from dbzero.model.view import View
from dbzero.query.base import Query
from dbzero.query.fieldrecords import Field, FieldIndex
from dbzero.query.tagindex import flushed


class CriterionOnly(Query):
    """A range of a managed index: a criterion beside others, no query by itself."""

    __slots__ = ()
    _p_drives = False

    def _p_refuse(self) -> Error:
        index: Any = self.index  # type: ignore[attr-defined]
        return Error(
            f"a selection of the managed index of {index._p_name} needs another criterion: "
            f"db0.find({index._p_cls.__qualname__}, ...)"
        )

    def __iter__(self) -> Iterator[Any]:
        raise self._p_refuse()

    def __len__(self) -> int:
        raise self._p_refuse()

    def __bool__(self) -> bool:
        raise self._p_refuse()

    def __contains__(self, obj: object) -> bool:
        raise self._p_refuse()

    def _slice(self, key: slice) -> Query:
        raise self._p_refuse()

    def _pick(self, places: list[int]) -> tuple[Any, ...]:
        raise self._p_refuse()


class ManagedSelection(CriterionOnly, Selection):
    """A range of the managed index of one prefix."""

    __slots__ = ()

    def _p_form(self) -> tuple[Any, ...]:
        index: Any = self.index
        bounds = encode_values([self.low, self.high])[0]
        key = index._p_cls._p_class.key
        return ("select field", index._p_view.uuid, key, index._p_field, bounds, self.null_first)

    def _p_detail(self) -> str:
        return super()._p_detail().replace("index", f"index of {self.index._p_name}", 1)


class ManagedSorting(Sorting):
    """Results of a query in order of a declared field."""

    __slots__ = ()

    def _p_form(self) -> tuple[Any, ...]:
        index: Any = self.index
        key = index._p_cls._p_class.key
        where = (index._p_view.uuid, key, index._p_field)
        return ("sort field", *where, self.desc, self.null_first, self.source._p_form())


class ReadOnlyIndex:
    """What an index does whose entries follow the objects by themselves."""

    __slots__ = ("__weakref__", "_p_cls", "_p_field")

    def __init__(self, cls: type, field: str) -> None:
        self._p_cls = cls
        self._p_field = field

    @property
    def _p_name(self) -> str:
        return f"{self._p_cls.__qualname__}.{self._p_field}"

    def add(self, key: Any, value: Any, /) -> None:
        """Refused: Error. Set the field of the object."""
        raise self._p_refuse()

    def remove(self, key: Any, value: Any, /) -> None:
        """Refused: Error. Set or delete the field of the object."""
        raise self._p_refuse()

    def clear(self) -> None:
        """Refused: Error."""
        raise self._p_refuse()

    def _p_refuse(self) -> Error:
        return Error(f"managed indexes are read-only: set {self._p_name} of the object instead")


class ManagedIndex(ReadOnlyIndex):
    """The index of a declared field, which follows the objects by itself: what ``index_of`` returns.

    It answers ``select``, ``range``, ``sort``, ``len`` and iteration like an index of ``db0.index()``. It has the
    instances of the class that declares the field, those of derived classes included, that have a value for it, None
    included. It keeps no object alive. A selection is a criterion of ``find`` beside others only.
    """

    __slots__ = ("_p_view",)

    def __init__(self, view: View, cls: type, field: str) -> None:
        super().__init__(cls, field)
        self._p_view = view

    @property
    def _p_oid(self) -> int:
        with operation:
            tree = self._p_tree()
            return 0 if tree is None else int(tree._p_oid)

    def _p_activate(self) -> None:
        if self._p_view.closed:
            raise ClosedError(f"Prefix {self._p_view.name!r} was closed, it is no longer accessible; open it again")

    def _p_tree(self) -> FieldIndex | None:
        """What is stored, with everything pending made; None: nothing yet. MigrateError: the field isn't followed."""
        self._p_activate()
        view = self._p_view
        if view.writable:
            view.fields.apply(self._p_cls)
        flushed(view)
        record = view.find_class(self._p_cls)
        if record is None:
            return None
        field: Field = (record._p_oid, INDEXED, self._p_field)
        if not view.fields.follows(field):
            if next(instances(view, record._p_oid), None) is None:
                return None
            raise MigrateError(
                f"prefix {view.name!r} does not index {self._p_name} yet: "
                + ("call db0.migrate() with the class" if view.writable else "open it read-write and migrate the class")
            )
        found: FieldIndex | None = view.fields.find(field)
        return found

    def _p_within(self, context: scope.Context) -> ManagedIndex:
        """The same index in another context. ReferenceError when its prefix does not exist there."""
        self._p_activate()
        if self._p_view.context is context:
            return self
        there = context.view_of_uuid(self._p_view.uuid)
        if there is None:
            raise ReferenceError(
                f"prefix {self._p_view.name!r}, whose index a query uses, does not exist in that state"
            )
        return ManagedIndex(there, self._p_cls, self._p_field)

    # --- asking -------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        with operation:
            tree = self._p_tree()
            return 0 if tree is None else len(tree)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for _, keys, held in self._p_batches(None, None, False):
            found = {obj._p_oid: obj for obj in self._p_objects(held)}
            yield from [(key, found[oid]) for key, oid in zip(keys, held, strict=True) if oid in found]

    def select(self, low: Any = None, high: Any = None, null_first: bool = False) -> ManagedSelection:
        """A criterion of ``find``: the objects with low <= value <= high. See ``select`` of an index."""
        with operation:
            tree = self._p_tree()
            if tree is not None:
                tree._p_spans(low, high, null_first, null_first)
        return ManagedSelection(self, low, high, null_first)  # type: ignore[arg-type]

    def range(self, low: Any = None, high: Any = None, null_first: bool = False) -> ManagedSelection:
        """The older name of :meth:`select`."""
        return self.select(low, high, null_first)

    def sort(self, query: Query, /, *, desc: bool = False, null_first: bool = False) -> Sorting:
        """A query of the results of `query` in order of their values. See ``sort`` of an index. TypeError: it is no
        query. Error: it is a selection of a managed index alone."""
        if not isinstance(query, Query):
            raise TypeError(f"sort() needs a query, not {type(query).__name__}")
        if isinstance(query, ManagedSelection):
            raise query._p_refuse()
        return ManagedSorting(self, query, desc, null_first)  # type: ignore[arg-type]

    def flush(self) -> None:
        """Does nothing: what was assigned is there at once."""
        len(self)

    def __repr__(self) -> str:
        return f"<Managed index of {self._p_name}>"

    # --- for selections and sortings ----------------------------------------------------------------------------------

    def _p_batches(
        self,
        low: Any,
        high: Any,
        null_first: bool,
        nulls_lead: bool | None = None,
        desc: bool = False,
        bare: bool = False,
    ) -> Iterator[Batch]:
        with operation:
            tree = self._p_tree()
        if tree is not None:
            yield from tree._p_batches(low, high, null_first, nulls_lead, desc, bare)

    def _p_few(self, low: Any, high: Any, null_first: bool) -> list[int] | None:
        with operation:
            tree = self._p_tree()
            return [] if tree is None else tree._p_few(low, high, null_first)

    def _p_count(self, low: Any, high: Any, null_first: bool) -> int:
        with operation:
            tree = self._p_tree()
            return 0 if tree is None else tree._p_count(low, high, null_first)

    def _p_token(self) -> object:
        tree = self._p_tree()
        return object() if tree is None else tree._p_token()

    def _p_objects(self, held: list[int]) -> list[Any]:
        with operation:
            tree = self._p_tree()
            return [] if tree is None else tree._p_objects(held)

    def _p_oids(self, low: Any, high: Any, null_first: bool) -> BitMap64:
        tree = self._p_tree()
        return BitMap64() if tree is None else tree._p_oids(low, high, null_first)

    def _p_estimate(self, low: Any, high: Any, null_first: bool) -> int:
        tree = self._p_tree()
        return 0 if tree is None else tree._p_estimate(low, high, null_first)


def managed_in(view: View, cls: Any, field: str) -> ManagedIndex:
    """The managed index of a field as a view shows it. Errors as those of :func:`index_of`."""
    owner = managed_owner(cls, field)
    with operation:
        if view.writable:
            view.fields.apply(owner)
    return ManagedIndex(view, owner, field)


def managed_owner(cls: Any, field: str) -> type:
    """The class that declares an indexed field of a class. Error: there is no such field, or it is not indexed."""
    plan = plan_of(cls)
    owner = None if plan is None else plan.owner(INDEXED, field)
    if owner is None:
        if plan is not None and any(field in names for names in plan.names.values()):
            raise Error(f"field {field!r} of {cls.__qualname__} is not indexed: declare it with @db0.indexed_fields")
        raise Error(f"Unknown field {field!r}: {cls.__qualname__} indexes {declared(cls, INDEXED)}")
    return owner


def migrate(cls: type) -> None:
    """Apply the declared fields of a memo class (``tag_fields``, ``indexed_fields``, ``fulltext``) to its stored
    instances in the current prefix, or the one of the class.

    It happens by itself when the class is first used in a prefix open read-write, unless that is switched off by
    ``no_auto_migrate``; then new declarations wait for this call. What is declared no longer is dropped. All programs
    that write objects of a class must declare the same.

    Raises:
        TypeError: not a memo class. MigrateError: an object has a value that the declaration does not allow; nothing
        is changed. ReadOnlyError.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... @db0.tag_fields("status")
    ... class Order:
    ...     def __init__(self):
    ...         self.status = "open"
    >>> db0.migrate(Order)
    >>> db0.close()
    """
    info = class_info(cls)
    if info is None:
        raise TypeError(f"migrate requires a memo type, not {cls!r}")
    family = info.family
    views = [scope.view_of(info.prefix, True)] if family is None else shards_of(scope.live, family).views(scope.live)
    for view in views:
        if not view.writable:
            raise ReadOnlyError(f"Cannot modify read-only prefix: {view.name}")
    with operation:
        for view in views:
            if not view.dirty_count:
                view.begin_changes()
            view.fields.apply(cls, forced=True)
