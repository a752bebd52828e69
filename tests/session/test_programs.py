"""Random programs with atomic blocks against plain values: what a store does, dicts, lists and objects do."""

from __future__ import annotations

import tempfile

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dbzero as db0
from dbzero.storage.verify import check_root
from tests.collections.harness import small_nodes
from tests.programs import Program

numbers = st.integers(0, (1 << 20) - 1)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=50, max_size=50))
def test_programs(steps: list[tuple[int, int, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as root, small_nodes():
        try:
            program = Program(root)
            for i, step in enumerate(steps):
                program.run(step)
                if i % 5 == 0:
                    program.compare()
            program.close()
        finally:
            db0.close()
        assert check_root(root) == []
