"""Every verdict inside the budget of its review, however slow the doors are; in virtual time."""

import asyncio
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drain_hook.admission import Verdict
from drain_hook.app import KUBERNETES_S
from drain_hook.cordon import Pace
from drain_hook.webhook import SHARE_OF_TIMEOUT
from shared.airflow_tasks import Metadata
from shared.errors import BrokerUnavailable, DatabaseUnavailable, KubernetesUnavailable
from shared.workers import Fleet, Software
from tests.drain_hook.builders import AIRFLOW
from tests.drain_hook.stages import Clock, Stage, node, running, stage
from tests.fakes.celery import FakeCelery
from tests.fakes.kubernetes import FakeCluster
from tests.fakes.metadata import FakeMetadata
from tests.model.virtual_time import VirtualLoop

KUBERNETES = (
    "workload",
    "workload_state",
    "patch_pod",
    "read_lease",
    "create_lease",
    "replace_lease",
    "create_event",
    "repeat_event",
)
CELERY = ("inspect", "active_queues", "cancel_consumers", "add_consumers")
DATABASE = ("read_metadata",)
DOORS = [*KUBERNETES, *CELERY, *DATABASE]
TIMEOUTS_S = (1, 2, 3, 5, 10, 30)
FOR_EVER_S = 3600.0


@dataclass(kw_only=True)
class SlowCluster(FakeCluster):
    """Calls take their time, and longer than the client waits they end without an answer."""

    delays: dict[str, float] = field(default_factory=dict)

    async def _enter(self, method: str, **arguments: Any) -> None:
        delay_s = self.delays.get(method, 0.0)
        await asyncio.sleep(min(delay_s, KUBERNETES_S))
        if delay_s > KUBERNETES_S:
            raise KubernetesUnavailable("no answer in time")
        await super()._enter(method, **arguments)


@dataclass(kw_only=True)
class SlowWorkers:
    """The same for workers: waited for as long as the caller says; a broker that hangs raises."""

    celery: FakeCelery
    delays: dict[str, float] = field(default_factory=dict)

    async def inspect(self, nodes: Collection[str], *, timeout_s: float) -> Fleet:
        await self._wait("inspect", timeout_s)
        return await self.celery.inspect(nodes, timeout_s=timeout_s)

    async def active_queues(
        self, nodes: Collection[str], *, timeout_s: float
    ) -> Mapping[str, frozenset[str]]:
        await self._wait("active_queues", timeout_s)
        return await self.celery.active_queues(nodes, timeout_s=timeout_s)

    async def software(self, nodes: Collection[str], *, timeout_s: float) -> Mapping[str, Software]:
        return await self.celery.software(nodes, timeout_s=timeout_s)

    async def cancel_consumers(
        self, queues: Mapping[str, Collection[str]], *, timeout_s: float
    ) -> frozenset[str]:
        await self._wait("cancel_consumers", timeout_s)
        return await self.celery.cancel_consumers(queues, timeout_s=timeout_s)

    async def add_consumers(
        self, queues: Mapping[str, Collection[str]], *, timeout_s: float
    ) -> frozenset[str]:
        await self._wait("add_consumers", timeout_s)
        return await self.celery.add_consumers(queues, timeout_s=timeout_s)

    async def _wait(self, method: str, timeout_s: float) -> None:
        delay_s = self.delays.get(method, 0.0)
        await asyncio.sleep(min(delay_s, timeout_s))
        if delay_s > timeout_s:
            raise BrokerUnavailable("no answer in time")


@dataclass(kw_only=True)
class SlowDatabase:
    """The same for Airflow's metadata database."""

    database: FakeMetadata
    delays: dict[str, float] = field(default_factory=dict)

    async def read(self, dag_ids: Collection[str] = (), *, timeout_s: float) -> Metadata:
        delay_s = self.delays.get("read_metadata", 0.0)
        await asyncio.sleep(min(delay_s, timeout_s))
        if delay_s > timeout_s:
            raise DatabaseUnavailable("no answer in time")
        return await self.database.read(dag_ids, timeout_s=timeout_s)


@dataclass(kw_only=True)
class LoopClock(Clock):
    """Both clocks go as the loop's does, from now on."""

    loop: VirtualLoop

    def wall(self) -> float:
        return Clock().wall() + self.ahead_s + self.loop.time()

    def monotonic(self) -> float:
        return self.ahead_s + self.loop.time()


@contextmanager
def slow_stage(
    delays: Mapping[str, float], *, busy: Collection[str] = ()
) -> Iterator[tuple[Stage, VirtualLoop]]:
    """Four workers of Airflow behind slow doors."""
    loop = VirtualLoop()
    try:
        cluster = SlowCluster(delays=dict(delays))
        scene = stage(
            4,
            busy={pod: [running(id=pod)] for pod in busy},
            drain={"holdSeconds": 2},
            settings=AIRFLOW,
            cluster=lambda: cluster,
            clock=LoopClock(loop=loop),
            pace=Pace(),
        )
        scene.control = SlowWorkers(celery=scene.celery, delays=cluster.delays)
        scene.slow_database = SlowDatabase(database=scene.database, delays=cluster.delays)
        yield scene, loop
    finally:
        loop.end()


async def timed(scene: Stage, loop: VirtualLoop, timeout_s: float) -> tuple[Verdict, float]:
    """A review as the webhook passes it on, and how long its verdict took."""
    started = loop.time()
    verdict = await scene.ask(4, 2, within_s=SHARE_OF_TIMEOUT * timeout_s, tidy=False)
    return verdict, loop.time() - started


async def leave_alone(scene: Stage, delays: dict[str, float]) -> None:
    """The doors are well again, the round ends, and nobody asks any more."""
    delays.clear()
    await scene.settle()
    scene.clock.ahead_s += scene.configuration.round_ttl + 1
    for _ in range(3):
        await scene.warm_up()
        await scene.reconciler.reconcile()
        scene.clock.ahead_s += 5


@pytest.mark.parametrize("timeout_s", TIMEOUTS_S)
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("delay_s", [0.3, 2.0, FOR_EVER_S])
def test_no_door_makes_a_verdict_late(door: str, delay_s: float, timeout_s: int) -> None:
    """And what was begun is given back, when it was refused and nobody asks again."""
    # The database is asked only while somebody works.
    with slow_stage({door: delay_s}, busy=["worker-3"] if door in DATABASE else []) as (scene, loop):
        verdict, seconds = loop.run(timed(scene, loop, timeout_s))
        assert seconds <= SHARE_OF_TIMEOUT * timeout_s + 1e-6
        if verdict.allowed:
            assert scene.marked == scene.draining
            assert len(scene.marked) == 2
        loop.run(leave_alone(scene, scene.cluster.delays))  # type: ignore[attr-defined]  # a SlowCluster
        assert scene.marked == scene.draining == set()


@given(
    timeout_s=st.integers(1, 30),
    delays=st.dictionaries(
        st.sampled_from(DOORS), st.sampled_from([0.05, 0.4, 1.1, 2.9, 3.1, 12.0]), max_size=5
    ),
    busy=st.sets(st.sampled_from(["worker-0", "worker-1", "worker-2", "worker-3"])),
    silent=st.sets(st.sampled_from(["worker-0", "worker-1", "worker-2"]), max_size=2),
)
@settings(max_examples=150, deadline=None)
def test_nor_do_any_of_them_together(
    timeout_s: int, delays: dict[str, float], busy: set[str], silent: set[str]
) -> None:
    """Whoever is let go is idle, consumes nothing, and was asked."""
    with slow_stage(delays, busy=busy) as (scene, loop):
        scene.celery.silent |= set(map(node, silent))
        verdict, seconds = loop.run(timed(scene, loop, timeout_s))
        assert seconds <= SHARE_OF_TIMEOUT * timeout_s + 1e-6
        if verdict.allowed:
            going = sorted(scene.pods, key=lambda pod: scene.pods[pod].deletion_cost)[:2]
            assert set(going) <= scene.marked & scene.draining
            assert not set(going) & (busy | silent)
        for name in silent:
            scene.celery.wake(node(name))
        loop.run(leave_alone(scene, scene.cluster.delays))  # type: ignore[attr-defined]  # a SlowCluster
        assert scene.marked == scene.draining == set()


@pytest.mark.parametrize("timeout_s", TIMEOUTS_S)
def test_a_refusal_for_want_of_room_needs_no_time(timeout_s: int) -> None:
    """With every place taken by rounds that hang, the next review is refused before it waits for anything."""
    with slow_stage({"workload": 2.9}) as (scene, loop):

        async def ask_often() -> list[tuple[Verdict, float]]:
            asking = [asyncio.create_task(timed(scene, loop, timeout_s)) for _ in range(20)]
            return await asyncio.gather(*asking)

        answers = loop.run(ask_often())
        at_once = [verdict.reason for verdict, seconds in answers if seconds == 0.0]
        assert at_once == ["Locked"] * 16
        assert all(seconds <= SHARE_OF_TIMEOUT * timeout_s + 1e-6 for _, seconds in answers)
        loop.run(leave_alone(scene, scene.cluster.delays))  # type: ignore[attr-defined]  # a SlowCluster


def test_one_after_the_other_gets_through_when_the_doors_are_well_again() -> None:
    """However many reviews ran out of time before."""
    with slow_stage({"patch_pod": FOR_EVER_S}) as (scene, loop):
        reasons = [loop.run(timed(scene, loop, 10))[0].reason for _ in range(5)]
        assert set(reasons) <= {"KubernetesUnavailable", "Locked", "OutOfTime"}
        scene.cluster.delays.clear()  # type: ignore[attr-defined]  # a SlowCluster
        loop.run(scene.settle())
        verdict, _ = loop.run(timed(scene, loop, 10))
        assert verdict.allowed
        loop.run(scene.settle())
        assert len(scene.marked) == 2
