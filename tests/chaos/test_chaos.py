"""The short version of `make chaos`: two storms over real workers, on each broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.brokers import rabbitmq
from tests.chaos.__main__ import persistent_valkey
from tests.chaos.arena import arena
from tests.chaos.storms import QUICK, weather

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(600)]


async def test_nothing_is_lost_on_valkey_whatever_is_killed(tmp_path: Path) -> None:
    """Both replicas of the hook, workers and the broker; all is well again within a minute each time."""
    with persistent_valkey(tmp_path) as broker:
        async with arena(tmp_path, broker, seed=339) as here:
            outcome = await weather(here, QUICK)
    assert outcome.violations == []


@pytest.mark.rabbitmq
async def test_nothing_is_lost_on_rabbitmq_whatever_is_killed(tmp_path: Path) -> None:
    """The same on AMQP."""
    with rabbitmq(tmp_path) as broker:
        async with arena(tmp_path, broker, seed=340) as here:
            outcome = await weather(here, QUICK)
    assert outcome.violations == []
