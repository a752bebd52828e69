"""Giving and taking tags: ``db0.tags(objects).add(tags)``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dbzero.errors import ClosedError, Error
from dbzero.model import base, weak
from dbzero.model.base import operation
from dbzero.model.memo import MemoObject
from dbzero.model.versions import live_version
from dbzero.model.view import View
from dbzero.query.atoms import Atom, expand, refuse_tag, stored_key, tag_atom
from dbzero.query.base import Query
from dbzero.query.tagindex import tag_index

_UNUSABLE = base.EXPIRED | base.CLOSED


class ObjectTagManager:
    """The tags of some objects, to be changed: what ``tags`` returns. ``add`` and ``remove`` return it, so they can be
    chained; ``+=`` and ``-=`` do the same with one tag or an iterable of tags."""

    __slots__ = ("_targets",)
    _targets: tuple[Any, ...]

    def __init__(self, targets: tuple[Any, ...]) -> None:
        self._targets = targets

    def add(self, *tags: Any) -> ObjectTagManager:
        """Give the objects tags. A tag that an object has already stays as it is.

        Args:
            tags: tags, queries (their results become the tags) or iterables of tags.

        Raises:
            Error: something cannot be a tag, or an object is deleted; then nothing is changed. ReadOnlyError.
        """
        return self._change(tags, True)

    def remove(self, *tags: Any) -> ObjectTagManager:
        """Take tags from the objects; where there is no such tag, nothing happens. Arguments and errors as for
        :meth:`add`."""
        return self._change(tags, False)

    def __iadd__(self, tags: Any) -> ObjectTagManager:
        return self._change((tags,), True)

    def __isub__(self, tags: Any) -> ObjectTagManager:
        return self._change((tags,), False)

    def __repr__(self) -> str:
        n = len(self._targets)
        return f"<ObjectTagManager of {n} object{'' if n == 1 else 's'}>"

    def _change(self, tags: tuple[Any, ...], added: bool) -> ObjectTagManager:
        targets = self._targets
        if len(tags) == 1 and type(tags[0]) is str and len(targets) == 1:
            view, _, flags = base.identify(targets[0]) if isinstance(targets[0], MemoObject) else (None, 0, 0)
            if view is not None and not flags & _UNUSABLE and view.writable:
                with operation:
                    if not view.dirty_count:
                        view.begin_changes()
                    tag_index(view).note(tags[0], targets[0], added)
                return self
        atoms = list(dict.fromkeys(expand(tags)))
        objects: list[Any] = []
        for target in targets:
            if isinstance(target, Query):
                objects.extend(target)
            else:
                objects.append(target)
        with operation:
            live = [_writable(obj) for obj in objects]
            keys = {view: [_key(view, atom, added) for atom in atoms] for view in {obj._p_view for obj in live}}
            for obj in live:
                view = obj._p_view
                index = tag_index(view)
                for key in keys[view]:
                    if key is not None:
                        index.note(key, obj, added)
        return self


def _key(view: View, atom: Atom, added: bool) -> str | bytes | None:
    return stored_key(view, atom, enter=added)


def _writable(obj: Any) -> Any:
    """The live object that is to be tagged, in a view that can be changed. Inside an operation."""
    view: View = obj._p_view
    if obj._p_flags & _UNUSABLE:
        if obj._p_flags & base.CLOSED:
            raise ClosedError("Object is no longer accessible: its prefix is closed")
        raise Error("Object is no longer accessible: it was deleted, or its construction failed")
    if view.frozen:
        obj = live_version(obj)
        view = obj._p_view
    if not view.writable:
        view._refuse_write()
    if not view.dirty_count:
        view.begin_changes()
    return obj


def tags(*objects: Any) -> ObjectTagManager:
    """The tags of objects, to be changed.

    Args:
        objects: memo objects, of any prefixes, and queries, which stand for their results. In ``__init__``, ``self``
            may be tagged; when the construction fails, nothing remains.

    Returns:
        A manager with ``add``, ``remove``, ``+=`` and ``-=``. A tag is a str, an enum value, a memo object, or what
        ``as_tag`` returns. Each tag of an object counts as one reference to it, so a tagged object is kept.

    Raises:
        Error: an argument is neither a memo object nor a query.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Person:
    ...     def __init__(self, name):
    ...         self.name = name
    >>> db0.tags(Person("Alice")).add("employee", "manager")
    <ObjectTagManager of 1 object>
    >>> [person.name for person in db0.find(Person, "employee")]
    ['Alice']
    >>> db0.close()
    """
    if len(objects) == 1 and isinstance(objects[0], MemoObject):
        return ObjectTagManager(objects)
    for obj in objects:
        if not isinstance(obj, (MemoObject, Query)):
            if isinstance(obj, weak.WeakProxy):
                return tags(*[weak.target_of(o) if isinstance(o, weak.WeakProxy) else o for o in objects])
            raise Error(
                f"tags() needs memo objects and queries, not {obj!r} ({type(obj).__name__})"
                if not isinstance(obj, type)
                else f"tags() needs memo objects and queries, not the class {obj.__name__}"
            )
    return ObjectTagManager(objects)


def has_tag(obj: Any, tag: Any) -> bool:
    """Whether a memo object has a tag, in its own live prefix or snapshot.

    Raises Error when `tag` cannot be one, ClosedError or ReferenceError when the object is gone.
    """
    atom = tag_atom(tag)
    if atom is None:
        raise refuse_tag(tag)
    return bool(has_tags(obj, [atom])[0])


def has_tags(obj: Any, atoms: Iterable[Atom]) -> list[bool]:
    """Which of these tags a memo object has."""
    obj._p_activate()
    view: View = obj._p_view
    with operation:
        index = tag_index(view)
        index.flush()
        keys = [stored_key(view, atom, enter=False) for atom in atoms]
        return [key is not None and obj._p_oid in index.holders(key) for key in keys]
