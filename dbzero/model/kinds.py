"""Registries that let the model name what lives above it: kinds of records, makers of collections, memo classes by key.

The first byte of every payload is its kind; 0 is for records that no reference leads to. Kinds below 16 are fixed here for ever; class OIDs start at 16, so one
number tells both apart in a reference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MEMO = 1
CLASS_RECORD = 2
CATALOGUE = 3
LIST = 4
TUPLE = 5
DICT = 6
SET = 7
LIST_NODE = 8
DICT_NODE = 9
SET_NODE = 10

FIRST_OID = 16  # OIDs (and so class OIDs) below are fixed
CATALOGUE_OID = 1
TAG_ROOT_OID = 3
FIELD_ROOT_OID = 4

types: dict[int, type] = {}
"""Kind -> Persistent subclass, for all kinds but MEMO."""

builders: dict[type, Callable[[Any, Any], Any]] = {}
"""Builtin container type -> builder(view, value), which makes the persistent collection that an assignment of
`value` stores."""

binders: dict[type, Callable[[Any, Any], Any]] = {}
"""Type of values that are stored in another form in each prefix -> bind(view, value), which gives that form."""

buffers: list[Callable[[Any], Any]] = []
"""Makers of what every new view buffers beside its objects: maker(view), see :class:`dbzero.model.view.Buffer`."""

classes: dict[str, type] = {}
"""Class key -> memo class registered last under it."""


def register(kind: int, cls: type) -> None:
    """Name the Persistent subclass whose payloads start with `kind`. ValueError when another class has it."""
    if not 1 < kind < FIRST_OID:
        raise ValueError(f"kind {kind} is out of range")
    if types.setdefault(kind, cls) is not cls:
        raise ValueError(f"kind {kind} belongs to {types[kind].__name__}")


def register_builder(builtin: type, builder: Callable[[Any, Any], Any]) -> None:
    """Name the maker of persistent copies of a builtin container type."""
    builders[builtin] = builder


unknown: type = object
"""What stands for objects whose class is not known in this process; set by :mod:`dbzero.model.memo`."""

version = 0
"""Grows with every class registered: resolved classes kept elsewhere are good for one version."""


def register_class(key: str, cls: type) -> None:
    """Bind stored objects of class `key` to `cls` from now on."""
    global version
    classes[key] = cls
    version += 1
