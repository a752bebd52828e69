"""What a forked child must not inherit.

A lock on an open file description lives as long as any process holds a descriptor of it. So the engine closes such
descriptors in every forked child (pthread_atfork, which
covers `os.fork`, multiprocessing and a C program's fork alike), and handles from before the fork know that they are
inherited.
"""

from __future__ import annotations

from dbzero._engine import lib
from dbzero.runtime.codes import check


def depth() -> int:
    """Number of forks between this process and the one that loaded the engine. A handle made under another number
    is inherited."""
    return int(lib.dbz_fork_depth())


def guard(fd: int) -> None:
    """Have the engine close `fd` in forked children. Call :func:`unguard` before closing it here."""
    check(lib.dbz_fork_guard(fd), f"guard descriptor {fd} against forks")


def unguard(fd: int) -> None:
    """Undo :func:`guard`."""
    lib.dbz_fork_unguard(fd)
