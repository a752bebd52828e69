"""Construction that is not plain: singletons, static and dynamic scope, and what is refused.

Plain classes are constructed in C (csrc/pytypes_meta.c) in the current view. The rest comes here.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from dbzero.errors import Error, ReadOnlyError, UnsupportedTypeError
from dbzero.model import base, scope
from dbzero.model.base import ViewCore, operation
from dbzero.model.memo import MemoClass, class_info
from dbzero.model.placement import shards_of, spot_of
from dbzero.model.sharded import SPOT, Family
from dbzero.model.view import View


class _Found(BaseException):
    """Ends an ``__init__`` that need not run: the singleton exists. BaseException, so that no handler of the user's
    takes it."""

    def __init__(self, existing: Any) -> None:
        super().__init__()
        self.existing = existing


class _Limbo(ViewCore):  # type: ignore[misc]
    """Where an object stands that will choose its prefix in ``__init__`` while the current one is read-only."""

    def __init__(self, refusal: Exception) -> None:
        self.writable = True
        self.refusal = refusal

    def _reserve_oids(self) -> tuple[int, int]:
        return 1, 1

    def _convert(self, value: Any) -> Any:
        raise self.refusal

    def _first_dirty(self) -> None:
        raise self.refusal

    def _refuse(self, obj: Any, writing: bool) -> None:
        raise self.refusal


_probing: ContextVar[TypeError | None] = ContextVar("_probing", default=None)


def construct(cls: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> Any:
    """Make (or find) what ``cls(*args, **kwargs)`` returns. Called from C for all that is not plain."""
    info = class_info(cls)
    if info is None:
        raise TypeError(
            f"{cls.__module__}.{cls.__qualname__} is not a registered memo type: decorate it with @db0.memo, as "
            f"its base class is"
        )
    named = dict(kwargs) if kwargs else {}
    if info.family is not None:
        return _construct_in_shard(cls, info, info.family, args, named)
    view = scope.view_of(info.prefix, True)
    if info.moves:
        return _construct_moving(cls, info, view, args, named)
    if info.singleton:
        existing = view.singleton(cls)
        if existing is not None:
            return existing
    if not view.writable:
        raise _refusal(cls, info, view)
    return _finish(cls, info, base.construct(cls, view, args, named))


def _construct_in_shard(cls: Any, info: MemoClass, family: Family, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    assert info.keys is not None
    key = info.keys.key(cls, args, named)
    try:
        spot = spot_of(key)
    except UnsupportedTypeError as error:
        raise UnsupportedTypeError(f"{cls.__qualname__}: {error}") from None
    shards = shards_of(scope.live, family)
    with shards.place(spot) as view:
        if not view.writable:
            raise _refusal(cls, info, view)
        return base.construct(cls, view, args, named, {SPOT: spot})


def _refusal(cls: Any, info: MemoClass, view: View) -> ReadOnlyError:
    if view.shared:
        return view.outside_transaction()
    if info.singleton:
        return ReadOnlyError(
            f"Cannot create singleton {cls.__qualname__} in read-only prefix {view.name}: singleton instance "
            f"does not exist"
        )
    return ReadOnlyError(f"Cannot modify read-only prefix: {view.name}: no {cls.__qualname__} can be created there")


def _finish(cls: Any, info: MemoClass, obj: Any) -> Any:
    if not info.singleton or type(obj) is not cls:
        return obj
    view: View = obj._p_view
    with operation:
        existing = view.singleton(cls)
        if existing is not None and existing is not obj:
            view.expire(obj)  # another thread was faster
            return existing
        view.set_singleton(cls, obj)
    return obj


def _construct_moving(cls: Any, info: MemoClass, view: View, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    missing: TypeError | None = None
    if info.singleton:
        args, named, missing = _complete(cls, args, named)
    token = _probing.set(missing)
    try:
        target: Any = view if view.writable else _Limbo(_refusal(cls, info, view))
        return _finish(cls, info, base.construct(cls, target, args, named))
    except _Found as found:
        return found.existing
    finally:
        _probing.reset(token)


def _complete(
    cls: Any, args: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], TypeError | None]:
    """Arguments with missing ones set to None, and the error that their absence is unless the singleton exists."""
    import inspect  # slow to import, and rarely needed

    try:
        signature = inspect.signature(cls.__init__)
        signature.bind(None, *args, **named)
        return args, named, None
    except TypeError as error:
        try:
            bound = signature.bind_partial(None, *args, **named)
        except TypeError:
            raise error from None
        for name, parameter in list(signature.parameters.items())[1:]:
            if (
                name not in bound.arguments
                and parameter.default is parameter.empty
                and parameter.kind
                not in (
                    parameter.VAR_POSITIONAL,
                    parameter.VAR_KEYWORD,
                )
            ):
                bound.arguments[name] = None
        bound.apply_defaults()
        return bound.args[1:], bound.kwargs, error


def set_prefix(obj: Any, prefix: str | None = None) -> None:
    """Choose, inside ``__init__`` and before the first attribute is set, the prefix that an object is created on.

    Args:
        obj: the object under construction. prefix: name of the prefix, opened read-write on demand; None: no effect.

    Raises:
        Error: too late, or not a memo object. ReadOnlyError: that prefix is open read-only.

    With a singleton class whose instance exists on that prefix, the construction ends here and returns that instance.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Account:
    ...     def __init__(self, customer):
    ...         db0.set_prefix(self, customer)
    >>> db0.get_prefix_of(Account("smith")).name
    'smith'
    >>> db0.close()
    """
    info = class_info(type(obj))
    if info is None:
        raise Error(f"set_prefix failed: {type(obj).__qualname__} is not a memo class")
    if info.family is not None:
        raise Error(f"set_prefix failed: instances of {info.family.title} are placed by their keys")
    if prefix is not None and not isinstance(prefix, str):
        raise TypeError(f"prefix must be a str or None, not {type(prefix).__name__}")
    if not obj._p_flags & base.INIT:
        raise Error("set_prefix failed: the object is already initialized")
    if any(not name.startswith("_X__") for name in base.state(obj)):
        raise Error("set_prefix failed: must be called before initializing any object members")
    view = scope.view_of(info.prefix if prefix is None else prefix, True)
    if info.singleton:
        existing = view.singleton(type(obj))
        if existing is not None:
            raise _Found(existing)
    missing = _probing.get()
    if missing is not None:
        raise missing
    if not view.writable:
        raise _refusal(type(obj), info, view)
    if obj._p_view is not view:
        base.rebind(obj, view)


def materialized(obj: Any) -> Any:
    """The object under construction as one that may be put into collections and has a UUID. Anything else is
    returned as it is.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> members = db0.list()
    >>> @db0.memo
    ... class Member:
    ...     def __init__(self):
    ...         members.append(db0.materialized(self))
    >>> Member() is members[0]
    True
    >>> db0.close()
    """
    return base.materialize(obj)


base.set_construct_hook(construct)
