from __future__ import annotations

import gc
import importlib.machinery
import importlib.util
import random
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from dbzero.errors import ReferenceError
from dbzero.model import base
from dbzero.model.base import operation
from dbzero.model.memo import memo
from dbzero.model.view import View
from tests.model.memory import Memory, current, reopen


@memo
class Node:
    def __init__(self, value: Any = None, next: Any = None) -> None:
        self.value = value
        self.next = next


@pytest.fixture
def storm() -> Iterator[None]:
    """A collection of the youngest generation after every allocation or so."""
    before = gc.get_threshold()
    gc.set_threshold(1, 2, 2)
    yield
    gc.set_threshold(*before)


def test_one_instance_per_object(memory: Memory, view: View) -> None:
    b = Node("b")
    a = Node("a", b)
    memory.commit(view)
    oid = a._p_oid
    assert a.next is b and view.get(oid) is a and view.peek(oid) is a
    view.evict(0)
    assert a.next is b
    del b
    view.evict(0)
    view.evict(0)
    b = a.next
    assert a.next is b and b.value == "b"


def test_nothing_keeps_a_clean_instance_alive(memory: Memory, view: View) -> None:
    refs = [weakref.ref(Node(i)) for i in range(100)]
    assert all(ref() is not None for ref in refs), "new ones stay until they are committed"
    memory.commit(view)
    assert all(ref() is None for ref in refs)
    schema = 4  # the catalogue, the class record, the root of the tag index and the list of members
    assert view.live_count == schema
    node = view.get(20)
    assert sys.getrefcount(node) == 2
    node.value = 1
    assert sys.getrefcount(node) == 3
    memory.commit(view)
    assert sys.getrefcount(node) == 2


def test_cycles_are_collected(memory: Memory, view: View) -> None:
    a = Node("a")
    b = Node("b", a)
    a.next = b
    a.value = a
    oid = a._p_oid
    memory.commit(view)
    ref = weakref.ref(a)
    del a, b
    gc.collect()
    assert ref() is None and view.peek(oid) is None
    again = view.get(oid)
    assert again.value is again and again.next.next is again


def test_resurrection_by_a_finalizer_during_collection(memory: Memory, view: View) -> None:
    saved: list[Any] = []

    class Killer:
        def __init__(self, oid: int) -> None:
            self.oid = oid

        def __del__(self) -> None:
            saved.append(view.get(self.oid))

    for turn in range(20):
        ring = [Node(i) for i in range(5)]
        for i, node in enumerate(ring):
            node.next = ring[i - 1]
        for i in range(turn % 5 + 1):
            ring[i]._X__killer = Killer(ring[(i * 2 + turn) % 5]._p_oid)
        memory.commit(view)
        del ring, node
        gc.collect()
        assert saved
        for found in saved:
            assert found.next.next.next.next.next is found
            assert view.get(found._p_oid) is found or found._p_flags & base.EXPIRED
            found.value = "changed"
            assert view.get(found._p_oid).value == "changed"
        found = None
        memory.commit(view)
        for found in saved:
            vars(found).clear()
            if hasattr(found, "_X__killer"):
                del found._X__killer
        found = None
        saved.clear()
        gc.collect()
        for found in list(saved):
            if hasattr(found, "_X__killer"):
                del found._X__killer
        found = None
        saved.clear()
        gc.collect()


def test_a_weakref_callback_finds_no_dying_object(memory: Memory, view: View) -> None:
    found: list[Any] = []
    node = Node("x")
    memory.commit(view)
    oid = node._p_oid
    watch = weakref.ref(node, lambda _: found.append(view.get(oid)))
    del node
    assert watch() is None
    assert [n.value for n in found] == ["x"] and view.get(oid) is found[0]


def test_a_long_chain_dies_without_recursion(memory: Memory, view: View) -> None:
    node = None
    for i in range(100_000):
        node = Node(i, node)
    oid = node._p_oid
    memory.commit(view)
    del node
    assert not any(isinstance(obj, Node) for obj in view.objects())
    assert view.get(oid).next.next.value == 99_997


@pytest.mark.usefixtures("storm")
def test_a_storm_of_collections_changes_nothing(memory: Memory, view: View) -> None:
    rng = random.Random(1)
    model: dict[int, tuple[Any, int | None]] = {}
    held: list[Any] = []
    for _ in range(1500):
        move = rng.randrange(8)
        some = view.get(rng.choice(list(model))) if model else None
        if move < 3 or some is None:
            node = Node(rng.random(), some)
            model[node._p_oid] = (node.value, None if some is None else some._p_oid)
            held.append(node)
        elif move == 3:
            some.value = rng.choice(["x", 1 << 80, None])
            model[some._p_oid] = (some.value, model[some._p_oid][1])
        elif move == 4:
            other = view.get(rng.choice(list(model)))
            some.next = other
            model[some._p_oid] = (model[some._p_oid][0], other._p_oid)
        elif move == 5:
            memory.commit(view)
        elif move == 6:
            view.evict(rng.randrange(3000))
        else:
            held = rng.sample(held, len(held) // 2)
            view.invalidate(rng.sample(list(model), len(model) // 3))
        node = some = other = None
    memory.commit(view)
    held.clear()
    for oid, (value, next_oid) in model.items():
        node = view.get(oid)
        assert node.value == value and (None if node.next is None else node.next._p_oid) == next_oid
        assert node is view.get(oid)


def test_threads(memory: Memory, view: View) -> None:
    nodes = [Node(0) for _ in range(8)]
    nodes[0].next = nodes[1]
    stop = threading.Event()
    errors: list[BaseException] = []

    def guarded(work: Any) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                errors.append(error)

        return threading.Thread(target=run)

    def write(node: Any) -> None:
        for _ in range(3000):
            node.value += 1

    def pair() -> None:
        for i in range(2000):
            with operation:
                nodes[6].value = i
                nodes[7].value = i

    def read() -> None:
        while not stop.is_set():
            assert nodes[0].next is nodes[1]
            with operation:
                assert nodes[6].value == nodes[7].value

    def evict() -> None:
        while not stop.is_set():
            view.evict(0)

    def commit() -> None:
        while not stop.is_set():
            memory.commit(view)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        writers = [guarded(lambda n=n: write(n)) for n in nodes[:4]] + [guarded(pair)]
        others = [guarded(read), guarded(evict), guarded(commit)]
        for thread in writers + others:
            thread.start()
        for thread in writers:
            thread.join()
        stop.set()
        for thread in others:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert errors == []
    memory.commit(view)
    assert [node.value for node in nodes[:4]] == [3000] * 4
    with current(other := reopen(memory, view)):
        assert [other.get(node._p_oid).value for node in nodes[:4]] == [3000] * 4
    pairs = [[memory.newest(nodes[i]._p_oid, state)[0] for i in (6, 7)] for state in range(2, view.state)]  # type: ignore[index]
    assert all(a == b for a, b in pairs), "a commit holds whole operations"


def test_no_memory_is_lost(memory: Memory, view: View) -> None:
    def round() -> None:
        with current(fresh := View(Memory(), 1)):
            a = Node("text", Node(1 << 70))
            a._X__x = object()
            records = fresh.records
            records.commit(fresh)  # type: ignore[attr-defined]
            fresh.evict(0)
            assert a.next.value == 1 << 70
            for bad in (object(), bytearray()):
                with pytest.raises(AttributeError):
                    a.value = bad
            with pytest.raises(ReferenceError):
                fresh.ghost(Node, 999).value
            fresh.mark_orphan(a._p_oid)
            fresh.invalidate([a._p_oid])
            del a
            fresh.close()

    for _ in range(30):
        round()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(300):
        round()
    gc.collect()
    assert sys.getallocatedblocks() - before < 300


def test_a_forgotten_view_is_collected(memory: Memory) -> None:
    view = View(memory, 1)
    with current(view):
        node = Node(1)
        node.next = node
    refs = weakref.ref(view), weakref.ref(node)
    del view, node
    gc.collect()
    assert [ref() for ref in refs] == [None, None]


def test_forgotten_classes_are_collected(view: View) -> None:
    def define() -> Any:
        @memo(id="forgotten")
        class Local:
            pass

        return weakref.ref(Local)

    refs = [define() for _ in range(50)]
    gc.collect()
    assert sum(ref() is not None for ref in refs) <= 1


def test_a_second_interpreter_is_refused() -> None:

    code = (
        "import _xxsubinterpreters as i, sys\n"
        "import dbzero.model.base\n"
        "s = i.create()\n"
        "try:\n"
        "    i.run_string(s, 'import sys; sys.path[:] = %r\\nimport dbzero.model.base' % sys.path)\n"
        "except Exception as e:\n"
        "    print('refused', e)\n"
    )
    if sys.version_info >= (3, 13):
        code = (
            code.replace("_xxsubinterpreters", "_interpreters")
            .replace("    i.run_string", "    e = i.run_string")
            .replace(
                "except Exception as e:\n", "    if e is not None: raise ImportError(e.msg)\nexcept Exception as e:\n"
            )
        )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "refused" in done.stdout, (done.stdout, done.stderr)


def test_the_base_types_are_loaded_once() -> None:
    loader = importlib.machinery.ExtensionFileLoader("_persistent", base._persistent.__file__)
    spec = importlib.util.spec_from_file_location("_persistent", base._persistent.__file__, loader=loader)
    assert spec is not None
    with pytest.raises(ImportError, match="loaded already"):
        loader.exec_module(importlib.util.module_from_spec(spec))
