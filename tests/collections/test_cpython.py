"""CPython's own tests of list, tuple, dict, set and bytearray, run on ours.

Left out is what cannot hold: other classes' instances as elements, pickling, subclassing, what C code sees. They are in
the package `test`, which some distributions have apart (Debian: libpython3-testsuite); without it all of this is skipped.
"""

from __future__ import annotations

import inspect
import unittest

import pytest

from dbzero.collections import ByteArray, Dict, Set, make_bytearray, make_dict, make_list, make_set, make_tuple
from tests.collections.harness import Bench, small_nodes

list_tests = pytest.importorskip("test.list_tests")
seq_tests = pytest.importorskip("test.seq_tests")
mapping_tests = pytest.importorskip("test.mapping_tests")
test_bytes = pytest.importorskip("test.test_bytes")
test_set = pytest.importorskip("test.test_set")


class OnSmallNodes:
    def setUp(self):
        Bench().use()
        self.nodes = small_nodes(3, 3)
        self.nodes.__enter__()
        super().setUp()

    def tearDown(self):
        self.nodes.__exit__(None, None, None)
        super().tearDown()


def without(cls, *names):
    for name in names:
        setattr(cls, name, None)
    return cls


# they build a subclass of the type under test, use instances of a class of their own as elements, or pickle
SEQUENCES = (
    "test_addmul",
    "test_contains_fake",
    "test_contains_order",
    "test_count",
    "test_free_after_iterating",
    "test_getitemoverwriteiter",
    "test_index",
    "test_pickle",
    "test_remove",
)


class TestList(OnSmallNodes, list_tests.CommonTest):
    type2test = staticmethod(make_list)
    test_init = None  # a second __init__() empties a builtin list


class TestTuple(OnSmallNodes, seq_tests.CommonTest):
    type2test = staticmethod(make_tuple)


without(TestList, *SEQUENCES)
without(TestTuple, *SEQUENCES)


class TestDict(OnSmallNodes, mapping_tests.TestHashMappingProtocol):
    type2test = staticmethod(make_dict)
    test_mutatingiteration = None  # we tolerate it

    def _reference(self):
        return {"1": 2, "key1": "value1", "key2": (1, 2, 3)}


without(TestDict, "test_eq", "test_fromkeys", "test_getitem", "test_pop", "test_repr", "test_setdefault")
assert Dict


class Making(type):
    """Makes a class pass for ByteArray, which can't be called."""

    def __call__(cls, *args, **kw):
        return make_bytearray(*args, **kw)

    def __instancecheck__(cls, obj):
        return isinstance(obj, ByteArray)


class Made(metaclass=Making):
    fromhex = ByteArray.fromhex
    maketrans = ByteArray.maketrans


class TestByteArray(OnSmallNodes, test_bytes.ByteArrayTest):
    type2test = Made


class TestByteArrayAsBytes(OnSmallNodes, test_bytes.BytearrayPEP3137Test):
    def marshal(self, value):
        return make_bytearray(value)


without(
    TestByteArray,
    "test_basics",  # the class is not what makes instances
    "test_imod",
    "test_mod",
    "test_check_encoding_errors",  # runs another interpreter by the type's name
    "test_free_after_iterating",  # subclasses it
    "test_hex",  # calls the method on an int
    "test_iterator_pickling",  # stored objects are not pickled
    "test_pickling",
    "test_sq_item",  # goes by the C API of builtin sequences
    "test_alloc",  # looks into the builtin's memory
    "test_init_alloc",
    "test_resize",  # new in 3.13 and up, for C code's sake
    "test_resize_forbidden",
)


class MakingSets(type):
    """Makes a class pass for Set, which can't be called."""

    def __call__(cls, *args, **kw):
        return make_set(*args, **kw)

    def __instancecheck__(cls, obj):
        return isinstance(obj, Set)

    def __eq__(cls, other):
        return other is cls or other is Set

    def __hash__(cls):
        return hash(Set)

    def __getattr__(cls, name):
        return getattr(Set, name)


class MadeSet(metaclass=MakingSets):
    pass


class OnSets(OnSmallNodes):
    """What the tests call `set` is ours."""

    thetype = basetype = MadeSet

    def setUp(self):
        test_set.set = MadeSet
        self.addCleanup(vars(test_set).pop, "set")
        super().setUp()


# classes that are about subclasses of set or about frozenset; that have elements of classes of their own, which cannot be
# stored; that take the builtin when the class body is run
LEFT_OUT = ("Subclass", "Frozen", "BasicOpsTriple", "OpsMutating", "MethodsMutating")

for _name, _cls in list(vars(test_set).items()):
    if inspect.isclass(_cls) and issubclass(_cls, unittest.TestCase) and not any(part in _name for part in LEFT_OUT):
        globals()[_name] = type(_name, (OnSets, _cls), {"__module__": __name__})

SETS = (
    "test_badcmp",  # elements of a class of its own
    "test_container_iterator",
    "test_cyclical_repr",
    "test_deepcopy",
    "test_do_not_rehash_dict_keys",
    "test_gc",
    "test_deep_copy",  # stored objects are not copied or pickled
    "test_iterator_pickling",
    "test_pickling",
    "test_free_after_iterating",  # they build a subclass
    "test_subclass_with_custom_hash",
    "test_init",  # a second __init__() empties a builtin set
    "test_new_or_init",
    "test_iteration",  # its iterator has no length hint
    "test_weakref",  # a new set lives until the commit
    "test_changingSizeWhileIterating",  # we tolerate it
)
without(globals()["TestCopyingTuple"], "test_copy")  # a tuple read is an equal one, not the same
without(globals()["TestCopyingNested"], "test_copy")
for _cls in [value for value in globals().values() if inspect.isclass(value) and issubclass(value, OnSets)]:
    without(_cls, *[name for name in SETS if hasattr(_cls, name)])
del _cls, list_tests, seq_tests, mapping_tests, test_bytes
