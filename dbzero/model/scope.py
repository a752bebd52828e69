"""Which view an operation works on. The session decides; it installs its answers here when it is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from dbzero.errors import NotInitializedError
from dbzero.model import base

if TYPE_CHECKING:
    from dbzero.model.view import View


class Context(Protocol):
    """Where queries look things up and which version of an object they yield: the live prefixes, or a snapshot."""

    def view(self, prefix_name: str | None) -> View:
        """The view of a prefix; None: the current one. PrefixError when there is none in this context."""

    def view_of_uuid(self, prefix_uuid: int) -> View | None:
        """The view of the prefix with that uuid, or None when this context has none."""


class Committed(Protocol):
    """What is committed, whatever is pending in live objects."""

    def snapshot(self) -> Context:
        """What is committed now in every open prefix."""

    def past(self, view: View, state: int) -> View:
        """What the prefix of a live view was in a state. Error when that is not kept any more."""

    def shown(self, view: View) -> bool:
        """Whether the state that a live view shows, but for what is pending, is the newest that is durable."""

    def settled(self) -> object:
        """While live objects show nothing but what is committed now: something equal for as long as they go on showing that. Else None."""


class _Live:
    """The context of live objects."""

    def view(self, prefix_name: str | None) -> View:
        return _view_of(prefix_name, False)

    def view_of_uuid(self, prefix_uuid: int) -> View | None:
        return _view_of_uuid(prefix_uuid)


live: Context = _Live()


def _nothing(prefix_name: str | None, writable: bool) -> View:
    raise NotInitializedError("dbzero not initialized: call db0.init(<directory>) first")


def _unknown(prefix_uuid: int) -> View | None:
    return None


def _closed(prefix_name: str) -> View:
    return _nothing(prefix_name, False)


_current: View | None = None
_view_of: Callable[[str | None, bool], View] = _nothing
_view_of_uuid: Callable[[int], View | None] = _unknown
_opened: Callable[[str], View] = _closed


_committed: Committed


def install(
    view_of: Callable[[str | None, bool], View],
    view_of_uuid: Callable[[int], View | None],
    opened: Callable[[str], View] | None = None,
) -> None:
    """Set the session's answers.

    Args:
        view_of: (prefix name or None for the current one, whether it is to be written) -> live view. It opens what
            must be opened, and may return a
            read-only view though a writable one was asked for: the caller checks. Raises NotInitializedError or
            PrefixError.
        view_of_uuid: prefix uuid -> live view, or None when that prefix is not open.
        opened: prefix name -> live view; PrefixError when it is not open. None: as it was.
    """
    global _view_of, _view_of_uuid, _opened
    _view_of = view_of
    _view_of_uuid = view_of_uuid
    if opened is not None:
        _opened = opened


def set_current(view: View | None) -> None:
    """Set the view in which plain memo classes create their instances without asking; None: ask `view_of` each time."""
    global _current
    _current = view
    base.set_current_view(view)


def current_view(writable: bool) -> View:
    """The live view of the current prefix. NotInitializedError before init()."""
    return _view_of(None, writable)


def current_or_none() -> View | None:
    """The live view of the current prefix if one is open. Opens nothing."""
    return _current


def view_of(prefix_name: str | None, writable: bool) -> View:
    """The live view of a prefix (None: the current one), opened on demand. It may be read-only all the same."""
    return _view_of(prefix_name, writable)


def view_of_uuid(prefix_uuid: int) -> View | None:
    """The live view of the open prefix with that uuid, or None."""
    return _view_of_uuid(prefix_uuid)


def opened(prefix_name: str) -> View:
    """The live view of a prefix that is open. PrefixError when it is not, NotInitializedError before init()."""
    return _opened(prefix_name)


def install_committed(answers: Committed) -> None:
    """Set what :func:`committed` gives."""
    global _committed
    _committed = answers


def committed() -> Committed:
    """What is committed, as opposed to live."""
    return _committed
