"""Rounds with real Celery workers on a real broker; Kubernetes is in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from drain_hook.cordon import Pace
from shared.celery_control import CeleryControl
from tests.brokers import valkey
from tests.drain_hook.stages import Stage, eventually, node, stage
from tests.workers import celery_workers, send_tasks

WORKERS = 3
QUEUE = "default"


@pytest.fixture(scope="module")
def broker_url() -> Iterator[str]:
    """A broker with three workers on it, one slot each."""
    queues = {node(f"worker-{index}"): (QUEUE,) for index in range(WORKERS)}
    with valkey() as server, celery_workers(server.url, queues, concurrency=1):
        yield server.url


@pytest.fixture
async def scene(broker_url: str) -> AsyncIterator[Stage]:
    control = CeleryControl(broker_url)
    scene = stage(WORKERS, pace=Pace(), control=control)
    await scene.warm_up()
    yield scene
    await scene.settle()
    await control.add_consumers({node(name): [QUEUE] for name in scene.pods}, timeout_s=5)
    await control.close()


async def consuming(scene: Stage) -> set[str]:
    nodes = [node(name) for name in scene.pods]
    consumed = await scene.workers.active_queues(nodes, timeout_s=5)
    return {name for name in scene.pods if consumed.get(node(name))}


async def busy(scene: Stage) -> set[str]:
    fleet = await scene.workers.inspect([node(name) for name in scene.pods], timeout_s=5)
    return {name for name in scene.pods if fleet.workers[node(name)].tasks}


async def occupied(scene: Stage, broker_url: str, gate: Path, *, tasks: int) -> set[str]:
    """Names of the workers that run these tasks now; all end when the file is there."""
    send_tasks(broker_url, "tests.wait_for_file", str(gate), queue=QUEUE, count=tasks)
    return await eventually(lambda: busy(scene), lambda found: len(found) == tasks)


async def test_an_idle_worker_is_drained_and_given_back(scene: Stage) -> None:
    verdict = await scene.ask(WORKERS, WORKERS - 1)
    assert verdict.allowed
    assert scene.pods.keys() - await consuming(scene) == scene.marked != set()
    scene.scale(WORKERS + 1)
    await scene.reconciler.reconcile()
    assert scene.marked == set()
    assert await consuming(scene) == set(scene.pods)


async def test_a_busy_worker_takes_nothing_new_and_goes_when_it_is_idle(
    scene: Stage, broker_url: str, tmp_path: Path
) -> None:
    """All three run a task; the victim is drained, a fourth task goes to another."""
    gate, fourth = tmp_path / "gate", tmp_path / "fourth"
    await occupied(scene, broker_url, gate, tasks=WORKERS)
    await scene.warm_up()
    assert (await scene.ask(WORKERS, WORKERS - 1)).reason == "Busy"
    (victim,) = scene.marked
    gate.touch()
    await eventually(lambda: busy(scene), lambda found: not found)
    runs_it = await occupied(scene, broker_url, fourth, tasks=1)
    assert runs_it != {victim}
    assert (await scene.ask(WORKERS, WORKERS - 1)).reason == "Drained"
    assert scene.marked == {victim}
    fourth.touch()


async def test_the_idle_one_of_three_goes(scene: Stage, broker_url: str, tmp_path: Path) -> None:
    """Although we think that all are idle: victims are asked again after their cancel."""
    gate = tmp_path / "gate"
    workers = await occupied(scene, broker_url, gate, tasks=2)
    verdict = await scene.ask(WORKERS, WORKERS - 1)
    assert verdict.allowed
    assert scene.marked == scene.pods.keys() - workers
    assert await consuming(scene) == workers
    gate.touch()
