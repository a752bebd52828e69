"""repr of collections: recursion is cut as the builtins cut it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from dbzero.errors import ClosedError, ReferenceError
from dbzero.model.base import Persistent


class _Running(threading.local):
    def __init__(self) -> None:
        self.ids: set[int] = set()


_running = _Running()


def shown(obj: Persistent, text: Callable[[], str], ellipsis: str) -> str:
    """text(), or `ellipsis` when the repr of `obj` is being made already; a plain form when `obj` can't be read any
    more."""
    ids = _running.ids
    key = id(obj)
    if key in ids:
        return ellipsis
    ids.add(key)
    try:
        return text()
    except (ClosedError, ReferenceError):
        return f"<{type(obj).__name__} object at {key:#x}, no longer accessible>"
    finally:
        ids.discard(key)
