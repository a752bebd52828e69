"""CPython's own tests of list, tuple, dict and bytearray, run on ours.

Left out is what cannot hold: other classes' instances as elements, pickling, subclassing.
"""

from __future__ import annotations

import pytest

from dbzero.collections import ByteArray, Dict, make_bytearray, make_dict, make_list, make_tuple
from tests.collections.harness import Bench, small_nodes

list_tests = pytest.importorskip("test.list_tests")
seq_tests = pytest.importorskip("test.seq_tests")
mapping_tests = pytest.importorskip("test.mapping_tests")
test_bytes = pytest.importorskip("test.test_bytes")


class OnSmallNodes:
    def setUp(self):
        super().setUp()
        Bench().use()
        self.nodes = small_nodes(3, 3)
        self.nodes.__enter__()

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
del list_tests, seq_tests, mapping_tests, test_bytes
