"""numpy arrays and scalars as values. numpy is never imported here: who has such a value, or wants to read one, has.

Stored: dimensions, dtype string (byte order included), the elements in C order. An array is stored as it is when it is
assigned and reads as a read-only one; to change it, assign a changed copy.
"""

from __future__ import annotations

import math
import sys
from typing import Any

from dbzero.errors import ClassNotFoundError, UnsupportedTypeError
from dbzero.model.codec import decode_plain, encode_plain
from dbzero.model.deferred import ARRAY, Deferred, admitters, checkers, describers, resolvers

_SCALAR = -1  # dimensions of what is no array


def _numpy_class(value: Any) -> Any:
    """numpy's module if `value` is an array or a scalar of it."""
    numpy: Any = sys.modules.get("numpy")
    ndarray, generic = getattr(numpy, "ndarray", None), getattr(numpy, "generic", None)
    if ndarray is not None and (type(value) is ndarray or (generic is not None and isinstance(value, generic))):
        return numpy
    return None


def scalar(value: Any) -> Any:
    """A numpy scalar as the Python value that equals it; everything else as it is."""
    numpy = _numpy_class(value)
    return value if numpy is None or not isinstance(value, numpy.generic) else value.item()


def _describe(value: Any) -> tuple[int, bytes] | None:
    numpy = _numpy_class(value)
    if numpy is None:
        return None
    content = numpy.asarray(value)
    dtype = content.dtype
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None or numpy.dtype(dtype.str) != dtype:
        raise UnsupportedTypeError(
            f"a numpy value of dtype {dtype} cannot be stored: use a plain dtype (numbers, bool, text, dates)"
        )
    shape = [_SCALAR] if isinstance(value, numpy.generic) else list(value.shape)
    return ARRAY, encode_plain([dtype.str, shape, content.tobytes()])


def _admit(view: Any, value: Any) -> Any:
    if _numpy_class(value) is None:
        return NotImplemented
    code, data = _describe(value) or (ARRAY, b"")
    return Deferred(view, code, data)


def _read(data: bytes) -> tuple[str, list[int], bytes]:
    try:
        dtype, shape, content = decode_plain(data)
        good = (
            type(dtype) is str
            and type(content) is bytes
            and type(shape) is list
            and (shape == [_SCALAR] or all(type(n) is int and 0 <= n < 1 << 62 for n in shape))
        )
    except (TypeError, ValueError) as error:
        raise ValueError("a damaged array") from error
    if not good:
        raise ValueError("a damaged array")
    return dtype, shape, content


def _resolve(stored: Deferred) -> Any:
    numpy: Any = sys.modules.get("numpy")
    if numpy is None:
        raise ClassNotFoundError("a numpy array is stored here: import numpy in this process, then read it")
    name, shape, content = _read(stored.data)
    try:
        dtype = numpy.dtype(name)
        if dtype.hasobject:
            raise ValueError("objects")
        if dtype.itemsize * math.prod(n for n in shape if n != _SCALAR) != len(content):
            raise ValueError(f"{len(content)} bytes for shape {shape}")
        if not dtype.itemsize or not content:
            flat = numpy.zeros(math.prod(shape), dtype)
            flat.flags.writeable = False
        else:
            flat = numpy.frombuffer(content, dtype)
        return flat[0] if shape == [_SCALAR] and len(flat) else flat.reshape([n for n in shape if n != _SCALAR])
    except (TypeError, ValueError) as error:
        raise stored.view.corrupt(0, f"an array of dtype {name!r}: {error}") from None


admitters.append(_admit)
describers.append(_describe)
resolvers[ARRAY] = _resolve
checkers[ARRAY] = lambda data: _read(data) and None
