"""Which prefixes a root directory holds, and their identities, without opening them."""

from __future__ import annotations

import os
from collections.abc import Iterator

from dbzero.errors import StorageError
from dbzero.storage import format as fmt
from dbzero.storage import names


def prefixes(root: str) -> Iterator[tuple[str, int]]:
    """(name, prefix uuid) of every readable prefix file below `root`. Files that are no store are left out."""
    for name in names.discover(root):
        path = names.page_path(names.base_path(root, name))
        try:
            with open(path, "rb") as file:
                identity = fmt.decode_header(file.read(fmt.PAGE), path)
        except (OSError, StorageError):
            continue
        yield name, identity.prefix_uuid


def name_of(root: str, prefix_uuid: int) -> str | None:
    """The name under which the prefix with that uuid stands below `root`, or None."""
    return next((name for name, uuid in prefixes(os.fspath(root)) if uuid == prefix_uuid), None)
