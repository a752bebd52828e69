"""Random programs that travel in time: :class:`tests.programs.Program`, and every state that it ever committed is kept as
a copy of the model. At any later time any of them has to be found as it was, through snapshots just taken and through
ones that were held meanwhile, across commits, evictions, checkpoints, compactions and reopening, inside of atomic blocks too.
"""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import dbzero as db0
from dbzero.session.workspace import active
from tests.programs import SLOTS, Mismatch, Node, Program, Step, Top

HELD = 5  # snapshots held at a time, at most


class Travel(Program):
    """One running program, and its past."""

    def __init__(self, root: str) -> None:
        self.states: dict[int, list[Any] | None] = {1: None}  # state -> slots; None: there was no top yet
        self.oldest = 1
        self.held: list[tuple[int, Any]] = []
        self.visits = 0
        super().__init__(root)

    def run(self, step: Step) -> None:
        """Do one step, and remember the state that it committed."""
        op, a, b, c = step
        act = _ACTIONS[op % len(_ACTIONS)]
        name = act.__name__
        self.counts[name] = self.counts.get(name, 0) + 1
        act(self, a, b, c)
        if not self.blocks:
            self._remember()

    def _remember(self) -> None:
        state = db0.get_state_num(finalized=True)
        if state not in self.states:
            if state < max(self.states):
                raise Mismatch(f"state {state} came after {max(self.states)}")
            self.states[state] = copy.deepcopy(self.slots)

    # --- steps --------------------------------------------------------------------------------------------------------

    def evict(self, a: int, b: int, c: int) -> None:
        super().evict(a, b, c)
        for _, snapshot in self.held:
            view = snapshot.view("main")
            view.evict(a % 2)

    def reopen(self, a: int, b: int, c: int) -> None:
        while self.blocks:
            self._cancel()
        self.loose.clear()
        if a & 1:  # only the prefix: what is held stays
            db0.close("main")
            self._open_again()
        else:
            self.held.clear()
            db0.close()
            self._open()
        self.compare()

    def _open_again(self) -> None:
        db0.open("main")
        self.top = db0.fetch(Top) if db0.exists(Top) else Top()

    def checkpoint(self, a: int, b: int, c: int) -> None:
        active().get("main").prefix.checkpoint()

    def compact(self, a: int, b: int, c: int) -> None:
        if self.blocks:
            return
        db0.commit()
        self._remember()
        self.oldest = db0.compact(keep_states=a % 6 + 1).oldest_state
        for state, snapshot in self.held:
            self._visit(state, snapshot)

    def hold(self, a: int, b: int, c: int) -> None:
        kept = self._kept()
        state = kept[a % len(kept)]
        snapshot = db0.snapshot(state) if b & 1 else db0.snapshot({"main": state})
        if len(self.held) == HELD:
            _, old = self.held.pop(b % HELD)
            if b & 2:
                old.close()
        self.held.append((state, snapshot))
        self._visit(state, snapshot)

    def visit(self, a: int, b: int, c: int) -> None:
        kept = self._kept()
        with db0.snapshot(kept[a % len(kept)]) as snapshot:
            self._visit(kept[a % len(kept)], snapshot)

    def visit_held(self, a: int, b: int, c: int) -> None:
        if self.held:
            self._visit(*self.held[a % len(self.held)])

    def too_old(self, a: int, b: int, c: int) -> None:
        if self.oldest > 1:
            with contextlib.suppress(db0.StateNotKeptError):
                db0.snapshot(a % (self.oldest - 1) + 1)
                raise Mismatch(f"a state below {self.oldest} can be read")

    def graft(self, a: int, b: int, c: int) -> None:
        """Store an object of the past among the live ones: it means the live one."""
        if not self.held:
            return
        state, snapshot = self.held[a % len(self.held)]
        past = self.states[state]
        if past is None:
            return
        node, obj = self._walk_in(past, snapshot.fetch(Top), b, True)
        if node is None:
            return
        live = next((found for found in self._stored() if found.kind == "memo" and found.serial == node.serial), None)
        if live is not None:
            self.top.slots[c % SLOTS] = obj
            self.slots[c % SLOTS] = live

    # --- the past -----------------------------------------------------------------------------------------------------

    def _kept(self) -> list[int]:
        """The states that can be visited, newest first."""
        return sorted((state for state in self.states if state >= self.oldest), reverse=True)

    def _visit(self, state: int, snapshot: Any) -> None:
        self.visits += 1
        if snapshot.get_state_num("main") != state:
            raise Mismatch(f"state {snapshot.get_state_num('main')} instead of {state}")
        slots = self.states[state]
        if slots is None:
            if snapshot.exists(Top):
                raise Mismatch(f"there is a top in state {state}")
            return
        top = snapshot.fetch(Top)
        try:
            self._compare(slots, top, [])
        except Mismatch as error:
            raise Mismatch(f"state {state}: {error}") from None
        node, obj = self._walk_in(slots, top, state * 7919, True)
        if node is not None and (snapshot.fetch(db0.uuid(obj)) is not obj or type(node) is not Node):
            raise Mismatch(f"state {state}: fetch gives another object")

    def visit_all(self) -> None:
        """Every state there is."""
        for state in self._kept():
            with db0.snapshot(state) as snapshot:
                self._visit(state, snapshot)

    def close(self) -> None:
        """End the program; visit every state, in this process and read-only in the next life of the store."""
        for state, snapshot in self.held:
            self._visit(state, snapshot)
        while self.blocks:
            self._cancel()
        db0.commit()
        self._remember()
        self.visit_all()
        self.held.clear()
        super().close()
        db0.init(self.root)
        db0.open("main", "r")
        if db0.get_state_num() not in self.states:  # a close may commit what only Python held
            self._remember()
        self.visit_all()
        db0.close()


_ACTIONS = (
    *[Program.change] * 20,
    *[Program.plant] * 3,
    *[Program.commit] * 8,
    *[Travel.evict] * 2,
    Travel.reopen,
    *[Travel.hold] * 2,
    *[Travel.visit] * 3,
    *[Travel.visit_held] * 2,
    Travel.graft,
    Travel.graft,
    Travel.checkpoint,
    Travel.too_old,
    *[Program.begin] * 2,
    *[Program.end] * 2,
    Program.cancel,
    Program.loosen,
    Program.delete,
    Program.keep,
    Travel.compact,
)
"""What a step's first number chooses from."""
