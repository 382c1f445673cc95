"""Scale-downs of workloads that own their pods themselves, with real workers."""

from __future__ import annotations

import os

import pytest

from deploy.sandbox.demo.story import PROTECTED
from tests.scenarios.crews import Cluster

pytestmark = [pytest.mark.scenario, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

needs_openkruise = pytest.mark.skipif("KUBECONFIG" in os.environ, reason="most clusters have no OpenKruise")


async def test_a_stateful_set_loses_idle_ordinals_from_the_top(cluster: Cluster) -> None:
    """Drained first, with a record and no cost; then pod by pod."""
    async with cluster.crew("ordinals", 3, kind="StatefulSet") as crew:
        assert (await crew.scale(1)).is_allowed
        for pod in await crew.pods():
            assert pod.cost_annotation is None
            assert pod.has_mark_annotation == (pod.name != "ordinals-0")
        remaining = await crew.until(lambda pods: len(pods) == 1, "one pod is left")
        assert [pod.name for pod in remaining] == ["ordinals-0"]
        await crew.at_work(1)


async def test_a_stateful_set_waits_for_its_busy_highest_ordinal(cluster: Cluster) -> None:
    """No other can go in its place; refused with that reason, then allowed when its task has ended."""
    async with cluster.crew("ordinals", 2, kind="StatefulSet") as crew:
        await crew.submit(6, 6)
        refused = await crew.scale(1)
        assert refused.code == 403
        assert "ordinals-1 runs orders.import" in refused.message
        assert "A StatefulSet always loses its highest ordinals" in refused.message
        await crew.scale_until_allowed(1)
        await crew.until(lambda pods: [pod.name for pod in pods] == ["ordinals-0"], "ordinal 0 is left")
        await crew.all_finished_once()


async def test_a_stateful_set_keeps_a_protected_highest_ordinal(cluster: Cluster) -> None:
    """Refused as long as it runs; nobody is drained, and the same name comes back unmarked later."""
    async with cluster.crew("ordinals", 2, kind="StatefulSet") as crew:
        await crew.submit(8, 8, task=PROTECTED)
        refused = await crew.scale(1)
        assert refused.code == 403
        assert PROTECTED in refused.message
        assert not any(pod.has_mark_annotation for pod in await crew.pods())
        await crew.all_finished_once()
        await crew.scale_until_allowed(1)
        await crew.until(lambda pods: len(pods) == 1, "one pod is left")
        assert (await crew.scale(2)).is_allowed
        await crew.at_work(2)


@needs_openkruise
async def test_a_clone_set_loses_idle_workers_first(cluster: Cluster) -> None:
    """By pod-deletion-cost, through the scale subresource of its CustomResourceDefinition."""
    async with cluster.crew("clones", 3, kind="CloneSet") as crew:
        await crew.submit(8)
        busy = await crew.busy_pods()
        assert (await crew.scale(1)).is_allowed
        remaining = await crew.until(lambda pods: len(pods) == 1, "one pod is left")
        assert {pod.name for pod in remaining} == busy
        await crew.all_finished_once()


@needs_openkruise
async def test_a_clone_set_waits_for_busy_workers_and_keeps_protected_ones(cluster: Cluster) -> None:
    """Of three, one is protected and two are busy: never to none, and to one when those two have finished."""
    async with cluster.crew("clones", 3, kind="CloneSet") as crew:
        await crew.submit(14, task=PROTECTED)
        protected = await crew.busy_pods()
        await crew.submit(6, 6)
        assert "The lowest number possible now is 1" in (await crew.scale(0)).message
        refused = await crew.scale(1)
        assert "Waiting for 2 of the 2 workers to go" in refused.message
        await crew.scale_until_allowed(1)
        remaining = await crew.until(lambda pods: len(pods) == 1, "one pod is left")
        assert {pod.name for pod in remaining} == protected
        await crew.all_finished_once()
