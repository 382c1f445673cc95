"""What the hook finds out about pod-deletion-cost, from an API server with its feature gate on and off."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from drain_hook.deletion_costs import DeletionCosts
from drain_hook.own_order import Costs
from drain_hook.telemetry import Telemetry
from shared.errors import Forbidden, KubernetesError
from shared.kube_client import KubeClient
from shared.pods import DELETION_COST
from shared.pools import Configuration
from shared.workload_cache import WorkloadCache
from tests.drain_hook import builders
from tests.fakes.kubernetes import FakeCache, FakeCluster
from tests.shared.kubernetes_stages import sandbox_stage

POOL = builders.pool(namespace="default", workload={"name": "worker"})


def asking(
    kube: KubeClient | FakeCluster,
    cache: WorkloadCache | FakeCache,
    registry: CollectorRegistry | None = None,
) -> DeletionCosts:
    return DeletionCosts(
        kube,
        cache=cache,
        configuration=lambda: Configuration(pools=(POOL,)),
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
    found = DeletionCosts(
        kube,
        cache=kube.cache,
        configuration=lambda: Configuration(pools=(pool,)),
        telemetry=Telemetry(CollectorRegistry()),
    )
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
