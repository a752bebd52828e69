"""The public names: pinned, documented, and their examples run."""

from __future__ import annotations

import doctest
import inspect

import pytest

import dbzero as db0

NAMES = {
    *("init", "open", "close", "commit", "refresh", "wait", "clear_cache"),
    *("get_config", "get_current_prefix", "get_mutable_prefixes", "get_prefixes", "get_prefix_of", "get_state_num"),
    *("memo", "is_memo", "MemoBase", "materialized", "set_prefix", "PrefixMetaData"),
    *("uuid", "fetch", "exists", "find_singleton", "getrefcount"),
    *("list", "tuple", "dict", "set", "index", "bytearray", "types", "db0"),
    *("Error", "NotInitializedError", "PrefixError", "BadPrefixError", "ReadOnlyError", "ForkedError"),
    *("StorageError", "NotAStoreError", "FormatVersionError", "CorruptError", "StaleFileError", "DiskFullError"),
    *("UnsupportedFileSystemError", "PoisonedError", "StaleViewError", "SegmentError", "LeaseError", "FencedError"),
    *("ReferenceError", "ExpiredError", "ImmutableError", "ClosedError", "ClassNotFoundError"),
    *("UnsupportedTypeError", "MigrateError"),
    *("enum", "is_enum", "is_enum_value", "migration", "collect_cycles", "taggify"),
    *("assign", "touch", "is_singleton", "get_type", "get_type_info", "describe", "get_address", "getattr_as"),
    *("build_flags", "compare", "hash", "load", "load_all", "get_attributes", "get_schema", "rename_field"),
    *("get_memo_class", "get_memo_classes", "MemoMetaClass", "AttributeInfo", "get_methods", "MethodInfo"),
    *("MethodParam", "get_properties", "get_callables", "CallableType", "Query", "QueryParam", "get_queries"),
    *(
        "import_model",
        "is_private",
        "tag_fields",
        "indexed_fields",
        "fields_of",
        "index_of",
        "migrate",
        "match",
        "FieldRef",
        "immutable",
    ),
    *("is_immutable", "is_query", "is_immutable_query", "is_immutable_parameter", "fulltext", "is_fulltext"),
    *("table_view", "is_table_view", "complete_with", "has_complete_action", "get_complete_action"),
    *("Memo", "MemoWeakProxy", "EnumType", "QueryObject", "Tag", "Snapshot"),
    *("check_params_not_equal", "get_lambda_source", "set_restricted", "set_cache_size", "get_type_stats"),
    *("get_cache_stats", "get_lang_cache_stats", "get_prefix_stats", "get_slab_metrics", "get_storage_stats"),
    *("get_complete_action_name", "delete", "weak_proxy", "expired", "weak_set"),
    *("atomic", "begin_atomic", "atomic_assign", "AtomicManager", "AtomicError", "locked", "begin_locked"),
    *("transaction", "status", "watch", "QueryChange", "OutsideTransactionError", "TurnTimeoutError"),
    *("LockedManager", "await_commit", "async_wait"),
    *("compact", "copy_prefix", "drop", "StateNotKeptError", "InDoubtError"),
    *("tags", "as_tag", "find", "no"),
    *("filter", "split_by", "join", "group_by", "count_op", "make_sum", "serialize", "deserialize"),
    *("FastQuery", "FastQueryCache", "GroupByBucket", "GroupByEval", "GroupDef", "init_fast_query", "signature_of"),
    *("snapshot", "get_snapshot_of", "SnapshotWindow", "shard_of", "reshard"),
    *("select_new", "select_deleted", "select_modified", "ModIterable", "ModIterator"),
}


def test_the_public_names_are_these() -> None:
    assert set(db0.__all__) == NAMES
    assert len(db0.__all__) == len(NAMES)
    assert db0.db0 is db0


@pytest.mark.parametrize("name", sorted(NAMES - {"types", "db0"}))
def test_every_public_name_is_documented(name: str) -> None:
    text = inspect.getdoc(getattr(db0, name)) or ""
    assert text.split(">>>")[0].strip() and ">>> " in text


@pytest.mark.parametrize("name", sorted(vars(db0.types)))
def test_every_method_of_a_type_is_documented(name: str) -> None:
    cls = getattr(db0.types, name)
    assert (cls.__doc__ or "").strip()
    methods = [method for method in dir(cls) if not method.startswith("_") and callable(getattr(cls, method))]
    assert [method for method in methods if not (inspect.getdoc(getattr(cls, method)) or "").strip()] == []


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", sorted(NAMES - {"types", "db0"}))
def test_examples_run(name: str) -> None:
    parser = doctest.DocTestParser()
    text = inspect.getdoc(getattr(db0, name)) or ""
    test = parser.get_doctest(text, {"__name__": "__main__"}, name, None, None)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)
    try:
        assert runner.run(test).failed == 0
    finally:
        db0.close()


def test_errors_are_one_tree() -> None:
    errors = [value for value in vars(db0).values() if inspect.isclass(value) and issubclass(value, Exception)]
    assert len(errors) > 15
    assert all(issubclass(error, db0.Error) and issubclass(error, RuntimeError) for error in errors)
