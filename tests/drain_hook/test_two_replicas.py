"""Two replicas of the hook on one cluster in memory: what one does, the other takes up or leaves alone."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from drain_hook.round_locks import LEASE_DURATION_S
from shared.workers import Fleet, Software
from tests.drain_hook.stages import QUEUES, Stage, node, running, stage
from tests.fakes.celery import FakeCelery


@dataclass(kw_only=True)
class PausedWorkers:
    """Lets a replica get as far as its first cancel, and no further until the test says so."""

    celery: FakeCelery
    is_reached: asyncio.Event = field(default_factory=asyncio.Event)
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def inspect(self, nodes: Collection[str], *, timeout_s: float) -> Fleet:
        return await self.celery.inspect(nodes, timeout_s=timeout_s)

    async def active_queues(
        self, nodes: Collection[str], *, timeout_s: float
    ) -> Mapping[str, frozenset[str]]:
        return await self.celery.active_queues(nodes, timeout_s=timeout_s)

    async def software(self, nodes: Collection[str], *, timeout_s: float) -> Mapping[str, Software]:
        return await self.celery.software(nodes, timeout_s=timeout_s)

    async def cancel_consumers(
        self, queues: Mapping[str, Collection[str]], *, timeout_s: float
    ) -> frozenset[str]:
        self.is_reached.set()
        await self.may_go_on.wait()
        return await self.celery.cancel_consumers(queues, timeout_s=timeout_s)

    async def add_consumers(
        self, queues: Mapping[str, Collection[str]], *, timeout_s: float
    ) -> frozenset[str]:
        return await self.celery.add_consumers(queues, timeout_s=timeout_s)


def replicas(count: int, **fields: Any) -> tuple[Stage, Stage]:
    """Two hooks in front of `count` workers."""
    first = stage(count, **fields)
    return first, Stage(cluster=first.cluster, celery=first.celery, pool=first.pool, holder="hook-2")


async def test_callers_at_two_replicas_get_one_round() -> None:
    """The HPA's review and a person's, for the same replicas: one drains, the other finds it done."""
    first, second = replicas(4)
    verdicts = await asyncio.gather(
        first.ask(4, 2, username="system:serviceaccount:kube-system:horizontal-pod-autoscaler"),
        second.ask(4, 2, username="alice"),
    )
    assert [verdict.allowed for verdict in verdicts] == [True, True]
    assert len(first.marked) == 2
    assert first.marked == first.draining
    assert first.commands == ["cancel_consumer"]
    assert len({first.mark(pod).round for pod in first.marked}) == 1


async def test_a_review_that_is_repeated_elsewhere_costs_nothing() -> None:
    """The API server repeats it with a new uid after each conflict, and the Service picks either replica."""
    first, second = replicas(4)
    await first.ask(4, 3)
    first.cluster.calls.clear()
    for scene in (second, first, second, first, second):
        assert (await scene.ask(4, 3)).allowed
    assert first.commands == ["cancel_consumer"]
    assert first.cluster.calls_of("patch_pod") == []


async def test_different_wishes_at_two_replicas_take_turns() -> None:
    """Whichever is applied, its victims are drained; those that only the other wanted go on working."""
    first, second = replicas(4)
    verdicts = await asyncio.gather(first.ask(4, 3), second.ask(4, 1))
    assert [verdict.allowed for verdict in verdicts] == [True, True]
    assert first.marked == first.draining
    assert {first.mark(pod).to_replicas for pod in first.marked} <= {1, 3}
    narrower = await second.ask(4, 3)
    assert narrower.allowed
    assert len(first.marked) == 1
    assert first.marked == first.draining


async def test_a_replica_that_was_paused_and_succeeded_allows_nothing() -> None:
    """It resumes in the middle of its round, after another has taken the workload over and answered."""
    first, second = replicas(2, busy={"worker-0": [running()]})
    paused = PausedWorkers(celery=first.celery)
    first.control = paused
    late = asyncio.create_task(first.ask(2, 1, within_s=60.0))
    await asyncio.wait_for(paused.is_reached.wait(), 10)
    await second.locks.look(second.pool)
    first.clock.ahead_s = second.clock.ahead_s = LEASE_DURATION_S + 1.0
    assert (await second.ask(2, 1)).allowed
    before = first.mark("worker-1")
    paused.may_go_on.set()
    verdict = await late
    assert (verdict.allowed, verdict.reason) == (False, "Locked")
    assert first.marked == {"worker-1"}
    assert first.mark("worker-1") == before, "it is the other's now"


async def test_a_replica_whose_round_was_given_up_meanwhile_allows_nothing() -> None:
    """Between its cancel and its answer another took over, and raised the replicas' workers again."""
    first, second = replicas(2, busy={"worker-0": [running()]})
    paused = PausedWorkers(celery=first.celery)
    first.control = paused
    late = asyncio.create_task(first.ask(2, 1, within_s=60.0))
    await asyncio.wait_for(paused.is_reached.wait(), 10)
    await second.locks.look(second.pool)
    first.clock.ahead_s = second.clock.ahead_s = second.configuration.round_ttl + LEASE_DURATION_S
    await second.reconciler.reconcile()
    assert second.marked == set()
    paused.may_go_on.set()
    assert (await late).reason == "Locked"
    for _ in range(3):
        # Its late cancel is healed like any other.
        await second.warm_up()
        await second.reconciler.reconcile()
        second.clock.ahead_s += 5
    assert first.celery.workers[node("worker-1")].queues == QUEUES
    assert second.marked == set()


async def test_when_one_replica_dies_in_a_round_the_other_ends_it() -> None:
    """The records are there and the Lease runs out: the next review there adopts what was begun."""
    first, second = replicas(2, busy={"worker-0": [running()]})
    paused = PausedWorkers(celery=first.celery)
    first.control = paused
    never_heard_of_again = asyncio.create_task(first.ask(2, 1, within_s=60.0))
    await asyncio.wait_for(paused.is_reached.wait(), 10)
    assert (await second.ask(2, 1, within_s=0.2)).reason == "Locked"
    second.clock.ahead_s = LEASE_DURATION_S + 1.0
    assert (await second.ask(2, 1)).allowed
    assert first.marked == first.draining == {"worker-1"}
    never_heard_of_again.cancel()
    paused.may_go_on.set()
    await first.settle()
