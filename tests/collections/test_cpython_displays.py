"""CPython's own tests of list, tuple and dict that are written with displays: each display, comprehension and call of the
builtin in their source is made one of ours before it is run.

Left out is what cannot hold: elements of the tests' own classes, subclasses, pickling, what C code sees. The tests are in
the package `test`, which some distributions have apart (Debian: libpython3-testsuite); without it all of this is skipped.
"""

from __future__ import annotations

import ast
import importlib.util
import types
from pathlib import Path

import pytest

from dbzero.collections import Dict, List, Tuple, make_dict, make_list, make_tuple
from tests.collections.test_cpython import OnSmallNodes, without

pytest.importorskip("test.test_dict")


class Displays(ast.NodeTransformer):
    """Wraps the given kinds of expressions in a call of the given name."""

    def __init__(self, name: str, *kinds: type[ast.AST]) -> None:
        self.name = name
        self.kinds = kinds

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if isinstance(node, self.kinds) and isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
            return ast.copy_location(ast.Call(ast.Name(self.name, ast.Load()), [node], []), node)
        return node


def standing_for(cls: type, make: object) -> type:
    """A class that passes for `cls`, which can't be called."""

    class Making(type):
        def __call__(self, *args, **kw):
            return make(*args, **kw)

        def __instancecheck__(self, obj):
            return isinstance(obj, cls)

        def __eq__(self, other):
            return other is self or other is cls

        def __hash__(self):
            return hash(cls)

        def __getattr__(self, name):
            return getattr(cls, name)

    return Making(cls.__name__, (), {})


def rewritten(module: str, test: str, builtin: str, stand_in: type, *kinds: type[ast.AST]) -> type:
    """The class `test` of CPython's test module, its displays made by `stand_in`."""
    spec = importlib.util.find_spec(f"test.{module}")
    tree = Displays(builtin, *kinds).visit(ast.parse(Path(spec.origin).read_text()))
    made = types.ModuleType(module)
    vars(made)[builtin] = stand_in
    exec(compile(ast.fix_missing_locations(tree), spec.origin, "exec"), vars(made))
    return vars(made)[test]


class TestListDisplays(
    OnSmallNodes, rewritten("test_list", "ListTest", "list", standing_for(List, make_list), ast.List, ast.ListComp)
):
    pass


class TestTupleDisplays(
    OnSmallNodes, rewritten("test_tuple", "TupleTest", "tuple", standing_for(Tuple, make_tuple), ast.Tuple)
):
    pass


class TestDictDisplays(
    OnSmallNodes, rewritten("test_dict", "DictTest", "dict", standing_for(Dict, make_dict), ast.Dict, ast.DictComp)
):
    pass


SEQUENCES = (
    "test_contains_fake",  # elements of a class of its own
    "test_contains_order",
    "test_count",
    "test_index",
    "test_free_after_iterating",  # they build a subclass
    "test_keywords_in_subclass",
    "test_iterator_pickle",  # stored objects and their iterators are not pickled
    "test_pickle",
    "test_reversed_pickle",
)
without(
    TestListDisplays,
    *SEQUENCES,
    "test_count_index_remove_crashes",  # elements of a class of its own
    "test_equal_operator_modifying_operand",
    "test_lt_operator_modifying_operand",
    "test_remove",
    "test_init",  # a second __init__() empties a builtin list
    "test_no_comdat_folding",  # about C functions of the builtin
)
without(
    TestTupleDisplays,
    *SEQUENCES,
    "test_hash_exact",  # a tuple of ours has no hash, as its members may change
    "test_hash_optional",
    "test_bug7466",  # what the cyclic collector does with builtin tuples
    "test_track_dynamic",
    "test_track_literals",
    "test_track_subtypes",
    "test_constructors",  # tuple(t) is a new one
)
without(
    TestDictDisplays,
    "test_bad_key",  # keys or values of classes of their own
    "test_container_iterator",
    "test_copy_maintains_tracking",
    "test_dict_contain_use_after_free",
    "test_eq",
    "test_equal_operator_modifying_operand",
    "test_errors_in_view_containment_check",
    "test_fromkeys_operator_modifying_dict_operand",
    "test_fromkeys_operator_modifying_set_operand",
    "test_getitem",
    "test_init_use_after_free",
    "test_merge_and_mutate",
    "test_mutating_lookup",
    "test_oob_indexing_dictiter_iternextitem",
    "test_pop",
    "test_reentrant_insertion",
    "test_repr",
    "test_resize2",
    "test_setdefault",
    "test_setdefault_atomic",
    "test_setitem_atomic_at_resize",
    "test_str_nonstr",
    "test_store_evilattr",  # the __dict__ of a plain instance
    "test_dict_copy_order",  # they build a subclass
    "test_free_after_iterating",
    "test_missing",
    "test_fromkeys",  # of the class: a dict belongs to a prefix
    "test_itemiterator_pickling",  # stored objects and their iterators are not pickled
    "test_iterator_pickling",
    "test_valuesiterator_pickling",
    "test_mutating_iteration",  # we tolerate it
    "test_mutating_iteration_delete",
    "test_mutating_iteration_delete_over_items",
    "test_mutating_iteration_delete_over_values",
    "test_track_dynamic",  # what the cyclic collector does with builtin dicts
    "test_track_literals",
)
