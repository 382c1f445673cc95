"""What the workers of every pool said last, kept warm so that a verdict can be planned at once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from drain_hook.worker_software import Reporter, WorkerSoftware
from shared.airflow_fleet import hosts_of_others
from shared.errors import BrokerUnavailable
from shared.pods import WorkloadState, answering_nodes
from shared.pools import Configuration, Pool
from shared.workers import Fleet, WorkerSnapshot

log = logging.getLogger(__name__)

REFRESH_TIMEOUT_S = 2.0
"""One silent worker costs all of it; nobody waits for it here."""
REFRESH_OF_EACH_S = 0.002
"""More time for each that is asked: a thousand answers take their time to arrive, and to read."""
TRUSTED_REFRESHES = 2
"""A snapshot that missed more refreshes than this is asked for again before it is planned on."""


class Inspector(Reporter, Protocol):
    async def inspect(self, nodes: Collection[str], *, timeout_s: float) -> Fleet: ...


class WorkloadStates(Protocol):
    def state(self, *, kind: str, namespace: str, name: str) -> WorkloadState | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A worker's last answer, or its silence."""

    asked_at: float
    """By the monotonic clock: when the question left, so nothing that happened later is known."""
    worker: WorkerSnapshot | None
    """None when it was silent."""


class WarmFleet:
    """The last answers of all workers, by pool."""

    def __init__(
        self,
        *,
        configuration: Callable[[], Configuration],
        cache: WorkloadStates,
        workers: Callable[[Pool], Inspector],
        software: WorkerSoftware | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.software = software or WorkerSoftware()
        """The versions that the workers run."""
        self._configuration = configuration
        self._cache = cache
        self._workers = workers
        self._clock = clock
        self._problems: dict[tuple[str, str], str] = {}
        self._sightings: dict[tuple[str, str], dict[str, Sighting]] = {}

    async def of(self, pool: Pool, nodes: Collection[str], *, timeout_s: float) -> Fleet:
        """What these workers said; those whose last answer is missing or old are asked now.

        Raises BrokerUnavailable.
        """
        if old := [node for node in nodes if not self._is_trusted(self.sighting(pool, node))]:
            await self._ask(pool, old, timeout_s=timeout_s)
        return _as_said({node: self.sighting(pool, node) for node in nodes})

    def now(self) -> float:
        """The clock of `asked_at`."""
        return self._clock()

    def sighting(self, pool: Pool, node: str) -> Sighting | None:
        """The last answer or silence of a worker; None when it was never asked."""
        return self._sightings.get(pool.key, {}).get(node)

    def hosts_of_others(self, pool: Pool) -> frozenset[str]:
        """The pods of all other Airflow pools: what runs there runs on none of this one's workers."""
        return hosts_of_others(pool, self._configuration().pools, self._cache.state)

    def remembered(self, pool: Pool) -> Fleet:
        """All last answers and silences, however old."""
        return _as_said(self._sightings.get(pool.key, {}))

    def learn(self, pool: Pool, fleet: Fleet, *, asked_at: float) -> None:
        """Take in answers; those to an older question than the last do not count."""
        answers: Mapping[str, WorkerSnapshot | None] = {**dict.fromkeys(fleet.silent), **fleet.workers}
        known = self._sightings.setdefault(pool.key, {})
        for node, worker in answers.items():
            if node not in known or known[node].asked_at <= asked_at:
                known[node] = Sighting(asked_at=asked_at, worker=worker)

    async def refresh(self, pool: Pool) -> None:
        """Ask all workers of a pool, and forget those that are gone. Raises BrokerUnavailable."""
        state = self._cache.state(**pool.workload_key._asdict())
        nodes = answering_nodes(state.pods if state else (), worker_name=pool.worker_name)
        timeout_s = REFRESH_TIMEOUT_S + REFRESH_OF_EACH_S * len(nodes)
        await self._ask(pool, nodes, timeout_s=timeout_s)
        known = self._sightings.get(pool.key, {})
        self._sightings[pool.key] = {node: seen for node, seen in known.items() if node in nodes}
        await self.software.meet(pool, self.remembered(pool).workers, self._workers(pool), nodes=nodes)

    async def run(self) -> None:
        """Refresh every pool, again and again; a slow broker delays its own pools only."""
        running: dict[tuple[str, str], asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                configuration = self._configuration()
                for pool in configuration.pools:
                    if pool.key not in running or running[pool.key].done():
                        running[pool.key] = group.create_task(self._refresh_or_tell(pool))
                await asyncio.sleep(configuration.refresh)

    async def _refresh_or_tell(self, pool: Pool) -> None:
        try:
            await self.refresh(pool)
        except BrokerUnavailable as error:
            if self._problems.get(pool.key) != str(error):
                log.warning(
                    "The workers of pool %s/%s could not be asked: %s", pool.namespace, pool.name, error
                )
            self._problems[pool.key] = str(error)
        except Exception:
            log.exception("The workers of pool %s/%s could not be asked.", pool.namespace, pool.name)
        else:
            self._problems.pop(pool.key, None)

    async def _ask(self, pool: Pool, nodes: Collection[str], *, timeout_s: float) -> None:
        asked_at = self._clock()
        fleet = await self._workers(pool).inspect(nodes, timeout_s=timeout_s)
        self.learn(pool, fleet, asked_at=asked_at)

    def _is_trusted(self, sighting: Sighting | None) -> bool:
        oldest = self._clock() - TRUSTED_REFRESHES * self._configuration().refresh
        return sighting is not None and sighting.asked_at >= oldest


def _as_said(seen: Mapping[str, Sighting | None]) -> Fleet:
    """Whoever was not seen is as silent as whoever did not answer."""
    workers = {node: s.worker for node, s in seen.items() if s is not None and s.worker is not None}
    return Fleet(workers=workers, silent=frozenset(seen) - workers.keys())
