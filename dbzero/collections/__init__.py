"""The persistent containers: List, Tuple, Dict, Set, Index and ByteArray, in memory and on disk.

What lives here: the collection classes and their factories, the trees that large ones are made of (:mod:`.counted` by
position, :mod:`.keyed` by key), the rules for keys (:mod:`.keys`, :mod:`.order` for an index), and the queries of an
index (:mod:`.selections`). May import: :mod:`dbzero.query`, :mod:`dbzero.model` and :mod:`dbzero.errors`. Promises:
behaviour of the builtin counterparts; every change is one operation, whole or not at all; cost and memory of an access
don't grow with the collection (but by a tree level); each class has ``_check()``, which verifies its structure.
"""

from dbzero.collections.bytearrays import ByteArray, make_bytearray
from dbzero.collections.counted import ListNode
from dbzero.collections.dictnodes import DictNode, IndexNode
from dbzero.collections.dicts import Dict, make_dict
from dbzero.collections.index import Index, make_index
from dbzero.collections.lists import List, make_list
from dbzero.collections.pairs import PairNode
from dbzero.collections.sets import Set, make_set
from dbzero.collections.settrees import SetNode
from dbzero.collections.tuples import Tuple, make_tuple
from dbzero.collections.weaksets import WeakSet, make_weak_set
from dbzero.model import kinds

__all__ = [
    "ByteArray",
    "Dict",
    "Index",
    "List",
    "Set",
    "Tuple",
    "WeakSet",
    "make_bytearray",
    "make_dict",
    "make_index",
    "make_list",
    "make_set",
    "make_tuple",
    "make_weak_set",
]

for _cls in (List, Tuple, Dict, Set, ListNode, DictNode, SetNode, IndexNode, Index, PairNode, ByteArray, WeakSet):
    kinds.register(_cls.KIND, _cls)
kinds.register_builder(list, List._p_make)
kinds.register_builder(tuple, Tuple._p_make)
kinds.register_builder(dict, Dict._p_make)
kinds.register_builder(set, Set._p_make)
