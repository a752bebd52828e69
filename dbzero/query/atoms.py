"""What can be a tag, and how it is named: an *atom* is a tag as plain data, the same in every prefix and process.

========================  =============================================================================================
atom                      tag
========================  =============================================================================================
("str", text)             a str
("enum", key, name)       an enum value
("object", uuid, OID)     a memo object: prefix uuid and OID; it may be of another prefix, and gone
("class", key)            a memo class as a label
========================  =============================================================================================

A prefix's index knows a str by itself and everything else by a short bytes key (:func:`stored_key`). Enum values are
stored as OID of the enum's record and place, as they are everywhere.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from dbzero.collections import Dict, List, Set, Tuple
from dbzero.errors import ClosedError, Error
from dbzero.model import base, enums, weak
from dbzero.model.base import Persistent
from dbzero.model.enums import EnumType, EnumValue, EnumValueRepr
from dbzero.model.memo import MemoObject, class_info
from dbzero.model.view import View
from dbzero.query.base import Query
from dbzero.query.records import Key

Atom = tuple[Any, ...]

_ENUM = struct.Struct("<QI")
_OBJECT = struct.Struct("<QQ")
_LIMIT = 1 << 48


class Tag:
    """A memo object or a memo class as a tag: what ``as_tag`` returns. Tags of the same thing are equal."""

    __slots__ = ("atom",)
    atom: Atom

    def __init__(self, atom: Atom) -> None:
        object.__setattr__(self, "atom", atom)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("tags cannot be changed")

    def __eq__(self, other: object) -> bool:
        return self.atom == other.atom if isinstance(other, Tag) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.atom)

    def __repr__(self) -> str:
        return f"<Tag {' '.join(map(str, self.atom))}>"


def as_tag(obj: Any, /) -> Tag:
    """A memo object, or a memo class, as a tag or a criterion.

    Args:
        obj: a memo object, a weak or expired reference to one, or a memo class. As a tag a class is a mere label: it
            has nothing to do with which objects are its instances.

    Returns:
        A tag. Tags of the same object are equal, also when the object is gone.

    Raises:
        TypeError: anything else.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Thing:
    ...     pass
    >>> shelf, book = Thing(), Thing()
    >>> db0.tags(book).add(db0.as_tag(shelf))
    <ObjectTagManager of 1 object>
    >>> list(db0.find(db0.as_tag(shelf))) == [book]
    True
    >>> db0.close()
    """
    if class_info(obj) is not None:
        return Tag(("class", obj._p_class.key))
    if isinstance(obj, MemoObject) or weak.is_handle(obj):
        return Tag(object_atom(obj))
    raise TypeError(f"as_tag() needs a memo object or a memo class, not {type(obj).__name__}")


def object_atom(obj: Any) -> Atom:
    """The atom of a memo object, or of a weak or expired reference to one. ClosedError; Error: it is none yet."""
    if weak.is_handle(obj):
        return ("object", *weak.identity(obj))
    if obj._p_flags & base.CLOSED:
        raise ClosedError("Object is no longer accessible: its prefix is closed")
    if obj._p_oid == 0:
        raise Error("an object under construction has no identity before its prefix is chosen")
    return ("object", obj._p_view.records.uuid, obj._p_oid)


def plain_atom(value: Any) -> Atom | None:
    """The atom of a str, an enum value or a Tag; None for everything else."""
    kind = type(value)
    if kind is str:
        return ("str", value)
    if kind is Tag:
        return value.atom  # type: ignore[no-any-return]
    if kind is EnumValue or kind is EnumValueRepr:
        return ("enum", value._key, value._name)
    return None


def tag_atom(value: Any) -> Atom | None:
    """The atom of anything that can be a tag, memo objects included; None for everything else."""
    found = plain_atom(value)
    if found is None and (isinstance(value, MemoObject) or weak.is_handle(value)):
        return object_atom(value)
    return found


def refuse_tag(value: Any) -> Error:
    """The error for what cannot be a tag."""
    if isinstance(value, type):
        what = f"the class {value.__name__}; instances are found by their class anyway, as_tag() makes it a label"
    elif isinstance(value, EnumType):
        what = f"{value!r}; tag with its values"
    else:
        what = f"{value!r} ({type(value).__name__})"
    return Error(
        f"cannot interpret as a tag: {what}; tags are str, enum values, memo objects and what as_tag() returns"
    )


_ITERABLES = (list, tuple, set, frozenset, dict, List, Tuple, Set, Dict)


def expand(values: tuple[Any, ...]) -> Iterator[Atom]:
    """The atoms of the arguments of add() and remove(): tags, queries (their results are the tags), and one level of
    iterables of tags. Error for anything else."""
    for value in values:
        found = tag_atom(value)
        if found is not None:
            yield found
        elif isinstance(value, (type, EnumType, str, bytes, bytearray, memoryview)):
            raise refuse_tag(value)
        elif isinstance(value, Query):
            yield from [object_atom(obj) for obj in value]
        elif isinstance(value, _ITERABLES) or (hasattr(value, "__iter__") and not isinstance(value, Persistent)):
            for inner in value:
                found = tag_atom(inner)
                if found is None:
                    raise refuse_tag(inner)
                yield found
        else:
            raise refuse_tag(value)


def stored_key(view: View, atom: Atom, enter: bool) -> Key | None:
    """The key that a prefix's index knows a tag by.

    Args:
        enter: enter an enum that the prefix lacks in its catalogue, else give None for it. ReadOnlyError.
    """
    kind = atom[0]
    if kind == "str":
        return atom[1]  # type: ignore[no-any-return]
    if kind == "object":
        return b"o" + _OBJECT.pack(atom[1], atom[2])
    if kind == "class":
        return b"c" + atom[1].encode("utf-8", "surrogatepass")  # type: ignore[no-any-return]
    _, key, name = atom
    place = enums.place_of(view, key, name, enter)
    return None if place is None else b"e" + _ENUM.pack(*place)


def check_key(key: Any) -> bool:
    """Whether it is a key that stored_key() could have given."""
    if type(key) is str:
        return True
    if type(key) is not bytes:
        return False
    if key[:1] == b"o":
        return len(key) == 1 + _OBJECT.size and _OBJECT.unpack_from(key, 1)[1] < _LIMIT
    if key[:1] == b"e":
        return len(key) == 1 + _ENUM.size
    return key[:1] == b"c"
