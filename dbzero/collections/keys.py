"""Keys of dicts and elements of sets: how they compare, hash and are stored.

Keys compare by value, memo instances by identity, whatever ``__eq__`` or ``__hash__`` their class defines. So a key is
turned into its *native form*, a Python object whose own hash and equality are right and run no user code: atoms as
they are, tuples as builtin tuples of native forms, memo instances as they are or, when their class defines equality,
wrapped in an :class:`ObjectKey`, and what is made when it is read (memo objects of other prefixes, functions, classes,
Enum members) as the :class:`~dbzero.model.deferred.Deferred` that is stored. Numbers that are equal are one key, as in
Python.

The position of a key in a tree comes from :func:`stable_hash`, which is the same in every process. Numbers hash as
Python hashes them (unsalted, equal for equal numbers of any type), so neighbouring integers are neighbours in the
tree; the rest hash by XXH3 (Y. Collet, xxhash.com).
"""

from __future__ import annotations

import datetime as dt
import decimal
import struct
from collections.abc import Callable, Iterable
from typing import Any

from xxhash import xxh3_64_intdigest

from dbzero.collections.nodes import ATOMS
from dbzero.errors import UnsupportedTypeError
from dbzero.model import base, deferred, named, weak
from dbzero.model.arrays import scalar
from dbzero.model.base import MemoMeta, Persistent
from dbzero.model.codec import EXTENDED, encode_values
from dbzero.model.deferred import FROZENSET, TUPLE, Deferred
from dbzero.model.memo import MemoObject
from dbzero.model.values import convert
from dbzero.model.view import View

PLAIN = ATOMS | EXTENDED  # their own native form
_NAN_HASH = 0x7FF8_0000
_NONE_HASH = 0x6E6F_6E65
_REFERENCE = 1 << 62  # keeps objects apart from small ints
_BASES: tuple[Any, ...] = (int, float, str, bytes)
_UNHASHABLE = (list, dict, set, bytearray)


class ObjectKey:
    """Native form of an object whose class defines its own equality or hash."""

    __slots__ = ("value",)

    def __init__(self, value: Persistent) -> None:
        self.value = value

    def __hash__(self) -> int:
        return hash(self.value._p_oid)

    def __eq__(self, other: object) -> bool:
        return type(other) is ObjectKey and other.value is self.value


def native(view: View, key: Any) -> Any:
    """The native form of `key`, for looking it up in `view`.

    Raises TypeError ("unhashable type: ...") for containers that can change.
    """
    kind = type(key)
    if kind in PLAIN:
        return key
    if kind is tuple:
        return tuple([native(view, item) for item in key])
    if kind is frozenset:
        return frozenset([native(view, item) for item in key])
    if kind is Deferred:
        if key.code == TUPLE:
            return tuple([native(view, item) for item in key.parts])
        if key.code == FROZENSET:
            return frozenset([native(view, item) for item in key.parts])
        return key
    if isinstance(key, Persistent):
        plain = getattr(kind, "_p_native", None)
        if plain is not None:
            return plain(key, view)
        if isinstance(key, MemoObject) and key._p_view.records.uuid != view.records.uuid:
            return weak.reference_to(view, key)
        if kind.__hash__ is Persistent.__hash__ and kind.__eq__ is Persistent.__eq__:
            return key
        return ObjectKey(key)
    if kind.__hash__ is None or isinstance(key, _UNHASHABLE):
        raise TypeError(f"unhashable type: {kind.__name__!r}")
    for plain in _BASES:
        if isinstance(key, plain):
            return plain(key)  # equal as Python sees it; only exact types can be stored
    if isinstance(key, tuple):
        return tuple([native(view, item) for item in key])
    plain = scalar(key)
    if plain is not key:
        return native(view, plain)
    try:
        return _described(view, key)
    except UnsupportedTypeError:
        return key  # nothing like it is stored


def _described(view: View, key: Any) -> Any:
    """The native form of a value that is stored by description, the key itself if it isn't. UnsupportedTypeError."""
    if weak.is_handle(key):
        return weak.stored_form(view, key)
    if isinstance(key, MemoMeta) and "_p_class" in vars(key):
        return named.class_reference(view, key)
    described = deferred.describe(key)
    return key if described is None else Deferred(view, *described)


def admit(view: View, key: Any) -> Any:
    """The native form of `key`, for storing it in `view`.

    Raises TypeError ("unhashable type: ...") for containers that can change, UnsupportedTypeError for what can't be
    stored.
    """
    kind = type(key)
    if kind in PLAIN:
        if kind is decimal.Decimal:
            hash(key)  # a signalling NaN has none
        elif (kind is dt.datetime or kind is dt.time) and key.tzinfo is not None:
            return convert(view, key)  # a time zone that can be stored
        return key
    if kind is tuple:
        return tuple([admit(view, item) for item in key])
    if kind is frozenset:
        return frozenset([admit(view, item) for item in key])
    form = native(view, key)
    if isinstance(key, Persistent):
        if not hasattr(kind, "_p_native"):
            convert(view, key)
        return form
    if type(form) is Deferred:
        stored = convert(view, key)
        return stored if type(stored) is Deferred else form
    if type(form) in PLAIN and scalar(key) is not key:
        return form
    if kind is set or isinstance(key, (int, float, str, bytes, tuple)):
        raise UnsupportedTypeError(
            f"a {kind.__name__} cannot be a key: use exact builtins, dates, Decimal, tuples of them or memo objects"
        )
    return convert(view, key)


def reveal(form: Any) -> Any:
    """The key as users see it."""
    kind = type(form)
    if kind is ObjectKey:
        return form.value
    if kind is tuple:
        return tuple([reveal(item) for item in form])
    if kind is frozenset:
        return frozenset([reveal(item) for item in form])
    if kind is Deferred:
        return form.resolve()
    return form


def reveal_all(forms: Iterable[Any]) -> list[Any]:
    """The keys as users see them."""
    return [form if type(form) in ATOMS else reveal(form) for form in forms]


def _xxh(data: bytes, seed: int = 0) -> int:
    return xxh3_64_intdigest(data, seed) >> 1  # 63 bits: what the codec stores natively


def _hash_of_others(form: Any) -> int:
    """stable_hash() of what C leaves to Python: all but int, bool and ordinary str."""
    kind = type(form)
    if kind is str:
        return xxh3_64_intdigest(form.encode("utf-8", "surrogatepass")) >> 1
    if kind is float or kind is decimal.Decimal or kind is complex:
        return hash(form) if form == form else _NAN_HASH
    if kind is bytes:
        return _xxh(form, 2)
    if form is None:
        return _NONE_HASH
    if kind is tuple:
        return _xxh(b"".join([struct.pack("<Q", stable_hash(item) & 0xFFFF_FFFF_FFFF_FFFF) for item in form]), 3)
    if kind is frozenset:
        hashes = sorted([stable_hash(item) & 0xFFFF_FFFF_FFFF_FFFF for item in form])
        return _xxh(struct.pack(f"<{len(hashes)}Q", *hashes), 6)
    if kind is ObjectKey:
        return _REFERENCE + int(form.value._p_oid)
    if isinstance(form, Persistent):
        return _REFERENCE + int(form._p_oid)
    if kind is dt.datetime or kind is dt.time:
        return _xxh(_instant(form), 4)
    stable = getattr(kind, "_p_stable_hash", None)
    if stable is not None:
        return int(stable(form))
    try:
        body, _ = encode_values([form])
    except UnsupportedTypeError:
        return 0  # nothing like it is stored, so nothing is found
    return _xxh(body, 5)


stable_hash: Callable[[Any], int] = base.stable_hash
base.set_hash_of_others(_hash_of_others)


def _instant(value: Any) -> bytes:
    """Bytes that are equal for equal datetimes (times): two zoned ones are equal when they name the same moment."""
    value = value.replace(fold=0)
    offset = value.utcoffset()
    if offset is None:
        return str(value.isoformat()).encode()
    if type(value) is dt.datetime:
        since = value.replace(tzinfo=None) - dt.datetime(1, 1, 1) - offset
    else:
        since = (
            dt.timedelta(hours=value.hour, minutes=value.minute, seconds=value.second, microseconds=value.microsecond)
            - offset
        )
    return b"utc %d %d %d" % (since.days, since.seconds, since.microseconds)


def flatten(forms: Iterable[Any]) -> list[Any]:
    """Native forms as a flat list of storable values; :func:`restore` is the way back.

    A tuple becomes the pair (number of tuples' items that follow, as the first list says) so that no container type is
    needed: the result is ``[number of shape numbers, shape numbers..., items...]`` where each tuple adds its place in
    the items and its length to the shape, outermost first.
    """
    shape: list[int] = []
    items: list[Any] = []

    def add(form: Any) -> None:
        kind = type(form)
        if kind is tuple:
            shape.append(len(items))
            shape.append(len(form))
            for item in form:
                add(item)
        elif kind is ObjectKey:
            items.append(form.value)
        elif kind is frozenset:
            items.append(_composite(form))
        else:
            items.append(form)

    for form in forms:
        if type(form) in ATOMS:
            items.append(form)
        else:
            add(form)
    return [len(shape), *shape, *items]


def _composite(form: Any) -> Any:
    """A member of a frozenset, or one itself, as it is stored."""
    kind = type(form)
    if kind is frozenset or kind is tuple:
        return Deferred(None, FROZENSET if kind is frozenset else TUPLE, b"", tuple([_composite(i) for i in form]))
    return form.value if kind is ObjectKey else form


def restore(view: View, values: list[Any]) -> list[Any]:
    """Native forms from what :func:`flatten` made. Raises ValueError or TypeError when it can't have."""
    n = values[0]
    if type(n) is not int or not 0 <= n < len(values) or n & 1:
        raise ValueError("bad number of tuples")
    shape = values[1 : n + 1]
    items = values[n + 1 :]
    if not shape:
        return [item if type(item) in ATOMS else native(view, item) for item in items]
    if any(type(number) is not int or number < 0 for number in shape):
        raise ValueError("bad tuple")
    at = 0  # in shape
    place = 0  # in items
    forms: list[Any] = []

    def take(depth: int) -> Any:
        nonlocal at, place
        if depth > 200:
            raise ValueError("tuples nested too deeply")
        if at < n and shape[at] == place:
            length = shape[at + 1]
            at += 2
            return tuple([take(depth + 1) for _ in range(length)])
        if place >= len(items):
            raise ValueError("tuple longer than its node")
        item = items[place]
        place += 1
        return item if type(item) in ATOMS else native(view, item)

    while place < len(items) or at < n:
        forms.append(take(0))
    return forms
