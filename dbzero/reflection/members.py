"""What can be read and called on an object, and the query functions of modules."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from enum import Enum
from types import FunctionType, ModuleType
from typing import Any

from dbzero.reflection.decorators import (
    get_complete_action_name,
    is_immutable,
    is_immutable_parameter,
    is_immutable_query,
    parameters,
)


class CallableType(Enum):
    """What a method is: PROPERTY reads a value; QUERY reads, with parameters; ACTION changes, with parameters;
    MUTATOR changes, without.

    >>> import dbzero as db0
    >>> class Plain:
    ...     def grow(self, by, times=1):
    ...         pass
    >>> dict(db0.get_callables(Plain()))["grow"] is db0.CallableType.ACTION
    True
    """

    PROPERTY = 1
    QUERY = 2
    ACTION = 3
    MUTATOR = 4


def is_private(name: str) -> bool:
    """Whether a name begins with an underscore.

    >>> import dbzero as db0
    >>> db0.is_private("_x"), db0.is_private("x")
    (True, False)
    """
    return name.startswith("_")


class MethodParam(inspect.Parameter):
    """A parameter of a method. `method` is its :class:`MethodInfo`.

    >>> import dbzero as db0
    >>> class Plain:
    ...     def grow(self, by, times=1):
    ...         pass
    >>> [info] = db0.get_methods(Plain())
    >>> [(param.name, param.method is info) for param in info.get_params()]
    [('by', True), ('times', True)]
    """

    __slots__ = ("method",)

    def __init__(self, parameter: inspect.Parameter, method: MethodInfo) -> None:
        super().__init__(parameter.name, parameter.kind, default=parameter.default, annotation=parameter.annotation)
        self.method = method


class MethodInfo(inspect.Signature):
    """A method's signature, with its `name` and the `metaclass` (the class it was found on).

    >>> import dbzero as db0
    >>> class Plain:
    ...     def grow(self, by, times=1):
    ...         pass
    >>> [info] = db0.get_methods(Plain())
    >>> info.name, str(info), info.has_args
    ('grow', '(self, by, times=1)', False)
    """

    __slots__ = ("metaclass", "name")

    def __init__(self, name: str, signature: inspect.Signature, metaclass: Any = None) -> None:
        super().__init__(list(signature.parameters.values()), return_annotation=signature.return_annotation)
        self.name = name
        self.metaclass = metaclass

    def get_params(self) -> list[MethodParam]:
        """Its parameters without ``self``, ``*args`` and ``**kwargs``."""
        return [
            MethodParam(p, self)
            for p in self.parameters.values()
            if p.name != "self" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]

    @property
    def has_args(self) -> bool:
        """Whether it takes ``*args``."""
        return any(p.kind is p.VAR_POSITIONAL for p in self.parameters.values())

    @property
    def has_kwargs(self) -> bool:
        """Whether it takes ``**kwargs``."""
        return any(p.kind is p.VAR_KEYWORD for p in self.parameters.values())


def _class_of(obj: Any) -> type:
    return obj if isinstance(obj, type) else type(obj)


def public_functions(cls: type) -> dict[str, Any]:
    """Name -> function of every public method of a class, static and class methods included, sorted by name."""
    found: dict[str, Any] = {}
    for parent in reversed(cls.__mro__):
        for name, value in vars(parent).items():
            found.pop(name, None)
            plain = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
            if not is_private(name) and isinstance(plain, FunctionType):
                found[name] = plain
    return dict(sorted(found.items()))


def get_methods(obj: Any) -> Iterator[MethodInfo]:
    """The public methods of an object or class.

    >>> import dbzero as db0
    >>> class Plain:
    ...     def grow(self, by):
    ...         pass
    >>> [(m.name, [p.name for p in m.get_params()]) for m in db0.get_methods(Plain())]
    [('grow', ['by'])]
    """
    cls = _class_of(obj)
    for name, function in public_functions(cls).items():
        yield MethodInfo(name, inspect.signature(function), cls)


def _data_names(obj: Any) -> list[str]:
    if isinstance(obj, type):
        return []
    fields = getattr(obj, "__dict__", {})
    return [name for name in fields if not is_private(name)]


def get_properties(obj: Any) -> Iterator[tuple[str, bool]]:
    """(name, whether it has to be called) of what can be read on an object: public attributes, properties, and
    ``immutable`` methods without parameters.

    >>> import dbzero as db0
    >>> class Plain:
    ...     def __init__(self):
    ...         self.size = 1
    ...     @db0.immutable
    ...     def double(self):
    ...         return 2 * self.size
    >>> list(db0.get_properties(Plain()))
    [('size', False), ('double', True)]
    """
    cls = _class_of(obj)
    names = _data_names(obj)
    yield from ((name, False) for name in names)
    for name in sorted({name for parent in cls.__mro__ for name in vars(parent)}):
        if not is_private(name) and name not in names and isinstance(inspect.getattr_static(cls, name), property):
            yield name, False
    for name, function in public_functions(cls).items():
        if name not in names and is_immutable_parameter(function):
            yield name, True


def _callable_type(function: Any) -> CallableType:
    if is_immutable(function):
        return CallableType.QUERY if is_immutable_query(function) else CallableType.PROPERTY
    return CallableType.ACTION if parameters(function) else CallableType.MUTATOR


def get_callables(obj: Any, include_properties: bool = False) -> Iterator[tuple[str, CallableType]]:
    """(name, what it is) of the public methods of an object: properties (if asked for), queries, actions, mutators, in
    this order. What completes a query (see ``complete_with``) is left out.

    >>> import dbzero as db0
    >>> class Plain:
    ...     def grow(self, by):
    ...         pass
    ...     def clear(self):
    ...         pass
    >>> [(name, kind.name) for name, kind in db0.get_callables(Plain())]
    [('grow', 'ACTION'), ('clear', 'MUTATOR')]
    """
    functions = public_functions(_class_of(obj))
    kinds = {name: _callable_type(function) for name, function in functions.items()}
    completing = {
        get_complete_action_name(functions[name]) for name, kind in kinds.items() if kind is CallableType.QUERY
    }
    for wanted in CallableType:
        if wanted is CallableType.PROPERTY and not include_properties:
            continue
        for name, kind in kinds.items():
            if kind is wanted and name not in completing:
                yield name, kind


class QueryParam(inspect.Parameter):
    """A parameter of a query function. `query` is its :class:`Query`.

    >>> import dbzero as db0
    >>> query = db0.Query("double", lambda x: 2 * x)
    >>> [(param.name, param.query is query) for param in query.get_params()]
    [('x', True)]
    """

    __slots__ = ("query",)

    def __init__(self, parameter: inspect.Parameter, query: Query) -> None:
        super().__init__(parameter.name, parameter.kind, default=parameter.default, annotation=parameter.annotation)
        self.query = query


class Query(inspect.Signature):
    """A function that answers a query: its signature, `name` and `function_object`.

    >>> import dbzero as db0
    >>> query = db0.Query("double", lambda x: 2 * x)
    >>> query.name, query.has_params, query.execute(4)
    ('double', True, 8)
    """

    __slots__ = ("function_object", "name")

    def __init__(self, name: str, function: Any) -> None:
        signature = inspect.signature(function)
        super().__init__(list(signature.parameters.values()), return_annotation=signature.return_annotation)
        self.name = name
        self.function_object = function

    @property
    def has_params(self) -> bool:
        """Whether it takes any parameter by name or position."""
        return bool(self.get_params())

    @property
    def has_kwargs(self) -> bool:
        """Whether it takes ``**kwargs``."""
        return any(p.kind is p.VAR_KEYWORD for p in self.parameters.values())

    def get_params(self) -> list[QueryParam]:
        """Its parameters without ``*args`` and ``**kwargs``."""
        return [
            QueryParam(p, self) for p in self.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        return self.function_object(*args, **kwargs)


def import_model(module: str, package: str | None = None) -> ModuleType:
    """Import a module by name and return it. ModuleNotFoundError.

    >>> import dbzero as db0
    >>> db0.import_model("json").__name__
    'json'
    """
    return importlib.import_module(module, package)


def get_queries(*module_names: str) -> Iterator[Query]:
    """A :class:`Query` for every public function that the named modules define.

    >>> import dbzero as db0
    >>> [query.name for query in db0.get_queries("shlex")]
    ['split', 'join', 'quote']
    """
    for module_name in module_names:
        module = import_model(module_name)
        for name, value in list(vars(module).items()):
            if isinstance(value, FunctionType) and value.__module__ == module.__name__ and not is_private(name):
                yield Query(name, value)
