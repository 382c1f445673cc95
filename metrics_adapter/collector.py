"""Asks each pool's workers, queues and pods again and again, so that requests are answered from memory.

A failed refresh leaves the last values where they are, growing older: a zero that nobody measured would
scale a pool down. Pools of one broker are asked at the same moment, which makes one question of all of them.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from metrics_adapter.freshness import PoolState
from metrics_adapter.load import (
    Load,
    PoolKey,
    Reading,
    WorkersSilent,
    check_that_some_answer,
    loads,
    take_reading,
)
from shared.airflow_fleet import dags_of, hosts_of_others, queued_of, with_metadata
from shared.airflow_tasks import Metadata
from shared.brokers import Broker, Brokers
from shared.errors import BrokerUnavailable, CeleryHpaError, DatabaseUnavailable, KubernetesError
from shared.pods import WorkloadState, answering_nodes, celery_node
from shared.pools import Configuration, Pool
from shared.workers import Fleet

log = logging.getLogger(__name__)

ASK_TIMEOUT_S = 3.0
"""Workers of a green pool answer within 2 s; a silent worker costs all of it."""
FIRST_PERIOD_S = 0.5
"""How long to wait after a refresh that failed before any has succeeded."""
LONGEST_REFRESH_S = 30.0
SHARED_FOR = 0.8
"""Of a period: for so long one reading of a metadata database serves all pools of it."""


class Cluster(Protocol):
    """What the adapter asks of Kubernetes: a look into the cache."""

    def state(self, *, kind: str, namespace: str, name: str) -> WorkloadState | None: ...


class Workers(Protocol):
    """What the adapter asks of Celery; never a command."""

    async def inspect(self, nodes: Collection[str], *, timeout_s: float) -> Fleet: ...

    async def queue_lengths(self, queues: Collection[str], *, timeout_s: float) -> Mapping[str, int]: ...

    async def close(self) -> None: ...


class Databases(Protocol):
    """What the adapter asks of Airflow's metadata databases."""

    def name_of(self, pool: Pool) -> str:
        """Equal for pools on one database, and nothing of its URL."""

    async def recent(
        self, pool: Pool, dag_ids: Collection[str], *, max_age_s: float, timeout_s: float
    ) -> Metadata: ...


class Observer(Protocol):
    """Who wants to know of each refresh."""

    def refreshed(self, pool: Pool, *, seconds: float, failure: str | None) -> None:
        """`failure` is kubernetes, broker, database, silent, timeout or bug; None when it succeeded.

        An Airflow pool's refresh succeeds without its broker, with `failure` broker or silent all the same.
        """


class PodsUnknown(CeleryHpaError):
    """The pool's workload or its pods cannot be seen."""


class Collector:
    """The last reading of every pool."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._observer = observer
        self._clock = clock
        self._wall_clock = wall_clock
        self._pools: tuple[Pool, ...] = ()
        self.max_age_s = 0.0
        self.revision = 0
        """Counts the changes of what is served."""
        self._shared_for_s = 0.0
        self._readings: dict[PoolKey, Reading] = {}
        self._taken_at: dict[PoolKey, float] = {}
        self._problems: dict[PoolKey, str] = {}
        self._loads: Mapping[PoolKey, Load] | None = {}
        """None until somebody asks after a refresh: each may change those of all pools."""

    def states(self) -> tuple[PoolState, ...]:
        """Every pool of the configuration in force."""
        now = self._clock()
        if self._loads is None:
            self._loads = loads(self._readings.values())
        return tuple(
            PoolState(
                pool=pool,
                load=self._loads.get(pool.key),
                age_s=now - self._taken_at.get(pool.key, now),
                problem=self._problems.get(pool.key),
            )
            for pool in self._pools
        )

    async def collect(
        self, configuration: Configuration, brokers: Brokers[Workers], databases: Databases
    ) -> None:
        """Keep every pool of this configuration fresh, until cancelled."""
        self.adopt(configuration)
        sharers: dict[str, list[Pool]] = defaultdict(list)
        for pool in configuration.pools:
            sharers[brokers.of(pool).name].append(pool)
        async with asyncio.TaskGroup() as group:
            for pools in sharers.values():
                broker = brokers.of(pools[0])
                group.create_task(self._keep_fresh(pools, broker, databases, period_s=configuration.refresh))

    def adopt(self, configuration: Configuration) -> None:
        """These are the pools from now on; what is known of those that keep their workload is kept."""
        self._pools, self.max_age_s = configuration.pools, configuration.max_age
        self.revision += 1
        self._shared_for_s = SHARED_FOR * configuration.refresh
        before = {key: reading.pool.workload for key, reading in self._readings.items()}
        kept = {pool.key for pool in self._pools if before.get(pool.key, pool.workload) == pool.workload}
        for known in (self._readings, self._taken_at, self._problems):
            for key in known.keys() - kept:
                del known[key]
        self._loads = None

    async def _keep_fresh(
        self, pools: Sequence[Pool], broker: Broker[Workers], databases: Databases, *, period_s: float
    ) -> None:
        """Those of one broker at the same moment; one that is not done then begins when it is."""
        running: dict[PoolKey, asyncio.Task[None]] = {}
        late: set[PoolKey] = set()
        async with asyncio.TaskGroup() as group:

            def start(some: Iterable[Pool]) -> None:
                for pool in some:
                    if pool.key not in running or running[pool.key].done():
                        running[pool.key] = group.create_task(self.refresh(pool, broker, databases))
                        late.discard(pool.key)

            while True:
                # Unequal periods, so that two replicas do not ask at the same moment for ever.
                end = self._clock() + period_s * random.uniform(0.9, 1.1)
                late.update(key for key, task in running.items() if not task.done())
                start(pools)
                while (left := end - self._clock()) > 0:
                    await asyncio.sleep(min(left, FIRST_PERIOD_S))
                    start(pool for pool in pools if pool.key in late or pool.key not in self._readings)

    async def refresh(self, pool: Pool, broker: Broker[Workers], databases: Databases) -> None:
        """Ask once; failures become the pool's problem and are never raised."""
        started, failure = self._clock(), None
        try:
            async with asyncio.timeout(LONGEST_REFRESH_S):
                reading, failure = await self._read(pool, broker, databases)
        except Exception as error:
            failure = error
            self._failed(pool, error)
        else:
            self._succeeded(pool, reading, taken_at=started, in_spite_of=failure)
        seconds = self._clock() - started
        self._observer.refreshed(pool, seconds=seconds, failure=_kind(failure) if failure else None)

    async def _read(
        self, pool: Pool, broker: Broker[Workers], databases: Databases
    ) -> tuple[Reading, Exception | None]:
        """The reading, and what failed and could be done without."""
        measured_at = self._wall_clock()
        state = self._pods_of(pool, now=measured_at)
        if pool.airflow is not None:
            return await self._read_airflow(pool, broker, databases, state=state, measured_at=measured_at)
        fleet, queue_lengths = await asyncio.gather(
            _ask(pool, broker, state), broker.control.queue_lengths(pool.queues, timeout_s=ASK_TIMEOUT_S)
        )
        reading = take_reading(
            pool=pool,
            source=broker.name,
            pods=state.pods,
            fleet=fleet,
            queue_lengths=queue_lengths,
            last=self._readings.get(pool.key),
            measured_at=measured_at,
        )
        check_that_some_answer(reading)
        return reading, None

    async def _read_airflow(
        self,
        pool: Pool,
        broker: Broker[Workers],
        databases: Databases,
        *,
        state: WorkloadState,
        measured_at: float,
    ) -> tuple[Reading, Exception | None]:
        """The database is asked after the workers, unless for another pool it was a moment ago.

        It knows every task, so it is enough without them; they are not without it, since what waits and what
        is protected stands nowhere else.
        """
        failure: Exception | None = None
        try:
            fleet = await _ask(pool, broker, state)
        except BrokerUnavailable as error:
            fleet, failure = Fleet(), error
        metadata = await databases.recent(
            pool, dags_of(fleet), max_age_s=self._shared_for_s, timeout_s=ASK_TIMEOUT_S
        )
        # Made for another pool it may be the older one, with tasks that have ended since.
        is_behind = metadata.read_at < measured_at
        known = with_metadata(
            fleet,
            metadata,
            pool=pool,
            nodes={celery_node(pod.name, worker_name=pool.worker_name) for pod in state.pods},
            asked_at=measured_at,
            asked_later=fleet.workers.keys() if is_behind else (),
            elsewhere=hosts_of_others(pool, self._pools, self._cluster.state),
        )
        reading = take_reading(
            pool=pool,
            source=databases.name_of(pool),
            pods=state.pods,
            fleet=known,
            queued=queued_of(metadata, pool=pool),
            last=self._readings.get(pool.key),
            measured_at=min(measured_at, metadata.read_at),
        )
        if failure is None:
            failure = _silence_of(reading)
        return reading, failure

    def _pods_of(self, pool: Pool, *, now: float) -> WorkloadState:
        workload = pool.workload
        title = f"{workload.kind} {pool.namespace}/{workload.name}"
        state = self._cluster.state(kind=workload.kind, namespace=pool.namespace, name=workload.name)
        if state is None:
            raise PodsUnknown(
                f"{title} is not there, or could not be listed yet: look whether it exists and whether our "
                "service account may list and watch it, its ReplicaSets and its pods."
            )
        if now - state.as_of > self.max_age_s:
            # A moment, not a duration: the sentence stays the same, and is logged once.
            since = time.strftime("%H:%M:%S", time.gmtime(state.as_of))
            raise PodsUnknown(f"Nothing was heard of the pods of {title} since {since} (UTC).")
        return state

    def _succeeded(
        self, pool: Pool, reading: Reading, *, taken_at: float, in_spite_of: Exception | None
    ) -> None:
        self.revision += 1
        self._readings[pool.key] = reading
        self._taken_at[pool.key] = taken_at
        self._loads = None
        if in_spite_of is not None:
            self._report(pool, f"Its metadata database alone tells of it. {_sentence(in_spite_of)}")
        elif self._problems.pop(pool.key, None):
            log.info("Pool %s/%s is measured again.", pool.namespace, pool.name)

    def _failed(self, pool: Pool, error: Exception) -> None:
        if _kind(error) == "bug":
            log.error("Pool %s/%s: %s", pool.namespace, pool.name, _sentence(error), exc_info=error)
            self._problems[pool.key] = _sentence(error)
        else:
            self._report(pool, _sentence(error))

    def _report(self, pool: Pool, problem: str) -> None:
        if problem != self._problems.get(pool.key):
            log.warning("Pool %s/%s cannot be measured as it should. %s", pool.namespace, pool.name, problem)
        self._problems[pool.key] = problem


async def _ask(pool: Pool, broker: Broker[Workers], state: WorkloadState) -> Fleet:
    nodes = answering_nodes(state.pods, worker_name=pool.worker_name)
    return await broker.control.inspect(nodes, timeout_s=ASK_TIMEOUT_S)


def _silence_of(reading: Reading) -> WorkersSilent | None:
    try:
        check_that_some_answer(reading)
    except WorkersSilent as silence:
        return silence
    return None


def _kind(error: Exception) -> str:
    kinds: Mapping[type[Exception], str] = {
        PodsUnknown: "kubernetes",
        KubernetesError: "kubernetes",
        BrokerUnavailable: "broker",
        DatabaseUnavailable: "database",
        WorkersSilent: "silent",
        TimeoutError: "timeout",
    }
    return next((kind for type_, kind in kinds.items() if isinstance(error, type_)), "bug")


def _sentence(error: Exception) -> str:
    """A foreign error's text may hold anything, so only its type is shown."""
    if isinstance(error, CeleryHpaError):
        return str(error)
    if isinstance(error, TimeoutError):
        return f"Its refresh was given up after {LONGEST_REFRESH_S:.0f} s."
    return f"Its refresh failed for a reason that should not occur ({type(error).__name__})."
