"""Tuple: the persistent counterpart of builtin tuple."""

from __future__ import annotations

import collections.abc
from collections.abc import Iterable
from operator import index
from typing import Any

from dbzero.collections.keys import native
from dbzero.collections.nodes import carried, moved
from dbzero.collections.sequences import Sequence
from dbzero.model import scope
from dbzero.model.view import View


class Tuple(Sequence):
    """An immutable sequence that lives in a prefix. Make one with ``db0.tuple``. Slices, ``+`` and ``*`` give builtin
    tuples.

    It has no hash, as its members may change, but a tuple of keys is the same dict key or set element as the builtin
    tuple equal to it.
    """

    __slots__ = ()
    KIND = 5
    _p_builtin = tuple
    _p_brackets = ("(", ")")

    def __new__(cls, *args: Any, **kw: Any) -> Any:
        if args or kw:
            raise TypeError("make tuples with db0.tuple()")
        return super().__new__(cls)

    def _p_native(self, view: View) -> Any:
        return tuple([native(view, value) for value in self])

    def _p_harden(self, view: View) -> Any:
        """A tuple goes with its items: collections among them are copied."""
        return moved(self, view, lambda: self._p_make(view, [carried(item) for item in self]), copy=True)

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, (tuple, Tuple)):
            return NotImplemented
        return (*self, *other)

    def __radd__(self, other: Any) -> Any:
        if not isinstance(other, tuple):
            return NotImplemented
        return (*other, *self)

    def __mul__(self, times: Any) -> Any:
        if not hasattr(times, "__index__"):
            return NotImplemented
        return tuple(self) * index(times)

    __rmul__ = __mul__


collections.abc.Sequence.register(Tuple)


def make_tuple(iterable: Iterable[Any] = (), /) -> Tuple:
    """A new persistent tuple on the current prefix.

    Args:
        iterable: its values; builtin containers among them become persistent ones, copied.

    Raises:
        TypeError: `iterable` can't be iterated. UnsupportedTypeError: a value can't be stored. ReadOnlyError: the
        prefix is read-only.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> pair = db0.tuple((1, "x"))
    >>> pair, pair == (1, "x"), pair[1]
    ((1, 'x'), True, 'x')
    >>> db0.close()
    """
    iter(iterable)
    made: Tuple = Tuple._p_make(scope.current_view(True), iterable)
    return made
