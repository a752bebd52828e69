"""Restricted prefixes: objects whose reflection is refused."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from dbzero.errors import Error
from dbzero.model.view import View
from dbzero.session.workspace import active


def restrict(view: View, restricted: Any, context: Any) -> None:
    """Apply the settings of one prefix. They can only be raised: Error otherwise."""
    if context is not None and not isinstance(context, ContextVar):
        raise TypeError(f"restricted_context must be a contextvars.ContextVar, not {type(context).__name__}")
    if view.restricted:
        if not restricted:
            raise Error(f"prefix {view.name!r}: restricted mode cannot be weakened")
        return
    if view.restricted_context is not None and not restricted and context is not view.restricted_context:
        raise Error(f"prefix {view.name!r}: restricted mode cannot be weakened")
    view.restricted = bool(restricted)
    view.restricted_context = context


def set_restricted(
    restricted: Any = None, restricted_context: ContextVar[Any] | None = None, prefix: str | None = None
) -> None:
    """Refuse reflection on the memo objects of prefixes: ``vars``, ``__dict__``; ``dir`` gives nothing.

    Attributes can be read and written by name, methods called, objects loaded and compared as ever.

    Args:
        restricted: true: from now on. restricted_context: refuse where this context variable is true (or unset).
        prefix: an open prefix; None: all that are open, and those opened later.

    Raises:
        Error: it would weaken what is in force. PrefixError: the prefix is not open.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Account:
    ...     def __init__(self):
    ...         self.balance = 5
    >>> account = Account()
    >>> db0.set_restricted(restricted=True)
    >>> account.balance, dir(account)
    (5, [])
    >>> db0.close()
    """
    workspace = active()
    if prefix is not None:
        restrict(workspace.get(prefix).view, restricted, restricted_context)
        return
    if workspace.restricted and not restricted:
        raise Error("restricted mode cannot be weakened; it ends with db0.close()")
    for opened in workspace.open_prefixes.values():
        restrict(opened.view, restricted, restricted_context)
    workspace.restricted = bool(restricted)
    workspace.restricted_context = restricted_context
