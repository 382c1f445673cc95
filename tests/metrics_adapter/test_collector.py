"""Pools are measured in the background; what fails grows old and is never made up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from metrics_adapter.collector import Collector
from metrics_adapter.freshness import PoolState
from shared.brokers import Broker, Brokers
from shared.pools import Configuration, Pool
from shared.workers import Fleet, Label
from tests.fakes.celery import Call, FakeCelery, fake_worker
from tests.fakes.kubernetes import FakeCluster
from tests.fakes.metadata import FakeDatabases, celery_task, task_key
from tests.metrics_adapter.builders import Clock, configuration, pool, tasks


@dataclass
class Refreshes:
    """What was observed, and a way to wait for it."""

    seen: list[tuple[str, str | None]] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def refreshed(self, pool: Pool, *, seconds: float, failure: str | None) -> None:
        self.seen.append((pool.name, failure))
        self._changed.set()

    async def of(self, name: str, count: int) -> None:
        """Return when this pool has been refreshed so many times."""
        while [seen for seen, _ in self.seen].count(name) < count:
            self._changed.clear()
            await self._changed.wait()


class StuckWorkers:
    """A broker that takes every question and answers none."""

    is_closed = False

    async def inspect(self, nodes: Collection[str], *, timeout_s: float) -> Fleet:
        await asyncio.Event().wait()
        raise AssertionError

    async def queue_lengths(self, queues: Collection[str], *, timeout_s: float) -> Mapping[str, int]:
        await asyncio.Event().wait()
        raise AssertionError

    async def close(self) -> None:
        self.is_closed = True


class BrokenWorkers(StuckWorkers):
    """A door with a bug."""

    async def inspect(self, nodes: Collection[str], *, timeout_s: float) -> Fleet:
        raise ValueError("redis://user:hunter2@broker")

    async def queue_lengths(self, queues: Collection[str], *, timeout_s: float) -> Mapping[str, int]:
        return {}


@dataclass(kw_only=True)
class StuckFor(FakeCelery):
    """Never done with a question that this worker is among."""

    node: str

    async def inspect(self, nodes: Collection[str], *, timeout_s: float) -> Fleet:
        if self.node in nodes:
            await asyncio.Event().wait()
        return await super().inspect(nodes, timeout_s=timeout_s)


@dataclass
class Steps:
    """How many ask in each step of the event loop in which somebody asks."""

    counts: list[int] = field(default_factory=list)
    _is_counting: bool = False

    def note(self, call: Call) -> None:
        if call.method == "inspect":
            if not self._is_counting:
                self._is_counting = True
                self.counts.append(0)
                asyncio.get_running_loop().call_soon(self._stop)
            self.counts[-1] += 1

    def _stop(self) -> None:
        self._is_counting = False


@dataclass(kw_only=True)
class Lab:
    """A collector on a cluster and a fleet in memory."""

    configuration: Configuration
    cluster: FakeCluster = field(default_factory=FakeCluster)
    celery: FakeCelery = field(default_factory=FakeCelery)
    databases: FakeDatabases = field(default_factory=FakeDatabases)
    clock: Clock = field(default_factory=Clock)
    wall: Clock = field(default_factory=lambda: Clock(time.time()))
    refreshes: Refreshes = field(default_factory=Refreshes)

    def __post_init__(self) -> None:
        self.collector = Collector(
            self.cluster.cache, observer=self.refreshes, clock=self.clock, wall_clock=self.wall
        )
        self.collector.adopt(self.configuration)

    @property
    def broker(self) -> Broker[FakeCelery]:
        return Broker(name="b1", control=self.celery)

    async def refresh(self) -> PoolState:
        """Refresh every pool once, one after the other, a period later; returns the first one's state."""
        self.databases.now += self.configuration.refresh
        for each in self.configuration.pools:
            await self.collector.refresh(each, self.broker, self.databases)
        return self.state

    @property
    def state(self) -> PoolState:
        return self.collector.states()[0]


@asynccontextmanager
async def collecting(lab: Lab) -> AsyncIterator[Collector]:
    """By a real clock, of the lab's broker, or of a stuck one where a pool's URL says so."""
    collector = Collector(lab.cluster.cache, observer=lab.refreshes)
    brokers: Brokers[FakeCelery | StuckWorkers] = Brokers(
        lambda of: of.broker.url or "",
        connect=lambda url, **_: StuckWorkers() if "stuck" in url else lab.celery,
    )
    task = asyncio.create_task(collector.collect(lab.configuration, brokers, lab.databases))
    try:
        yield collector
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def lab() -> Lab:
    """One pool, airflow/default, of two ready workers; one runs a task, one task waits."""
    lab = Lab(configuration=configuration())
    lab.cluster.add_workload("default-worker", replicas=2, namespace="airflow")
    lab.celery = FakeCelery.of(
        fake_worker("celery@default-worker-0", *tasks(1)), fake_worker("celery@default-worker-1")
    )
    lab.celery.lengths["default"] = 1
    return lab


async def test_a_refresh_measures_a_pool(lab: Lab) -> None:
    state = await lab.refresh()
    assert state.load is not None
    assert (state.load.demand, state.problem) == (2, None)
    assert state.refusal(max_age_s=60) is None
    assert lab.refreshes.seen == [("default", None)]


async def test_the_adapter_only_asks(lab: Lab) -> None:
    await lab.refresh()
    assert {call.method for call in lab.celery.calls} == {"inspect", "queue_lengths"}
    assert lab.cluster.writes == []


async def test_values_grow_old_while_the_broker_is_away(lab: Lab) -> None:
    await lab.refresh()
    lab.celery.broken = True
    lab.clock.now = 61.0
    state = await lab.refresh()
    assert state.load is not None
    assert (state.load.demand, state.age_s) == (2, 61.0)
    assert "switched off" in (state.refusal(max_age_s=60) or "")
    lab.celery.broken = False
    assert (await lab.refresh()).refusal(max_age_s=60) is None


async def test_a_failing_refresh_is_a_complaint_before_it_is_a_refusal(lab: Lab) -> None:
    """/readyz tells of it while the values are still young enough."""
    await lab.refresh()
    lab.celery.broken = True
    state = await lab.refresh()
    assert state.refusal(max_age_s=60) is None
    assert (state.complaint(max_age_s=60) or "").startswith("Pool airflow/default: ")


async def test_an_outage_is_logged_when_it_begins_and_when_it_ends(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="metrics_adapter")
    for is_broken in (True, True, True, False, False):
        lab.celery.broken = is_broken
        await lab.refresh()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_the_age_counts_from_before_the_question(lab: Lab) -> None:
    """A slow answer is old when it arrives."""

    def take_a_while(_: object) -> None:
        lab.clock.now = 2.5

    lab.celery.before_answer = take_a_while
    assert (await lab.refresh()).age_s == 2.5


async def test_a_pool_without_its_workload_is_not_empty(lab: Lab) -> None:
    lab.cluster.delete_workload("default-worker", namespace="airflow")
    state = await lab.refresh()
    assert state.load is None
    assert "Deployment airflow/default-worker is not there" in (state.refusal(max_age_s=60) or "")
    assert lab.refreshes.seen == [("default", "kubernetes")]


async def test_pods_that_nobody_has_seen_for_long_are_not_believed(lab: Lab) -> None:
    lab.cluster.cache.freeze()
    lab.wall.now += 61.0
    first = (await lab.refresh()).problem
    assert "Nothing was heard of the pods" in (first or "")
    lab.wall.now += 1.0
    assert (await lab.refresh()).problem == first, "else the log would have it at every refresh"


async def test_silence_of_every_worker_is_a_failure(lab: Lab) -> None:
    await lab.refresh()
    lab.celery.silent = set(lab.celery.workers)
    await lab.refresh()
    assert lab.refreshes.seen[-1] == ("default", "silent")


async def test_a_silent_worker_keeps_its_slots_from_the_refresh_before(lab: Lab) -> None:
    await lab.refresh()
    lab.celery.silent = {"celery@default-worker-1"}
    state = await lab.refresh()
    assert state.load is not None
    assert state.load.demand == 1 + 1 + 4


async def test_only_workers_that_can_answer_are_asked(lab: Lab) -> None:
    lab.cluster.edit_pod("default-worker-1", namespace="airflow", is_terminating=True)
    await lab.refresh()
    assert lab.celery.calls[0].nodes == {"celery@default-worker-0"}


async def test_what_should_not_occur_ends_nothing_and_tells_no_secret(lab: Lab) -> None:
    broken = Broker(name="b", control=BrokenWorkers())
    await lab.collector.refresh(lab.configuration.pools[0], broken, lab.databases)
    assert lab.refreshes.seen == [("default", "bug")]
    assert "ValueError" in (lab.state.problem or "")
    assert "hunter2" not in (lab.state.problem or "")


async def test_a_slow_pool_does_not_stall_the_others() -> None:
    """On another broker, or on the same."""
    pools = [pool("slow", broker={"url": "redis://stuck/0"}), pool("stuck"), pool("fast")]
    lab = Lab(configuration=configuration(*pools, refresh="0.01s"))
    for of in pools:
        lab.cluster.add_workload(f"{of.name}-worker", replicas=1, namespace="airflow")
    workers = {node: fake_worker(node) for node in ("celery@fast-worker-0", "celery@stuck-worker-0")}
    lab.celery = StuckFor(workers=workers, node="celery@stuck-worker-0")
    async with collecting(lab) as collector:
        await lab.refreshes.of("fast", 3)
        assert {name for name, _ in lab.refreshes.seen} == {"fast"}
        assert [state.load is None for state in collector.states()] == [True, True, False]


async def test_pools_of_one_broker_are_asked_at_the_same_moment() -> None:
    """Which the door makes one question of."""
    names = ("one", "two", "three")
    lab = Lab(configuration=configuration(*map(pool, names), refresh="0.05s"))
    for name in names:
        lab.cluster.add_workload(f"{name}-worker", replicas=1, namespace="airflow")
        lab.celery.workers[f"celery@{name}-worker-0"] = fake_worker(f"celery@{name}-worker-0")
    steps = Steps()
    lab.celery.before_answer = steps.note
    async with collecting(lab):
        await lab.refreshes.of("one", 3)
    assert steps.counts[:3] == [3, 3, 3]


async def test_until_a_pool_is_measured_it_is_tried_again_soon() -> None:
    lab = Lab(configuration=configuration(pool("early"), pool("late"), refresh="1h", maxAge="2h"))
    lab.cluster.add_workload("early-worker", namespace="airflow")
    async with collecting(lab) as collector:
        await lab.refreshes.of("late", 2)
        lab.cluster.add_workload("late-worker", namespace="airflow")
        await lab.refreshes.of("late", 3)
        assert lab.refreshes.seen[-1] == ("late", None)
        assert all(state.load for state in collector.states())
    assert [name for name, _ in lab.refreshes.seen].count("early") == 1


async def test_another_configuration_keeps_what_is_known_of_pools_that_stay(lab: Lab) -> None:
    await lab.refresh()
    lab.collector.adopt(configuration(pool("new"), pool(slotsPerWorker=4), maxAge="30s"))
    new, kept = lab.collector.states()
    assert (new.load, kept.load is not None, lab.collector.max_age_s) == (None, True, 30.0)
    lab.collector.adopt(configuration(pool(workload={"name": "other"})))
    assert lab.state.load is None


async def test_pools_of_one_broker_share_its_connection() -> None:
    opened: list[FakeCelery] = []

    def connect(url: str, **_: object) -> FakeCelery:
        opened.append(FakeCelery())
        return opened[-1]

    brokers = Brokers(lambda of: of.broker.url or "", connect=connect)
    same = [brokers.of(pool("one")), brokers.of(pool("two"))]
    other = brokers.of(pool("three", broker={"url": "redis://broker/1"}))
    prefixed = {"url": "redis://broker/0", "transportOptions": {"global_keyprefix": "x"}}
    assert same[0] is same[1]
    assert len({same[0].name, other.name, brokers.of(pool("four", broker=prefixed)).name}) == 3
    await brokers.keep_only(())
    assert [celery.is_closed for celery in opened] == [True, True, True]


def test_a_broker_keeps_its_name_and_tells_nothing() -> None:
    """Readings from before a change of the configuration must still know which queues they share."""
    url = "redis://:hunter2@broker/0"
    names = [Brokers(lambda _: url, connect=lambda url, **_: FakeCelery()).of(pool()).name for _ in range(2)]
    assert names[0] == names[1]
    assert "hunter2" not in names[0]


@pytest.fixture
def airflow() -> Lab:
    """An Airflow pool of two ready workers: one runs a task that the database still calls queued, as it does
    another one that no worker has."""
    of = pool(airflow={"database": "postgresql://reader:hunter2@db/airflow"})
    lab = Lab(configuration=configuration(of))
    lab.cluster.add_workload("default-worker", replicas=2, namespace="airflow")
    accepted, waiting = task_key("accepted"), task_key("waiting")
    lab.celery = FakeCelery.of(
        fake_worker("celery@default-worker-0", celery_task(accepted)), fake_worker("celery@default-worker-1")
    )
    lab.databases.database.queue(accepted)
    lab.databases.database.queue(waiting)
    return lab


async def test_both_sources_of_an_airflow_pool_are_held_together(airflow: Lab) -> None:
    state = await airflow.refresh()
    assert state.load is not None
    assert (state.load.demand, state.load.waiting, state.problem) == (2, 1, None)
    assert {call.method for call in airflow.celery.calls} == {"inspect"}, "what waits is in the database"


async def test_without_its_database_an_airflow_pool_is_not_measured(airflow: Lab) -> None:
    """What waits and what is protected stands nowhere else: its values grow old."""
    await airflow.refresh()
    airflow.databases.database.broken = True
    airflow.clock.now = 61.0
    state = await airflow.refresh()
    assert "switched off" in (state.refusal(max_age_s=60) or "")
    assert airflow.refreshes.seen[-1] == ("default", "database")
    airflow.databases.database.broken = False
    assert (await airflow.refresh()).refusal(max_age_s=60) is None


async def test_without_the_broker_the_database_is_enough(airflow: Lab) -> None:
    """It is a complaint, in /readyz and telemetry, and no refusal: every task has a row."""
    await airflow.refresh()
    airflow.celery.broken = True
    airflow.clock.now = 61.0
    state = await airflow.refresh()
    assert state.load is not None
    assert (state.load.demand, state.refusal(max_age_s=60)) == (2, None)
    assert "metadata database alone" in (state.complaint(max_age_s=60) or "")
    assert airflow.refreshes.seen[-1] == ("default", "broker")
    airflow.celery.broken = False
    assert (await airflow.refresh()).complaint(max_age_s=60) is None


async def test_silence_of_every_airflow_worker_is_a_complaint(airflow: Lab) -> None:
    await airflow.refresh()
    airflow.celery.silent = set(airflow.celery.workers)
    state = await airflow.refresh()
    assert "worker_enable_remote_control" in (state.complaint(max_age_s=60) or "")
    assert (state.refusal(max_age_s=60), airflow.refreshes.seen[-1]) == (None, ("default", "silent"))


async def test_an_airflow_pool_scaled_to_nothing_wakes_up_by_what_is_queued(airflow: Lab) -> None:
    airflow.cluster.delete_workload("default-worker", namespace="airflow")
    airflow.cluster.add_workload("default-worker", replicas=0, namespace="airflow")
    state = await airflow.refresh()
    assert state.load is not None
    assert state.load.demand == 2


async def test_a_protected_airflow_task_occupies_its_worker(airflow: Lab) -> None:
    airflow.databases.database.label("reports", accepted=Label(protect=True))
    state = await airflow.refresh()
    assert state.load is not None
    assert state.load.demand == 4 + 1


@pytest.fixture
def neighbours() -> Lab:
    """Two Airflow pools of one worker each, in one database, which take from one queue."""
    database = {"airflow": {"database": "postgresql://reader:hunter2@db/airflow"}}
    pools = (pool(name, queues=["shared"], **database) for name in ("first", "second"))
    lab = Lab(configuration=configuration(*pools))
    lab.databases.database.clock = lab.wall
    nodes = []
    for name in ("first-worker", "second-worker"):
        lab.cluster.add_workload(name, replicas=1, namespace="airflow")
        nodes.append(fake_worker(f"celery@{name}-0"))
    lab.celery = FakeCelery.of(*nodes)
    return lab


def demands(lab: Lab) -> list[int]:
    return [state.load.demand for state in lab.collector.states() if state.load is not None]


async def test_what_ended_before_its_worker_was_asked_does_not_run(neighbours: Lab) -> None:
    """The reading may be older than the answer, as it was made for another pool; then the answer counts."""
    ended, begun = task_key("ended"), task_key("begun")
    first, second = neighbours.configuration.pools
    neighbours.databases.database.start(ended, host="second-worker-0", queue="shared")
    await neighbours.collector.refresh(first, neighbours.broker, neighbours.databases)
    neighbours.databases.database.end(ended)
    neighbours.wall.now += 2.0
    await neighbours.collector.refresh(second, neighbours.broker, neighbours.databases)
    assert (demands(neighbours), len(neighbours.databases.database.reads)) == ([0, 0], 1)
    neighbours.databases.database.start(begun, host="second-worker-0", queue="shared")
    await neighbours.refresh()
    assert demands(neighbours) == [0, 1], "it may have begun since, when the reading is the later one"


async def test_a_task_that_runs_on_no_known_pod_may_be_on_any_worker_without_an_answer(
    neighbours: Lab,
) -> None:
    """But not one that runs on a pod of the other pool, though they share a queue."""
    await neighbours.refresh()
    neighbours.celery.silent.add("celery@first-worker-0")
    neighbours.databases.database.start(task_key(), host="second-worker-0", queue="shared")
    await neighbours.refresh()
    assert demands(neighbours) == [0, 1]
    neighbours.databases.database.start(task_key(), host="10", queue="shared")
    await neighbours.refresh()
    assert demands(neighbours) == [1, 0]
