"""Set: the persistent counterpart of builtin set.

State: up to LEAF elements in the collection's own record, loaded as a builtin set; more of them in a keyed tree by
stable hash, each leaf a builtin set. Elements are kept in native form (:mod:`dbzero.collections.keys`). In front of
the tree stands a *front*: a builtin set of elements found lately, so that most tests for membership don't walk. It is
emptied when any leaf it was filled from is cleared, and holds at most FRONT elements. Before it is looked into what is
pending (:mod:`dbzero.collections.pending`). The tree is worked on in :mod:`dbzero.collections.settrees`; what is ordinary
of testing and adding is done in C (csrc/pytypes_keyed.c).
"""

from __future__ import annotations

import collections.abc
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from dbzero.collections import keyed, settrees
from dbzero.collections.keys import admit, flatten, native, reveal, reveal_all, stable_hash
from dbzero.collections.nodes import (
    ATOMS,
    LEAF,
    Stored,
    begin,
    member,
    moved,
    natural,
    pack,
    refuse_move,
    relieve,
    set_data,
    touch,
    unpack,
)
from dbzero.collections.pending import register
from dbzero.collections.settrees import SetNode, State, restored
from dbzero.collections.text import shown
from dbzero.model import scope
from dbzero.model.base import SetWays, operation
from dbzero.model.view import View


class Set(Stored, SetWays):  # type: ignore[misc]
    """A set that lives in a prefix. Make one with ``db0.set``; it has the methods and operators of a builtin set.

    Elements are None, bool, int, float, str, bytes, Decimal, date, datetime, time, tuples of these, and memo objects,
    which count by identity whatever equality their class defines. Operators and methods that make a set make a
    persistent one on the same prefix. A change while iterating is tolerated: an element is visited at most once.
    """

    __slots__ = ("__weakref__",)
    KIND = 7
    __hash__ = None  # type: ignore[assignment]
    __class_getitem__: Any = classmethod(type(set[int]))
    _data: State

    def __new__(cls, *args: Any, **kw: Any) -> Any:
        if args or kw:
            raise TypeError("make sets with db0.set()")
        return super().__new__(cls)

    # --- storing ------------------------------------------------------------------------------------------------------

    @classmethod
    def _p_make(cls, view: View, values: Iterable[Any]) -> Any:
        """A new set in `view`. If iterating or storing an element fails, nothing is made."""
        forms = {value if type(value) in ATOMS else admit(view, value) for value in values}
        with operation:
            obj = cls.__new__(cls)
            set_data(obj, State(set()))
            view.adopt(obj)
            obj._p_fill(forms)
        return obj

    def _p_fill(self, forms: set[Any]) -> None:
        """Make `forms` the whole content. Inside an operation."""
        state = touch(self)
        state.front.clear()
        if state.pending:
            state.pending.clear()
        state.version += 1
        if len(forms) <= LEAF:
            state.items, state.root, state.count = forms, None, 0
        else:
            settrees.build(self._p_view, state, forms)

    def _p_encode(self) -> tuple[bytes, list[int]]:
        state = self._data
        if state.items is not None:
            return pack(self.KIND, [0, *flatten(state.items)])
        self._p_settle(state)
        assert state.root is not None
        oid = state.root._p_oid
        return pack(self.KIND, [state.count, oid])[0], [oid]

    def _p_decode(self, payload: bytes) -> None:
        values = unpack(self, payload, 2)
        count = natural(self, values[0])
        if not count:
            del values[0]
            set_data(self, State(restored(self, values)))
            return
        state = State(None)
        state.count = count
        state.root = member(self, SetNode, values[1])
        set_data(self, state)

    def _p_clear(self) -> None:
        state = self._data
        state.version += 1
        state.front.clear()
        set_data(self, None)

    def _p_native(self, view: View) -> Any:
        raise TypeError("unhashable type: 'Set'")

    def _p_carried(self) -> Any:
        return set(self)

    def _p_harden(self, view: View) -> Any:
        """What another prefix's `view` stores when this is assigned to one of its objects: see :func:`moved`.
        BadPrefixError when it has elements."""
        if len(self):
            refuse_move(self, view)
        return moved(self, view, lambda: self._p_make(view, ()))

    # --- one element --------------------------------------------------------------------------------------------------

    if TYPE_CHECKING:

        def __len__(self) -> int: ...

        def __contains__(self, value: Any) -> bool: ...

        def add(self, value: Any, /) -> None:
            """Add an element."""

    # each of these is called for what is not ordinary

    def _p_length(self) -> int:
        with operation:
            state = self._data
            if state.items is not None:
                return len(state.items)
            self._p_settle(state)
            return state.count

    def _p_has_slowly(self, value: Any) -> bool:
        return self._p_has(value if type(value) in ATOMS else self._p_sought(value))

    def _p_sought(self, value: Any) -> Any:
        """The native form of what is looked for. A set, which has no hash, is looked for as a frozenset of its
        elements, as a builtin set does it."""
        return native(self._p_view, frozenset(value) if isinstance(value, (set, Set)) else value)

    def _p_has(self, form: Any) -> bool:
        relieve(self)
        with operation:
            state = self._data
            if state.items is not None:
                return form in state.items
            return form in (state.pending or ()) or settrees.has(state, form)

    def _p_add_slowly(self, value: Any) -> None:
        if type(value) not in ATOMS:
            value = admit(self._p_view, value)
        with operation:
            self._p_add(value)

    def _p_add(self, form: Any) -> None:
        """Add an element in native form. Inside an operation."""
        begin(self)
        state = self._data
        items = state.items
        if items is not None:
            if form not in items:
                self._p_changed()
                items.add(form)
                state.version += 1
                if len(items) > LEAF:
                    self._p_fill(items)
            return
        if state.pending is None:
            if settrees.has(state, form):
                return  # and the set stays clean
            self._p_changed()
            state.pending = set()
            register(self._p_view, self)
        self._p_changed()
        state.pending.add(form)
        state.version += 1

    def _p_settle(self, state: State) -> None:
        """Put what is pending into the tree. Inside an operation."""
        if state.pending:
            settrees.settle(self._p_view, state)

    def _p_drop(self, form: Any) -> bool:
        """Remove an element; False when it isn't there. Inside an operation."""
        begin(self)
        state = self._data
        if state.items is not None:
            if form not in state.items:
                return False
            self._p_changed()
            state.items.discard(form)
            state.version += 1
            return True
        self._p_settle(state)
        if not settrees.drop(self, state, form):
            return False
        if state.root is None:
            self._p_fill(set())
        elif state.count * 4 <= LEAF:
            self._p_fill(self._p_forms())
        return True

    def discard(self, value: Any) -> None:
        """Remove an element if it is there."""
        form = self._p_sought(value)
        with operation:
            self._p_drop(form)

    def remove(self, value: Any) -> None:
        """Remove an element. KeyError when it isn't there."""
        form = self._p_sought(value)
        with operation:
            if not self._p_drop(form):
                raise KeyError(value)

    def pop(self) -> Any:
        """Remove and return some element. KeyError when the set is empty."""
        with operation:
            begin(self)
            state = self._data
            if not len(self):
                raise KeyError("pop from an empty set")
            if state.items is not None:
                form = next(iter(state.items))
            else:
                self._p_settle(state)
                assert state.root is not None
                form = next(iter(keyed.find_bound(state.root, None)[0]._data))
            self._p_drop(form)
        return reveal(form)

    # --- all elements -------------------------------------------------------------------------------------------------

    def _p_forms(self) -> set[Any]:
        """All elements in native form, as a new builtin set."""
        with operation:
            state = self._data
            if state.items is not None:
                return set(state.items)
            self._p_settle(state)
            forms: set[Any] = set()
            assert state.root is not None
            leaf, _, bound = keyed.find_bound(state.root, None)
            forms |= leaf._data
            while bound is not None:
                leaf, _, bound = keyed.find_bound(state.root, bound)
                forms |= leaf._data
            return forms

    def _p_part(self, bound: int | None) -> tuple[list[Any], int | None, State]:
        """Elements with a hash from `bound` on (None: all): those of one leaf, the bound of the rest (None: no rest),
        the state."""
        relieve(self)
        with operation:
            state = self._data
            low: int | None = None
            following: int | None = None
            if state.items is not None:
                forms = list(state.items)
            else:
                self._p_settle(state)
                assert state.root is not None
                leaf, low, following = keyed.find_bound(state.root, bound)
                forms = list(leaf._data)
            if bound is not None and low != bound:
                forms = [form for form in forms if stable_hash(form) >= bound]
            return forms, following, state

    def __iter__(self) -> Iterator[Any]:
        bound: int | None = None
        while True:
            forms, bound, state = self._p_part(bound)
            version = state.version
            for form in forms:
                if state.version != version and not self._p_has(form):
                    continue
                yield form if type(form) in ATOMS else reveal(form)
            if bound is None:
                return

    def clear(self) -> None:
        """Remove everything."""
        with operation:
            self._p_fill(set())

    def copy(self) -> Set:
        """A new set of the same prefix with the same elements."""
        with operation:
            made: Set = Set._p_make(self._p_view, ())
            made._p_fill(self._p_forms())  # what is stored: weak references stay weak
        return made

    def _p_of(self, forms: set[Any]) -> Set:
        made: Set = Set._p_make(self._p_view, reveal_all(forms))
        return made

    def _p_other(self, values: Iterable[Any]) -> set[Any]:
        """Native forms of any iterable's values."""
        if isinstance(values, Set) and values._p_view is self._p_view:
            return values._p_forms()
        view = self._p_view
        return {value if type(value) in ATOMS else native(view, value) for value in values}

    def update(self, *others: Iterable[Any]) -> None:
        """Add the elements of `others`. When one fails, those before it stay."""
        for other in others:
            for value in list(other) if isinstance(other, (set, frozenset, Set)) else other:
                self.add(value)

    def intersection_update(self, *others: Iterable[Any]) -> None:
        """Keep what is in all of `others`."""
        kept = [self._p_other(other) for other in others]
        with operation:
            begin(self)
            self._p_fill(self._p_forms().intersection(*kept))

    def difference_update(self, *others: Iterable[Any]) -> None:
        """Remove what is in any of `others`."""
        for other in others:
            forms = self._p_other(other)
            with operation:
                for form in forms:
                    self._p_drop(form)

    def symmetric_difference_update(self, other: Iterable[Any]) -> None:
        """Keep what is in exactly one of both."""
        forms = self._p_other(other)
        new = {form for form in forms if not self._p_has(form)}
        for form in new:
            admit(self._p_view, reveal(form))
        with operation:
            for form in forms:
                if not self._p_drop(form):
                    self._p_add(form)

    def union(self, *others: Iterable[Any]) -> Set:
        """A new set of what is in either."""
        return self._p_of(self._p_forms().union(*[self._p_other(other) for other in others]))

    def intersection(self, *others: Iterable[Any]) -> Set:
        """A new set of what is in all."""
        return self._p_of(self._p_forms().intersection(*[self._p_other(other) for other in others]))

    def difference(self, *others: Iterable[Any]) -> Set:
        """A new set of what is in none of `others`."""
        return self._p_of(self._p_forms().difference(*[self._p_other(other) for other in others]))

    def symmetric_difference(self, other: Iterable[Any]) -> Set:
        """A new set of what is in exactly one of both."""
        return self._p_of(self._p_forms() ^ self._p_other(other))

    def isdisjoint(self, other: Iterable[Any]) -> bool:
        """True when nothing is in both."""
        return self._p_forms().isdisjoint(self._p_other(other))

    def issubset(self, other: Iterable[Any]) -> bool:
        """True when all of it is in `other`."""
        return self._p_forms() <= self._p_other(other)

    def issuperset(self, other: Iterable[Any]) -> bool:
        """True when all of `other` is in it."""
        return self._p_forms() >= self._p_other(other)

    # --- operators ----------------------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> Any:
        if self is other:
            return True
        if not isinstance(other, (set, frozenset, Set)):
            return NotImplemented
        return len(self) == len(other) and self._p_forms() == self._p_other(other)

    def __ne__(self, other: object) -> Any:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __le__(self, other: Any) -> Any:
        return self.issubset(other) if _is_set(other) else NotImplemented

    def __lt__(self, other: Any) -> Any:
        return self._p_forms() < self._p_other(other) if _is_set(other) else NotImplemented

    def __ge__(self, other: Any) -> Any:
        return self.issuperset(other) if _is_set(other) else NotImplemented

    def __gt__(self, other: Any) -> Any:
        return self._p_forms() > self._p_other(other) if _is_set(other) else NotImplemented

    def __or__(self, other: Any) -> Any:
        return self.union(other) if _is_set(other) else NotImplemented

    def __and__(self, other: Any) -> Any:
        return self.intersection(other) if _is_set(other) else NotImplemented

    def __sub__(self, other: Any) -> Any:
        return self.difference(other) if _is_set(other) else NotImplemented

    def __xor__(self, other: Any) -> Any:
        return self.symmetric_difference(other) if _is_set(other) else NotImplemented

    def __ror__(self, other: Any) -> Any:
        return set(other) | set(self) if _is_set(other) else NotImplemented

    def __rand__(self, other: Any) -> Any:
        return {value for value in other if value in self} if _is_set(other) else NotImplemented

    def __rsub__(self, other: Any) -> Any:
        return {value for value in other if value not in self} if _is_set(other) else NotImplemented

    def __rxor__(self, other: Any) -> Any:
        if not _is_set(other):
            return NotImplemented
        forms = self._p_other(other)
        return {value for value in other if value not in self} | set(reveal_all(self._p_forms() - forms))

    def __ior__(self, other: Any) -> Any:
        if not _is_set(other):
            return NotImplemented
        self.update(other)
        return self

    def __iand__(self, other: Any) -> Any:
        if not _is_set(other):
            return NotImplemented
        self.intersection_update(other)
        return self

    def __isub__(self, other: Any) -> Any:
        if not _is_set(other):
            return NotImplemented
        self.difference_update(other)
        return self

    def __ixor__(self, other: Any) -> Any:
        if not _is_set(other):
            return NotImplemented
        self.symmetric_difference_update(other)
        return self

    def __repr__(self) -> str:
        return shown(self, lambda: "{" + ", ".join(map(repr, self)) + "}" if len(self) else "set()", "{...}")

    def _check(self) -> None:
        """Verify the structure; AssertionError tells what is wrong."""
        with operation:
            state = self._data
            if state.items is not None:
                assert state.root is None and len(state.items) <= LEAF, "small set of a wrong size"
                return
            self._p_settle(state)
            assert state.root is not None
            keys = keyed.check(state.root, lambda leaf: map(stable_hash, leaf))
            assert len(keys) == state.count > 0, "wrong number of elements"
            assert state.front <= self._p_forms(), "an element in front of the tree that isn't there"


def _is_set(value: Any) -> bool:
    return isinstance(value, (set, frozenset, Set, collections.abc.Set))


collections.abc.MutableSet.register(Set)


def make_set(iterable: Iterable[Any] | None = None, /) -> Set:
    """A new persistent set on the current prefix.

    Args:
        iterable: its elements.

    Raises:
        TypeError: `iterable` can't be iterated, or an element is unhashable. UnsupportedTypeError: an element can't be
        stored. ReadOnlyError: the prefix is read-only.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> colors = db0.set(["red", "blue"])
    >>> colors.add("red")
    >>> colors == {"red", "blue"}, "green" in colors
    (True, False)
    >>> db0.close()
    """
    values = () if iterable is None else iterable
    iter(values)
    made: Set = Set._p_make(scope.current_view(True), values)
    return made
