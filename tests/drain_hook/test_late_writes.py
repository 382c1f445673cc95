"""Writes that come too late, past the deadline or the Lease: they are not made, or spare what is newer."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest

from drain_hook.cordon import Pace
from drain_hook.round_locks import LEASE_DURATION_S
from shared.errors import KubernetesUnavailable
from shared.pods import Pod
from tests.drain_hook.stages import AT_ONCE, NAMESPACE, Stage, node, running, stage
from tests.drain_hook.test_budgets import LoopClock, SlowCluster
from tests.fakes.kubernetes import FakeCluster
from tests.model.virtual_time import VirtualLoop

MANY, BUDGET_S, SLOW_S = 400, 9.0, 2.9
"""32 PATCHes at a time: a little more than 11 a second."""


@dataclass(kw_only=True)
class HeldUp:
    """One replica's way to the API server: its PATCHes of one pod stand still until the test lets them go."""

    cluster: FakeCluster
    pod: str = ""
    is_reached: asyncio.Event = field(default_factory=asyncio.Event)
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cluster, name)

    async def patch_pod(self, *, name: str, **arguments: Any) -> Pod:
        if name == self.pod:
            self.is_reached.set()
            await self.may_go_on.wait()
        return await self.cluster.patch_pod(name=name, **arguments)


def replicas(count: int, *busy: str, pace: Pace = AT_ONCE) -> tuple[Stage, Stage, HeldUp]:
    """Two hooks in front of `count` workers; the way of the first one can be held up."""
    second = stage(count, busy={pod: [running(id=pod)] for pod in busy}, holder="hook-2", pace=pace)
    way = HeldUp(cluster=second.cluster)
    first = Stage(cluster=way, celery=second.celery, pool=second.pool, pace=pace)  # type: ignore[arg-type]
    return first, second, way


async def take_over(first: Stage, second: Stage, *, was_paused: bool = False) -> None:
    """The Lease of the first one runs out, which it does not know when its machine was paused as a whole."""
    await second.locks.look(second.pool)
    second.clock.ahead_s += LEASE_DURATION_S + 1.0
    if not was_paused:
        first.clock.ahead_s = second.clock.ahead_s
    await second.warm_up()


def costs(scene: Stage) -> Mapping[str, str | None]:
    return {name: pod.cost_annotation for name, pod in scene.pods.items()}


# One replica is late, and another has taken over


@pytest.mark.parametrize("was_paused", [False, True])
async def test_a_late_release_leaves_the_mark_of_another_round(was_paused: bool) -> None:
    """Its PATCH meets a conflict, and what stands there by now is not what it wanted to remove."""
    first, second, way = replicas(3, "worker-0", "worker-1", "worker-2")
    await first.warm_up()
    await first.ask(3, 2)
    (victim,) = first.marked
    first.clock.ahead_s = second.clock.ahead_s = first.configuration.round_ttl + 1
    way.pod = victim
    late = asyncio.create_task(first.reconciler.reconcile())
    await asyncio.wait_for(way.is_reached.wait(), 10)
    first.finish(victim)
    await take_over(first, second, was_paused=was_paused)
    assert (await second.ask(3, 2)).allowed
    before = costs(second)
    way.may_go_on.set()
    await late
    assert second.marked == {victim}
    assert costs(second) == before
    assert (
        first.sample("drain_hook_releases_total", pool="default", namespace=NAMESPACE, reason="Forgotten")
        == 0
    )


@pytest.mark.parametrize("was_paused", [False, True])
async def test_a_late_mark_does_not_replace_that_of_another_round(was_paused: bool) -> None:
    """The round is lost: by its own record Kubernetes would take another pod than was allowed."""
    first, second, way = replicas(4, "worker-2", "worker-3")
    await first.warm_up()
    way.pod = "worker-1"
    late = asyncio.create_task(first.ask(4, 2, within_s=60.0))
    await asyncio.wait_for(way.is_reached.wait(), 10)
    await take_over(first, second, was_paused=was_paused)
    assert (await second.ask(4, 1)).reason == "Busy"
    before = {pod: second.mark(pod) for pod in second.marked}
    assert "worker-1" in before
    way.may_go_on.set()
    assert not (await late).allowed
    assert {pod: second.mark(pod) for pod in second.marked} == before


async def test_a_round_without_its_lease_marks_nobody_any_more() -> None:
    """A pod that the other one never touched has the resourceVersion that the late round knows."""
    first, second, way = replicas(4, "worker-2", "worker-3", pace=replace(AT_ONCE, patches_at_once=1))
    await first.warm_up()
    way.pod = "worker-0"
    late = asyncio.create_task(first.ask(4, 2, within_s=60.0))
    await asyncio.wait_for(way.is_reached.wait(), 10)
    first.finish("worker-2")
    busy = second.celery.workers[node("worker-1")]
    second.celery.workers[node("worker-1")] = replace(busy, active=(running(id="new"),))
    await take_over(first, second)
    assert (await second.ask(4, 2)).allowed
    before = costs(second)
    way.may_go_on.set()
    assert (await late).reason == "Locked"
    assert "worker-1" not in second.marked
    assert costs(second) == before


async def test_our_own_mark_is_known_again_when_its_answer_was_lost() -> None:
    """The PATCH has taken effect, so the second try of it meets a conflict with ourselves."""
    scene = stage(2, cluster=Unheard)
    assert (await scene.ask(2, 1)).reason == "Drained"
    assert len(scene.marked) == 1


@dataclass(kw_only=True)
class Unheard(FakeCluster):
    """The answer to the first PATCH of a pod is lost."""

    was_lost: bool = False

    async def patch_pod(self, **arguments: Any) -> Pod:
        pod = await super().patch_pod(**arguments)
        if not self.was_lost:
            self.was_lost = True
            raise KubernetesUnavailable("the connection was reset")
        return pod


# A round that is too large


@dataclass(kw_only=True)
class Watched(SlowCluster):
    """Each PATCH takes a while; notes when they arrive, and when the Lease of the round is written."""

    loop: VirtualLoop
    patched_at: list[float] = field(default_factory=list)
    leased_at: list[float] = field(default_factory=list)

    async def _enter(self, method: str, **arguments: Any) -> None:
        if method == "patch_pod":
            self.patched_at.append(self.loop.time())
        if method in ("create_lease", "replace_lease"):
            self.leased_at.append(self.loop.time())
        await super()._enter(method, **arguments)


@dataclass(kw_only=True)
class TooLarge:
    """Many idle workers at one replica, and another that reconciles every three seconds."""

    loop: VirtualLoop
    cluster: Watched
    asked: Stage
    other: Stage
    most_draining: int = 0

    async def refused(self) -> float:
        """One scale-down of all but one, to its end; how long that took."""
        started = self.loop.time()
        verdict = await self.asked.ask(MANY, 1, within_s=BUDGET_S, tidy=False)
        assert (verdict.allowed, verdict.reason) == (False, "OutOfTime")
        assert self.loop.time() - started <= BUDGET_S
        await self.asked.settle()
        return self.loop.time() - started

    async def look_after(self, seconds: float) -> None:
        """The other replica leads."""
        until = self.loop.time() + seconds
        while self.loop.time() < until:
            await self.other.warm_up()
            await self.other.locks.look(self.other.pool)
            await self.other.reconciler.reconcile()
            self.most_draining = max(self.most_draining, len(self.asked.draining))
            await asyncio.sleep(3.0)


@pytest.fixture
def too_large() -> Iterator[TooLarge]:
    loop = VirtualLoop()
    cluster = Watched(loop=loop, delays={"patch_pod": SLOW_S})
    fields: dict[str, Any] = {"clock": LoopClock(loop=loop), "pace": Pace()}
    asked = stage(MANY, cluster=lambda: cluster, **fields)
    other = Stage(cluster=cluster, celery=asked.celery, pool=asked.pool, holder="hook-2", **fields)
    try:
        yield TooLarge(loop=loop, cluster=cluster, asked=asked, other=other)
    finally:
        loop.end()


def test_marking_stops_when_the_time_is_up(too_large: TooLarge) -> None:
    """It was answered that what was done is taken back: no pod is marked after that."""
    seconds = too_large.loop.run(too_large.refused())
    marked_in_time = int(BUDGET_S / SLOW_S + 1) * Pace().patches_at_once
    assert len(too_large.cluster.patched_at) <= 2 * marked_in_time
    assert seconds <= 3 * BUDGET_S
    assert too_large.asked.marked == set()


def test_the_lease_is_renewed_as_long_as_something_is_undone(too_large: TooLarge) -> None:
    """However long that takes: nobody else begins while late PATCHes are under way."""
    marked = too_large.asked
    too_large.cluster.delays.clear()
    too_large.loop.run(marked.ask(MANY, 1))
    marked.scale(MANY + 1)
    too_large.cluster.delays["patch_pod"] = SLOW_S
    too_large.cluster.leased_at.clear()
    too_large.loop.run(too_large.asked.reconciler.reconcile())
    times = too_large.cluster.leased_at
    assert too_large.cluster.patched_at[-1] - times[0] > LEASE_DURATION_S
    assert max(later - earlier for earlier, later in pairwise(times)) < LEASE_DURATION_S / 2
    assert marked.marked == set()


@pytest.mark.parametrize("round_ttl", [40.0, 120.0])
def test_a_refused_round_stops_no_worker(too_large: TooLarge, round_ttl: float) -> None:
    """Its records tell the other replica to cancel nobody, for nothing was let through."""
    for scene in (too_large.asked, too_large.other):
        scene.configuration = scene.configuration.model_copy(update={"round_ttl": round_ttl})

    async def both() -> None:
        await asyncio.gather(too_large.refused(), too_large.look_after(100.0))

    too_large.loop.run(both())
    assert too_large.most_draining == 0
    assert too_large.asked.marked == set()
