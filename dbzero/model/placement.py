"""Placement: which shard of a sharded class an instance belongs to.

An instance's key is made bytes in one way, the same in every process (:func:`canonical`); their xxHash64 (Y. Collet,
xxhash.com) is the instance's *spot*, which is stored with it; the jump consistent hash (J. Lamping and E. Veach, *A Fast,
Minimal Memory, Consistent Hash Algorithm*, 2014) makes the number of a shard of it. So when the number of shards grows
from n to m, the instances that move are those of the new shards, about (m - n) / m of all.

Where shards are is not known here: whoever knows installs its answers (:func:`install`).
"""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from xxhash import xxh64_intdigest

from dbzero.errors import NotInitializedError, UnsupportedTypeError
from dbzero.model import scope
from dbzero.model.codec import encode_values, varint
from dbzero.model.enums import EnumValue, EnumValueRepr
from dbzero.model.memo import module_name
from dbzero.model.sharded import Family
from dbzero.model.view import View

_PLAIN = frozenset((bool, int, str, bytes, uuid.UUID, dt.date))
_MASK = (1 << 64) - 1
_JUMP = 2862933555777941757


def canonical(key: Any) -> bytes:
    """A key as bytes, the same in every process and for ever; keys of different types never have the same.

    Args:
        key: a str, int, bool, bytes, UUID, date, Enum member, dbzero enum value, or a tuple of keys.

    Raises UnsupportedTypeError: anything else.
    """
    kind = type(key)
    if kind in _PLAIN:
        return b"v" + encode_values([key])[0]
    if kind is tuple:
        parts = [canonical(part) for part in key]
        return b"t" + varint(len(parts)) + b"".join([varint(len(part)) + part for part in parts])
    if kind is EnumValue or kind is EnumValueRepr:
        return b"e" + encode_values([key._key, key._name])[0]
    if isinstance(key, enum.Enum):
        return b"m" + encode_values([f"{module_name(kind)}:{kind.__qualname__}", key.name])[0]
    raise UnsupportedTypeError(
        f"a {kind.__qualname__} cannot be the key of a shard: give a str, int, bytes, UUID, date, enum value, or a tuple "
        f"of these"
    )


def spot_of(key: Any) -> int:
    """The hash of a key, 64 bits. UnsupportedTypeError."""
    return xxh64_intdigest(canonical(key))


def jump(spot: int, shards: int) -> int:
    """The shard of a spot, from 0 to `shards` - 1: Lamping and Veach's jump consistent hash."""
    before, following = -1, 0
    while following < shards:
        before = following
        spot = (spot * _JUMP + 1) & _MASK
        following = int((before + 1) * (float(1 << 31) / float((spot >> 33) + 1)))
    return before


# --- where shards are ------------------------------------------------------------------------------------------------


class Shards(Protocol):
    """The shards of one family below one base prefix."""

    @property
    def family(self) -> Family:
        """Whose shards they are."""

    def views(self, context: scope.Context) -> list[View]:
        """The views of all shards that exist in a context, in the order of their numbers. Opens what must be opened,
        read-only."""

    def place(self, spot: int) -> AbstractContextManager[View]:
        """The view that an instance with that spot is to be created in, writable or not, while it is created there. Or a
        typed error."""


def _nowhere(context: scope.Context, family: Family) -> Shards:
    raise NotInitializedError("dbzero not initialized: call db0.init(<directory>) first")


_shards_of: Callable[[scope.Context, Family], Shards] = _nowhere


def install(shards_of: Callable[[scope.Context, Family], Shards]) -> None:
    """Set who knows where shards are: (context, family) -> its shards below the base prefix that is in force there."""
    global _shards_of
    _shards_of = shards_of


def shards_of(context: scope.Context, family: Family) -> Shards:
    """The shards of a family, below its class's prefix or the current one of a context."""
    return _shards_of(context, family)
