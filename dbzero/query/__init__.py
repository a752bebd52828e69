"""Queries: lazy selections of stored objects, evaluated each time they are iterated.

What lives here: the base of all queries (:mod:`.base`), which collections use as well, since an index answers with
queries; what can be a tag (:mod:`.atoms`), giving tags (:mod:`.tags`), the stored inverted index (:mod:`.records`) and
how one view uses it (:mod:`.tagindex`), what a query asks (:mod:`.expressions`), ``find`` (:mod:`.find`); what is made
of queries (:mod:`.filters`, :mod:`.splits`, :mod:`.joins`, :mod:`.groups`, :mod:`.changes`); and queries as data
(:mod:`.identity`, :mod:`.forms`, :mod:`.stored`). May import: :mod:`dbzero.collections`, :mod:`dbzero.model` and
:mod:`dbzero.errors`; the base imports no collection.
Promises: making a query evaluates nothing; iterating it shows what is stored at that moment, in the same order each
time while nothing changes.
"""

from dbzero.query.base import Query, Slice

__all__ = ["Query", "Slice"]
