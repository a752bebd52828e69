"""``transaction``: a function whose body is one atomic block that is durable when it returns."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast, overload

from dbzero.session.atomic import AtomicManager, seconds

_P = ParamSpec("_P")
_R = TypeVar("_R")


@overload
def transaction(function: Callable[_P, _R], /) -> Callable[_P, _R]: ...


@overload
def transaction(
    *, timeout: float | None = None, wait: float | None = None
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]: ...


def transaction(
    function: Callable[..., Any] | None = None, /, *, timeout: float | None = None, wait: float | None = None
) -> Any:
    """Make each call of a function, or coroutine function, a transaction: all of its changes are kept and durable when it returns; when it
    raises, none is kept. Called within an atomic block it is a save-point of that.

    On prefixes that are open shared a call waits for its turn among all processes and begins at the newest state, so that what it read is
    what it changes. Used as ``@db0.transaction`` or with arguments.

    Args:
        timeout: seconds that a call may have the turn; then a process that waits may take it away, and the call raises
            FencedError at its end (None: 10).
        wait: seconds to wait for the turn, None: for ever.

    Raises:
        TurnTimeoutError, FencedError: see the arguments. Those of :func:`commit`. TypeError: not a function, or a generator.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p", shared=True)
    >>> @db0.memo(singleton=True)
    ... class Visits:
    ...     def __init__(self):
    ...         self.count = 0
    >>> @db0.transaction(timeout=2)
    ... def visit():
    ...     visits = Visits()
    ...     visits.count += 1
    ...     return visits.count
    >>> visit(), visit()
    (1, 2)
    >>> db0.close()
    """
    how = True, seconds("wait", wait), seconds("timeout", timeout)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        if not callable(function):
            raise TypeError(f"transaction decorates a function, not {type(function).__name__}")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{function.__qualname__} is a generator: what runs when is not up to it")
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def in_turn(*args: Any, **kwargs: Any) -> Any:
                async with AtomicManager(*how):
                    return await function(*args, **kwargs)

            return in_turn

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with AtomicManager(*how):
                return function(*args, **kwargs)

        return call

    return decorate if function is None else cast(Any, decorate(function))
