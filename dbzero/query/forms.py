"""Queries as data: to bytes and back, identity, signature, likeness. Nothing here runs code that the data brings.

A query's form is nested tuples of strings, numbers and keys, the same for the same question. As bytes it is a MessagePack
array: version, uuid and name of the prefix, form; keys that MessagePack doesn't know stand in an extension, as the
records of the store have them.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec
from xxhash import xxh3_128_digest

from dbzero.collections.index import Index
from dbzero.errors import ClassNotFoundError, Error, PrefixError
from dbzero.model import kinds, scope
from dbzero.model.codec import decode_values, encode_values
from dbzero.model.enums import EnumValueRepr, is_enum_value
from dbzero.model.scope import Context
from dbzero.query.base import Query, Slice
from dbzero.query.expressions import All, Any_, Expression, Instances, Nothing, One, Sub, Tagged
from dbzero.query.find import Find
from dbzero.query.splits import Splitting

_VERSION = 1
_QUERY, _ENUM = "query", "enum"
_KEY = 1  # extension: a key of an index
_pack = msgspec.msgpack.Encoder().encode
_DEPTH = 100  # of nested forms, at most


# --- to bytes --------------------------------------------------------------------------------------------------------


def serialize(value: Any, /) -> bytes:
    """A query, or an enum value, as bytes: for another process, or for later.

    Args:
        value: a query made of tags, classes, objects, ``no``, indexes, slices, sorts and ``split_by``; or an enum value.

    Raises:
        Error: it is neither, or part of it is a Python function, which is never stored: as `filter` has it.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> urgent = db0.deserialize(db0.serialize(db0.find("urgent")))
    >>> @db0.memo
    ... class Task:
    ...     pass
    >>> db0.tags(Task()).add("urgent")
    <ObjectTagManager of 1 object>
    >>> len(urgent)
    1
    >>> db0.close()
    """
    if isinstance(value, Query):
        view = value._p_view()
        home = [0, ""] if view is None else [view.uuid, view.name]
        return _pack([_QUERY, _VERSION, *home, _plain(value._p_form())])
    if is_enum_value(value):
        return _pack([_ENUM, _VERSION, value._key, value._name])
    raise Error(f"serialize() takes a query or an enum value, not {type(value).__name__}")


def _plain(form: Any) -> Any:
    kind = type(form)
    if kind is tuple or kind is list:
        return [_plain(part) for part in form]
    if form is None or kind in (str, bool, float, bytes):
        return form
    if kind is int and -(1 << 63) <= form < 1 << 64:
        return form
    return msgspec.msgpack.Ext(_KEY, encode_values([form])[0])


# --- from bytes ------------------------------------------------------------------------------------------------------


def deserialize(data: bytes, /) -> Any:
    """The live query, or the enum value, that `serialize` made these bytes of.

    Raises:
        TypeError: `data` is not bytes. Error: it is no such thing, or damaged. PrefixError: the query's prefix is not
        open. ClassNotFoundError: a class it names is not known in this process.
    """
    return deserialize_in(scope.live, data)


def deserialize_in(context: Context, data: bytes) -> Any:
    """The same in a context: live, or a snapshot."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"deserialize() takes bytes, not {type(data).__name__}")
    try:
        head, version, *rest = msgspec.msgpack.decode(bytes(data), ext_hook=_unkey)
        if head == _ENUM and version == _VERSION:
            key, name = rest
            if type(key) is str and type(name) is str:
                return EnumValueRepr(key, name, None)
        elif head == _QUERY and version == _VERSION:
            uuid, name, form = rest
            return _Reader(context, uuid, name).query(form, 0)
    except (msgspec.DecodeError, ValueError, TypeError, IndexError) as error:
        raise Error(f"deserialize() cannot read these bytes: {error}") from None
    raise Error("deserialize() cannot read these bytes: they are no query and no enum value, or of a newer version")


def _unkey(code: int, data: memoryview) -> Any:
    if code != _KEY:
        raise ValueError(f"extension {code}")
    (key,) = decode_values(None, bytes(data))  # type: ignore[arg-type]
    return key


class _Reader:
    """Makes a query of its form."""

    def __init__(self, context: Context, uuid: int, name: str) -> None:
        self.context = context
        self.name = name
        self.view = context.view_of_uuid(uuid) if uuid else None
        if uuid and self.view is None:
            raise PrefixError(f"Prefix: {name} not found: a serialized query searches it; open it first")

    def query(self, form: Any, depth: int) -> Query:
        kind = form[0]
        if depth > _DEPTH:
            raise ValueError("nested too deep")
        if kind == "slice":
            _, start, stop, step, source = form
            if type(start) is not int or type(step) is not int or step < 1 or not (stop is None or type(stop) is int):
                raise ValueError("a damaged slice")
            return Slice(self.query(source, depth + 1), start, stop, step)
        if kind == "split":
            _, exclusive, atoms, source = form
            return Splitting(tuple(map(_tag, atoms)), self.query(source, depth + 1), bool(exclusive))
        if kind == "select":
            _, uuid, oid, low, high, null_first = form
            return self.index(uuid, oid).select(low, high, bool(null_first))
        if kind == "sort":
            _, uuid, oid, desc, null_first, source = form
            return self.index(uuid, oid).sort(self.query(source, depth + 1), desc=bool(desc), null_first=bool(null_first))
        order = None
        if kind == "ordered":
            _, order_form, form = form
            order = self.query(order_form, depth + 1)
        return Find(self.context, self.view, self.name or None, self.expression(form, depth + 1), order)

    def index(self, uuid: int, oid: int) -> Index:
        view = self.context.view_of_uuid(uuid)
        if view is None:
            raise PrefixError(f"Prefix: {uuid:016x} not found: a serialized query uses an index there; open it first")
        found = view.get(oid)
        if not isinstance(found, Index):
            raise Error(f"the index that a serialized query uses is gone: object {oid} of prefix {view.name!r}")
        return found

    def expression(self, form: Any, depth: int) -> Expression:
        kind = form[0]
        if depth > _DEPTH:
            raise ValueError("nested too deep")
        if kind == "nothing":
            return Nothing()
        if kind == "tag":
            return Tagged(_checked_atom(form[1:]))
        if kind == "class":
            return Instances(_class(form[1]))
        if kind == "object":
            _, uuid, oid = form
            return One(int(uuid), int(oid))
        if kind == "or":
            return Any_([self.expression(part, depth + 1) for part in form[1:]])
        if kind == "and":
            members = [self.expression(part, depth + 1) for part in form[1:] if part[0] != "not"]
            excluded = [self.expression(part[1], depth + 1) for part in form[1:] if part[0] == "not"]
            if not members:
                raise ValueError("nothing but exclusions")
            return All(members, excluded)
        query = self.query(form, depth + 1)
        view = query._p_view()
        return Sub(query, view is not None and view.context is self.context)


def _class(key: Any) -> type:
    found = kinds.classes.get(key)
    if found is None:
        raise ClassNotFoundError(
            f"a serialized query finds instances of {key}, which is not known in this process: import its module first"
        )
    return found


def _checked_atom(atom: Any) -> tuple[Any, ...]:
    types = {"str": (str,), "enum": (str, str), "object": (int, int), "class": (str,)}[atom[0]]
    if tuple(map(type, atom[1:])) != types:
        raise ValueError("a damaged tag")
    return tuple(atom)


def _tag(atom: Any) -> Any:
    atom = _checked_atom(atom)
    if atom[0] == "str":
        return atom[1]
    if atom[0] == "enum":
        return EnumValueRepr(atom[1], atom[2], None)
    raise ValueError("a tag that rows cannot have")


# --- identity and likeness -------------------------------------------------------------------------------------------


def _text(*parts: bytes) -> str:
    return base64.b32encode(b"".join(parts)).decode().rstrip("=")


def uuid_of_query(query: Query) -> str:
    """The identity of the exact query: 52 characters A-Z, 2-7. Equal for equal queries in every process and state."""
    view = query._p_view()
    data = _pack([0 if view is None else view.uuid, _plain(query._p_form())])
    return _text(xxh3_128_digest(data, 1), xxh3_128_digest(data, 2))


def signature(query: Query) -> str:
    """The same for queries of the same criteria, whatever the order of their terms; slices, sorts and filters don't
    count. 26 characters A-Z, 2-7."""
    return _text(xxh3_128_digest(_pack(_plain(query._p_shape())), 3))


def distance(one: Query, other: Any) -> float:
    """How unlike two queries are, from 0.0 (identical) to 1.0 (nothing in common)."""
    if not isinstance(other, Query):
        raise TypeError(f"compare() takes a query, not {type(other).__name__}")
    if one is other:
        return 0.0
    return _distance(one._p_shape(), other._p_shape())


def _distance(a: tuple[Any, ...], b: tuple[Any, ...]) -> float:
    if a == b:
        return 0.0
    if a[0] == "and" or b[0] == "and":
        if a[0] != b[0] or len(a) != len(b):
            return 1.0
        ours, theirs = [part for part in a[1:] if part not in b], [part for part in b[1:] if part not in a]
        return min(1.0, sum(_distance(x, y) for x, y in zip(ours, theirs, strict=False)))
    some, others = _alternatives(a), _alternatives(b)
    return 1.0 - len(some & others) / max(len(some), len(others))


def _alternatives(form: tuple[Any, ...]) -> set[Any]:
    return set(form[1:]) if form[0] == "or" else {form}


__all__ = [
    "deserialize",
    "deserialize_in",
    "distance",
    "serialize",
    "signature",
    "uuid_of_query",
]
