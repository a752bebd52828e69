"""Moving a view to what other processes committed: under the operation lock - so no compound operation is under way - the
loaded objects that changed become ghosts, and the view's state is the new one. Handles stay the same Python objects and
load the new state at their next use.
"""

from __future__ import annotations

from dbzero.model.base import operation
from dbzero.model.view import View
from dbzero.storage.prefix import Prefix
from dbzero.storage.reading import PATIENCE

# Beyond this many states behind, turning every loaded object into a ghost costs less than reading each commit's list of changes.
_MAX_STEPS = 1000


def refresh_view(view: View, prefix: Prefix, patience: float = PATIENCE) -> bool:
    """Move a read-only view to the newest durable state. True when it moved.

    patience: seconds to wait for a successor that is recovering the prefix."""
    if prefix.newest(patience) == (view.state, view.incarnation):
        return False
    with operation:
        newest = prefix.newest(patience)
        if newest is None or view.closed:
            return False
        if not show(view, prefix, *newest):
            return False
        prefix.pin(view.state)
    return True


def show(view: View, prefix: Prefix, head: int, incarnation: int) -> bool:
    """Under the operation lock: move the view to state `head`. True when it moved."""
    old = view.state
    if incarnation == view.incarnation and head <= old:
        return False  # a shared writer may have shown what is published and not durable yet: never backwards
    if incarnation != view.incarnation or head - old > _MAX_STEPS:
        if incarnation != view.incarnation:
            view.forget_oids()  # the successor may not know of what was reserved
        view.incarnation = incarnation
        view.invalidate_all()
    else:
        changed = prefix.changes_since(old, head)
        if changed is None:
            view.invalidate_all()
        else:
            view.invalidate(changed)
    if head == old:
        return False
    view.advance(head)
    return True
