"""What every stored collection and every node of its trees has in common.

State lives in one field, ``_data``. Reading it loads a ghost first (the C base type sees to that); writing it goes
through the field's descriptor and so neither converts nor marks anything. Two rules keep this safe:

* A node may turn back into a ghost at any moment between operations, never within one. So nothing keeps what
  ``node._data`` returned beyond the operation, or across user code: it is fetched again.
* An operation that may change something starts with :func:`begin`, or by marking its collection, since the first
  change may move the view to a newer state. Each node is marked before it is changed, which :func:`touch` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NoReturn, TypeVar, cast

from dbzero.errors import BadPrefixError, CorruptError
from dbzero.model import base
from dbzero.model.base import NEW, dirty_objects, move, operation, set_leaf
from dbzero.model.codec import ATOMS, decode_values, encode_values
from dbzero.model.kinds import FIRST_OID
from dbzero.model.view import View

LEAF = 128  # most values in a leaf, and in a collection that is a single record
FANOUT = 128  # most children of an inner node
SPARSE = 4  # a node filled to less than 1/SPARSE is merged with a neighbour if both together fill at most 3/4
DEPTH = range(40)  # no tree is deeper: a longer walk has met a cycle
set_leaf(LEAF)


class Stored(base.Stored):  # type: ignore[misc]
    """Base of collections and nodes: a persistent object whose whole state is ``_data``."""

    __slots__ = ()

    _data: Any
    KIND: ClassVar[int]

    def _p_clear(self) -> None:
        set_data(self, None)

    def _p_carried(self) -> Any:
        """What another prefix is given for it as an item of a tuple that goes there: builtin containers, so a copy."""
        return self

    def _p_save(self) -> Any:
        """A copy of the state, for an atomic block that may have to put it back."""
        return copied(self._data)

    def _p_restore(self, saved: Any) -> None:
        """Put a state back that _p_save() copied; it is given once."""
        set_data(self, saved)


def copied(data: Any) -> Any:
    """A copy of a state: of its containers, not of what they hold, which changes of the state replace. What is only
    derived, in front of a tree, starts empty."""
    kind: Any = type(data)
    if isinstance(data, base.Persistent):
        return data
    names = _slots.get(kind)
    if names is None:
        names = _slots[kind] = tuple(getattr(kind, "__slots__", ()))
    if not names:
        return data.copy() if hasattr(data, "copy") else data
    made = kind.__new__(kind)
    for name in names:
        value = getattr(data, name)
        if name == "front":
            value = type(value)()
        elif not isinstance(value, base.Persistent) and hasattr(value, "copy"):
            value = value.copy()
        setattr(made, name, value)
    return made


_slots: dict[type, tuple[str, ...]] = {}

set_data: Callable[[Stored, Any], None] = cast(Any, base.Stored.__dict__["_data"]).__set__

__all__ = [
    "ATOMS",
    "DEPTH",
    "FANOUT",
    "LEAF",
    "SPARSE",
    "Stored",
    "begin",
    "carried",
    "copied",
    "corrupt",
    "create",
    "is_referenced",
    "member",
    "moved",
    "natural",
    "pack",
    "refuse_move",
    "relieve",
    "set_data",
    "touch",
    "unpack",
]

S = TypeVar("S", bound=Stored)


def create(view: View, cls: type[S], data: Any) -> S:
    """A new persistent object of `cls` with state `data` in `view`. Call it inside an operation."""
    obj = cls.__new__(cls)
    set_data(obj, data)
    view.adopt(obj)
    return obj


def begin(obj: Stored) -> None:
    """Call it first in an operation that may change `obj` or its nodes: nothing read before is used after it.

    The first change of a view may move it to a newer state; what an operation decides by must be of that state.
    """
    view = obj._p_view
    if not view.dirty_count and view.writable:
        view._first_dirty()


def touch(node: Stored) -> Any:
    """Mark `node` changed, loading it if it is a ghost, and return its state. Call it inside an operation.

    Raises ReadOnlyError, ClosedError or ReferenceError, with nothing changed, when the node can't be written.
    """
    node._p_changed()
    return node._data


def refuse_move(obj: Stored, view: View) -> NoReturn:
    """A collection with items was assigned to an object of another prefix."""
    kind = type(obj).__name__.lower()
    raise BadPrefixError(
        f"a {kind} of prefix {obj._p_view.name!r} with items cannot be moved to another prefix, {view.name!r}; assign a copy"
    )


def moved(obj: S, view: View, counterpart: Callable[[], S], copy: bool = False) -> S:
    """What another prefix's `view` stores when `obj` is assigned to one of its objects: `obj` itself, which takes the
    place of the `counterpart` made there.

    Inside an atomic block, which must be able to put everything back, it is the counterpart that is stored.

    Raises BadPrefixError when something stored refers to `obj`, which then has to stay; with `copy` the counterpart is
    stored instead, because nobody can tell the two apart.
    """
    with operation:
        obj._p_activate()
        home: View = obj._p_view
        if not home.writable or is_referenced(obj):
            if copy:
                return counterpart()
            kind = type(obj).__name__.lower()
            raise BadPrefixError(
                f"a {kind} of prefix {home.name!r} that is stored there cannot be moved to another prefix, "
                f"{view.name!r}; assign a copy"
            )
        made = counterpart()
        data = made._data
        if not move(obj, made):
            return made
        set_data(obj, data)
        return obj


def carried(item: Any) -> Any:
    """What another prefix is given for an item of a tuple that goes there."""
    return item._p_carried() if isinstance(item, Stored) else item


def is_referenced(obj: Stored) -> bool:
    """Whether something stored refers to `obj`, pending changes included."""
    view: View = obj._p_view
    oid = obj._p_oid
    view.flush()
    count = view.records.refcount(oid, view.state)
    for dirty in dirty_objects(view):
        count += dirty._p_encode()[1].count(oid)
        if dirty._p_flags & NEW:
            continue
        count -= list(view.records.references(dirty._p_oid, view.state)).count(oid)
    return bool(count > 0)


def relieve(obj: Stored) -> None:
    """Evict when more is loaded than the view's limit. Inside an operation nothing is evicted, so what walks many
    nodes calls this between its operations."""
    view = obj._p_view
    limit = view.limit
    if limit and view.weight > limit and not operation.inside():
        view.evict(limit - limit // 8)


def corrupt(node: Stored, what: str) -> CorruptError:
    """The error for damage found in `node`."""
    where = f"prefix {node._p_view.name!r}, object {node._p_oid}"
    return CorruptError(
        f"{where}: damaged {type(node).__name__} record ({what}); verify the prefix and restore it from a backup"
    )


def pack(kind: int, values: list[Any]) -> tuple[bytes, list[int]]:
    """Record payload of `kind` with `values`, and the OIDs it holds."""
    body, refs = encode_values(values)
    return bytes((kind,)) + body, list(refs)


def unpack(node: Stored, payload: bytes, least: int) -> list[Any]:
    """The values of a payload made by :func:`pack`: at least `least` of them.

    Raises CorruptError when the record is of another kind or can't be decoded.
    """
    if not payload or payload[0] != node.KIND:
        raise corrupt(node, f"kind {payload[0] if payload else None} instead of {node.KIND}")
    values = decode_values(node._p_view, payload[1:])
    if len(values) < least:
        raise corrupt(node, f"{len(values)} values, expected {least} or more")
    return values


def member(node: Stored, cls: type[S], oid: Any) -> S:
    """The node of class `cls` that `node` holds by its OID, as a ghost if it isn't in memory.

    CorruptError when that can't be."""
    found: S = node._p_view.ghost(cls, natural(node, oid, FIRST_OID, (1 << 48) - 1))
    if type(found) is not cls:
        raise corrupt(node, f"it holds a {type(found).__name__} as a {cls.__name__}")
    return found


def natural(node: Stored, value: Any, least: int = 0, most: int = 1 << 62) -> int:
    """`value` if it is an int in [least, most], else CorruptError."""
    if type(value) is not int or not least <= value <= most:
        raise corrupt(node, f"number {value!r} out of range")
    return value
