"""Random programs of queries against a naive evaluator: see tests/query/random_queries.py."""

from __future__ import annotations

import tempfile

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dbzero as db0
from dbzero.storage.verify import check_root
from tests.query.random_queries import Queries


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(0, (1 << 32) - 1), min_size=50, max_size=50))
def test_random_queries(steps: list[int]) -> None:
    with tempfile.TemporaryDirectory() as root:
        try:
            program = Queries(root)
            for at, number in enumerate(steps):
                program.run(number)
                if at == 25:
                    program.reopen()
            program.compare()
        finally:
            db0.close()
        assert check_root(root) == []
