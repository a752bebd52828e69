"""Numbers about caches, files and classes, and the cache's size at run time. For diagnosis: keys may be added."""

from __future__ import annotations

import os
from typing import Any

from msgspec.structs import replace

from dbzero.errors import ClassNotFoundError, Error
from dbzero.model import base, scope
from dbzero.model.base import operation
from dbzero.model.catalog import ACCESS_CONTROL, NO_DEFAULT_TAGS
from dbzero.model.instances import enter_classes, instances
from dbzero.model.memo import class_info
from dbzero.runtime.segment import SegmentStatus
from dbzero.session.lookup import getrefcount
from dbzero.session.workspace import OpenPrefix, Workspace, active
from dbzero.storage import names
from dbzero.storage.syscalls import COUNTS, SYSTEM

PAGE = 4096


def _views(workspace: Workspace) -> list[Any]:
    return [opened.view for opened in workspace.open_prefixes.values()]


def _prefix(name: str | None) -> OpenPrefix:
    workspace = active()
    return workspace.current() if name is None else workspace.get(name)


def get_cache_stats() -> dict[str, Any]:
    """The memory that loaded objects take in this process, and the page cache that all processes share.

    Returns:
        `size`: bytes of loaded object state; `capacity`: the limit above which objects that are not changed turn into
        ghosts; `P_size`: {"P0": bytes that could be freed, "P1": bytes of changed objects, which stay}, by encoded
        size; `deferred_free_count`: deleted objects whose deletion the next commit writes; `lang_cache_size`: instances
        in memory; `shared`: {"capacity", "reserved" (bytes), "hits", "misses", "evictions" (4 KiB pages)}.

    Raises:
        NotInitializedError.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p", cache_size=64 << 20)
    >>> db0.get_cache_stats()["capacity"] == 64 << 20
    True
    >>> db0.close()
    """
    workspace = active()
    views = _views(workspace)
    with operation:
        size = sum(int(view.weight) for view in views)
        changed = sum(len(obj._p_encode()[0]) for view in views for obj in base.dirty_objects(view))
        alive = sum(len(view.objects()) for view in views)
        gone = sum(len(view.deleted) for view in views)
    shared: SegmentStatus = workspace.segment.status()
    return {
        "size": size,
        "capacity": workspace.config.cache_size,
        "P_size": {"P0": size, "P1": changed},
        "deferred_free_count": gone,
        "lang_cache_size": alive,
        "shared": {
            "capacity": shared.cache_bytes,
            "reserved": shared.reserved,
            "hits": shared.hits,
            "misses": shared.misses,
            "evictions": shared.evictions,
        },
    }


def get_lang_cache_stats() -> dict[str, int]:
    """How many Python instances of stored objects are in memory (`size`), and the setting `lang_cache_size`
    (`capacity`). The library itself keeps none alive but those with changes.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p", lang_cache_size=9876)
    >>> db0.get_lang_cache_stats()["capacity"]
    9876
    >>> db0.close()
    """
    workspace = active()
    with operation:
        alive = sum(len(view.objects()) for view in _views(workspace))
    return {"size": alive, "capacity": workspace.config.lang_cache_size}


def set_cache_size(size: int, /) -> None:
    """Set how many bytes of loaded object state this process keeps. At once: what is above and unchanged is evicted.

    The page cache that the processes share keeps the size it was created with.

    Args:
        size: bytes, positive.

    Raises:
        TypeError: not an int. ValueError: not positive. NotInitializedError.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> db0.set_cache_size(1 << 20)
    >>> db0.get_cache_stats()["capacity"], db0.get_config()["cache_size"]
    (1048576, 1048576)
    >>> db0.close()
    """
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"the cache size must be an int, not {type(size).__name__}")
    if size <= 0:
        raise ValueError(f"the cache size must be positive, not {size}")
    workspace = active()
    workspace.config = replace(workspace.config, cache_size=size)
    for view in _views(workspace):
        view.weight_limit = size
        if view.weight > size:
            view.evict(size)


def get_storage_stats(prefix: str | None = None) -> dict[str, int]:
    """What a prefix takes on disk, and what this process has read and written.

    Args:
        prefix: an open prefix; None: the current one.

    Returns:
        Bytes unless said otherwise. Of the prefix: `prefix_size` (its file), `log_size` (its log files), `dp_size_total`
        (data), `dp_size_uncommited` (encoded changes that are pending). Of this process, all prefixes:
        `file_rand_read_ops`, `file_rand_write_ops`, `file_sync_ops` (numbers of calls), `file_bytes_read`,
        `file_bytes_written`. Of all processes since the first one attached: `page_io_total_bytes` (pages read into the
        shared cache). Without a counterpart here, 0: `page_io_diff_bytes`, `dram_io_size`, `dram_io_rand_ops`.

    Raises:
        PrefixError: it is not open. NotInitializedError.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> db0.get_storage_stats()["prefix_size"] > 0
    True
    >>> db0.close()
    """
    opened = _prefix(prefix)
    base_path = names.base_path(active().root, opened.name)
    logs = sum(_size(names.redo_path(base_path, number)) for number in names.redo_numbers(SYSTEM, base_path))
    with operation:
        pending = sum(len(obj._p_encode()[0]) for obj in base.dirty_objects(opened.view))
    return {
        "prefix_size": _size(names.page_path(base_path)),
        "log_size": logs,
        "dp_size_total": opened.prefix.data_end(),
        "dp_size_uncommited": pending,
        "file_rand_read_ops": COUNTS.reads,
        "file_rand_write_ops": COUNTS.writes,
        "file_sync_ops": COUNTS.syncs,
        "file_bytes_read": COUNTS.bytes_read,
        "file_bytes_written": COUNTS.bytes_written,
        "page_io_total_bytes": active().segment.status().misses * PAGE,
        "page_io_diff_bytes": 0,
        "dram_io_size": 0,
        "dram_io_rand_ops": 0,
    }


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:  # a checkpoint has just removed it
        return 0


def get_prefix_stats(prefix: str | None = None) -> dict[str, Any]:
    """What a prefix holds in this process.

    Args:
        prefix: an open prefix; None: the current one.

    Returns:
        `name`, `uuid`, `restricted`; `dp_size`: bytes of a page; `gc0`: {"size": instances in memory}; `cache`:
        {"dirty_cache_bytes": encoded size of pending changes, "dirty_dp_total": number of changed objects,
        "dirty_dp_cow": how many of these were stored before}; `state`: the last committed state.

    Raises:
        PrefixError: it is not open. NotInitializedError.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> numbers = db0.list([1, 2, 3])
    >>> db0.get_prefix_stats()["cache"]["dirty_dp_total"]
    1
    >>> db0.close()
    """
    opened = _prefix(prefix)
    view = opened.view
    with operation:
        dirty = base.dirty_objects(view)
        return {
            "name": opened.name,
            "uuid": opened.prefix.uuid,
            "restricted": view.is_restricted(),
            "dp_size": PAGE,
            "gc0": {"size": len(view.objects())},
            "cache": {
                "dirty_cache_bytes": sum(len(obj._p_encode()[0]) for obj in dirty),
                "dirty_dp_total": len(dirty),
                "dirty_dp_cow": sum(1 for obj in dirty if not obj._p_flags & base.NEW),
            },
            "state": opened.state(True),
        }


def get_slab_metrics(prefix: str | None = None) -> dict[int, dict[str, int]]:
    """The space of a prefix's file by region: 0 is data, 1 what is granted to the log file in use beyond it.

    Returns:
        {region: {"size", "remaining_capacity"}} in bytes. Empty for a prefix open read-only.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> db0.get_slab_metrics()[0]["remaining_capacity"]
    0
    >>> db0.close()
    """
    opened = _prefix(prefix)
    if not opened.writable:
        return {}
    used, limit = opened.prefix.data_end(), max(opened.prefix.data_limit(), opened.prefix.data_end())
    return {
        0: {"size": used, "remaining_capacity": 0},
        1: {"size": limit - used, "remaining_capacity": limit - used},
    }


def get_type_stats(cls: type, /, prefix: str | None = None) -> dict[str, Any]:
    """What a prefix knows of a memo class. Takes a walk over the prefix.

    Args:
        cls: the class. prefix: an open prefix; None: the class's own or the current one.

    Returns:
        `name`, `module`, `type_id` (the ``id`` option), `prefix`, `uuid` (of the prefix), `address` (number of the
        class's record), `class_ref`, `fields` (number of names in use), `instances` (of this very class), `singleton`,
        `no_default_tags`, `access_control`, `ref_counts`: {"objects": stored references to instances, "tags": those
        among them that tags hold}.

    Raises:
        TypeError: no class. Error: no memo class. ClassNotFoundError: never stored there. PrefixError.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Person:
    ...     pass
    >>> people = [Person(), Person()]
    >>> db0.get_type_stats(Person)["instances"]
    2
    >>> db0.close()
    """
    if not isinstance(cls, type):
        raise TypeError(f"get_type_stats() takes a memo class, not {type(cls).__name__}")
    info = class_info(cls)
    if info is None:
        raise Error(f"{cls.__qualname__} is not a memo class")
    active()
    view = scope.view_of(info.prefix, False) if prefix is None else active().get(prefix).view
    enter_classes(view)
    record = view.find_class(cls)
    if record is None:
        raise ClassNotFoundError(f"Class not found: {cls.__qualname__} was never stored in prefix {view.name!r}")
    found = list(instances(view, record._p_oid, derived=False))
    flags = record.data.flags
    return {
        "name": record.data.qualname,
        "module": record.data.module,
        "type_id": info.id,
        "prefix": view.name,
        "uuid": view.uuid,
        "address": record._p_oid,
        "class_ref": getrefcount(record) - 1,  # the catalogue's
        "fields": len(record.field_names),
        "instances": len(found),
        "singleton": info.singleton,
        "no_default_tags": bool(flags & NO_DEFAULT_TAGS),
        "access_control": bool(flags & ACCESS_CONTROL),
        "ref_counts": {"objects": sum(map(getrefcount, found)), "tags": 0},
    }
