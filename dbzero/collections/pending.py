"""Pending: what was set in large dicts or added to large sets or to indexes and is not yet in their trees.

Setting a key of a large dict that is dirty puts it into one builtin dict, ``state.pending``, whether it is a new key or
not; adding to a large set likewise, and to an index, where it goes into a list. The trees get it all at once, sorted,
when anything asks for more than the value of a key (the number of entries, their order, a removal), and at the latest
before a commit. So a run of changes costs what a builtin's cost, and each leaf is changed once. The textbook calls it a
write buffer in front of a B-tree.

``state.pending`` is None in a collection that is not registered here: then nothing may be left pending in it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dbzero.model import kinds
from dbzero.model.base import CLOSED, EXPIRED, GHOST
from dbzero.model.view import View

FEW = 8  # so many are put into the trees one by one


class Pending:
    """The collections of one view in which something may be pending. See :class:`dbzero.model.view.Buffer`."""

    def __init__(self, view: View) -> None:
        self._collections: list[Any] = []

    def add(self, collection: Any) -> None:
        self._collections.append(collection)

    def pending(self) -> bool:
        """Whether flush() has anything to do."""
        return bool(self._collections)

    def flush(self) -> None:
        """Put what is pending into the trees. Under the operation lock."""
        while self._collections:
            collection = self._collections[-1]
            if not collection._p_flags & (GHOST | EXPIRED | CLOSED):
                collection._p_settle(collection._data)
                collection._data.pending = None
            self._collections.pop()

    def discard(self) -> None:
        """Drop what is pending, and what was found in front of the trees."""
        collections, self._collections = self._collections, []
        for collection in collections:
            if not collection._p_flags & (GHOST | EXPIRED | CLOSED):
                state = collection._data
                state.pending = None
                if hasattr(state, "front"):  # an index has none
                    state.version += 1
                    state.front.clear()

    def removed(self, oids: Sequence[int]) -> Callable[[], None] | None:
        """A collection that is deleted takes what is pending in it along."""
        return None

    def taken(self, objects: Sequence[Any]) -> None:
        """Nothing becomes pending between a flush and the commit: what does so holds the operation lock."""

    def changed(self, oids: Sequence[int] | None) -> None:
        """Nothing is pending when a view moves: it has no changes then."""


kinds.buffers.append(Pending)


def register(view: View, collection: Any) -> None:
    """Let things be left pending in a collection, until the next flush. Inside an operation, it being marked changed."""
    next(buffer for buffer in view.buffers if isinstance(buffer, Pending)).add(collection)


def interleave(hashes: list[int], items: list[Any], others: Iterable[tuple[int, Any]]) -> None:
    """Put a few (hash, item) pairs into two parallel lists, which are in ascending order of hash."""
    for key, item in others:
        i = bisect_left(hashes, key)
        hashes.insert(i, key)
        items.insert(i, item)
