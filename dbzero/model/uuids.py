"""UUIDs of objects: 24 characters of base 32 (RFC 4648: A-Z, 2-7) for prefix uuid (64 bits), OID (48 bits), check
byte."""

from __future__ import annotations

import base64
import binascii
import re
import zlib

from dbzero.errors import Error

_FORM = re.compile(r"[A-Z2-7]{24}\Z")


def make_uuid(prefix_uuid: int, oid: int) -> str:
    """The UUID of an object.

    Args:
        prefix_uuid: unsigned 64 bits. oid: unsigned 48 bits.
    """
    raw = prefix_uuid.to_bytes(8, "big") + oid.to_bytes(6, "big")
    return base64.b32encode(raw + bytes((zlib.crc32(raw) & 0xFF,))).decode("ascii")


def parse_uuid(text: str) -> tuple[int, int]:
    """(prefix uuid, OID) of a UUID. Error when it is malformed."""
    if not isinstance(text, str) or not _FORM.match(text):
        raise Error(f"Invalid UUID: {text!r}")
    try:
        raw = base64.b32decode(text)
    except binascii.Error:
        raise Error(f"Invalid UUID: {text!r}") from None
    if zlib.crc32(raw[:14]) & 0xFF != raw[14]:
        raise Error(f"Invalid UUID: {text!r}")
    return int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:14], "big")
