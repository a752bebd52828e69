"""Fronts: what a large collection found lately, in one builtin container in front of its trees, so that most look-ups
don't walk. It lives in its collection's loaded state.

A dict's front is a builtin dict of entries, a set's a builtin set of elements; it holds at most FRONT items. Every leaf
that something in it comes from is linked to it, and empties it when the leaf's state is cleared (evicted, or replaced by
what another process wrote) or the leaf itself leaves memory. So such a front never knows anything that the loaded
leaves don't.

The front of a list or tuple whose leaves are all full is a builtin list of leaves, by number (None: not looked at yet).
It holds the leaves and not what is in them, so an evicted one costs a load and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from dbzero.collections.nodes import Stored, set_data
from dbzero.model import base

FRONT = 1 << 20  # as in csrc/pytypes_keyed.c


class Fronted(Stored):
    """A tree node that may be linked to a front."""

    __slots__ = ()
    _front: Any

    def _p_clear(self) -> None:
        forget(self)
        set_data(self, None)


_get: Callable[[Fronted], Any] = cast(Any, base.Stored.__dict__["_front"]).__get__
link: Callable[[Fronted, Any], None] = cast(Any, base.Stored.__dict__["_front"]).__set__


def forget(*nodes: Fronted) -> None:
    """Empty the fronts that the nodes are linked to: their items are about to leave memory, or to live in another node.

    Handing the link on would not do. A collection that was evicted comes back with a new front, and a node that was
    not looked at since is linked to the old one: who took that link over would no longer empty the front in use.
    """
    for node in nodes:
        front = _get(node)
        if front is not None:
            front.clear()
