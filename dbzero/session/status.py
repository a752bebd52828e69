"""``status``: who uses the store, and what it costs."""

from __future__ import annotations

import time
from typing import Any

from dbzero.runtime.status import describe
from dbzero.session.workspace import active


def status() -> dict[str, Any]:
    """What goes on in the store, in all processes that use it, as plain values. Each is right on its own; together they are no snapshot.

    Returns:
        ``root``: the directory.
        ``segment``: the shared memory: `size`, `reserved` (backed by memory), `cache_size`, `delta_size`, `delta_used` in bytes;
        `cache_hits`, `cache_misses`, `cache_evictions` since it was made.
        ``processes``: a list of dicts: `pid`, `started` (seconds since 1970), `live`, and `pins`: the states that the process keeps, each
        with the number of newer states (`behind`) and the seconds since the first of those was committed (`age`; None: not known here).
        ``prefixes``: by name, a dict: `published` and `durable` state; `writer`: "exclusive", "shared" or None; `writer_pid`; of shared
        prefixes whose turn it is (`turn_pid`), the seconds left of it, the number of `turns` so far, and the pids of those that wait for
        it in order (`queue`); `mode`: "rw", "shared", "r" or None as it is open here; `pending`: changed objects here.

    Raises:
        NotInitializedError.

    >>> import dbzero as db0, os, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p", shared=True)
    >>> found = db0.status()
    >>> [process["pid"] == os.getpid() for process in found["processes"]]
    [True]
    >>> found["prefixes"]["p"]["writer"], found["prefixes"]["p"]["queue"]
    ('shared', [])
    >>> db0.close()
    """
    workspace = active()
    found = {"root": workspace.root, **describe(workspace.segment)}
    open_here = dict(workspace.open_prefixes)
    for name, entry in found["prefixes"].items():
        opened = open_here.get(name)
        entry["mode"] = None
        entry["pending"] = 0
        if opened is not None:
            entry["mode"] = "shared" if opened.shared else "rw" if opened.writable else "r"
            entry["pending"] = int(opened.view.dirty_count)
    now = time.time()
    for process in found["processes"]:
        for pin in process["pins"]:
            opened = open_here.get(pin["prefix"])
            if pin["behind"] == 0:
                pin["age"] = 0.0
            elif opened is not None:
                committed = opened.prefix.committed_at(pin["state"] + 1)
                pin["age"] = None if committed is None else max(0.0, now - committed)
    return found
