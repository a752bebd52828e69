"""Expressions: what a find asks for, as set algebra over OIDs of one prefix.

An expression is immutable, knows neither results nor a view, and can be told as plain data (:meth:`Expression.form`):
nested tuples of strings and numbers, the same for the same question whatever the order of its terms. It is evaluated
by a :class:`Run`, under the operation lock, to a bitmap. A conjunction takes its terms in ascending order of their
estimated sizes, and stops when nothing is left; no term loads an object.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct
from pyroaring import BitMap64

from dbzero.errors import Error
from dbzero.model import kinds
from dbzero.model.memo import class_info
from dbzero.model.scope import Context
from dbzero.model.view import View
from dbzero.query.atoms import Atom, stored_key
from dbzero.query.base import Query
from dbzero.query.records import passive_key
from dbzero.query.tagindex import EMPTY, TagIndex


class Step(Struct):
    """One step of a plan, as :meth:`Find.explain` gives it."""

    operation: str
    detail: str
    estimated: int
    actual: int | None  # None: it was not needed
    steps: list[Step]

    def __str__(self) -> str:
        return "\n".join(self._lines(0))

    def _lines(self, depth: int) -> Iterator[str]:
        actual = "not needed" if self.actual is None else f"{self.actual} found"
        detail = f" {self.detail}" if self.detail else ""
        yield f"{'  ' * depth}{self.operation}{detail}: {self.estimated} estimated, {actual}"
        for step in self.steps:
            yield from step._lines(depth + 1)


class Run:
    """One evaluation, in one view. `prepared` has the results of sub-queries that run code of the user's, which were
    taken before the operation lock was."""

    __slots__ = ("actual", "index", "notes", "passive", "prepared", "view")

    def __init__(self, view: View, index: TagIndex, prepared: dict[int, BitMap64]) -> None:
        self.view = view
        self.index = index
        self.prepared = prepared
        self.notes: dict[int, Any] = {}  # by expression, what it keeps from one question to the next
        self.passive: bool = view.fields.passive()  # whether there are tags that fields give
        self.actual: dict[int, int] | None = None  # by expression, when it is to be explained


class Expression(ABC):
    """A set of objects, to be evaluated."""

    __slots__ = ()
    operation = ""
    native = True  # whether all that it finds exists in the run's view

    @abstractmethod
    def form(self, exact: bool = True) -> tuple[Any, ...]:
        """It as plain data, not `exact`: without what a signature leaves out. Error when it has no such form."""

    def within(self, context: Context) -> Expression:
        """The same in another context."""
        return self

    @abstractmethod
    def estimate(self, run: Run) -> int:
        """About how many it finds: cheap to tell."""

    @abstractmethod
    def evaluate(self, run: Run) -> BitMap64:
        """What it finds. Not to be changed by the caller, and good until anything else is evaluated in another run."""

    def count(self, run: Run) -> int:
        """How many it finds."""
        return len(self.evaluate(run))

    def drives(self, run: Run) -> bool:
        """Whether it can be asked by itself. What only fields say needs something beside it: see ``tag_fields``."""
        return True

    def parts(self) -> Sequence[Expression]:
        """The expressions it consists of."""
        return ()

    def codes(self, index: TagIndex) -> Sequence[int]:
        """The classes that what it finds can have."""
        return index.classes()

    def detail(self) -> str:
        """What is to be said of it in a plan."""
        return ""

    def walk(self) -> Iterator[Expression]:
        """It and all that it consists of."""
        yield self
        for part in self.parts():
            yield from part.walk()

    def step(self, run: Run) -> Step:
        """It as a step of a plan, after a run with `actual`."""
        assert run.actual is not None
        return Step(
            self.operation,
            self.detail(),
            self.estimate(run),
            run.actual.get(id(self)),
            [part.step(run) for part in self.parts()],
        )


def evaluate(expression: Expression, run: Run) -> BitMap64:
    """Evaluate an expression, noting its size when the run is to be explained."""
    found = expression.evaluate(run)
    if run.actual is not None:
        run.actual[id(expression)] = len(found)
    return found


class Nothing(Expression):
    """No object."""

    __slots__ = ()
    operation = "nothing"

    def form(self, exact: bool = True) -> tuple[Any, ...]:
        return ("nothing",)

    def estimate(self, run: Run) -> int:
        return 0

    def evaluate(self, run: Run) -> BitMap64:
        return EMPTY


class Tagged(Expression):
    """The objects with a tag."""

    __slots__ = ("atom",)
    operation = "tag"

    def __init__(self, atom: Atom) -> None:
        self.atom = atom

    def form(self, exact: bool = True) -> tuple[Any, ...]:
        return ("tag", *self.atom)

    def estimate(self, run: Run) -> int:
        return len(self.evaluate(run))

    def evaluate(self, run: Run) -> BitMap64:
        atom = self.atom
        key = atom[1] if atom[0] == "str" else stored_key(run.view, atom, enter=False)
        if key is None:
            return EMPTY
        return run.index.holders(key) if run.passive else run.index.members(key)

    def drives(self, run: Run) -> bool:
        key = stored_key(run.view, self.atom, enter=False)
        return key is None or not run.index.members(passive_key(key))

    def detail(self) -> str:
        return repr(self.atom[1]) if self.atom[0] == "str" else " ".join(map(str, self.atom))


class Instances(Expression):
    """The instances of a class and of its subclasses."""

    __slots__ = ("cls",)
    operation = "class"

    def __init__(self, cls: type) -> None:
        self.cls = cls

    def form(self, exact: bool = True) -> tuple[Any, ...]:
        info = class_info(self.cls)
        if info is None:
            raise Error(f"a query by {self.cls.__qualname__}, which is no memo class, has no serial form")
        return ("class", info.key)

    def estimate(self, run: Run) -> int:
        return sum([len(run.index.members(code)) for code in run.index.subclasses(self.cls)])

    def evaluate(self, run: Run) -> BitMap64:
        codes = run.index.subclasses(self.cls)
        return run.index.instances(codes) if codes else EMPTY

    def codes(self, index: TagIndex) -> Sequence[int]:
        return index.subclasses(self.cls)

    def detail(self) -> str:
        return "any" if self.cls is kinds.unknown else self.cls.__qualname__


class One(Expression):
    """One object, by its identity."""

    __slots__ = ("oid", "uuid")
    operation = "object"
    native = False

    def __init__(self, uuid: int, oid: int) -> None:
        self.uuid = uuid
        self.oid = oid

    def form(self, exact: bool = True) -> tuple[Any, ...]:
        return ("object", self.uuid, self.oid)

    def estimate(self, run: Run) -> int:
        return 1 if self.uuid == run.view.uuid else 0

    def evaluate(self, run: Run) -> BitMap64:
        return BitMap64((self.oid,)) if self.uuid == run.view.uuid else EMPTY

    def detail(self) -> str:
        return str(self.oid)


class Sub(Expression):
    """The results of another query."""

    __slots__ = ("native", "query")
    operation = "query"

    def __init__(self, query: Query, native: bool) -> None:
        self.query = query
        self.native = native

    def form(self, exact: bool = True) -> tuple[Any, ...]:
        return self.query._p_form() if exact else self.query._p_shape()

    def within(self, context: Context) -> Expression:
        query = self.query._p_within(context)
        view = query._p_view()
        return Sub(query, view is not None and view.context is context)

    def estimate(self, run: Run) -> int:
        found = run.prepared.get(id(self))
        return self.query._p_estimate() if found is None else len(found)

    def evaluate(self, run: Run) -> BitMap64:
        found = run.prepared.get(id(self))
        return self.query._p_oids(run.view.uuid) if found is None else found

    def drives(self, run: Run) -> bool:
        return self.query._p_drives

    def detail(self) -> str:
        return self.query._p_detail()


class Any_(Expression):
    """The objects that at least one of some expressions finds."""

    __slots__ = ("members", "native")
    operation = "or"

    def __init__(self, members: Sequence[Expression]) -> None:
        self.members = members
        self.native = all(member.native for member in members)

    def form(self, exact: bool = True) -> tuple[Any, ...]:
        return ("or", *sorted({member.form(exact) for member in self.members}, key=repr))

    def within(self, context: Context) -> Expression:
        return Any_([member.within(context) for member in self.members])

    def estimate(self, run: Run) -> int:
        return sum([member.estimate(run) for member in self.members])

    def evaluate(self, run: Run) -> BitMap64:
        union = BitMap64()
        for member in self.members:
            union |= evaluate(member, run)
        return union

    def drives(self, run: Run) -> bool:
        return all(member.drives(run) for member in self.members)

    def parts(self) -> Sequence[Expression]:
        return self.members


class All(Expression):
    """The objects that all of some expressions find, at least one, and none of some others."""

    __slots__ = ("excluded", "members", "native")
    operation = "and"

    def __init__(self, members: Sequence[Expression], excluded: Sequence[Expression]) -> None:
        self.members = members
        self.excluded = excluded
        self.native = any(member.native for member in members)

    def form(self, exact: bool = True) -> tuple[Any, ...]:
        members = sorted({member.form(exact) for member in self.members}, key=repr)
        excluded = sorted({("not", member.form(exact)) for member in self.excluded}, key=repr)
        return ("and", *members, *excluded) if len(members) + len(excluded) > 1 else members[0]

    def within(self, context: Context) -> Expression:
        return All(
            [member.within(context) for member in self.members],
            [member.within(context) for member in self.excluded],
        )

    def estimate(self, run: Run) -> int:
        return min([member.estimate(run) for member in self.members])

    def evaluate(self, run: Run) -> BitMap64:
        members = self.members
        if len(members) > 1:
            sized = sorted([(member.estimate(run), at) for at, member in enumerate(members)])
            if not sized[0][0]:
                return EMPTY
            members = [members[at] for _, at in sized]
        found = evaluate(members[0], run)
        own = False  # `found` is ours to change
        for member in members[1:]:
            if not found:
                return found
            if own:
                found &= evaluate(member, run)
            else:
                found = found & evaluate(member, run)
                own = True
        for member in self.excluded:
            if not found:
                return found
            if own:
                found -= evaluate(member, run)
            else:
                found = found - evaluate(member, run)
                own = True
        return found

    def count(self, run: Run) -> int:
        if len(self.members) == 2 and not self.excluded:
            first, second = self.members
            return int(first.evaluate(run).intersection_cardinality(second.evaluate(run)))
        return len(self.evaluate(run))

    def drives(self, run: Run) -> bool:
        return any(member.drives(run) for member in self.members)

    def parts(self) -> Sequence[Expression]:
        return [*self.members, *[_Not(member) for member in self.excluded]]

    def codes(self, index: TagIndex) -> Sequence[int]:
        return min([member.codes(index) for member in self.members], key=len)


class _Not(Expression):
    """What a conjunction excludes, as a step of its plan."""

    __slots__ = ("member",)
    operation = "not"

    def __init__(self, member: Expression) -> None:
        self.member = member

    def form(self, exact: bool = True) -> tuple[Any, ...]:
        return ("not", self.member.form(exact))

    def estimate(self, run: Run) -> int:
        return self.member.estimate(run)

    def evaluate(self, run: Run) -> BitMap64:
        return evaluate(self.member, run)

    def walk(self) -> Iterator[Expression]:
        return self.member.walk()

    def step(self, run: Run) -> Step:
        inner = self.member.step(run)
        return Step("not", "", inner.estimated, inner.actual, [inner])
