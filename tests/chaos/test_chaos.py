"""The short version of `make chaos`: `make test ARGS="-m chaos tests/chaos"`.

Not part of `make test`: it takes three minutes, and all of the machine.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.campaign import BROKERS, rage
from tests.chaos.report import evidence
from tests.chaos.storms import QUICK


@pytest.mark.chaos
@pytest.mark.rabbitmq
@pytest.mark.timeout(600)
def test_nothing_is_lost_whatever_is_killed(tmp_path: Path) -> None:
    """Replicas of the hook at two points of a round and at any, workers, the broker: with each all is well
    again within a minute, no busy worker is deleted, and every task runs."""
    results = rage(BROKERS, QUICK, directory=tmp_path, seed=339)
    assert results
    assert evidence({name: outcome for name, (outcome, _, _) in results.items()}) == []
    assert all(outcome.verdicts["Drained"] for outcome, _, _ in results.values())
