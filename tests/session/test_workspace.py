"""init, open, close, commit and state numbers in one process."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

import dbzero as db0


@db0.memo(id="tests/session/Node")
class Node:
    def __init__(self, value: object = None, child: object = None) -> None:
        self.value = value
        self.child = child


@db0.memo(singleton=True, id="tests/session/Top")
class Top:
    def __init__(self) -> None:
        self.items: list[object] = []
        self.first: object = None


def reopen(root: str, mode: str = "rw") -> None:
    db0.close()
    gc.collect()
    db0.init(root, autocommit=False)
    db0.open("main", mode)


def test_init_by_every_name(root: str) -> None:
    db0.init(dbzero_root=root)
    db0.close()
    db0.init(storage_dir=root, config={"autocommit": True, "autocommit_interval": 1000, "cache_size": 100 << 20})
    assert db0.get_config()["autocommit_interval"] == 1000
    assert db0.get_config()["cache_size"] == 100 << 20
    db0.close()
    db0.init(Path(root), config={"autocommit": True}, autocommit=False)
    assert db0.get_config()["autocommit"] is False
    db0.close()


def test_init_refuses_nonsense(root: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        db0.init()
    with pytest.raises((TypeError, ValueError)):
        db0.init(root, storage_dir=str(tmp_path))
    with pytest.raises(TypeError):
        db0.init(root, unknown_setting=1)
    with pytest.raises(RuntimeError):
        db0.init(root, autocommit_interval="often")
    with pytest.raises(ValueError):
        db0.init(root, cache_size=0)
    with pytest.raises(TypeError):
        db0.init(root, lock_flags=5)
    plain = tmp_path / "file"
    plain.write_text("x")
    with pytest.raises(db0.StorageError, match="file"):
        db0.init(str(plain))
    db0.init(root)
    with pytest.raises(RuntimeError, match="already"):
        db0.init(root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_root(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(db0.StorageError, match="locked"):
        db0.init(str(locked / "root"))


def test_before_init_and_after_close(root: str) -> None:
    for call in (
        lambda: db0.open("x"),
        db0.commit,
        lambda: Node(1),
        lambda: db0.fetch(Top),
        db0.get_state_num,
        lambda: db0.list(),
    ):
        with pytest.raises(RuntimeError, match="not initialized"):
            call()
    db0.close()
    db0.close()


def test_no_open_call_at_all(root: str) -> None:
    db0.init(root)
    assert not db0.exists(Top)
    top = Top()
    assert db0.fetch(Top) is top
    assert db0.get_current_prefix().name == "main"


def test_bad_prefix_names(root: str) -> None:
    db0.init(root)
    for name in ("", "../evil", "a/../../b", "a/..", "..", "nul\0"):
        with pytest.raises(RuntimeError):
            db0.open(name)
    with pytest.raises(TypeError):
        db0.open(5)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError):
        db0.open("x", "a")
    with pytest.raises(RuntimeError):
        db0.open("missing", "r")
    assert not (Path(root) / "missing.db0").exists()
    db0.open("/org/deep name/żółw")
    assert db0.get_current_prefix().name == "org/deep name/żółw"
    assert (Path(root) / "org/deep name/żółw.db0").exists()
    assert [p.name for p in db0.get_prefixes()] == ["org/deep name/żółw"]


def test_state_numbers(store: str) -> None:
    assert (db0.get_state_num(finalized=True), db0.get_state_num()) == (1, 2)
    top = Top()
    db0.commit()
    assert db0.get_state_num(finalized=True) == 2
    db0.commit()
    assert db0.get_state_num(finalized=True) == 2
    assert top.first is None
    db0.commit()
    assert db0.get_state_num(finalized=True) == 2
    top.first = 1
    db0.commit()
    assert db0.get_state_num(finalized=True) == 3
    reopen(store)
    assert db0.get_state_num(finalized=True) == 3


def test_values_survive_a_reopen(store: str) -> None:
    top = Top()
    shared = Node("shared")
    top.items = [
        1,
        "two",
        3.5,
        None,
        True,
        b"\0bytes",
        2**100,
        [Node(1, shared), Node(2, shared)],
        {"k": {"deep": (1, (2,))}},
        {1, 2},
    ]
    top.first = shared
    top.late = "attribute added later"
    reopen(store)
    top = db0.fetch(Top)
    items = top.items
    assert items[:7] == [1, "two", 3.5, None, True, b"\0bytes", 2**100]
    assert items[7][0].child is items[7][1].child is top.first
    assert items[8] == {"k": {"deep": (1, (2,))}}
    assert items[9] == {1, 2}
    assert top.late == "attribute added later"


def test_uuid_fetch_and_identity(store: str) -> None:
    node = Node(5)
    uuid = db0.uuid(node)
    assert db0.fetch(uuid) is node
    top = Top()
    top.first = node
    db0.commit()
    del node
    gc.collect()
    again = db0.fetch(uuid)
    assert again is top.first
    assert db0.uuid(again) == uuid
    assert db0.exists(uuid)
    assert db0.exists(uuid, Node)
    assert not db0.exists(uuid, Top)
    assert not db0.exists("")
    with pytest.raises(RuntimeError):
        db0.fetch(uuid, Top)
    with pytest.raises(RuntimeError, match="UUID"):
        db0.fetch(uuid.lower())


def test_unreferenced_objects_go_at_commit(store: str) -> None:
    uuid = db0.uuid(Node(1))
    gc.collect()
    db0.commit()
    assert not db0.exists(uuid)
    held = Node(2)
    held_uuid = db0.uuid(held)
    db0.commit()
    assert db0.exists(held_uuid)
    assert db0.fetch(held_uuid) is held
    del held
    gc.collect()
    db0.commit()
    assert not db0.exists(held_uuid)
    with pytest.raises(db0.ReferenceError):
        db0.fetch(held_uuid)


def test_collection_cascades_and_stops_at_what_is_held(store: str) -> None:
    top = Top()
    chain: object = None
    for n in range(3000):
        chain = Node(n, chain)
    top.first = chain
    uuids = [db0.uuid(chain), db0.uuid(chain.child), db0.uuid(chain.child.child)]  # type: ignore[attr-defined]
    kept = chain.child.child  # type: ignore[attr-defined]
    db0.commit()
    del chain
    top.first = None
    db0.clear_cache()
    gc.collect()
    db0.commit()
    assert [db0.exists(u) for u in uuids] == [False, False, True]
    assert kept.value == 2997
    assert kept.child.value == 2996
    top.items.append(kept)
    db0.commit()
    reopen(store)
    assert db0.fetch(Top).items[0].child.value == 2996


def test_refcounts(store: str) -> None:
    top = Top()
    node = Node(1)
    assert db0.getrefcount(node) == 0
    top.items.extend([node, node])
    top.first = node
    db0.commit()
    assert db0.getrefcount(node) == 3
    top.items.pop()
    top.first = None
    db0.commit()
    assert db0.getrefcount(node) == 1


def test_read_only(store: str) -> None:
    top = Top()
    top.items.append(1)
    reopen(store, "r")
    top = Top()
    with pytest.raises(AttributeError, match="read-only prefix: main"):
        top.first = 1
    with pytest.raises(RuntimeError, match="read-only"):
        top.items.append(2)
    with pytest.raises(RuntimeError, match="read-only"):
        Node(1)
    with pytest.raises(RuntimeError, match="read-only"):
        db0.list()
    db0.commit()
    assert top.items == [1]
    assert top.first is None
    db0.open("main", "rw")
    db0.fetch(Top).items.append(2)
    db0.commit()


def test_closed_handles(store: str) -> None:
    top = Top()
    items = top.items
    db0.close()
    with pytest.raises(RuntimeError, match="no longer accessible"):
        top.first
    with pytest.raises(AttributeError):
        top.first = 2
    with pytest.raises(RuntimeError):
        len(items)
    assert "Top" in repr(top)


def test_prefixes_are_apart(store: str) -> None:
    Top().first = "main"
    db0.open("other", autocommit=False)
    assert not db0.exists(Top)
    Top().first = "other"
    db0.commit("other")
    assert db0.get_state_num("other", finalized=True) == 2
    assert db0.get_state_num("main", finalized=True) == 1
    with pytest.raises(RuntimeError):
        db0.commit("unknown")
    db0.close("other")
    assert db0.get_current_prefix().name == "main"
    assert db0.fetch(Top).first == "main"
    db0.open("other", "r")
    assert db0.fetch(Top).first == "other"
    assert {p.name for p in db0.get_mutable_prefixes()} == {"main"}


def test_many_commits_cross_log_rotation_and_checkpoints(store: str) -> None:
    top = Top()
    blob = "x" * 200_000
    for n in range(150):
        if n % 10 == 0:
            top.items.append(Node(n))
        top.first = f"{n}{blob}"
        db0.commit()
    reopen(store)
    top = db0.fetch(Top)
    assert top.first == f"149{blob}"
    assert [node.value for node in top.items] == list(range(0, 150, 10))


def test_a_big_transaction(store: str) -> None:
    top = Top()
    top.items.extend(Node(n) for n in range(30_000))
    db0.commit()
    reopen(store)
    items = db0.fetch(Top).items
    assert len(items) == 30_000
    assert sum(node.value for node in items) == sum(range(30_000))
