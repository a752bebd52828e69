"""Moving: an object with all that only it owns, from one prefix to another, where it gets other identities.

A *graph* is an object and what it holds strongly, deeply: members and collections. It can move when nothing else holds any
of it (:func:`graph_of`). Its objects get counterparts in the other prefix (:class:`Copier`), values and all, then the
originals are deleted (:func:`drop`). None of this is committed here. Whatever fails, fails before the originals change.

Weak references from within the graph to within it lead to the counterparts; all others, from wherever, to the originals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from dbzero.collections import ByteArray, Dict, Index, List, Set, Tuple, WeakSet, bytearrays, index
from dbzero.collections.keys import ObjectKey
from dbzero.collections.sequences import push
from dbzero.errors import ClassNotFoundError, Error
from dbzero.model import base, kinds
from dbzero.model.base import Persistent
from dbzero.model.catalog import ClassRecord
from dbzero.model.codec import ATOMS, EXTENDED
from dbzero.model.declared import MISSING, note, plan_of
from dbzero.model.deferred import MEMO_CLASS, WEAK, Deferred
from dbzero.model.memo import MemoObject, class_info, uuid_of
from dbzero.model.values import convert
from dbzero.model.view import View
from dbzero.model.weak import reference_to, stored_identity
from dbzero.query.atoms import Atom, stored_key
from dbzero.query.records import Key, is_counted, names
from dbzero.query.tagindex import TagIndex, flushed

_PLAIN = ATOMS | EXTENDED


class Tags:
    """Which tags the objects of a view were given, kept right while they are given and taken."""

    def __init__(self, view: View) -> None:
        """Under the operation lock, as everything here."""
        self.view = view
        self._index: TagIndex = flushed(view)
        self._of: dict[int, set[Key]] = {}
        self._read_all()

    def _read_all(self) -> None:
        self._of.clear()
        root = self._index.root()
        for key, _ in names(None if root is None else root._data.names):
            if is_counted(key):
                for oid in self._index.members(key):
                    self._of.setdefault(oid, set()).add(key)
        self._index.changes = []

    def close(self) -> None:
        """Keep nothing any more."""
        self._index.changes = None

    def refresh(self) -> None:
        """Take in what changed since the last time."""
        flushed(self.view)
        changes, self._index.changes = self._index.changes or [], []
        if None in changes:
            self._read_all()
            return
        for change in changes:
            assert change is not None
            key, added, removed = change
            if is_counted(key):
                for oid in removed:
                    self.of(oid).discard(key)
                for oid in added:
                    self._of.setdefault(oid, set()).add(key)

    def of(self, oid: int) -> set[Key]:
        """The tags of an object."""
        return self._of.get(oid, set())


def graph_of(view: View, oid: int, counts: Counter[int], tags: Tags, refuse: Callable[[Any], bool]) -> list[int]:
    """The OIDs of an object and of all that only it owns. Under the operation lock.

    Args:
        counts: what pending changes add to stored reference counts. refuse: whether a memo object must not be a member.

    Raises Error when something else holds any of it, or a member must not be one; the message names it.
    """
    held: Counter[int] = Counter()
    graph = [oid]
    for one in graph:
        for target in references(view, one):
            if not held[target] and target != oid:
                found = view.get(target)
                if isinstance(found, ClassRecord):
                    continue
                if isinstance(found, MemoObject) and refuse(found):
                    raise Error(
                        f"{_shown(view.get(oid))} refers strongly to {_shown(found)}, which has a shard of its own: store "
                        f"db0.weak_proxy() of it instead"
                    )
                graph.append(target)
            held[target] += 1
    if not view.records.refcount(oid, view.state) + counts[oid]:
        raise Error(
            f"{_shown(view.get(oid))} in prefix {view.name!r} is held by this process only and by nothing stored: tag it, or "
            f"let it go, before it is moved"
        )
    for one in graph:
        counted = view.records.refcount(one, view.state) + counts[one]
        if counted > held[one] + len(tags.of(one)):
            raise Error(_outside(view, one, set(graph), counted - held[one] - len(tags.of(one))))
    return graph


def references(view: View, oid: int) -> list[int]:
    """What an object holds strongly, pending changes included."""
    obj = view.peek(oid)
    if obj is not None and obj._p_flags & base.DIRTY:
        return list(obj._p_encode()[1])
    return list(view.records.references(oid, view.state))


def _outside(view: View, oid: int, graph: set[int], more: int) -> str:
    holders = [
        other
        for other in range(kinds.FIRST_OID, view.records.oid_limit())
        if other not in graph and other not in view.deleted and oid in references(view, other)
    ]
    found = view.get(holders[0]) if holders else None
    holder = f"{more} stored references" if found is None else _shown(found)
    return (
        f"{_shown(view.get(oid))} is held by {holder} in prefix {view.name!r}, which stays there: store db0.weak_proxy() of "
        f"it, or a tag, instead"
    )


def _shown(obj: Any) -> str:
    if isinstance(obj, MemoObject):
        return f"the {type(obj).__qualname__} {uuid_of(obj)}"
    return f"a {type(obj).__name__.lower()} (object {getattr(obj, '_p_oid', 0)})"


class Copier:
    """Copies graphs of one view to another. Under the operation lock."""

    def __init__(self, source: View, target: View, tags: Tags) -> None:
        self.source = source
        self.target = target
        self.tags = tags
        self._made: dict[int, Any] = {}  # by OID in the source
        self._all: list[Any] = []

    def copy(self, graph: Iterable[int]) -> None:
        """Make counterparts of a graph's objects, with their values and tags."""
        originals = [found for found in map(self.source.get, graph) if isinstance(found, Persistent)]
        inner = {found._data._p_oid for found in originals if isinstance(found, WeakSet)}
        whole = [found for found in originals if found._p_oid not in inner]
        for original in whole:
            made = self._begin(original)
            if made is not None:
                self._made[original._p_oid] = made
                self._all.append(made)
        for original in whole:
            if original._p_oid in self._made:
                self._fill(original, self._made[original._p_oid])
        index: TagIndex = self.target.tag_index
        for oid in graph:
            for key in self.tags.of(oid):
                index.note(self._key(key), self._made[oid], True)

    def undo(self) -> None:
        """Nothing that was made is kept."""
        for made in self._all:
            if not made._p_flags & base.EXPIRED:
                self.target.expire(made)

    def _begin(self, original: Any) -> Any:
        """The empty counterpart of an object; None: it is a node of a collection."""
        original._p_activate()
        view = self.target
        if isinstance(original, MemoObject):
            if type(original) is kinds.unknown:
                raise ClassNotFoundError(
                    f"object {uuid_of(original)} of prefix {self.source.name!r} is of a class that this process does not "
                    f"know: import the module that defines it"
                )
            made: Any = Persistent.__new__(type(original))
            base.rebind(made, view)  # a new one stands in the current view
            view.adopt(made)
            return made
        if isinstance(original, (List, Tuple, Set)):
            return type(original)._p_make(view, ())
        if isinstance(original, Dict):
            return Dict._p_make(view)
        if isinstance(original, ByteArray):
            return bytearrays.make(view, original._p_read())
        if isinstance(original, Index):
            return index.make(view)
        if isinstance(original, WeakSet):
            return WeakSet._p_make(view, ())
        return None

    def _fill(self, original: Any, made: Any) -> None:
        if isinstance(original, MemoObject):
            self._fill_memo(original, made)
        elif isinstance(original, (List, Tuple)):
            push(self.target, made._data, self._values(original._p_read(0, len(original))))
        elif isinstance(original, Dict):
            made._p_fill({self._value(key): self._value(value) for key, value in original._p_stored().items()})
        elif isinstance(original, Set):
            made._p_fill({self._value(form) for form in original._p_forms()})
        elif isinstance(original, Index):
            for _, entries, objects in original._p_batches(None, None, False):
                for key, obj in zip(entries, objects, strict=True):
                    made.add(key, self._value(obj))
        elif isinstance(original, WeakSet):
            made._data._p_fill({self._value(form) for form in original._data._p_forms()})

    def _fill_memo(self, original: Any, made: Any) -> None:
        fields = {name: value for name, value in base.state(original).items() if not name.startswith("_X__")}
        values = self._values(fields.values())
        plan = plan_of(type(made))
        if plan is not None:
            for name in dict.fromkeys(name for sort in plan.names.values() for name in sort):
                note(made, name, MISSING)
        base.fill(made, tuple(fields), values)

    def _values(self, values: Iterable[Any]) -> list[Any]:
        return [value if type(value) in _PLAIN else self._value(value) for value in values]

    def _value(self, value: Any) -> Any:
        """What stands for a stored value in the other prefix."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if isinstance(value, Persistent):
            if isinstance(value, ClassRecord):
                return value
            found = self._made.get(value._p_oid)
            return self._expired(value) if found is None else found
        if kind is Deferred:
            return self._deferred(value)
        if kind is tuple or kind is frozenset:
            return kind(map(self._value, value))
        if kind is ObjectKey:
            return ObjectKey(self._value(value.value))
        return convert(self.target, value)

    def _expired(self, value: Any) -> Any:
        """A reference to an object that was deleted is kept, as an expired one."""
        return reference_to(self.target, value)

    def _deferred(self, value: Deferred) -> Any:
        if value.code == WEAK:
            target = stored_identity(value)
            if target is not None and target[0] == self.source.uuid and target[1] in self._made:
                return reference_to(self.target, self._made[target[1]])
        if value.code == MEMO_CLASS:
            return convert(self.target, value.resolve())
        parts = None if value.parts is None else tuple(map(self._value, value.parts))
        return Deferred(self.target, value.code, value.data, parts)

    def _key(self, key: Key) -> Key:
        """A tag's key in the other prefix."""
        if isinstance(key, str) or key[:1] != b"e":
            return key
        found = stored_key(self.target, _enum_atom(self.source, key), enter=True)
        assert found is not None
        return found


def _enum_atom(view: View, key: bytes) -> Atom:
    oid, place = int.from_bytes(key[1:9], "little"), int.from_bytes(key[9:13], "little")
    data = view.class_record(oid).data
    return ("enum", data.key, view.class_record(oid).field_names[place])


def drop(view: View, graphs: Iterable[list[int]], tags: Tags) -> None:
    """Delete graphs that have counterparts. Under the operation lock."""
    oids = [oid for graph in graphs for oid in graph]
    index: TagIndex = view.tag_index
    for oid in oids:
        for key in list(tags.of(oid)):
            index.note(key, view.get(oid), False)
    flushed(view)
    view.forget(oids)
    for oid in oids:
        obj = view.peek(oid)
        if obj is not None and not obj._p_flags & base.EXPIRED:
            view.expire(obj)
        view.deleted.add(oid)
        view.mark_orphan(oid)  # its wrapper has left the map, so this has the next commit delete it


def members_of(view: View, key: str) -> Iterator[int]:
    """The OIDs of the instances of a class, by its key, and of classes derived from it, oldest first, as they are now."""
    index = flushed(view)
    found = kinds.classes.get(key)
    if found is None or class_info(found) is None:
        return iter(())
    return iter(index.instances(index.subclasses(found)).copy())
