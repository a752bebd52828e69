"""Index: a persistent ordered multimap from keys to memo objects.

State: two trees of entries (:mod:`dbzero.collections.pairs`), one of the keyed entries in order of key and one of
those whose key is None, the number of entries in each, and the family of the keys (:mod:`dbzero.collections.order`),
which the first one fixes. Entries with equal keys are in order of creation of their objects.

Entries that are added to an index that is dirty already are left pending (:mod:`dbzero.collections.pending`) until
anything asks for entries, and go into the tree all at once, in order: a run of additions changes each leaf once.

An iteration is a :class:`Walk`. It reads leaf by leaf, and the index tells all its running walks about entries that are
added or removed ahead of them. So each shows what there was when it began, at a cost that grows with the changes and not
with the index.
"""

from __future__ import annotations

import datetime as dt
import gc
from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from itertools import islice
from operator import itemgetter, lt
from typing import Any, ClassVar, cast
from weakref import WeakSet

from pyroaring import BitMap64

from dbzero.collections import pairs
from dbzero.collections.nodes import (
    LEAF,
    Stored,
    begin,
    corrupt,
    create,
    is_referenced,
    member,
    moved,
    natural,
    pack,
    refuse_move,
    relieve,
    set_data,
    unpack,
)
from dbzero.collections.order import FAMILIES, NAMES, RANKED, Item, place, refuse
from dbzero.collections.pairs import PairNode, Pairs
from dbzero.collections.pending import register
from dbzero.collections.selections import Selection, Sorting
from dbzero.errors import BadPrefixError, Error, ReferenceError
from dbzero.model import base, scope
from dbzero.model.base import Persistent, operation
from dbzero.model.memo import MemoObject
from dbzero.model.values import convert
from dbzero.model.versions import live_version
from dbzero.model.view import View
from dbzero.model.weak import WeakProxy, target_of
from dbzero.query.base import Query

Batch = tuple[list[Item], list[Any], list[Any]]
"""Some entries: (rank, OID), keys, objects."""

QUICK = {kind: FAMILIES[kind] for kind in (int, float, str, bytes, dt.date)}
"""Families of keys that are their own ranks, if equal to themselves."""

_rank = itemgetter(0)
_UNSURE = base.EXPIRED | base.CLOSED | base.INIT
_FEW_LEAVES = 4  # that are read at once
_TOP = 1 << 62  # above every OID


class State:
    """Loaded state: `count` entries below `root`, whose keys are of `family`; `nulls` entries below `null_root`.

    `pending` is a list of ranks, OIDs and objects, by turns, of further entries, whose keys are their ranks and of `family`;
    some may be below `root` already. None: nothing may be left pending. As long as `token` is the same object, the trees
    have the same entries.
    """

    __slots__ = ("count", "family", "null_root", "nulls", "pending", "root", "token")

    def __init__(self) -> None:
        self.token = object()
        self.pending: list[Any] | None = None
        self.family: str | None = None
        self.count = 0
        self.root: PairNode | None = None
        self.nulls = 0
        self.null_root: PairNode | None = None


class Walk:
    """One running iteration over one of the trees, from `start` to `high`, which both may be None: no bound.

    `bare`: nobody wants the keys, and the items may stand for those that are not None.

    Ahead of it, `added` was not there when it began, `removed` was; the latter's places are in `order`, ascending.
    `cut`: the tree as it was is gone, what is left to visit is in `removed`.
    """

    __slots__ = ("__weakref__", "added", "bare", "cut", "done", "high", "nulls", "order", "removed", "start")

    def __init__(self, nulls: bool, start: Item | None, high: Item | None, bare: bool) -> None:
        self.bare = bare
        self.nulls = nulls
        self.start = start
        self.high = high
        self.added: set[Item] = set()
        self.removed: dict[Item, tuple[Any, Any]] = {}
        self.order: list[Item] = []
        self.cut = False
        self.done = False

    def ahead(self, nulls: bool, item: Item) -> bool:
        """Whether it has still to come to that place."""
        return nulls == self.nulls and not (self.done or self.cut) and (self.start is None or item >= self.start)

    def note_added(self, item: Item) -> None:
        """An entry was added ahead."""
        if item in self.removed:
            del self.removed[item], self.order[bisect_left(self.order, item)]
        else:
            self.added.add(item)

    def note_removed(self, item: Item, key: Any, obj: Any) -> None:
        """An entry was removed ahead."""
        if item in self.added:
            self.added.discard(item)
        else:
            self.removed[item] = key, obj
            insort(self.order, item)

    def next(self, root: PairNode | None) -> Batch:
        """The entries of the next leaf of the tree. Inside an operation."""
        items: list[Item] = []
        keys: list[Any] = []
        objects: list[Any] = []
        following: Item | None = None
        if root is not None and not self.cut:
            data, at, following = pairs.part(root, self.start)
            end = len(data.items) if self.high is None else bisect_right(data.items, self.high, at)
            if end < len(data.items):
                following = None  # what follows is higher
            items, objects = data.items[at:end], data.objects[at:end]
            keys = [None] * len(items) if self.nulls else items if self.bare else data.span(at, end)
        if self.added or self.order:
            items, keys, objects = self._mend(items, keys, objects, following)
        self.start = following
        self.done = following is None
        return items, keys, objects

    def _mend(self, items: list[Item], keys: list[Any], objects: list[Any], following: Item | None) -> Batch:
        entries = [entry for entry in zip(items, keys, objects, strict=True) if entry[0] not in self.added]
        lost = [(item, *self.removed.pop(item)) for item in self._due(following)]
        entries += [entry for entry in lost if self._inside(entry[0])]
        entries.sort(key=lambda entry: entry[0])
        return [entry[0] for entry in entries], [entry[1] for entry in entries], [entry[2] for entry in entries]

    def _due(self, following: Item | None) -> list[Item]:
        """The removed items that it would have come to by now."""
        n = len(self.order) if following is None else bisect_left(self.order, following)
        due, self.order = self.order[:n], self.order[n:]
        return due

    def _inside(self, item: Item) -> bool:
        return self.high is None or item <= self.high


class BackWalk(Walk):
    """A walk from high to low: `start` is above all that is left (None: no bound), `high` is the lowest item."""

    __slots__ = ()

    def ahead(self, nulls: bool, item: Item) -> bool:
        """Whether it has still to come to that place."""
        return nulls == self.nulls and not (self.done or self.cut) and (self.start is None or item < self.start)

    def next(self, root: PairNode | None) -> Batch:
        """The entries of the next leaf of the tree, from high to low. Inside an operation."""
        items: list[Item] = []
        keys: list[Any] = []
        objects: list[Any] = []
        following: Item | None = None
        if root is not None and not self.cut:
            data, end, following = pairs.part_before(root, self.start)
            at = 0 if self.high is None else bisect_left(data.items, self.high)
            if at:
                following = None  # what follows is lower
            at = min(at, end)
            items, objects = data.items[at:end], data.objects[at:end]
            keys = [None] * len(items) if self.nulls else items if self.bare else data.span(at, end)
        if self.added or self.order:
            items, keys, objects = self._mend(items, keys, objects, following)
        self.start = following
        self.done = following is None
        return items[::-1], keys[::-1], objects[::-1]

    def _due(self, following: Item | None) -> list[Item]:
        n = 0 if following is None else bisect_left(self.order, following)
        due, self.order = self.order[n:], self.order[:n]
        return due

    def _inside(self, item: Item) -> bool:
        return self.high is None or item >= self.high


class Index(Stored):
    """A persistent ordered multimap, key -> memo object. Make one with ``db0.index``.

    Keys are None or of one family: numbers (bool, int, float, Decimal), str, bytes, date, naive datetimes, aware ones,
    naive times, aware ones; the first key decides. They are in natural order, None last. A pair of key and object is
    there at most once; an object may stand under several keys, a key for several objects. Each entry refers to its
    object strongly. Equal only to itself.
    """

    __slots__ = ("_p_walks",)
    KIND = 13
    _p_node: ClassVar[type[PairNode]] = PairNode
    __class_getitem__: Any = classmethod(type(list[int]))
    __contains__ = None
    _data: State

    def __new__(cls, *args: Any, **kw: Any) -> Any:
        if args or kw:
            raise TypeError("make indexes with db0.index()")
        return super().__new__(cls)

    # --- storing ------------------------------------------------------------------------------------------------------

    def _p_encode(self) -> tuple[bytes, list[int]]:
        state = self._p_settled()
        oids = [0 if root is None else int(root._p_oid) for root in (state.root, state.null_root)]
        values = [state.family, state.count, oids[0], state.nulls, oids[1]]
        return pack(self.KIND, values)[0], [oid for oid in oids if oid]

    def _p_decode(self, payload: bytes) -> None:
        family, count, oid, nulls, null_oid = unpack(self, payload, 5)[:5]
        state = State()
        state.count, state.nulls = natural(self, count), natural(self, nulls)
        if bool(count) != bool(oid) or bool(nulls) != bool(null_oid) or bool(count) != (family in NAMES):
            raise corrupt(self, "wrong number of entries")
        state.family = family
        if count:
            state.root = member(self, self._p_node, oid)
        if nulls:
            state.null_root = member(self, self._p_node, null_oid)
        set_data(self, state)

    def _p_harden(self, view: View) -> Any:
        """What another prefix's `view` stores when this is assigned to one of its objects: see :func:`moved`.
        BadPrefixError when it has entries, as their objects cannot move."""
        if len(self):
            refuse_move(self, view)
        return moved(self, view, lambda: make(view))

    # --- entries ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        with operation:
            state = self._p_settled()
            return state.count + state.nulls

    def add(self, key: Any, value: Any, /) -> None:
        """Add an entry; nothing happens when that very pair is there already.

        Args:
            key: None, or a key of the same family as the others.
            value: a memo object of the index's prefix. The first one of another prefix takes an index along that is
            stored nowhere yet.

        Raises:
            UnsupportedTypeError: keys of that type, or that type beside the others, have no order. Error: `value` is
            no memo object. BadPrefixError: it belongs to another prefix. ReadOnlyError: the prefix is read-only.
        """
        family = QUICK.get(type(key))
        if family is not None and isinstance(value, MemoObject):
            with operation:
                state = self._data
                pending = state.pending
                if pending is not None and state.family == family and key == key:
                    view, oid, flags = base.identify(value)
                    if view is self._p_view and not flags & _UNSURE:
                        self._p_changed()
                        pending += (key, oid, value)
                        return
        self._p_add(key, value)

    def _p_add(self, key: Any, value: Any) -> None:
        """:meth:`add` for whatever is not ordinary."""
        obj = _memo(value)
        if obj._p_view is not self._p_view:
            self._p_follow(obj)
        view = self._p_view
        if obj._p_view is not view:
            raise BadPrefixError(
                f"an object of prefix {obj._p_view.name!r} cannot be added to an index of prefix {view.name!r}: use "
                f"an index of its own prefix"
            )
        with operation:
            convert(view, obj)
            begin(self)
            state = self._data
            nulls = key is None
            family, rank, key = ("", 0, None) if nulls else place(view, key)
            if not nulls and state.family is not None and family != state.family:
                raise refuse(family, state.family)
            item: Item = (rank, obj._p_oid)
            if state.pending is not None and family == state.family:
                self._p_changed()
                state.pending += (*item, obj)
            elif self._p_enter(family, item, key, obj) and not nulls:
                if family in RANKED:
                    state.pending = None
                elif state.pending is None:
                    state.pending = []
                    register(view, self)

    def _p_enter(self, family: str, item: Item, key: Any, held: Any) -> bool:
        """Add an entry, if it is not there: else False. Inside an operation. `held`: what its leaf keeps of the
        object."""
        state = self._data
        nulls = key is None
        root = state.null_root if nulls else state.root
        keyless = nulls or family not in RANKED
        if root is None:
            self._p_change()
            root = pairs.start(self._p_view, item, key, keyless, held, self._p_node)
        else:
            there = pairs.locate(root, item)
            if there.found:
                return False
            self._p_change()
            root = pairs.add(self._p_view, root, there, item, key, held)
        if nulls:
            state.null_root = root
            state.nulls += 1
        else:
            state.root = root
            state.family = family
            state.count += 1
        for walk in _walks(self):
            if walk.ahead(nulls, item):
                walk.note_added(item)
        return True

    def _p_settled(self) -> State:
        """The state, with everything pending put into the tree. Inside an operation."""
        state = self._data
        if state.pending:
            self._p_settle(state)
        return state

    def _p_settle(self, state: State) -> None:
        """Put what is pending into the tree. Inside an operation."""
        pending = state.pending
        if not pending:
            return
        # What is made here stays: collections of garbage meanwhile would look at all of it again and again.
        collecting = len(pending) > 3 * LEAF and gc.isenabled()
        if collecting:
            gc.disable()
        try:
            items, objects = _in_order(pending)
            self._p_change()
            added: list[Item] = []
            assert state.root is not None
            try:
                for root in pairs.merge(self._p_view, state.root, items, objects, added):
                    state.root = root
            finally:
                state.count += len(added)
            pending.clear()
        finally:
            if collecting:
                gc.enable()
        for walk in _walks(self):
            for item in added:
                if walk.ahead(False, item):
                    walk.note_added(item)

    def _p_follow(self, obj: Any) -> None:
        """Move to the prefix of `obj`, if that is live and this index is empty and stored nowhere."""
        home: View = obj._p_view
        with operation:
            if home.writable and self._p_view.writable and not len(self) and not is_referenced(self):
                moved(self, home, lambda: make(home))

    def remove(self, key: Any, value: Any, /) -> None:
        """Remove an entry; nothing happens when that pair isn't there.

        Raises Error when `value` is no memo object, UnsupportedTypeError when there are no keys of that type.
        """
        obj = _memo(value)
        with operation:
            begin(self)
            state = self._p_settled()
            nulls = key is None
            family, rank, _ = ("", 0, None) if nulls else place(self._p_view, key)
            if obj._p_view is self._p_view and (nulls or family == state.family):
                self._p_leave((rank, obj._p_oid), nulls, obj)

    def _p_leave(self, item: Item, nulls: bool, held: Any) -> None:
        """Remove an entry, if it is there. Inside an operation."""
        state = self._data
        root = state.null_root if nulls else state.root
        there = None if root is None else pairs.locate(root, item)
        if there is None or not there.found:
            return
        assert root is not None
        self._p_change()
        stored_key, root = pairs.remove(root, there)
        walks = _walks(self)
        for walk in walks:
            if walk.ahead(nulls, item):
                walk.note_removed(item, None if nulls else stored_key, held)
        if nulls:
            state.null_root = root
            state.nulls -= 1
            return
        state.root = root
        state.count -= 1
        if root is None:
            state.family = None  # any key may be the next one
            for walk in walks:
                walk.cut = walk.cut or not walk.nulls

    def clear(self) -> None:
        """Remove all entries."""
        with operation:
            begin(self)
            if not len(self):
                return
            self._p_changed()
            state = self._p_settled()
            for walk in _walks(self):
                self._p_take_along(walk)
            for root in (state.root, state.null_root):
                if root is not None and type(root._data) is pairs.Pairs:
                    root._p_changed()
                    set_data(root, pairs.Pairs([], None, []))  # so that its objects are released at once
            set_data(self, State())

    def _p_change(self) -> None:
        """Mark the index changed. Inside an atomic block, whose end may put the trees back, running walks take along what
        they have still to visit: their notes would not be right for the trees that were put back."""
        self._p_changed()
        self._data.token = object()
        if base.block_depth():
            for walk in _walks(self):
                if not (walk.done or walk.cut):
                    self._p_take_along(walk)

    def _p_take_along(self, walk: Walk) -> None:
        """Give `walk` all that it has still to visit: the trees go."""
        state = self._data
        while not walk.done:
            items, keys, objects = walk.next(state.null_root if walk.nulls else state.root)
            walk.removed.update(zip(items, zip(keys, objects, strict=True), strict=True))
            walk.order += items
        walk.order.sort()
        walk.done = False
        walk.cut = True

    def flush(self) -> None:
        """Does nothing: what was added is there at once."""
        len(self)

    # --- iterating and asking -----------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for _, keys, objects in self._p_batches(None, None, False):
            yield from zip(keys, objects, strict=True)

    def select(self, low: Any = None, high: Any = None, null_first: bool = False) -> Selection:
        """A query of the objects with low <= key <= high, in order of their keys.

        Args:
            low, high: bounds, both included; None: no bound.
            null_first: whether the key None counts as lower than all others, and not as higher. Such entries are among
                the results when there is no bound on that side.

        Raises UnsupportedTypeError when the index holds keys of another family; when it has none, any bound will do.
        """
        self._p_spans(low, high, null_first, null_first)
        return Selection(self, low, high, null_first)

    def range(self, low: Any = None, high: Any = None, null_first: bool = False) -> Selection:
        """The older name of :meth:`select`."""
        return self.select(low, high, null_first)

    def sort(self, query: Query, /, *, desc: bool = False, null_first: bool = False) -> Query:
        """A query of the results of `query`, in order of their keys in this index. What isn't in the index is left
        out; equal keys keep the order of `query`, so that sorts can be nested.

        Args:
            query: what ``select`` or ``sort`` returned.
            desc: from the highest key to the lowest.
            null_first: None counts as lower than all other keys, and not as higher; so with `desc` it comes last.

        Raises TypeError when `query` isn't a query.
        """
        if not isinstance(query, Query):
            raise TypeError(
                f"sort() needs a query, not {type(query).__name__}: give it what select() or sort() returns"
            )
        splits = query._p_splits()
        if splits:
            from dbzero.query.splits import objects_of, resplit  # it needs the tag index, and that collections

            return resplit(Sorting(self, objects_of(query), desc, null_first), splits)
        return Sorting(self, query, desc, null_first)

    def _p_spans(
        self, low: Any, high: Any, null_first: bool, nulls_lead: bool
    ) -> list[tuple[bool, Item | None, Item | None]]:
        """Which parts of the trees make up a selection: (of the nulls?, lowest item, highest item)."""
        state = self._data
        spans: list[tuple[bool, Item | None, Item | None]] = []
        if state.family is not None:
            ends: list[Item | None] = []
            for bound, oid in ((low, 0), (high, _TOP)):
                if bound is None:
                    ends.append(None)
                    continue
                family, rank, _ = place(self._p_view, bound)
                if family != state.family:
                    raise refuse(family, state.family)
                ends.append((rank, oid))
            spans.append((False, ends[0], ends[1]))
        if (low if null_first else high) is None:
            spans.insert(0 if nulls_lead else len(spans), (True, None, None))
        return spans

    def _p_batches(
        self,
        low: Any,
        high: Any,
        null_first: bool,
        nulls_lead: bool | None = None,
        desc: bool = False,
        bare: bool = False,
    ) -> Iterator[Batch]:
        """The entries of a selection as they are now, leaf by leaf, in order of key; those without one stand first if
        `nulls_lead` (None: if `null_first`). `desc`: all of it from back to front. `bare`: keys are not wanted, anything
        but None may stand for them."""
        lead = null_first if nulls_lead is None else nulls_lead
        with operation:
            self._p_settled()
            spans = self._p_spans(low, high, null_first, lead)
            running: list[Walk] = [Walk(*span, bare) for span in spans]
            if desc:
                running = [BackWalk(nulls, end, start, bare) for nulls, start, end in reversed(spans)]
            walks = _walks(self)
            if type(walks) is not WeakSet:
                walks = WeakSet()
                _set_walks(self, walks)
            for walk in running:
                walks.add(walk)
        for walk in running:
            while not walk.done:
                relieve(self)
                with operation:
                    state = self._data
                    batch = walk.next(state.null_root if walk.nulls else state.root)
                if batch[0]:
                    yield batch
            walks.discard(walk)

    def _p_parts(self, low: Any, high: Any, null_first: bool) -> Iterator[tuple[Pairs, int, int]]:
        """A selection as parts of leaves: (state, first place, place behind the last). Inside one operation."""
        state = self._p_settled()
        for nulls, start, end in self._p_spans(low, high, null_first, null_first):
            root = state.null_root if nulls else state.root
            following: Item | None = start
            while root is not None:
                data, at, following = pairs.part(root, following)
                stop = len(data.items) if end is None else bisect_right(data.items, end, at)
                yield data, at, stop
                if following is None or stop < len(data.items):
                    break

    def _p_few(self, low: Any, high: Any, null_first: bool) -> list[Any] | None:
        """The objects of a selection that lies in a few leaves, in order; None: it doesn't."""
        objects: list[Any] = []
        with operation:
            for n, (data, at, stop) in enumerate(self._p_parts(low, high, null_first)):
                if n == _FEW_LEAVES:
                    return None
                objects += data.objects[at:stop]
        return objects

    def _p_count(self, low: Any, high: Any, null_first: bool) -> int:
        """How many entries a selection has."""
        with operation:
            return sum([stop - at for _, at, stop in self._p_parts(low, high, null_first)])

    def _p_token(self) -> object:
        """What stays the same object as long as no entry comes or goes. Inside an operation."""
        return self._p_settled().token

    def _p_oids(self, low: Any, high: Any, null_first: bool) -> BitMap64:
        """The OIDs of a selection's objects, from the leaves. Inside an operation."""
        items: list[Item] = []
        for data, at, stop in self._p_parts(low, high, null_first):
            items += data.items if stop - at == len(data.items) else data.items[at:stop]
        return BitMap64(array("Q", base.item_oids(items)))

    def _p_within(self, context: scope.Context) -> Index:
        """The same index in another context. ReferenceError when it does not exist there."""
        self._p_activate()
        view: View = self._p_view
        if view.context is context:
            return self
        there = context.view_of_uuid(view.uuid)
        found = None if there is None else there.get(self._p_oid)
        if type(found) is not type(self):
            raise ReferenceError(
                f"the index that a query uses, object {self._p_oid} of prefix {view.name!r}, does not exist in that state"
            )
        same: Index = found
        return same

    def _p_objects(self, held: list[Any]) -> list[Any]:
        """The objects for what leaves keep of them."""
        return held

    def _p_estimate(self, low: Any, high: Any, null_first: bool) -> int:
        """About how many entries a selection has, without reading more than two ways down the tree. Inside an
        operation."""
        state = self._p_settled()
        total = 0
        for nulls, start, end in self._p_spans(low, high, null_first, null_first):
            if nulls:
                total += state.nulls
            elif state.root is not None:
                below = 0.0 if start is None else pairs.position(state.root, start)
                upto = 1.0 if end is None else pairs.position(state.root, end)
                total += round(state.count * max(upto - below, 0.0))
        return total

    def __repr__(self) -> str:
        if self._p_flags & (base.CLOSED | base.EXPIRED):
            return f"<Index object at {id(self):#x}, no longer accessible>"
        return f"<Index of {len(self)} entries at {id(self):#x}>"

    def _check(self) -> None:
        """Verify the structure; AssertionError tells what is wrong."""
        with operation:
            state = self._p_settled()
            for root, count, keyless in (
                (state.root, state.count, state.family not in RANKED),
                (state.null_root, state.nulls, True),
            ):
                assert count == (0 if root is None else pairs.check(root, keyless)), "wrong number of entries"
            assert (state.family is None) == (state.root is None), "a family without keys"


_get_walks: Callable[[Index], Any] = cast(Any, Index.__dict__["_p_walks"]).__get__
_set_walks: Callable[[Index, Any], None] = cast(Any, Index.__dict__["_p_walks"]).__set__


def _walks(index: Index) -> Any:
    """The running walks."""
    try:
        return _get_walks(index)
    except AttributeError:
        return ()


def _in_order(pending: list[Any]) -> tuple[list[Item], list[Any]]:
    """The items and objects of pending entries, in order, none of them twice."""
    rows = list(zip(pending[::3], pending[1::3], pending[2::3], strict=True))
    rows.sort(key=_rank)  # compares bare keys, which is fast
    ranks, oids, found = zip(*rows, strict=True)
    items: list[Item] = list(zip(ranks, oids, strict=True))
    objects = list(found)
    if all(map(lt, items, islice(items, 1, None))):
        return items, objects
    entries: dict[Item, Any] = {}  # some of one key, or some twice; then the first stays
    for item, obj in zip(items, objects, strict=True):
        entries.setdefault(item, obj)
    items = sorted(entries)
    return items, [entries[item] for item in items]


def _memo(value: Any) -> Any:
    if isinstance(value, WeakProxy):
        value = target_of(value)
    if isinstance(value, Persistent) and value._p_flags & base.MEMO:
        return live_version(value)
    raise Error(f"Expected a memo object, not {type(value).__name__}: an index holds memo objects only")


def make(view: View) -> Index:
    """A new index in `view`."""
    with operation:
        return create(view, Index, State())


def make_index() -> Index:
    """A new persistent index on the current prefix: an ordered multimap from keys to memo objects.

    Raises ReadOnlyError when the prefix is read-only.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Task:
    ...     def __init__(self, name):
    ...         self.name = name
    >>> tasks = db0.index()
    >>> for priority, name in [(3, "paint"), (1, "build"), (None, "rest"), (2, "clean")]:
    ...     tasks.add(priority, Task(name))
    >>> [(key, task.name) for key, task in tasks]
    [(1, 'build'), (2, 'clean'), (3, 'paint'), (None, 'rest')]
    >>> [task.name for task in tasks.select(2, 3)]
    ['clean', 'paint']
    >>> [task.name for task in tasks.sort(tasks.select(None, 3), desc=True)[:2]]
    ['paint', 'clean']
    >>> db0.close()
    """
    return make(scope.current_view(True))
