"""Keys of an index: which can stand in one order, and what they are compared by.

Keys of one *family* have a natural order among themselves: numbers (bool, int, float, Decimal) by value, str by code
point, bytes, dates, naive and aware datetimes, naive and aware times. Each key has a *rank*, by which it is compared:
the key itself, but for aware datetimes and times the moment in microseconds UTC. That makes their order a total one
(Python compares two datetimes of one time zone by wall clock, of two by moment), and it is stored, so that a change of
the time zone database never finds a tree out of order.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

from dbzero.errors import UnsupportedTypeError
from dbzero.model.values import convert
from dbzero.model.view import View

_EPOCH = dt.datetime(1, 1, 1)
_MICROSECOND = dt.timedelta(microseconds=1)

NUMBER = "number"
FAMILIES: dict[type, str] = {
    int: NUMBER,
    float: NUMBER,
    bool: NUMBER,
    Decimal: NUMBER,
    str: "str",
    bytes: "bytes",
    dt.date: "date",
    dt.datetime: "datetime",
    dt.time: "time",
}
AWARE = {"datetime": "aware datetime", "time": "aware time"}
NAMES = frozenset(FAMILIES.values()) | frozenset(AWARE.values())
RANKED = frozenset(AWARE.values())  # families whose ranks are not the keys


def place(view: View, key: Any) -> tuple[str, Any, Any]:
    """Where `key`, which is not None, stands: (family, rank, key as it is stored).

    Raises UnsupportedTypeError for types without an order here, subclasses of builtins, and NaN.
    """
    kind = type(key)
    if kind is int or kind is str:
        return FAMILIES[kind], key, key
    family = FAMILIES.get(kind)
    if family is None:
        raise UnsupportedTypeError(
            f"Unsupported index key type: {kind.__qualname__}; use None, bool, int, float, Decimal, str, bytes, date, "
            f"datetime or time"
        )
    if family == NUMBER:
        if (kind is Decimal and key.is_nan()) or key != key:
            raise UnsupportedTypeError("Unsupported index key: NaN has no place in an order; use None")
    elif family in AWARE and key.tzinfo is not None:
        key = convert(view, key)
        offset = key.utcoffset()
        if offset is not None:
            wall = key.replace(tzinfo=None)
            if family == "time":
                wall = dt.datetime.combine(_EPOCH, wall)
            return AWARE[family], (wall - _EPOCH - offset) // _MICROSECOND, key
    return family, key, key


def refuse(found: str, family: str) -> UnsupportedTypeError:
    """The error for a key of family `found` in an index whose keys are of `family`."""
    return UnsupportedTypeError(
        f"Unsupported index key type: this index holds {family} keys, which have no order with {found} keys"
    )


Item = tuple[Any, int]
"""(rank, OID): what entries are sorted by."""


def separator(left: Item, right: Item) -> Item:
    """A short item above `left` and not above `right`, for an inner node.

    Algorithm: the separators of Bayer and Unterauer, *Prefix B-trees*, 1977.
    """
    a, b = left[0], right[0]
    if type(b) in (str, bytes) and a != b:
        n = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))
        return b[: n + 1], 0
    return right
