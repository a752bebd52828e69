"""Random programs of tags and find against a naive evaluator."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.query.programs import FindMachine

TestFind = pytest.mark.timeout(600)(FindMachine.TestCase)  # half a minute on a machine that does nothing else
TestFind.settings = settings(
    max_examples=200,
    stateful_step_count=50,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
