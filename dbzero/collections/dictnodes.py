"""What a :class:`dbzero.collections.dicts.Dict` is made of: its loaded state, and the nodes of its two trees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbzero.collections.fronts import FRONT, Fronted, forget, link
from dbzero.collections.keyed import KeyedNode
from dbzero.collections.keys import flatten, restore
from dbzero.collections.nodes import LEAF, Stored, corrupt, natural
from dbzero.model import base

if TYPE_CHECKING:

    class Entries:
        """State of a leaf of entries: parallel lists, in ascending order of sequence number. Defined in C."""

        seqs: list[int]
        keys: list[Any]
        values: list[Any]

        def __init__(self, seqs: list[int], keys: list[Any], values: list[Any]) -> None: ...

        def __len__(self) -> int: ...

    class State:
        """Loaded state: the entries in `items`, or (items None) `count` of them in the trees, and some `pending`. `next`
        is the next sequence number, `last` the last leaf of entries if known, and `version` changes with every change.
        Defined in C."""

        items: dict[Any, Any] | None
        entries: DictNode | None
        index: IndexNode | None
        count: int
        next: int
        last: DictNode | None
        front: dict[Any, Any]
        pending: dict[Any, Any] | None
        version: int

        def __init__(self, items: dict[Any, Any] | None) -> None: ...

else:
    Entries, State = base.Entries, base.DictState


class DictNode(Fronted, KeyedNode):
    """One node of a dict's entries."""

    __slots__ = ()
    KIND = 9

    def _p_leaf_values(self, data: Entries) -> list[Any]:
        seqs = data.seqs
        gaps = [b - a for a, b in zip([0, *seqs], seqs, strict=False)]
        return [len(seqs), *gaps, *data.values, *flatten(data.keys)]

    def _p_leaf_state(self, values: list[Any]) -> Entries:
        n = natural(self, values[0] if values else None, 0, LEAF)
        if len(values) < 2 * n + 2:
            raise corrupt(self, f"{len(values)} values for {n} entries")
        seqs: list[int] = []
        seq = 0
        for i, gap in enumerate(values[1 : n + 1]):
            seq += natural(self, gap, 1 if i else 0)
            seqs.append(seq)
        return Entries(seqs, restored_keys(self, values[2 * n + 1 :], n), values[n + 1 : 2 * n + 1])

    def _p_absorb(self, left: Entries, right: Entries, other: KeyedNode) -> None:
        left.seqs.extend(right.seqs)
        left.keys.extend(right.keys)
        left.values.extend(right.values)
        forget(self, other)


class IndexNode(KeyedNode):
    """One node of a dict's hash index. A leaf's state is a builtin dict: hash -> sequence number, or a list of them
    when several keys have that hash."""

    __slots__ = ()
    KIND = 11

    def _p_leaf_values(self, data: dict[int, Any]) -> list[Any]:
        values: list[int] = []
        for key, place in data.items():
            if type(place) is int:
                values += (key, place)
            else:
                for seq in place:
                    values += (key, seq)
        return values

    def _p_leaf_state(self, values: list[Any]) -> dict[int, Any]:
        if len(values) & 1 or any(type(value) is not int for value in values):
            raise corrupt(self, "not pairs of numbers")
        data: dict[int, Any] = {}
        for key, seq in zip(values[::2], values[1::2], strict=True):
            place = data.get(key)
            data[key] = seq if place is None else [place, seq] if type(place) is int else [*place, seq]
        return data

    def _p_absorb(self, left: dict[int, Any], right: dict[int, Any], other: KeyedNode) -> None:
        left.update(right)


def restored_keys(node: Stored, values: list[Any], n: int) -> list[Any]:
    """The `n` native forms stored by :func:`flatten`; CorruptError when they can't be."""
    try:
        forms = restore(node._p_view, values)
        different = len(set(forms))
    except (ValueError, TypeError, IndexError) as error:
        raise corrupt(node, str(error)) from None
    if len(forms) != n or different != n:
        raise corrupt(node, f"{len(forms)} keys, {different} of them different, for {n} values")
    return forms


def remember(front: dict[Any, Any], node: DictNode, form: Any, value: Any) -> None:
    """Put an entry found in leaf `node` in front of the trees."""
    if len(front) >= FRONT:
        front.clear()
    link(node, front)
    front[form] = value


def note(data: dict[int, Any], key: int, seq: int) -> None:
    """Add a sequence number to an index leaf's state."""
    place = data.get(key)
    data[key] = seq if place is None else [place, seq] if type(place) is int else [*place, seq]
