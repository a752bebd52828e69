"""What every store must do. A store's test module subclasses :class:`StoreConformance` and says how one is opened.

``open_store(prefix, ...)`` opens another handle on the same bytes; ``crash()`` closes nothing and makes all open
handles worthless, as the death of all processes does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

import pytest
from msgspec.structs import replace

from dbzero import errors
from dbzero.storage import format as fmt
from dbzero.storage.filestore import LocalFileStore
from dbzero.storage.store import Frame, Store

REGION = 1 << 30


def begin(store: LocalFileStore, *, force: bool = False) -> int:
    """Take the lease and begin a log where the old one ends; returns the epoch."""
    epoch = store.acquire(force=force)
    meta = store.read_meta()
    frames = list(store.read_log(meta))
    state, chain = (frames[-1].state, frames[-1].chain) if frames else (meta.state, meta.chain)
    base = (
        meta.data_end
        if not store.tail
        else max(meta.data_end, store.tail.data_limit if force else store.tail.data_base)
    )
    store.begin_log(epoch=epoch, state=state, chain=chain, data_base=base, data_limit=base + REGION)
    return epoch


def commit(store: LocalFileStore, epoch: int, body: bytes, *, sync: bool = True, mark: bool = True) -> int:
    """Append one frame the way a commit does; returns its state."""
    _, state, _ = store.position
    store.reserve(log_bytes=len(body), data_end=store.read_meta().data_end)
    store.append(kind=fmt.COMMIT, epoch=epoch, state=state + 1, durable=state, next_oid=16 + state, body=body)
    if sync:
        store.sync_log()
        if mark:
            store.mark_durable(state + 1)
    return state + 1


def bodies(frames: Iterable[Frame]) -> list[bytes]:
    return [f.body for f in frames]


def checkpoint(store: LocalFileStore, epoch: int) -> None:
    """A checkpoint with no pages: cut, put the meta in force, truncate."""
    meta = store.read_meta()
    _, state, chain = store.position
    number = store.begin_log(
        epoch=epoch, state=state, chain=chain, data_base=meta.data_end, data_limit=meta.data_end + REGION
    )
    store.put_meta(replace(meta, checkpoint=meta.checkpoint + 1, state=state, chain=chain, redo=number, epoch=epoch))
    store.truncate_log(number)


class StoreConformance:
    """Tests of the store protocol."""

    def open_store(self, prefix: str = "p", *, writable: bool = True, create: bool = True) -> LocalFileStore:
        raise NotImplementedError

    def crash(self) -> None:
        raise NotImplementedError

    @pytest.fixture
    def store(self) -> Iterable[LocalFileStore]:
        store = self.open_store()
        yield store
        store.close()

    def test_protocol(self, store: LocalFileStore) -> None:
        checked: Store = store
        for name in [n for n in vars(Store) if not n.startswith("_")]:
            assert hasattr(checked, name), name

    def test_fresh(self, store: LocalFileStore) -> None:
        meta = store.read_meta()
        assert (meta.checkpoint, meta.state, meta.root, meta.depth, meta.next_oid) == (1, 1, 0, 0, 16)
        assert meta.data_end == 3 * 4096
        assert list(store.read_log(meta)) == []
        assert store.identity.page_size == 4096
        other = self.open_store("other")
        assert other.identity.file_id != store.identity.file_id
        assert other.identity.prefix_uuid != store.identity.prefix_uuid
        other.close()

    def test_reopen_keeps_identity(self, store: LocalFileStore) -> None:
        identity = store.identity
        store.close()
        again = self.open_store(create=False)
        assert again.identity == identity
        again.close()

    def test_missing(self) -> None:
        with pytest.raises(errors.PrefixError, match="nowhere"):
            self.open_store("nowhere", create=False)
        with pytest.raises(errors.PrefixError):
            self.open_store("nowhere", writable=False)

    def test_frames_come_back(self, store: LocalFileStore) -> None:
        epoch = begin(store)
        wanted = [b"", b"x", b"12345678", b"y" * 5000, bytes(100_000), b"end"]
        for body in wanted:
            commit(store, epoch, body)
        reader = self.open_store(writable=False)
        frames = list(reader.read_log(reader.read_meta()))
        assert bodies(frames) == wanted
        assert [f.state for f in frames] == [2, 3, 4, 5, 6, 7]
        assert {f.epoch for f in frames} == {epoch}
        assert reader.tail is not None and reader.tail.durable == 7
        reader.close()

    def test_frame_larger_than_any_step(self, store: LocalFileStore) -> None:
        epoch = begin(store)
        big = bytes(range(256)) * (9 << 12)
        commit(store, epoch, big)
        commit(store, epoch, b"after")
        assert bodies(store.read_log(store.read_meta())) == [big, b"after"]

    def test_memoryview_body(self, store: LocalFileStore) -> None:
        epoch = begin(store)
        store.reserve(log_bytes=5, data_end=0)
        store.append(kind=1, epoch=epoch, state=2, durable=1, next_oid=16, body=memoryview(bytearray(b"abcde")))
        assert bodies(store.read_log(store.read_meta())) == [b"abcde"]

    def test_survives_crash(self, store: LocalFileStore) -> None:
        epoch = begin(store)
        for i in range(20):
            commit(store, epoch, b"%d" % i)
        self.crash()
        again = self.open_store()
        assert bodies(again.read_log(again.read_meta())) == [b"%d" % i for i in range(20)]
        epoch2 = begin(again)
        assert epoch2 > epoch
        commit(again, epoch2, b"next")
        assert bodies(again.read_log(again.read_meta()))[-1] == b"next"
        again.close()

    def test_epochs_grow(self, store: LocalFileStore) -> None:
        epochs = []
        for _ in range(3):
            epochs.append(store.acquire())
            store.release()
        other = self.open_store()
        epochs.append(other.acquire())
        other.close()
        assert epochs == sorted(set(epochs))

    def test_lease_excludes(self, store: LocalFileStore) -> None:
        store.acquire()
        other = self.open_store()
        with pytest.raises(errors.LeaseError, match="process"):
            other.acquire()
        started = time.monotonic()
        with pytest.raises(errors.LeaseError):
            other.acquire(blocking=True, timeout=0.05)
        assert 0.04 < time.monotonic() - started < 2
        store.release()
        other.acquire()
        with pytest.raises(errors.LeaseError):
            other.acquire()
        other.close()
        store.acquire()

    def test_lease_waits(self, store: LocalFileStore) -> None:
        store.acquire()
        other = self.open_store()
        timer = threading.Timer(0.05, store.release)
        timer.start()
        other.acquire(blocking=True, timeout=5)
        timer.join()
        other.close()

    def test_lease_dies_with_its_holder(self, store: LocalFileStore) -> None:
        store.acquire()
        self.crash()
        again = self.open_store()
        again.acquire()
        again.close()

    def test_read_only_store_cannot_acquire(self, store: LocalFileStore) -> None:
        reader = self.open_store(writable=False)
        with pytest.raises(errors.ReadOnlyError):
            reader.acquire()
        reader.close()

    def test_append_needs_lease_epoch_and_order(self, store: LocalFileStore) -> None:
        with pytest.raises(errors.LeaseError):
            store.append(kind=1, epoch=1, state=2, durable=1, next_oid=16, body=b"")
        epoch = begin(store)
        with pytest.raises(errors.FencedError):
            store.append(kind=1, epoch=epoch - 1, state=2, durable=1, next_oid=16, body=b"")
        with pytest.raises(ValueError):
            store.append(kind=1, epoch=epoch, state=3, durable=1, next_oid=16, body=b"")
        with pytest.raises(ValueError):
            store.append(kind=4, epoch=epoch, state=2, durable=1, next_oid=16, body=b"")
        commit(store, epoch, b"ok")
        assert bodies(store.read_log(store.read_meta())) == [b"ok"]

    def test_rewind(self, store: LocalFileStore) -> None:
        epoch = begin(store)
        commit(store, epoch, b"one")
        store.append(kind=1, epoch=epoch, state=3, durable=2, next_oid=17, body=b"failed" * 100)
        store.rewind()
        assert store.position[1] == 2
        assert bodies(store.read_log(store.read_meta())) == [b"one"]
        with pytest.raises(ValueError):
            store.rewind()
        commit(store, epoch, b"two")
        assert bodies(store.read_log(store.read_meta())) == [b"one", b"two"]
        store.append(kind=1, epoch=epoch, state=4, durable=3, next_oid=17, body=b"failed")
        store.rewind()
        self.crash()
        again = self.open_store()
        epoch = begin(again)
        assert again.position[1] == 3
        commit(again, epoch, b"three")
        assert bodies(again.read_log(again.read_meta())) == [b"one", b"two", b"three"]
        again.close()

    def test_first_commit_rewound(self, store: LocalFileStore) -> None:
        epoch = begin(store)
        store.append(kind=1, epoch=epoch, state=2, durable=1, next_oid=17, body=b"failed")
        store.rewind()
        assert bodies(store.read_log(store.read_meta())) == []
        checkpoint(store, epoch)
        commit(store, epoch, b"two")
        assert bodies(store.read_log(store.read_meta())) == [b"two"]

    def test_many_log_files(self, store: LocalFileStore) -> None:
        wanted = []
        for i in range(5):
            epoch = begin(store)
            for k in range(i):
                wanted.append(b"%d-%d" % (i, k))
                commit(store, epoch, wanted[-1])
            store.release()
        assert bodies(store.read_log(store.read_meta())) == wanted

    def test_checkpoint_cuts_the_log(self, store: LocalFileStore) -> None:
        epoch = begin(store)
        commit(store, epoch, b"old")
        before = store.read_meta()
        checkpoint(store, epoch)
        commit(store, epoch, b"new")
        meta = store.read_meta()
        assert (meta.checkpoint, meta.state) == (before.checkpoint + 1, 2)
        assert bodies(store.read_log(meta)) == [b"new"]
        with pytest.raises(errors.CheckpointMovedError):
            list(store.read_log(before))
        self.crash()
        again = self.open_store()
        assert again.read_meta() == meta
        assert bodies(again.read_log(meta)) == [b"new"]
        again.close()

    def test_checkpoint_numbers_follow(self, store: LocalFileStore) -> None:
        meta = store.read_meta()
        store.put_meta(meta)  # the one in force
        for number, state in ((1, 5), (5, 5), (0, 1)):
            with pytest.raises(errors.FencedError):
                store.put_meta(replace(meta, checkpoint=number, state=state))
        assert store.read_meta() == meta

    def test_checkpoint_lock(self, store: LocalFileStore) -> None:
        other = self.open_store()
        with store.checkpoint_lock() as mine:
            assert mine
            with other.checkpoint_lock() as theirs:
                assert not theirs
        with other.checkpoint_lock(timeout=1) as theirs:
            assert theirs
        other.close()

    def test_data(self, store: LocalFileStore) -> None:
        epoch = begin(store)
        end = store.read_meta().data_end
        store.reserve(log_bytes=0, data_end=end + 100_000)
        store.write_data(end + 5, b"hello")
        store.write_data(end + 99_995, b"world")
        store.sync_data()
        reader = self.open_store(writable=False)
        assert reader.read_page(end, 10) == b"\0\0\0\0\0hello"
        assert reader.read_page(end + 99_995, 5) == b"world"
        assert reader.read_page(1 << 40, 4096) == b""
        reader.close()
        for address in (0, end - 1, end + REGION - 2):
            with pytest.raises(errors.StorageError):
                store.write_data(address, b"xyz")
        with pytest.raises(errors.StorageError):
            store.reserve(log_bytes=0, data_end=end + REGION + 1)
        commit(store, epoch, b"still fine")

    def test_pages(self, store: LocalFileStore) -> None:
        end = store.read_meta().data_end
        store.write_pages([(end, b"a" * 4096), (end + 8192, b"b" * 4096)])
        assert store.read_page(end + 8190, 4) == b"\0\0bb"
        for address, data in [(0, bytes(4096)), (4096, bytes(4096)), (end + 1, bytes(4096)), (end, b"short")]:
            with pytest.raises(ValueError):
                store.write_pages([(address, data)])

    def test_overlay(self, store: LocalFileStore) -> None:
        begin(store)
        end = store.read_meta().data_end
        store.write_data(end, bytes(range(200)))
        reader = self.open_store(writable=False)
        reader.overlay(end + 100, b"\xff" * 8000)
        assert reader.fileno() == -1
        assert reader.read_page(end, 102) == bytes(range(100)) + b"\xff\xff"
        assert reader.read_page(end + 8096, 100) == b"\xff" * 4
        assert (
            reader.read_page(end + 4096, 4096) == (b"\xff" * 4004)[:4096]
            or len(reader.read_page(end + 4096, 4096)) >= 4004
        )
        assert store.read_page(end + 100, 2) == bytes([100, 101])
        reader.close()

    def test_forced_takeover_fences(self, store: LocalFileStore) -> None:
        epoch = begin(store)
        commit(store, epoch, b"one")
        other = self.open_store()
        epoch2 = begin(other, force=True)
        assert epoch2 > epoch
        commit(other, epoch2, b"two")
        store.append(kind=1, epoch=epoch, state=3, durable=2, next_oid=17, body=b"zombie")
        with pytest.raises(errors.FencedError):
            store.sync_log()
        with pytest.raises(errors.FencedError):
            store.begin_log(
                epoch=epoch, state=store.position[1], chain=store.position[2], data_base=8192, data_limit=8192
            )
        store.append(kind=1, epoch=epoch, state=4, durable=2, next_oid=17, body=b"zombie")
        commit(other, epoch2, b"three")
        assert bodies(other.read_log(other.read_meta())) == [b"one", b"two", b"three"]
        third = self.open_store()
        with pytest.raises(errors.LeaseError):
            third.acquire()
        store.close()
        with pytest.raises(errors.LeaseError):
            third.acquire()
        other.close()
        epoch3 = begin(third)
        assert epoch3 > epoch2
        commit(third, epoch3, b"four")
        assert bodies(third.read_log(third.read_meta())) == [b"one", b"two", b"three", b"four"]
        third.close()

    def test_forced_takeover_before_the_successor_read(self, store: LocalFileStore) -> None:
        """A commit acknowledged up to the fence is seen by the successor; one behind it is not acknowledged."""
        epoch = begin(store)
        commit(store, epoch, b"one")
        other = self.open_store()
        epoch2 = other.acquire(force=True)
        with pytest.raises(errors.FencedError):
            commit(store, epoch, b"two")
        meta = other.read_meta()
        frames = list(other.read_log(meta))
        other.begin_log(
            epoch=epoch2,
            state=frames[-1].state,
            chain=frames[-1].chain,
            data_base=meta.data_end,
            data_limit=meta.data_end + REGION,
        )
        commit(other, epoch2, b"three")
        assert bodies(other.read_log(other.read_meta()))[-1] == b"three"
        other.close()

    def test_abandoned_takeover(self, store: LocalFileStore) -> None:
        """A successor that died between fencing and its first frame leaves nothing that needs cleaning."""
        epoch = begin(store)
        commit(store, epoch, b"one")
        other = self.open_store()
        other.acquire(force=True)
        other.close()
        third = self.open_store()
        epoch3 = begin(third, force=True)
        commit(third, epoch3, b"two")
        assert bodies(third.read_log(third.read_meta())) == [b"one", b"two"]
        third.close()

    def test_rotation_by_the_holder_is_no_fence(self, store: LocalFileStore) -> None:
        epoch = begin(store)
        for i in range(4):
            commit(store, epoch, b"%d" % i)
            meta = store.read_meta()
            store.begin_log(
                epoch=epoch,
                state=store.position[1],
                chain=store.position[2],
                data_base=meta.data_end,
                data_limit=meta.data_end + REGION,
            )
        commit(store, epoch, b"4")
        assert bodies(store.read_log(store.read_meta())) == [b"%d" % i for i in range(5)]

    def test_begin_log_at_a_wrong_place(self, store: LocalFileStore) -> None:
        epoch = store.acquire()
        with pytest.raises(errors.StorageError):
            store.begin_log(epoch=epoch, state=7, chain=123, data_base=12288, data_limit=1 << 20)
        with pytest.raises(ValueError):
            store.begin_log(epoch=epoch, state=1, chain=0, data_base=12289, data_limit=1 << 20)

    def test_follow(self, store: LocalFileStore) -> None:
        epoch = begin(store)
        reader = self.open_store(writable=False)
        assert not reader.watch(0.01)
        timer = threading.Timer(0.05, commit, (store, epoch, b"news"))
        timer.start()
        assert reader.watch(5)
        timer.join()
        assert bodies(reader.read_log(reader.read_meta())) == [b"news"]
        reader.close()

    def test_two_at_once_create_one_file(self) -> None:
        stores: list[LocalFileStore] = []
        threads = [threading.Thread(target=lambda: stores.append(self.open_store("deep/er/q"))) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert len({s.identity.file_id for s in stores}) == 1 and len(stores) == 8
        for s in stores:
            s.close()

    def test_closed(self, store: LocalFileStore) -> None:
        meta = store.read_meta()
        store.close()
        store.close()
        for call in (store.read_meta, store.acquire, lambda: list(store.read_log(meta)), lambda: store.read_page(0, 1)):
            with pytest.raises(errors.ClosedError):
                call()

    def test_trim(self, store: LocalFileStore) -> None:
        epoch = begin(store)
        end = store.read_meta().data_end
        store.reserve(log_bytes=0, data_end=end + 10)
        store.trim()
        assert store.read_page(end, 1) == b""
        store.reserve(log_bytes=0, data_end=end + 10)
        store.write_data(end, b"again")
        commit(store, epoch, b"x")
