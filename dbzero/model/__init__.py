"""What users write: memo classes and their instances.

Here live the base types (C, :mod:`dbzero.model.base`), views with their identity map, the codec, value conversion,
the class catalogue of a prefix and the ``memo``
decorator. May import :mod:`dbzero.errors` and, below it, storage and runtime; never collections, query or session,
which register themselves here (:mod:`dbzero.model.kinds`, :mod:`dbzero.model.scope`).

Promises: one live instance per OID and view; nothing internal keeps a clean instance alive; a failing construction or
    assignment changes nothing; decoding runs no code
from the file, and a damaged payload is a :class:`~dbzero.errors.CorruptError`.
"""
