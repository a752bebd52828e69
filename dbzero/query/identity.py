"""Which query is which: identity, signature and likeness of queries, told from their forms.

A form is nested tuples of strings, numbers and bytes, the same for the same question whatever the order of its terms.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec
from xxhash import xxh3_128_digest

pack = msgspec.msgpack.Encoder().encode


def _text(*parts: bytes) -> str:
    return base64.b32encode(b"".join(parts)).decode().rstrip("=")


def uuid_of(prefix_uuid: int, form: tuple[Any, ...]) -> str:
    """The identity of the exact query: 52 characters A-Z, 2-7. Equal for equal queries in every process and state."""
    data = pack([prefix_uuid, form])
    return _text(xxh3_128_digest(data, 1), xxh3_128_digest(data, 2))


def signature(shape: tuple[Any, ...]) -> str:
    """26 characters A-Z, 2-7, the same for the same shape."""
    return _text(xxh3_128_digest(pack(shape), 3))


def distance(a: tuple[Any, ...], b: tuple[Any, ...]) -> float:
    """How unlike two shapes are, from 0.0 (the same) to 1.0 (nothing in common). Of alternatives, the part that is not
    shared counts; of what must all hold, the differences of the terms add up."""
    if a == b:
        return 0.0
    if a[0] == "and" or b[0] == "and":
        if a[0] != b[0] or len(a) != len(b):
            return 1.0
        ours, theirs = [part for part in a[1:] if part not in b], [part for part in b[1:] if part not in a]
        return min(1.0, sum(distance(x, y) for x, y in zip(ours, theirs, strict=False)))
    some, others = _alternatives(a), _alternatives(b)
    return 1.0 - len(some & others) / max(len(some), len(others))


def _alternatives(form: tuple[Any, ...]) -> set[Any]:
    return set(form[1:]) if form[0] == "or" else {form}
