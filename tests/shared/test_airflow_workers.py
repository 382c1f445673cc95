"""What Airflow's workers tell of their tasks through the real door."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deploy.sandbox import manifests
from shared.brokers import Brokers
from shared.celery_control import CeleryControl
from shared.pools import Pool
from shared.workers import Task, TaskKey
from tests.brokers import valkey
from tests.fakes.celery import FakeCelery
from tests.workers import celery_workers, send_tasks

NODE = "celery@airflow"
TOKEN = "a-token-" * 200
"""It stands before everything else, and is longer than what Celery shows of arguments in short."""


async def test_a_running_task_is_told_by_its_arguments(tmp_path: Path) -> None:
    """Its row may be another's already; and nothing else of its arguments is kept, least of all the token."""
    gate = tmp_path / "gate"
    instance = {"dag_id": "sales", "task_id": "load", "run_id": "manual__1", "map_index": 3}
    workload = {"token": TOKEN, "log_path": str(gate), "ti": instance, "type": "ExecuteTask"}
    with valkey() as server, celery_workers(server.url, {NODE: ["default"]}, concurrency=1):
        control = CeleryControl(server.url, with_arguments=True)
        try:
            send_tasks(server.url, "execute_workload", json.dumps(workload), queue="default")
            task = await _first_task(control)
        finally:
            gate.touch()
            await control.close()
    assert task.key == TaskKey(dag_id="sales", task_id="load", run_id="manual__1", map_index=3)
    assert "a-token" not in repr(task)


@pytest.mark.parametrize("airflow", [None, {"database": "postgresql://reader@database/airflow"}])
def test_arguments_are_asked_for_only_where_they_tell_something(airflow: dict[str, str] | None) -> None:
    """Those of other tasks may be large, private, or nothing that JSON knows."""
    connected: list[Mapping[str, Any]] = []

    def connect(url: str, **options: Any) -> FakeCelery:
        connected.append(options)
        return FakeCelery()

    document = manifests.pool(
        name="default", workload="worker", broker_url="redis://broker/0", slots=1, queues=("default",)
    )
    pool = Pool.model_validate(document | {"airflow": airflow})
    Brokers(lambda _: "redis://broker/0", connect=connect).of(pool)
    assert [options["with_arguments"] for options in connected] == [airflow is not None]


async def _first_task(control: CeleryControl) -> Task:
    async with asyncio.timeout(20):
        while True:
            fleet = await control.inspect([NODE], timeout_s=2)
            if NODE in fleet.workers and fleet.workers[NODE].active:
                return fleet.workers[NODE].active[0]
            await asyncio.sleep(0.05)
