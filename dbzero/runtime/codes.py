"""Engine return codes as exceptions."""

from __future__ import annotations

import os
from typing import Final

from dbzero import errors

OK: Final = 0
MISS: Final = -1
NOTFOUND: Final = -2
CORRUPT: Final = -3
IO: Final = -4
NOMEM: Final = -5
NOSPACE: Final = -6
FENCED: Final = -7
BUSY: Final = -8
FULL: Final = -9
TIMEOUT: Final = -10
MISMATCH: Final = -11
ARG: Final = -12
RETRY: Final = -13
POISONED: Final = -14


def failure(code: int, what: str, errno: int = 0) -> Exception:
    """The exception for a negative engine code.

    Args:
        code: one of this module's constants.
        what: the prefix, object or file, and what was attempted ("prefix 'a': publish state 7").
        errno: the system's error number, for code IO.
    """
    if code == IO:
        return errors.SegmentError(f"{what}: {os.strerror(errno) if errno else 'a system call failed'}")
    if code == NOMEM:
        return MemoryError(f"{what}: out of memory")
    if code == NOSPACE:
        return errors.SegmentError(
            f"{what}: shared memory is exhausted; free space in /dev/shm or configure a smaller cache_size"
        )
    if code == FENCED:
        return errors.FencedError(
            f"{what}: another process has taken over the write lease; what was not committed is void, reopen the prefix"
        )
    if code == BUSY:
        return errors.LeaseError(f"{what}: held by another live process; close it there or wait")
    if code == FULL:
        return errors.SegmentError(
            f"{what}: every slot of the shared segment is taken; close prefixes or processes that are not needed"
        )
    if code == TIMEOUT:
        return TimeoutError(f"{what}: timed out")
    if code == MISMATCH:
        return errors.SegmentError(f"{what}: the shared segment belongs to another root, user or version of dbzero")
    if code == POISONED:
        return errors.PoisonedError(
            f"{what}: an fsync failed, so whether the last commit is durable is unknown; close and reopen the prefix"
        )
    if code == CORRUPT:
        return errors.CorruptError(f"{what}: damaged")
    if code == RETRY:
        return errors.SegmentError(f"{what}: the state moved meanwhile; take a newer one and try again")
    if code == ARG:
        return ValueError(f"{what}: argument out of range, or the prefix has no slot in the segment")
    return errors.SegmentError(f"{what}: engine code {code}")


def check(code: int, what: str, errno: int = 0) -> int:
    """`code` when it isn't negative, else its exception."""
    if code < 0:
        raise failure(code, what, errno)
    return code
