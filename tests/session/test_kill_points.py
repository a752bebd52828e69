"""SIGKILL at every durable system call of a writer's life, a reader attached all the while."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dbzero as db0
from dbzero.model.base import operation
from dbzero.runtime.slot import PrefixSlot
from dbzero.session.history import compact_prefix
from dbzero.session.workspace import active
from dbzero.storage import committing
from dbzero.storage.verify import check_root
from tests.session.forks import Forked, kill_at

Send = Callable[[Any], None]
MANY = 40


@db0.memo(singleton=True, id="tests/kill/Board")
class Board:
    def __init__(self) -> None:
        self.serial = 0
        self.numbers = [0] * MANY
        self.table = {n: 0 for n in range(MANY)}
        self.blob = b""


def fill(board: Board, serial: int, blob: bytes = b"") -> None:
    board.serial = serial
    board.numbers[:] = [serial] * MANY
    for n in range(MANY):
        board.table[n] = serial
    board.blob = blob or serial.to_bytes(4, "little") * 50


def verify(board: Board) -> int:
    """The serial, once everything agrees on it. For a view that nobody moves."""
    serial = board.serial
    assert list(board.numbers) == [serial] * MANY
    assert set(board.table.values()) == {serial}
    assert board.blob in (b"", serial.to_bytes(4, "little") * (len(board.blob) // 4))
    return serial


def writer_life(root: str) -> Callable[[Send], None]:
    """Open, small commits, rotation with a checkpoint beside commits, a big commit in place, one through the table, close."""

    def body(send: Send) -> None:
        committing.LOG_LIMIT = 6000  # type: ignore[misc]
        db0.init(root, autocommit=False)
        db0.open("p")
        board = Board()
        start = verify(board)
        send(("found", start))

        def commit(serial: int, blob: bytes = b"") -> None:
            fill(board, serial, blob)
            db0.commit()
            send(("ack", serial))

        for n in range(1, 4):
            commit(start + n)
        commit(start + 4, (start + 4).to_bytes(4, "little") * 280_000)
        real, refusals = PrefixSlot.delta_reserve, [2]

        def refuse(self: PrefixSlot, n: int) -> bool:
            refusals[0] -= 1
            return False if refusals[0] >= 0 else real(self, n)

        PrefixSlot.delta_reserve = refuse  # type: ignore[method-assign]
        commit(start + 5)
        commit(start + 6)
        db0.close()
        send(("closed", start + 6))

    return body


def reader_life(root: str, orders: int) -> Callable[[Send], None]:
    """Watch - never torn, never backwards - until a serial comes through the pipe `orders`; then until that has arrived."""

    def body(send: Send) -> None:
        db0.init(root)
        db0.open("p", "r")
        board = Board()
        send(("seen", board.serial))
        os.set_blocking(orders, False)
        last, goal, deadline = -1, -1, 0.0
        while goal < 0 or last < goal:
            with operation:
                serial = verify(board)
            assert serial >= last, f"went back from {last} to {serial}"
            last = serial
            if goal < 0:
                try:
                    goal = int.from_bytes(os.read(orders, 4), "little")
                    deadline = time.monotonic() + 10
                except BlockingIOError:
                    pass
            else:
                assert time.monotonic() < deadline, f"still at {last}, not at {goal}"
            time.sleep(0.0005)
        send(("last", last))

    return body


class Fixture:
    """A store with one commit in it, and a count of what was acknowledged."""

    def __init__(self, root: str, life: Callable[[str], Callable[[Send], None]] = writer_life) -> None:
        self.root = root
        self.life = life
        self.least = 0

    def one(self, number: int, how: str) -> bool:
        """Kill a writer at its `number`-th durable call. False when it has fewer."""
        receive, give = os.pipe()
        reader = Forked(reader_life(self.root, receive)) if number % 3 else None
        try:
            if reader is not None:
                reader.receive()

            def life(send: Send) -> None:
                kill_at(number, how)
                self.life(self.root)(send)

            writer = Forked(life)
            sent = writer.drain()
            status = writer.wait()
            self.settle(sent, status)

            # Everybody who comes now finds at least what was acknowledged: first who only reads, then the successor.
            late = Forked(self.look)
            assert late.drain() == [("value", self.least)] or late.received == [("value", self.least + 1)], (
                late.received,
                self.least,
            )
            assert late.wait() == 0
            successor = Forked(self.succeed)
            (answer,) = successor.drain()
            assert successor.wait() == 0
            assert answer[1] in (self.least, self.least + 1), (answer, self.least)
            assert answer[1] >= late.received[0][1]
            self.least = answer[2]
            if reader is not None:
                os.write(give, self.least.to_bytes(4, "little"))
                assert reader.drain() == [("last", self.least)]
                assert reader.wait() == 0
            assert check_root(self.root) == []
            return status == -9
        finally:
            if reader is not None:
                reader.kill()
            os.close(receive)
            os.close(give)

    def settle(self, sent: list[Any], status: int) -> None:
        assert status in (0, -9), (status, sent)
        for kind, serial in sent:
            if kind == "found":
                assert serial in (self.least, self.least + 1)
                self.least = serial
            elif kind == "ack":
                assert serial == self.least + 1
                self.least = serial

    def look(self, send: Send) -> None:
        db0.init(self.root)
        db0.open("p", "r")
        send(("value", verify(Board())))
        db0.close()

    def succeed(self, send: Send) -> None:
        db0.init(self.root, autocommit=False)
        db0.open("p")
        board = Board()
        found = verify(board)
        fill(board, found + 1)
        db0.commit()
        send(("commit", found, found + 1))
        db0.close()


@pytest.fixture
def store_at(tmp_path: Path) -> Fixture:
    root = str(tmp_path / "root")

    def first(send: Send) -> None:
        db0.init(root, autocommit=False)
        db0.open("p")
        Board()
        db0.close()

    Forked(first).wait()
    gc.collect()
    return Fixture(root)


def compacting_life(root: str) -> Callable[[Send], None]:
    """Open, commits, compaction with a commit beside it, commits, another one, close."""

    def body(send: Send) -> None:
        db0.init(root, autocommit=False)
        db0.open("p")
        board = Board()
        serial = verify(board)
        send(("found", serial))

        def commit() -> None:
            nonlocal serial
            fill(board, serial + 1)
            db0.commit()
            serial += 1
            send(("ack", serial))

        def beside(done: int, total: int) -> None:
            if not meanwhile:
                meanwhile.append(done)
                commit()

        for keep in (2, 1):
            meanwhile: list[int] = []
            commit()
            compact_prefix(active(), "p", keep, None, beside)
            commit()
        db0.close()
        send(("closed", serial))

    return body


def sweep(fixture: Fixture, how: str, step: int, start: int = 1) -> int:
    number = start
    while fixture.one(number, how):
        number += step
        assert number < 2000
    return number


@pytest.mark.parametrize(("how", "start"), [("before", 1), ("torn", 2), ("after", 3)])
def test_kill_at_durable_calls(store_at: Fixture, how: str, start: int) -> None:
    """A few of them; DBZERO_EVERY_CALL=1 takes each."""
    every = bool(os.environ.get("DBZERO_EVERY_CALL"))
    assert sweep(store_at, how, 1 if every else 7, 1 if every else start) > 60


@pytest.mark.parametrize(("how", "start"), [("before", 1), ("torn", 3), ("after", 5)])
def test_kill_while_compacting(store_at: Fixture, how: str, start: int) -> None:
    """The same beside compaction: the old file or the new one, each with every acknowledged commit."""
    every = bool(os.environ.get("DBZERO_EVERY_CALL"))
    store_at.life = compacting_life
    assert sweep(store_at, how, 1 if every else 6, 1 if every else start) > 60
    assert not [name for name in os.listdir(store_at.root) if "stray" in name or "compact" in name]
