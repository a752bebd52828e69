"""Small helpers and questions about one object or class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dbzero.errors import Error, ReferenceError
from dbzero.model import base
from dbzero.model.base import Persistent, operation
from dbzero.model.memo import MemoObject, class_info, stored_fields, uuid_of


def assign(*objects: Any, **attributes: Any) -> None:
    """Set every given attribute on every given object, in order. What was set before a failure stays set.

    Raises:
        Error: an attribute cannot be set: no memo object, or a value that cannot be stored.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Thing:
    ...     pass
    >>> one, two = Thing(), Thing()
    >>> db0.assign(one, two, size=5)
    >>> one.size + two.size
    10
    >>> db0.close()
    """
    for obj in objects:
        for name, value in attributes.items():
            if not isinstance(obj, MemoObject):
                raise Error(f"Failed to set attribute {name!r}: {type(obj).__qualname__} is no memo class")
            try:
                setattr(obj, name, value)
            except Exception as error:
                raise Error(f"Failed to set attribute {name!r}: {error}") from error


def touch(*objects: Any) -> None:
    """Mark memo objects as modified without changing them: the next commit writes them again.

    Raises TypeError for anything but memo objects (then none is marked), ReadOnlyError, ReferenceError, ClosedError.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> numbers = db0.memo(type("Numbers", (), {}))()
    >>> db0.commit(); state = db0.get_state_num(finalized=True)
    >>> db0.touch(numbers)
    >>> db0.commit(); db0.get_state_num(finalized=True) - state
    1
    >>> db0.close()
    """
    for obj in objects:
        if not isinstance(obj, MemoObject):
            raise TypeError(f"touch() takes memo objects, not {type(obj).__name__}")
    with operation:
        for obj in objects:
            obj._p_changed()


def is_singleton(value: Any) -> bool:
    """Whether `value` is a singleton memo class or the instance of one.

    >>> import dbzero as db0
    >>> @db0.memo(singleton=True)
    ... class Config:
    ...     pass
    >>> db0.is_singleton(Config), db0.is_singleton(5)
    (True, False)
    """
    info = class_info(value if isinstance(value, type) else type(value))
    return info is not None and info.singleton


def get_type(value: Any) -> type:
    """The Python type of a value. ReferenceError when it is a deleted object.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Thing:
    ...     pass
    >>> db0.get_type(Thing()) is Thing
    True
    >>> db0.close()
    """
    if isinstance(value, Persistent) and value._p_flags & base.EXPIRED:
        raise ReferenceError("Object is no longer accessible: it was deleted")
    return type(value)


def get_type_info(cls: type) -> dict[str, Any]:
    """What a memo class was declared with: {"singleton": bool, "prefix": str or None}.

    Raises TypeError when it is no class, Error when it is no memo class.

    >>> import dbzero as db0
    >>> db0.get_type_info(db0.memo(type("Thing", (), {})))
    {'singleton': False, 'prefix': None}
    """
    if not isinstance(cls, type):
        raise TypeError(f"get_type_info() takes a class, not {type(cls).__name__}")
    info = class_info(cls)
    if info is None:
        raise Error(f"{cls.__qualname__} is not a memo class")
    return {"singleton": info.singleton, "prefix": info.prefix}


def describe(obj: Any) -> dict[str, Any]:
    """How a memo object is stored: its UUID, type, size in bytes of its encoded state, and the types of its fields.

    For diagnosis; the content may change. Raises TypeError when it is no memo object.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Thing:
    ...     pass
    >>> thing = Thing()
    >>> thing.size = 5
    >>> db0.describe(thing)["field_layout"]["pos_vt"]
    ['int']
    >>> db0.close()
    """
    if not isinstance(obj, MemoObject):
        raise TypeError(f"describe() takes a memo object, not {type(obj).__name__}")
    obj._p_activate()
    with operation:
        payload, _ = obj._p_encode()
        fields: Mapping[str, Any] = stored_fields(obj)
        return {
            "uuid": uuid_of(obj),
            "type": type(obj),
            "size_of": len(payload),
            "field_layout": {
                "pos_vt": [type(value).__name__ for value in fields.values()],
                "index_vt": {},
                "kv_index": {},
            },
        }


def get_address(obj: Any) -> int:
    """The number of a stored object in its prefix. TypeError for anything else.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Thing:
    ...     pass
    >>> one, other = Thing(), Thing()
    >>> db0.get_address(one) < db0.get_address(other)
    True
    >>> db0.close()
    """
    if not isinstance(obj, Persistent):
        raise TypeError(f"{type(obj).__name__} values have no address")
    return int(obj._p_oid)


def getattr_as(obj: Any, name: str, expected: type) -> Any:
    """An attribute's value, for members whose class may be unknown in this process: those are ``MemoBase`` objects.

    Args:
        obj: a memo object. name: of the attribute. expected: memo class or ``MemoBase``; not enforced.

    Raises AttributeError when there is no such attribute, TypeError when `expected` is no class.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Thing:
    ...     pass
    >>> thing = Thing()
    >>> thing.size = 5
    >>> db0.getattr_as(thing, "size", db0.MemoBase)
    5
    >>> db0.close()
    """
    if not isinstance(expected, type):
        raise TypeError(f"expected a class, not {type(expected).__name__}")
    return getattr(obj, name)


def build_flags() -> str:
    """Letters that say how the engine was built: "D" for a debug build, else empty.

    >>> import dbzero as db0
    >>> db0.build_flags()
    ''
    """
    return ""
