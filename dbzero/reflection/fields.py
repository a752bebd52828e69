"""Fields declared as tags or as indexed, and renaming of fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from dbzero.errors import Error
from dbzero.model import base, scope
from dbzero.model.base import operation
from dbzero.model.declared import INDEXED, MARKS, MISSING, TAG, FieldRef, declare, declared, note, plan_of
from dbzero.model.instances import enter_classes, instances
from dbzero.model.memo import class_info

T = TypeVar("T", bound=type)


class Fields:
    """The declared fields of a memo class, by attribute or by name in brackets."""

    __slots__ = ("_cls",)

    def __init__(self, cls: type) -> None:
        self._cls = cls

    def __getattr__(self, name: str) -> FieldRef:
        if name not in [one for sort in MARKS for one in declared(self._cls, sort)]:
            raise AttributeError(f"{self._cls.__qualname__} declares no field {name!r}")
        return FieldRef(self._cls, name)

    def __getitem__(self, name: str) -> FieldRef:
        if not isinstance(name, str):
            raise TypeError(f"field names are str, not {type(name).__name__}")
        return self.__getattr__(name)


def tag_fields(*names: str) -> Callable[[T], T]:
    """Declare, below ``memo``, fields whose values are tags too. Inherited.

    >>> import dbzero as db0
    >>> @db0.memo
    ... @db0.tag_fields("status")
    ... class Order:
    ...     pass
    >>> db0.fields_of(Order).status.name
    'status'
    """
    return declare(TAG, names)


def indexed_fields(*names: str) -> Callable[[T], T]:
    """Declare, below ``memo``, fields whose values are indexed. Inherited.

    >>> import dbzero as db0
    >>> @db0.memo
    ... @db0.indexed_fields("price")
    ... class Article:
    ...     pass
    >>> db0.fields_of(Article)["price"].name
    'price'
    """
    return declare(INDEXED, names)


def fields_of(cls: type) -> Fields:
    """The fields of a memo class that ``tag_fields`` and ``indexed_fields`` declare. TypeError for other classes.

    >>> import dbzero as db0
    >>> @db0.memo
    ... @db0.indexed_fields("price")
    ... class Article:
    ...     pass
    >>> db0.fields_of(Article).price == db0.fields_of(Article)["price"]
    True
    >>> db0.fields_of(Article).weight
    Traceback (most recent call last):
    AttributeError: Article declares no field 'weight'
    """
    if class_info(cls) is None:
        raise TypeError(f"{cls!r} is not a memo class")
    return Fields(cls)


def rename_field(cls: type, from_name: str, to_name: str) -> None:
    """Give a field of all stored instances of a class, derived classes included, another name.

    Every instance is loaded and pending afterwards: the next commit writes them as one transaction. An instance that has
    a field of the new name already keeps that one.

    Args:
        cls: the memo class. from_name: the field's present name. to_name: its new one.

    Raises:
        Error: not a memo class, or no instance ever had such a field. ReadOnlyError.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Person:
    ...     def __init__(self, name):
    ...         self.name = name
    >>> ann = Person("Ann")
    >>> db0.rename_field(Person, "name", "first_name")
    >>> ann.first_name
    'Ann'
    >>> db0.close()
    """
    info = class_info(cls)
    if info is None:
        raise Error(f"rename_field: {cls!r} is not a memo class")
    for name in (from_name, to_name):
        if not isinstance(name, str):
            raise TypeError(f"field names are str, not {type(name).__name__}")
    view = scope.view_of(info.prefix, True)
    with operation:
        enter_classes(view)
        record = view.find_class(cls)
        missing = Error(f"Field {from_name} not found in class {cls.__module__}.{cls.__qualname__}")
        if record is None:
            raise missing
        if from_name == to_name:
            return
        found = False
        for obj in instances(view, record._p_oid):
            obj._p_activate()
            if from_name in base.state(obj):
                found = True
                obj._p_changed()
                _rename(obj, from_name, to_name)
        if found:
            record.number((from_name,))  # so that doing it again is known to be no error
        elif from_name not in record.field_names:
            raise missing


def _rename(obj: Any, from_name: str, to_name: str) -> None:
    fields = base.state(obj)
    plan = plan_of(type(obj))
    if plan is not None:
        for name in (from_name, to_name):
            if any(name in names for names in plan.names.values()):
                note(obj, name, fields.get(name, MISSING))
    if to_name not in fields:
        fields[to_name] = fields[from_name]
    del fields[from_name]
