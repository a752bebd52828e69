"""The memo classes of a prefix, as it has them recorded: names, fields, types in use, instances."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from msgspec import Struct

from dbzero.collections import Dict, List, Set, Tuple
from dbzero.errors import ClassNotFoundError, Error
from dbzero.model import base, kinds, scope
from dbzero.model.catalog import ACCESS_CONTROL, ENUM, NO_DEFAULT_TAGS, SINGLETON, ClassRecord
from dbzero.model.instances import enter_classes, instances
from dbzero.model.memo import MemoBase, MemoObject, class_info, stored_fields
from dbzero.model.sharded import SPOT
from dbzero.model.uuids import make_uuid
from dbzero.model.view import View
from dbzero.reflection.members import MethodInfo, get_methods
from dbzero.session.api import PrefixMetaData
from dbzero.session.lookup import fetch
from dbzero.session.workspace import active

_BUILTINS = {List: list, Tuple: tuple, Dict: dict, Set: set}


class AttributeInfo(NamedTuple):
    """A field of a class: its name and the :class:`MemoMetaClass` it belongs to.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Person:
    ...     def __init__(self, name):
    ...         self.name = name
    >>> ann = Person("Ann")
    >>> [info.name for info in db0.get_memo_class(ann).get_attributes()]
    ['name']
    >>> db0.close()
    """

    name: str
    metaclass: MemoMetaClass


def _record_of(cls: Any) -> tuple[View, ClassRecord]:
    if not isinstance(cls, type):
        raise TypeError(f"a memo class is needed, not {type(cls).__name__}")
    info = class_info(cls)
    if info is None:
        raise Error(f"{cls.__qualname__} is not a memo class")
    view = scope.view_of(info.prefix, False)
    enter_classes(view)
    record = view.find_class(cls)
    if record is None:
        raise ClassNotFoundError(f"Class not found: {cls.__qualname__} was never stored in prefix {view.name!r}")
    return view, record


def get_attributes(cls: type) -> list[tuple[str, int]]:
    """(name, number) of every field that instances of a class ever had, the oldest first.

    Raises Error when it is no memo class, ClassNotFoundError when it was never stored.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Person:
    ...     def __init__(self, name):
    ...         self.name = name
    >>> ann = Person("Ann")
    >>> db0.get_attributes(Person)
    [('name', 0)]
    >>> db0.close()
    """
    view, record = _record_of(cls)
    return _attributes(view, record)


def _attributes(view: View, record: ClassRecord) -> list[tuple[str, int]]:
    names = dict.fromkeys(name for name in record.field_names if name != SPOT)
    for obj in view.objects():  # what is pending has no shape yet
        if isinstance(obj, MemoObject) and obj._p_flags & base.DIRTY and view.class_code(obj) == record._p_oid:
            names.update(dict.fromkeys(stored_fields(obj)))
    return [(name, number) for number, name in enumerate(names)]


def get_schema(cls: type) -> dict[str, dict[str, Any]]:
    """The types that the fields of a class's live instances have at present. Instances of derived classes do not count.

    Returns:
        {field: {"primary_type": the most common type but None's, "all_types": [the types in use, most common first]}}.
        Collections count as the builtin types, memo objects as ``MemoBase``.

    Raises:
        TypeError: no class. Error: no memo class, or never stored.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Person:
    ...     def __init__(self, name):
    ...         self.name = name
    >>> people = [Person("Ann"), Person(None), Person("Bob")]
    >>> db0.get_schema(Person)
    {'name': {'primary_type': <class 'str'>, 'all_types': [<class 'str'>, <class 'NoneType'>]}}
    >>> db0.close()
    """
    view, record = _record_of(cls)
    return _schema(view, record)


def _schema(view: View, record: ClassRecord) -> dict[str, dict[str, Any]]:
    counts: dict[str, Counter[type]] = {}
    for obj in instances(view, record._p_oid, derived=False):
        for name, value in stored_fields(obj).items():
            kind = MemoBase if isinstance(value, MemoObject) else _BUILTINS.get(type(value), type(value))
            counts.setdefault(name, Counter())[kind] += 1
    return {
        name: {
            "primary_type": next((kind for kind, _ in found.most_common() if kind is not type(None)), type(None)),
            "all_types": [kind for kind, _ in found.most_common()],
        }
        for name, found in counts.items()
    }


class Instances:
    """The instances of a class: iterated anew each time."""

    __slots__ = ("_record", "_view")

    def __init__(self, view: View, record: ClassRecord) -> None:
        self._view = view
        self._record = record

    def __iter__(self) -> Iterator[Any]:
        return instances(self._view, self._record._p_oid)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class MemoMetaClass(Struct, frozen=True, eq=False):
    """A memo class as a prefix has it recorded. Can be pickled: another process looks it up by its UUID.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Thing:
    ...     pass
    >>> thing = Thing()
    >>> meta = db0.get_memo_class(thing)
    >>> meta.name, meta.get_instance_count(), meta.get_type() is Thing
    ('Thing', 1, True)
    >>> db0.close()
    """

    name: str
    module: str
    class_uuid: str
    is_singleton: bool
    type_flags: dict[str, bool]
    instance_uuid: str | None  # of the singleton

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MemoMetaClass) and other.class_uuid == self.class_uuid

    def __hash__(self) -> int:
        return hash(self.class_uuid)

    def __str__(self) -> str:
        return f"{self.module}.{self.name} ({self.class_uuid})"

    def get_class(self) -> ClassRecord:
        """The class's record."""
        found = fetch(self.class_uuid)
        if not isinstance(found, ClassRecord):
            raise ClassNotFoundError(f"{self.class_uuid} is no class")
        return found

    def type_exists(self) -> bool:
        """Whether the Python class is known in this process."""
        return self._python_class() is not kinds.unknown

    def _python_class(self) -> type:
        record = self.get_class()
        return kinds.classes.get(record.data.key, kinds.unknown)

    def get_type(self) -> type:
        """The Python class. ClassNotFoundError when this process does not know it."""
        found = self._python_class()
        if found is kinds.unknown:
            raise ClassNotFoundError(f"the class {self.module}.{self.name} is not imported in this process")
        return found

    def get_instance(self) -> Any:
        """The singleton's instance. Error when there is none."""
        if self.instance_uuid is None:
            raise Error(f"{self.name} has no singleton instance")
        return fetch(self.instance_uuid)

    def get_attributes(self, include_properties: bool = False) -> Iterator[AttributeInfo]:
        """Its fields; with `include_properties` also the properties of the Python class."""
        record = self.get_class()
        for name, _ in _attributes(record._p_view, record):
            yield AttributeInfo(name, self)
        if include_properties and self.type_exists():
            cls = self.get_type()
            for name in dir(cls):
                if not name.startswith("_") and isinstance(inspect.getattr_static(cls, name), property):
                    yield AttributeInfo(name, self)

    def get_methods(self) -> Iterator[MethodInfo]:
        """The public methods of the Python class. ClassNotFoundError."""
        for method in get_methods(self.get_type()):
            yield MethodInfo(method.name, method, self)

    def get_schema(self) -> dict[str, dict[str, Any]]:
        """See ``get_schema``."""
        record = self.get_class()
        return _schema(record._p_view, record)

    def all(self, snapshot: Any = None, as_memo_base: bool = False) -> Instances:
        """Its instances, those of derived classes included; ``MemoBase`` objects when the Python class is unknown.

        Args:
            snapshot: a snapshot to look in; None: the live prefix. as_memo_base: accepted; an object has one wrapper, of
                its own class where that is known.
        """
        if snapshot is not None:
            view: View = snapshot.view(self.get_class()._p_view.name)
            return Instances(view, view.class_record(self.get_class()._p_oid))
        record = self.get_class()
        return Instances(record._p_view, record)

    def get_instance_count(self) -> int:
        """How many instances there are. Takes a walk over the prefix."""
        return len(self.all())


def _describe(view: View, record: ClassRecord) -> MemoMetaClass:
    data, uuid = record.data, view.records.uuid
    return MemoMetaClass(
        name=data.qualname,
        module=data.module,
        class_uuid=make_uuid(uuid, record._p_oid),
        is_singleton=bool(data.flags & SINGLETON),
        type_flags={
            "singleton": bool(data.flags & SINGLETON),
            "no_default_tags": bool(data.flags & NO_DEFAULT_TAGS),
            "access_control": bool(data.flags & ACCESS_CONTROL),
        },
        instance_uuid=make_uuid(uuid, data.singleton) if data.singleton else None,
    )


def get_memo_classes(prefix: str | PrefixMetaData | None = None) -> Iterator[MemoMetaClass]:
    """The memo classes that a prefix knows.

    Args:
        prefix: name or PrefixMetaData (its name may be None); None: the current prefix. Opened read-only on demand.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Person:
    ...     pass
    >>> ann = Person()
    >>> [cls.name for cls in db0.get_memo_classes()]
    ['Person']
    >>> db0.close()
    """
    view = _view(prefix)
    enter_classes(view)
    catalogue = view.catalogue
    for _, oid in [] if catalogue is None else catalogue.items():
        record = view.class_record(oid)
        if not record.data.flags & ENUM:
            yield _describe(view, record)


def _view(prefix: Any) -> View:
    active()
    if isinstance(prefix, tuple):
        name, uuid = prefix
        if name is None:
            found = scope.view_of_uuid(uuid)
            if found is None:
                raise Error(f"no open prefix has the uuid {uuid}")
            return found
        prefix = name
    if prefix is not None and not isinstance(prefix, str):
        raise TypeError(f"prefix must be a name or PrefixMetaData, not {type(prefix).__name__}")
    return scope.view_of(prefix, False)


def get_memo_class(which: Any) -> MemoMetaClass:
    """The class of a memo object, or the class with a UUID.

    Raises TypeError for anything else, classes included; Error when the UUID is not that of a class.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Person:
    ...     pass
    >>> db0.get_memo_class(Person()).name
    'Person'
    >>> db0.close()
    """
    if isinstance(which, MemoObject):
        which._p_activate()
        view: View = which._p_view
        return _describe(view, view.class_record(view.class_code(which)))
    if isinstance(which, str):
        record = fetch(which)
        if not isinstance(record, ClassRecord):
            raise Error(f"{which} is not the UUID of a class")
        return _describe(record._p_view, record)
    raise TypeError(f"a memo object or the UUID of a class is needed, not {which!r}")
