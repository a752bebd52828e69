"""Dict: the persistent counterpart of builtin dict.

State: up to LEAF entries in the collection's own record, loaded as a builtin dict. More of them stand in two keyed
trees: the *entries*, in order of insertion, each with a sequence number (:class:`DictNode`), and the *index*, from a
key's stable hash to the sequence numbers of the entries that have it (:class:`IndexNode`). So a change touches one
leaf of each, and iteration reads leaves in order. The nodes of both and the loaded state are defined in
:mod:`dbzero.collections.dictnodes`. Keys are kept in native form (:mod:`dbzero.collections.keys`). In front of the
trees stands a front (:mod:`dbzero.collections.fronts`), a builtin dict of entries found lately, and before that what is
pending (:mod:`dbzero.collections.pending`). Both trees are worked on in :mod:`dbzero.collections.dicttrees`. What is
ordinary of getting and setting is done in C (csrc/pytypes_keyed.c).
"""

from __future__ import annotations

import collections.abc
from bisect import bisect_left
from collections.abc import ItemsView, Iterable, Iterator, KeysView, ValuesView
from typing import TYPE_CHECKING, Any

from dbzero.collections import dicttrees, keyed
from dbzero.collections.dictnodes import DictNode, IndexNode, State, remember, restored_keys
from dbzero.collections.dictviews import DictItems, DictKeys, DictValues
from dbzero.collections.keys import admit, flatten, native, reveal, reveal_all
from dbzero.collections.nodes import (
    ATOMS,
    LEAF,
    Stored,
    begin,
    carried,
    corrupt,
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
from dbzero.collections.text import shown
from dbzero.model import scope
from dbzero.model.base import DictWays, Persistent, operation
from dbzero.model.deferred import all_resolved, resolved
from dbzero.model.values import convert
from dbzero.model.view import View

_MISSING: Any = object()


class Dict(Stored, DictWays):  # type: ignore[misc]
    """A dict that lives in a prefix. Make one with ``db0.dict``; it has the methods, operators and order of a builtin
    dict.

    Keys are None, bool, int, float, str, bytes, Decimal, date, datetime, time, tuples of these, and memo objects,
    which count by identity whatever equality their class defines. A change while iterating is tolerated: every entry
    is visited at most once, and no more steps are made than entries are left.
    """

    __slots__ = ()
    KIND = 6
    __hash__ = None  # type: ignore[assignment]
    __class_getitem__: Any = classmethod(type(dict[int, int]))
    _data: State

    def __new__(cls, *args: Any, **kw: Any) -> Any:
        if args or kw:
            raise TypeError("make dicts with db0.dict()")
        return super().__new__(cls)

    # --- storing ------------------------------------------------------------------------------------------------------

    @classmethod
    def _p_make(cls, view: View, values: Any = (), kw: dict[str, Any] | None = None) -> Any:
        """A new dict in `view`. If iterating or storing an entry fails, nothing is made."""
        pairs = [(key if type(key) in ATOMS else admit(view, key), value) for key, value in _pairs(values, kw)]
        with operation:
            obj = cls.__new__(cls)
            set_data(obj, State({}))
            view.adopt(obj)
            last = dict(pairs)
            obj._p_fill({form: value if type(value) in ATOMS else convert(view, value) for form, value in last.items()})
        return obj

    def _p_fill(self, items: dict[Any, Any]) -> None:
        """Make the stored `items` the whole content. Inside an operation."""
        state = touch(self)
        state.front.clear()
        if state.pending:
            state.pending.clear()
        state.version += 1
        state.last = None
        if len(items) <= LEAF:
            state.items, state.entries, state.index, state.count, state.next = items, None, None, 0, 0
            return
        dicttrees.build(self._p_view, state, items)

    def _p_encode(self) -> tuple[bytes, list[int]]:
        state = self._data
        if state.items is not None:
            return pack(self.KIND, [0, len(state.items), *state.items.values(), *flatten(state.items)])
        self._p_settle(state)
        assert state.entries is not None and state.index is not None
        oids = [state.entries._p_oid, state.index._p_oid]
        return pack(self.KIND, [state.count, state.next, *oids])[0], oids

    def _p_decode(self, payload: bytes) -> None:
        values = unpack(self, payload, 3)
        count = natural(self, values[0])
        if not count:
            n = natural(self, values[1], 0, len(values) - 3)
            keys = restored_keys(self, values[n + 2 :], n)
            set_data(self, State(dict(zip(keys, values[2 : n + 2], strict=True))))
            return
        if len(values) != 4:
            raise corrupt(self, f"{len(values)} values instead of 4")
        state = State(None)
        state.count, state.next = count, natural(self, values[1], count)
        state.entries = member(self, DictNode, values[2])
        state.index = member(self, IndexNode, values[3])
        set_data(self, state)

    def _p_clear(self) -> None:
        state = self._data
        state.version += 1  # an iterator that holds this state looks for the new one
        state.front.clear()
        set_data(self, None)

    def _p_native(self, view: View) -> Any:
        raise TypeError("unhashable type: 'Dict'")

    def _p_carried(self) -> Any:
        return {key: carried(value) for key, value in self.items()}

    def _p_harden(self, view: View) -> Any:
        """What another prefix's `view` stores when this is assigned to one of its objects: see
        :func:`moved`. BadPrefixError when it has entries."""
        if len(self):
            refuse_move(self, view)
        return moved(self, view, lambda: self._p_make(view))

    # --- look-up ------------------------------------------------------------------------------------------------------

    if TYPE_CHECKING:

        def __len__(self) -> int: ...

        def __contains__(self, key: Any) -> bool: ...

        def __getitem__(self, key: Any) -> Any: ...

        def __setitem__(self, key: Any, value: Any) -> None: ...

        def __delitem__(self, key: Any) -> None: ...

        def get(self, key: Any, default: Any = None, /) -> Any:
            """The value of `key`, or `default`."""

    # each of these is called for what is not ordinary

    def _p_length(self) -> int:
        with operation:
            state = self._data
            if state.items is not None:
                return len(state.items)
            self._p_settle(state)
            return state.count

    def _p_getitem(self, key: Any) -> Any:
        found = self._p_get(key if type(key) in ATOMS else native(self._p_view, key), _MISSING)
        if found is _MISSING:
            raise KeyError(key)
        return resolved(found)

    def _p_get_slowly(self, key: Any, default: Any) -> Any:
        return resolved(self._p_get(key if type(key) in ATOMS else native(self._p_view, key), default))

    def _p_has_slowly(self, key: Any) -> bool:
        return self._p_get(key if type(key) in ATOMS else native(self._p_view, key), _MISSING) is not _MISSING

    def _p_get(self, form: Any, default: Any) -> Any:
        """The stored value of a key in native form, or `default`."""
        relieve(self)
        with operation:
            state = self._data
            if state.items is not None:
                return state.items.get(form, default)
            for known in (state.pending, state.front):
                if known and form in known:
                    return known[form]
            found = dicttrees.find(state, form)
            if found is None:
                return default
            node, i = found
            value = node._data.values[i]
            remember(state.front, node, form, value)
            return value

    def _p_settle(self, state: State) -> None:
        """Put what is pending into the trees. Inside an operation."""
        if state.pending:
            dicttrees.settle(self._p_view, state)

    # --- change -------------------------------------------------------------------------------------------------------

    def _p_setitem(self, key: Any, value: Any) -> None:
        with operation:
            if type(value) not in ATOMS:
                value = convert(self._p_view, value)
            self._p_put(key if type(key) in ATOMS else admit(self._p_view, key), value)

    def _p_put(self, form: Any, value: Any) -> None:
        """Set a stored value. Inside an operation."""
        self._p_changed()
        state = self._data
        items = state.items
        state.version += 1
        if items is not None:
            items[form] = value
            if len(items) > LEAF:
                self._p_fill(items)
            return
        if state.pending is None:
            state.pending = {}
            register(self._p_view, self)
        state.pending[form] = value

    def _p_take(self, form: Any, default: Any) -> Any:
        """Remove an entry and return its value; `default` when there is none. Inside an operation."""
        begin(self)
        state = self._data
        items = state.items
        if items is not None:
            if form not in items:
                return default
            self._p_changed()
            state.version += 1
            return items.pop(form)
        self._p_settle(state)
        value = dicttrees.take(self, state, form, default)
        if not state.count:
            self._p_fill({})
        return value

    def _p_delitem(self, key: Any) -> None:
        form = native(self._p_view, key)
        with operation:
            if self._p_take(form, _MISSING) is _MISSING:
                raise KeyError(key)

    def pop(self, key: Any, default: Any = _MISSING, /) -> Any:
        """Remove `key` and return its value; when it isn't there `default`, or KeyError without one."""
        form = native(self._p_view, key)
        with operation:
            value = self._p_take(form, default)
        if value is _MISSING:
            raise KeyError(key)
        return resolved(value)

    def popitem(self) -> tuple[Any, Any]:
        """Remove and return the last (key, value). KeyError when the dict is empty."""
        with operation:
            begin(self)
            state = self._data
            if not len(self):
                raise KeyError("popitem(): dictionary is empty")
            if state.items is not None:
                form = next(reversed(state.items))
            else:
                self._p_settle(state)
                assert state.entries is not None
                form = keyed.find(state.entries, state.next)._data.keys[-1]
            value = self._p_take(form, None)
        return reveal(form), resolved(value)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """The value of `key`, which is first set to `default` if it isn't there."""
        with operation:
            form = key if type(key) in ATOMS else admit(self._p_view, key)
            begin(self)
            value = self._p_get(form, _MISSING)
            if value is _MISSING:
                value = default if type(default) in ATOMS else convert(self._p_view, default)
                self._p_put(form, value)
        return resolved(value)

    def update(self, other: Any = (), /, **kw: Any) -> None:
        """Set all entries of a mapping or of an iterable of pairs, then the keywords. When one fails, those before it
        stay."""
        for key, value in _pairs(other, kw):
            self[key] = value

    def clear(self) -> None:
        """Remove everything."""
        with operation:
            self._p_fill({})

    # --- all entries --------------------------------------------------------------------------------------------------

    def keys(self) -> KeysView[Any]:
        """A live view of the keys."""
        return DictKeys(self)

    def values(self) -> ValuesView[Any]:
        """A live view of the values."""
        return DictValues(self)

    def items(self) -> ItemsView[Any, Any]:
        """A live view of the (key, value) pairs."""
        return DictItems(self)

    def _p_part(self, cursor: int | None, seen: set[Any]) -> tuple[list[Any], list[Any], list[int] | None, State]:
        """The next entries, in order: keys, values, sequence numbers (None: small dict), the state. No keys: there are
        no more.

        They are those from sequence number `cursor` on (None: from the first on) that are not in `seen`."""
        relieve(self)
        with operation:
            state = self._data
            if state.items is not None:
                items = state.items
                if not seen:
                    return list(items), list(items.values()), None, state
                keys = [form for form in items if form not in seen]
                return keys, [items[form] for form in keys], None, state
            self._p_settle(state)
            assert state.entries is not None
            while True:
                leaf, _, high = keyed.find_bound(state.entries, cursor)
                data = leaf._data
                start = 0 if cursor is None else bisect_left(data.seqs, cursor)
                keys, values, seqs = data.keys[start:], data.values[start:], data.seqs[start:]
                if seen:
                    kept = [i for i, form in enumerate(keys) if form not in seen]
                    keys, values, seqs = [keys[i] for i in kept], [values[i] for i in kept], [seqs[i] for i in kept]
                if keys or high is None:
                    return keys, values, seqs, state
                cursor = high

    def _p_walk(self, what: int) -> Iterator[Any]:
        """Keys (what 0), values (1) or pairs (2), in order, tolerating changes."""
        cursor: int | None = None
        seen: set[Any] = set()
        visited = 0
        changed = False
        while True:
            forms, values, seqs, state = self._p_part(cursor, seen)
            if not forms:
                return
            version = state.version
            if what and not ATOMS.issuperset(map(type, values)):
                values = all_resolved(values)
            out: Iterable[Any] = (
                reveal_all(forms) if what == 0 else values if what == 1 else zip(reveal_all(forms), values, strict=True)
            )
            n = 0
            for item in out:
                n += 1
                yield item
                if state.version != version:
                    changed = True
                    break
            visited += n
            if changed and visited >= len(self):
                return
            if seqs is not None:
                cursor = seqs[n - 1] + 1
            elif changed:
                seen.update(forms[:n])
            else:
                return

    def __iter__(self) -> Iterator[Any]:
        return self._p_walk(0)

    def __reversed__(self) -> Iterator[Any]:
        return iter(list(self)[::-1])

    def copy(self) -> Dict:
        """A new dict of the same prefix with the same entries."""
        with operation:
            made: Dict = Dict._p_make(self._p_view)
            made._p_fill(self._p_stored())  # weak references stay weak
        return made

    def _p_stored(self) -> dict[Any, Any]:
        """The stored entries, as a new builtin dict. Inside an operation."""
        state = self._data
        if state.items is not None:
            return dict(state.items)
        self._p_settle(state)
        assert state.entries is not None
        items: dict[Any, Any] = {}
        high: int | None = None
        while True:
            leaf, _, high = keyed.find_bound(state.entries, high)
            items.update(zip(leaf._data.keys, leaf._data.values, strict=True))
            if high is None:
                return items

    def fromkeys(self, iterable: Iterable[Any], value: Any = None, /) -> Dict:
        """A new dict of the same prefix with the keys of `iterable`, each with `value`."""
        made: Dict = Dict._p_make(self._p_view, [(key, value) for key in iterable])
        return made

    # --- operators ----------------------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> Any:
        if self is other:
            return True
        if not isinstance(other, (dict, Dict)):
            return NotImplemented
        if len(self) != len(other):
            return False
        for key, value in other.items():
            mine = self.get(key, _MISSING)
            if mine is _MISSING or not (mine is value or mine == value):
                return False
        return True

    def __ne__(self, other: object) -> Any:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __or__(self, other: Any) -> Any:
        if not isinstance(other, (dict, Dict)):
            return NotImplemented
        made = self.copy()
        made.update(other)
        return made

    def __ror__(self, other: Any) -> Any:
        if not isinstance(other, dict):
            return NotImplemented
        made: Dict = Dict._p_make(self._p_view, other)
        made.update(self)
        return made

    def __ior__(self, other: Any) -> Any:
        self.update(other)
        return self

    def __repr__(self) -> str:
        return shown(
            self, lambda: "{" + ", ".join([f"{key!r}: {value!r}" for key, value in self.items()]) + "}", "{...}"
        )

    def _check(self) -> None:
        """Verify the structure; AssertionError tells what is wrong."""
        with operation:
            state = self._data
            if state.items is not None:
                assert state.entries is None and state.index is None and len(state.items) <= LEAF, (
                    "small dict of a wrong size"
                )
                return
            self._p_settle(state)
            dicttrees.check(state)
            for form, value in list(state.front.items()):
                found = dicttrees.find(state, form)
                assert found is not None and _agree(found[0]._data.values[found[1]], value), (
                    "wrong entry in front of the trees"
                )


def _agree(found: Any, value: Any) -> bool:
    """Whether a leaf and the front say the same. A leaf that was dropped and read again has equal atoms, not the same."""
    if found is value:
        return True
    if type(found) is not type(value) or isinstance(value, Persistent):
        return False
    return type(value) not in ATOMS or repr(found) == repr(value)


def _pairs(other: Any, kw: dict[str, Any] | None = None) -> Iterator[tuple[Any, Any]]:
    """The entries of a mapping or an iterable of pairs, then of the keywords; TypeError or ValueError as builtin dict
    raises them."""
    if isinstance(other, (dict, Dict)):
        yield from list(other.items())
    elif hasattr(other, "keys"):
        for key in other.keys():  # noqa: SIM118 - as builtin dict does
            yield key, other[key]
    else:
        for i, pair in enumerate(other):
            try:
                parts = tuple(pair)
            except TypeError:
                raise TypeError(f"cannot convert dictionary update sequence element #{i} to a sequence") from None
            if len(parts) != 2:
                raise ValueError(f"dictionary update sequence element #{i} has length {len(parts)}; 2 is required")
            yield parts
    if kw:
        yield from kw.items()


collections.abc.MutableMapping.register(Dict)


def make_dict(iterable: Any = None, /, **kw: Any) -> Dict:
    """A new persistent dict on the current prefix.

    Args:
        iterable: a mapping or an iterable of pairs.
        kw: further entries.

    Raises:
        TypeError: `iterable` is neither, or a key is unhashable. ValueError: an element isn't a pair.
        UnsupportedTypeError: a key or value can't be stored.
        ReadOnlyError: the prefix is read-only.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> person = db0.dict({"name": "Ann"}, age=30)
    >>> person["city"] = "York"
    >>> person
    {'name': 'Ann', 'age': 30, 'city': 'York'}
    >>> db0.close()
    """
    made: Dict = Dict._p_make(scope.current_view(True), () if iterable is None else iterable, kw)
    return made
