"""Finding objects by identity: uuid, fetch, exists, and small questions about one object."""

from __future__ import annotations

from typing import Any

from dbzero.errors import Error, PrefixError, ReferenceError
from dbzero.model import base, scope, weak
from dbzero.model.base import Persistent, operation
from dbzero.model.catalog import ENUM, ClassRecord
from dbzero.model.enums import EnumType, EnumValue, type_prefix
from dbzero.model.instances import enter_classes, instances
from dbzero.model.memo import MemoBase, MemoObject, class_info, uuid_of
from dbzero.model.uuids import parse_uuid
from dbzero.model.view import View
from dbzero.query.base import Query, identity_of
from dbzero.session.api import PrefixMetaData
from dbzero.session.deletion import pending_counts
from dbzero.session.workspace import active
from dbzero.storage.discovery import name_of as discover_uuid


def uuid(obj: Any, /) -> str:
    """The identity of a memo object, or of the target of a weak or expired reference: 24 characters A-Z, 2-7, the same in every process and for ever.
    Of a query: 52 characters, the same for equal queries in every process and state.

    Raises:
        Error: `obj` is neither a memo instance nor a query, or its `__init__` has not finished.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Thing:
    ...     pass
    >>> thing = Thing()
    >>> db0.fetch(db0.uuid(thing)) is thing
    True
    >>> db0.close()
    """
    active()
    if weak.is_handle(obj):
        return weak.uuid_of(obj)
    if isinstance(obj, Query):
        return identity_of(obj)
    if isinstance(obj, Persistent):
        if obj._p_flags & base.EXPIRED:
            raise ReferenceError("Object is no longer accessible: it was deleted, and its UUID leads nowhere")
        if obj._p_flags & base.CLOSED:
            obj._p_activate()
    return uuid_of(obj)


def fetch(identifier: Any, expected_type: Any = None, prefix: str | None = None) -> Any:
    """The object with a UUID, or the instance of a singleton class.

    Args:
        identifier: UUID, or a singleton memo class. expected_type: memo class that the object must be an instance of; the two may be swapped.
        prefix: where to look for a singleton; by default the class's own prefix or the current one. Ignored with a UUID, which names its prefix.

    Returns:
        The live Python object: always the same one while it is alive.

    Raises:
        ReferenceError: no such object. Error: malformed UUID, wrong type, no singleton class, no instance. PrefixError: unknown prefix.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo(singleton=True)
    ... class Config:
    ...     pass
    >>> config = Config()
    >>> db0.fetch(Config) is config, db0.fetch(db0.uuid(config)) is config
    (True, True)
    >>> db0.close()
    """
    if expected_type is None:
        obj = base.find_live(identifier)
        if obj is not None:
            return obj
    identifier, expected_type = swapped(identifier, expected_type)
    if isinstance(identifier, str):
        obj = _by_uuid(identifier)
        if obj is None:
            raise ReferenceError(f"Memo instance expired: no object has the UUID {identifier}")
        require(obj, expected_type)
        return obj
    obj = _singleton(identifier, prefix)
    if obj is None:
        raise Error(f"Singleton instance does not exist: {identifier.__qualname__}")
    require(obj, expected_type)
    return obj


def exists(identifier: Any, expected_type: Any = None, prefix: str | None = None) -> bool:
    """Whether `fetch` would find the object. Malformed UUIDs and unknown prefixes give False.

    Raises Error when `identifier` is neither a str nor a class.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo(singleton=True)
    ... class Config:
    ...     pass
    >>> db0.exists(Config), db0.exists("no UUID")
    (False, False)
    >>> config = Config()
    >>> db0.exists(Config), db0.exists(db0.uuid(config))
    (True, True)
    >>> db0.close()
    """
    identifier, expected_type = swapped(identifier, expected_type)
    if isinstance(identifier, str):
        try:
            obj = _by_uuid(identifier)
        except PrefixError:
            return False
        except Error as error:
            if "Invalid UUID" in str(error):
                return False
            raise
        return obj is not None and matches(obj, expected_type)
    if not isinstance(identifier, type):
        raise Error(f"Invalid argument type: {type(identifier).__name__}; give a UUID or a memo class")
    active()
    info = class_info(identifier)
    if info is None or not info.singleton:
        return False
    try:
        return _singleton(identifier, prefix) is not None
    except PrefixError:
        return False


def find_singleton(cls: Any, prefix: str | None = None) -> Any:
    """The instance of a singleton class, or None.

    Args:
        cls: the class. prefix: where to look; None: the class's own prefix or the current one.

    Raises Error when it is no singleton class, PrefixError when `prefix` is not open.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo(singleton=True)
    ... class Config:
    ...     pass
    >>> db0.find_singleton(Config)
    >>> config = Config()
    >>> db0.find_singleton(Config) is config
    True
    >>> db0.close()
    """
    return _singleton(cls, prefix)


def swapped(identifier: Any, expected: Any) -> tuple[Any, Any]:
    """(identifier, expected type), which may be given the other way round."""
    if isinstance(expected, str) and isinstance(identifier, type):
        return expected, identifier
    return identifier, expected


def matches(obj: Any, expected: Any) -> bool:
    """Whether an object is of the expected type; None expects nothing."""
    return expected is None or expected is MemoBase or isinstance(obj, expected)


def require(obj: Any, expected: Any) -> None:
    """Raise Error when an object is not of the expected type, or that is no memo class."""
    if expected is not None and class_info(expected) is None:
        raise Error(f"the expected type {expected!r} is not a memo class")
    if not matches(obj, expected):
        raise Error(f"Object type mismatch: it is a {type(obj).__qualname__}, not a {expected.__qualname__}")


def _singleton(cls: Any, prefix: str | None) -> Any:
    if not isinstance(cls, type):
        raise Error(f"Invalid argument type: {type(cls).__name__}; give a UUID or a memo class")
    active()
    info = class_info(cls)
    if info is None or not info.singleton:
        raise Error(f"Not a dbzero singleton type: {cls.__qualname__}")
    if prefix is not None:
        view: View = active().get(prefix).view
    else:
        try:
            view = scope.view_of(info.prefix, False)
        except PrefixError:
            return None
    with operation:
        return view.singleton(cls)


def _by_uuid(text: str) -> Any:
    workspace = active()
    prefix_uuid, oid = parse_uuid(text)
    view = scope.view_of_uuid(prefix_uuid)
    if view is None:
        name = discover_uuid(workspace.root, prefix_uuid)
        if name is None:
            raise PrefixError(f"the prefix of the object {text} is not below {workspace.root}")
        view = workspace.open(name, writable=False, make_current=False).view
    return object_of(view, oid)


def object_of(view: View, oid: int) -> Any:
    """The memo object or the class record with that OID, or None."""
    obj = view.get(oid)
    if isinstance(obj, MemoObject):
        return view.migrated(obj)
    return obj if isinstance(obj, ClassRecord) and not obj.data.flags & ENUM else None


def get_prefix_of(obj: Any, /) -> PrefixMetaData:
    """Name and identity of the prefix that an object, a collection, a UUID or a statically scoped class belongs to. TypeError for anything else.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> db0.get_prefix_of(db0.list()).name
    'p'
    >>> db0.close()
    """
    workspace = active()
    if isinstance(obj, Persistent):
        obj._p_activate() if obj._p_flags & base.CLOSED else None
        records = obj._p_view.records
        return PrefixMetaData(records.name, records.uuid)
    if isinstance(obj, str):
        try:
            prefix_uuid, _ = parse_uuid(obj)
        except Error:
            raise TypeError(f"{obj!r} is no UUID") from None
        view = scope.view_of_uuid(prefix_uuid)
        name = view.name if view is not None else discover_uuid(workspace.root, prefix_uuid)
        if name is not None:
            return PrefixMetaData(name, prefix_uuid)
    if isinstance(obj, EnumValue) and obj._prefix is not None:
        return PrefixMetaData(*obj._prefix)
    if isinstance(obj, Query):
        view = obj._p_view()
        if view is not None:
            return PrefixMetaData(view.name, view.uuid)
    info = class_info(obj)
    scoped = info.prefix if info is not None else type_prefix(obj) if isinstance(obj, EnumType) else None
    if scoped is not None:
        records = scope.view_of(scoped, False).records
        return PrefixMetaData(records.name, records.uuid)
    raise TypeError(f"{obj!r} belongs to no prefix")


def getrefcount(obj: Any, /) -> int:
    """How many stored objects refer to a memo object strongly, as of the last commit plus what is pending in loaded objects.

    For a memo class: how many instances it has on its own prefix or the current one, those of derived classes not
    included, and how many stored references to the class itself there are. Takes a walk over the prefix.

    Raises Error for values that are not stored objects.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Thing:
    ...     pass
    >>> thing = Thing()
    >>> things = db0.list([thing, thing])
    >>> db0.getrefcount(thing), db0.getrefcount(Thing)
    (2, 1)
    >>> db0.close()
    """
    info = class_info(obj)
    if info is not None:
        view = scope.view_of(info.prefix, False)
        enter_classes(view)
        record = view.find_class(obj)
        if record is None:
            return 0
        references = getrefcount(record) - 1  # the catalogue's
        return references + sum(1 for _ in instances(view, record._p_oid, derived=False))
    if not isinstance(obj, (MemoObject, ClassRecord)):
        raise Error(f"Unable to retrieve ref count for type: {type(obj).__name__}; give a memo object or class")
    return references_to(obj)


def references_to(obj: Any) -> int:
    """Stored references to any stored object, pending ones included."""
    obj._p_activate()
    view = obj._p_view
    with operation:
        count = int(view.records.refcount(obj._p_oid, view.state))
        return count + pending_references(view, obj._p_oid)


def pending_references(view: View, oid: int) -> int:
    """Difference that uncommitted changes make to an object's stored reference count."""
    return pending_counts(view)[oid]


__all__ = ["exists", "fetch", "find_singleton", "get_prefix_of", "getrefcount", "uuid"]
