"""What List and Tuple share: the state, reading, comparing, storing.

State: a *tail* of at most LEAF values, which stands in the collection's own record, and, in front of it, a counted
tree (:mod:`dbzero.collections.counted`) of full leaves once the tail overflows. So a short sequence is one record and
one builtin list, and appending to a long one changes one record.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import ge, gt, index, le, lt
from typing import TYPE_CHECKING, Any, ClassVar

from dbzero.collections import counted
from dbzero.collections.counted import ListNode
from dbzero.collections.nodes import (
    ATOMS,
    LEAF,
    Stored,
    carried,
    corrupt,
    create,
    member,
    moved,
    natural,
    pack,
    refuse_move,
    relieve,
    set_data,
    unpack,
)
from dbzero.collections.text import shown
from dbzero.model.base import ListState, SequenceWays, operation
from dbzero.model.deferred import all_resolved, resolved
from dbzero.model.values import convert
from dbzero.model.view import View

if TYPE_CHECKING:

    class State:
        """Loaded state: `count` values in `tree` (None: none), then `tail`. `version` changes with every change.

        While all leaves of the tree are `full`, the `front` may hold loaded leaves by leaf number. Defined in C, for
        the short ways."""

        tail: list[Any]
        tree: ListNode | None
        count: int
        full: bool
        front: list[ListNode | None]
        version: int

        def __init__(self, tail: list[Any]) -> None: ...

        def arrange(self, tail: list[Any], tree: ListNode | None, count: int) -> None:
            """Set all three and the version in one step, as readers take no lock."""

else:
    State = ListState


def push(view: View, state: State, values: list[Any]) -> None:
    """Append stored values. Inside an operation, the collection being marked changed (or new)."""
    tail = state.tail
    room = LEAF - len(tail)
    if len(values) <= room:
        tail.extend(values)
        return
    at = 0
    leaves = []
    while len(values) - at > room:
        leaves.append(create(view, ListNode, tail + values[at : at + room]))
        at += room
        room = LEAF
        tail = []
    tree = counted.push_leaves(view, state.tree, leaves)
    if state.full and len(state.front) * LEAF == state.count:
        state.front.extend(leaves)
    state.arrange(values[at:], tree, state.count + LEAF * len(leaves))


def stored_values(view: View, values: Iterable[Any]) -> list[Any]:
    """What storing `values` in `view` stores. Raises UnsupportedTypeError."""
    return [value if type(value) in ATOMS else convert(view, value) for value in values]


class Sequence(Stored, SequenceWays):  # type: ignore[misc]
    """Base of List and Tuple."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]
    __class_getitem__: Any = classmethod(type(list[int]))
    _data: State
    _p_builtin: ClassVar[type]
    _p_brackets: ClassVar[tuple[str, str]]

    # --- storing ------------------------------------------------------------------------------------------------------

    @classmethod
    def _p_make(cls, view: View, values: Iterable[Any]) -> Any:
        """A new collection in `view` with what storing `values` stores. If iterating or converting fails, nothing is
        made."""
        # what user code the iteration runs, it runs before the operation
        source = list(values)
        with operation:
            state = State([])
            obj = cls.__new__(cls)
            set_data(obj, state)
            view.adopt(obj)
            push(view, state, stored_values(view, source))
        return obj

    def _p_encode(self) -> tuple[bytes, list[int]]:
        state = self._data
        tree = state.tree
        oid = 0 if tree is None else tree._p_oid
        payload, refs = pack(self.KIND, [state.count, oid, state.full, *state.tail])
        if oid:
            refs.append(oid)
        return payload, refs

    def _p_decode(self, payload: bytes) -> None:
        values = unpack(self, payload, 3)
        count = natural(self, values[0])
        oid = natural(self, values[1])
        full = values[2]
        if bool(count) != bool(oid) or len(values) > LEAF + 3 or type(full) is not bool or (full and count % LEAF):
            raise corrupt(self, "wrong number of values")
        del values[:3]
        state = State(values)
        state.full = full
        if oid:
            state.tree = member(self, ListNode, oid)
            state.count = count
        set_data(self, state)

    def _p_clear(self) -> None:
        state = self._data
        state.version += 1  # an iterator that holds this state looks for the new one
        state.front.clear()
        set_data(self, None)

    def _p_native(self, view: View) -> Any:
        raise TypeError(f"unhashable type: {type(self).__name__!r}")

    # --- reading ------------------------------------------------------------------------------------------------------

    if TYPE_CHECKING:

        def __len__(self) -> int: ...

        def __getitem__(self, key: Any) -> Any: ...

        def __iter__(self) -> Iterator[Any]: ...

    def _p_length(self) -> int:
        """len() for all that is not ordinary."""
        state = self._data
        return state.count + len(state.tail)

    def _p_getitem(self, key: Any) -> Any:
        """Getting a value or a slice, for all that is not ordinary."""
        if type(key) is int:
            return resolved(self._p_get(key))
        if isinstance(key, slice):
            return self._p_slice(key)
        if isinstance(key, tuple):
            return self._p_builtin(self[i] for i in key)
        if not hasattr(key, "__index__"):
            raise TypeError(
                f"{type(self).__name__.lower()} indices must be integers or slices, not {type(key).__name__}"
            )
        return resolved(self._p_get(index(key)))

    def _p_get(self, position: int) -> Any:
        """The stored value at `position`."""
        relieve(self)
        with operation:
            state = self._data
            count = state.count
            if position < 0:
                position += count + len(state.tail)
                if position < 0:
                    raise IndexError(f"{type(self).__name__.lower()} index out of range")
            if position >= count or state.tree is None:
                return state.tail[position - count]
            node, offset = self._p_leaf(state, position)
            return node._data[offset]

    def _p_leaf(self, state: State, position: int) -> tuple[ListNode, int]:
        """The leaf that holds `position` (below state.count), and the offset there. Inside an operation."""
        assert state.tree is not None
        node, offset = counted.locate(state.tree, position)
        if state.full:
            n = len(node._data)
            if n != LEAF:
                raise corrupt(node, f"{n} values in a leaf that should be full")
            front, k = state.front, position // LEAF
            if k >= len(front):
                front.extend([None] * (k + 1 - len(front)))
            front[k] = node
        return node, offset

    def _p_slice(self, key: slice) -> Any:
        with operation:
            start, stop, step = key.indices(len(self))
            places = range(start, stop, step)
            if not places:
                return self._p_builtin()
            low, high = min(places[0], places[-1]), max(places[0], places[-1]) + 1
            values = self._p_read(low, high)
        if not ATOMS.issuperset(map(type, values)):
            values = all_resolved(values)
        return self._p_builtin(values if step == 1 else values[::step] if step > 0 else values[::-1][::-step])

    def _p_read(self, low: int, high: int) -> list[Any]:
        """The values at positions low..high-1 (in range). Inside an operation."""
        state = self._data
        values: list[Any] = []
        while low < high and low < state.count and state.tree is not None:
            leaf, offset = counted.locate(state.tree, low)
            part = leaf._data[offset : offset + high - low]
            values += part
            low += len(part)
        if low < high:
            low -= state.count
            values += state.tail[low : high - state.count]
        return values

    def _p_part(self, position: int) -> tuple[list[Any], int, State]:
        """The live container that holds `position` or, at the end, is the tail; the offset there; the state it belongs
        to."""
        state = self._data
        if state.tree is None:
            return state.tail, position, state
        relieve(self)
        with operation:
            state = self._data
            if state.tree is None or position >= state.count:
                return state.tail, position - state.count, state
            leaf, offset = self._p_leaf(state, position)
            return leaf._data, offset, state

    def __reversed__(self) -> Iterator[Any]:
        position = len(self) - 1
        while position >= 0:
            try:
                value = self[position]
            except IndexError:
                return
            yield value
            position -= 1

    def __contains__(self, value: Any) -> bool:
        if self._data.tree is None:
            return value in self._data.tail
        return any(item is value or item == value for item in self)

    def count(self, value: Any) -> int:
        """How often `value` occurs."""
        if self._data.tree is None:
            return self._data.tail.count(value)
        return sum(1 for item in self if item is value or item == value)

    def index(self, value: Any, start: int = 0, stop: int = sys.maxsize) -> int:
        """The first position of `value` in [start, stop). ValueError when there is none."""
        return self._p_find(value, index(start), index(stop))

    def _p_find(self, value: Any, start: int, stop: int) -> int:
        n = len(self)
        if start < 0:
            start = max(start + n, 0)
        if stop < 0:
            stop += n
        position = start
        while position < stop:
            values, offset, state = self._p_part(position)
            version = state.version
            if offset >= len(values):
                break
            for item in islice(values, offset, None):
                if position >= stop:
                    break
                if item is value or item == value:
                    return position
                position += 1
                if state.version != version:
                    break
        raise ValueError(f"{value!r} is not in {type(self).__name__.lower()}")

    # --- comparing ----------------------------------------------------------------------------------------------------

    def _p_like(self, other: Any) -> bool:
        return isinstance(other, (self._p_builtin, type(self)))

    def __eq__(self, other: object) -> Any:
        if self is other:
            return True
        if not self._p_like(other):
            return NotImplemented
        if len(self) != len(other):  # type: ignore[arg-type]
            return False
        return all(a is b or a == b for a, b in zip(self, other, strict=False)) and len(self) == len(other)  # type: ignore[call-overload, arg-type]

    def __ne__(self, other: object) -> Any:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def _p_order(self, other: Any, compare: Callable[[Any, Any], Any]) -> Any:
        if not self._p_like(other):
            return NotImplemented
        for a, b in zip(self, other, strict=False):
            if a is not b and not (a == b):  # noqa: SIM201
                return compare(a, b)
        return compare(len(self), len(other))

    def __lt__(self, other: Any) -> Any:
        return self._p_order(other, lt)

    def __le__(self, other: Any) -> Any:
        return self._p_order(other, le)

    def __gt__(self, other: Any) -> Any:
        return self._p_order(other, gt)

    def __ge__(self, other: Any) -> Any:
        return self._p_order(other, ge)

    def __repr__(self) -> str:
        return shown(self, lambda: self._p_text(), "...".join(type(self)._p_brackets))

    def _p_text(self) -> str:
        parts = [repr(value) for value in self]
        left, right = self._p_brackets
        if len(parts) == 1 and left == "(":
            return f"({parts[0]},)"
        return left + ", ".join(parts) + right

    def _p_carried(self) -> Any:
        return self._p_builtin([carried(item) for item in self])

    # --- moving -------------------------------------------------------------------------------------------------------

    def _p_harden(self, view: View) -> Any:
        """What another prefix's `view` stores when this is assigned to one of its objects: see :func:`moved`.
        BadPrefixError when it has items."""
        if len(self):
            refuse_move(self, view)
        return moved(self, view, lambda: self._p_make(view, ()))

    def _check(self) -> None:
        """Verify the structure; AssertionError tells what is wrong."""
        with operation:
            state = self._data
            assert type(state.tail) is list and len(state.tail) <= LEAF, "tail of a wrong size"
            if state.tree is None:
                assert state.count == 0, "count without a tree"
            else:
                assert counted.check(state.tree) == state.count, "wrong number of values in the tree"
                leaves = list(counted.leaves(state.tree))
                assert not state.full or all(len(leaf._data) == LEAF for leaf in leaves), "a leaf that isn't full"
                assert state.full or not state.front, "leaves in front of an uneven tree"
                assert len(state.front) <= len(leaves), "leaves in front of the tree that are not in it"
                assert all(leaf in (None, leaves[k]) for k, leaf in enumerate(state.front)), "a wrong leaf in front"
