"""Every exception dbzero raises, grouped by the phase in which it can appear.

All derive from :class:`Error`. Where users of the original API catch a builtin (``RuntimeError``, ``AttributeError`` ...), the class derives from that too.
"""

from __future__ import annotations

import builtins


class Error(RuntimeError):
    """Root of all dbzero errors: catch it to catch them all. It is a RuntimeError, as of the original.

    >>> import dbzero as db0
    >>> try:
    ...     db0.commit()
    ... except db0.Error as error:
    ...     print(error)
    dbzero not initialized: call db0.init(<directory>) first
    """


# --- the workspace -------------------------------------------------------------------------------------------------------------------------


class NotInitializedError(Error):
    """An operation needs `db0.init()` first, or came after `db0.close()`. Call `db0.init()` with the store's directory.

    >>> import dbzero as db0
    >>> db0.list()
    Traceback (most recent call last):
    dbzero.errors.NotInitializedError: dbzero not initialized: call db0.init(<directory>) first
    """


class PrefixError(Error):
    """A prefix name is invalid, unknown or not open. Open it with `db0.open()`; `db0.get_prefixes()` lists what is there.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> db0.commit("elsewhere")
    Traceback (most recent call last):
    dbzero.errors.PrefixError: Prefix: elsewhere not found
    >>> db0.close()
    """


class BadPrefixError(PrefixError, AttributeError):
    """Two operands belong to different prefixes, or an object to another view. Store a copy of a collection, or take the object
    from its own prefix.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Thing:
    ...     pass
    >>> thing, numbers = Thing(), db0.list([1])
    >>> db0.open("other")
    >>> Thing().numbers = numbers
    Traceback (most recent call last):
    dbzero.errors.BadPrefixError: a list of prefix 'p' with items cannot be moved
    >>> Thing().numbers = numbers[:]
    >>> db0.close()
    """


class ReadOnlyError(Error, AttributeError):
    """A write met a prefix that is open read-only. Close it and open it "rw".

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> db0.close("p")
    >>> db0.open("p", "r")
    >>> db0.list()
    Traceback (most recent call last):
    dbzero.errors.ReadOnlyError: Cannot modify read-only prefix: p
    >>> db0.close()
    """


class ForkedError(ReadOnlyError):
    """A forked child tried to write through what only its parent holds. Call `db0.close()` and `db0.init()` in the child, then open
    the prefix read-only.

    >>> import dbzero as db0
    >>> issubclass(db0.ForkedError, db0.ReadOnlyError)
    True
    """


class OutsideTransactionError(ReadOnlyError):
    """A prefix that is open shared was to be written outside a transaction.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p", shared=True)
    >>> with db0.atomic():
    ...     numbers = db0.list([1])
    >>> try:
    ...     numbers.append(2)
    ... except db0.OutsideTransactionError:
    ...     print("use db0.atomic()")
    use db0.atomic()
    >>> db0.close()
    """


class AtomicError(Error):
    """Something cannot be done in, or beside, an open atomic block. End the block first.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> with db0.atomic():
    ...     db0.commit()
    Traceback (most recent call last):
    dbzero.errors.AtomicError: commit cannot run inside an active atomic block
    >>> db0.close()
    """


# --- the files -----------------------------------------------------------------------------------------------------------------------------


class StorageError(Error):
    """The durable layer could not do what it was asked. The previous commit stays readable, what was pending is pending; the
    message names the file. Mend the cause and repeat.

    >>> import dbzero as db0
    >>> db0.init("/proc/no/directory")
    Traceback (most recent call last):
    dbzero.errors.StorageError: the root directory /proc/no/directory cannot be created
    """


class NotAStoreError(StorageError):
    """A file is not a dbzero file at all. Move it out of the store's directory, or give the right directory.

    >>> import dbzero as db0, pathlib, tempfile
    >>> root = tempfile.mkdtemp()
    >>> _ = pathlib.Path(root, "notes.db0").write_bytes(b"hello" * 10000)
    >>> db0.init(root)
    >>> db0.open("notes")
    Traceback (most recent call last):
    dbzero.errors.NotAStoreError: not a dbzero file
    >>> db0.close()
    """


class FormatVersionError(StorageError):
    """A file was written by a newer dbzero. Install that version or a later one; the file was not touched.

    >>> import dbzero as db0
    >>> issubclass(db0.FormatVersionError, db0.StorageError)
    True
    """


class CorruptError(StorageError):
    """A checksum, length or address in a file is wrong: the message names file and place. Run `python -m dbzero check`, and restore
    the prefix from a copy.

    >>> import dbzero as db0
    >>> def read(root):
    ...     try:
    ...         return list(root.items)
    ...     except db0.CorruptError as error:
    ...         raise SystemExit(f"restore the store from its copy: {error}")
    """


class StaleFileError(StorageError):
    """A page file is older than the log that follows it: an earlier copy was put in its place. Put the newer file back, or remove
    the log files to go on from the copy.

    >>> import dbzero as db0
    >>> issubclass(db0.StaleFileError, db0.StorageError)
    True
    """


class FileReplacedError(StaleFileError):
    """A page file got another one put in its place while it was open: open the prefix again."""


class StateNotKeptError(PrefixError):
    """A state is older than what compaction has kept. Take a younger one; keep more with the setting `retention`.

    >>> import dbzero as db0
    >>> issubclass(db0.StateNotKeptError, db0.Error)
    True
    """


class InDoubtError(StorageError):
    """A commit of several prefixes is in doubt here, and the prefix whose files say whether it was made cannot be asked. Put that prefix's
    files back below the root and open again.

    >>> import dbzero as db0
    >>> def open_accounts():
    ...     try:
    ...         db0.open("accounts", "rw")
    ...     except db0.InDoubtError as error:
    ...         raise SystemExit(f"restore the prefix that it names first: {error}")
    """


class StaleViewError(StorageError):
    """The prefix was recovered by a successor while it was being read. Call `db0.refresh()` and repeat.

    >>> import dbzero as db0
    >>> def total(root):
    ...     while True:
    ...         try:
    ...             return sum(root.numbers)
    ...         except db0.StaleViewError:
    ...             db0.refresh()
    """


class DiskFullError(StorageError, OSError):
    """No space is left. Nothing was changed: make room and repeat; what was pending still is.

    >>> import dbzero as db0
    >>> issubclass(db0.DiskFullError, OSError)
    True
    """


class UnsupportedFileSystemError(StorageError):
    """The directory is on a file system that cannot keep the promises (network file systems). Use a local one, or open the prefix
    read-only.

    >>> import dbzero as db0
    >>> issubclass(db0.UnsupportedFileSystemError, db0.StorageError)
    True
    """


class CheckpointMovedError(StorageError):
    """A checkpoint was put in force while the log before it was being read: read the meta again."""


class PoisonedError(StorageError):
    """An fsync failed: whether the last commit is durable is unknown. Close and reopen the prefix, and look at what is there.

    >>> import dbzero as db0
    >>> issubclass(db0.PoisonedError, db0.StorageError)
    True
    """


# --- the shared segment --------------------------------------------------------------------------------------------------------------------


class SegmentError(Error):
    """The shared-memory segment cannot be created, mapped or trusted. The message says what stands in the way: room in /dev/shm,
    permissions, or another user's segment.

    >>> import dbzero as db0
    >>> issubclass(db0.SegmentError, db0.Error)
    True
    """


class LeaseError(Error):
    """Another process holds the write lease of the prefix. Open it "r", wait with `lock_flags={"blocking": True}`, or replace the
    holder with `force_unlock`.

    >>> import dbzero as db0
    >>> def open_to_write(name):
    ...     try:
    ...         db0.open(name, "rw")
    ...     except db0.LeaseError:
    ...         db0.open(name, "rw", lock_flags={"blocking": True, "timeout": 30})
    """


class TurnTimeoutError(LeaseError, TimeoutError):
    """The turn to write a prefix that is open shared did not come in time.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p", shared=True)
    >>> try:
    ...     with db0.atomic(wait=0.5):  # another process has the turn, say, and keeps it for longer
    ...         numbers = db0.list([1])
    ... except db0.TurnTimeoutError:
    ...     print("busy, try again later")
    >>> db0.close()
    """


class FencedError(Error):
    """This process lost the write lease to a successor; what it had not committed is void. Close the prefix and open it again.

    >>> import dbzero as db0
    >>> issubclass(db0.FencedError, db0.Error)
    True
    """


# --- objects -------------------------------------------------------------------------------------------------------------------------------


class ReferenceError(Error, builtins.ReferenceError):
    """The object no longer exists: it was deleted, or dropped when nothing referred to it. Drop the reference too.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Thing:
    ...     pass
    >>> thing = Thing()
    >>> db0.delete(thing)
    >>> thing.name
    Traceback (most recent call last):
    dbzero.errors.ReferenceError: Memo instance expired
    >>> db0.close()
    """


class ExpiredError(ReferenceError, AttributeError):
    """An attribute of a deleted object was to be set, or a deleted object to be stored. Drop the reference, make a new object.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Thing:
    ...     pass
    >>> thing = Thing()
    >>> db0.delete(thing)
    >>> thing.name = "x"
    Traceback (most recent call last):
    dbzero.errors.ExpiredError: Memo instance expired
    >>> db0.close()
    """


class ImmutableError(Error, AttributeError):
    """An object of a class with the option `immutable` was to be changed after its construction. Make another object.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo(immutable=True)
    ... class Point:
    ...     def __init__(self, x):
    ...         self.x = x
    >>> Point(1).x = 2
    Traceback (most recent call last):
    dbzero.errors.ImmutableError: Cannot modify an immutable memo object
    >>> db0.close()
    """


class ClosedError(Error, AttributeError):
    """The object's prefix has been closed: it is no longer accessible. Open the prefix and fetch the object again.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Thing:
    ...     pass
    >>> thing = Thing()
    >>> db0.close()
    >>> thing.name
    Traceback (most recent call last):
    dbzero.errors.ClosedError: Object is no longer accessible
    """


class ClassNotFoundError(Error):
    """The Python class of stored objects is not known in this process, or the prefix never stored one of it. Import the module
    that defines it; as `db0.MemoBase` its objects can be read all the same.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> @db0.memo
    ... class Thing:
    ...     pass
    >>> db0.get_schema(Thing)
    Traceback (most recent call last):
    dbzero.errors.ClassNotFoundError: Class not found
    >>> db0.close()
    """


class UnsupportedTypeError(Error, AttributeError, TypeError):
    """A value of this type cannot be stored. Store what it is made of: atoms, dates, collections, memo objects.

    >>> import dbzero as db0, tempfile
    >>> db0.init(tempfile.mkdtemp(), prefix="p")
    >>> db0.list([object()])
    Traceback (most recent call last):
    dbzero.errors.UnsupportedTypeError: Unsupported attribute type
    >>> db0.close()
    """


class UnknownEnumValueError(Error, KeyError):
    """An enum has no value of that name. Its `values()` are what there is; append to its definition to have more.

    >>> import dbzero as db0
    >>> db0.enum("Side", ["LEFT", "RIGHT"])["TOP"]
    Traceback (most recent call last):
    dbzero.errors.UnknownEnumValueError: no such value
    """

    __str__ = Error.__str__


class MigrateError(Error):
    """A class cannot be migrated: two migrations set the same attribute. Leave it to one of them.

    >>> import dbzero as db0
    >>> @db0.memo(singleton=True)
    ... class Settings:
    ...     def __init__(self):
    ...         self.color = "red"
    ...     @db0.migration
    ...     def one(self):
    ...         self.color = "red"
    ...     @db0.migration
    ...     def other(self):
    ...         self.color = "blue"
    Traceback (most recent call last):
    dbzero.errors.MigrateError: both migrate attribute color
    """
