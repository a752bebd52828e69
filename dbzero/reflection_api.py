"""Reflection under the names that programs import it by: classes, members, callables, queries."""

from dbzero.reflection.classes import (
    AttributeInfo,
    MemoMetaClass,
    get_attributes,
    get_memo_class,
    get_memo_classes,
    get_schema,
)
from dbzero.reflection.decorators import check_params_not_equal
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
from dbzero.session.api import PrefixMetaData

__all__ = [
    "AttributeInfo",
    "CallableType",
    "MemoMetaClass",
    "MethodInfo",
    "MethodParam",
    "PrefixMetaData",
    "Query",
    "QueryParam",
    "check_params_not_equal",
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
