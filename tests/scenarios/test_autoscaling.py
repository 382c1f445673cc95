"""A stock HPA on the adapter's metrics, real workers behind it."""

from __future__ import annotations

import asyncio
import copy

import pytest

from deploy.sandbox import manifests
from deploy.sandbox.client import ApiClient
from deploy.sandbox.errors import ApiError
from deploy.sandbox.resources import AUTOSCALERS
from deploy.sandbox.services import apply
from tests.deploy.autoscalers import template
from tests.scenarios.crews import Cluster, eventually

pytestmark = [pytest.mark.scenario, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

BEHAVIOR = {
    "scaleUp": {
        "stabilizationWindowSeconds": 0,
        "policies": [{"type": "Pods", "value": 4, "periodSeconds": 2}],
    },
    "scaleDown": {
        "stabilizationWindowSeconds": 2,
        "policies": [{"type": "Pods", "value": 4, "periodSeconds": 2}],
    },
}
VALUES = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{manifests.NAMESPACE}/"


async def value(kube: ApiClient, metric: str, pool: str) -> str:
    document = await kube.request("GET", VALUES + metric, query={"labelSelector": f"pool={pool}"})
    (item,) = document["items"]
    assert item["metricLabels"] == {"pool": pool, "workload": pool}
    return str(item["value"])


async def serves(kube: ApiClient, metric: str, pool: str, wanted: str) -> None:
    async def holds() -> bool:
        try:
            return await value(kube, metric, pool) == wanted
        except ApiError:
            return False  # nothing is served until the pool was measured once

    await eventually(holds, f"{metric} of {pool} is {wanted}")


async def test_an_hpa_follows_the_tasks_up_and_down(cluster: Cluster) -> None:
    """Load makes workers, the end of load removes them, and no task is lost on the way."""
    async with cluster.crew("scaled", 1) as crew:
        scaler = manifests.autoscaler(name="scaled", pool="scaled", max_replicas=4, behavior=BEHAVIOR)
        await apply(cluster.kube, scaler)
        try:
            submitting = asyncio.create_task(crew.submit(*[2.0] * 11, 12.0))
            await crew.until(lambda pods: len(pods) >= 3, "the HPA scales up")
            await submitting
            await crew.until(lambda pods: len(pods) == 1, "the HPA scales down")
            await crew.all_finished_once()
            await crew.at_work(1)
        finally:
            await cluster.kube.delete(AUTOSCALERS, manifests.NAMESPACE, "scaled")


def shipped(name: str, *, pool: str) -> manifests.Document:
    """An HPA of deploy/hpa for a pool with one slot each, with a window that a test can wait for."""
    document = copy.deepcopy(template(name))
    (metric,) = document["spec"]["metrics"]
    metric["external"]["metric"]["selector"]["matchLabels"]["pool"] = pool
    if name == "demand":
        metric["external"]["target"]["averageValue"] = "800m"
    document["spec"]["scaleTargetRef"]["name"] = pool
    document["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] = 2
    return document | {"metadata": {"name": pool, "namespace": manifests.NAMESPACE}}


@pytest.mark.parametrize("name", ["demand", "desired-workers"])
async def test_a_shipped_hpa_goes_to_the_wanted_workers_and_back(cluster: Cluster, name: str) -> None:
    """Three slots wanted, filled to 0.8, are four workers; and no task is one."""
    async with cluster.crew("scaled", 1) as crew:
        await apply(cluster.kube, shipped(name, pool="scaled"))
        try:
            submitting = asyncio.create_task(crew.submit(8.0, 8.0, 8.0))
            await crew.until(lambda pods: len(pods) == 4, "the HPA asks for four workers")
            await submitting
            await crew.until(lambda pods: len(pods) == 1, "the HPA is back at one")
            await crew.all_finished_once()
        finally:
            await cluster.kube.delete(AUTOSCALERS, manifests.NAMESPACE, "scaled")


async def test_metrics_through_the_api_server(cluster: Cluster) -> None:
    """kubectl get --raw gets one item for a pool, and a Status with a sentence for a metric that is none."""
    async with cluster.crew("idle-first", 2) as crew:
        await serves(cluster.kube, "celery_workers", "idle-first", "2")
        await crew.submit(5)
        await serves(cluster.kube, "celery_active_tasks", "idle-first", "1")
        assert await value(cluster.kube, "celery_load_factor", "idle-first") == "500m"
        with pytest.raises(ApiError, match="celery_nothing") as unknown:
            await value(cluster.kube, "celery_nothing", "idle-first")
        assert unknown.value.code == 404
