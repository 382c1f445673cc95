"""What the hook finds out about pod-deletion-cost, from an API server with its feature gate on and off."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from drain_hook.deletion_costs import MOST_FAILURES, DeletionCosts
from drain_hook.own_order import Costs
from drain_hook.telemetry import Telemetry
from shared.errors import Conflict, Forbidden, KubernetesError, KubernetesUnavailable
from shared.kube_client import KubeClient
from shared.pods import DELETION_COST
from shared.pools import Configuration, Pool
from shared.workload_cache import WorkloadCache
from tests.drain_hook import builders
from tests.drain_hook.stages import eventually, stage
from tests.fakes.kubernetes import FakeCache, FakeCluster
from tests.shared.kubernetes_stages import sandbox_stage

POOL = builders.pool(namespace="default", workload={"name": "worker"})


def asking(
    kube: KubeClient | FakeCluster,
    cache: WorkloadCache | FakeCache,
    registry: CollectorRegistry | None = None,
    *,
    pools: tuple[Pool, ...] = (POOL,),
) -> DeletionCosts:
    return DeletionCosts(
        kube,
        cache=cache,
        configuration=lambda: Configuration(pools=pools),
        telemetry=Telemetry(registry or CollectorRegistry()),
    )


def cluster(**fields: object) -> FakeCluster:
    fake = FakeCluster(**fields)  # type: ignore[arg-type]
    fake.add_workload(replicas=2)
    return fake


@pytest.mark.parametrize(("gate", "costs"), [(True, Costs.COUNT), (False, Costs.IGNORED)])
async def test_the_api_server_shows_its_gate(tmp_path: Path, gate: bool, costs: Costs) -> None:
    """Over TLS, by a dry run: no pod is changed by it."""
    async with sandbox_stage(tmp_path, honours_costs=gate) as stage:
        await stage.add_workload(replicas=1)
        await stage.cache.wait_synced()
        found = asking(stage.kube, stage.cache)
        (before,) = await stage.kube.pods(namespace="default", selector="app=worker")
        await found.refresh()
        assert found.costs is costs
        (after,) = await stage.kube.pods(namespace="default", selector="app=worker")
        assert after.resource_version == before.resource_version


async def test_it_is_said_once_and_shown() -> None:
    """In the log, a figure and a sentence for /readyz; and that it is over, too."""
    kube, registry = cluster(honours_costs=False), CollectorRegistry()
    found = asking(kube, kube.cache, registry)
    for _ in range(3):
        await found.refresh()
    assert "feature gate PodDeletionCost" in found.problem
    assert registry.get_sample_value("drain_hook_deletion_costs_ignored") == 1
    kube.honours_costs = True
    await found.refresh()
    assert (found.costs, found.problem) == (Costs.COUNT, "")
    assert registry.get_sample_value("drain_hook_deletion_costs_ignored") == 0


async def test_the_warning_comes_once(caplog: pytest.LogCaptureFixture) -> None:
    kube = cluster(honours_costs=False)
    found = asking(kube, kube.cache)
    for _ in range(3):
        await found.refresh()
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.WARNING, found.problem)


async def test_before_1_22_the_order_is_not_known() -> None:
    kube = cluster(honours_costs=False, version=(1, 21))
    found = asking(kube, kube.cache)
    await found.refresh()
    assert found.costs is Costs.UNKNOWN


async def test_nor_is_that_of_a_cluster_that_does_not_tell_its_version() -> None:
    kube = cluster(honours_costs=False)
    kube.broken["server_version"] = Forbidden("no", status=403)
    found = asking(kube, kube.cache)
    await found.refresh()
    assert found.costs is Costs.UNKNOWN


async def test_a_pod_with_an_invalid_cost_is_not_asked_about() -> None:
    """The API server passes over what was invalid before, gate or no gate."""
    kube = cluster()
    kube.annotate_pod("worker-0", {DELETION_COST: "wrong"})
    found = asking(kube, kube.cache)
    await found.refresh()
    assert [call.arguments["name"] for call in kube.calls_of("rehearse_patch_pod")] == ["worker-1"]
    assert found.costs is Costs.COUNT


async def test_without_a_deployment_nobody_is_asked() -> None:
    """StatefulSets need no costs, and OpenKruise reads them by itself."""
    kube = FakeCluster()
    kube.add_workload(replicas=2, kind="StatefulSet")
    pool = builders.pool(namespace="default", workload={"kind": "StatefulSet", "name": "worker"})
    found = asking(kube, kube.cache, pools=(pool,))
    await found.refresh()
    assert kube.calls == []


@pytest.mark.parametrize(
    "error",
    [
        Forbidden("a policy of this cluster allows no such annotation", status=403),
        KubernetesError("admission webhook x does not support dry run", status=400),
        KubernetesError("admission webhook x denied the request: wrong", status=422),
    ],
)
async def test_an_answer_that_does_not_tell_changes_nothing(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody else's admission comes before validation; said once."""
    kube = cluster(honours_costs=False)
    found = asking(kube, kube.cache)
    await found.refresh()
    caplog.clear()
    kube.broken["rehearse_patch_pod"] = error
    for _ in range(3):
        await found.refresh()
    assert found.costs is Costs.IGNORED
    assert len(caplog.records) == 1
    assert str(error) in caplog.text


# While nothing was found.


async def test_another_pod_is_asked_about_when_one_has_changed() -> None:
    """Somebody writes to pods all the time, and our view of one may be old."""
    kube = cluster(honours_costs=False)
    kube.refusals["rehearse_patch_pod"] = [Conflict("the object has been modified", status=409)]
    found = asking(kube, kube.cache)
    await found.refresh()
    assert [call.arguments["name"] for call in kube.calls_of("rehearse_patch_pod")] == [
        "worker-0",
        "worker-1",
    ]
    assert found.costs is Costs.IGNORED


@pytest.mark.parametrize("status", [403, 500])
async def test_another_namespace_is_asked_when_one_does_not_tell(status: int) -> None:
    """A RoleBinding may be missing there, or a webhook be down."""
    kube = FakeCluster(honours_costs=False)
    pools = []
    for name in ("one", "two"):
        kube.add_workload(namespace=name, replicas=2)
        pools.append(builders.pool(name=name, namespace=name, workload={"name": "worker"}))
    error = Forbidden if status == 403 else KubernetesUnavailable
    kube.refusals["rehearse_patch_pod"] = [error("no", status=status)]
    found = asking(kube, kube.cache, pools=tuple(pools))
    await found.refresh()
    asked = [call.arguments["namespace"] for call in kube.calls_of("rehearse_patch_pod")]
    assert (asked, found.costs) == (["one", "two"], Costs.IGNORED)


async def test_until_somebody_tells_it_is_neither_so_nor_not_so(caplog: pytest.LogCaptureFixture) -> None:
    """Said once in the log, and in /readyz for as long as it lasts."""
    kube = cluster(honours_costs=False)
    found = asking(kube, kube.cache)
    assert (found.costs, found.problem) == (Costs.UNSEEN, "")
    kube.broken["rehearse_patch_pod"] = KubernetesUnavailable("etcd is away", status=503)
    await found.refresh()
    await found.refresh()
    assert (found.costs, len(caplog.records)) == (Costs.UNSEEN, 1)
    assert "etcd is away" in found.problem
    kube.broken.clear()
    await found.refresh()
    assert found.costs is Costs.IGNORED
    assert "etcd" not in found.problem


@pytest.mark.parametrize(("version", "costs"), [((1, 34), Costs.BELIEVED), ((1, 21), Costs.UNKNOWN)])
async def test_in_the_end_it_is_taken_to_be_as_kubernetes_has_it_by_default(
    version: tuple[int, int], costs: Costs
) -> None:
    """A policy may forbid the question for ever, and a workload must not stay large for that."""
    kube = cluster(version=version)
    kube.broken["rehearse_patch_pod"] = Forbidden("a policy of this cluster forbids it", status=403)
    found = asking(kube, kube.cache)
    for _ in range(MOST_FAILURES - 1):
        await found.refresh()
    assert found.costs is Costs.UNSEEN
    await found.refresh()
    assert found.costs is costs
    assert found.problem
    kube.broken.clear()
    await found.refresh()
    assert (found.costs, found.problem) == (Costs.COUNT, "")


async def test_where_no_pod_can_be_asked_about_it_ends_as_well() -> None:
    """The pods of a Deployment may be hidden from us, or carry costs that are no numbers."""
    kube = cluster()
    for name in ("worker-0", "worker-1"):
        kube.annotate_pod(name, {DELETION_COST: "wrong"})
    found = asking(kube, kube.cache)
    for _ in range(MOST_FAILURES):
        await found.refresh()
    assert (found.costs, kube.calls_of("rehearse_patch_pod")) == (Costs.BELIEVED, [])


def found_by(found: DeletionCosts) -> Callable[[], Awaitable[Costs]]:
    async def ask() -> Costs:
        return found.costs

    return ask


async def test_whoever_suspects_something_has_it_looked_at_at_once() -> None:
    """A gate that was turned off shows in pods that Kubernetes left; the next look is minutes away."""
    kube = cluster()
    found = asking(kube, kube.cache)
    await found.refresh()
    kube.honours_costs = False
    looking = asyncio.create_task(found.run())
    found.look_again()
    await eventually(found_by(found), lambda costs: costs is Costs.IGNORED)
    looking.cancel()


async def test_a_pod_that_kubernetes_left_against_its_cost_is_reason_to_suspect() -> None:
    suspicions: list[str] = []
    scene = stage(3, on_misprediction=lambda: suspicions.append("left"))
    assert (await scene.ask(3, 2)).allowed
    (victim,) = scene.marked
    scene.scale(2, settled=True)
    scene.delete(next(name for name in scene.pods if name != victim))
    await scene.reconciler.reconcile()
    assert suspicions == ["left"]


async def test_what_was_believed_without_a_pod_counts_no_more_when_there_is_one() -> None:
    """A workload may have no pods for hours; the first question about one may fail."""
    kube = FakeCluster(honours_costs=False)
    kube.add_workload(replicas=0)
    found = asking(kube, kube.cache)
    for _ in range(MOST_FAILURES + 3):
        await found.refresh()
    assert (found.costs, len(kube.calls)) == (Costs.BELIEVED, 1)
    kube.add_pod("worker-0", replica_set="worker-rs")
    kube.refusals["rehearse_patch_pod"] = [KubernetesUnavailable("etcd is away", status=503)]
    await found.refresh()
    assert found.costs is Costs.UNSEEN
    await found.refresh()
    assert found.costs is Costs.IGNORED
