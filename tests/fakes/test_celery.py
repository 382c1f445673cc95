"""The fake's switches do what they say; that it behaves like the real door, tests/shared shows."""

from __future__ import annotations

import asyncio

from shared.workers import Task
from tests.fakes.celery import Call, FakeCelery, fake_worker

NODE = "celery@w"


async def test_a_held_cancel_is_acknowledged_before_it_takes_effect() -> None:
    """The ok of a real worker comes first as well."""
    celery = FakeCelery.of(fake_worker(NODE), holds_cancels=True)
    assert await celery.cancel_consumers({NODE: ["default"]}, timeout_s=1) == {NODE}
    assert (await celery.active_queues([NODE], timeout_s=1))[NODE] == {"default"}
    celery.let_cancels_through()
    assert (await celery.active_queues([NODE], timeout_s=1))[NODE] == frozenset()


async def test_a_late_cancel_takes_effect_by_itself() -> None:
    """Whoever polls sees it happen."""
    celery = FakeCelery.of(fake_worker(NODE), late_cancel_s=0.01)
    await celery.cancel_consumers({NODE: ["default"]}, timeout_s=1)
    assert celery.workers[NODE].queues == {"default"}
    async with asyncio.timeout(10):
        while (await celery.active_queues([NODE], timeout_s=1))[NODE]:  # noqa: ASYNC110 - it polls, as drains do
            await asyncio.sleep(0.001)
    assert celery.workers[NODE].queues == frozenset()


async def test_commands_to_a_silent_worker_wait_or_get_lost() -> None:
    """Frozen, it obeys when it wakes; reconnecting to Redis, it never hears of them."""
    for is_lost, queues in ((False, frozenset[str]()), (True, frozenset({"default"}))):
        celery = FakeCelery.of(fake_worker(NODE), silent={NODE}, loses_commands=is_lost)
        assert await celery.cancel_consumers({NODE: ["default"]}, timeout_s=1) == frozenset()
        celery.wake(NODE)
        assert celery.workers[NODE].queues == queues


async def test_a_task_can_slip_in() -> None:
    """A test sees every call before it is answered, and may change the world."""
    celery = FakeCelery.of(fake_worker(NODE))

    def slip_in(call: Call) -> None:
        if call.method == "inspect":
            celery.start(NODE, Task(id="late", name="t", started_at=1.0))

    celery.before_answer = slip_in
    fleet = await celery.inspect([NODE], timeout_s=1)
    assert [task.id for task in fleet.workers[NODE].active] == ["late"]
    assert celery.calls == [Call(method="inspect", nodes=frozenset({NODE}))]


async def test_tasks_end_one_by_one_or_all_together() -> None:
    """finish without ids empties the worker."""
    celery = FakeCelery.of(fake_worker(NODE, Task(id="a", name="t"), Task(id="b", name="t")))
    celery.finish(NODE, "a")
    assert [task.id for task in celery.workers[NODE].tasks] == ["b"]
    celery.finish(NODE)
    assert celery.workers[NODE].is_idle
