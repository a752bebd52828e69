"""List: the persistent counterpart of builtin list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableSequence
from itertools import islice
from operator import index, is_
from typing import TYPE_CHECKING, Any

from dbzero.collections import counted
from dbzero.collections.counted import ListNode
from dbzero.collections.nodes import ATOMS, LEAF, begin, create, touch
from dbzero.collections.sequences import Sequence, State, push, stored_values
from dbzero.collections.tuples import Tuple
from dbzero.model import scope
from dbzero.model.base import ListWays, operation
from dbzero.model.deferred import all_resolved, resolved
from dbzero.model.values import convert

_BATCH = 1024
acquire, release = operation.acquire, operation.release  # for the shortest method


class List(Sequence, ListWays):  # type: ignore[misc]
    """A list that lives in a prefix. Make one with ``db0.list``; it has the methods, operators and order of a builtin
    list.

    Slices read as builtin lists. Iteration goes by position and tolerates changes: what is appended meanwhile is
    visited. Methods that change it raise ReadOnlyError on a read-only prefix and UnsupportedTypeError for values that
    can't be stored, and leave it unchanged then.
    """

    __slots__ = ()
    KIND = 4
    _p_builtin = list
    _p_brackets = ("[", "]")

    def __new__(cls, *args: Any, **kw: Any) -> Any:
        if args or kw:
            raise TypeError("make lists with db0.list()")
        return super().__new__(cls)

    # --- one value ----------------------------------------------------------------------------------------------------

    if TYPE_CHECKING:

        def append(self, value: Any, /) -> None: ...

        def __setitem__(self, key: Any, value: Any) -> None: ...

        def __delitem__(self, key: Any) -> None: ...

    def _p_append(self, value: Any) -> None:
        """append() for all that is not ordinary."""
        acquire()
        try:
            if type(value) not in ATOMS:
                value = convert(self._p_view, value)
            self._p_changed()
            state = self._data
            tail = state.tail
            if len(tail) >= LEAF:
                leaf = create(self._p_view, ListNode, tail)
                tree = counted.push_leaf(self._p_view, state.tree, leaf)
                if state.full and len(state.front) * LEAF == state.count:
                    state.front.append(leaf)
                state.arrange([value], tree, state.count + len(tail))
            else:
                tail.append(value)
                state.version += 1
        finally:
            release()

    def _p_setitem(self, key: Any, value: Any) -> None:
        """Setting a value or a slice, for all that is not ordinary."""
        if isinstance(key, slice):
            self._p_assign(key, value)
            return
        position = self._p_index(key)
        with operation:
            if type(value) not in ATOMS:
                value = convert(self._p_view, value)
            begin(self)
            self._p_set(self._p_place(position, "list assignment index out of range"), value)

    def _p_set(self, position: int, value: Any) -> None:
        """Replace what is at `position` (in range) by a stored value. Inside an operation."""
        state = self._data
        offset = position - state.count
        if offset >= 0:
            self._p_changed()
            self._data.tail[offset] = value
            self._data.version += 1
        else:
            node, offset = self._p_leaf(state, position)
            touch(node)[offset] = value
            state.version += 1

    def insert(self, position: Any, value: Any) -> None:
        """Insert `value` before `position` (clipped to the ends)."""
        position = index(position)
        with operation:
            if type(value) not in ATOMS:
                value = convert(self._p_view, value)
            begin(self)
            n = len(self)
            if position < 0:
                position = max(position + n, 0)
            if position >= n:
                self.append(value)
            else:
                self._p_insert(position, value)

    def _p_insert(self, position: int, value: Any) -> None:
        """Insert a stored value before `position` (in range). Inside an operation."""
        self._p_changed()
        state = self._data
        if state.tree is not None and position < state.count:
            self._p_uneven(state)
            state.tree = counted.insert(self._p_view, state.tree, position, value)
            state.count += 1
        else:
            tail = state.tail
            if len(tail) >= LEAF:
                self._p_uneven(state)
                half = LEAF // 2
                tree = counted.push_leaf(self._p_view, state.tree, create(self._p_view, ListNode, tail[:half]))
                tail = tail[half:]
                state.arrange(tail, tree, state.count + half)
                if position < state.count:
                    state.tree = counted.insert(self._p_view, tree, position, value)
                    state.count += 1
                    state.version += 1
                    return
            tail.insert(position - state.count, value)
        state.version += 1

    def _p_uneven(self, state: State) -> None:
        state.full = False
        state.front.clear()

    def _p_delete(self, position: int) -> Any:
        """Remove and return what is at `position` (in range). Inside an operation."""
        self._p_changed()
        state = self._data
        if state.tree is None or position >= state.count:
            value = state.tail.pop(position - state.count)
            if not state.tail and state.tree is not None:
                tail, tree = counted.pop_leaf(state.tree)
                del state.front[(state.count - len(tail)) // LEAF :]
                state.arrange(tail, tree, state.count - len(tail))
                state.full = state.full or state.tree is None
        else:
            self._p_uneven(state)
            value, state.tree = counted.delete(state.tree, position)
            state.count -= 1
            state.full = state.tree is None
        state.version += 1
        return value

    def pop(self, position: Any = -1) -> Any:
        """Remove and return the value at `position`. IndexError when there is none."""
        position = index(position)
        with operation:
            begin(self)
            if not len(self):
                raise IndexError("pop from empty list")
            value = self._p_delete(self._p_place(position, "pop index out of range"))
        return resolved(value)

    def remove(self, value: Any) -> None:
        """Remove the first occurrence of `value`. ValueError when there is none."""
        with operation:
            begin(self)
        while True:
            # comparing runs user code, so it is done outside the operation and what was found is looked at again inside
            try:
                position = self._p_find(value, 0, len(self))
            except ValueError:
                raise ValueError("list.remove(x): x not in list") from None
            item = self._p_get(position) if position < len(self) else None
            with operation:
                begin(self)
                if position < len(self) and self._p_get(position) is item:
                    self._p_delete(position)
                    return

    def _p_delitem(self, key: Any) -> None:
        if isinstance(key, slice):
            self._p_assign(key, ())
            return
        position = self._p_index(key)
        with operation:
            begin(self)
            self._p_delete(self._p_place(position, "list assignment index out of range"))

    def _p_index(self, key: Any) -> int:
        if not hasattr(key, "__index__"):
            raise TypeError(f"list indices must be integers or slices, not {type(key).__name__}")
        return index(key)

    def _p_place(self, position: int, message: str) -> int:
        n = len(self)
        if position < 0:
            position += n
        if not 0 <= position < n:
            raise IndexError(message)
        return position

    # --- many values --------------------------------------------------------------------------------------------------

    def extend(self, iterable: Iterable[Any]) -> None:
        """Append every value of `iterable`. When iterating it or storing a value fails, the values before it stay."""
        if iterable is self:
            iterable = self[:]
        source = iter(iterable)
        while True:
            batch: list[Any] = []
            failure: BaseException | None = None
            try:
                # appended one by one, so that an exception leaves what came before it
                batch.extend(islice(source, 1 if not isinstance(iterable, (list, tuple, range)) else _BATCH))
            except Exception as error:
                failure = error
            if batch:
                self._p_append_all(batch)
            if failure is not None:
                raise failure
            if not batch:
                return

    def _p_append_all(self, values: list[Any]) -> None:
        with operation:
            view = self._p_view
            self._p_changed()
            ready: list[Any] = []
            try:
                for value in values:
                    ready.append(value if type(value) in ATOMS else convert(view, value))
            finally:
                state = self._data
                push(view, state, ready)
                state.version += 1

    def _p_assign(self, key: slice, values: Iterable[Any]) -> None:
        """``self[key] = values`` as a builtin list does it."""
        try:
            source = list(values)
        except TypeError:
            if hasattr(values, "__iter__"):
                raise
            raise TypeError("can only assign an iterable") from None
        with operation:
            begin(self)
            n = len(self)
            start, stop, step = key.indices(n)
            new = stored_values(self._p_view, source)
            self._p_changed()
            if step != 1:
                places = range(start, stop, step)
                if isinstance(values, tuple) and not values:
                    if len(places) * LEAF > n:
                        rest = self._p_read(0, n)
                        del rest[key]
                        self._p_replace(rest)
                        return
                    for position in sorted(places, reverse=True):
                        self._p_delete(position)
                    return
                if len(new) != len(places):
                    raise ValueError(
                        f"attempt to assign sequence of size {len(new)} to extended slice of size {len(places)}"
                    )
                for position, value in zip(places, new, strict=True):
                    self._p_set(position, value)
                return
            stop = max(start, stop)
            same = min(len(new), stop - start)
            if n - same <= len(new) + stop - start:
                # most of it changes: write the rest anew
                rest = self._p_read(0, start) + new + self._p_read(stop, n)
                self._p_replace(rest)
                return
            for i in range(same):
                self._p_set(start + i, new[i])
            self._p_remove(start + same, stop)
            self._p_paste(start + same, new[same:])

    def _p_remove(self, start: int, stop: int) -> None:
        """Remove what is at start..stop-1 (in range), leaf by leaf. Inside an operation, the list being marked changed."""
        state = self._data
        if stop > state.count:
            del state.tail[max(start - state.count, 0) : stop - state.count]
            state.version += 1
            stop = state.count
        while start < stop and state.tree is not None:
            self._p_uneven(state)
            removed, tree = counted.cut(state.tree, start, stop - start)
            stop -= len(removed)
            state.arrange(state.tail, tree, state.count - len(removed))
        state.full = state.full or state.tree is None

    def _p_paste(self, position: int, values: list[Any]) -> None:
        """Insert stored values before `position` (in range, or the end). Inside an operation, the list being marked
        changed."""
        state = self._data
        if not values:
            return
        if position >= len(self):
            push(self._p_view, state, values)
        elif state.tree is not None and position < state.count:
            self._p_uneven(state)
            tree = counted.paste(self._p_view, state.tree, position, values)
            state.arrange(state.tail, tree, state.count + len(values))
        else:
            at = position - state.count
            tail, rest = state.tail[:at] + values, state.tail[at:]
            state.arrange([], state.tree, state.count)
            push(self._p_view, state, tail + rest)

    def _p_replace(self, values: list[Any]) -> None:
        """Make stored `values` the whole content. Inside an operation."""
        self._p_changed()
        state = self._data
        fresh = State([])
        push(self._p_view, fresh, values)
        state.front.clear()
        state.arrange(fresh.tail, fresh.tree, fresh.count)
        state.full = True

    def clear(self) -> None:
        """Remove everything."""
        with operation:
            self._p_replace([])

    def copy(self) -> List:
        """A new list of the same prefix with the same values."""
        with operation:
            return self._p_of(self._p_read(0, len(self)))  # what is stored: weak references stay weak

    def reverse(self) -> None:
        """Reverse the order in place."""
        with operation:
            begin(self)
            self._p_replace(self._p_read(0, len(self))[::-1])

    def sort(self, *, key: Callable[[Any], Any] | None = None, reverse: bool = False) -> None:
        """Sort in place, stably. ValueError when the list is changed by comparisons or `key`; it is not sorted then."""
        with operation:
            before = self._p_read(0, len(self))
        values = before
        if ATOMS.issuperset(map(type, before)):
            values = sorted(before, key=key, reverse=reverse)
        else:
            seen = all_resolved(before)  # in one, as the order is by what is read, and what is stored is moved
            keys = seen if key is None else [key(value) for value in seen]
            values = [before[i] for i in sorted(range(len(keys)), key=keys.__getitem__, reverse=reverse)]
        with operation:
            begin(self)
            now = self._p_read(0, len(self))
            if len(now) != len(before) or not all(map(is_, now, before)):
                raise ValueError("list modified during sort")
            self._p_replace(values)

    # --- operators ----------------------------------------------------------------------------------------------------

    def _p_of(self, values: Iterable[Any]) -> List:
        made: List = List._p_make(self._p_view, values)
        return made

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, (list, tuple, List, Tuple)):
            return NotImplemented
        return self._p_of([*self, *other])

    def __radd__(self, other: Any) -> Any:
        if not isinstance(other, (list, tuple)):
            return NotImplemented
        return self._p_of([*other, *self])

    def __iadd__(self, other: Iterable[Any]) -> List:  # type: ignore[misc]
        self.extend(other)
        return self

    def __mul__(self, times: Any) -> Any:
        if not hasattr(times, "__index__"):
            return NotImplemented
        return self._p_of(list(self) * index(times))

    __rmul__ = __mul__

    def __imul__(self, times: Any) -> Any:
        if not hasattr(times, "__index__"):
            return NotImplemented
        times = index(times)
        if times <= 0:
            self.clear()
        else:
            self._p_append_all(self[:] * (times - 1))
        return self


MutableSequence.register(List)


def make_list(iterable: Iterable[Any] | None = None, /) -> List:
    """A new persistent list on the current prefix.

    Args:
        iterable: values to fill it with; builtin containers among them become persistent ones, copied.

    Raises:
        TypeError: `iterable` can't be iterated. UnsupportedTypeError: a value can't be stored. ReadOnlyError: the
        prefix is read-only.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> numbers = db0.list([1, 2, 3])
    >>> numbers.append([4])
    >>> numbers[3].append(5)
    >>> numbers
    [1, 2, 3, [4, 5]]
    >>> db0.close()
    """
    values = () if iterable is None else iterable
    iter(values)
    made: List = List._p_make(scope.current_view(True), values)
    return made
