import asyncio

import pytest

from shared.errors import BrokerUnavailable
from shared.workers import Fleet
from tests.drain_hook.stages import NAMESPACE, Stage, node, running, stage
from tests.fakes.celery import Call

NODES = [node("worker-0"), node("worker-1")]


async def said(scene: Stage) -> Fleet:
    return await scene.warm.of(scene.pool, NODES, timeout_s=0.1)


def asked(scene: Stage) -> int:
    return len(scene.celery.calls)


async def test_warm_answers_cost_nothing() -> None:
    scene = stage(2)
    await scene.warm_up()
    before = asked(scene)
    assert set((await said(scene)).workers) == set(NODES)
    assert asked(scene) == before


async def test_workers_nobody_has_asked_are_asked_now() -> None:
    scene = stage(2)
    assert set((await said(scene)).workers) == set(NODES)
    assert asked(scene) == 1


async def test_old_answers_are_not_trusted() -> None:
    """A worker that was idle two refreshes ago may run anything now."""
    scene = stage(2)
    await scene.warm_up()
    scene.celery.start(node("worker-0"), running())
    scene.clock.ahead_s = 2.1 * scene.configuration.refresh
    assert not (await said(scene)).workers[node("worker-0")].is_idle


async def test_silence_is_remembered_too() -> None:
    """Asking a silent worker at every review would cost the whole time-out at every review."""
    scene = stage(2)
    scene.celery.silent.add(node("worker-1"))
    await scene.warm_up()
    before = asked(scene)
    fleet = await said(scene)
    assert fleet.workers.keys() == {node("worker-0")}
    assert fleet.silent == {node("worker-1")}
    assert asked(scene) == before


async def test_an_older_answer_does_not_replace_a_newer_one() -> None:
    """A refresh that was asked before a round's own question may come in after it."""
    scene = stage(1)
    earlier = scene.warm.now()
    await scene.warm_up()
    scene.warm.learn(scene.pool, Fleet(silent=frozenset({node("worker-0")})), asked_at=earlier)
    sighting = scene.warm.sighting(scene.pool, node("worker-0"))
    assert sighting is not None
    assert sighting.worker is not None


async def test_workers_that_are_gone_are_forgotten() -> None:
    scene = stage(2)
    await scene.warm_up()
    scene.delete("worker-1")
    await scene.warm_up()
    assert scene.warm.sighting(scene.pool, node("worker-1")) is None


async def test_a_broken_broker_is_told_to_whoever_needs_an_answer() -> None:
    scene = stage(2)
    scene.celery.broken = True
    with pytest.raises(BrokerUnavailable):
        await said(scene)


async def test_it_goes_on_when_the_broker_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    """And says once that it was away."""
    scene = stage(1)
    scene.configuration = scene.configuration.model_copy(update={"refresh": 0.001})
    scene.celery.broken = True
    is_asked = asyncio.Event()
    running_ = asyncio.create_task(scene.warm.run())
    while not caplog.records:  # noqa: ASYNC110  # a log line is all that shows
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)

    def note(_: Call) -> None:
        is_asked.set()

    scene.celery.before_answer, scene.celery.broken = note, False
    async with asyncio.timeout(5):
        await is_asked.wait()
    running_.cancel()
    await asyncio.gather(running_, return_exceptions=True)
    assert caplog.text.count("could not be asked") == 1
    assert NAMESPACE in caplog.text
