"""``check(store)``: everything a prefix's files say, against each other.

Walks the metas, the free list, the whole object table, every record of every version chain, the log, and recounts the
references. Returns what is wrong as a list of sentences; an empty list means sound. Reads only, and trusts nothing:
damaged files give problems, not exceptions.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Final

from .. import errors
from . import decisions, names
from . import format as fmt
from . import records as rec
from .filestore import LocalFileStore
from .records import Damage
from .store import Meta

LOG_OID: Final = 2
_WINDOW: Final = 1 << 18
_MOST: Final = 200  # problems reported before giving up


class _Enough(Exception):
    pass


class _Check:
    def __init__(self, store: LocalFileStore, progress: Callable[[int, int], None] | None) -> None:
        self.store = store
        self.uuid = store.identity.prefix_uuid
        self.problems: list[str] = []
        self.progress = progress
        self.window = b""
        self.window_at = 0
        self.patches: dict[int, bytes] = {}  # page -> bytes, where the log holds newer data than the page file
        self.table: dict[int, tuple[int, int]] = {}  # OID -> (address, refcount)
        self.pages: set[int] = set()  # in use by the table or the free list itself
        self.free: dict[int, int] = {}
        self.starts: array[int] = array("Q")
        self.ends: array[int] = array("Q")
        self.data_end = 0
        self.state = 0
        self.floor = 0  # oldest state kept: below it only the newest version of each object is

    def problem(self, text: str) -> None:
        self.problems.append(text)
        if len(self.problems) >= _MOST:
            raise _Enough

    def read(self, address: int, length: int) -> bytes:
        """Page file bytes as recovery would leave them."""
        at = address - self.window_at
        if at < 0 or at + length > len(self.window):
            start = address & ~(fmt.PAGE - 1)
            size = max(_WINDOW, fmt.align_page(address + length - start))
            data = self.store.read_page(start, size)
            if self.patches:
                out = bytearray(data.ljust(size, b"\0"))
                for page in range(start // fmt.PAGE, (start + size) // fmt.PAGE):
                    patch = self.patches.get(page)
                    if patch is not None:
                        out[page * fmt.PAGE - start : page * fmt.PAGE - start + fmt.PAGE] = patch
                data = bytes(out)
            self.window, self.window_at = data, start
            at = address - start
        return self.window[at : at + length]

    # --- the parts -----------------------------------------------------------------------------------------------------------------------

    def metas(self) -> Meta | None:
        slots = [
            fmt.decode_meta(self.store.read_page(at, fmt.PAGE), self.store.identity.file_id) for at in fmt.META_SLOTS
        ]
        for at, slot in zip(fmt.META_SLOTS, slots, strict=True):
            if slot is None:
                self.problem(f"meta slot at {at} is damaged")
        try:
            return self.store.read_meta()
        except errors.StorageError as exc:
            self.problem(str(exc))
            return None

    def free_list(self, meta: Meta) -> None:
        pointer, count = meta.free_head, 0
        while pointer:
            address = rec.pointer_page(pointer)
            page = self.page(pointer, rec.FREE, 0, meta)
            if page is None:
                return
            if page.used > rec.INNER_ENTRIES:
                self.problem(f"free list page at {address} says it has {page.used} entries")
                return
            for entry in page.pointers()[: page.used]:
                number = entry & rec.PAGE_MASK
                if number * fmt.PAGE < fmt.FIRST_DATA or (number + 1) * fmt.PAGE > meta.data_end:
                    self.problem(f"free list page at {address} names page {number}, out of range")
                elif number in self.free:
                    self.problem(f"page {number} is twice in the free list")
                self.free[number] = entry >> 40
                count += 1
            pointer = page.first
        if count != meta.free_count:
            self.problem(f"the free list has {count} pages, the meta says {meta.free_count}")

    def page(self, pointer: int, kind: int, level: int, meta: Meta) -> rec.TablePage | None:
        """The page a pointer leads to, None when it is damaged or was met before."""
        address = rec.pointer_page(pointer)
        if address < fmt.FIRST_DATA or address + fmt.PAGE > meta.data_end:
            self.problem(f"page pointer {pointer:#x} leads out of the file")
            return None
        if address // fmt.PAGE in self.pages:
            self.problem(f"page at {address} is used twice")
            return None
        self.pages.add(address // fmt.PAGE)
        try:
            page = rec.decode_page(self.store.read_page(address, fmt.PAGE), address, self.uuid)
        except Damage as exc:
            self.problem(str(exc))
            return None
        if page.generation & rec.GENERATION_MASK != rec.pointer_generation(pointer):
            self.problem(
                f"page at {address} was born in checkpoint {page.generation}, its pointer says {rec.pointer_generation(pointer)}"
            )
            return None
        if (page.kind, page.level) != (kind, level):
            self.problem(f"page at {address} has kind {page.kind} and level {page.level}, expected {kind} and {level}")
            return None
        return page

    def tree(self, meta: Meta) -> None:
        if meta.depth > rec.MAX_DEPTH or bool(meta.depth) != bool(meta.root & ~rec.ORPHANS):
            self.problem(f"the table has depth {meta.depth} and root {meta.root:#x}")
            return
        todo = [(meta.root, meta.depth - 1, 0)] if meta.depth else []
        while todo:
            pointer, level, first = todo.pop()
            page = self.page(pointer, rec.INNER if level else rec.LEAF, level, meta)
            if page is None:
                continue
            address = rec.pointer_page(pointer)
            if page.first != first:
                self.problem(f"table page at {address} covers OIDs from {page.first}, expected {first}")
                continue
            used = orphans = 0
            if level:
                for index, child in enumerate(page.pointers()):
                    if child & ~rec.ORPHANS:
                        used += 1
                        orphans |= child >> 63
                        todo.append((child, level - 1, first + index * rec.span(level)))
            else:
                for oid, where, refcount in page.entries():
                    used += 1
                    orphans |= refcount == 0 and oid >= fmt.FIRST_OID
                    self.table[oid] = (where, refcount)
            if used != page.used:
                self.problem(f"table page at {address} has {used} entries, it says {page.used}")
            if bool(orphans) != bool(pointer & rec.ORPHANS):
                self.problem(
                    f"table page at {address}: its pointer's orphan bit is {pointer >> 63}, its content says {int(orphans)}"
                )

    def log(self, meta: Meta) -> None:
        self.state, self.floor = meta.state, meta.floor
        self.data_end = meta.data_end
        try:
            for frame in decisions.commits(self.store, meta, decisions.look):
                body = rec.decode_body(frame.body)
                self.data(body)
                for oid, address, refcount, flags in body.changes:
                    self.table[oid] = (address, rec.GONE if flags & rec.CHANGE_TOMBSTONE else refcount)
                self.state = frame.state
                self.data_end = max(self.data_end, body.data_address + body.data_length)
        except (errors.StorageError, Damage) as exc:
            self.problem(f"log: {exc}")

    def data(self, body: rec.Body) -> None:
        """What a frame says about data, against the page file."""
        here = self.store.read_page(body.data_address, body.data_length)
        if body.in_place:
            if fmt.xxh3(here) != body.data_sum:
                self.problem(f"data at {body.data_address} that a frame relies on has another checksum")
        elif here != body.data:  # after a power loss: recovery writes it again
            at = 0
            while at < body.data_length:
                page, within = divmod(body.data_address + at, fmt.PAGE)
                n = min(fmt.PAGE - within, body.data_length - at)
                old = self.patches.get(page) or self.store.read_page(page * fmt.PAGE, fmt.PAGE).ljust(fmt.PAGE, b"\0")
                self.patches[page] = old[:within] + bytes(body.data[at : at + n]) + old[within + n :]
                at += n
            self.window = b""

    # --- records -------------------------------------------------------------------------------------------------------------------------

    def record(self, address: int, oid: int) -> rec.Record | None:
        try:
            if not fmt.FIRST_DATA <= address < self.data_end:
                raise Damage("address is out of range")
            size = rec.record_size(self.read(address, 16))
            if address + size > self.data_end:
                raise Damage("record runs over the end of the data")
            record = rec.decode_record(self.read(address, size), address, self.uuid)
            if record.oid != oid:
                raise Damage(f"record belongs to object {record.oid}")
        except Damage as exc:
            self.problem(f"object {oid}, record at {address}: {exc}")
            return None
        self.starts.append(address)
        self.ends.append(address + size)
        return record

    def objects(self) -> None:
        counts: dict[int, int] = {}
        changed: dict[int, int] = {}  # state -> sum of the OIDs that have a version of it
        listed: dict[int, int] = {}
        total = len(self.table)
        for done, (oid, (address, refcount)) in enumerate(self.table.items()):
            if self.progress and done % 1000 == 0:
                self.progress(done, total)
            held = self.chain(oid, address, refcount, changed, listed)
            for target in held:
                counts[target] = counts.get(target, 0) + 1
        for oid, (_, refcount) in self.table.items():
            found = counts.pop(oid, 0)
            if refcount == rec.GONE:
                if found:
                    self.problem(f"object {oid} is deleted but {found} references to it are stored")
            elif found != refcount and oid >= fmt.FIRST_OID:
                self.problem(f"object {oid} has refcount {refcount}, {found} references to it are stored")
        for oid, found in counts.items():
            self.problem(f"object {oid} does not exist but {found} references to it are stored")
        for state in sorted({*changed, *listed}):
            if state > self.floor and changed.get(state) != listed.get(state):
                self.problem(f"the commit log of state {state} does not list what has a version of that state")

    def chain(
        self, oid: int, address: int, refcount: int, changed: dict[int, int], listed: dict[int, int]
    ) -> tuple[int, ...]:
        """Walk one object's versions, newest to oldest; returns what the newest one holds."""
        held: tuple[int, ...] | None = None
        expected_ordinal: int | None = None
        state_above = self.state + 1
        by_ordinal: dict[int, int] = {}  # wanted skip targets: ordinal -> address
        deltas: list[rec.Record] = []
        first = True
        while address:
            record = self.record(address, oid)
            if record is None:
                break
            where = f"object {oid}, record at {address}"
            if first and bool(record.flags & rec.TOMBSTONE) != (refcount == rec.GONE):
                self.problem(f"{where}: refcount {refcount:#x} in the table does not fit its flags {record.flags:#x}")
            first = False
            if not 0 < record.state < state_above:
                self.problem(f"{where} has state {record.state}, below {state_above} expected")
            if expected_ordinal is not None and record.ordinal != expected_ordinal:
                self.problem(f"{where} is version {record.ordinal}, expected {expected_ordinal}")
                break
            if by_ordinal.pop(record.ordinal, address) != address:
                self.problem(f"{where}: a skip pointer to version {record.ordinal} leads elsewhere")
            if record.skip:
                target = rec.skip_ordinal(record.ordinal)
                if by_ordinal.setdefault(target, record.skip) != record.skip:
                    self.problem(f"{where}: skip pointer disagrees with another one to version {target}")
            if held is None and (not record.flags & rec.DELTA or record.flags & rec.HAS_REFS):
                held = record.refs
            self.payload(record, deltas, where)
            if oid == LOG_OID:
                self.listing(record, listed, where)
            else:
                changed[record.state] = changed.get(record.state, 0) + oid
            if not record.prev and record.ordinal:
                self.problem(f"{where} is version {record.ordinal} but has no previous one")
            expected_ordinal, state_above, address = record.ordinal - 1, record.state, record.prev
        if deltas and not address:
            self.problem(f"object {oid}: its oldest version is a change to nothing")
        return held or ()

    def payload(self, record: rec.Record, deltas: list[rec.Record], where: str) -> None:
        """Check that DELTA records fit the version they change, as soon as that is met."""
        if record.flags & rec.DELTA:
            deltas.append(record)
            if len(deltas) > rec.DELTAS_IN_A_ROW:
                self.problem(f"{where}: more than {rec.DELTAS_IN_A_ROW} changes in a row")
                deltas.clear()
            return
        length = len(record.body)
        for delta in reversed(deltas):
            if record.flags & rec.TOMBSTONE or delta.head + delta.tail > length:
                self.problem(
                    f"object {record.oid}, record at {delta.address}: changes more than the version before it has"
                )
                break
            length = delta.head + delta.tail + len(delta.body)
        deltas.clear()

    def listing(self, record: rec.Record, listed: dict[int, int], where: str) -> None:
        if record.flags & rec.DELTA:
            self.problem(f"{where}: the commit log never has changes only")
            return
        try:
            _, oids = rec.decode_changes(record.body)
        except Damage as exc:
            self.problem(f"{where}: {exc}")
            return
        if oids:
            listed[record.state] = sum(oids)

    def overlaps(self) -> None:
        """No two records share a byte, and none stands in a table page or a free page."""
        taken = self.pages | set(self.free)
        end_before = 0
        for start, end in sorted(zip(self.starts, self.ends, strict=True)):
            if start < end_before:
                self.problem(f"the record at {start} overlaps the one before it")
            end_before = max(end_before, end)
            for page in range(start // fmt.PAGE, (end - 1) // fmt.PAGE + 1):
                if page in taken:
                    self.problem(f"the record at {start} stands in page {page}, which is a table page or free")
        for page in self.pages & set(self.free):
            self.problem(f"page {page} is both free and in use")

    def run(self) -> list[str]:
        try:
            meta = self.metas()
            if meta is not None:
                self.free_list(meta)
                self.tree(meta)
                self.log(meta)
                self.objects()
                self.overlaps()
        except _Enough:
            self.problems.append("...")
        except errors.CheckpointMovedError:
            raise
        except errors.StorageError as exc:
            self.problems.append(str(exc))
        return self.problems


def check(store: LocalFileStore, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Verify a prefix's files.

    Args:
        store: open store; another process may write to it meanwhile.
        progress: called now and then with (objects done, objects in all).
    Returns:
        what is wrong, one sentence each; empty when everything is sound.
    """
    while True:
        try:
            before = store.read_meta()
        except errors.StorageError:
            return _Check(store, progress).run()
        problems = _Check(store, progress).run()
        try:
            moved = store.read_meta().checkpoint != before.checkpoint
        except errors.StorageError:
            moved = False
        if not problems or not moved:
            return problems


def check_root(root: str, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Verify every prefix below a root directory; the problems, each with its prefix's name in front. A root that
    does not exist has none.
    """
    problems: list[str] = []
    for name in names.discover(root):
        try:
            store = LocalFileStore.open(root, name, writable=False)
        except errors.Error as exc:
            problems.append(f"{name}: {exc}")
            continue
        try:
            problems += [f"{name}: {problem}" for problem in check(store, progress)]
        finally:
            store.close()
    return problems
