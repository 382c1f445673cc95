"""Workloads that change under a scale-down: emptied, recreated, raised; and pods that die by themselves."""

from __future__ import annotations

import pytest

from deploy.sandbox import manifests
from deploy.sandbox.resources import DEPLOYMENTS, PODS
from tests.scenarios.crews import Cluster

pytestmark = [pytest.mark.scenario, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]


async def test_to_zero_everybody_is_waited_for(cluster: Cluster) -> None:
    """There is nobody to choose; the workload is empty when the last task has ended, and none is lost."""
    async with cluster.crew("emptied", 2) as crew:
        await crew.submit(5)
        (busy,) = await crew.busy_pods()
        refused = await crew.scale(0)
        assert refused.code == 403
        assert busy in refused.message
        await crew.scale_until_allowed(0)
        await crew.all_finished_once()
        await crew.until(lambda pods: not pods, "no pod is left")


async def test_down_right_after_up_takes_the_new_ones(cluster: Cluster) -> None:
    """Those that have just come do no work yet; the busy ones stay and finish."""
    async with cluster.crew("down-again", 2) as crew:
        await crew.submit(10, 10)
        busy = await crew.busy_pods()
        assert (await crew.scale(4)).is_allowed
        await crew.scale_until_allowed(2)
        remaining = await crew.until(lambda pods: len(pods) == 2, "two pods are left")
        assert {pod.name for pod in remaining} == busy
        await crew.all_finished_once()
        await crew.at_work(2)


async def test_a_victim_that_is_deleted_by_hand_is_not_replaced_by_a_busy_one(cluster: Cluster) -> None:
    """The ReplicaSet makes another, which is idle and goes; who was not chosen stays and finishes."""
    async with cluster.crew("down-again", 2) as crew:
        await crew.submit(9, 9)
        assert not (await crew.scale(1)).is_allowed
        pods = await crew.until(
            lambda pods: sum(p.has_mark_annotation for p in pods) == 1, "one pod is marked"
        )
        (victim,) = [pod.name for pod in pods if pod.mark is not None]
        (spared,) = [pod.name for pod in pods if pod.mark is None]
        await cluster.kube.delete(PODS, manifests.NAMESPACE, victim)
        await crew.scale_until_allowed(1)
        (remaining,) = await crew.until(lambda pods: len(pods) == 1, "one pod is left")
        assert remaining.name == spared
        await crew.at_work(1)


async def test_a_deployment_that_is_recreated_has_no_round(cluster: Cluster) -> None:
    """Deleted amid a refused scale-down and made again under its name: nobody drains, and it scales."""
    async with cluster.crew("recreated", 2) as crew:
        await crew.submit(4, 4)
        assert not (await crew.scale(1)).is_allowed
        await crew.until(lambda pods: sum(p.has_mark_annotation for p in pods) == 1, "one pod is marked")
        former = {pod.name for pod in await crew.pods()}
        document = await cluster.kube.get(DEPLOYMENTS, manifests.NAMESPACE, "recreated")
        await cluster.kube.delete(DEPLOYMENTS, manifests.NAMESPACE, "recreated")
        metadata = {key: document["metadata"][key] for key in ("name", "namespace", "labels")}
        await cluster.kube.create(DEPLOYMENTS, document | {"metadata": metadata, "status": {}})
        await crew.until(
            lambda pods: len(pods) == 2 and not former & {pod.name for pod in pods},
            "two other pods are there",
        )
        await crew.at_work(2)
        await crew.scale_until_allowed(1)
        await crew.until(lambda pods: len(pods) == 1, "one pod is left")
        await crew.at_work(1)
