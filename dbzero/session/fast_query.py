"""Names of the original's cached grouping. Nothing is cached here: `group_by` counts in bitmaps or computes afresh, so it is never out of date."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from dbzero.query.base import Query, require_query
from dbzero.query.groups import count_op, group_by
from dbzero.reflection.decorators import get_lambda_source
from dbzero.session.workspace import active

_previous: list[str] = []  # prefixes that were current before init_fast_query()


def init_fast_query(prefix: str | None) -> None:
    """Open the prefix that the original keeps results of `group_by` in, read-write, and make it current. It is not needed
    here: `group_by` works on a read-only prefix as it is.

    Args:
        prefix: its name; None: go back to the prefix that was current before.

    Raises:
        LeaseError: another process has it open read-write. PrefixError: a bad name.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="data")
    >>> db0.init_fast_query("results")
    >>> db0.get_current_prefix().name
    'results'
    >>> db0.init_fast_query(None)
    >>> db0.get_current_prefix().name
    'data'
    >>> db0.close()
    """
    workspace = active()
    if prefix is None:
        while _previous:
            name = _previous.pop()
            if name in workspace.open_prefixes:
                workspace.open(name, writable=workspace.open_prefixes[name].writable)
                return
        return
    if workspace.recent:
        _previous.append(workspace.recent[-1])
    workspace.open(prefix, writable=True)


def signature_of(group_defs: Any) -> str:
    """A text that says how things are grouped, the same for the same definitions; of a lambda, its source where that can be told.

    Args:
        group_defs: as for `group_by`.

    >>> import dbzero as db0
    >>> db0.signature_of(["red", "blue"]), db0.signature_of(len)
    ("tags('red', 'blue')", 'builtins.len')
    """
    if isinstance(group_defs, tuple):
        return f"({', '.join(map(signature_of, group_defs))})"
    if isinstance(group_defs, Iterable) and not isinstance(group_defs, (str, bytes)):
        return f"tags({', '.join(repr(str(tag)) for tag in group_defs)})"
    if not callable(group_defs):
        return repr(str(group_defs))
    name = getattr(group_defs, "__qualname__", type(group_defs).__qualname__)
    if name.rpartition(".")[2] == "<lambda>":
        try:
            return f"lambda({get_lambda_source(group_defs)})"
        except (ValueError, OSError):
            pass
    return f"{getattr(group_defs, '__module__', '')}.{name}"


class GroupByBucket(NamedTuple):
    """One group: its key and what the operators made of it.

    >>> import dbzero as db0
    >>> db0.GroupByBucket("red", 3).result
    3
    """

    key: Any
    result: Any


class GroupDef(NamedTuple):
    """How things are grouped: a function, or tags.

    >>> import dbzero as db0
    >>> db0.GroupDef(["red", "blue"]).signature
    "tags('red', 'blue')"
    """

    definition: Any

    @property
    def signature(self) -> str:
        """See `signature_of`."""
        return signature_of(self.definition)


class GroupByEval:
    """A grouping that can be applied to queries.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> list(db0.GroupByEval(["red", "blue"]).evaluate(db0.find("urgent")))
    []
    >>> db0.close()
    """

    def __init__(self, group_defs: Any, ops: Any = (count_op,)) -> None:
        self.group_defs = group_defs
        self.ops = ops

    def evaluate(self, query: Query) -> list[GroupByBucket]:
        """The groups of a query's results, as of the last commit."""
        return [GroupByBucket(key, result) for key, result in group_by(self.group_defs, query, self.ops).items()]


class FastQuery:
    """A query to be grouped.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> db0.FastQuery(db0.find("urgent")).group_by(["red", "blue"])
    {}
    >>> db0.close()
    """

    def __init__(self, query: Query) -> None:
        require_query("FastQuery", "query", query)
        self.query = query

    @property
    def signature(self) -> str:
        """The query's signature."""
        return self.query.signature()

    def group_by(self, group_defs: Any, ops: Any = (count_op,)) -> dict[Any, Any]:
        """As ``db0.group_by``."""
        return group_by(group_defs, self.query, ops)


class FastQueryCache:
    """The results that the original keeps. Always empty here.

    >>> import dbzero as db0
    >>> db0.FastQueryCache().get_cache_keys()
    []
    """

    def get_cache_keys(self) -> list[str]:
        """The keys of what is kept."""
        return []
