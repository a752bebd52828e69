"""Which prefixes a root directory holds, and their identities, without opening them."""

from __future__ import annotations

import os
from collections.abc import Iterator

from dbzero.errors import StorageError
from dbzero.storage import format as fmt
from dbzero.storage import names
from dbzero.storage.syscalls import SYSTEM, System, read_exact


def prefixes(root: str, system: System = SYSTEM) -> Iterator[tuple[str, int]]:
    """(name, prefix uuid) of every readable prefix file below `root`. Files that are no store are left out."""
    for name in names.discover(root, system):
        path = names.page_path(names.base_path(root, name))
        try:
            fd = system.open(path, os.O_RDONLY)
            try:
                identity = fmt.decode_header(read_exact(system, fd, fmt.PAGE, 0), path)
            finally:
                system.close(fd)
        except (OSError, StorageError):
            continue
        yield name, identity.prefix_uuid


def name_of(root: str, prefix_uuid: int, system: System = SYSTEM) -> str | None:
    """The name under which the prefix with that uuid stands below `root`, or None."""
    return next((name for name, uuid in prefixes(os.fspath(root), system) if uuid == prefix_uuid), None)
