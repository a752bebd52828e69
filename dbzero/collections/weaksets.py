"""WeakSet: a set of weak references to memo objects, of any prefixes.

State: one :class:`~dbzero.collections.sets.Set`, which nobody else sees, of the stored forms of weak references.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from dbzero.collections.nodes import Stored, member, moved, pack, set_data, unpack
from dbzero.collections.sets import Set
from dbzero.collections.text import shown
from dbzero.errors import UnsupportedTypeError
from dbzero.model import scope, weak
from dbzero.model.base import EXPIRED, operation
from dbzero.model.deferred import Deferred
from dbzero.model.memo import MemoObject
from dbzero.model.values import convert
from dbzero.model.view import View


class WeakSet(Stored):
    """A set of weak references that lives in a prefix. Make one with ``db0.weak_set``.

    Members are memo objects of any prefix. They are not counted and not kept alive; what is gone is not counted by
    ``len`` and not visited. While the prefix of a member is not open, reading the set raises PrefixError.
    """

    __slots__ = ()
    KIND = 15
    _data: Set

    def __new__(cls, *args: Any, **kw: Any) -> Any:
        if args or kw:
            raise TypeError("make weak sets with db0.weak_set()")
        return super().__new__(cls)

    # --- storing ------------------------------------------------------------------------------------------------------

    @classmethod
    def _p_make(cls, view: View, forms: Iterable[Deferred]) -> Any:
        """A new weak set in `view` of weak references stored there."""
        with operation:
            members: Set = Set._p_make(view, ())
            members._p_fill(set(forms))
            obj = cls.__new__(cls)
            set_data(obj, members)
            view.adopt(obj)
        return obj

    def _p_encode(self) -> tuple[bytes, list[int]]:
        oid = self._data._p_oid
        return pack(self.KIND, [oid])[0], [oid]

    def _p_decode(self, payload: bytes) -> None:
        set_data(self, member(self, Set, unpack(self, payload, 1)[0]))

    def _p_harden(self, view: View) -> Any:
        """What another prefix's `view` stores when this is assigned to one of its objects: see :func:`moved`."""
        forms = [Deferred(view, form.code, form.data) for form in self._data._p_forms()]
        return moved(self, view, lambda: self._p_make(view, forms))

    # --- members ------------------------------------------------------------------------------------------------------

    def add(self, obj: Any) -> None:
        """Add a memo object. UnsupportedTypeError when it is none; ReferenceError when it was deleted."""
        form = _admit(self._p_view, obj)
        with operation:
            self._data._p_add(form)

    def discard(self, obj: Any) -> None:
        """Remove an object if it is there."""
        form = _form(self._p_view, obj)
        if form is not None:
            with operation:
                self._data._p_drop(form)

    def remove(self, obj: Any) -> None:
        """Remove an object. KeyError when it isn't there."""
        form = _form(self._p_view, obj)
        with operation:
            if form is None or not self._data._p_drop(form):
                raise KeyError(obj)

    def clear(self) -> None:
        """Remove everything."""
        self._data.clear()

    def copy(self) -> WeakSet:
        """A new weak set of the same prefix with the same members."""
        made: WeakSet = WeakSet._p_make(self._p_view, self._data._p_forms())
        return made

    def __contains__(self, obj: Any) -> bool:
        form = _form(self._p_view, obj)
        return form is not None and self._data._p_has(form) and weak.find_target(form) is not None

    def __iter__(self) -> Iterator[Any]:
        for form in self._data._p_forms():
            found = weak.find_target(form)
            if found is not None and self._data._p_has(form):
                yield found

    def __len__(self) -> int:
        return sum(1 for form in self._data._p_forms() if weak.find_target(form) is not None)

    def __bool__(self) -> bool:
        return any(True for _ in self)

    def __repr__(self) -> str:
        return shown(self, lambda: "weak_set({" + ", ".join(map(repr, self)) + "})", "weak_set({...})")

    def _check(self) -> None:
        """Verify the structure; AssertionError tells what is wrong."""
        self._data._check()
        assert all(type(form) is Deferred for form in self._data._p_forms()), "a member that is no weak reference"


def _form(view: View, obj: Any) -> Deferred | None:
    """The weak reference to `obj` as it is stored in `view`; None for what can't be a member."""
    if weak.is_handle(obj):
        return weak.stored_form(view, obj)
    if isinstance(obj, MemoObject) and not obj._p_flags & EXPIRED:
        return weak.reference_to(view, obj)
    return None


def _admit(view: View, obj: Any) -> Deferred:
    if isinstance(obj, MemoObject) and obj._p_view is view:
        convert(view, obj)  # what refuses it
    form = _form(view, obj)
    if form is None:
        raise UnsupportedTypeError(f"weak_set only accepts memo object instances, not {type(obj).__name__}")
    return form


def make_weak_set(iterable: Iterable[Any] = (), /) -> WeakSet:
    """A new persistent set of weak references on the current prefix.

    Args:
        iterable: memo objects, of any prefix.

    Raises:
        TypeError: `iterable` can't be iterated. UnsupportedTypeError: a member is no memo object. ReadOnlyError: the
        prefix is read-only.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Session:
    ...     pass
    >>> session = Session()
    >>> active = db0.weak_set([session])
    >>> session in active, len(active), db0.getrefcount(session)
    (True, 1, 0)
    >>> db0.close()
    """
    view = scope.current_view(True)
    made: WeakSet = WeakSet._p_make(view, [_admit(view, obj) for obj in iterable])
    return made
