"""The two trees of a large dict, kept in step: looking up, putting and taking entries, one or many at once.

All of it runs inside an operation, and what changes anything after the dict was marked changed.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import compress
from typing import Any

from dbzero.collections import keyed
from dbzero.collections.dictnodes import DictNode, Entries, IndexNode, State, note, remember
from dbzero.collections.fronts import FRONT, link
from dbzero.collections.keys import stable_hash
from dbzero.collections.nodes import LEAF, Stored, corrupt, create, touch
from dbzero.collections.pending import FEW, interleave
from dbzero.model.view import View


def build(view: View, state: State, items: dict[Any, Any]) -> None:
    """Make trees of `items`, bottom-up."""
    keys, values, n = list(items), list(items.values()), len(items)
    state.entries = keyed.build(
        view,
        DictNode,
        [
            (i, Entries(list(range(i, min(i + LEAF, n))), keys[i : i + LEAF], values[i : i + LEAF]))
            for i in range(0, n, LEAF)
        ],
    )
    hashes = list(map(stable_hash, keys))
    order = sorted(range(n), key=hashes.__getitem__)
    hashes = [hashes[i] for i in order]
    leaves: list[tuple[int, dict[int, Any]]] = []
    size = LEAF * 3 // 4
    at = 0
    while at < n:
        end = min(at + size, n)
        while end < n and hashes[end] == hashes[end - 1]:
            end += 1
        places: dict[int, Any] = dict(zip(hashes[at:end], order[at:end], strict=True))
        if len(places) != end - at:  # keys that share a hash share an item
            places = {}
            for key, seq in zip(hashes[at:end], order[at:end], strict=True):
                note(places, key, seq)
        leaves.append((hashes[at], places))
        at = end
    state.index = keyed.build(view, IndexNode, leaves)
    state.items, state.count, state.next = None, n, n
    if n <= FRONT:
        for leaf in keyed.leaves(state.entries):
            link(leaf, state.front)
        state.front.update(items)


def entry(state: State, place: Any, form: Any) -> tuple[DictNode, int] | None:
    """The leaf of entries with `form`, and its place there, given what the index holds for its hash."""
    if place is None:
        return None
    assert state.entries is not None
    for seq in (place,) if type(place) is int else place:
        node = keyed.find(state.entries, seq)
        data = node._data
        i = bisect_left(data.seqs, seq)
        if i == len(data.seqs) or data.seqs[i] != seq:
            raise corrupt(node, f"entry {seq} is missing")
        key = data.keys[i]
        if key is form or key == form:
            return node, i
    return None


def find(state: State, form: Any) -> tuple[DictNode, int] | None:
    """The leaf of entries with `form`, and its place there."""
    assert state.index is not None
    key = stable_hash(form)
    return entry(state, keyed.find(state.index, key)._data.get(key), form)


def settle(view: View, state: State) -> None:
    """Put what is pending into the trees."""
    pending = state.pending
    while pending:
        version = state.version
        if len(pending) <= FEW:
            for form, value in list(pending.items()):
                put(view, state, form, value)
        else:
            merge(view, state, list(pending), list(pending.values()))
        if state.version == version:  # else a finalizer that ran meanwhile set more
            pending.clear()


def put(view: View, state: State, form: Any, value: Any) -> None:
    """Set one entry."""
    assert state.index is not None
    key = stable_hash(form)
    leaf = keyed.find(state.index, key)
    place = leaf._data.get(key)
    found = entry(state, place, form)
    if found is not None:
        node, i = found
        touch(node).values[i] = value
        remember(state.front, node, form, value)
        return
    push(view, state, [form], [value])
    places = touch(leaf)
    note(places, key, state.next - 1)
    if len(places) > LEAF:
        _split(view, state, leaf, key)


def merge(view: View, state: State, forms: list[Any], values: list[Any]) -> None:
    """Set many entries: those that are new come behind the others, and each leaf of the index is changed once."""
    assert state.index is not None
    n = len(forms)
    hashes = list(map(stable_hash, forms))
    order = sorted(range(n), key=hashes.__getitem__)
    ascending = [hashes[i] for i in order]
    new = bytearray(b"\1") * n
    at = 0
    while at < n:
        leaf, _, high = keyed.find_bound(state.index, ascending[at])
        end = n if high is None else bisect_left(ascending, high, at)
        places = leaf._data
        if not places.keys().isdisjoint(ascending[at:end]):
            for i in order[at:end]:
                found = entry(state, places.get(hashes[i]), forms[i])
                if found is not None:
                    node, k = found
                    touch(node).values[k] = values[i]
                    remember(state.front, node, forms[i], values[i])
                    new[i] = 0
        at = end
    if n == sum(new):
        fresh, order_of_fresh = forms, order
    else:
        fresh, values = list(compress(forms, new)), list(compress(values, new))
        order_of_fresh = [i for i in order if new[i]]
        ascending = [hashes[i] for i in order_of_fresh]
    if not fresh:
        return
    first = state.next
    push(view, state, fresh, values)
    if len(fresh) != n:
        number = dict(zip(compress(range(n), new), range(first, state.next), strict=True))
        seqs = [number[i] for i in order_of_fresh]
    else:
        seqs = [first + i for i in order_of_fresh] if first else order_of_fresh
    _index_all(view, state, ascending, seqs)


def _index_all(view: View, state: State, hashes: list[int], seqs: list[int]) -> None:
    """Enter sequence numbers into the index, in ascending order of hash."""
    at, n = 0, len(hashes)
    while at < n:
        assert state.index is not None
        leaf, _, high = keyed.find_bound(state.index, hashes[at])
        end = n if high is None else bisect_left(hashes, high, at)
        places, part, numbers = touch(leaf), hashes[at:end], seqs[at:end]
        if not places.keys().isdisjoint(part) or len(set(part)) != len(part):
            for key, seq in zip(part, numbers, strict=True):
                note(places, key, seq)
        elif len(part) <= LEAF:
            places.update(zip(part, numbers, strict=True))
        else:
            _flood(view, state, leaf, part, numbers)
        if len(places) > LEAF:
            _split(view, state, leaf, hashes[end - 1] if high is None else None)
        at = end


def _flood(view: View, state: State, leaf: IndexNode, hashes: list[int], seqs: list[int]) -> None:
    """Make many leaves of one index leaf and more than it can hold, in ascending order of hash, none of it there yet."""
    assert state.index is not None
    places = leaf._data
    interleave(hashes, seqs, places.items())
    size = LEAF * 3 // 4
    places.clear()
    places.update(zip(hashes[:size], seqs[:size], strict=True))
    path_key = hashes[0]
    for at in range(size, len(hashes), size):
        right = create(view, IndexNode, dict(zip(hashes[at : at + size], seqs[at : at + size], strict=True)))
        path, _ = keyed.find_path(state.index, path_key)
        path_key = hashes[at]
        state.index = keyed.attach(view, state.index, path, right, path_key)


def _split(view: View, state: State, leaf: IndexNode, last: int | None) -> None:
    """Cut an index leaf that got too full. `last`: the greatest hash that it got, when keys may be ascending."""
    assert state.index is not None
    places = leaf._data
    order = sorted(places)
    n = len(order)
    # ascending keys fill leaves nearly completely
    size = LEAF * 7 // 8 if last == order[-1] else LEAF * 3 // 4 if n > 2 * LEAF else n // 2 + n % 2
    path_key = order[0]
    for start in range(size, n, size):
        part = order[start : start + size]
        path, _ = keyed.find_path(state.index, path_key)
        right = create(view, IndexNode, {key: places.pop(key) for key in part})
        state.index = keyed.attach(view, state.index, path, right, part[0])
        path_key = part[0]


def push(view: View, state: State, forms: list[Any], values: list[Any]) -> None:
    """Append entries whose keys are new."""
    assert state.entries is not None
    front, seq, n = state.front, state.next, len(forms)
    node = state.last
    if node is None:
        node = keyed.find(state.entries, seq)
    link(node, front)
    data = node._data
    at = min(LEAF - len(data.seqs), n)
    if at:
        touch(node)
        data.seqs.extend(range(seq, seq + at))
        data.keys.extend(forms[:at])
        data.values.extend(values[:at])
    while at < n:
        end = min(at + LEAF, n)
        path, _ = keyed.find_path(state.entries, seq + at)
        leaf = Entries(list(range(seq + at, seq + end)), forms[at:end], values[at:end])
        node = create(view, DictNode, leaf)
        link(node, front)
        state.entries = keyed.attach(view, state.entries, path, node, seq + at)
        at = end
    state.last = node
    state.next = seq + n
    state.count += n
    if len(front) + n > FRONT:
        front.clear()
    front.update(zip(forms[-FRONT:], values[-FRONT:], strict=True))


def take(owner: Stored, state: State, form: Any, default: Any) -> Any:
    """Remove an entry from the trees of `owner`, which is marked changed if there is one, and return its value. The
    last entry is only counted down: an empty dict has no trees."""
    assert state.index is not None and state.entries is not None
    key = stable_hash(form)
    path, leaf = keyed.find_path(state.index, key)
    place = leaf._data.get(key)
    found = entry(state, place, form)
    if found is None:
        return default
    owner._p_changed()
    node, i = found
    data = touch(node)
    seq, value = data.seqs[i], data.values[i]
    state.version += 1
    state.count -= 1
    if not state.count:
        return value
    places = touch(leaf)
    if type(place) is int:
        del places[key]
    else:
        rest = [other for other in place if other != seq]
        places[key] = rest if len(rest) > 1 else rest[0]
    del data.seqs[i], data.keys[i], data.values[i]
    state.front.pop(form, None)
    state.last = None
    index = keyed.shrunk(state.index, path, leaf)
    entries = keyed.shrunk(state.entries, keyed.find_path(state.entries, seq)[0], node)
    if index is None or entries is None:
        raise corrupt(node, f"no entries left, expected {state.count}")
    state.index, state.entries = index, entries
    return value


def check(state: State) -> None:
    """Verify the structure; AssertionError tells what is wrong. Nothing is pending."""
    assert state.entries is not None and state.index is not None
    entries: dict[int, Any] = {}

    def seqs_of(data: Entries) -> list[int]:
        assert len(data.seqs) == len(data.keys) == len(data.values) <= LEAF, "leaf of a wrong size"
        entries.update(zip(data.seqs, data.keys, strict=True))
        return data.seqs

    places: list[tuple[int, int]] = []

    def hashes_of(data: dict[int, Any]) -> list[int]:
        assert len(data) <= LEAF, "index leaf of a wrong size"
        for key, place in data.items():
            places.extend((key, seq) for seq in ((place,) if type(place) is int else place))
        return list(data)

    seqs = keyed.check(state.entries, seqs_of)
    assert seqs == sorted(seqs) and len(seqs) == state.count > 0 and seqs[-1] < state.next, (
        "wrong number or order of entries"
    )
    keyed.check(state.index, hashes_of)
    assert sorted(seq for _, seq in places) == seqs, "index and entries differ"
    assert all(stable_hash(entries[seq]) == key for key, seq in places), "entry under a wrong hash"
    assert state.last is None or state.last is keyed.find(state.entries, state.next), "wrong last leaf"
