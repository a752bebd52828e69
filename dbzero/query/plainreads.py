"""Telling of a function that it computes from attributes of its argument, and from nothing else.

Its bytecode is compared with a list of what such functions consist of: reading attributes of the argument itself, constants,
operators, comparisons, and jumps forward. Any other instruction (a call, a global name, a closure's cell, a store) may
depend on something else, and the answer is no. So is it for instructions that a later Python brings.
"""

from __future__ import annotations

import dis
from collections.abc import Callable
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any, Final

_FRAME: Final = ("RESUME", "NOP", "CACHE", "EXTENDED_ARG", "PRECALL", "NOT_TAKEN", "RETURN_VALUE", "RETURN_CONST")
_STACK: Final = ("COPY", "SWAP", "POP_TOP", "DUP_TOP", "DUP_TOP_TWO", "ROT_TWO", "ROT_THREE", "ROT_FOUR")
_CONSTANTS: Final = ("LOAD_CONST", "LOAD_CONST_IMMORTAL", "LOAD_CONST_MORTAL", "LOAD_SMALL_INT", "BUILD_TUPLE")
_TESTS: Final = ("COMPARE_OP", "IS_OP", "CONTAINS_OP", "TO_BOOL")
_UNARY: Final = ("UNARY_NEGATIVE", "UNARY_POSITIVE", "UNARY_NOT", "UNARY_INVERT")
_FORWARD: Final = ("JUMP_FORWARD", "JUMP_IF_FALSE_OR_POP", "JUMP_IF_TRUE_OR_POP")
_HARMLESS: Final = frozenset((*_FRAME, *_STACK, *_CONSTANTS, *_TESTS, *_UNARY, *_FORWARD))
_JUMPS: Final = "POP_JUMP_"
_OPERATORS: Final = "BINARY_"
_ARGUMENT: Final = ("LOAD_FAST", "LOAD_FAST_BORROW")


def plain_reads(function: Callable[..., Any]) -> tuple[CodeType, frozenset[str]] | None:
    """The code of a function and the names of the attributes that its result depends on; None when it may depend on more.

    Two functions with equal code compute the same.
    """
    if type(function) is not FunctionType or function.__closure__ or function.__defaults__ or function.__kwdefaults__:
        return None
    names = _reads(function.__code__)
    return None if names is None else (function.__code__, names)


@lru_cache(256)
def _reads(code: CodeType) -> frozenset[str] | None:
    if code.co_argcount != 1 or code.co_kwonlyargcount or code.co_nlocals != 1 or code.co_freevars or code.co_cellvars:
        return None
    names: set[str] = set()
    loaded = False  # the argument, by the instruction before
    for step in dis.get_instructions(code):
        name = step.opname
        if loaded:
            if name != "LOAD_ATTR" or step.argval != step.argrepr or step.argval.startswith("_"):
                return None  # the argument itself, a method, or what is not stored
            names.add(step.argval)
            loaded = False
        elif name in _ARGUMENT:
            loaded = True
        elif name.startswith(_JUMPS):
            if "BACKWARD" in name or step.argval <= step.offset:
                return None
        elif name not in _HARMLESS and not name.startswith(_OPERATORS):
            return None
    return frozenset(names)
