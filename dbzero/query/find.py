"""``find``: criteria to an expression, an expression to objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from heapq import nlargest
from typing import Any

from pyroaring import BitMap64

from dbzero.errors import BadPrefixError, ClosedError, Error, PrefixError
from dbzero.model import base, kinds, scope, weak
from dbzero.model.base import operation
from dbzero.model.memo import MemoBase, MemoObject, class_info
from dbzero.model.placement import Shards
from dbzero.model.sharded import families
from dbzero.model.view import View
from dbzero.query.atoms import plain_atom
from dbzero.query.base import Query, Split
from dbzero.query.criteria import TagSet, in_shard, shards_among
from dbzero.query.expressions import All, Any_, Expression, Instances, Nothing, One, Run, Step, Sub, Tagged, evaluate
from dbzero.query.fanout import Fanned
from dbzero.query.fields import FieldBuffer
from dbzero.query.search import Match, Matched, rankings
from dbzero.query.splits import Splitting, objects_of, resplit
from dbzero.query.tagindex import TagIndex, flushed

_FIRST_BATCH, _BATCH = 16, 512  # objects made at a time
_FEW = 8  # objects whose classes their own records tell; for more, the class bitmaps are asked


class Find(Query):
    """A query of the objects of one prefix for which all criteria hold: what ``find`` returns.

    Newest first; when one of the criteria is a sorted query, in its order. An iteration shows what there was at its
    first step, less what was deleted since. ``len``, ``bool`` and ``in`` load no object.
    """

    __slots__ = ("_context", "_expression", "_order", "_prefix", "_ranking", "_view")
    _p_distinct = True

    def __init__(
        self,
        context: scope.Context,
        view: View | None,
        prefix: str | None,
        expression: Expression,
        order: Query | None,
    ) -> None:
        self._context = context
        self._view = view
        self._prefix = prefix  # where to look when it did not exist yet
        self._expression = expression
        self._order = order
        self._ranking = () if order is not None or type(expression) is Tagged else tuple(rankings(expression))

    # --- evaluating ---------------------------------------------------------------------------------------------------

    def _p_view(self) -> View | None:
        view = self._view
        if view is None and self._prefix is not None:
            try:
                view = self._view = self._context.view(self._prefix)
            except PrefixError:
                return None
        if view is not None and view.closed:
            raise ClosedError(f"Prefix {view.name!r} was closed, it is no longer accessible; open it and find again")
        return view

    @property
    def _p_pure(self) -> bool:  # type: ignore[override]
        return all(part.query._p_pure for part in self._expression.walk() if type(part) is Sub)

    def _prepare(self, view: View) -> dict[int, BitMap64]:
        """The results of sub-queries that run code of the user's, which is not done under the operation lock."""
        return {
            id(part): part.query._p_oids(view.uuid)
            for part in self._expression.walk()
            if type(part) is Sub and not part.query._p_pure
        }

    def _run(self, view: View, prepared: dict[int, BitMap64]) -> Run:
        """An evaluation, under the operation lock, with everything pending made. Error: only fields would answer it."""
        if view.writable:
            buffer: FieldBuffer = view.fields
            for part in self._expression.walk():
                if type(part) is Instances:
                    buffer.apply(part.cls)
                elif type(part) is Matched:
                    buffer.apply_stored()
        run = Run(view, flushed(view), prepared)
        if run.passive and not self._expression.drives(run):
            raise Error(
                f"Passive tags require at least one non-passive predicate: {self._expression.detail()} is given by a tag "
                f"field; name its class in find()"
            )
        return run

    def _bits(self, run: Run) -> BitMap64:
        """What is found, under the operation lock; not to be changed."""
        expression = self._expression
        found = evaluate(expression, run)
        return found if expression.native else _existing(run, found)

    def __len__(self) -> int:
        view = self._p_view()
        if view is None:
            return 0
        prepared = self._prepare(view)
        with operation:
            run = self._run(view, prepared)
            expression = self._expression
            return expression.count(run) if expression.native else len(self._bits(run))

    def __bool__(self) -> bool:
        return len(self) > 0

    def count(self) -> int:
        """How many objects it finds. The same as ``len``."""
        return len(self)

    def _p_oids(self, uuid: int) -> BitMap64:
        view = self._p_view()
        if view is None or view.uuid != uuid:
            return BitMap64()
        prepared = self._prepare(view)
        with operation:
            return BitMap64(self._bits(self._run(view, prepared)))

    def _p_alone(self, view: View) -> bool:
        parts = [part.query for part in self._expression.walk() if type(part) is Sub]
        return self._p_view() is view and all(part._p_alone(view) for part in parts)

    def _p_estimate(self) -> int:
        view = self._p_view()
        if view is None:
            return 0
        with operation:
            return self._expression.estimate(self._run(view, {}))

    def _p_form(self) -> tuple[Any, ...]:
        view = self._p_view()
        name = self._prefix if view is None else view.uuid
        order = () if self._order is None else (self._order._p_form(),)
        return ("find", name, self._expression.form(), *order)

    def _p_shape(self) -> tuple[Any, ...]:
        return self._expression.form(exact=False)

    def _p_within(self, context: scope.Context) -> Query:
        view = self._p_view()
        there = None if view is None else context.view_of_uuid(view.uuid)
        name = self._prefix if view is None else None
        order = None if self._order is None else self._order._p_within(context)
        return Find(context, there, name, self._expression.within(context), order)

    @property
    def expression(self) -> Expression:
        """What is asked for."""
        return self._expression

    def narrowed(self, narrow: Callable[[Expression], Expression]) -> Find:
        """The same query, in no order, of what `narrow` makes of its expression."""
        return Find(self._context, self._view, self._prefix, narrow(self._expression), None)

    @property
    def _p_ordered(self) -> bool:  # type: ignore[override]
        return self._order is not None or bool(self._ranking)

    @property
    def _p_counted(self) -> bool:  # type: ignore[override]
        return not self._p_ordered  # to be found and put in order once, rather than found twice

    # --- results ------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        return self._p_part(0, None, 1)

    def _p_part(self, start: int, stop: int | None, step: int) -> Iterator[Any]:
        if self._order is not None and (start, stop, step) != (0, None, 1):
            return super()._p_part(start, stop, step)
        if self._ranking:
            return self._best_first(start, stop, step)
        return self._sorted() if self._order is not None else self._newest_first(start, stop, step)

    def _newest_first(self, start: int, stop: int | None, step: int) -> Iterator[Any]:
        view = self._p_view()
        if view is None:
            return
        prepared = self._prepare(view)
        with operation:
            run = self._run(view, prepared)
            index = run.index
            found = self._bits(run)
            codes = list(self._expression.codes(index))
            mark = _mark(view)
            n = len(found)
            if (start, stop, step) != (0, None, 1):
                start, stop, step = slice(start, stop, step).indices(n)
                first = found[n - stop : n - start] if stop > start else BitMap64()
                words = first.to_array() if step == 1 else first.to_array()[::-1][::step][::-1]
                rest = None
            elif n > _BATCH:
                words, rest = found[-_FIRST_BATCH:].to_array(), BitMap64(found)
            else:
                words, rest = found.to_array(), None
        yield from _objects(view, words.tobytes(), len(words), codes, mark)
        if rest is not None:
            words = rest.to_array()
            yield from _objects(view, words.tobytes(), n - _FIRST_BATCH, codes, mark, _BATCH)

    def _p_ranked(self) -> Iterator[tuple[float, Any]] | None:
        return self._scored(0, None, 1) if self._ranking else None

    def _best_first(self, start: int, stop: int | None, step: int) -> Iterator[Any]:
        return (obj for _, obj in self._scored(start, stop, step))

    def _scored(self, start: int, stop: int | None, step: int) -> Iterator[tuple[float, Any]]:
        view = self._p_view()
        if view is None:
            return
        prepared = self._prepare(view)
        with operation:
            run = self._run(view, prepared)
            found = self._bits(run)
            scores = self._ranking[0].scores(run, found)
            for ranking in self._ranking[1:]:
                for oid, score in ranking.scores(run, found).items():
                    scores[oid] = scores.get(oid, 0.0) + score
            if len(scores) < len(found):
                scores = {**dict.fromkeys(found, 0.0), **scores}
            ranked = zip(scores.values(), scores, strict=True)
            if start >= 0 and stop is not None and 0 <= stop < len(scores) // 4:
                best = nlargest(stop, ranked)[start::step]
            else:
                best = sorted(ranked, reverse=True)[start:stop:step]
            ordered = [oid for _, oid in best]
            codes = list(self._expression.codes(run.index))
            mark = _mark(view)
        at, size = 0, _FIRST_BATCH
        while at < len(ordered):
            some = ordered[at : at + size]
            words = BitMap64(some).to_array()
            made = {obj._p_oid: obj for obj in _objects(view, words.tobytes(), len(words), codes, mark, size)}
            yield from [(scores[oid], made[oid]) for oid in some if oid in made]
            at += size
            size = _BATCH

    def _sorted(self) -> Iterator[Any]:
        view = self._p_view()
        if view is None:
            return
        left = self._p_oids(view.uuid)
        assert self._order is not None
        for obj in self._order if left else ():
            oid = obj._p_oid
            if oid in left:
                left.discard(oid)
                if obj._p_view is not view:
                    obj = view.get(oid)
                if obj is not None:
                    yield obj
                if not left:
                    return

    def _pick(self, places: list[int]) -> tuple[Any, ...]:
        view = self._p_view()
        if self._order is not None or self._ranking or view is None or not places:
            return super()._pick(places)
        prepared = self._prepare(view)
        with operation:
            run = self._run(view, prepared)
            index = run.index
            found = self._bits(run)
            n = len(found)
            if min(places) < -n or max(places) >= n:
                raise IndexError("query index out of range")
            wanted = BitMap64([found[-1 - place if place >= 0 else -place - 1] for place in places])
            oids = [found[-1 - place if place >= 0 else -place - 1] for place in places]
            codes = list(self._expression.codes(index))
            mark = _mark(view)
        words = wanted.to_array()
        made = {obj._p_oid: obj for obj in _objects(view, words.tobytes(), len(words), codes, mark)}
        return tuple([made[oid] for oid in oids])

    def __contains__(self, obj: object) -> bool:
        if not isinstance(obj, MemoObject):
            return False
        view = self._p_view()
        if view is not None and obj._p_view is view and obj._p_oid in self._p_oids(view.uuid):
            return True
        return type(obj).__eq__ is not MemoObject.__eq__ and super().__contains__(obj)

    def explain(self) -> Step:
        """The plan that this query is evaluated by, with how many objects each step was estimated to find and how many
        it found. ``str`` of it is a readable tree.

        >>> import dbzero as db0, tempfile
        >>> db0.init(tempfile.mkdtemp(), prefix="p")
        >>> print(db0.find("urgent", db0.no("done")).explain())
        find in 'p', newest first: 0 estimated, 0 found
          and: 0 estimated, 0 found
            tag 'urgent': 0 estimated, 0 found
            not: 0 estimated, not needed
              tag 'done': 0 estimated, not needed
        >>> db0.close()
        """
        view = self._p_view()
        if view is None:
            return Step("find", f"in {self._prefix!r}, which does not exist", 0, 0, [])
        prepared = self._prepare(view)
        with operation:
            run = self._run(view, prepared)
            run.actual = {}
            found = self._bits(run)
            order = "newest first" if self._order is None else f"in the order of {self._order._p_detail()}"
            if self._ranking:
                order = f"the best for {', '.join([one.detail() for one in self._ranking])} first"
            estimate = self._expression.estimate(run)
            return Step("find", f"in {view.name!r}, {order}", estimate, len(found), [self._expression.step(run)])

    def _p_detail(self) -> str:
        return f"find {self._expression.operation} {self._expression.detail()}".rstrip()

    def __repr__(self) -> str:
        return f"<query: {self._p_detail()}>"


# --- from ids to objects ---------------------------------------------------------------------------------------------


def _mark(view: View) -> tuple[int, int]:
    """What changes when objects of the view may have been deleted."""
    return view.state, len(view.deleted)


def _existing(run: Run, found: BitMap64) -> BitMap64:
    """Those of `found` that exist in the view: the ids came from elsewhere."""
    if not found:
        return found
    index, view = run.index, run.view
    rest = BitMap64(found)
    if len(found) > _FEW:
        for code in index.classes():
            rest -= index.members(code)
    gone = [oid for oid in rest if not isinstance(view.get(oid), MemoObject)]
    return found - BitMap64(gone) if gone else found


def _objects(
    view: View, words: bytes, n: int, codes: Sequence[int], mark: tuple[int, int], size: int = _FIRST_BATCH
) -> Iterator[Any]:
    """The objects of the first n of some ascending OIDs, highest first, less what was deleted since `mark`; `size` of
    them at first."""
    cls: Any = None
    if len(codes) == 1:
        cls = view._resolve(codes[0])
        if cls is kinds.unknown:
            cls = None
    while n > 0:
        start = max(0, n - size)
        with operation:
            if view.closed:
                raise ClosedError(f"Prefix {view.name!r} was closed, it is no longer accessible; open it again")
            objects, missing = base.live_objects(view, words, start, n, cls)
            if missing:
                objects = _fill(view, objects, memoryview(words).cast("Q")[start:n][::-1], codes)
            if _mark(view) != mark:
                objects = [obj for obj in objects if not obj._p_flags & base.GHOST or _exists(view, obj._p_oid)]
        yield from objects
        n = start
        size = min(4 * size, _BATCH)


def _exists(view: View, oid: int) -> bool:
    return oid not in view.deleted and view.records.read(oid, view.state) is not None


def _fill(view: View, objects: list[Any], oids: Any, codes: Sequence[int]) -> list[Any]:
    """The list with objects in place of None, where there are any."""
    wanted = BitMap64([oid for obj, oid in zip(objects, oids, strict=True) if obj is None])
    made: dict[int, Any] = {}
    if len(wanted) > _FEW:
        index: TagIndex = flushed(view)
        for code in codes:
            hits = wanted & index.members(code)
            wanted -= hits
            for oid in hits:
                made[oid] = view.reference(oid, code)
    for oid in wanted:
        obj = view.get(oid)
        if isinstance(obj, MemoObject) and not obj._p_flags & base.INIT:
            made[oid] = obj
    filled = [made.get(oid) if obj is None else obj for obj, oid in zip(objects, oids, strict=True)]
    return [obj for obj in filled if obj is not None and not obj._p_flags & base.EXPIRED]


# --- from criteria to expressions --------------------------------------------------------------------------------------


class _Builder:
    """Makes the expression of some criteria, and finds out which prefix they are about."""

    def __init__(self, context: scope.Context, fanning: bool = False) -> None:
        self.context = context
        self.fanning = fanning  # it is only told, for several prefixes
        self.scoped: str | None = None  # prefix of the first statically scoped class
        self.bound: View | None = None  # view that a sub-query or an object belongs to
        self.orders: list[Query] = []
        self.splits: list[Split] = []

    def conjunction(self, criteria: Sequence[Any], what: str) -> Expression:
        """All of the criteria, at least one."""
        members: list[Expression] = []
        excluded: list[Expression] = []
        for value in criteria:
            if type(value) is TagSet:
                excluded += [self.condition(one) for one in value.conditions]
            else:
                members.append(self.criterion(value))
        if not members:
            raise Error(f"{what} needs at least one criterion that is no no(): add a class or a tag")
        if any(type(member) is Nothing for member in members):
            return Nothing()
        if len(members) > 1:  # everything that has a tag, or is found by its class, is some memo object
            members = [m for m in members if not (type(m) is Instances and m.cls is MemoBase)] or members[:1]
        return members[0] if len(members) == 1 and not excluded else All(members, excluded)

    def condition(self, value: Any) -> Expression:
        if type(value) is TagSet:
            raise Error("no() cannot be nested in no()")
        kept = self.orders, self.splits  # what is excluded has no say in how the rest comes
        self.orders, self.splits = [], []
        try:
            return self.criterion(value, binding=False)
        finally:
            self.orders, self.splits = kept

    def criterion(self, value: Any, binding: bool = True) -> Expression:
        atom = plain_atom(value)
        if atom is not None:
            return Tagged(atom)
        if isinstance(value, type):
            return self.by_class(value, binding)
        if isinstance(value, weak.WeakProxy):
            raise _refuse(value)
        if isinstance(value, MemoObject):
            return self.one(value, binding)
        if type(value) is list:
            for member in value:
                if type(member) is TagSet:
                    raise Error("no() cannot stand in a list: exclude with no([...]) at top level")
            orders, self.orders = self.orders, []
            members = [self.criterion(member, binding) for member in value]
            self.orders = orders
            return Any_(members) if len(members) > 1 else members[0] if members else Nothing()
        if type(value) is tuple:
            return self.conjunction(value, "a tuple of criteria") if value else Nothing()
        if isinstance(value, Query):
            return self.sub(value)
        if type(value) is Match:
            return Matched(value)
        if type(value) is TagSet:
            raise Error("no() can stand at top level and in tuples only")
        raise _refuse(value)

    def by_class(self, cls: type, binding: bool) -> Expression:
        info = class_info(cls)
        if info is not None and info.prefix is not None and self.scoped is None and binding:
            self.scoped = info.prefix
        return Instances(cls)

    def one(self, obj: Any, binding: bool) -> Expression:
        if obj._p_flags & (base.EXPIRED | base.CLOSED):
            obj._p_activate()
        view = obj._p_view
        if binding:
            self.bind(view)
        return One(view.uuid, obj._p_oid)

    def sub(self, query: Query) -> Expression:
        view = query._p_view()
        if view is not None:
            self.bind(view)
        self.splits += query._p_splits()
        if type(query) is Find and query._order is None and query._context is self.context:
            return query._expression
        if query._p_ordered:
            self.orders.append(query)
        return Sub(query, view is not None and view.context is self.context)

    def bind(self, view: View) -> None:
        if self.fanning:
            return
        if self.bound is not None and self.bound.uuid != view.uuid:
            raise BadPrefixError(
                f"inconsistent prefixes: criteria of prefix {self.bound.name!r} and of prefix {view.name!r} in one find"
            )
        if self.bound is None or view.context is self.context:
            self.bound = view


def _refuse(value: Any) -> Error:
    return Error(
        f"find() cannot search by {value!r} ({type(value).__name__}): criteria are memo classes, str, enum values, "
        f"as_tag(...), match(...), memo objects, queries, no(...), and lists (any of) and tuples (all of) of these"
    )


def find(context: scope.Context, *criteria: Any, prefix: str | None = None) -> Query:
    """The query of ``db0.find`` and ``Snapshot.find``: see there.

    Args:
        context: where to look: live data, or a snapshot.
    """
    if prefix is not None and not isinstance(prefix, str):
        raise TypeError(f"find() argument prefix must be a str or None, not {type(prefix).__name__}")
    if prefix is None and families:
        shards = shards_among(context, criteria)
        if shards is not None:
            return _fan_out(context, shards, criteria)
    builder = _Builder(context)
    expression: Expression = builder.conjunction(criteria, "find()") if criteria else Nothing()
    view: View | None = None
    name: str | None = None
    bound = builder.bound
    if prefix is not None:
        view = scope.opened(prefix) if context is scope.live else context.view(prefix)
        if bound is not None and bound.uuid != view.uuid:
            raise BadPrefixError(
                f"inconsistent prefixes: find() in prefix {view.name!r} by criteria of prefix {bound.name!r}"
            )
    elif bound is not None:
        if bound.context is context:
            view = bound
        else:
            view = context.view_of_uuid(bound.uuid)
            if view is None:
                raise PrefixError(f"Prefix: {bound.name} not found: it is not open here; open it to search in it")
    elif builder.scoped is not None:
        name = builder.scoped
        try:
            view = context.view(name)
        except PrefixError:
            pass  # nothing was ever stored there
    else:
        view = scope.current_or_none() if context is scope.live else None
        view = context.view(None) if view is None or view.closed else view
    if view is not None and view.closed:
        raise ClosedError(f"Prefix {view.name!r} was closed, it is no longer accessible; open it again")
    order = builder.orders[0] if len(builder.orders) == 1 else None
    if order is not None and order._p_splits():
        order = objects_of(order)
    return resplit(Find(context, view, name, expression, order), builder.splits)


def _fan_out(context: scope.Context, shards: Shards, criteria: tuple[Any, ...]) -> Query:
    """The query of :func:`find` in every shard."""
    builder = _Builder(context, fanning=True)
    expression = builder.conjunction(criteria, "find()")
    order = builder.orders[0] if len(builder.orders) == 1 else None

    def make(view: View) -> Query:
        part = find(view.context, *[in_shard(view, value) for value in criteria], prefix=view.name)
        while isinstance(part, Splitting):
            part = part.source
        return part

    return resplit(Fanned(context, shards, make, expression, order), builder.splits)


def find_live(*criteria: Any, prefix: str | None = None) -> Query:
    """A query of the live objects for which all criteria hold.

    Args:
        criteria: a memo class (its instances, those of subclasses included), a tag (str, enum value, ``as_tag(...)``),
            ``match(...)`` (full-text search; the best come first), a memo object (itself, not what is tagged with it), a
            query (its results), a list (any of), a tuple (all of), ``no(...)`` (none of). Without any, nothing is found.
        prefix: name of an open prefix to search in. By default that of a statically scoped class, of a sub-query or an
            object among the criteria, else the current one. With a sharded class, or a query of one: all its shards; the
            results come shard by shard, or merged if one of the criteria is sorted.

    Returns:
        A lazy query: it is evaluated whenever it is iterated, counted or subscripted, newest objects first. What was
        changed here and not committed yet counts.

    Raises:
        Error: something cannot be a criterion, or all are ``no(...)``. BadPrefixError: criteria of two prefixes.
        PrefixError: `prefix` is not open. NotInitializedError.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Task:
    ...     def __init__(self, name, *tags):
    ...         self.name = name
    ...         db0.tags(self).add(*tags)
    >>> tasks = [Task("paint", "house"), Task("mow", "garden"), Task("plant", "garden", "spring")]
    >>> [task.name for task in db0.find(Task, "garden")]
    ['plant', 'mow']
    >>> [task.name for task in db0.find(["house", "spring"], db0.no("garden"))]
    ['paint']
    >>> db0.find("garden").first().name, len(db0.find("garden"))
    ('plant', 2)
    >>> db0.close()
    """
    if len(criteria) == 1 and prefix is None and type(criteria[0]) is str:
        view = scope.current_or_none()
        if view is not None and not view.closed:
            return Find(scope.live, view, None, Tagged(("str", criteria[0])), None)
    return find(scope.live, *criteria, prefix=prefix)
