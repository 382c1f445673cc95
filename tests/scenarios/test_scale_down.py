"""Scale-downs of real workers, as a user of kubectl sees them."""

from __future__ import annotations

import asyncio

import pytest

from deploy.sandbox.demo.story import PROTECTED
from tests.scenarios.crews import Cluster

pytestmark = [pytest.mark.scenario, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]


async def test_idle_workers_leave_first(cluster: Cluster) -> None:
    """No busy worker is deleted while an idle one can be."""
    async with cluster.crew("idle-first", 4) as crew:
        await crew.submit(8, 8)
        busy = await crew.busy_pods()
        assert (await crew.scale(2)).is_allowed
        remaining = await crew.until(lambda pods: len(pods) == 2, "two pods are left")
        assert {pod.name for pod in remaining} == busy
        await crew.all_finished_once()


async def test_busy_victims_are_held_until_they_are_idle(cluster: Cluster) -> None:
    """`whenBusy: wait` refuses, names the task, keeps draining, and allows once it ended."""
    async with cluster.crew("held", 3) as crew:
        await crew.submit(7, 7, 7)
        first = await crew.scale(1)
        assert first.code == 403
        assert "orders.import" in first.message
        await crew.until(lambda pods: sum(p.has_mark_annotation for p in pods) == 2, "two pods are marked")
        answers = await crew.scale_until_allowed(1)
        assert len(answers) > 1
        await crew.until(lambda pods: len(pods) == 1, "one pod is left")
        await crew.all_finished_once()


async def test_a_drained_worker_takes_no_new_task(cluster: Cluster) -> None:
    """While a refused round goes on, tasks submitted meanwhile run on the workers that stay."""
    async with cluster.crew("held", 2) as crew:
        await crew.submit(6, 6)
        assert not (await crew.scale(1)).is_allowed
        pods = await crew.until(
            lambda pods: sum(p.has_mark_annotation for p in pods) == 1, "one pod is marked"
        )
        draining = {pod.name for pod in pods if pod.mark is not None}
        late = await crew.submit(0.1, 0.1, 0.1)
        assert not draining & {run.pod for run in await crew.runs() if run.id in late}
        await crew.scale_until_allowed(1)
        await crew.all_finished_once()


async def test_a_refused_round_outlives_annotations_of_the_deployment(cluster: Cluster) -> None:
    """Kubernetes raises its generation for each; the victim goes on being drained since the start."""
    async with cluster.crew("held", 2) as crew:
        await crew.submit(8, 8)
        async with crew.restless_deployment(every_s=0.5):
            assert not (await crew.scale(1)).is_allowed
            pods = await crew.until(
                lambda pods: sum(p.has_mark_annotation for p in pods) == 1, "one pod is marked"
            )
            began = {(pod.name, pod.mark.since) for pod in pods if pod.mark is not None}
            await crew.scale_until_allowed(1)
            pods = await crew.pods()
            assert {(pod.name, pod.mark.since) for pod in pods if pod.mark is not None} == began
        await crew.all_finished_once()


async def test_busy_victims_may_finish_in_their_grace_period(cluster: Cluster) -> None:
    """`whenBusy: proceed` allows at once; a task shorter than the grace period still ends."""
    async with cluster.crew("proceeds", 2) as crew:
        await crew.submit(2, 2)
        answer = await crew.scale(1)
        assert answer.is_allowed
        assert any("orders.import" in warning for warning in answer.warnings)
        await crew.until(lambda pods: len(pods) == 1, "one pod is left")
        await crew.all_finished_once()


async def test_a_protected_worker_never_leaves(cluster: Cluster) -> None:
    """Two of three workers run protected tasks: one replica less is possible, two are not."""
    async with cluster.crew("protected", 3) as crew:
        await crew.submit(12, 12, task=PROTECTED)
        protected = await crew.busy_pods()
        refused = await crew.scale(1)
        assert refused.code == 403
        assert PROTECTED in refused.message
        assert "The lowest number possible now is 2" in refused.message
        await crew.until(lambda pods: not any(p.has_mark_annotation for p in pods), "no pod is marked")
        assert (await crew.scale(2)).is_allowed
        remaining = await crew.until(lambda pods: len(pods) == 2, "two pods are left")
        assert {pod.name for pod in remaining} == protected
        await crew.all_finished_once()


async def test_pods_that_are_not_ready_leave_first(cluster: Cluster) -> None:
    """Kubernetes removes Pending and not ready pods whatever their cost: they count as the victims."""
    async with cluster.crew("forced", 4, hold="pending") as crew:
        pods = await crew.until(
            lambda pods: len(pods) == 4 and all(pod.host for pod in pods), "four pods are bound"
        )
        pending, unready, *working = sorted(pod.name for pod in pods)
        for name in (unready, *working):
            await crew.annotate(name, "lab/hold", None)
        await crew.until(lambda pods: sum(pod.is_ready for pod in pods) == 3, "three pods are ready")
        await crew.annotate(unready, "lab/hold", "unready")
        await crew.until(lambda pods: sum(pod.is_ready for pod in pods) == 2, "one pod is not ready again")
        await crew.scale_until_allowed(2)
        remaining = await crew.until(lambda pods: len(pods) == 2, "two pods are left")
        assert sorted(pod.name for pod in remaining) == working
        assert pending not in working


async def test_a_dry_run_touches_nothing(cluster: Cluster) -> None:
    """The warnings say who would leave; no pod is marked and every worker goes on consuming."""
    async with cluster.crew("dry-run", 3) as crew:
        await crew.submit(4)
        busy = await crew.busy_pods()
        answer = await crew.scale(2, dry_run=True)
        assert answer.is_allowed
        named = [pod.name for pod in await crew.pods() if any(pod.name in w for w in answer.warnings)]
        assert len(named) == 1
        assert not busy & set(named)
        await crew.at_work(3)
        await crew.all_finished_once()


async def test_a_review_that_is_repeated_is_one_round(cluster: Cluster) -> None:
    """Every write to the Deployment makes the API server ask again, with a new uid: the round is adopted."""
    async with cluster.crew("restless", 4) as crew:
        async with crew.restless_deployment(every_s=0.02):
            marked: set[str] = set()
            scaling = asyncio.create_task(crew.scale(3))
            while not scaling.done():
                marked |= {pod.name for pod in await crew.pods() if pod.mark is not None}
                await asyncio.sleep(0.01)
            answer = await scaling
        if not answer.is_allowed:  # the writer may win until the API server gives up: then ask in peace
            await crew.scale_until_allowed(3)
        remaining = await crew.until(lambda pods: len(pods) == 3, "three pods are left")
        assert len(marked - {pod.name for pod in remaining}) <= 1
        assert len(marked) <= 1
        await crew.at_work(3)


async def test_a_scale_up_right_after_gives_everything_back(cluster: Cluster) -> None:
    """Whoever was drained and not deleted consumes again, and carries no mark."""
    async with cluster.crew("up-again", 4) as crew:
        assert (await crew.scale(2)).is_allowed
        assert (await crew.scale(4)).is_allowed
        await crew.until(lambda pods: not any(pod.is_terminating for pod in pods), "no pod terminates")
        await crew.at_work(4)
