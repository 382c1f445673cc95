"""What people see of a drain, with the tools they have."""

from __future__ import annotations

import pytest

from deploy.sandbox import manifests
from deploy.sandbox.resources import EVENTS
from tests.scenarios.crews import Cluster, eventually

pytestmark = [pytest.mark.scenario, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]


async def events_of(cluster: Cluster, pod: str) -> dict[str, str]:
    """Messages by reason, as `kubectl describe pod` would list them."""
    listing = await cluster.kube.list(
        EVENTS, manifests.NAMESPACE, fieldSelector=f"involvedObject.kind=Pod,involvedObject.name={pod}"
    )
    return {event["reason"]: event["message"] for event in listing["items"]}


async def test_a_draining_pod_says_why_and_a_released_one_too(cluster: Cluster) -> None:
    """Events on the pod: which task is waited for, for which scale-down, and what ended the waiting."""
    async with cluster.crew("updated", 2) as crew:
        await crew.submit(8, 8)
        assert not (await crew.scale(1)).is_allowed
        pods = await crew.until(
            lambda pods: sum(p.has_mark_annotation for p in pods) == 1, "one pod is marked"
        )
        (victim,) = [pod.name for pod in pods if pod.mark is not None]

        async def is_told(reason: str, words: str) -> bool:
            return words in (await events_of(cluster, victim)).get(reason, "")

        await eventually(lambda: is_told("Draining", "orders.import"), "the pod says what it is waited for")
        assert await is_told("Draining", "Deployment updated from 2 to 1 replicas")
        assert (await crew.scale(3)).is_allowed
        await eventually(
            lambda: is_told("DrainReleased", "scaled up again"), "the pod says that it works again"
        )
        await crew.at_work(3)
        await crew.all_finished_once()
