"""The cache on an API server that goes away and comes back."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from shared.pods import WorkloadKey
from tests.fakes.kubernetes_documents import pod_document, workload_document
from tests.shared.kubernetes_stages import WORKER, SandboxStage, sandbox_stage

WHERE = WORKER._asdict()


async def test_a_cut_watch_makes_the_state_old_and_then_current_again(tmp_path: Path) -> None:
    """Nobody may take a stale picture for a fresh one, and nobody has to restart us."""
    async with sandbox_stage(tmp_path) as stage:
        await stage.add_workload(replicas=2)
        await synced(stage, pods=2)
        await stage.server.__aexit__(None, None, None)
        async with asyncio.timeout(20):
            version = stage.cache.version
            while is_moving(stage):
                version = await stage.cache.wait_changed(version)
        assert len(pods(stage)) == 2
        await stage.server.__aenter__()
        await stage.add_pod("worker-2")
        await synced(stage, pods=3)
        async with asyncio.timeout(20):
            while not is_moving(stage):
                version = await stage.cache.wait_changed(version)


async def test_it_follows_what_it_is_told_to(tmp_path: Path) -> None:
    async with sandbox_stage(tmp_path) as stage:
        await stage.add_workload(replicas=1)
        await synced(stage, pods=1)
        stage.cache.follow([WorkloadKey("Deployment", "default", "other")])
        assert stage.cache.state(**WHERE) is None
        stage.cache.follow([WORKER])
        await synced(stage, pods=1)


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("StatefulSet", "/apis/apps/v1/namespaces/default/statefulsets"),
        ("CloneSet", "/apis/apps.kruise.io/v1alpha1/namespaces/default/clonesets"),
    ],
)
async def test_a_workload_that_owns_its_pods_needs_no_replica_sets(
    tmp_path: Path, kind: str, path: str
) -> None:
    """The cache and a live look agree, and neither asks for ReplicaSets."""
    async with sandbox_stage(tmp_path) as stage:
        document = workload_document("worker", replicas=1, kind=kind)
        spec = {"containers": [{"name": "worker"}]}
        document["spec"]["template"] = {"metadata": {"labels": {"app": "worker"}}, "spec": spec}
        del document["apiVersion"]
        owner = await stage.create(path, document)
        pod = pod_document("worker-0", owner=owner)
        await stage.create("/api/v1/namespaces/default/pods", {**pod, "spec": spec})
        where = WorkloadKey(kind, "default", "worker")
        stage.cache.follow([where])
        async with asyncio.timeout(20):
            version = stage.cache.version
            while (cached := stage.cache.state(**where._asdict())) is None or not cached.pods:
                version = await stage.cache.wait_changed(version)
        live = await stage.kube.workload_state(**where._asdict())
        assert replace(cached, as_of=0.0) == replace(live, as_of=0.0)
        assert [pod.name for pod in live.pods] == ["worker-0"]
        (stand_in,) = live.replica_sets
        assert stand_in.uid == live.workload.uid


async def test_many_changes_arrive_in_order(tmp_path: Path) -> None:
    async with sandbox_stage(tmp_path) as stage:
        await stage.add_workload(replicas=0)
        for replicas in range(1, 30):
            await stage.scale(replicas)
        async with asyncio.timeout(20):
            version = 0
            while (state := stage.cache.state(**WHERE)) is None or state.workload.replicas != 29:
                version = await stage.cache.wait_changed(version)


def pods(stage: SandboxStage) -> list[str]:
    state = stage.cache.state(**WHERE)
    return [pod.name for pod in state.pods] if state else []


def is_moving(stage: SandboxStage) -> bool:
    """Whether `as_of` goes on with the clock."""
    first, second = stage.cache.state(**WHERE), stage.cache.state(**WHERE)
    assert first
    assert second
    return second.as_of > first.as_of


async def synced(stage: SandboxStage, *, pods: int) -> None:
    async with asyncio.timeout(20):
        version = stage.cache.version
        while (state := stage.cache.state(**WHERE)) is None or len(state.pods) != pods:
            version = await stage.cache.wait_changed(version)
