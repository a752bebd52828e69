"""dbzero: durable, shared, transactional memory for Python. ``import dbzero as db0``.

The public names are here and nowhere else; where a name comes from is nobody's business but ours.
"""

from __future__ import annotations

import sys as _sys
from types import SimpleNamespace as _SimpleNamespace

from dbzero import collections as _collections
from dbzero import query as _query
from dbzero.collections import make_bytearray as bytearray
from dbzero.collections import make_dict as dict
from dbzero.collections import make_index as index
from dbzero.collections import make_list as list
from dbzero.collections import make_set as set
from dbzero.collections import make_tuple as tuple
from dbzero.collections import make_weak_set as weak_set
from dbzero.errors import (
    BadPrefixError,
    ClassNotFoundError,
    ClosedError,
    CorruptError,
    DiskFullError,
    Error,
    ExpiredError,
    FencedError,
    ForkedError,
    FormatVersionError,
    ImmutableError,
    LeaseError,
    MigrateError,
    NotAStoreError,
    NotInitializedError,
    PoisonedError,
    PrefixError,
    ReadOnlyError,
    ReferenceError,
    SegmentError,
    StaleFileError,
    StaleViewError,
    StorageError,
    UnsupportedFileSystemError,
    UnsupportedTypeError,
)
from dbzero.model.construction import materialized, set_prefix
from dbzero.model.memo import MemoBase, is_memo, memo
from dbzero.model.weak import ExpiredReference as _ExpiredReference
from dbzero.model.weak import WeakProxy as _WeakProxy
from dbzero.model.weak import expired, weak_proxy
from dbzero.session.api import (
    PrefixMetaData,
    clear_cache,
    close,
    commit,
    get_config,
    get_current_prefix,
    get_mutable_prefixes,
    get_prefixes,
    get_state_num,
    init,
    open,
    refresh,
    wait,
)
from dbzero.session.deletion import delete
from dbzero.session.lookup import exists, fetch, find_singleton, get_prefix_of, getrefcount, uuid

types = _SimpleNamespace(
    ByteArray=_collections.ByteArray,
    Dict=_collections.Dict,
    ExpiredReference=_ExpiredReference,
    Index=_collections.Index,
    List=_collections.List,
    ObjectIterable=_query.Query,
    Set=_collections.Set,
    Tuple=_collections.Tuple,
    WeakProxy=_WeakProxy,
    WeakSet=_collections.WeakSet,
)
db0 = _sys.modules[__name__]

__version__ = "0.1.0"

__all__ = [
    "BadPrefixError",
    "ClassNotFoundError",
    "ClosedError",
    "CorruptError",
    "DiskFullError",
    "Error",
    "ExpiredError",
    "FencedError",
    "ForkedError",
    "FormatVersionError",
    "ImmutableError",
    "LeaseError",
    "MemoBase",
    "MigrateError",
    "NotAStoreError",
    "NotInitializedError",
    "PoisonedError",
    "PrefixError",
    "PrefixMetaData",
    "ReadOnlyError",
    "ReferenceError",
    "SegmentError",
    "StaleFileError",
    "StaleViewError",
    "StorageError",
    "UnsupportedFileSystemError",
    "UnsupportedTypeError",
    "bytearray",
    "clear_cache",
    "close",
    "commit",
    "db0",
    "delete",
    "dict",
    "exists",
    "expired",
    "fetch",
    "find_singleton",
    "get_config",
    "get_current_prefix",
    "get_mutable_prefixes",
    "get_prefix_of",
    "get_prefixes",
    "get_state_num",
    "getrefcount",
    "index",
    "init",
    "is_memo",
    "list",
    "materialized",
    "memo",
    "open",
    "refresh",
    "set",
    "set_prefix",
    "tuple",
    "types",
    "uuid",
    "wait",
    "weak_proxy",
    "weak_set",
]
