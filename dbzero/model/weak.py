"""Weak references: to objects of the same prefix where asked for, to those of other prefixes always.

Stored: prefix uuid, OID, class key of the target. A weak reference neither counts nor keeps its target alive. Reading
it gives the target itself while it exists, and an :class:`ExpiredReference` from then on. The class key tells apart an
object that was given the OID of one which a crash undid.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from dbzero.errors import ClosedError, Error, PrefixError, ReferenceError
from dbzero.model import base, memo, scope
from dbzero.model.deferred import WEAK, Deferred, admitters, checkers, describers, resolvers
from dbzero.model.uuids import make_uuid

if TYPE_CHECKING:
    from dbzero.model.view import View

_IDENTITY = struct.Struct("<QQ")
_get = object.__getattribute__


class _Handle:
    """Base of what stands for a target: its stored form, and equality by target."""

    __slots__ = ("_p_target",)
    _p_target: Deferred

    def __init__(self, target: Deferred) -> None:
        object.__setattr__(self, "_p_target", target)

    def __hash__(self) -> int:
        return hash(_get(self, "_p_target").data)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, _Handle):
            return bool(_get(self, "_p_target").data == _get(other, "_p_target").data)
        return False

    def __reduce__(self) -> Any:
        raise TypeError(f"a {type(self).__name__} cannot be pickled or copied")


class WeakProxy(_Handle):
    """What ``weak_proxy`` returns: to be stored as a weak reference; attributes and methods are those of its target.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Thing:
    ...     pass
    >>> thing = Thing()
    >>> thing.name = "x"
    >>> proxy = db0.weak_proxy(thing)
    >>> isinstance(proxy, db0.MemoWeakProxy), proxy.name
    (True, 'x')
    >>> db0.close()
    """

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            return _get(self, name)
        return getattr(target_of(self), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(target_of(self), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(target_of(self), name)

    def __repr__(self) -> str:
        return f"<weak proxy of {class_key(self)} instance uuid={uuid_of(self)}>"


class ExpiredReference(_Handle):
    """What a weak reference reads as when its target is gone."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            return _get(self, name)
        raise self.__refusal__()

    def __setattr__(self, name: str, value: Any) -> None:
        raise self.__refusal__()

    def __delattr__(self, name: str) -> None:
        raise self.__refusal__()

    def __refusal__(self) -> ReferenceError:
        return ReferenceError(f"Memo instance expired: the object {uuid_of(self)} was deleted")

    def __repr__(self) -> str:
        return f"<expired reference to {class_key(self)} instance uuid={uuid_of(self)}>"


def reference_to(view: View, obj: Any) -> Deferred:
    """A weak reference, stored in `view`, to a memo object of any prefix. Error: its construction is not finished."""
    if obj._p_flags & base.INIT and not obj._p_flags & base.MATERIALIZED:
        raise Error(
            "Object instance does not exist yet (did you forget to use db0.materialized(self) in constructor ?)"
        )
    home: View = obj._p_view
    key = type(obj)._p_class.key
    if type(obj) is memo.MemoBase:
        code = home.class_code(obj)
        key = home.class_record(code).data.key if code else key
    return Deferred(view, WEAK, _IDENTITY.pack(home.records.uuid, obj._p_oid) + key.encode("utf-8", "surrogatepass"))


def _check(data: bytes) -> None:
    if len(data) <= _IDENTITY.size or not 16 <= _IDENTITY.unpack_from(data)[1] < 1 << 48:
        raise ValueError("a damaged weak reference")
    data[_IDENTITY.size :].decode("utf-8", "surrogatepass")


def find_target(stored: Deferred) -> Any:
    """The target of a weak reference, or None when it is gone.

    PrefixError: its prefix is not open.
    """
    prefix_uuid, oid = _IDENTITY.unpack_from(stored.data)
    home: View | None = stored.view
    if home is None or home.records.uuid != prefix_uuid or home.closed:
        context = scope.live if home is None else home.context
        home = context.view_of_uuid(prefix_uuid)
    if home is None or home.closed:
        raise PrefixError(
            f"Prefix: {prefix_uuid:016x} not found: a reference leads to its object {make_uuid(prefix_uuid, oid)}; "
            f"open that prefix, read-only is enough"
        )
    obj = home.get(oid)
    if not isinstance(obj, memo.MemoObject):
        return None
    return obj if reference_to(stored.view, obj).data == stored.data else None


def proxy_of(stored: Deferred) -> WeakProxy:
    """The proxy for a stored weak reference."""
    return WeakProxy(stored)


def target_of(proxy: WeakProxy) -> Any:
    """The live target of a proxy. ReferenceError: it is gone. PrefixError: its prefix is not open."""
    target = find_target(_get(proxy, "_p_target"))
    if target is None:
        raise ReferenceError(f"Memo instance expired: the object {uuid_of(proxy)} was deleted")
    return target


def _resolve(stored: Deferred) -> Any:
    target = find_target(stored)
    return ExpiredReference(stored) if target is None else target


def uuid_of(handle: WeakProxy | ExpiredReference) -> str:
    """The UUID of the target, which may be gone."""
    return make_uuid(*_IDENTITY.unpack_from(_get(handle, "_p_target").data))


def identity(handle: WeakProxy | ExpiredReference) -> tuple[int, int]:
    """Prefix uuid and OID of the target, which may be gone."""
    prefix_uuid, oid = _IDENTITY.unpack_from(_get(handle, "_p_target").data)
    return prefix_uuid, oid


def stored_identity(stored: Deferred) -> tuple[int, int] | None:
    """The same of a stored weak reference; None: it is a value of another sort."""
    if stored.code != WEAK:
        return None
    prefix_uuid, oid = _IDENTITY.unpack_from(stored.data)
    return prefix_uuid, oid


def class_key(handle: WeakProxy | ExpiredReference) -> str:
    """The key of the target's class."""
    key: str = _get(handle, "_p_target").data[_IDENTITY.size :].decode("utf-8", "surrogatepass")
    return key


def is_handle(value: Any) -> bool:
    """Whether `value` is a weak proxy or an expired reference."""
    return isinstance(value, _Handle)


def stored_form(view: View, handle: Any) -> Deferred:
    """The weak reference that storing a proxy or an expired reference in `view` stores."""
    return Deferred(view, WEAK, _get(handle, "_p_target").data)


def weak_proxy(obj: Any, /) -> WeakProxy:
    """A weak reference to a memo object, to be stored.

    Args:
        obj: a memo instance of any prefix, or another proxy.

    Returns:
        A proxy: assigned to an attribute or put into a collection it is stored as a weak reference, which does not count
        and does not keep the object alive. Reading that gives the object itself, or, when it is gone, an expired
        reference (see :func:`expired`). The proxy's own attributes are those of the object.

    Raises:
        TypeError: `obj` is no memo instance. ReferenceError, ClosedError: it was deleted, or its prefix closed.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Node:
    ...     def __init__(self, name):
    ...         self.name = name
    >>> parent, child = Node("parent"), Node("child")
    >>> child.parent = db0.weak_proxy(parent)
    >>> child.parent is parent, db0.getrefcount(parent)
    (True, 0)
    >>> db0.close()
    """
    if isinstance(obj, _Handle):
        return WeakProxy(_get(obj, "_p_target"))
    if not isinstance(obj, memo.MemoObject):
        raise TypeError(f"weak_proxy() needs a memo object, not a {type(obj).__name__}")
    if obj._p_flags & base.EXPIRED:
        raise ReferenceError("Memo instance expired: a deleted object has no weak references")
    if obj._p_flags & base.CLOSED:
        raise ClosedError("Object is no longer accessible: its prefix is closed")
    return WeakProxy(reference_to(obj._p_view, obj))


def expired(value: Any, /) -> bool:
    """Whether a weak reference's target is gone, or a memo object was deleted. False for every other value.

    >>> import dbzero as db0
    >>> db0.expired(1)
    False
    """
    if isinstance(value, ExpiredReference):
        return True
    if isinstance(value, WeakProxy):
        return find_target(_get(value, "_p_target")) is None
    return isinstance(value, memo.MemoObject) and bool(value._p_flags & base.EXPIRED)


def _admit(view: Any, value: Any) -> Any:
    return stored_form(view, value) if isinstance(value, _Handle) else NotImplemented


def _describe(value: Any) -> tuple[int, bytes] | None:
    return (WEAK, _get(value, "_p_target").data) if isinstance(value, _Handle) else None


admitters.insert(0, _admit)
describers.insert(0, _describe)
resolvers[WEAK] = _resolve
checkers[WEAK] = _check
