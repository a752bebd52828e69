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
    AtomicError,
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
    InDoubtError,
    LeaseError,
    MigrateError,
    NotAStoreError,
    NotInitializedError,
    OutsideTransactionError,
    PoisonedError,
    PrefixError,
    ReadOnlyError,
    ReferenceError,
    SegmentError,
    StaleFileError,
    StaleViewError,
    StateNotKeptError,
    StorageError,
    TurnTimeoutError,
    UnsupportedFileSystemError,
    UnsupportedTypeError,
)
from dbzero.model.construction import materialized, set_prefix
from dbzero.model.declared import FieldRef
from dbzero.model.enums import EnumType, enum, is_enum, is_enum_value
from dbzero.model.memo import MemoBase, is_memo, memo
from dbzero.model.migration import migration
from dbzero.model.weak import ExpiredReference as _ExpiredReference
from dbzero.model.weak import WeakProxy as MemoWeakProxy
from dbzero.model.weak import WeakProxy as _WeakProxy
from dbzero.model.weak import expired, weak_proxy
from dbzero.query import Query as QueryObject
from dbzero.query import stored as _stored  # noqa: F401  (queries can be stored from here on)
from dbzero.query.atoms import Tag as _Tag
from dbzero.query.atoms import as_tag
from dbzero.query.changes import ModIterable, ModIterator, select_deleted, select_modified, select_new
from dbzero.query.criteria import no
from dbzero.query.filters import filter
from dbzero.query.find import find_live as find
from dbzero.query.forms import deserialize, serialize
from dbzero.query.groups import count_op, group_by, make_sum
from dbzero.query.indexes import index_of
from dbzero.query.joins import join
from dbzero.query.managed import migrate
from dbzero.query.search import match
from dbzero.query.splits import split_by
from dbzero.query.tags import ObjectTagManager as _ObjectTagManager
from dbzero.query.tags import tags
from dbzero.reflection.classes import (
    AttributeInfo,
    MemoMetaClass,
    get_attributes,
    get_memo_class,
    get_memo_classes,
    get_schema,
)
from dbzero.reflection.comparing import compare, hash
from dbzero.reflection.decorators import (
    check_params_not_equal,
    complete_with,
    fulltext,
    get_complete_action,
    get_complete_action_name,
    get_lambda_source,
    has_complete_action,
    immutable,
    is_fulltext,
    is_immutable,
    is_immutable_parameter,
    is_immutable_query,
    is_query,
    is_table_view,
    table_view,
)
from dbzero.reflection.fields import fields_of, indexed_fields, rename_field, tag_fields
from dbzero.reflection.helpers import (
    assign,
    build_flags,
    describe,
    get_address,
    get_type,
    get_type_info,
    getattr_as,
    is_singleton,
    touch,
)
from dbzero.reflection.interfaces import Memo, Snapshot, Tag
from dbzero.reflection.loading import load, load_all
from dbzero.reflection.members import (
    CallableType,
    MethodInfo,
    MethodParam,
    Query,
    QueryParam,
    get_callables,
    get_methods,
    get_properties,
    get_queries,
    import_model,
    is_private,
)
from dbzero.reflection.text import taggify
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
from dbzero.session.atomic import AtomicManager, atomic, atomic_assign, begin_atomic
from dbzero.session.cycles import collect_cycles
from dbzero.session.deletion import delete
from dbzero.session.fast_query import (
    FastQuery,
    FastQueryCache,
    GroupByBucket,
    GroupByEval,
    GroupDef,
    init_fast_query,
    signature_of,
)
from dbzero.session.history import compact, copy_prefix, drop
from dbzero.session.locked import LockedManager, async_wait, await_commit, begin_locked, locked
from dbzero.session.lookup import exists, fetch, find_singleton, get_prefix_of, getrefcount, uuid
from dbzero.session.queryfeed import QueryChange
from dbzero.session.restricted import set_restricted
from dbzero.session.snapshots import Snapshot as _Snapshot
from dbzero.session.snapshots import SnapshotWindow, get_snapshot_of, snapshot
from dbzero.session.statistics import (
    get_cache_stats,
    get_lang_cache_stats,
    get_prefix_stats,
    get_slab_metrics,
    get_storage_stats,
    get_type_stats,
    set_cache_size,
)
from dbzero.session.status import status
from dbzero.session.transaction import transaction
from dbzero.session.watching import watch
from dbzero.sharding import reshard, shard_of

types = _SimpleNamespace(
    ByteArray=_collections.ByteArray,
    Dict=_collections.Dict,
    ExpiredReference=_ExpiredReference,
    Index=_collections.Index,
    List=_collections.List,
    ObjectIterable=_query.Query,
    Snapshot=_Snapshot,
    ObjectTagManager=_ObjectTagManager,
    Set=_collections.Set,
    Tag=_Tag,
    Tuple=_collections.Tuple,
    WeakProxy=_WeakProxy,
    WeakSet=_collections.WeakSet,
)
db0 = _sys.modules[__name__]

__version__ = "0.1.0"

__all__ = [
    "AtomicError",
    "AtomicManager",
    "AttributeInfo",
    "BadPrefixError",
    "CallableType",
    "ClassNotFoundError",
    "ClosedError",
    "CorruptError",
    "DiskFullError",
    "EnumType",
    "Error",
    "ExpiredError",
    "FastQuery",
    "FastQueryCache",
    "FencedError",
    "FieldRef",
    "ForkedError",
    "FormatVersionError",
    "GroupByBucket",
    "GroupByEval",
    "GroupDef",
    "ImmutableError",
    "InDoubtError",
    "LeaseError",
    "LockedManager",
    "Memo",
    "MemoBase",
    "MemoMetaClass",
    "MemoWeakProxy",
    "MethodInfo",
    "MethodParam",
    "MigrateError",
    "ModIterable",
    "ModIterator",
    "NotAStoreError",
    "NotInitializedError",
    "OutsideTransactionError",
    "PoisonedError",
    "PrefixError",
    "PrefixMetaData",
    "Query",
    "QueryChange",
    "QueryObject",
    "QueryParam",
    "ReadOnlyError",
    "ReferenceError",
    "SegmentError",
    "Snapshot",
    "SnapshotWindow",
    "StaleFileError",
    "StaleViewError",
    "StateNotKeptError",
    "StorageError",
    "Tag",
    "TurnTimeoutError",
    "UnsupportedFileSystemError",
    "UnsupportedTypeError",
    "as_tag",
    "assign",
    "async_wait",
    "atomic",
    "atomic_assign",
    "await_commit",
    "begin_atomic",
    "begin_locked",
    "build_flags",
    "bytearray",
    "check_params_not_equal",
    "clear_cache",
    "close",
    "collect_cycles",
    "commit",
    "compact",
    "compare",
    "complete_with",
    "copy_prefix",
    "count_op",
    "db0",
    "delete",
    "describe",
    "deserialize",
    "dict",
    "drop",
    "enum",
    "exists",
    "expired",
    "fetch",
    "fields_of",
    "filter",
    "find",
    "find_singleton",
    "fulltext",
    "get_address",
    "get_attributes",
    "get_cache_stats",
    "get_callables",
    "get_complete_action",
    "get_complete_action_name",
    "get_config",
    "get_current_prefix",
    "get_lambda_source",
    "get_lang_cache_stats",
    "get_memo_class",
    "get_memo_classes",
    "get_methods",
    "get_mutable_prefixes",
    "get_prefix_of",
    "get_prefix_stats",
    "get_prefixes",
    "get_properties",
    "get_queries",
    "get_schema",
    "get_slab_metrics",
    "get_snapshot_of",
    "get_state_num",
    "get_storage_stats",
    "get_type",
    "get_type_info",
    "get_type_stats",
    "getattr_as",
    "getrefcount",
    "group_by",
    "has_complete_action",
    "hash",
    "immutable",
    "import_model",
    "index",
    "index_of",
    "indexed_fields",
    "init",
    "init_fast_query",
    "is_enum",
    "is_enum_value",
    "is_fulltext",
    "is_immutable",
    "is_immutable_parameter",
    "is_immutable_query",
    "is_memo",
    "is_private",
    "is_query",
    "is_singleton",
    "is_table_view",
    "join",
    "list",
    "load",
    "load_all",
    "locked",
    "make_sum",
    "match",
    "materialized",
    "memo",
    "migrate",
    "migration",
    "no",
    "open",
    "refresh",
    "rename_field",
    "reshard",
    "select_deleted",
    "select_modified",
    "select_new",
    "serialize",
    "set",
    "set_cache_size",
    "set_prefix",
    "set_restricted",
    "shard_of",
    "signature_of",
    "snapshot",
    "split_by",
    "status",
    "table_view",
    "tag_fields",
    "taggify",
    "tags",
    "touch",
    "transaction",
    "tuple",
    "types",
    "uuid",
    "wait",
    "watch",
    "weak_proxy",
    "weak_set",
]
