"""Scale-downs by an update of the whole Deployment, as kubectl apply, Helm and Argo CD make them."""

from __future__ import annotations

import pytest

from tests.scenarios.crews import Cluster

pytestmark = [pytest.mark.scenario, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]


async def test_an_update_to_fewer_replicas_is_drained(cluster: Cluster) -> None:
    """The idle worker leaves, whatever Kubernetes would have taken."""
    async with cluster.crew("updated", 3) as crew:
        await crew.submit(6, 6)
        busy = await crew.busy_pods()
        assert (await crew.update({"spec": {"replicas": 2}})).is_allowed
        remaining = await crew.until(lambda pods: len(pods) == 2, "two pods are left")
        assert {pod.name for pod in remaining} == busy
        await crew.all_finished_once()


async def test_an_update_and_a_scale_are_one_round(cluster: Cluster) -> None:
    """The victim that a refused update has chosen is the one that a scale takes later."""
    async with cluster.crew("updated", 2) as crew:
        await crew.submit(5, 5)
        refused = await crew.update({"spec": {"replicas": 1}})
        assert refused.code == 403
        assert "orders.import" in refused.message
        pods = await crew.until(
            lambda pods: sum(p.has_mark_annotation for p in pods) == 1, "one pod is marked"
        )
        (leaving,) = [(pod.name, pod.mark.since) for pod in pods if pod.mark is not None]
        again = await crew.scale(1)
        assert again.code == 403
        pods = await crew.pods()
        assert [(pod.name, pod.mark.since) for pod in pods if pod.mark is not None] == [leaving]
        await crew.scale_until_allowed(1)
        (remaining,) = await crew.until(lambda pods: len(pods) == 1, "one pod is left")
        assert remaining.name != leaving[0]
        await crew.all_finished_once()


async def test_a_dry_run_of_an_update_touches_nothing(cluster: Cluster) -> None:
    """kubectl diff and apply --dry-run=server ask, too."""
    async with cluster.crew("updated", 2) as crew:
        answer = await crew.update({"spec": {"replicas": 1}}, dry_run=True)
        assert answer.is_allowed
        assert any("Dry run" in warning for warning in answer.warnings)
        await crew.at_work(2)


async def test_fewer_replicas_with_a_new_template_roll_out_with_a_warning(cluster: Cluster) -> None:
    """Every worker is replaced in its grace period, and nobody is marked."""
    async with cluster.crew("rolled", 3) as crew:
        former = {pod.name for pod in await crew.pods()}
        template = {"metadata": {"annotations": {"example.com/version": "2"}}}
        answer = await crew.update({"spec": {"replicas": 2, "template": template}})
        assert answer.is_allowed
        assert any("rollout" in warning for warning in answer.warnings)
        remaining = await crew.until(
            lambda pods: len(pods) == 2 and not former & {pod.name for pod in pods}, "two new pods are left"
        )
        assert not any(pod.has_mark_annotation for pod in remaining)
        await crew.at_work(2)
