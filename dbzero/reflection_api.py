"""Reflection under the names that programs import it by: classes, members, callables, queries."""

from dbzero.reflection.classes import (
    AttributeInfo,
    MemoMetaClass,
    get_attributes,
    get_memo_class,
    get_memo_classes,
    get_schema,
)
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

__all__ = [
    "AttributeInfo",
    "CallableType",
    "MemoMetaClass",
    "MethodInfo",
    "MethodParam",
    "Query",
    "QueryParam",
    "get_attributes",
    "get_callables",
    "get_memo_class",
    "get_memo_classes",
    "get_methods",
    "get_properties",
    "get_queries",
    "get_schema",
    "import_model",
    "is_private",
]
