"""From the class a user wrote to the memo class: a subclass of it and of the stored base, same name and members.

A subclass rather than a copy, so that ``super()`` and ``__class__`` inside the methods stay right. Three things stand
in the way of one and are undone first: slots, which
leave no room for the base's struct and would keep values out of the instance dict (the class is made anew without
them); a frozen dataclass's ``__init__``, which
sets fields through ``object`` (it gets the stored base instead); and finalizers, which would run whenever a wrapper
leaves memory (they are not called).
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

from dbzero.model.base import Persistent

_BUILTINS_CELL = "__dataclass_builtins_object__"
_NOT_COPIED = frozenset(("__dict__", "__weakref__", "__slots__"))
_CARRIED = (
    "__doc__",
    "__module__",
    "__qualname__",
    "__annotations__",
    "__annotate__",
    "__annotate_func__",
    "__orig_bases__",
    "__type_params__",
    "__firstlineno__",
)
_metas: dict[type, type] = {}


def make_memo_class(plain: Any, root: Any, meta: type, dict_property: property) -> Any:
    """The memo class for `plain`; `plain` itself when it derives from a memo class and needs nothing undone.

    Args:
        plain: what was decorated. root: base of all memo classes. meta: their metatype. dict_property: what
            ``__dict__`` must be.

    Raises:
        TypeError: instances of such a class cannot be stored.
    """
    if issubclass(plain, Persistent) and not issubclass(plain, root):
        raise TypeError(f"{plain.__qualname__} is a collection type: it cannot be a memo class")
    if _has_slots(plain):
        plain = _without_slots(plain)
    for parent in plain.__mro__[1:]:
        if parent.__module__ != "typing" and not issubclass(parent, Persistent) and _has_slots(parent):
            raise TypeError(
                f"{plain.__qualname__} cannot be a memo class: its base {parent.__qualname__} has __slots__; "
                f"remove them"
            )
    if not issubclass(plain, root):
        return _subclass(plain, (plain, root), meta, dict_property)
    made = plain
    if next(vars(parent)["__dict__"] for parent in plain.__mro__ if "__dict__" in vars(parent)) is not dict_property:
        made = _subclass(plain, (plain,), meta, dict_property)
    else:
        _finish(made)
    return made


def _subclass(plain: Any, bases: tuple[type, ...], meta: type, dict_property: property) -> Any:
    builtin = next(
        (b for b in plain.__mro__ if b is not object and b.__flags__ & (1 << 9) == 0 and not issubclass(b, Persistent)),
        None,
    )
    namespace: dict[str, Any] = {name: vars(plain)[name] for name in _CARRIED if name in vars(plain)}
    namespace["__dict__"] = dict_property
    try:
        made = _meta_for(type(plain), meta)(plain.__name__, bases, namespace)
    except TypeError as error:
        if builtin is None or "lay-out" not in str(error):
            raise
        raise TypeError(
            f"{plain.__qualname__} cannot be a memo class: it derives from the builtin type {builtin.__qualname__}"
        ) from None
    _finish(made)
    return made


def _meta_for(own: type, meta: type) -> type:
    if issubclass(own, meta):
        return own
    if own is type:
        return meta
    found = _metas.get(own)
    if found is None:
        found = _metas[own] = type(own.__name__, (own, meta), {"__module__": own.__module__})
    return found


def _finish(made: Any) -> None:
    if made.__hash__ is None:
        made.__hash__ = Persistent.__hash__
    if any(
        "__del__" in vars(parent) for parent in made.__mro__ if not issubclass(parent, Persistent) or parent is made
    ):
        made.__del__ = Persistent.__del__
    for parent in made.__mro__:
        init = vars(parent).get("__init__")
        if isinstance(init, types.FunctionType) and _BUILTINS_CELL in init.__code__.co_freevars:
            fixed = _with_cell(init, _BUILTINS_CELL, Persistent)
            if fixed is not init:
                parent.__init__ = fixed


def _with_cell(function: types.FunctionType, name: str, value: object) -> types.FunctionType:
    place = function.__code__.co_freevars.index(name)
    cells = list(function.__closure__ or ())
    if cells[place].cell_contents is value:
        return function
    cells[place] = types.CellType(value)
    made = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, tuple(cells)
    )
    made.__kwdefaults__ = function.__kwdefaults__
    made.__qualname__ = function.__qualname__
    made.__doc__ = function.__doc__
    made.__module__ = function.__module__
    made.__annotations__ = function.__annotations__
    made.__dict__.update(function.__dict__)
    return made


def _has_slots(cls: type) -> bool:
    return any(
        isinstance(value, types.MemberDescriptorType) for value in vars(cls).values() if value is not None
    ) and "__slots__" in vars(cls)


def _without_slots(plain: Any) -> Any:
    slots = vars(plain)["__slots__"]
    names = {slots} if isinstance(slots, str) else set(slots)
    private = {
        f"_{plain.__name__.lstrip('_')}{name}" for name in names if name.startswith("__") and not name.endswith("__")
    }
    namespace = {
        name: value
        for name, value in vars(plain).items()
        if name not in _NOT_COPIED and not (name in names | private and isinstance(value, types.MemberDescriptorType))
    }
    if "__dataclass_fields__" in namespace:
        for name in ("__getstate__", "__setstate__"):
            if getattr(namespace.get(name), "__module__", None) == "dataclasses":
                del namespace[name]
        for name, field in namespace["__dataclass_fields__"].items():
            if name in names and type(field.default).__name__ != "_MISSING_TYPE":
                namespace.setdefault(name, field.default)
    made = type(plain)(plain.__name__, plain.__bases__, namespace)
    made.__qualname__ = plain.__qualname__
    for function in _functions(namespace):
        for cell in function.__closure__ or ():
            try:
                if cell.cell_contents is plain:
                    cell.cell_contents = made
            except ValueError:  # an empty cell
                continue
    return made


def _functions(namespace: dict[str, Any]) -> Iterator[types.FunctionType]:
    for value in namespace.values():
        if isinstance(value, (classmethod, staticmethod)):
            value = value.__func__
        parts = (value.fget, value.fset, value.fdel) if isinstance(value, property) else (value,)
        for part in parts:
            while part is not None and not isinstance(part, types.FunctionType) and hasattr(part, "__wrapped__"):
                part = part.__wrapped__
            if isinstance(part, types.FunctionType):
                yield part


def mentions(cls: Any, name: str) -> bool:
    """Whether the code of the class's ``__init__`` uses `name`, its bases' ``__init__`` included."""
    return any(
        isinstance(init, types.FunctionType) and (name in init.__code__.co_names or name in init.__code__.co_freevars)
        for init in (vars(parent).get("__init__") for parent in cls.__mro__)
    )
