"""What survives: the store interface and its two engines, file formats, redo log, checkpoint, recovery, verification.

May import :mod:`dbzero.runtime` and :mod:`dbzero.errors`; nothing above it. Promises: what was acknowledged is read
back after any crash; damage is a typed error that names file and address; every durable system call goes through
:class:`dbzero.storage.syscalls.System`.
"""
