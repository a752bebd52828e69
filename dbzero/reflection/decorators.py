"""Decorators that say what a function is for. They return the function's twin; what it does stays the same."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Callable
from types import CodeType
from typing import Any, TypeVar, overload

from dbzero.errors import Error
from dbzero.model.declared import TEXT, declare

F = TypeVar("F", bound=Callable[..., Any])

_IMMUTABLE = "__db0_immutable"
_FULLTEXT = "__db0_fulltext"
_TABLE_VIEW = "__db0_table_view"
_TABLE_VIEW_OPERATOR = "__db0_table_view_operator"
_COMPLETE = "__db0_complete_with"


def _twin(function: F) -> F:
    @functools.wraps(function)
    def twin(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return twin  # type: ignore[return-value]


def _marked(function: Any, mark: str) -> Any:
    try:
        return inspect.getattr_static(inspect.unwrap(getattr(function, "__func__", function)), mark, None) or getattr(
            function, mark, None
        )
    except Exception:  # whatever a stranger's __getattr__ raises
        return None


def parameters(function: Any) -> list[inspect.Parameter]:
    """Parameters of a function without a leading ``self``."""
    found = list(inspect.signature(function).parameters.values())
    return found[1:] if found and found[0].name == "self" else found


def immutable(function: F) -> F:
    """Mark a function or method that changes nothing. Not the option of ``memo`` of that name.

    >>> import dbzero as db0
    >>> @db0.immutable
    ... def total(prices):
    ...     return sum(prices)
    >>> total([1, 2]), db0.is_immutable(total)
    (3, True)
    """
    made = _twin(function)
    setattr(made, _IMMUTABLE, True)
    return made


def is_immutable(function: Any) -> bool:
    """Whether a function is marked ``immutable``.

    >>> import dbzero as db0
    >>> @db0.immutable
    ... def total(prices):
    ...     return sum(prices)
    >>> db0.is_immutable(total)
    True
    """
    return bool(_marked(function, _IMMUTABLE))


is_query = is_immutable


def is_immutable_query(function: Any) -> bool:
    """Whether a function is marked ``immutable`` and takes parameters beside ``self``.

    >>> import dbzero as db0
    >>> @db0.immutable
    ... def total(prices):
    ...     return sum(prices)
    >>> db0.is_immutable_query(total)
    True
    """
    return is_immutable(function) and bool(parameters(function))


def is_immutable_parameter(function: Any) -> bool:
    """Whether a function is marked ``immutable`` and takes no parameters beside ``self``.

    >>> import dbzero as db0
    >>> @db0.immutable
    ... def total(prices):
    ...     return sum(prices)
    >>> db0.is_immutable_parameter(total)
    False
    """
    return is_immutable(function) and not parameters(function)


def fulltext(*what: Any) -> Any:
    """Declare full-text fields of a memo class, or mark a function that searches texts for its one parameter.

    Args:
        what: names of fields, below ``memo``: ``match`` finds the objects by the words of these. They take a str or
            None. Inherited. Or, as a plain decorator, a function or method with exactly one positional parameter
            beside ``self``, which is marked.

    Raises:
        TypeError: something else. Error: the function has other parameters.

    >>> import dbzero as db0
    >>> @db0.fulltext
    ... def search(text):
    ...     return text
    >>> db0.is_fulltext(search), db0.is_fulltext(print)
    (True, False)
    >>> @db0.memo
    ... @db0.fulltext("title", "body")
    ... class Page:
    ...     pass
    >>> db0.fields_of(Page).title.name
    'title'
    """
    if len(what) != 1 or isinstance(what[0], (str, type)) or not callable(what[0]):
        if not what:
            raise TypeError("fulltext() takes names of fields, or a function")
        return declare(TEXT, what)
    function = what[0]
    positional = [p for p in parameters(function) if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) != 1 or any(p.kind is p.VAR_POSITIONAL for p in parameters(function)):
        raise Error("Fulltext function must have exacly one positional parameter")
    made = _twin(function)
    setattr(made, _FULLTEXT, True)
    return made


def is_fulltext(function: Any) -> bool:
    """Whether a function is marked ``fulltext``. False for everything else.

    >>> import dbzero as db0
    >>> @db0.fulltext
    ... def search(text):
    ...     pass
    >>> db0.is_fulltext(search), db0.is_fulltext(5)
    (True, False)
    """
    return bool(_marked(function, _FULLTEXT))


@overload
def table_view(function: F) -> F: ...


@overload
def table_view(function: None = None, *, operator: Any = None) -> Callable[[F], F]: ...


def table_view(function: Any = None, *, operator: Any = None) -> Any:
    """Mark a function whose result is shown as a table.

    Args:
        operator: what is done with a row.

    >>> import dbzero as db0
    >>> @db0.table_view(operator=print)
    ... def people():
    ...     return []
    >>> db0.is_table_view(people)
    True
    """

    def mark(plain: Any) -> Any:
        made = _twin(plain)
        setattr(made, _TABLE_VIEW, True)
        setattr(made, _TABLE_VIEW_OPERATOR, operator)
        return made

    return mark if function is None else mark(function)


def is_table_view(function: Any) -> bool:
    """Whether a function is marked ``table_view``.

    >>> import dbzero as db0
    >>> @db0.table_view
    ... def rows():
    ...     return []
    >>> db0.is_table_view(rows), db0.is_table_view(5)
    (True, False)
    """
    return bool(_marked(function, _TABLE_VIEW))


def complete_with(action: str) -> Callable[[F], F]:
    """Mark a function whose result is to be completed by another one, named `action`, beside it.

    >>> import dbzero as db0
    >>> @db0.complete_with("save")
    ... def edit():
    ...     return {}
    >>> db0.get_complete_action_name(edit)
    'save'
    """
    if not isinstance(action, str):
        raise TypeError(f"complete_with() takes the name of a function, not {type(action).__name__}")

    def mark(plain: F) -> F:
        made = _twin(plain)
        setattr(made, _COMPLETE, action)
        return made

    return mark


def has_complete_action(function: Any) -> bool:
    """Whether a function is marked ``complete_with``.

    >>> import dbzero as db0
    >>> class Shop:
    ...     @db0.immutable
    ...     @db0.complete_with("buy")
    ...     def choose(self, article):
    ...         return article
    ...     def buy(self, article):
    ...         return "bought"
    >>> db0.has_complete_action(Shop.choose), db0.has_complete_action(Shop.buy)
    (True, False)
    """
    return isinstance(_marked(function, _COMPLETE), str)


def get_complete_action_name(function: Any) -> str | None:
    """The name that a function was marked with by ``complete_with``, or None.

    >>> import dbzero as db0
    >>> class Shop:
    ...     @db0.immutable
    ...     @db0.complete_with("buy")
    ...     def choose(self, article):
    ...         return article
    ...     def buy(self, article):
    ...         return "bought"
    >>> db0.get_complete_action_name(Shop.choose)
    'buy'
    """
    found = _marked(function, _COMPLETE)
    return found if isinstance(found, str) else None


def get_complete_action(function: Any) -> Any:
    """The function that completes another one's result: of the instance it is bound to, else of the class or module
    that defines it.

    Raises:
        AttributeError: there is none of that name. Error: it is not marked, or its class cannot be found (a local one).

    >>> import dbzero as db0
    >>> class Shop:
    ...     @db0.immutable
    ...     @db0.complete_with("buy")
    ...     def choose(self, article):
    ...         return article
    ...     def buy(self, article):
    ...         return "bought"
    >>> db0.get_complete_action(Shop().choose)("pen")
    'bought'
    """
    name = get_complete_action_name(function)
    if name is None:
        raise Error(f"{function!r} is not marked with complete_with")
    bound = getattr(function, "__self__", None)
    if bound is not None:
        return getattr(bound, name)
    path = function.__qualname__.split(".")[:-1]
    if "<locals>" in path:
        raise Error(f"{function.__qualname__} is defined in a local class: take it from an instance")
    holder: Any = sys.modules[function.__module__]
    for part in path:
        holder = getattr(holder, part)
    return getattr(holder, name)


def check_params_not_equal(function: Any, count: int) -> bool:
    """Whether a function does not take exactly `count` parameters, ``self`` not counted.

    Args:
        function: a function, or what ``inspect.getfullargspec`` says of one. count: that many, by position, with neither
            ``*args``, ``**kwargs`` nor keyword-only ones beside them.

    >>> import dbzero as db0
    >>> db0.check_params_not_equal(lambda self, text: text, 1)
    False
    """
    spec = function if isinstance(function, inspect.FullArgSpec) else inspect.getfullargspec(function)
    taken = len(spec.args) - (1 if spec.args and spec.args[0] == "self" else 0)
    return bool(taken != count or spec.varargs or spec.varkw or spec.kwonlyargs)


def get_lambda_source(function: Any) -> str:
    """The expression that a lambda computes, as it is written.

    Raises:
        TypeError: not a function. ValueError: its source is not at hand, or several lambdas of that line could be meant.

    >>> import dbzero as db0
    >>> db0.get_lambda_source(eval("lambda x: x + 1"))
    Traceback (most recent call last):
    ValueError: the source of <lambda> is not at hand
    """
    if not inspect.isfunction(function):
        raise TypeError(f"get_lambda_source() takes a function, not {type(function).__name__}")
    code = function.__code__
    try:
        lines, first = inspect.findsource(function)
    except OSError:
        raise ValueError(f"the source of {function.__qualname__} is not at hand") from None
    source = "".join(lines)
    found = {
        text
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno
        if (text := ast.get_source_segment(source, node.body)) is not None and _same(node, code)
    }
    if len(found) != 1:
        raise ValueError(f"the source of {function.__qualname__}, line {first + 1}, cannot be told")
    return found.pop()


def _same(node: ast.Lambda, code: CodeType) -> bool:
    """Whether a lambda expression compiles to that code."""
    made = compile(ast.Expression(node), "<lambda>", "eval")
    inner = next((one for one in made.co_consts if isinstance(one, CodeType)), None)
    return inner is not None and (inner.co_code, inner.co_varnames, inner.co_names) == (
        code.co_code,
        code.co_varnames,
        code.co_names,
    )
