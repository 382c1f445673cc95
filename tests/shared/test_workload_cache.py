"""The cache on an API server that goes away and comes back."""

import asyncio
from pathlib import Path

from shared.pods import WorkloadKey
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
