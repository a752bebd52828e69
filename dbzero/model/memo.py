"""The ``memo`` decorator and what every memo class inherits."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar, overload

from msgspec import Struct

from dbzero.errors import Error
from dbzero.model import base, declared, kinds, rebuild
from dbzero.model.base import MemoMeta, Persistent
from dbzero.model.catalog import ACCESS_CONTROL, IMMUTABLE, NO_CACHE, NO_DEFAULT_TAGS, SINGLETON
from dbzero.model.deferred import resolved
from dbzero.model.migration import Migrations, find_migrations
from dbzero.model.sharded import SPOT, Family, KeySource, families, key_source
from dbzero.model.uuids import make_uuid

T = TypeVar("T", bound=type)


class MemoClass(Struct, frozen=True):
    """What was said about a memo class when it was decorated. Stands in the class's own dict as ``_p_class``."""

    key: str  # what stored objects are bound by
    module: str
    qualname: str
    singleton: bool
    prefix: str | None  # static scope
    id: str | None
    flags: int  # of the class record
    moves: bool  # its __init__ may call set_prefix()
    migrations: Migrations = ()  # of a singleton class
    family: Family | None = None  # whose shards have its instances
    keys: KeySource | None = None  # what tells their keys; None: its instances go where other ones do


class _Root(Persistent):  # type: ignore[misc]
    """Gives instances their dict."""


base.set_dict_descriptor(vars(_Root)["__dict__"])


def stored_fields(obj: Any) -> dict[str, Any]:
    """The stored attributes of a memo object, in a fresh dict."""
    obj._p_activate()
    return {
        name: resolved(value) for name, value in base.state(obj).items() if not name.startswith("_X__") and name != SPOT
    }


def _restricted(obj: Any) -> bool:
    view = obj._p_view
    return view is not None and getattr(view, "is_restricted", bool)()


def _vars(self: Any) -> dict[str, Any]:
    if _restricted(self):
        raise AttributeError("Restricted memo attribute access denied: __dict__")
    return stored_fields(self)


def _dir(self: Any) -> list[str]:
    if _restricted(self):
        return []
    return [name for name in object.__dir__(self) if name not in base.reserved_names]


def _no_vars(self: Any, value: Any = None) -> None:
    raise AttributeError("__dict__ of a memo object cannot be replaced")


def _str(self: Any) -> str:
    cls: Any = type(self)
    if cls.__repr__ is not object.__repr__:
        return str(repr(self))
    if self._p_flags & (base.INIT | base.CLOSED) or self._p_view is None:
        return str(object.__repr__(self))
    return f"<{cls.__module__}.{cls.__qualname__} instance uuid={uuid_of(self)}>"


def _encode(self: Any) -> tuple[bytes, list[int]]:
    payload: tuple[bytes, list[int]] = self._p_view.encode_memo(self)
    return payload


def _decode(self: Any, payload: bytes) -> None:
    self._p_view.decode_memo(self, payload)


_DICT = property(_vars, _no_vars, _no_vars, "A fresh dict of the stored attributes.")


class MemoObject(_Root):
    """Base of every memo class."""

    __dict__ = _DICT
    __str__ = _str
    __dir__ = _dir
    _p_encode = _encode
    _p_decode = _decode
    _p_clear = base.clear_state


def uuid_of(obj: Any) -> str:
    """The UUID of a memo object. Error during its construction, and for anything else."""
    if not isinstance(obj, MemoObject):
        raise Error(f"Unable to generate UUID for: {type(obj).__qualname__}")
    if obj._p_flags & base.INIT and not obj._p_flags & base.MATERIALIZED:
        raise Error("the UUID does not exist before __init__ has finished; use db0.uuid(db0.materialized(self))")
    return make_uuid(obj._p_view.records.uuid, obj._p_oid)


def is_memo(value: Any) -> bool:
    """Whether `value` is a memo class or an instance of one.

    >>> import dbzero as db0
    >>> @db0.memo
    ... class Thing:
    ...     pass
    >>> db0.is_memo(Thing), db0.is_memo(5)
    (True, False)
    """
    cls = value if isinstance(value, type) else type(value)
    return class_info(cls) is not None


def class_info(cls: Any) -> MemoClass | None:
    """What a memo class was decorated with; None for every other object, undecorated subclasses included."""
    found = vars(cls).get("_p_class") if isinstance(cls, type) and issubclass(cls, MemoObject) else None
    return found if isinstance(found, MemoClass) else None


MAIN = ("__main__", "__mp_main__")
"""Names of the main module; the second one in children that multiprocessing spawned."""


def module_name(cls: type) -> str:
    """The module a class is recorded under. For ``__main__``: the module's name under ``python -m``, else the
    script's file stem."""
    return main_name() if cls.__module__ in MAIN else cls.__module__


def main_name() -> str:
    """What the module ``__main__`` is recorded as: its name under ``python -m``, else the script's file stem."""
    main = sys.modules.get("__mp_main__") or sys.modules.get(
        "__main__"
    )  # while a spawned child runs it, it has the first name
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name not in MAIN:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return os.path.splitext(os.path.basename(str(file)))[0] if file else "__main__"


@overload
def memo(cls: T) -> T: ...


@overload
def memo(
    cls: None = None,
    *,
    singleton: object = False,
    prefix: str | None = None,
    id: str | None = None,
    no_default_tags: bool = False,
    no_cache: bool = False,
    immutable: bool = False,
    access_control: bool = False,
    shards: int | None = None,
    shard_by: str | Callable[..., Any] | None = None,
) -> Callable[[T], T]: ...


def memo(
    cls: type | None = None,
    *,
    singleton: object = False,
    prefix: str | None = None,
    id: str | None = None,
    no_default_tags: bool = False,
    no_cache: bool = False,
    immutable: bool = False,
    access_control: bool = False,
    shards: int | None = None,
    shard_by: str | Callable[..., Any] | None = None,
) -> Any:
    """Make a class's instances stored objects. Used bare, called empty, or with options.

    Args:
        cls: the class; a dataclass is decorated below this one.
        singleton: one instance per prefix; the constructor returns the one that exists.
        prefix: all instances live on that prefix, whatever the current one.
        id: binds stored objects to the class instead of its module and name, so that it may be renamed or moved.
        no_default_tags: no automatic type tags.
        no_cache: instances need not stay in memory. Only a policy.
        immutable: attributes can be set during construction only.
        access_control: recorded, not enforced.
        shards: spread the instances, and those of derived classes, over so many prefixes,
            ``<base>/<class>/shard-<k>`` below `prefix` or the current one. It is what a fresh store starts with; later
            the number in force is the store's own (see ``reshard``).
        shard_by: with `shards`: the name of a constructor argument, or a function of the constructor's arguments. Gives
            an instance's key, once: a str, int, bytes, UUID, date, enum value, or a tuple of these. Memo objects that
            an instance is to own are to be created in its shard: ``set_prefix(self, get_prefix_of(owner).name)``.

    Returns:
        The memo class: same name, module and members.

    Raises:
        TypeError: not a class, a class that cannot be stored (a subclass of int, list, ...), an option of wrong type,
        `shard_by` names no argument. ValueError: `shards` is below 1.

    >>> import dbzero as db0
    >>> @db0.memo
    ... class Person:
    ...     def __init__(self, name):
    ...         self.name = name
    """
    for name, text in (("prefix", prefix), ("id", id)):
        if text is not None and not isinstance(text, str):
            raise TypeError(f"memo() option {name} must be a str or None, not {type(text).__name__}")
    for name, flag in (
        ("no_default_tags", no_default_tags),
        ("no_cache", no_cache),
        ("immutable", immutable),
        ("access_control", access_control),
    ):
        if not isinstance(flag, bool):
            raise TypeError(f"memo() option {name} must be a bool, not {type(flag).__name__}")
    flags = (
        (SINGLETON if singleton else 0)
        | (NO_DEFAULT_TAGS if no_default_tags else 0)
        | (IMMUTABLE if immutable else 0)
        | (ACCESS_CONTROL if access_control else 0)
        | (NO_CACHE if no_cache else 0)
    )

    _check_sharding(shards, shard_by, flags)

    def decorate(plain: T) -> T:
        return _decorate(plain, flags, prefix, id, shards, shard_by)

    return decorate if cls is None else decorate(cls)


def _check_sharding(shards: Any, shard_by: Any, flags: int) -> None:
    if (shards is None) != (shard_by is None):
        raise TypeError("memo() options shards and shard_by go together: give both")
    if shards is None:
        return
    if isinstance(shards, bool) or not isinstance(shards, int):
        raise TypeError(f"memo() option shards must be an int, not {type(shards).__name__}")
    if shards < 1:
        raise ValueError(f"memo() option shards must be at least 1, not {shards}")
    if flags & SINGLETON:
        raise TypeError("memo() options shards and singleton exclude each other: there is one instance")
    if flags & NO_DEFAULT_TAGS:
        raise TypeError("memo() options shards and no_default_tags exclude each other: shards are searched by class")


def _decorate(plain: T, flags: int, prefix: str | None, id: str | None, shards: int | None, shard_by: Any) -> T:
    if not isinstance(plain, type):
        raise TypeError(f"@db0.memo needs a class, not {plain!r}")
    made = rebuild.make_memo_class(plain, MemoObject, MemoMeta, _DICT)
    module = module_name(plain)
    key = f"={id}" if id is not None else f"{module}:{plain.__qualname__}"
    family, keys = _family(made, key, id or plain.__qualname__, prefix, flags, shards, shard_by)
    if family is not None and prefix is None:
        prefix = family.prefix
    info = MemoClass(
        key=key,
        module=module,
        qualname=plain.__qualname__,
        singleton=bool(flags & SINGLETON),
        prefix=prefix,
        id=id,
        flags=flags,
        moves=rebuild.mentions(made, "set_prefix"),
        migrations=find_migrations(made) if flags & SINGLETON else (),
        family=family,
        keys=keys,
    )
    made._p_class = info
    declared.settle(made)
    slow = info.singleton or info.prefix is not None or info.moves or family is not None
    base.register_class(made, (base.CLASS_SLOW if slow else 0) | (base.CLASS_IMMUTABLE if flags & IMMUTABLE else 0))
    kinds.register_class(info.key, made)
    if family is not None and shards is not None:
        families[family.key] = family
    result: T = made
    return result


def _family(
    cls: Any, key: str, name: str, prefix: str | None, flags: int, shards: int | None, shard_by: Any
) -> tuple[Family | None, KeySource | None]:
    """The family that a class being decorated founds or belongs to, and how its constructor tells keys."""
    inherited = [info for info in map(class_info, cls.__mro__[1:]) if info is not None and info.family is not None]
    if not inherited:
        if shards is None:
            return None, None
        title = f"{cls.__module__}.{cls.__qualname__}"
        return Family(name, key, title, prefix, shards, shard_by), key_source(cls, shard_by)
    family = inherited[0].family
    assert family is not None
    if shards is not None:
        raise TypeError(f"memo() option shards: {cls.__qualname__} has the shards of {family.title}; leave it out")
    if len({info.family.key for info in inherited if info.family is not None}) > 1:
        raise TypeError(f"{cls.__qualname__} derives from classes with different shards")
    if flags & (SINGLETON | NO_DEFAULT_TAGS) or (prefix is not None and prefix != family.prefix):
        raise TypeError(
            f"{cls.__qualname__} has the shards of {family.title}: it cannot be a singleton, have another prefix or "
            f"no_default_tags"
        )
    return family, key_source(cls, family.shard_by)


def _construct(cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
    from dbzero.model import construction  # it needs this module; from now on C calls it directly

    return construction.construct(cls, args, kwargs)


base.set_construct_hook(_construct)


@memo(id="dbzero-software/dbzero/MemoBase")
class MemoBase:
    """Stands for some memo object whose class is not known in this process. Its attributes can be read by name.

    >>> import dbzero as db0
    >>> db0.is_memo(db0.MemoBase)
    True
    """

    def __init__(self) -> None:
        raise TypeError("MemoBase stands for objects of unknown classes; it has no instances of its own")


kinds.unknown = MemoBase
