"""The tree of a large set: its nodes, looking up, adding many elements at once, dropping one.

All functions run inside an operation, and what changes anything after the set was marked changed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from dbzero.collections import keyed
from dbzero.collections.fronts import FRONT, Fronted, forget, link
from dbzero.collections.keyed import KeyedNode
from dbzero.collections.keys import flatten, restore, stable_hash
from dbzero.collections.nodes import LEAF, Stored, corrupt, create, touch
from dbzero.collections.pending import interleave
from dbzero.model import base
from dbzero.model.view import View


class SetNode(Fronted, KeyedNode):
    """One node of a set's tree. A leaf's state is a builtin set of native forms."""

    __slots__ = ()
    KIND = 10

    def _p_leaf_values(self, data: set[Any]) -> list[Any]:
        return flatten(data)

    def _p_leaf_state(self, values: list[Any]) -> set[Any]:
        return restored(self, values)

    def _p_absorb(self, left: set[Any], right: set[Any], other: KeyedNode) -> None:
        left |= right
        forget(self, other)


def restored(node: Stored, values: list[Any]) -> set[Any]:
    """The native forms stored by :func:`flatten`, as a set; CorruptError when they can't be."""
    try:
        forms = restore(node._p_view, values)
        found = set(forms)
    except (ValueError, TypeError, IndexError) as error:
        raise corrupt(node, str(error)) from None
    if len(found) != len(forms):
        raise corrupt(node, "an element stands there twice")
    return found


if TYPE_CHECKING:

    class State:
        """Loaded state: the elements in `items`, or (items None) `count` of them in the tree below `root`, and some
        `pending`. `version` changes with every change. Defined in C."""

        items: set[Any] | None
        root: SetNode | None
        count: int
        front: set[Any]
        pending: set[Any] | None
        version: int

        def __init__(self, items: set[Any] | None) -> None: ...

else:
    State = base.SetState


def _hashed(forms: Iterable[Any]) -> tuple[list[int], list[Any]]:
    """The forms in order of their hashes, and these."""
    found = list(forms)
    hashes = list(map(stable_hash, found))
    order = sorted(range(len(found)), key=hashes.__getitem__)
    return [hashes[i] for i in order], [found[i] for i in order]


def _parts(hashes: list[int], size: int) -> list[int]:
    """Where to cut ascending hashes, so that parts have about `size` and equal ones stay together; 0 is the first."""
    cuts = [0]
    while cuts[-1] + size < len(hashes):
        cut = cuts[-1] + size
        low = bisect_left(hashes, hashes[cut], cuts[-1])  # the first of those equal to it
        if low <= cuts[-1]:
            low = bisect_left(hashes, hashes[cut] + 1, cut)
            if low >= len(hashes):
                break
        cuts.append(low)
    return cuts


def build(view: View, state: State, forms: set[Any]) -> None:
    """Make a tree of the forms, bottom-up."""
    hashes, ordered = _hashed(forms)
    cuts = _parts(hashes, LEAF * 3 // 4)
    leaves = [(hashes[low], set(ordered[low:high])) for low, high in zip(cuts, [*cuts[1:], len(ordered)], strict=True)]
    state.root = keyed.build(view, SetNode, leaves)
    state.items, state.count = None, len(forms)
    if len(forms) <= FRONT:
        for leaf in keyed.leaves(state.root):
            link(leaf, state.front)
        state.front.update(forms)


def has(state: State, form: Any) -> bool:
    """Whether the front or the tree has the form. What the tree has comes to the front."""
    front = state.front
    if form in front:
        return True
    assert state.root is not None
    leaf = keyed.find(state.root, stable_hash(form))
    if form not in leaf._data:
        return False
    if len(front) >= FRONT:
        front.clear()
    link(leaf, front)
    front.add(form)
    return True


def settle(view: View, state: State) -> None:
    """Put what is pending into the tree."""
    pending = state.pending
    while pending:
        version = state.version
        add(view, state, pending)
        if state.version == version:  # else a finalizer that ran meanwhile added more
            pending.clear()


def add(view: View, state: State, forms: Iterable[Any]) -> None:
    """Add elements. Each leaf is changed once, and only if it gets a new one."""
    front = state.front
    hashes, ordered = _hashed(forms)
    at, n = 0, len(ordered)
    if len(front) + n > FRONT:
        front.clear()
    while at < n:
        assert state.root is not None
        leaf, _, high = keyed.find_bound(state.root, hashes[at])
        end = n if high is None else bisect_left(hashes, high, at)
        part = ordered[at:end]
        data = leaf._data
        link(leaf, front)
        if len(part) > LEAF:
            _flood(view, state, leaf, hashes[at:end], part)
        elif not data.issuperset(part):
            touch(leaf)
            before = len(data)
            data.update(part)
            state.count += len(data) - before
        if len(front) < FRONT:
            front.update(part)
        if len(data) > LEAF:
            _split(view, state, leaf, hashes[end - 1])
        at = end


def _flood(view: View, state: State, leaf: SetNode, hashes: list[int], forms: list[Any]) -> None:
    """Make many leaves of one leaf and more forms than it can hold, in ascending order of hash."""
    assert state.root is not None
    data = touch(leaf)
    if not data.isdisjoint(forms):
        new = [i for i, form in enumerate(forms) if form not in data]
        hashes, forms = [hashes[i] for i in new], [forms[i] for i in new]
        if not new:
            return
    state.count += len(forms)
    if data:
        forms = list(forms)
        interleave(hashes, forms, zip(*_hashed(data), strict=True))
    cuts = [*_parts(hashes, LEAF * 3 // 4), len(forms)]
    data.clear()
    data.update(forms[: cuts[1]])
    key = hashes[0]
    for low, high in pairwise(cuts[1:]):
        right = create(view, SetNode, set(forms[low:high]))
        link(right, state.front)
        path, _ = keyed.find_path(state.root, key)
        key = hashes[low]
        state.root = keyed.attach(view, state.root, path, right, key)


def _split(view: View, state: State, leaf: SetNode, last: int) -> None:
    """Cut a leaf that got too full. `last`: the greatest hash that it got."""
    assert state.root is not None
    data, front = leaf._data, state.front
    hashes, ordered = _hashed(data)
    n = len(ordered)
    # ascending keys fill leaves nearly completely
    size = LEAF * 7 // 8 if last == hashes[-1] else LEAF * 3 // 4 if n > 2 * LEAF else n // 2 + n % 2
    cuts = [*_parts(hashes, size), n]
    key = hashes[0]
    for low, high in pairwise(cuts[1:]):
        moved = set(ordered[low:high])
        path, _ = keyed.find_path(state.root, key)
        right = create(view, SetNode, moved)
        link(right, front)
        data -= moved
        key = hashes[low]
        state.root = keyed.attach(view, state.root, path, right, key)


def drop(owner: Stored, state: State, form: Any) -> bool:
    """Remove an element from the tree of `owner`, which is marked changed if it is there; else False."""
    assert state.root is not None
    path, leaf = keyed.find_path(state.root, stable_hash(form))
    if form not in leaf._data:
        return False
    owner._p_changed()
    touch(leaf).discard(form)
    state.front.discard(form)
    state.count -= 1
    state.version += 1
    state.root = keyed.shrunk(state.root, path, leaf)
    return True
