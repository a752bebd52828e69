"""Random programs over nested memo objects, lists, dicts, sets, indexes and bytearrays, with commits, reopening,
eviction, deletion and atomic blocks, run on a store and on plain Python values side by side.

A program is a sequence of steps, each a few small numbers; every sequence is a valid program. The suite has hypothesis
draw them (tests/session/test_programs.py), ``stress/programs.py`` runs long ones.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import dbzero as db0

Step = tuple[int, int, int, int]
KINDS = ("memo", "list", "dict", "set", "index", "bytes")
ATOMS = (None, 0, 1, -7, 2.5, "a", "bcd", b"xy", True, 10**25, "é" * 20)
KEYS = (0, 1, 2, "k", b"b", (1, "t"), None, 77, "other", 3.5, 12, 13, 14, 15, 16, 17)
SLOTS = 6
MOST = 60  # values in a container


@db0.memo(id="programs/thing")
class Thing:
    def __init__(self, serial: int) -> None:
        self.serial = serial


@db0.memo(id="programs/top", singleton=True)
class Top:
    def __init__(self) -> None:
        self.slots = [None] * SLOTS


class Node:
    """The model of one stored object."""

    __slots__ = ("data", "kind", "serial")

    def __init__(self, kind: str, serial: int) -> None:
        self.kind = kind
        self.serial = serial
        self.data: Any = {"memo": dict, "list": list, "dict": dict, "set": set, "index": set, "bytes": bytearray}[
            kind
        ]()


class Mismatch(AssertionError):
    """Store and model differ."""


class Program:
    """One running program on the store in `root`."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.serials = itertools.count(1)
        self.slots: list[Any] = [None] * SLOTS
        self.loose: list[tuple[Node, Any, bool]] = []  # held by Python only: model, object, alive
        self.blocks: list[tuple[Any, Any]] = []  # manager, what the model was
        self.counts: dict[str, int] = {}
        self._open()

    def _open(self) -> None:
        db0.init(self.root, autocommit=False)
        db0.open("main")
        self.top = db0.fetch(Top) if db0.exists(Top) else Top()

    def close(self) -> None:
        """End the program; open blocks are put back."""
        while self.blocks:
            self._cancel()
        self.compare()
        db0.close()

    # --- steps --------------------------------------------------------------------------------------------------------

    def run(self, step: Step) -> None:
        """Do one step on both."""
        op, a, b, c = step
        act = _ACTIONS[op % len(_ACTIONS)]
        name = act.__name__
        self.counts[name] = self.counts.get(name, 0) + 1
        act(self, a, b, c)

    def change(self, a: int, b: int, c: int) -> None:
        node, obj = self._walk(a)
        if node is None:
            self.plant(a, b, c)
            return
        getattr(self, "_change_" + node.kind)(node, obj, b, c)

    def plant(self, a: int, b: int, c: int) -> None:
        model, value = self._value(b, c)
        slots = self.top.slots
        slots[a % SLOTS] = value
        self.slots[a % SLOTS] = model

    def commit(self, a: int, b: int, c: int) -> None:
        if not self.blocks:
            db0.commit()
            return
        try:
            db0.commit()
        except db0.AtomicError:
            return
        raise Mismatch("a commit inside a block")

    def evict(self, a: int, b: int, c: int) -> None:
        if not self.blocks and a & 1:
            db0.commit()
        for _ in range(2):
            db0.clear_cache()

    def reopen(self, a: int, b: int, c: int) -> None:
        while self.blocks:
            self._cancel()
        self.loose.clear()
        db0.close()
        self._open()
        self.compare()

    def begin(self, a: int, b: int, c: int) -> None:
        if len(self.blocks) < 4:
            saved = copy.deepcopy([self.slots, [(node, alive) for node, _, alive in self.loose]])
            manager = db0.atomic()
            manager.__enter__()
            self.blocks.append((manager, saved))

    def end(self, a: int, b: int, c: int) -> None:
        if self.blocks:
            manager, _ = self.blocks.pop()
            manager.__exit__(None, None, None)
            self.compare()

    def cancel(self, a: int, b: int, c: int) -> None:
        if self.blocks:
            self._cancel(failing=bool(a & 1))
            self.compare()

    def _cancel(self, failing: bool = False) -> None:
        manager, (slots, loose) = self.blocks.pop()
        if failing:
            error = ValueError("the block failed")
            if manager.__exit__(ValueError, error, None):
                raise Mismatch("the exception was swallowed")
        else:
            manager.cancel()
        self.slots = slots
        held = self.loose
        self.loose = [(node, held[i][1], alive) for i, (node, alive) in enumerate(loose)]
        for _, obj, _ in held[len(loose) :]:
            self._expect_dead(obj)

    def loosen(self, a: int, b: int, c: int) -> None:
        if len(self.loose) < 8:
            node, obj = self._make("memo", b, c)
            self.loose.append((node, obj, True))

    def delete(self, a: int, b: int, c: int) -> None:
        alive = [i for i, (_, _, there) in enumerate(self.loose) if there]
        if not alive:
            return
        at = alive[a % len(alive)]
        node, obj, _ = self.loose[at]
        if db0.getrefcount(obj):  # perhaps by what is garbage itself
            try:
                db0.delete(obj)
            except db0.Error:
                return
            raise Mismatch("an object with references was deleted")
        if self._refers_to(node):
            raise Mismatch("an object that is referred to has no references")
        db0.delete(obj)
        self._expect_dead(obj)
        self.loose[at] = node, obj, False

    def keep(self, a: int, b: int, c: int) -> None:
        alive = [(node, obj) for node, obj, there in self.loose if there]
        if alive:
            node, obj = alive[b % len(alive)]
            self.top.slots[a % SLOTS] = obj
            self.slots[a % SLOTS] = node

    # --- values -------------------------------------------------------------------------------------------------------

    def _value(self, b: int, c: int) -> tuple[Any, Any]:
        """A value in both worlds: an atom, a new object, or one that is stored already."""
        if b % 3 == 0:
            atom = ATOMS[c % len(ATOMS)]
            return atom, atom
        if b % 3 == 1:
            return self._make(KINDS[c % len(KINDS)], b, c // len(KINDS))
        node, obj = self._walk(c, memo=True)
        return (ATOMS[c % len(ATOMS)],) * 2 if node is None else (node, obj)

    def _make(self, kind: str, b: int, c: int) -> tuple[Node, Any]:
        node = Node(kind, next(self.serials))
        many = c % 20
        if kind == "memo":
            obj = Thing(node.serial)
            if many & 1:
                obj.a = node.data["a"] = c
        elif kind == "list":
            node.data = list(range(many))
            obj = db0.list(node.data)
        elif kind == "dict":
            node.data = {i: str(i) for i in range(many)}
            obj = db0.dict(node.data)
        elif kind == "set":
            node.data = set(range(many))
            obj = db0.set(node.data)
        elif kind == "index":
            obj = db0.index()
        else:
            node.data = bytearray(range(many))
            obj = db0.bytearray(node.data)
        return node, obj

    def _children(self, node: Node) -> list[tuple[Any, Node]]:
        if node.kind in ("memo", "dict"):
            return [(key, value) for key, value in node.data.items() if type(value) is Node]
        if node.kind == "list":
            return [(i, value) for i, value in enumerate(node.data) if type(value) is Node]
        if node.kind == "index":
            return [(i, value) for i, (_, value) in enumerate(self._entries(node))]
        return []

    def _entries(self, node: Node) -> list[tuple[Any, Node]]:
        return sorted(node.data, key=lambda entry: (entry[0] is None, entry[0] or 0, entry[1].serial))

    def _step_down(self, node: Node, obj: Any, where: Any) -> Any:
        if node.kind == "memo":
            return getattr(obj, where)
        if node.kind == "index":
            key, target = self._entries(node)[where]
            for found_key, found in obj:
                if found_key == key and found.serial == target.serial:
                    return found
            raise Mismatch(f"an index lacks {key!r}")
        return obj[where]

    def _walk(self, number: int, memo: bool = False) -> tuple[Node, Any] | tuple[None, None]:
        """A stored object somewhere below the top, in both worlds; `memo`: only a memo object will do."""
        return self._walk_in(self.slots, self.top, number, memo)

    def _walk_in(self, slots: list[Any], top: Any, number: int, memo: bool) -> tuple[Node, Any] | tuple[None, None]:
        found: tuple[Node, Any] | tuple[None, None] = None, None
        slot, number = number % SLOTS, number // SLOTS
        node = slots[slot]
        if type(node) is not Node:
            return found
        obj = top.slots[slot]
        for _ in range(4):
            if not memo or node.kind == "memo":
                found = node, obj
            children = self._children(node)
            choice, number = number % (len(children) + 1), number // (len(children) + 1)
            if not choice:
                break
            where, child = children[choice - 1]
            obj = self._step_down(node, obj, where)
            node = child
        else:
            if not memo or node.kind == "memo":
                found = node, obj
        return found

    # --- changes ------------------------------------------------------------------------------------------------------

    def _change_memo(self, node: Node, obj: Any, b: int, c: int) -> None:
        name = "abcd"[b % 4]
        if b % 5 == 4 and name in node.data:
            delattr(obj, name)
            del node.data[name]
            return
        model, value = self._value(b // 4, c)
        setattr(obj, name, value)
        node.data[name] = model

    def _change_list(self, node: Node, obj: Any, b: int, c: int) -> None:
        data, op, n = node.data, b % 10, len(node.data)
        at = c % (n + 1)
        if n > MOST:
            op = 6
        if op == 0 or (not n and op in (2, 3, 5)):
            model, value = self._value(b // 10, c)
            obj.append(value)
            data.append(model)
        elif op == 1:
            model, value = self._value(b // 10, c)
            obj.insert(at, value)
            data.insert(at, model)
        elif op == 2:
            model, value = self._value(b // 10, c)
            obj[at % n] = value
            data[at % n] = model
        elif op == 3:
            obj.pop(at % n)
            data.pop(at % n)
        elif op == 4:
            obj.extend(range(c % 12))
            data.extend(range(c % 12))
        elif op == 5:
            del obj[at % n]
            del data[at % n]
        elif op == 6:
            del obj[at // 2 : at]
            del data[at // 2 : at]
        elif op == 7:
            obj.reverse()
            data.reverse()
        elif op == 8:
            obj[at : at + 2] = [1, 2, 3]
            data[at : at + 2] = [1, 2, 3]
        elif c % 4 == 0:
            obj.clear()
            data.clear()

    def _change_dict(self, node: Node, obj: Any, b: int, c: int) -> None:
        data, op, key = node.data, b % 6, KEYS[c % len(KEYS)]
        if len(data) > MOST:
            op = 4
        if op in (0, 1):
            model, value = self._value(b // 6, c // 3)
            obj[key] = value
            data[key] = model
        elif op == 2:
            obj.pop(key, None)
            data.pop(key, None)
        elif op == 3:
            for i in range(c % 15):
                obj[i + c] = i
                data[i + c] = i
        elif op == 4 and data:
            for _ in range(min(len(data), 5)):
                if obj.popitem()[0] != data.popitem()[0]:
                    raise Mismatch("popitem() took another key")
        elif op == 5 and c % 4 == 0:
            obj.clear()
            data.clear()

    def _change_set(self, node: Node, obj: Any, b: int, c: int) -> None:
        data, op = node.data, b % 5
        if len(data) > MOST:
            op = 4
        if op == 0:
            obj.add(KEYS[c % len(KEYS)])
            data.add(KEYS[c % len(KEYS)])
        elif op == 1:
            obj.discard(KEYS[c % len(KEYS)])
            data.discard(KEYS[c % len(KEYS)])
        elif op == 2:
            obj |= set(range(c, c + c % 15))
            data |= set(range(c, c + c % 15))
        elif op == 3:
            obj -= set(range(c % 40))
            data -= set(range(c % 40))
        elif c % 3 == 0:
            obj.clear()
            data.clear()

    def _change_index(self, node: Node, obj: Any, b: int, c: int) -> None:
        data, op = node.data, b % 6
        if len(data) > MOST or (op == 5 and c % 3 == 0):
            obj.clear()
            data.clear()
        elif op in (0, 1, 2) or not data:
            model, value = self._walk(c, memo=True)
            if model is None:
                model, value = self._make("memo", b, c)
            key = None if c % 9 == 8 else c % 30
            obj.add(key, value)
            data.add((key, model))
        else:
            entries = self._entries(node)
            at = c % len(entries)
            value = self._step_down(node, obj, at)
            obj.remove(entries[at][0], value)
            data.discard(entries[at])

    def _change_bytes(self, node: Node, obj: Any, b: int, c: int) -> None:
        data, op = node.data, b % 6
        at = c % (len(data) + 1)
        if len(data) > MOST:
            op = 2
        if op == 0:
            obj.append(c % 256)
            data.append(c % 256)
        elif op == 1:
            obj.extend(bytes(range(c % 30)))
            data.extend(bytes(range(c % 30)))
        elif op == 2:
            del obj[at // 2 : at]
            del data[at // 2 : at]
        elif op == 3:
            obj[at : at + 3] = b"12345"
            data[at : at + 3] = b"12345"
        elif op == 4 and data:
            obj[at % len(data)] = data[at % len(data)] = b % 256
        elif op == 5 and c % 3 == 0:
            obj.clear()
            data.clear()

    # --- comparing ----------------------------------------------------------------------------------------------------

    def _stored(self) -> Iterator[Node]:
        """The models of all that the top leads to, each once."""
        seen: set[int] = set()
        waiting = [value for value in self.slots if type(value) is Node]
        while waiting:
            node = waiting.pop()
            if id(node) not in seen:
                seen.add(id(node))
                yield node
                waiting.extend(child for _, child in self._children(node))

    def _refers_to(self, wanted: Node) -> bool:
        """Whether something that is stored refers to it."""
        seen: set[int] = set()
        waiting = [value for value in self.slots if type(value) is Node]
        if wanted in waiting:
            return True
        while waiting:
            node = waiting.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            for _, child in self._children(node):
                if child is wanted:
                    return True
                waiting.append(child)
        return False

    @staticmethod
    def _expect_dead(obj: Any) -> None:
        try:
            obj.serial
        except db0.ReferenceError:
            return
        raise Mismatch("an object that is gone can be read")

    def compare(self) -> None:
        """Everything, deeply, identities included. Mismatch tells the place."""
        self._compare(self.slots, self.top, self.loose)

    def _compare(self, slots: list[Any], top: Any, loose: list[tuple[Node, Any, bool]]) -> None:
        pairs: dict[int, Any] = {}
        waiting: list[tuple[str, Node, Any]] = []

        def same(path: str, model: Any, value: Any) -> None:
            if type(model) is Node:
                known = pairs.setdefault(id(model), value)
                if known is not value:
                    raise Mismatch(f"{path}: another object")
                waiting.append((path, model, value))
            elif type(model) is not type(value) or model != value:
                raise Mismatch(f"{path}: {value!r}, expected {model!r}")

        for i, model in enumerate(slots):
            same(f"[{i}]", model, top.slots[i])
        for i, (node, obj, alive) in enumerate(loose):
            if alive:
                same(f"loose {i}", node, obj)
            else:
                self._expect_dead(obj)
        done: set[int] = set()
        while waiting:
            path, node, obj = waiting.pop()
            if id(node) in done:
                continue
            done.add(id(node))
            for where, model, value in self._parts(path, node, obj):
                same(where, model, value)

    def _parts(self, path: str, node: Node, obj: Any) -> Iterator[tuple[str, Any, Any]]:
        kind, data = node.kind, node.data
        if kind == "memo":
            fields = vars(obj)
            if fields.pop("serial") != node.serial:
                raise Mismatch(f"{path}: another object")
            if list(fields) != list(data) and set(fields) != set(data):
                raise Mismatch(f"{path}: fields {list(fields)}, expected {list(data)}")
            for name, model in data.items():
                yield f"{path}.{name}", model, fields[name]
            return
        obj._check()
        if len(obj) != len(data):
            raise Mismatch(f"{path}: {len(obj)} values in a {kind}, expected {len(data)}")
        if kind == "list":
            for i, (model, value) in enumerate(zip(data, obj, strict=True)):
                yield f"{path}[{i}]", model, value
        elif kind == "dict":
            if list(obj) != list(data):
                raise Mismatch(f"{path}: keys {list(obj)}, expected {list(data)}")
            for key, value in obj.items():
                yield f"{path}[{key!r}]", data[key], value
        elif kind == "set":
            if set(obj) != data:
                raise Mismatch(f"{path}: {set(obj)}, expected {data}")
        elif kind == "bytes":
            if bytes(obj) != bytes(data):
                raise Mismatch(f"{path}: {bytes(obj)!r}, expected {bytes(data)!r}")
        else:
            found = sorted(
                ((key, value) for key, value in obj),
                key=lambda entry: (entry[0] is None, entry[0] or 0, entry[1].serial),
            )
            if [key for key, _ in obj] != [key for key, _ in found]:
                raise Mismatch(f"{path}: keys out of order")
            for (key, model), (found_key, value) in zip(self._entries(node), found, strict=True):
                if key != found_key:
                    raise Mismatch(f"{path}: key {found_key!r}, expected {key!r}")
                yield f"{path}<{key!r}>", model, value


_ACTIONS = (
    *[Program.change] * 22,
    *[Program.plant] * 4,
    Program.commit,
    Program.commit,
    Program.evict,
    Program.evict,
    Program.reopen,
    *[Program.begin] * 4,
    *[Program.end] * 2,
    *[Program.cancel] * 3,
    Program.loosen,
    Program.loosen,
    Program.delete,
    Program.keep,
)
"""What a step's first number chooses from."""
