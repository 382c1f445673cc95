"""Scale-downs while a Deployment is between two templates, or is written to all the time."""

from __future__ import annotations

import asyncio

import pytest

from deploy.sandbox.demo.story import PROTECTED
from tests.scenarios.crews import Cluster, Crew

pytestmark = [pytest.mark.scenario, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]


async def start_rollout_that_gets_stuck(crew: Crew) -> set[str]:
    """From four old pods to three, beside two new ones that never get ready; the names of the old ones."""
    former = {pod.name for pod in await crew.pods()}
    template = {"metadata": {"annotations": {"lab/hold": "unready"}}}
    await crew.update({"spec": {"template": template}})
    pods = await crew.until(
        lambda pods: (
            sorted((pod.name in former, pod.is_ready) for pod in pods if pod.phase == "Running")
            == [(False, False)] * 2 + [(True, True)] * 3
        ),
        "three old pods and two new ones are left",
    )
    return former & {pod.name for pod in pods}


async def scale_and_watch(crew: Crew, replicas: int) -> set[str]:
    """Scale down; the pods that carried a mark meanwhile."""
    marked: set[str] = set()
    scaling = asyncio.create_task(crew.scale_until_allowed(replicas))
    while not scaling.done():
        marked |= {pod.name for pod in await crew.pods() if pod.mark is not None}
        await asyncio.sleep(0.01)
    await scaling
    return marked


async def test_a_rollout_is_waited_for_until_it_is_stuck(cluster: Cluster) -> None:
    """A sentence says so; some seconds without progress later the scale-down goes on beside it."""
    async with cluster.crew("stuck", 4) as crew:
        old = await start_rollout_that_gets_stuck(crew)
        refused = await crew.scale(3)
        assert refused.code == 403
        assert "A rollout of Deployment default/stuck is in progress: 3 of its 5 pods" in refused.message
        assert not any(pod.has_mark_annotation for pod in await crew.pods())
        await crew.scale_until_allowed(3)
        left = await crew.until(lambda pods: len(pods) == 4, "four pods are left")
        assert len(old & {pod.name for pod in left}) == 2


async def test_beside_a_rollout_exactly_the_planned_pods_go(cluster: Cluster) -> None:
    """Each ReplicaSet loses its share, and of its pods those that were drained; protected ones refuse."""
    async with cluster.crew("beside-a-rollout", 4) as crew:
        old = await start_rollout_that_gets_stuck(crew)
        await crew.submit(*[6.0] * 5, task=PROTECTED)
        refused = await crew.scale(2)
        assert refused.code == 403
        assert PROTECTED in refused.message
        assert not any(pod.has_mark_annotation for pod in await crew.pods())
        await crew.all_finished_once()
        before = {pod.name for pod in await crew.pods()}
        marked = await scale_and_watch(crew, 2)
        left = await crew.until(lambda pods: len(pods) == 3, "three pods are left")
        gone = before - {pod.name for pod in left}
        assert gone == marked
        assert (len(gone & old), len(gone - old)) == (1, 1)


async def test_a_deployment_that_is_written_to_all_the_time_is_scaled_down(cluster: Cluster) -> None:
    """Its controller is always one annotation behind; that is no rollout, and the hook never refuses.

    The API server asks again after each write. If it gives up before a review fits between two, that is its
    own time-out; then ask in peace.
    """
    async with cluster.crew("annotated", 4) as crew:
        async with crew.restless_deployment(every_s=0.02):
            answer = await crew.scale(3)
        assert answer.code in (200, 504), answer
        await crew.scale_until_allowed(3)
        await crew.until(lambda pods: len(pods) == 3, "three pods are left")
        await crew.at_work(3)
