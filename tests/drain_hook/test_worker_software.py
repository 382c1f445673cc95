"""Workers with versions that were never tried: asked once, told to whom it concerns, drained all the same."""

from __future__ import annotations

import logging

import pytest

from shared.workers import Software
from tests.drain_hook.stages import Stage, node, running, stage
from tests.fakes.celery import fake_worker

OLD = Software(celery="5.2.7", kombu="5.2.4")


def scene_with(*old: str, replicas: int = 3) -> Stage:
    scene = stage(replicas)
    scene.celery.versions = {node(name): OLD for name in old}
    return scene


def asked_for(scene: Stage) -> list[set[str]]:
    return [set(call.nodes) for call in scene.celery.calls if call.method == "report"]


@pytest.mark.parametrize(
    ("celery", "kombu", "is_old"),
    [
        ("5.2.7", "5.3.0", True),
        ("5.3.0", "5.2.4", True),
        ("4.4.7", "4.6.11", True),
        ("5.3.0", "5.3.0", False),
        ("5.10.1", "5.11.0", False),
        ("6.0.0rc1", "6.0.0", False),
        ("main", "main", False),
    ],
)
def test_versions_are_compared_as_numbers(celery: str, kombu: str, is_old: bool) -> None:
    assert Software(celery=celery, kombu=kombu).is_old is is_old


async def test_each_worker_is_asked_once() -> None:
    """A report holds all settings of its worker; only a new process is worth another."""
    scene = scene_with()
    for _ in range(3):
        await scene.warm_up()
    assert asked_for(scene) == [{node("worker-0"), node("worker-1"), node("worker-2")}]
    scene.celery.change(node("worker-1"), pid=2)
    scene.celery.workers[node("worker-3")] = fake_worker(node("worker-3"))
    await scene.warm_up()
    assert asked_for(scene)[1:] == [{node("worker-1")}]


async def test_one_that_does_not_tell_is_not_asked_again_and_not_called_old() -> None:
    scene = scene_with()
    scene.celery.versions = {node("worker-0"): None}
    for _ in range(3):
        await scene.warm_up()
    assert len(asked_for(scene)) == 1
    assert scene.sample("drain_hook_old_workers", pool="default", namespace="apps") == 0


async def test_old_ones_are_told_once_for_each_pool(caplog: pytest.LogCaptureFixture) -> None:
    """And counted; a pool that has none any more, and then again, is told again."""
    scene = scene_with("worker-0", "worker-2")
    for _ in range(3):
        await scene.warm_up()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "celery@worker-0 (celery 5.2.7, kombu 5.2.4)" in record.getMessage()
    assert scene.sample("drain_hook_old_workers", pool="default", namespace="apps") == 2
    scene.celery.versions = {}
    for pid in (2, 3):
        for worker in ("worker-0", "worker-2"):
            scene.celery.change(node(worker), pid=pid)
        await scene.warm_up()
        scene.celery.versions = {node("worker-2"): OLD}
    assert scene.sample("drain_hook_old_workers", pool="default", namespace="apps") == 1
    assert len(caplog.records) == 2


async def test_an_old_victim_is_drained_with_a_warning() -> None:
    """What its worker does is what counts; that nobody tried its version is said to whoever scales."""
    scene = scene_with("worker-0", "worker-1", "worker-2")
    await scene.warm_up()
    verdict = await scene.ask(3, 2)
    assert (verdict.reason, scene.draining) == ("Drained", scene.marked)
    (victim,) = scene.marked
    (warning,) = verdict.warnings
    assert warning.startswith(f"{node(victim)} (celery 5.2.7, kombu 5.2.4) run versions before 5.3")


async def test_nobody_is_warned_of_those_that_stay() -> None:
    scene = stage(2, busy={"worker-0": [running()]})
    scene.celery.versions = {node("worker-0"): OLD}
    await scene.warm_up()
    verdict = await scene.ask(2, 1)
    assert (scene.marked, verdict.warnings) == ({"worker-1"}, ())
