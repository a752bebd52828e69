from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.collections.harness import Bench, small_nodes


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.use()
    return made


@pytest.fixture
def tiny() -> Iterator[None]:
    with small_nodes():
        yield
