"""Fronts: what a large collection found lately, in one builtin container in front of its tree, so that most look-ups
don't walk.

A dict's front is a builtin dict of entries, a set's a builtin set of elements, and that of a list or tuple whose
leaves are all full a dict of leaf containers by number. It holds at most FRONT items and lives in its collection's
loaded state. Every leaf that something in it comes from is linked to it, and empties it when the leaf's state is
cleared (evicted, or replaced by what another process wrote). So the front never knows anything that the loaded leaves
don't.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from dbzero.collections.nodes import Stored, set_data

FRONT = 1 << 17


class Fronted(Stored):
    """A tree node that may be linked to a front."""

    __slots__ = ("_front",)

    def _p_clear(self) -> None:
        try:
            front = _get(self)
        except AttributeError:
            pass
        else:
            front.clear()
        set_data(self, None)


_get: Callable[[Fronted], Any] = cast(Any, Fronted.__dict__["_front"]).__get__
link: Callable[[Fronted, Any], None] = cast(Any, Fronted.__dict__["_front"]).__set__


def forget(*nodes: Fronted) -> None:
    """Empty the fronts that the nodes are linked to: their items are about to live in another node.

    Handing the link on would not do. A collection that was evicted comes back with a new front, and a node that was
    not looked at since is linked to the old one: who took that link over would no longer empty the front in use.
    """
    for node in nodes:
        try:
            front = _get(node)
        except AttributeError:
            continue
        front.clear()
