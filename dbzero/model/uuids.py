"""UUIDs of objects: 24 characters of base 32 (RFC 4648: A-Z, 2-7) for prefix uuid (64 bits), OID (48 bits), check
byte."""

from __future__ import annotations

import zlib
from typing import Final

from dbzero.errors import Error

_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuv"  # what int(text, 32) reads
_READ: Final = "".join(_DIGITS[_ALPHABET.index(c)] if c in _ALPHABET else "!" for c in map(chr, range(128)))
_LENGTH: Final = 24
_OID_MASK: Final = (1 << 48) - 1


def make_uuid(prefix_uuid: int, oid: int) -> str:
    """The UUID of an object.

    Args:
        prefix_uuid: unsigned 64 bits. oid: unsigned 48 bits.
    """
    body = prefix_uuid << 48 | oid
    number = body << 8 | zlib.crc32(body.to_bytes(14, "big")) & 0xFF
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(115, -1, -5))


def parse_uuid(text: str) -> tuple[int, int]:
    """(prefix uuid, OID) of a UUID. Error when it is malformed."""
    if isinstance(text, str) and len(text) == _LENGTH and text.isascii():
        try:
            number = int(text.translate(_READ), 32)
        except ValueError:
            number = 0
        body = number >> 8
        if number and zlib.crc32(body.to_bytes(14, "big")) & 0xFF == number & 0xFF:
            return body >> 48, body & _OID_MASK
    raise Error(f"Invalid UUID: {text!r}")
