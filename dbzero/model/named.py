"""Values that are stored by name: modules, classes, functions, Enum members, and namedtuples by the name of their class.

Stored: a letter for what it is, the module, NUL, the qualified name. Reading one imports that module - which the
program could do itself - and looks the name up; whatever is found must be of the kind that was stored. Nothing else
of a store is ever imported or called.
"""

from __future__ import annotations

import enum
import importlib
import sys
import types
from typing import Any

from dbzero.errors import ClassNotFoundError, UnsupportedTypeError
from dbzero.model import kinds, memo
from dbzero.model.base import MemoMeta
from dbzero.model.codec import decode_plain, encode_plain
from dbzero.model.deferred import (
    FROZENSET,
    MEMBER,
    MEMO_CLASS,
    NAMED,
    NAMED_TUPLE,
    TUPLE,
    WEAK,
    Deferred,
    admitters,
    checkers,
    describers,
    resolvers,
)

_KINDS: dict[str, tuple[type, str]] = {
    "m": (types.ModuleType, "module"),
    "c": (type, "class"),
    "f": (types.FunctionType, "function"),
}


def find(module: str, qualname: str) -> Any:
    """The object with that import path; qualname "": the module itself.

    ClassNotFoundError: there is none in this process, or its module cannot be imported.
    """
    try:
        main = sys.modules.get("__main__")
        found: Any = main if main is not None and module == memo.main_name() else importlib.import_module(module)
        for name in qualname.split(".") if qualname else ():
            found = getattr(found, name)
    except Exception as error:
        raise ClassNotFoundError(
            f"{module}{'.' if qualname else ''}{qualname} is stored here, but cannot be imported in this process "
            f"({type(error).__name__}: {error}); make it importable or assign another value"
        ) from error
    return found


def path_of(value: Any) -> tuple[str, str]:
    """(module, qualified name) that :func:`find` finds `value` by.

    UnsupportedTypeError: it is not to be found by them.
    """
    module, qualname = value.__module__, value.__qualname__
    if isinstance(module, str) and "<" not in qualname:
        if module in memo.MAIN:
            module = memo.main_name()
        try:
            if find(module, qualname) is value:
                return module, qualname
        except ClassNotFoundError:
            pass
    raise UnsupportedTypeError(
        f"Decorated or nested functions and classes are not allowed: {module}.{qualname} is not to be found by that "
        f"name; define it at the top of a module"
    )


def _pack(letter: str, module: str, qualname: str) -> bytes:
    return f"{letter}{module}\0{qualname}".encode("utf-8", "surrogatepass")


def _unpack(data: bytes) -> tuple[str, str, str]:
    text = data.decode("utf-8", "surrogatepass")
    module, separator, qualname = text[1:].partition("\0")
    if not separator or not module or text[0] not in _KINDS:
        raise ValueError("a damaged import path")
    return text[0], module, qualname


def describe(value: Any) -> tuple[int, bytes] | None:
    """Code and data of a module, class, function or Enum member; None for everything else. UnsupportedTypeError."""
    kind = type(value)
    if isinstance(value, enum.Enum):
        stored = value.value if isinstance(value, enum.Flag) else value.name
        return MEMBER, encode_plain([_pack("c", *path_of(kind)).decode(), stored])
    if kind is types.FunctionType:
        if value.__name__ == "<lambda>":
            raise UnsupportedTypeError("Lambda functions are not allowed: define a function at the top of a module")
        if "__wrapped__" in vars(value):
            raise UnsupportedTypeError(f"Decorated or nested functions are not allowed: {value.__qualname__}")
        return NAMED, _pack("f", *path_of(value))
    if kind is types.ModuleType:
        name: str = value.__name__
        if sys.modules.get(name) is not value:
            raise UnsupportedTypeError(f"a module that cannot be imported as {name} cannot be stored")
        return NAMED, _pack("m", memo.main_name() if name in memo.MAIN else name, "")
    if issubclass(kind, type):
        return NAMED, _pack("c", *path_of(value))
    return None


def _resolve_named(stored: Deferred) -> Any:
    letter, module, qualname = _unpack(stored.data)
    found = find(module, qualname)
    kind, name = _KINDS[letter]
    if not isinstance(found, kind):
        raise ClassNotFoundError(f"{module}.{qualname} is stored here as a {name}, but is a {type(found).__name__} now")
    return found


def _member(data: bytes) -> tuple[str, str, Any]:
    try:
        path, stored = decode_plain(data)
        letter, module, qualname = _unpack(path.encode())
    except (AttributeError, TypeError, UnicodeError) as error:
        raise ValueError("a damaged Enum member") from error
    if letter != "c" or type(stored) not in (str, int):
        raise ValueError("a damaged Enum member")
    return module, qualname, stored


def _resolve_member(stored: Deferred) -> Any:
    module, qualname, name = _member(stored.data)
    cls = find(module, qualname)
    if isinstance(cls, enum.EnumMeta):
        try:
            return cls(name) if type(name) is int else cls[name]
        except (KeyError, ValueError):
            pass
    raise ClassNotFoundError(f"{module}.{qualname} has no member {name!r} any more; assign another value")


def _resolve_namedtuple(stored: Deferred) -> Any:
    _, module, qualname = _unpack(stored.data)
    cls = find(module, qualname)
    parts = [part_of(part) for part in stored.parts or ()]
    if not is_namedtuple(cls) or len(cls._fields) != len(parts):
        raise ClassNotFoundError(
            f"{module}.{qualname} was a namedtuple of {len(parts)} fields when a value of it was stored, and is not now"
        )
    return tuple.__new__(cls, parts)


def part_of(part: Any) -> Any:
    """What a part of a composite value is read as: a weak reference stays one, so that the composite can be kept."""
    if type(part) is not Deferred:
        return part
    if part.code == WEAK:
        from dbzero.model.weak import proxy_of  # which needs this module

        return proxy_of(part)
    return part.resolve()


def is_namedtuple(cls: Any) -> bool:
    """Whether `cls` is a class made by ``namedtuple`` or ``NamedTuple``."""
    return (
        isinstance(cls, type)
        and issubclass(cls, tuple)
        and isinstance(getattr(cls, "_fields", None), tuple)
        and hasattr(cls, "_make")
    )


def _resolve_class(stored: Deferred) -> Any:
    data = stored.view.class_record(int.from_bytes(stored.data, "little")).data
    found = kinds.classes.get(data.key)
    if found is None:
        try:
            importlib.import_module(data.module)
        except Exception as error:
            raise ClassNotFoundError(
                f"the memo class {data.key!r} is stored here, but its module {data.module} cannot be imported "
                f"({type(error).__name__}: {error})"
            ) from error
        found = kinds.classes.get(data.key)
    if found is None:
        raise ClassNotFoundError(f"the memo class {data.key!r} is stored here, but {data.module} does not define it")
    return found


def class_reference(view: Any, cls: Any, enter: bool = False) -> Deferred:
    """A stored reference to a memo class. For a class that the view does not know and that is not to be entered: one
    that equals no stored one."""
    if enter:
        oid = view.layout(cls).oid
    else:
        record = view.find_class(cls)
        oid = 0 if record is None else record._p_oid
    return Deferred(view, MEMO_CLASS, oid.to_bytes(8, "little"))


def _admit(view: Any, value: Any) -> Any:
    kind = type(value)
    if isinstance(value, MemoMeta):
        info = memo.class_info(value)
        if info is None:
            return NotImplemented
        if info.prefix is not None and info.prefix != view.name:
            raise UnsupportedTypeError(
                f"the memo class {value.__qualname__} belongs to prefix {info.prefix!r}: it cannot be stored in "
                f"prefix {view.name!r}"
            )
        if not view.writable:
            view._refuse_write()
        return class_reference(view, value, enter=True)
    if isinstance(value, tuple) and is_namedtuple(kind):
        from dbzero.model.values import convert  # which needs this module

        path = _pack("c", *path_of(kind))
        return Deferred(view, NAMED_TUPLE, path, tuple([convert(view, part) for part in value]))
    if kind is frozenset:
        return freeze(view, value)
    return NotImplemented


def freeze(view: Any, value: Any) -> Any:
    """A hashable value as it is stored inside a frozenset."""
    from dbzero.model.values import convert

    kind = type(value)
    if kind is frozenset or kind is tuple:
        code = FROZENSET if kind is frozenset else TUPLE
        return Deferred(view, code, b"", tuple([freeze(view, part) for part in value]))
    return convert(view, value)


def _check_class(data: bytes) -> None:
    if len(data) != 8 or not kinds.FIRST_OID <= int.from_bytes(data, "little") < 1 << 48:
        raise ValueError("a damaged reference to a class")


def _check_empty(data: bytes) -> None:
    if data:
        raise ValueError("a damaged composite value")


admitters.append(_admit)
describers.append(describe)
resolvers[NAMED] = _resolve_named
resolvers[MEMBER] = _resolve_member
resolvers[NAMED_TUPLE] = _resolve_namedtuple
resolvers[MEMO_CLASS] = _resolve_class
resolvers[FROZENSET] = lambda stored: frozenset([part_of(part) for part in stored.parts or ()])
resolvers[TUPLE] = lambda stored: tuple([part_of(part) for part in stored.parts or ()])
checkers[NAMED] = checkers[NAMED_TUPLE] = lambda data: _unpack(data) and None
checkers[MEMBER] = lambda data: _member(data) and None
checkers[MEMO_CLASS] = _check_class
checkers[FROZENSET] = checkers[TUPLE] = _check_empty
