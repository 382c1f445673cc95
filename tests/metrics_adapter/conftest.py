from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from metrics_adapter.freshness import PoolState
from tests.fakes.celery import FakeCelery, fake_worker
from tests.metrics_adapter.api_server import Adapter
from tests.metrics_adapter.builders import load, pod, tasks, worker
from tests.metrics_adapter.certificates import Authority
from tests.metrics_adapter.lab import Lab
from tests.shared.kubernetes_stages import sandbox_stage

RECORDINGS = Path(__file__).parents[1] / "recordings" / "kubernetes"


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority.make()


@pytest.fixture(scope="session")
def recording() -> Callable[[str], Any]:
    """A recording of a real cluster, by the beginning of its name."""

    def read(prefix: str) -> Any:
        (file,) = RECORDINGS.glob(f"{prefix}_*.json")
        return json.loads(file.read_text())

    return read


@pytest.fixture
async def adapter(authority: Authority, tmp_path: Path) -> AsyncIterator[Adapter]:
    """It serves one pool, airflow/default: two workers with eight slots each and a demand of eleven."""
    busy = load([pod("w-0"), pod("w-1")], [worker("w-0", 8), worker("w-1", 3)])
    served = Adapter(authority=authority, directory=tmp_path)
    served.pools.known = [PoolState(pool=busy.pool, load=busy, age_s=2.0)]
    async with served.running():
        yield served


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """Two workers with four slots, three tasks running, two waiting."""
    celery = FakeCelery.of(
        fake_worker("celery@worker-0", *tasks(3)), fake_worker("celery@worker-1"), lengths={"default": 2}
    )
    async with sandbox_stage(tmp_path) as stage:
        await stage.add_workload(replicas=2)
        yield Lab(stage=stage, directory=tmp_path, celery=celery)
