"""Redo files: appending frames, and reading them back across files.

Rules that keep one history out of several writers' files:

* A file continues from (state, chain checksum) of an earlier file, which its header names. The file with the highest
  number rules: of each earlier file only the frames up to the point the later one continues from count. What a writer
  that was replaced still appends stands past that point and is dropped.
* Nothing in front of the end of a file is ever overwritten, so that a replaced writer cannot hurt what its successor
  builds on. A frame whose commit failed is taken back by a VOID frame behind it.
* A file's header is durable before its first frame is written. A file without a valid header and without any byte
  behind it was never begun and does not count.
* A frame that cannot be verified ends the log, unless a later frame or mark knew its state to be durable or a later
  file continues from behind it: then it is damage. The header of every frame has a checksum of its own (seeded with
  salt and offset) so that it can be found when the chain is broken.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from .. import errors
from . import format as fmt
from . import names
from .store import Frame, Meta
from .syscalls import Buffer, System, read_exact, storage_error, write_all

FIRST_STEP: Final = 64 << 10  # prewritten space: doubled from here
LAST_STEP: Final = 4 << 20
WINDOW: Final = 1 << 20  # bytes read at a time
_ZEROS: Final = bytes(1 << 20)


class LogWriter:
    """Appends to one redo file. Not thread-safe: the store serialises.

    ``end`` is where the next frame goes, ``prewritten`` the file size up to which blocks are written, so that
    fdatasync has no metadata to write.
    """

    def __init__(self, system: System, prefix: str, path: str, fd: int, header: fmt.RedoHeader) -> None:
        self._system = system
        self._prefix = prefix
        self.path = path
        self.fd = fd
        self.header = header
        self.state = header.state
        self.chain = header.chain
        self.end = fmt.PAGE
        self.prewritten = fmt.PAGE
        self._step = FIRST_STEP
        self._others = True  # other processes may have written ahead since the size was asked for
        self._last_commit = False

    @classmethod
    def begin(cls, system: System, prefix: str, base: str, fd: int, header: fmt.RedoHeader) -> LogWriter:
        """Write and sync the header into a file that was just created exclusively. The caller closes `fd` when this fails."""
        path = names.redo_path(base, header.number)
        try:
            system.ftruncate(fd, 0)
            write_all(system, fd, [fmt.encode_redo(header), bytes(FIRST_STEP - fmt.PAGE)], 0)
            system.fsync(fd)
            system.sync_dir(os.path.dirname(base))
        except OSError as exc:
            raise storage_error(exc, prefix, path, "begin log file") from exc
        writer = cls(system, prefix, path, fd, header)
        writer.prewritten = FIRST_STEP
        return writer

    @classmethod
    def join(cls, system: System, prefix: str, base: str, file_id: int, number: int) -> LogWriter:
        """Go on in a log file that another process of the same epoch began; :meth:`seek` says where."""
        path = names.redo_path(base, number)
        try:
            fd = system.open(path, os.O_RDWR)
        except OSError as exc:
            raise storage_error(exc, prefix, path, "open") from exc
        try:
            header = fmt.decode_redo(read_exact(system, fd, fmt.PAGE, 0), path)
            if header is None or header.file_id != file_id or header.number != number:
                raise errors.CorruptError(
                    f"prefix {prefix!r}: the header of log file {path}, which is in use, is damaged; close and reopen the prefix in every process"
                )
            return cls(system, prefix, path, fd, header)
        except OSError as exc:
            system.close(fd)
            raise storage_error(exc, prefix, path, "read") from exc
        except BaseException:
            system.close(fd)
            raise

    def seek(self, end: int, state: int, chain: int) -> None:
        """The next frame goes to offset `end`, behind (state, chain)."""
        if end != self.end or chain != self.chain:
            self.end, self.state, self.chain = end, state, chain
            self._last_commit = False
            self._others = True

    def reserve(self, log_bytes: int) -> None:
        """Make sure that a frame with a body of `log_bytes`, and a mark behind it, can be written."""
        needed = self.end + 2 * fmt.FRAME_HEAD + fmt.align8(log_bytes)
        if needed <= self.prewritten:
            return
        if self._others:
            self._ask_size()
            if needed <= self.prewritten:
                return
        before = self.prewritten
        try:
            if needed - before > LAST_STEP:
                target = fmt.align_page(needed)
                self._system.fallocate(self.fd, before, target - before)
            else:
                target = fmt.align_page(max(needed, before + self._step))
                position = before
                while position < target:
                    n = min(len(_ZEROS), target - position)
                    write_all(self._system, self.fd, [memoryview(_ZEROS)[:n]], position)
                    position += n
                self._step = min(2 * self._step, LAST_STEP)
        except OSError as exc:
            try:
                self._system.ftruncate(self.fd, before)
            except OSError:
                pass  # zeros behind the end are harmless
            raise storage_error(exc, self._prefix, self.path, "extend") from exc
        self.prewritten = target

    def _ask_size(self) -> None:
        """What other processes of the epoch have written ahead."""
        try:
            self.prewritten = self._system.size(self.fd)
        except OSError as exc:
            raise storage_error(exc, self._prefix, self.path, "read the size of") from exc
        self._step = min(max(FIRST_STEP, self.prewritten), LAST_STEP)
        self._others = False

    def append(self, kind: int, epoch: int, state: int, durable: int, next_oid: int, body: bytes | memoryview) -> int:
        """Write a frame behind the last one; returns its chain checksum. Not synced."""
        head, chain = fmt.encode_frame(
            kind, epoch, state, durable, next_oid, body, seed=self.chain, salt=self.header.salt, offset=self.end
        )
        padding = fmt.align8(len(body)) - len(body)
        buffers: list[Buffer] = [head, body]
        if padding:
            buffers.append(bytes(padding))
        try:
            write_all(self._system, self.fd, buffers, self.end)
        except OSError as exc:
            self._wipe()
            raise storage_error(exc, self._prefix, self.path, "append to") from exc
        self.end += fmt.FRAME_HEAD + len(body) + padding
        self.prewritten = max(self.prewritten, self.end)
        self.state = state
        self.chain = chain
        self._last_commit = kind in (fmt.COMMIT, fmt.PREPARE)
        return chain

    def _wipe(self) -> None:
        """After a failed write the frame may stand there whole: make its header invalid."""
        try:
            write_all(self._system, self.fd, [bytes(fmt.FRAME_HEAD)], self.end)
        except OSError:
            pass  # the next append overwrites it; the outcome of this commit was reported as failed and stays unlikely

    def void(self, epoch: int, durable: int, next_oid: int) -> None:
        """Take back the commit frame appended last."""
        if not self._last_commit:
            raise ValueError("no commit frame to take back")
        self.append(fmt.VOID, epoch, self.state - 1, durable, next_oid, b"")

    def mark(self, epoch: int, durable: int, next_oid: int) -> None:
        """Note behind the last frame that `durable` is. The next frame overwrites it. Best effort: it only sharpens diagnosis."""
        if self.end + fmt.FRAME_HEAD > self.prewritten:
            return
        head, _ = fmt.encode_frame(
            fmt.MARK, epoch, durable, durable, next_oid, b"", seed=self.chain, salt=self.header.salt, offset=self.end
        )
        try:
            write_all(self._system, self.fd, [head], self.end)
        except OSError:
            return

    def close(self) -> None:
        if self.fd >= 0:
            self._system.close(self.fd)
            self.fd = -1


# --- reading -----------------------------------------------------------------------------------------------------------------------------------


class LogFile(Struct, frozen=True):
    """A redo file found beside a page file."""

    number: int
    path: str
    header: fmt.RedoHeader


class Inventory(Struct, frozen=True):
    """All redo files beside a page file, sorted out."""

    files: tuple[LogFile, ...]  # begun, of this page file, by number
    strays: tuple[tuple[str, int], ...]  # (path, file id) of another page file's
    unbegun: tuple[str, ...]  # created, header never completed, nothing behind it
    highest: int  # highest number in use by anything, 0: none


def inventory(system: System, prefix: str, base: str, file_id: int) -> Inventory:
    """Look at every redo file's header.

    Raises:
        CorruptError: a header is damaged and the file is not empty. FormatVersionError: written by a newer dbzero.
    """
    files: list[LogFile] = []
    strays: list[tuple[str, int]] = []
    unbegun: list[str] = []
    highest = 0
    try:
        numbers = names.redo_numbers(system, base)
    except OSError as exc:
        raise storage_error(exc, prefix, os.path.dirname(base), "list") from exc
    for number in numbers:
        path = names.redo_path(base, number)
        try:
            fd = system.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue  # truncated away meanwhile
        except OSError as exc:
            raise storage_error(exc, prefix, path, "open") from exc
        try:
            header = fmt.decode_redo(read_exact(system, fd, fmt.PAGE, 0), path)
            empty = header is not None or not _has_bytes(system, fd)
            if not empty:  # a writer may have completed the header just now
                header = fmt.decode_redo(read_exact(system, fd, fmt.PAGE, 0), path)
        except OSError as exc:
            raise storage_error(exc, prefix, path, "read") from exc
        finally:
            system.close(fd)
        if header is None:
            if not empty:
                raise errors.CorruptError(
                    f"prefix {prefix!r}: the header of log file {path} is damaged (address 0), commits in it cannot be read; restore the files from a copy"
                )
            unbegun.append(path)
            highest = max(highest, number)
        elif header.file_id != file_id:
            strays.append((path, header.file_id))
        elif header.number != number:
            raise errors.CorruptError(
                f"prefix {prefix!r}: log file {path} was written as number {header.number}; give it its name back"
            )
        else:
            files.append(LogFile(number, path, header))
            highest = max(highest, number)
    return Inventory(tuple(files), tuple(strays), tuple(unbegun), highest)


def inventory_numbers(system: System, base: str) -> list[int]:
    """Numbers of all redo files, whoever's."""
    return names.redo_numbers(system, base)


def _has_bytes(system: System, fd: int) -> bool:
    """Whether anything but zeros stands behind the header page."""
    position, size = fmt.PAGE, system.size(fd)
    while position < size:
        data = read_exact(system, fd, min(WINDOW, size - position), position)
        if not data:
            return False
        if data.count(0) != len(data):
            return True
        position += len(data)
    return False


class Span(Struct, frozen=True):
    """The part of a redo file that counts: frames after (state, chain), up to and including `stop`."""

    file: LogFile
    stop: tuple[int, int] | None  # (state, chain) a later file continues from; None: to the end


def plan(prefix: str, files: tuple[LogFile, ...], meta: Meta) -> list[Span]:
    """Which files continue from a checkpoint, oldest first.

    Raises:
        StaleFileError: the log starts behind the checkpoint. CorruptError: a file in between is missing.
    """
    by_number = {f.number: f for f in files}
    spans: list[Span] = []
    number = files[-1].number if files else 0
    stop: tuple[int, int] | None = None
    while number >= meta.redo:
        file = by_number.get(number)
        if file is None and number < files[0].number:
            break  # what the oldest one continues from was in the page file once
        if file is None:
            raise errors.CorruptError(
                f"prefix {prefix!r}: log file number {number} is missing, number {spans[-1].file.number} continues from it; restore it from a copy"
            )
        spans.append(Span(file, stop))
        header = file.header
        if header.state <= meta.state:
            break
        stop = (header.state, header.chain)
        number = header.previous
        if number >= file.number:
            raise errors.CorruptError(
                f"prefix {prefix!r}: log file {file.path} continues from a later file; restore the files from a copy"
            )
    spans.reverse()
    if spans:
        first = spans[0].file
        if first.header.state > meta.state:
            raise errors.StaleFileError(
                f"prefix {prefix!r}: the page file ends at state {meta.state} but its log {first.path} continues from state {first.header.state}: "
                "an earlier copy of the page file was put in its place. Put the newer page file back, or move the log files away to go on from the copy"
            )
        if first.header.state == meta.state and first.header.chain != meta.chain:
            raise errors.StaleFileError(
                f"prefix {prefix!r}: log {first.path} continues another history than the page file's at state {meta.state}. "
                "Put the page file back that belongs to it, or move the log files away to go on without them"
            )
    return spans


class Tail(Struct):
    """Where reading ended: the newest frame that counts."""

    number: int  # log file it stands in; 0: the checkpoint itself
    state: int
    chain: int
    durable: int  # newest durable state any frame or mark knew
    data_base: int  # region of the last file
    data_limit: int


def read_frames(system: System, prefix: str, base: str, file_id: int, meta: Meta, tail: Tail) -> Iterator[Frame]:
    """The frames after `meta` in order; `tail` follows them and is complete when the iterator is exhausted."""
    found = inventory(system, prefix, base, file_id)
    for span in plan(prefix, found.files, meta):
        header = span.file.header
        tail.data_base, tail.data_limit = header.data_base, header.data_limit
        if header.state <= meta.state:
            tail.state, tail.chain = header.state, header.chain
        yield from _read_span(system, prefix, span, meta, tail)


def _read_span(system: System, prefix: str, span: Span, meta: Meta, tail: Tail) -> Iterator[Frame]:
    path, number = span.file.path, span.file.number
    try:
        fd = system.open(path, os.O_RDONLY)
    except OSError as exc:
        raise storage_error(exc, prefix, path, "open") from exc
    held: Frame | None = None  # the newest commit is held back: a VOID frame may follow
    held_chain = 0
    tail.number = number
    try:
        scanner = _Scanner(system, fd, span.file.header)
        state, chain, offset = span.file.header.state, span.file.header.chain, fmt.PAGE
        while span.stop is None or (state, chain) != span.stop:
            frame, size = scanner.frame(offset, chain)
            if frame is None:
                scanner.forget()
                frame, size = scanner.frame(offset, chain)
            if frame is None:
                at = scanner.evidence(offset, state + 1)
                if at and scanner.frame(offset, chain)[0] is not None:
                    continue  # its writer was only just writing it
                if at or span.stop is not None:
                    why = (
                        f"a later frame at {at} knew it durable" if at else "a later log file continues from behind it"
                    )
                    raise errors.CorruptError(
                        f"prefix {prefix!r}: log file {path} is damaged at address {offset} (state {state + 1}), {why}; restore the files from a copy"
                    )
                break
            tail.durable = max(tail.durable, frame.durable)
            offset += size
            if frame.kind == fmt.VOID:
                if frame.state != state - 1 or (held is None and state > meta.state):
                    raise _disorder(prefix, path, offset - size, frame.state, state)
                held = None
            else:
                if frame.state != state + (frame.kind == fmt.COMMIT) and frame.state != state + 1:
                    raise _disorder(prefix, path, offset - size, frame.state, state)
                if held is not None:
                    tail.state, tail.chain = held.state, held_chain
                    yield held
                held = frame if frame.state > meta.state else None
                held_chain = frame.chain
            state, chain = frame.state, frame.chain
        tail.durable = max(tail.durable, scanner.mark(offset))
        tail.state, tail.chain = state, chain
        if held is not None:
            yield held
    except OSError as exc:
        raise storage_error(exc, prefix, path, "read") from exc
    finally:
        system.close(fd)


def _disorder(prefix: str, path: str, offset: int, state: int, before: int) -> errors.CorruptError:
    return errors.CorruptError(
        f"prefix {prefix!r}: log file {path}: frame at address {offset} has state {state} behind state {before}; restore the files from a copy"
    )


class _Scanner:
    """Verified frames of one file through a read window."""

    def __init__(self, system: System, fd: int, header: fmt.RedoHeader) -> None:
        self._system = system
        self._fd = fd
        self._salt = header.salt
        self._number = header.number
        self._window = b""
        self._start = 0

    def forget(self) -> None:
        """Read the file anew from now on."""
        self._window = b""

    def _bytes(self, offset: int, length: int) -> memoryview:
        """Up to `length` bytes at `offset`; fewer at the end of the file."""
        at = offset - self._start
        if at < 0 or at + length > len(self._window):
            self._window = read_exact(self._system, self._fd, max(length, WINDOW), offset)
            self._start, at = offset, 0
        return memoryview(self._window)[at : at + length]

    def frame(self, offset: int, seed: int) -> tuple[Frame | None, int]:
        """The verified frame at `offset` and its size in the file; (None, 0) when there is none."""
        head = self._bytes(offset, fmt.FRAME_HEAD)
        parsed = fmt.decode_frame_head(head, 0, salt=self._salt, offset=offset)
        if parsed is None or parsed.kind == fmt.MARK:
            return None, 0
        if parsed.length and offset + fmt.FRAME_HEAD + parsed.length > self._system.size(self._fd):
            return None, 0
        whole = self._bytes(offset, fmt.FRAME_HEAD + parsed.length)
        if len(whole) < fmt.FRAME_HEAD + parsed.length:
            return None, 0
        body = whole[fmt.FRAME_HEAD :]
        if fmt.frame_chain(whole[: fmt.FRAME_HEAD], body, seed) != parsed.chain:
            return None, 0
        frame = Frame(
            parsed.kind,
            parsed.epoch,
            parsed.state,
            parsed.durable,
            parsed.next_oid,
            parsed.chain,
            bytes(body),
            self._number,
        )
        return frame, fmt.FRAME_HEAD + fmt.align8(parsed.length)

    def mark(self, offset: int) -> int:
        """Durable state noted by a mark at `offset`, 0 when there is none."""
        parsed = fmt.decode_frame_head(self._bytes(offset, fmt.FRAME_HEAD), 0, salt=self._salt, offset=offset)
        return parsed.durable if parsed is not None and parsed.kind == fmt.MARK else 0

    def evidence(self, offset: int, state: int) -> int:
        """Address of a frame or mark at or behind `offset` that knew `state` durable; 0 when there is none."""
        position, size = offset, self._system.size(self._fd)
        while position < size:
            data = read_exact(self._system, self._fd, min(WINDOW + fmt.FRAME_HEAD, size - position), position)
            if not data:
                return 0
            at = fmt.find_frame(data, 0)
            while 0 <= at < WINDOW:
                where = position + at
                if where % 8 == 0:
                    parsed = fmt.decode_frame_head(data, at, salt=self._salt, offset=where)
                    if parsed is not None and parsed.durable >= state:
                        return where
                at = fmt.find_frame(data, at + 1)
            position += WINDOW
        return 0


# --- creating and setting aside ----------------------------------------------------------------------------------------------------------------


def create(system: System, prefix: str, base: str, number: int) -> int:
    """Create a redo file exclusively; returns the descriptor.

    Raises:
        FencedError: another writer has it already.
    """
    path = names.redo_path(base, number)
    try:
        return system.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        raise errors.FencedError(
            f"prefix {prefix!r}: {path} exists already, another process has taken over writing; reopen the prefix"
        ) from None
    except OSError as exc:
        raise storage_error(exc, prefix, path, "create") from exc


def set_aside(system: System, prefix: str, path: str) -> str:
    """Rename a redo file of another page file; returns its new name."""
    k = 1
    while system.exists(f"{path}.stray.{k}"):
        k += 1
    target = f"{path}.stray.{k}"
    try:
        system.rename(path, target)
    except FileNotFoundError:
        return target
    except OSError as exc:
        raise storage_error(exc, prefix, path, "set aside") from exc
    return target


def delete(system: System, prefix: str, base: str, upto: int) -> int:
    """Delete redo files with a number below `upto`, oldest first; returns how many."""
    count = 0
    try:
        for number in names.redo_numbers(system, base):
            if number < upto:
                try:
                    system.unlink(names.redo_path(base, number))
                except OSError as exc:
                    if exc.errno != errno.ENOENT:
                        raise
                count += 1
        if count:
            system.sync_dir(os.path.dirname(base))
    except OSError as exc:
        raise storage_error(exc, prefix, names.redo_path(base, upto), "delete log files below") from exc
    return count
