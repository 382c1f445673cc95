"""What a round knows: the workload with its pods, and what their workers said last."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Protocol

from drain_hook.round_labels import RoundLabels
from drain_hook.warm_fleet import WarmFleet, WorkloadStates
from shared.errors import NotFound
from shared.pods import Pod, Workload, WorkloadState, answering_nodes, celery_node
from shared.pools import Pool
from shared.workers import Fleet

TRUSTED_CACHE_S = 2.0
"""A watch that has been cut for longer is not planned on."""


class Cluster(Protocol):
    async def workload(self, *, kind: str, namespace: str, name: str) -> Workload: ...

    async def workload_state(self, *, kind: str, namespace: str, name: str) -> WorkloadState: ...


class Picture:
    """The workload as it is now, the rest from memory as far as that can be trusted; then kept up to date."""

    def __init__(
        self,
        pool: Pool,
        *,
        cluster: Cluster,
        cache: WorkloadStates,
        warm: WarmFleet,
        labels: RoundLabels,
        clock: Callable[[], float],
    ) -> None:
        self.state: WorkloadState | None = None
        """None before the first look, and when there is no such workload."""
        self.fleet = Fleet()
        """What the workers said themselves."""
        self._asked_at: dict[str, float] = {}
        """When they were asked for it, by node name and the warm fleet's clock."""
        self._pool = pool
        self._name = pool.workload_key._asdict()
        self._cluster = cluster
        self._cache = cache
        self._warm = warm
        self._labels = labels
        self._clock = clock

    @property
    def known(self) -> WorkloadState:
        """The state, after a look that found one."""
        assert self.state is not None, "look() found no workload, or was not called"
        return self.state

    async def look(self) -> Workload | None:
        """The workload as it is now, None when there is none. Raises KubernetesError."""
        try:
            workload = await self._cluster.workload(**self._name)
        except NotFound:
            self.state = None
            return None
        self.state = (self.state or WorkloadState(workload=workload)).with_workload(workload)
        return workload

    async def complete(self, *, timeout_s: float) -> None:
        """Pods, workers and labels, after a look. Raises KubernetesError and BrokerUnavailable."""
        if self._pool.airflow is None:
            await self._gather(timeout_s=timeout_s)
            return
        async with self._labels.reading_beside(self._warm.remembered(self._pool)):
            await self._gather(timeout_s=timeout_s)
        await self._labels.read_for(self.fleet)

    async def _gather(self, *, timeout_s: float) -> None:
        cached = self._cache.state(**self._name)
        if cached is not None and self._is_current(cached):
            self.state = cached.with_workload(self.known.workload)
        else:
            self.state = await self._cluster.workload_state(**self._name)
        nodes = answering_nodes(self.state.pods, worker_name=self._pool.worker_name)
        self.fleet = await self._warm.of(self._pool, nodes, timeout_s=timeout_s)
        sightings = {node: self._warm.sighting(self._pool, node) for node in nodes}
        self._asked_at = {node: seen.asked_at for node, seen in sightings.items() if seen}

    async def list_pods(self) -> None:
        """The pods as they are now, for the workload that was looked at. Raises KubernetesError."""
        live = await self._cluster.workload_state(**self._name)
        self.state = live.with_workload(self.known.workload)

    def catch_up(self) -> bool:
        """Take over what the watch has heard of these pods since; whether there was anything. No request."""
        cached = self._cache.state(**self._name)
        seen = {pod.uid: pod for pod in cached.pods} if cached else {}
        newer = [
            seen[pod.uid] for pod in self.known.pods if pod.uid in seen and seen[pod.uid].is_newer_than(pod)
        ]
        self.see(newer)
        return bool(newer)

    def queues_of(self, node: str) -> frozenset[str]:
        """What a worker said it consumes; nothing when it is silent."""
        worker = self.fleet.workers.get(node)
        return worker.queues if worker else frozenset()

    def asking(self) -> float:
        """The moment before a question leaves, for `learn`."""
        return self._warm.now()

    @property
    def labels_problem(self) -> str:
        """Why the labels of its tasks are not known; empty where they are, and where there are none."""
        return self._labels.problem

    def labelled(self) -> Fleet:
        """The fleet with the labels of Airflow's tasks, and with what its database says of silent workers."""
        if not self._labels.were_read:
            return self.fleet
        ahead_s = self._clock() - self._warm.now()
        return self._labels.of(
            self.fleet,
            nodes={celery_node(pod.name, worker_name=self._pool.worker_name) for pod in self.known.pods},
            asked_at={node: at + ahead_s for node, at in self._asked_at.items()},
            elsewhere=self._warm.hosts_of_others(self._pool),
        )

    async def read_labels_again(self) -> None:
        """Take in what the metadata database says by now, of labels and of silent workers."""
        await self._labels.read_again_for(self.fleet)

    async def learn(self, fleet: Fleet, *, asked_at: float) -> None:
        """Newer answers replace older ones, and so does newer silence; new tasks get their labels."""
        kept = {node: worker for node, worker in self.fleet.workers.items() if node not in fleet.silent}
        silent = (self.fleet.silent | fleet.silent).difference(fleet.workers)
        self.fleet = Fleet(workers={**kept, **fleet.workers}, silent=silent)
        self._asked_at |= dict.fromkeys(fleet.workers, asked_at)
        # Here a worker that did not obey is as good as silent; for everybody else it is not.
        self._warm.learn(self._pool, Fleet(workers=fleet.workers), asked_at=asked_at)
        await self._labels.read_for(self.fleet)

    def see(self, pods: Iterable[Pod], *, gone: Collection[str] = ()) -> None:
        """Pods as they are after a write, and the uids of those that were not there any more."""
        newer = {pod.uid: pod for pod in pods}
        pods_now = tuple(newer.get(pod.uid, pod) for pod in self.known.pods if pod.uid not in gone)
        self.state = replace(self.known, pods=pods_now)

    def _is_current(self, cached: WorkloadState) -> bool:
        """Whether the cache has caught up with the workload, which was read live."""
        workload = self.known.workload
        return (
            cached.workload.uid == workload.uid
            and cached.as_of >= self._clock() - TRUSTED_CACHE_S
            and workload.observed_generation == workload.generation
            and cached.counted_pods == workload.status_replicas
        )
