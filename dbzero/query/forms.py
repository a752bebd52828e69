"""Queries as bytes and back. Nothing here runs code that the bytes bring.

The bytes are a MessagePack array: what it is, version, uuid and name of the prefix, form (:mod:`dbzero.query.identity`).
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from dbzero.collections.index import Index
from dbzero.errors import ClassNotFoundError, Error, PrefixError
from dbzero.model import kinds, scope
from dbzero.model.codec import make_decoder
from dbzero.model.enums import EnumValueRepr, is_enum_value
from dbzero.model.scope import Context
from dbzero.query.base import Query, Slice
from dbzero.query.expressions import All, Any_, Expression, Instances, Nothing, One, Sub, Tagged
from dbzero.query.find import Find
from dbzero.query.identity import pack
from dbzero.query.managed import ManagedIndex, managed_in
from dbzero.query.search import Match, Matched, Term
from dbzero.query.splits import Objects, Splitting

_VERSION = 1
_QUERY, _ENUM = "query", "enum"
_DEPTH = 100  # of nested forms, at most
_decode_bounds = make_decoder(None)
_DAMAGE = (msgspec.MsgspecError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, struct.error)


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
        return pack([_QUERY, _VERSION, *home, value._p_form()])
    if is_enum_value(value):
        return pack([_ENUM, _VERSION, value._key, value._name])
    raise Error(f"serialize() takes a query or an enum value, not {type(value).__name__}")


# --- from bytes ------------------------------------------------------------------------------------------------------


def deserialize(data: bytes, /) -> Any:
    """The live query, or the enum value, that `serialize` made these bytes of.

    Raises:
        TypeError: `data` is not bytes. Error: it is no such thing, or damaged. PrefixError: the query's prefix is not
        open. ClassNotFoundError: a class it names is not known in this process.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> len(db0.deserialize(db0.serialize(db0.find("urgent", db0.no("done")))))
    0
    >>> db0.close()
    """
    return deserialize_in(scope.live, data)


def deserialize_in(context: Context, data: bytes) -> Any:
    """The same in a context: live, or a snapshot."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"deserialize() takes bytes, not {type(data).__name__}")
    try:
        head, version, *rest = msgspec.msgpack.decode(bytes(data))
        if head == _ENUM and version == _VERSION:
            key, name = rest
            if type(key) is str and type(name) is str:
                return EnumValueRepr(key, name, None)
        elif head == _QUERY and version == _VERSION:
            uuid, name, form = rest
            return _Reader(context, uuid, name).query(form, 0)
    except Error:
        raise
    except _DAMAGE as error:
        raise Error(f"deserialize() cannot read these bytes: {error}") from None
    raise Error("deserialize() cannot read these bytes: they are no query and no enum value, or of a newer version")


def check(data: bytes) -> None:
    """ValueError when these bytes can't be a serialized query."""
    try:
        head = msgspec.msgpack.decode(data)
    except _DAMAGE as error:
        raise ValueError(f"a damaged query: {error}") from None
    if type(head) is not list or len(head) != 5 or head[0] != _QUERY:
        raise ValueError("a damaged query")


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
            _, uuid, oid, bounds, null_first = form
            low, high = _decode_bounds(bounds)
            return self.index(uuid, oid).select(low, high, bool(null_first))
        if kind == "sort":
            _, uuid, oid, desc, null_first, source = form
            return self.index(uuid, oid).sort(
                self.query(source, depth + 1), desc=bool(desc), null_first=bool(null_first)
            )
        if kind == "select field":
            _, uuid, key, name, bounds, null_first = form
            low, high = _decode_bounds(bounds)
            return self.managed(uuid, key, name).select(low, high, bool(null_first))
        if kind == "sort field":
            _, uuid, key, name, desc, null_first, source = form
            return self.managed(uuid, key, name).sort(
                self.query(source, depth + 1), desc=bool(desc), null_first=bool(null_first)
            )
        if kind == "objects":
            return Objects(self.query(form[1], depth + 1))
        if kind == "find":
            _, home, criteria, *orders = form
            order = self.query(orders[0], depth + 1) if orders else None
            view = self.view if type(home) is int else None
            name = home if type(home) is str else None
            return Find(self.context, view, name, self.expression(criteria, depth + 1), order)
        raise ValueError(f"a query of unknown kind {kind!r}")

    def managed(self, uuid: int, key: Any, name: Any) -> ManagedIndex:
        view = self.context.view_of_uuid(uuid)
        if view is None:
            raise PrefixError(f"Prefix: {uuid:016x} not found: a serialized query uses an index there; open it first")
        return managed_in(view, _class(key), name)

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
        if kind == "match":
            _, terms, some, fields = form
            made = tuple([Term(tuple(map(str, found)), bool(prefix)) for found, prefix in terms])
            if not made or not all(term.words for term in made):
                raise ValueError("a search for nothing")
            return Matched(Match(made, bool(some), tuple(map(str, fields[0])) if fields else None))
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
