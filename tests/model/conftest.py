from __future__ import annotations

from collections.abc import Iterator

import pytest

from dbzero.model.view import View
from tests.model.memory import Memory, current


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def view(memory: Memory) -> Iterator[View]:
    made = View(memory, 1)
    with current(made):
        yield made
    made.close()
