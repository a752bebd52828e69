"""Every flipped byte of page file and log is detected, or harmless."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dbzero import errors
from dbzero.storage import format as fmt
from dbzero.storage import records as rec
from dbzero.storage.verify import check
from tests.storage.engine import Db, Segment
from tests.storage.memstore import MemoryDisk, MemoryStore

PAGE_FILE = "/root/memory.db0"
OIDS = range(16, 30)


@pytest.fixture(scope="module")
def segment() -> Iterator[Segment]:
    s = Segment()
    yield s
    s.close()


def build(segment: Segment) -> tuple[MemoryDisk, dict[int, bytes]]:
    """A small prefix: a checkpoint, then three acknowledged commits in the log; its holder was killed."""
    disk = MemoryDisk()
    db = Db(MemoryStore.on(disk), segment, region=1 << 16)
    db.commit({16: (b"sixteen", []), 17: (b"seventeen", [16])})
    db.commit({16: (b"sixteen again", [])})
    db.checkpoint()
    db.commit({18: (b"eighteen", [17, 17])})
    db.commit({17: (b"seventeen too", [16]), 19: (b"x" * 90, [])}, in_place=True)
    db.commit({20: (b"twenty", [])})
    content = db.dump(OIDS)
    db.reader.close()
    return disk.kill(), content


def log_path(disk: MemoryDisk) -> str:
    return max(p for p in disk.files() if ".redo." in p)


def outcome(disk: MemoryDisk, segment: Segment) -> dict[int, bytes] | None:
    """What a reader finds; None when it is told that something is damaged."""
    store = None
    try:
        store = MemoryStore.on(disk, writable=False)
        db = Db(store, segment)
        try:
            return db.dump(OIDS)
        finally:
            db.reader.close()
    except errors.StorageError as exc:
        assert "/root/memory" in str(exc), exc
        return None
    finally:
        if store is not None:
            store.close()


def flips(disk: MemoryDisk, path: str, addresses: range, segment: Segment, content: dict[int, bytes]) -> int:
    """Flip one bit in each byte; returns how many flips were detected. Undetected ones must change nothing."""
    clean = disk.files()[path]
    detected = 0
    for address in addresses:
        disk.poke(path, address, bytes([clean[address] ^ 1 << address % 8]))
        found = outcome(disk, segment)
        if found is None:
            detected += 1
        else:
            assert found == content, f"flipped bit at {address} of {path} went unnoticed and changed what is read"
        disk.poke(path, address, clean[address : address + 1])
    assert outcome(disk, segment) == content
    return detected


def test_log(segment: Segment) -> None:
    disk, content = build(segment)
    path = log_path(disk)
    data = disk.files()[path]
    end = max(i for i in range(len(data)) if data[i]) + 1
    mark = data.rindex(b"FRM1")
    assert data[mark + 4] == fmt.MARK
    detected = flips(disk, path, range(4096, end), segment, content)
    padding = 7 * 3
    assert detected >= mark - 4096 - padding, "only padding and the mark may go unnoticed"


def test_log_header(segment: Segment) -> None:
    disk, content = build(segment)
    detected = flips(disk, log_path(disk), range(0, 4096, 1), segment, content)
    assert detected == 4096


def test_page_file_header(segment: Segment) -> None:
    disk, content = build(segment)
    assert flips(disk, PAGE_FILE, range(0, 4096, 3), segment, content) == len(range(0, 4096, 3))


def test_one_meta_slot_is_enough(segment: Segment) -> None:
    disk, content = build(segment)
    for slot in fmt.META_SLOTS:
        assert flips(disk, PAGE_FILE, range(slot, slot + 4096, 13), segment, content) == 0


def test_both_meta_slots(segment: Segment) -> None:
    disk, _ = build(segment)
    for slot in fmt.META_SLOTS:
        disk.poke(PAGE_FILE, slot + 40, b"\xff")
    with pytest.raises(errors.CorruptError, match="both meta slots"):
        MemoryStore.on(disk)


def test_data_and_tables(segment: Segment) -> None:
    """Records, table pages, free list: read wrong is impossible; the checker sees every flip in a page and record
    that is in use.
    """
    disk, content = build(segment)
    store = MemoryStore.on(disk, writable=False)
    meta = store.read_meta()
    used = [rec.pointer_page(meta.root), rec.pointer_page(meta.free_head)]
    store.close()
    clean = disk.files()[PAGE_FILE]
    last = max(i for i in range(len(clean)) if clean[i]) + 1
    flips(disk, PAGE_FILE, range(3 * 4096, last, 7), segment, content)
    for page in used:
        for address in range(page, page + 4096, 11):
            disk.poke(PAGE_FILE, address, bytes([clean[address] ^ 1]))
            store = MemoryStore.on(disk, writable=False)
            assert check(store) != [], address
            store.close()
            disk.poke(PAGE_FILE, address, clean[address : address + 1])


def test_truncated_page_file(segment: Segment) -> None:
    disk, content = build(segment)
    size = len(disk.files()[PAGE_FILE])
    for length in (0, 1, 8, 100, 4095, 4096, 8192, 12288, 20000):
        fd = disk.open(PAGE_FILE, 2)
        clean = disk.files()[PAGE_FILE]
        disk.ftruncate(fd, length)
        with pytest.raises((errors.CorruptError, errors.NotAStoreError), match=r"memory\.db0"):
            MemoryStore.on(disk)
        disk.ftruncate(fd, size)
        disk.poke(PAGE_FILE, 0, clean)
        disk.close(fd)
    assert outcome(disk, segment) == content


def test_truncated_log(segment: Segment) -> None:
    """A log cut anywhere gives a prefix of the history: what is cut off cannot be known."""
    disk, _ = build(segment)
    path = log_path(disk)
    data = disk.files()[path]
    end = data.rindex(b"FRM1")
    states = set()
    fd = disk.open(path, 2)
    for length in range(end, 4095, -5):
        disk.ftruncate(fd, length)
        store = MemoryStore.on(disk, writable=False)
        states.add(store.read_meta().state + len(list(store.read_log(store.read_meta()))))
        store.close()
    assert states == {3, 4, 5, 6}


def test_missing_log_in_the_middle(segment: Segment) -> None:
    disk = MemoryDisk()
    store = MemoryStore.on(disk)
    db = Db(store, segment, region=1 << 16)
    for i in range(3):
        db.commit({16 + i: (b"x", [])})
        _, state, chain = store.position
        store.begin_log(epoch=store.epoch, state=state, chain=chain, data_base=1 << 16, data_limit=1 << 17)
        db.data_end = 1 << 16
        if i:
            break
    disk.unlink("/root/memory.redo.2")
    reader = MemoryStore.on(disk, writable=False)
    with pytest.raises(errors.CorruptError, match="number 2 is missing"):
        list(reader.read_log(reader.read_meta()))
    db.close()


def test_garbage_never_crashes_the_decoders() -> None:
    import random

    rng = random.Random(3)
    for _ in range(3000):
        blob = rng.randbytes(rng.randrange(200))
        for decode in (
            lambda b=blob: rec.decode_record(b, 20000, 1),
            lambda b=blob: rec.decode_body(b),
            lambda b=blob: rec.decode_changes(b),
            lambda b=blob: rec.decode_page(b.ljust(4096, b"\1"), 16384, 1),
        ):
            with pytest.raises(rec.Damage):
                decode()
                raise rec.Damage  # valid by chance
