"""Dropping, copying and compacting prefixes: beside readers and writers, in this and in other processes."""

from __future__ import annotations

import datetime
import os
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dbzero as db0
from dbzero.session.history import compact_prefix
from dbzero.session.workspace import active
from dbzero.storage import history
from dbzero.storage.verify import check_root
from tests.session.forks import Forked
from tests.session.test_processes import READER, SETUP, WRITER, _segment_file
from tests.worker import RemoteError, Worker

Send = Callable[[Any], None]


@db0.memo(singleton=True, id="tests/history/Shelf")
class Shelf:
    def __init__(self) -> None:
        self.items: dict[int, Any] = {}
        self.count = 0


@db0.memo(id="tests/history/Book")
class Book:
    def __init__(self, n: int) -> None:
        self.n = n
        self.text = str(n) * 100


def fill(shelf: Shelf, commits: int, start: int = 0) -> None:
    for n in range(start, start + commits):
        shelf.items[n % 20] = Book(n)
        shelf.count = n + 1
        db0.commit()


def content(shelf: Shelf) -> tuple[int, dict[int, int]]:
    return shelf.count, {key: book.n for key, book in shelf.items.items()}


def stored(name: str, state: int) -> dict[int, bytes]:
    """Everything a prefix holds at a state, as it is stored."""
    prefix = active().get(name).prefix
    found = {oid: prefix.read(oid, state) for oid in range(1, prefix.oid_limit())}
    return {oid: value[0] for oid, value in found.items() if value is not None}


# --- drop ------------------------------------------------------------------------------------------------------------------------------------


def test_drop(store: str) -> None:
    db0.open("a/b")
    shelf = Shelf()
    fill(shelf, 3)
    uuid = db0.uuid(shelf)
    db0.open("main")
    db0.close("a/b")
    db0.drop("a/b")
    assert sorted(os.listdir(os.path.join(store, "a"))) == ["b.db0.lock"]
    assert not db0.exists(uuid)
    with pytest.raises(RuntimeError):
        db0.fetch(uuid)
    with pytest.raises(db0.PrefixError):
        db0.open("a/b", "r")
    db0.open("a/b")
    assert db0.get_state_num() == 2
    assert content(Shelf()) == (0, {})


def test_drop_what_is_open_and_current(store: str) -> None:
    db0.open("/org/project/dev/some-long-prefix-name")
    shelf = Shelf()
    db0.commit()
    shelf.count = 5
    db0.drop("/org/project/dev/some-long-prefix-name")
    with pytest.raises(db0.ClosedError):
        _ = shelf.count
    assert db0.get_current_prefix().name == "main"
    assert [found.name for found in db0.get_prefixes()] == ["main"]
    db0.drop("never/was")  # no error


def test_drop_is_refused_while_another_process_writes(root: str) -> None:
    with Worker(root=root) as writer:
        writer.run(WRITER)
        db0.init(root)
        with pytest.raises(db0.LeaseError, match="written by process"):
            db0.drop("p")
        writer.run("counter.value = 3; db0.commit()")
        writer.run("db0.close()")
        with Worker(root=root) as reader:
            reader.run(READER)
            db0.drop("p")
            assert list(db0.get_prefixes()) == []
            assert reader.run("result = counter.value, list(counter.items)") == [3, []]
            reader.run("db0.close()")


def test_dropping_gives_the_slot_back(root: str) -> None:
    db0.init(root, autocommit=False)
    for n in range(1100):  # more than the segment has slots
        if n < 3 or n > 1095:
            db0.open(f"p{n % 3}")
            db0.drop(f"p{n % 3}")
    assert active().segment.status().prefixes <= 3
    db0.close()


def test_a_damaged_prefix_can_be_dropped(root: str) -> None:
    db0.init(root)
    (Path(root) / "bad.db0").write_bytes(b"no store at all")
    db0.drop("bad")
    assert not (Path(root) / "bad.db0").exists()
    db0.close()


# --- copies ----------------------------------------------------------------------------------------------------------------------------------


def test_copy_and_restore(root: str, tmp_path: Path) -> None:
    db0.init(root, autocommit=False)
    db0.open("dir/p")
    shelf = Shelf()
    fill(shelf, 30)
    uuid, state = db0.get_current_prefix().uuid, db0.get_state_num(finalized=True)
    was = content(shelf)
    shelf.count = -1  # not committed: not in the copy
    output = tmp_path / "some" / "where" / "copy.bin"
    db0.copy_prefix(output)
    with pytest.raises(OSError, match="never written over"):
        db0.copy_prefix(output)
    fill(shelf, 10, 30)
    db0.close()
    os.remove(os.path.join(root, "dir/p.db0"))
    os.rename(output, os.path.join(root, "dir/p.db0"))
    db0.init(root, autocommit=False)
    db0.open("dir/p")
    assert db0.get_current_prefix().uuid == uuid
    assert db0.get_state_num(finalized=True) == state
    shelf = Shelf()
    assert content(shelf) == was
    fill(shelf, 5, 30)
    db0.copy_prefix(tmp_path / "again.db0", "dir/p")
    db0.close()
    db0.init(root, autocommit=False)
    db0.copy_prefix(str(tmp_path / "closed.db0"), "dir/p", page_io_step_size=4096)
    db0.close()
    shutil.copy(tmp_path / "closed.db0", tmp_path / "other.db0")
    assert check_root(str(tmp_path)) == []


def test_arguments(store: str, tmp_path: Path) -> None:
    with pytest.raises(db0.PrefixError):
        db0.copy_prefix(tmp_path / "x", "nothing")
    with pytest.raises(TypeError):
        db0.copy_prefix(tmp_path / "x", page_io_step_size="1")  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        db0.copy_prefix(tmp_path / "x", page_io_step_size=1)
    with pytest.raises(TypeError):
        db0.compact(keep_states="3")  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        db0.compact(keep_states=0)
    with pytest.raises(TypeError):
        db0.compact(keep_since="yesterday")  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        db0.compact(keep_since=-1)
    with pytest.raises(db0.PrefixError):
        db0.compact("nothing")
    for bad in (0, -1):
        with pytest.raises(ValueError):
            db0.open("q", retention=bad)
    with pytest.raises(TypeError):
        db0.open("q", retention={"weeks": 3})
    db0.close("main")
    for call in (db0.compact, lambda: db0.copy_prefix(tmp_path / "x")):
        with pytest.raises(db0.PrefixError, match="no prefix is open"):
            call()
    assert not list(tmp_path.glob("x*"))


def test_restore_beside_the_log_of_the_replaced_file(root: str, tmp_path: Path) -> None:
    """A killed writer's log lies about. It belongs to another file and must not be replayed into the copy."""

    def life(send: Send) -> None:
        db0.init(root, autocommit=False)
        db0.open("p")
        shelf = Shelf()
        fill(shelf, 5)
        db0.copy_prefix(tmp_path / "copy.db0")
        send(content(shelf))
        fill(shelf, 5, 100)
        os.kill(os.getpid(), signal.SIGKILL)

    writer = Forked(life)
    (was,) = writer.drain()
    assert writer.wait() == -9
    assert [name for name in os.listdir(root) if "redo" in name]
    os.replace(tmp_path / "copy.db0", os.path.join(root, "p.db0"))
    db0.init(root, autocommit=False)
    db0.open("p", "r")
    assert content(Shelf()) == was
    db0.close()
    db0.init(root, autocommit=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        db0.open("p")
    shelf = Shelf()
    assert content(shelf) == was
    fill(shelf, 3, 200)
    db0.close()


def test_copies_beside_a_writer_in_another_process(root: str, tmp_path: Path) -> None:
    """Each copy is a state that the writer committed, no older than what was committed before the call."""

    def life(send: Send) -> None:
        db0.init(root, autocommit=False)
        db0.open("p")
        shelf = Shelf()
        db0.commit()
        send("ready")
        end, n = time.monotonic() + 20, 0
        while not os.path.exists(os.path.join(root, "stop")) and time.monotonic() < end:
            shelf.count = n
            shelf.items = dict.fromkeys(range(10), n)
            db0.commit()
            if n % 20 == 0:
                active().get("p").prefix.checkpoint()
            n += 1
        db0.close()

    writer = Forked(life)
    assert writer.receive() == "ready"
    db0.init(root)
    db0.open("p", "r")
    for k in range(8):
        db0.refresh()
        least = Shelf().count
        db0.copy_prefix(tmp_path / f"copy{k}" / "p.db0", page_io_step_size=8192)
        reader = Forked(lambda send, k=k: send(_look(str(tmp_path / f"copy{k}"))))  # type: ignore[misc]
        (found,) = reader.drain()
        assert reader.wait() == 0
        assert found[0] >= least
        assert set(found[1]) <= {found[0]}
    db0.close()
    Path(root, "stop").touch()
    assert writer.wait() == 0
    os.remove(os.path.join(root, "stop"))


def _look(directory: str) -> tuple[int, list[int]]:
    db0.close()
    db0.init(directory)
    db0.open("p", "r")
    shelf = Shelf()
    found = shelf.count, list(shelf.items.values())
    db0.close()
    assert check_root(directory) == []
    return found


# --- compaction ------------------------------------------------------------------------------------------------------------------------------


def test_kept_states_look_as_before(store: str) -> None:
    shelf = Shelf()
    fill(shelf, 60)
    newest = db0.get_state_num(finalized=True)
    before = {state: stored("main", state) for state in range(1, newest + 1)}
    with_changes = {state: active().get("main").prefix.changes(state) for state in range(1, newest + 1)}
    done = db0.compact(keep_states=10)
    assert done.oldest_state == newest - 9
    assert done.after < done.before
    assert os.path.getsize(os.path.join(store, "main.db0")) < done.before
    prefix = active().get("main").prefix
    for state in range(newest - 9, newest + 1):
        assert stored("main", state) == before[state]
        assert prefix.changes(state) == with_changes[state]
    for state in (1, newest - 10):
        with pytest.raises(db0.StateNotKeptError, match=f"the oldest state is {newest - 9}"):
            stored("main", state)
    assert content(shelf)[0] == 60
    fill(shelf, 5, 60)
    assert db0.compact(keep_states=1).oldest_state == newest + 5
    fill(shelf, 5, 65)
    assert db0.compact().oldest_state == newest + 5
    was = content(shelf)
    db0.close()
    db0.init(store, autocommit=False)
    db0.open("main")
    assert content(Shelf()) == was
    assert active().get("main").prefix.oldest_state == newest + 5
    with pytest.raises(db0.StateNotKeptError):
        active().get("main").prefix.read(1, newest + 4)
    db0.close()
    db0.init(store)
    assert db0.compact("main", keep_states=1).oldest_state == newest + 10
    assert list(active().open_prefixes) == []


def test_keep_since(store: str) -> None:
    shelf = Shelf()
    fill(shelf, 5)
    time.sleep(0.02)
    moment = datetime.datetime.now()
    middle = db0.get_state_num(finalized=True)
    time.sleep(0.02)
    fill(shelf, 5)
    assert db0.compact(keep_since=1e9).oldest_state == 1
    assert db0.compact(keep_since=moment.astimezone(datetime.timezone.utc)).oldest_state == middle
    assert db0.compact(keep_since=moment, keep_states=2).oldest_state == middle
    assert db0.compact(keep_since=0).oldest_state == middle + 5


def test_readers_move_on_to_the_new_file(root: str) -> None:
    with Worker(root=root) as writer, Worker(root=root) as reader:
        writer.run(WRITER)
        writer.run("for n in range(50): counter.value = n; counter.items.append(Item(n)); db0.commit()")
        reader.run(READER)
        reader.run("items = counter.items; first = items[0]")
        for n in range(5):
            writer.run("db0.compact(keep_states=1)")
            writer.run(f"counter.value = {100 + n}; db0.commit()")
            assert reader.run(f"result = until(lambda: counter.value == {100 + n})")
        assert reader.run("result = first.n, [i.n for i in items]") == [0, list(range(50))]
        for worker in (reader, writer):  # nobody keeps the old files, so their space is free
            held = [os.readlink(link) for link in Path(f"/proc/{worker.pid}/fd").iterdir() if link.exists() or True]
            assert not [path for path in held if "p.db0" in path and "deleted" in path]
        reader.run("db0.close()")
        writer.run("db0.close()")


def test_what_a_view_has_pinned_is_kept(root: str) -> None:
    """A reader that does not move on: its state stays, also through a second compaction right behind the first."""
    with Worker(root=root) as writer, Worker(root=root) as reader:
        writer.run(WRITER)
        writer.run("for n in range(20): counter.value = n; counter.items.append(Item(n)); db0.commit()")
        reader.run(READER)
        reader.run(
            "from dbzero.session.workspace import active; opened = active().get('p'); opened.follower.stop();"
            "state = opened.view.state; items = counter.items"
        )
        pinned = reader.run("result = state")
        writer.run("for n in range(20, 40): counter.value = n; counter.items.clear(); db0.commit()")
        for _ in range(2):
            assert writer.run("result = db0.compact(keep_states=1)[0]") == pinned
            writer.run("counter.value += 1; db0.commit()")
        assert reader.run("result = counter.value, [i.n for i in items]") == [19, list(range(20))]
        assert writer.run("result = db0.compact(keep_states=1)[0]") == pinned
        reader.kill()
        assert writer.run("result = db0.compact(keep_states=1)[0]") > pinned


def test_a_reader_that_shares_no_segment_moves_on(root: str) -> None:
    with Worker(root=root) as writer, Worker(root=root) as reader:
        writer.run(WRITER)
        writer.run("for n in range(20): counter.value = n; counter.items.append(Item(n)); db0.commit()")
        _segment_file(root).unlink()
        reader.run(READER)
        assert reader.run("result = counter.value") == 19
        for n in range(3):
            writer.run(f"db0.compact(keep_states=1); counter.value = {100 + n}; db0.commit()")
            assert reader.run(f"result = until(lambda: counter.value == {100 + n})")
        assert reader.run("result = [i.n for i in counter.items]") == list(range(20))


def test_only_the_writer_compacts(root: str) -> None:
    with Worker(root=root) as writer:
        writer.run(WRITER)
        db0.init(root)
        with pytest.raises(db0.LeaseError, match="process that writes"):
            db0.compact("p")
        db0.open("p", "r")
        with pytest.raises(db0.ReadOnlyError):
            db0.compact()
        writer.run("db0.compact()")


def test_who_waits_for_the_lease_finds_the_new_file(root: str) -> None:
    with Worker(root=root) as writer, Worker(root=root) as waiter:
        writer.run(WRITER)
        waiter.run(SETUP + "db0.init(root, autocommit=False)")
        waiter.send("db0.open('p', lock_flags={'blocking': True, 'timeout': 20}); result = Counter().value")
        time.sleep(0.3)
        writer.run(
            "counter.value = 7; db0.commit(); db0.compact(keep_states=1); counter.value = 8; db0.commit(); db0.close()"
        )
        assert waiter.receive() == 8
        waiter.run("Counter().value = 9; db0.commit(); db0.close()")


@pytest.mark.parametrize("where", ["copying", "before the rename"])
def test_a_frozen_compaction_cannot_undo_its_successor(root: str, where: str) -> None:
    """The story: the compactor is stopped, replaced by force, and goes on. Its file must not take the name any more."""
    stop = "import os, signal; from dbzero.storage import compaction, filestore;"
    if where == "copying":
        stop += (
            "from dbzero.session.history import compact_prefix; from dbzero.session.workspace import active;"
            "freeze = lambda done, total: os.kill(os.getpid(), signal.SIGSTOP)"
        )
        call = "compact_prefix(active(), 'p', 1, None, freeze)"
    else:
        stop += (
            "real = compaction.Compaction.finish\n"
            "def finish(self, *a, **k):\n"
            "    made = real(self, *a, **k)\n"
            "    os.kill(os.getpid(), signal.SIGSTOP)\n"
            "    return made\n"
            "compaction.Compaction.finish = finish"
        )
        call = "db0.compact(keep_states=1)"
    with Worker(root=root) as holder, Worker(root=root) as reader, Worker(root=root) as successor:
        holder.run(WRITER)
        reader.run(READER)
        holder.run("for n in range(20): counter.value = n; counter.items.append(Item(n)); db0.commit()")
        holder.run(stop)
        holder.send(call)
        _until(lambda: Path(f"/proc/{holder.pid}/stat").read_text().split()[2] == "T")
        successor.run(SETUP + "db0.init(root, autocommit=False)")
        successor.run("db0.open('p', lock_flags={'force_unlock': True}); counter = Counter()")
        successor.run("counter.value = 1000; db0.commit()")
        os.kill(holder.pid, signal.SIGCONT)
        with pytest.raises(RemoteError) as caught:
            holder.receive()
        assert "FencedError" in caught.value.kinds
        successor.run("counter.value += 1; db0.commit()")
        assert reader.run("result = until(lambda: counter.value == 1001)")
        successor.run("db0.compact(keep_states=1); counter.value += 1; db0.commit()")
        assert reader.run("result = until(lambda: counter.value == 1002)")
        with pytest.raises(RemoteError):
            holder.run("db0.close()")
        successor.run("db0.close()")


def test_a_successor_by_force_right_behind_the_rename(root: str) -> None:
    """The replaced holder is frozen when the new file has its name already, but no log: the successor opens the new one."""
    freeze = (
        "import os, signal; from dbzero.storage.filestore import LocalFileStore\n"
        "real = LocalFileStore.replace_file\n"
        "def replace(self, path):\n"
        "    page = real(self, path)\n"
        "    os.kill(os.getpid(), signal.SIGSTOP)\n"
        "    return page\n"
        "LocalFileStore.replace_file = replace"
    )
    with Worker(root=root) as holder, Worker(root=root) as successor:
        holder.run(WRITER)
        holder.run("for n in range(20): counter.value = n; counter.items.append(Item(n)); db0.commit()")
        holder.run(freeze)
        holder.send("db0.compact(keep_states=1)")
        _until(lambda: Path(f"/proc/{holder.pid}/stat").read_text().split()[2] == "T")
        os.kill(holder.pid, signal.SIGKILL)
        successor.run(SETUP + "db0.init(root, autocommit=False)")
        successor.run("db0.open('p', lock_flags={'force_unlock': True}); counter = Counter()")
        assert successor.run("result = counter.value, len(counter.items)") == [19, 20]
        successor.run("counter.value = 1000; db0.commit(); db0.close()")
        assert sorted(os.listdir(root)) == [".dbzero", "p.db0", "p.db0.lock"]


def _until(test: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_beside_commits_of_other_threads(store: str) -> None:
    """Threads commit and read while the prefix is compacted over and over; nothing is lost, torn or given out twice."""
    shelf = Shelf()
    shelf.lists = [[] for _ in range(3)]
    db0.commit()
    stop, errors = threading.Event(), []
    sent = [0] * 3

    def work(k: int) -> None:
        try:
            mine = shelf.lists[k]
            while not stop.is_set():
                mine.append(Book(sent[k]))
                sent[k] += 1
                db0.commit()
                assert mine[len(mine) // 2].n == len(mine) // 2
                if sent[k] % 10 == 0:
                    db0.clear_cache()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    start, count = time.monotonic(), 0
    while (count <= 3 or time.monotonic() < start + 2.5) and time.monotonic() < start + 60 and not errors:
        db0.compact(keep_states=5)
        count += 1
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert count > 3
    db0.close()
    db0.init(store)
    db0.open("main", "r")
    assert [[book.n for book in numbers] for numbers in Shelf().lists] == [list(range(n)) for n in sent]


def test_only_one_at_a_time_and_close_beside_it(store: str) -> None:
    shelf = Shelf()
    fill(shelf, 30)
    inside, errors = threading.Event(), []

    def slow(done: int, total: int) -> None:
        inside.set()
        time.sleep(0.3)

    def run() -> None:
        try:
            compact_prefix(active(), "main", 1, None, slow)
        except db0.Error as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert inside.wait(10)
    db0.close("main")  # it comes to nothing, or it was fast enough
    thread.join()
    assert len(errors) <= 1
    assert not [name for name in os.listdir(store) if "compact" in name]


def test_retention_bounds_the_file(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dbzero.storage import committing

    monkeypatch.setattr(committing, "LOG_LIMIT", 100_000)
    monkeypatch.setattr(history, "WORTH", 200_000)
    db0.open("bounded", retention=10)
    shelf = Shelf()
    path, biggest = os.path.join(store, "bounded.db0"), 0
    written = 0
    for n in range(600):
        shelf.items[n % 20] = Book(n)
        shelf.blob = os.urandom(5000)
        written += 5000
        db0.commit()
        biggest = max(biggest, os.stat(path).st_blocks * 512)
    retainer = active().get("bounded").retainer
    assert retainer is not None
    if retainer._thread is not None:
        retainer._thread.join()
    assert active().get("bounded").prefix.oldest_state > 300
    was = content(shelf)
    db0.close()
    assert written == 3_000_000
    assert os.path.getsize(path) < 1_500_000
    db0.init(store, autocommit=False, retention={"keep_states": 3, "keep_since": 3600.0})
    db0.open("bounded")
    assert active().get("bounded").retainer is not None
    assert content(Shelf()) == was
    assert active().get("bounded").retainer.due() is None  # type: ignore[union-attr]


def test_a_forked_child_neither_compacts_nor_drops(root: str) -> None:
    db0.init(root, autocommit=False)
    db0.open("p")
    fill(Shelf(), 5)

    def child(send: Send) -> None:
        for call in (db0.compact, lambda: db0.drop("p")):
            try:
                call()
            except db0.ForkedError:
                send("refused")
        os._exit(0)

    forked = Forked(child)
    assert forked.drain() == ["refused", "refused"]
    forked.wait()
    db0.compact(keep_states=1)
    fill(Shelf(), 5)


def test_permissions_stay(store: str) -> None:
    path = os.path.join(store, "main.db0")
    os.chmod(path, 0o640)
    fill(Shelf(), 3)
    db0.compact(keep_states=1)
    assert os.stat(path).st_mode & 0o777 == 0o640
