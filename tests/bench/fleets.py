"""A sandbox with both services and a fleet of any size: pods without a process, and a crowd that answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from deploy.sandbox import manifests
from deploy.sandbox.cluster import Sandbox, sandbox
from deploy.sandbox.errors import ApiError
from deploy.sandbox.resources import DEPLOYMENTS
from deploy.sandbox.services import apply
from tests.bench.crowd import crowd

POOL = "bench"
REFRESH_S = 5.0
PATIENCE_S = 180.0


@asynccontextmanager
async def fleet(
    directory: Path,
    *,
    workers: int,
    pools: int = 1,
    refresh_s: float = REFRESH_S,
    database: str | None = None,
) -> AsyncIterator[Sandbox]:
    """Every worker is known to the adapter, and has two tasks; `pools` of them have equal parts of all.

    With the URL of a metadata database they are Airflow's.
    """
    configuration = partial(_configuration, pools=pools, refresh_s=refresh_s, database=database)
    async with (
        sandbox(directory, configuration=configuration) as box,
        crowd(directory, box.broker_url, POOL),
    ):
        for number in range(pools):
            await apply(box.kube, pods_without_processes(name_of(number), workers // pools))
        await _until_known(box, workers // pools * pools)
        yield box


def name_of(number: int) -> str:
    """Of a pool, and of its Deployment."""
    return POOL if number == 0 else f"{POOL}-{number}"


def _configuration(
    broker_url: str, *, pools: int, refresh_s: float, database: str | None
) -> manifests.Document:
    airflow = {"airflow": {"database": database}} if database else {}
    documents = [
        manifests.pool(name=name, workload=name, broker_url=broker_url, slots=2, queues=(name,)) | airflow
        for name in map(name_of, range(pools))
    ]
    return manifests.configuration(*documents) | {"refresh": f"{refresh_s:g}s", "maxAge": "1m"}


def pods_without_processes(name: str, replicas: int) -> manifests.Document:
    return manifests.worker_deployment(
        name=name, replicas=replicas, command=[], environment={}, grace_seconds=0
    )


async def refused_scale_down(box: Sandbox, *, to: int) -> str:
    """What is said to it: all workers are busy."""
    change = {"spec": {"replicas": to}}
    try:
        await box.kube.patch(DEPLOYMENTS, manifests.NAMESPACE, POOL, change, subresource="scale")
    except ApiError as error:
        return str(error)
    raise RuntimeError("A scale-down of busy workers was allowed.")


async def _until_known(box: Sandbox, workers: int) -> None:
    """Until each has told the adapter of the two tasks that the recorded worker runs."""
    deadline = time.monotonic() + PATIENCE_S
    async with aiohttp.ClientSession() as session:
        while await _active_tasks(session, box) < 2 * workers:
            if time.monotonic() > deadline:
                raise RuntimeError(f"Not all {workers} workers are known; look into {box.directory}.")
            await asyncio.sleep(0.5)


async def _active_tasks(session: aiohttp.ClientSession, box: Sandbox) -> float:
    """As the adapter tells Prometheus; 0 before it has measured."""
    values = await telemetry_of(session, box.services.adapter_telemetry)
    return sum(one[2] for one in values if one[1].get("metric") == "celery_active_tasks")


async def telemetry_of(session: aiohttp.ClientSession, port: int) -> list[tuple[str, dict[str, str], float]]:
    """What a service tells Prometheus: name, labels and value of each sample."""
    async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
        families = list(text_string_to_metric_families(await response.text()))
    return [
        (sample.name, dict(sample.labels), sample.value) for family in families for sample in family.samples
    ]
