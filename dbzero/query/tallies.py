"""Tallies: groups by a function of an object's own attributes, kept by the view and brought up to date by what changed.

A tally is kept where the groups can only differ when the query finds other objects or when a commit changed one of those it
finds: the query runs none of the user's code, the function computes from stored attributes alone (:mod:`dbzero.query.plainreads`),
these are plain values, and the operators are counts and sums of ints. Bringing it forward takes out what is gone or changed as it was,
by a snapshot of the state the tally is of, and adds what is new or changed as it is. It costs what changed, not what there is.

Everything else is computed afresh, see :mod:`dbzero.query.groups`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from types import CodeType
from typing import Any, Final, NamedTuple

from pyroaring import BitMap64

from dbzero.errors import Error
from dbzero.model import kinds, scope
from dbzero.model.codec import ATOMS
from dbzero.model.memo import MemoObject
from dbzero.model.view import View
from dbzero.query.base import Query, identity_of
from dbzero.query.plainreads import plain_reads

_KEPT: Final = 16  # tallies of a view
_GROUPS: Final = 1 << 16  # of a tally
_KEYS: Final = ATOMS - {float}  # equal floats may look different

Function = Callable[[Any], Any]


class Unfit(Exception):
    """What was found can't be tallied."""


class Plan(NamedTuple):
    """How to group, and what is added up: None for a count, else a function that gives an int."""

    key: Function
    values: tuple[Function | None, ...]
    codes: tuple[CodeType | None, ...]
    names: tuple[str, ...]  # of the attributes that the functions read


def plan_of(key: Any, values: Sequence[Function | None]) -> Plan | None:
    """None when the functions may depend on more than an object's own attributes."""
    reads = [None if function is None else plain_reads(function) for function in (key, *values)]
    if any(found is None and function is not None for found, function in zip(reads, (key, *values), strict=True)):
        return None
    names = frozenset(chain.from_iterable(found[1] for found in reads if found is not None))
    return Plan(key, tuple(values), tuple([found and found[0] for found in reads]), tuple(names))


class Tally:
    """The groups of what a query found in one state of a view. Not changed once it is made."""

    def __init__(self, state: int, incarnation: int) -> None:
        self.state = state
        self.incarnation = incarnation
        self.version = kinds.version
        self.members = BitMap64()
        self.groups: dict[Any, list[int]] = {}  # key -> number of objects, sums of values
        self.classes: set[type] = set()

    def current(self, view: View, names: Iterable[str]) -> bool:
        """Whether it shows what there is in the view's state."""
        return self.state == view.state and self.usable(view, names)

    def usable(self, view: View, names: Iterable[str]) -> bool:
        """Whether it can be brought forward to the view's state."""
        same = self.incarnation == view.incarnation and self.version == kinds.version and self.state <= view.state
        return same and all(_plain_class(cls, names) for cls in self.classes)

    def results(self, plan: Plan) -> list[tuple[Any, tuple[int, ...]]]:
        """(key, a result for each of the plan's values)."""
        places = [0 if value is None else 1 + place for place, value in enumerate(plan.values)]
        return [(key, tuple([sums[place] for place in places])) for key, sums in self.groups.items()]

    def _take(self, plan: Plan, objects: Iterable[Any], sign: int) -> None:
        """Objects join their groups, or (-1) leave them. Unfit: a value that would not let it be told again."""
        key_of, values, names, classes, groups = plan.key, plan.values, plan.names, self.classes, self.groups
        kinds_of_keys: set[type] = set()
        for obj in objects:
            cls = type(obj)
            if cls not in classes:
                if not _plain_class(cls, names):
                    raise Unfit
                classes.add(cls)
            for name in names:
                if type(getattr(obj, name)) not in ATOMS:
                    raise Unfit
            key = key_of(obj)
            kinds_of_keys.add(type(key))
            if type(key) is tuple:
                _add_kinds(key, kinds_of_keys)
            sums = groups.get(key)
            if sums is None:
                sums = groups[key] = [0] * (1 + len(values))
            sums[0] += sign
            for place, value in enumerate(values, 1):
                if value is not None:
                    number = value(obj)
                    if type(number) is not int:
                        raise Unfit
                    sums[place] += sign * number
            if not sums[0]:
                del groups[key]
        if not kinds_of_keys <= _KEYS | {tuple} or {bool, int} <= kinds_of_keys | {type(key) for key in groups}:
            raise Unfit

    def fill(self, plan: Plan, query: Query) -> None:
        """Make it of all that a query finds."""
        members: list[int] = []
        add = members.append

        def noted() -> Iterable[Any]:
            for obj in query:
                add(obj._p_oid)
                yield obj

        self._take(plan, noted(), 1)
        self.members = BitMap64(members)

    def forward(self, plan: Plan, members: BitMap64, view: View, past: Callable[[int], View]) -> Tally | None:
        """The tally of a later state, in which `members` are found, shown by `view`. None when computing it afresh costs less, or what
        changed is not known. `past` gives the view of an earlier state."""
        listed = view.records.changes_since(self.state, view.state)
        if listed is None:
            return None
        changed = BitMap64(listed) & members & self.members
        gone, come = (self.members - members) | changed, (members - self.members) | changed
        if 4 * (len(gone) + len(come)) > len(members):
            return None
        made = Tally(view.state, self.incarnation)
        made.members = members
        made.classes = set(self.classes)
        made.groups = {key: list(sums) for key, sums in self.groups.items()}
        if gone:
            before = past(self.state)
            made._take(plan, map(before.get, gone), -1)
        made._take(plan, map(view.get, come), 1)
        return made


_UNFIT: Final = Tally(0, 0)  # stands for what can't be tallied


def _add_kinds(key: tuple[Any, ...], found: set[type]) -> None:
    for part in key:
        found.add(type(part))
        if type(part) is tuple:
            _add_kinds(part, found)


def _plain_class(cls: type, names: Iterable[str]) -> bool:
    """Whether reading these attributes of an instance gives what is stored of them."""
    if not issubclass(cls, MemoObject) or cls.__getattribute__ is not MemoObject.__getattribute__:
        return False
    for one in cls.__mro__:
        own = vars(one)
        if "__getattr__" in own or any(name in own for name in names):
            return False
    return True


def tallied(plan: Plan, query: Query) -> list[tuple[Any, tuple[int, ...]]] | None:
    """The groups of a live query's results as of the last commit: (key, results). None when they have to be computed another way."""
    view = query._p_view()
    if view is None or view.context is not scope.live or not query._p_alone(view):
        return None
    if not query._p_pure or not query._p_distinct or query._p_splits():
        return None
    try:
        name = identity_of(query), plan.codes
    except Error:
        return None
    kept: dict[Any, Any] = view.tallies
    known: Tally | None = kept.get(name)
    if known is _UNFIT:
        return None
    if known is not None and known.current(view, plan.names) and scope.committed().shown(view):
        return known.results(plan)
    if known is not None and not known.usable(view, plan.names):
        known = None
    mark = view.settled() if scope.committed().shown(view) else None
    try:
        made = None if mark is None else _bring(plan, query, view, view, known)
        if made is None or view.settled() != mark:
            committed = query._p_committed()
            shown = committed._p_view()
            if shown is None:
                return None
            made = _bring(plan, committed, shown, view, known)
    except Unfit:
        made = None
    except Exception:
        return None  # of the functions, or of a state that is not kept any more: the other way finds it again
    kept.pop(name, None)
    if made is not None and len(made.groups) > _GROUPS:
        return made.results(plan)
    for oldest in list(kept)[: max(0, len(kept) - _KEPT + 1)]:
        kept.pop(oldest, None)
    kept[name] = _UNFIT if made is None else made
    return None if made is None else made.results(plan)


def _bring(plan: Plan, query: Query, view: View, live: View, known: Tally | None) -> Tally:
    """A tally of what the query finds in the state that its view shows, the live one or a snapshot's."""
    if known is not None and known.state <= view.state:
        made = known.forward(plan, query._p_oids(view.uuid), view, lambda state: scope.committed().past(live, state))
        if made is not None:
            return made
    made = Tally(view.state, live.incarnation)
    made.fill(plan, query)
    return made
