"""What a commit changes in the results of a query: asked about the objects that it may concern, not about all.

The records that a commit changed tell which these are: the changed objects themselves, and what the changed leaves of
the tag index say now and did not say before, or the other way round. A query made of classes, tags and objects is then
asked about these only. Any other one - a range of an index, a filter, a slice, full text - is asked as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pyroaring import BitMap64

from dbzero.model.view import View
from dbzero.query.base import Query
from dbzero.query.expressions import All, Any_, Expression, Instances, Nothing, One, Run, Tagged
from dbzero.query.find import Find
from dbzero.query.records import leaf_members


class Difference(NamedTuple):
    """OIDs that came into the results of a query, that left them, and that stayed and were changed."""

    added: BitMap64
    removed: BitMap64
    modified: BitMap64


class Results:
    """The OIDs that a query finds, kept from one state of its view to the next.

    Args:
        query: of a view that somebody moves: it is told before and after.
    """

    def __init__(self, query: Query, view: View) -> None:
        self._query = query
        self._view = view
        self._narrow = type(query) is Find and all(type(part) in _TOLD for part in query.expression.walk())
        self.oids = query._p_oids(view.uuid)

    def difference(self, changed: BitMap64 | None, before: int) -> Difference:
        """What is different now that the view has moved on from state `before`, and keep the new results.

        Args:
            changed: the OIDs of all records that were changed in between; None: nobody knows, so any may be.
        """
        if changed is None or not self._narrow:
            found = self._query._p_oids(self._view.uuid)
            added, removed = found - self.oids, self.oids - found
            stayed = self.oids & found
            self.oids = found
            return Difference(added, removed, stayed if changed is None else stayed & changed)
        concerned = changed | self._entries(changed, before)
        was = self.oids & concerned
        now = self._among(concerned)
        added, removed = now - was, was - now
        self.oids |= added
        self.oids -= removed
        return Difference(added, removed, now & was & changed)

    def _entries(self, changed: Iterable[int], before: int) -> BitMap64:
        """What changed leaves of the tag index say of other objects than before."""
        entries = BitMap64()
        records, after = self._view.records, self._view.state
        for oid in changed:
            old, new = leaf_members(records, oid, before), leaf_members(records, oid, after)
            if old or new:
                entries |= old ^ new
        return entries

    def _among(self, oids: BitMap64) -> BitMap64:
        assert isinstance(self._query, Find)
        return self._query.narrowed(lambda expression: among(expression, _Given(oids)))._p_oids(self._view.uuid)


class _Given(Expression):
    """Some objects of which it is not known whether they exist."""

    __slots__ = ("oids",)
    native = False

    def __init__(self, oids: BitMap64) -> None:
        self.oids = oids

    def form(self, exact: bool = True) -> tuple[object, ...]:
        return ("given", *self.oids)

    def estimate(self, run: Run) -> int:
        return len(self.oids)

    def evaluate(self, run: Run) -> BitMap64:
        return self.oids


def among(expression: Expression, given: Expression) -> Expression:
    """What an expression finds among some objects, at a cost of these objects."""
    if type(expression) is All:
        members = [among(one, given) if type(one) in (Any_, All) else one for one in expression.members]
        excluded = [among(one, given) if type(one) in (Any_, All) else one for one in expression.excluded]
        return All([given, *members], excluded)
    if type(expression) is Any_:
        return Any_([among(one, given) for one in expression.members])
    return All([given, expression], ())


_TOLD = frozenset((All, Any_, Instances, Nothing, One, Tagged))
"""Expressions whose results change with the objects or with the tag index's leaves only."""
