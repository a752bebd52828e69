"""Every exception dbzero raises, grouped by the phase in which it can appear.

All derive from :class:`Error`. Where users of the original API catch a builtin (``RuntimeError``, ``AttributeError`` ...), the class derives from that too.
"""

from __future__ import annotations

import builtins


class Error(RuntimeError):
    """Root of all dbzero errors."""


# --- the workspace -------------------------------------------------------------------------------------------------------------------------


class NotInitializedError(Error):
    """An operation needs `db0.init()` first, or came after `db0.close()`."""


class PrefixError(Error):
    """A prefix name is invalid, unknown or not open."""


class BadPrefixError(PrefixError, AttributeError):
    """Two operands belong to different prefixes."""


class ReadOnlyError(Error, AttributeError):
    """A write met a prefix that is open read-only."""


class ForkedError(ReadOnlyError):
    """A forked child tried to write through what only its parent holds."""


class AtomicError(Error):
    """Something cannot be done in, or beside, an open atomic block."""


# --- the files -----------------------------------------------------------------------------------------------------------------------------


class StorageError(Error):
    """The durable layer could not do what it was asked. The previous commit stays readable."""


class NotAStoreError(StorageError):
    """A file is not a dbzero file at all."""


class FormatVersionError(StorageError):
    """A file was written by a newer dbzero."""


class CorruptError(StorageError):
    """A checksum, length or address in a file is wrong."""


class StaleFileError(StorageError):
    """A page file is older than the log that follows it: an earlier copy was put in its place."""


class FileReplacedError(StaleFileError):
    """A page file got another one put in its place while it was open: open the prefix again."""


class StateNotKeptError(PrefixError):
    """A state is older than what compaction has kept."""


class InDoubtError(StorageError):
    """A commit of several prefixes is in doubt here, and the prefix whose files say whether it was made cannot be asked."""


class StaleViewError(StorageError):
    """The prefix was recovered by a successor while it was being read: take a new view of it and repeat."""


class DiskFullError(StorageError, OSError):
    """No space is left; nothing was changed and writing may go on when there is space again."""


class UnsupportedFileSystemError(StorageError):
    """The directory is on a file system that cannot keep the promises (network file systems)."""


class CheckpointMovedError(StorageError):
    """A checkpoint was put in force while the log before it was being read: read the meta again."""


class PoisonedError(StorageError):
    """An fsync failed: whether the last commit is durable is unknown. Close and reopen the prefix."""


# --- the shared segment --------------------------------------------------------------------------------------------------------------------


class SegmentError(Error):
    """The shared-memory segment cannot be created, mapped or trusted."""


class LeaseError(Error):
    """Another process holds the write lease of the prefix."""


class FencedError(Error):
    """This process lost the write lease to a successor; what it had not committed is void."""


# --- objects -------------------------------------------------------------------------------------------------------------------------------


class ReferenceError(Error, builtins.ReferenceError):
    """The object no longer exists."""


class ExpiredError(ReferenceError, AttributeError):
    """An attribute of a deleted object was to be set."""


class ImmutableError(Error, AttributeError):
    """An immutable object was to be changed."""


class ClosedError(Error, AttributeError):
    """The object's prefix has been closed: it is no longer accessible."""


class ClassNotFoundError(Error):
    """The Python class of a stored object is not known in this process."""


class UnsupportedTypeError(Error, AttributeError, TypeError):
    """A value of this type cannot be stored."""


class UnknownEnumValueError(Error, KeyError):
    """An enum has no value of that name."""

    __str__ = Error.__str__


class MigrateError(Error):
    """A class cannot be migrated."""
