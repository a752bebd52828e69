"""UUIDs of objects: 24 characters of base 32 (RFC 4648: A-Z, 2-7) for prefix uuid (64 bits), OID (48 bits), check
byte."""

from __future__ import annotations

import re
import zlib
from functools import lru_cache

from dbzero.errors import Error

_FORM = re.compile(r"[A-Z2-7]{24}\Z")
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_TO_DIGITS = str.maketrans(_ALPHABET, "0123456789ABCDEFGHIJKLMNOPQRSTUV")  # what int(..., 32) reads


def make_uuid(prefix_uuid: int, oid: int) -> str:
    """The UUID of an object.

    Args:
        prefix_uuid: unsigned 64 bits. oid: unsigned 48 bits.
    """
    bits = prefix_uuid << 48 | oid
    bits = bits << 8 | zlib.crc32(bits.to_bytes(14, "big")) & 0xFF
    return "".join([_PAIRS[bits >> shift & 0x3FF] for shift in range(110, -1, -10)])


def parse_uuid(text: str) -> tuple[int, int]:
    """(prefix uuid, OID) of a UUID. Error when it is malformed."""
    if not isinstance(text, str):
        raise Error(f"Invalid UUID: {text!r}")
    return _parse(text)


@lru_cache(maxsize=8192)
def _parse(text: str) -> tuple[int, int]:
    if not _FORM.match(text):
        raise Error(f"Invalid UUID: {text!r}")
    bits = int(text.translate(_TO_DIGITS), 32)
    if zlib.crc32((bits >> 8).to_bytes(14, "big")) & 0xFF != bits & 0xFF:
        raise Error(f"Invalid UUID: {text!r}")
    return bits >> 56, bits >> 8 & 0xFFFFFFFFFFFF
