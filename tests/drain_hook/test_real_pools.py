"""Workers whose tasks run in greenlets or threads take a message late; rounds must see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from pathlib import Path

import pytest

from drain_hook.cordon import Pace
from shared.celery_control import CeleryControl
from tests.brokers import valkey
from tests.drain_hook.stages import Stage, eventually, node, stage
from tests.workers import celery_workers, send_tasks

WORKERS = ("worker-0", "worker-1")
OWN_QUEUE = {node(name): f"only-{name}" for name in WORKERS}
"""Beside the queue of all: what is published there nobody else can take."""


class SlipsIn(CeleryControl):
    """Real remote control; a task is published for the first worker to be cancelled, just after its "ok"."""

    def __init__(self, url: str, gate: Path) -> None:
        super().__init__(url)
        self._url, self._gate = url, gate
        self.delay_s: float | None = None
        self.slipped_in = asyncio.Event()
        self.cancelled_first = ""

    async def cancel_consumers(
        self, queues: Mapping[str, Collection[str]], *, timeout_s: float
    ) -> frozenset[str]:
        acknowledged = await super().cancel_consumers(queues, timeout_s=timeout_s)
        if self.delay_s is not None and not self.cancelled_first:
            (self.cancelled_first,) = acknowledged
            self._publishing = asyncio.create_task(self._publish(self.delay_s))
        return acknowledged

    async def _publish(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        queue = OWN_QUEUE[self.cancelled_first]
        await asyncio.to_thread(
            send_tasks, self._url, "tests.wait_for_file", str(self._gate), queue=queue, count=1
        )
        self.slipped_in.set()


@pytest.fixture(scope="module", params=["gevent", "threads"])
def pool_of_workers(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The --pool of two workers with one slot each, and their broker's url."""
    queues = {node(name): ("default", OWN_QUEUE[node(name)]) for name in WORKERS}
    with valkey() as server, celery_workers(server.url, queues, pool=request.param, concurrency=1):
        yield request.param, server.url


@pytest.fixture
async def control(pool_of_workers: tuple[str, str], tmp_path: Path) -> AsyncIterator[SlipsIn]:
    """Leaves workers that are idle and consume what they did."""
    control = SlipsIn(pool_of_workers[1], tmp_path / "gate")
    yield control
    (tmp_path / "gate").touch()
    control.delay_s = None
    await control.add_consumers({node: ["default", own] for node, own in OWN_QUEUE.items()}, timeout_s=5)
    await eventually(lambda: busy(control), lambda found: not found)
    await eventually(lambda: waiting(control), lambda found: not found)
    await control.close()


async def busy(control: CeleryControl) -> set[str]:
    fleet = await control.inspect(OWN_QUEUE, timeout_s=5)
    return {name for name in WORKERS if node(name) in fleet.silent or fleet.workers[node(name)].tasks}


async def waiting(control: CeleryControl) -> int:
    return sum((await control.queue_lengths(OWN_QUEUE.values(), timeout_s=5)).values())


async def scene_of(control: SlipsIn) -> Stage:
    scene = stage(len(WORKERS), pace=Pace(), control=control)
    await scene.warm_up()
    return scene


@pytest.mark.parametrize("delay_s", [0.0, 0.25, 0.5])
async def test_a_task_that_slips_in_after_the_ok_spares_its_worker(
    pool_of_workers: tuple[str, str], control: SlipsIn, delay_s: float
) -> None:
    """Whoever goes has nothing to do; the task runs on, or waits in its queue.

    An idle gevent worker takes one more message up to 2 s after its "ok", threads for a few milliseconds.
    """
    scene = await scene_of(control)
    control.delay_s = delay_s
    verdict = await scene.ask(2, 1, within_s=20)
    await control.slipped_in.wait()
    assert verdict.reason == "Drained"
    at_work = await busy(control)
    assert not scene.marked & at_work
    assert len(at_work) + await waiting(control) == 1
    if pool_of_workers[0] == "gevent":
        assert {node(name) for name in at_work} == {control.cancelled_first}


@pytest.mark.parametrize("delay_s", [0.0, 0.5])
async def test_the_last_worker_is_waited_for_when_a_task_slips_in(
    control: SlipsIn, tmp_path: Path, delay_s: float
) -> None:
    """Nobody is left to go in its place: refused while it runs the task, allowed when that has ended."""
    scene = await scene_of(control)
    control.delay_s = delay_s
    scene.delete("worker-1")
    scene.scale(1, settled=True)
    verdict = await scene.ask(1, 0, within_s=20)
    await control.slipped_in.wait()
    at_work = await busy(control)
    assert verdict.reason == ("Busy" if at_work else "Drained")
    assert len(at_work) + await waiting(control) == 1
    (tmp_path / "gate").touch()
    await eventually(lambda: busy(control), lambda found: not found)
    assert (await scene.ask(1, 0, within_s=20)).reason == "Drained"
