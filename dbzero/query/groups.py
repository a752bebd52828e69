"""Grouping: what operators make of the results of a query, by key or by tag, as of the last commit.

Groups by tags that are only counted are counted in the bitmaps, without loading an object. Counts and sums by a function that is seen to
read the object's own attributes only are kept and brought up to date (:mod:`dbzero.query.tallies`). Everything else is computed afresh from
the objects: a function may look at anything, so no record of what changed could tell which keys did.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dbzero.errors import Error
from dbzero.model import scope
from dbzero.model.enums import is_enum_value
from dbzero.query.base import Query, require_query
from dbzero.query.splits import Splitting
from dbzero.query.tallies import plan_of, tallied

Operator = Callable[[Any, "list[Any] | None", "list[Any] | None"], Any]
"""``op(state, removed, added)``: the new state of a group. ``op(None, None, None)``: the state of an empty one."""


def count_op(state: Any, removed: list[Any] | None, added: list[Any] | None) -> Any:
    """Operator for `group_by`: the number of objects.

    >>> import dbzero as db0
    >>> db0.count_op(db0.count_op(None, None, None), [], ["a", "b"])
    2
    """
    if removed is None or added is None:
        return 0
    return state - len(removed) + len(added)


def make_sum(value: Callable[[Any], Any]) -> Operator:
    """Operator for `group_by`: the sum of ``value(object)``.

    Args:
        value: gives a number for an object.

    >>> import dbzero as db0
    >>> db0.make_sum(lambda n: n * n)(10, [1], [5])
    34
    """

    def add_up(state: Any, removed: list[Any] | None, added: list[Any] | None) -> Any:
        if removed is None or added is None:
            return 0
        return state - sum(map(value, removed)) + sum(map(value, added))

    add_up.added_up = value  # type: ignore[attr-defined]
    return add_up


def group_by(
    group_defs: Any, query: Query, ops: Operator | Sequence[Operator] = (count_op,), **unknown: Any
) -> dict[Any, Any]:
    """Group the results of a query and say what operators make of each group, as of the last commit.

    Args:
        group_defs: a function that gives an object's key; an iterable of tags (str or enum values), whose groups have
            the tag's name for a key and hold each object once, under the first of its tags; or a tuple of these, whose keys are
            tuples. Objects without any of the tags are in no group. Functions only read: they may be called again when a commit comes between.
        query: any query. What is not committed does not count; a query from a snapshot is grouped as it is there.
        ops: one operator or several, each ``op(state, removed, added) -> state``; `count_op`, `make_sum` or your own.

    Returns:
        Key -> the operator's result, or a tuple of them if there are several. Only groups that have objects.

    Raises:
        Error: an argument of the wrong type, named in the message. What functions raise comes out.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Sale:
    ...     def __init__(self, city, amount):
    ...         self.city, self.amount = city, amount
    >>> sales = [Sale("Rome", 5), Sale("Oslo", 7), Sale("Rome", 1)]
    >>> db0.commit()
    >>> sorted(db0.group_by(lambda sale: sale.city, db0.find(Sale)).items())
    [('Oslo', 1), ('Rome', 2)]
    >>> amounts = db0.make_sum(lambda sale: sale.amount)
    >>> sorted(db0.group_by(lambda sale: sale.city, db0.find(Sale), ops=(db0.count_op, amounts)).items())
    [('Oslo', (1, 7)), ('Rome', (2, 6))]
    >>> db0.close()
    """
    if unknown:
        raise TypeError(f"group_by() got an unexpected keyword argument {next(iter(unknown))!r}")
    require_query("group_by", "query", query)
    operators = _operators(ops)
    parts, single = _parts(group_defs)
    if single:
        kept = _tallied(parts[0], query, operators)
        if kept is not None:
            return {key: results[0] for key, results in kept} if len(operators) == 1 else dict(kept)
    grouped: Callable[[Query], dict[Any, Any]] = lambda committed: _evaluate(parts, single, committed, operators)  # noqa: E731
    before = scope.committed().settled()
    if before is not None:
        try:
            found = grouped(query)  # of live objects, which are loaded by and large
        except Exception:
            if scope.committed().settled() == before:
                raise
        else:
            if scope.committed().settled() == before:
                return found
    return grouped(query._p_committed())


def _evaluate(parts: list[Any], single: bool, settled: Query, operators: tuple[Operator, ...]) -> dict[Any, Any]:
    keyed: dict[Any, Any] = {}
    counts = None
    if single and all(operator is count_op for operator in operators):
        counts = _counts(parts[0], settled)
    if counts is not None:
        for value, n in counts:
            if n:
                keyed[value] = (n,) * len(operators)
    else:
        for key, objects in _grouped(parts, settled).items():
            results = tuple([operator(operator(None, None, None), [], list(objects)) for operator in operators])
            keyed[key[0] if single else key] = results
    return {key: results[0] for key, results in keyed.items()} if len(operators) == 1 else keyed


def _tallied(part: Any, query: Query, operators: tuple[Operator, ...]) -> list[tuple[Any, tuple[int, ...]]] | None:
    values: list[Any] = [
        None if operator is count_op else getattr(operator, "added_up", operator) for operator in operators
    ]
    if not callable(part) or any(value is operator for value, operator in zip(values, operators, strict=True)):
        return None
    plan = plan_of(part, values)
    return None if plan is None else tallied(plan, query)


def _operators(ops: Any) -> tuple[Operator, ...]:
    operators = (ops,) if callable(ops) else tuple(ops) if isinstance(ops, Iterable) else ()
    if not operators or not all(map(callable, operators)):
        raise Error(
            f"group_by() argument 'ops' must be operators, as db0.count_op or what db0.make_sum() returns, "
            f"not {type(ops).__name__}"
        )
    return operators


def _parts(group_defs: Any) -> tuple[list[Any], bool]:
    """The definitions, each a function or a list of tags, and whether they stand for a single key."""
    if callable(group_defs) and not _is_tag(group_defs):
        return [group_defs], True
    if isinstance(group_defs, Iterable) and not isinstance(group_defs, (str, bytes)):
        members = list(group_defs)
        if members and all(map(_is_tag, members)):
            return [members], True
        if isinstance(group_defs, tuple) and members:
            return [_parts(member)[0][0] for member in members], False
    raise Error(
        "group_by() argument 'group_defs' must be a function, an iterable of tags (str or enum values), or a tuple of "
        f"these, not {group_defs!r}"
    )


def _is_tag(value: Any) -> bool:
    return isinstance(value, str) or is_enum_value(value)


def _name(tag: Any) -> str:
    return str(tag)


def _counts(part: Any, query: Query) -> Iterable[tuple[Any, int]] | None:
    """How many objects each group has, without keeping them; None where that can't be told."""
    if callable(part):
        return None if query._p_splits() else Counter(map(part, query)).items()
    counts = Splitting(part, query, True).counts()
    return None if counts is None else [(_name(tag), n) for tag, n in counts]


def _grouped(parts: list[Any], query: Query) -> dict[tuple[Any, ...], list[Any]]:
    """Key -> objects."""
    rows = query
    for part in reversed(parts):
        if not callable(part):
            rows = Splitting(part, rows, True)
    if len(parts) == 1 and rows is query and not rows._p_splits():
        return _by_function(parts[0], rows)
    place = [i for i, part in enumerate(parts) if not callable(part)]
    wide = bool(rows._p_splits())
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        obj, tags = (row[0], row[1:]) if wide else (row, ())
        key = [part(obj) if callable(part) else None for part in parts]
        for i, tag in zip(place, tags, strict=False):
            key[i] = _name(tag)
        groups.setdefault(tuple(key), []).append(obj)
    return groups


def _by_function(key: Callable[[Any], Any], query: Query) -> dict[tuple[Any, ...], list[Any]]:
    groups: defaultdict[Any, list[Any]] = defaultdict(list)
    for obj in query:
        groups[key(obj)].append(obj)
    return {(value,): objects for value, objects in groups.items()}
