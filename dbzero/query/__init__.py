"""Queries: lazy selections of stored objects, evaluated each time they are iterated.

What lives here: the base of all queries (:mod:`.base`). May import: :mod:`dbzero.errors` and :mod:`dbzero.model`;
collections may import it, since an index answers with queries. Promises: making a query evaluates nothing; iterating
it shows what is stored at that moment, in the same order each time while nothing changes.
"""

from dbzero.query.base import Query, Slice

__all__ = ["Query", "Slice"]
