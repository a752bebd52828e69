"""Versions of one object: the live one of what a snapshot shows."""

from __future__ import annotations

from typing import Any

from dbzero.errors import PrefixError, ReferenceError
from dbzero.model import scope


def live_version(obj: Any) -> Any:
    """The live object of which `obj` is the version in a snapshot; a live one is itself.

    PrefixError: its prefix is not open. ReferenceError: it does not exist any more.
    """
    view = obj._p_view
    if view is None or not view.frozen:
        return obj
    home = scope.live.view_of_uuid(view.uuid)
    if home is None:
        raise PrefixError(
            f"Prefix: {view.name} not found: it is not open; open it with db0.open() to use its live objects"
        )
    found = home.get(obj._p_oid)
    if found is None:
        raise ReferenceError(f"Memo instance expired: object {obj._p_oid} of prefix {view.name!r} exists no longer")
    return found
