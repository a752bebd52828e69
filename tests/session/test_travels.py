"""Random programs whose every committed state stays readable (see tests/travels.py)."""

from __future__ import annotations

import os
import tempfile

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dbzero as db0
from dbzero.storage.verify import check_root
from tests.collections.harness import small_nodes
from tests.travels import Travel

FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # nothing here depends on what a sync does

numbers = st.integers(0, (1 << 20) - 1)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=50, max_size=50))
def test_programs(steps: list[tuple[int, int, int, int]]) -> None:
    with tempfile.TemporaryDirectory(dir=FAST) as root, small_nodes():
        try:
            program = Travel(root)
            for step in steps:
                program.run(step)
            program.close()
        finally:
            db0.close()
        assert check_root(root) == []
