"""Kubernetes for the model: the cluster of the fakes with a past, and caches that know only that past."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import Random
from typing import Any

from deploy.sandbox.controllers.replicasets import candidate, choose_victims
from shared.errors import Conflict, KubernetesUnavailable
from shared.pods import (
    DELETION_COST,
    Pod,
    ReplicaSet,
    Workload,
    WorkloadKey,
    WorkloadState,
    pod_from,
    replica_set_from,
    state_of,
    workload_from,
)
from tests.drain_hook.stages import NAMESPACE
from tests.fakes.kubernetes import FakeCache, FakeCluster
from tests.model.virtual_time import VirtualLoop

NAME = "worker"
KEY = WorkloadKey("Deployment", NAMESPACE, NAME)


@dataclass(frozen=True, slots=True)
class Moment:
    """All objects as they were."""

    workload: Workload | None
    replica_sets: tuple[ReplicaSet, ...]
    pods: tuple[Pod, ...]


@dataclass(kw_only=True)
class ModelCluster(FakeCluster):
    """One Deployment, whose controllers move when they are told to."""

    loop: VirtualLoop = field(default_factory=VirtualLoop)
    random: Random = field(default_factory=Random)
    failing: float = 0.0
    """Share of PATCHes that fail; a quarter of these have taken effect all the same."""

    def __post_init__(self) -> None:
        self._times: list[float] = []
        self._moments: list[Moment] = []
        self._numbers = itertools.count()
        self._latest: WorkloadState | None = None
        self._seen = 0
        self.foreign: dict[str, str | None] = {}
        """By pod: the deletion cost that somebody else wrote last."""
        super().__post_init__()

    # What there is.

    @property
    def now_state(self) -> WorkloadState | None:
        return self._state(KEY) if KEY in self._workloads else None

    @property
    def pods_now(self) -> Mapping[str, Pod]:
        state = self.now_state
        return {pod.name: pod for pod in state.pods} if state else {}

    @property
    def resource_version(self) -> str | None:
        return self._workloads[KEY]["metadata"]["resourceVersion"] if KEY in self._workloads else None

    def moment(self, ago_s: float) -> Moment:
        index = bisect_right(self._times, self.loop.time() - ago_s)
        return self._moments[max(0, index - 1)]

    # What happens to it.

    def create(self, replicas: int) -> None:
        number = next(self._numbers)
        self.add_workload(
            NAME, namespace=NAMESPACE, replicas=replicas, with_pods=False, uid=f"deployment-{number}"
        )
        self._stamp(self._workloads[KEY])

    def new_pod(self, *, is_ready: bool) -> str:
        """A pod of the ReplicaSet; names are never used again."""
        name = f"{NAME}-{next(self._numbers)}"
        fields: dict[str, Any] = {} if is_ready else {"phase": "Pending", "is_ready": False, "host": ""}
        host = f"host-{self.random.randrange(3)}"
        self.add_pod(
            name,
            replica_set=f"{NAME}-rs",
            namespace=NAMESPACE,
            uid=f"uid-{self.random.randrange(10**6):06}-{name}",
            **({"host": host} | fields),
        )
        since = datetime.fromtimestamp(self.loop.wall(), tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._pods[NAMESPACE, name]["metadata"]["creationTimestamp"] = since
        self.edit_pod(name, namespace=NAMESPACE, is_ready=is_ready)
        self.foreign[name] = None
        return name

    def write_foreign_cost(self, name: str, cost: str | None) -> None:
        self.foreign[name] = cost
        self.annotate_pod(name, {DELETION_COST: cost}, namespace=NAMESPACE)

    def touch_workload(self) -> None:
        """Somebody annotates the Deployment, which raises its generation."""
        document = self._workloads[KEY]
        document["metadata"]["generation"] += 1
        self._stamp(document)

    # The controllers.

    def deployment_controller(self) -> None:
        """Pass the size on to the ReplicaSet, and write the status."""
        if KEY not in self._workloads:
            return
        document, state = self._workloads[KEY], self._state(KEY)
        status = {"observedGeneration": state.workload.generation, "replicas": self._active(state)}
        (replica_set,) = (self._replica_sets[NAMESPACE, rs.name] for rs in state.replica_sets)
        annotations = replica_set["metadata"]["annotations"]
        if replica_set["spec"]["replicas"] != state.workload.replicas:
            replica_set["spec"]["replicas"] = state.workload.replicas
            replica_set["metadata"]["generation"] += 1
            annotations["deployment.kubernetes.io/desired-replicas"] = str(state.workload.replicas)
            self._stamp(replica_set)
        if not status.items() <= document["status"].items():
            document["status"].update(status)
            self._stamp(document)

    def has_changed(self) -> bool:
        """Since the last time this was asked."""
        seen, self._seen = self._seen, len(self._moments)
        return seen != self._seen

    def surplus(self) -> tuple[list[str], int]:
        """Names of the pods that the ReplicaSet deletes now, by Kubernetes' order; how many it lacks."""
        state = self.now_state
        if state is None:
            return [], 0
        (replica_set,) = state.replica_sets
        pods = [candidate(self._pods[NAMESPACE, pod.name]) for pod in state.pods]
        now = datetime.fromtimestamp(self.loop.wall(), tz=UTC)
        victims = choose_victims(pods, desired=replica_set.replicas, related=pods, now=now)
        return [pod.name for pod in victims], replica_set.replicas - self._active(state)

    # The methods of KubeClient.

    async def patch_pod(
        self,
        *,
        namespace: str,
        name: str,
        uid: str,
        annotations: Mapping[str, str | None],
        resource_version: str = "",
    ) -> Pod:
        fate = "fine"
        if self.random.random() < self.failing:
            fate = self.random.choice(("conflict", "unheard", "unavailable", "unavailable"))
        if fate == "conflict":
            raise Conflict("the object has been modified", status=409)
        if fate == "unavailable":
            raise KubernetesUnavailable("the API server is gone", status=503)
        pod = await super().patch_pod(
            namespace=namespace,
            name=name,
            uid=uid,
            annotations=annotations,
            resource_version=resource_version,
        )
        if fate == "unheard":
            raise KubernetesUnavailable("the API server went away before its answer", status=503)
        return pod

    # Behind the curtain.

    def _state(self, key: WorkloadKey) -> WorkloadState:
        if self._latest is None:
            moment = self._moments[-1]
            assert moment.workload is not None, f"{key} is gone"
            self._latest = state_of(moment.workload, moment.replica_sets, moment.pods, as_of=0.0)
        return replace(self._latest, as_of=self.loop.wall())

    def _stamp(self, document: dict[str, Any]) -> dict[str, Any]:
        stamped = super()._stamp(document)
        self._latest = None
        self._times.append(self.loop.time())
        self._moments.append(
            Moment(
                workload_from(self._workloads[KEY]) if KEY in self._workloads else None,
                tuple(map(replica_set_from, self._replica_sets.values())),
                tuple(map(pod_from, self._pods.values())),
            )
        )
        return stamped

    @staticmethod
    def _active(state: WorkloadState) -> int:
        return sum(pod.is_active for pod in state.pods)


class LaggingCache(FakeCache):
    """One replica's watches, each of which is late in its own way; a cut one says so."""

    def __init__(self, cluster: ModelCluster) -> None:
        super().__init__(cluster)
        self._past = cluster
        self.lags_s = (0.0, 0.0, 0.0)
        """Of Deployments, ReplicaSets and pods."""
        self._cut_at: float | None = None

    def cut(self) -> None:
        self._cut_at = self._past.loop.time()

    def connect(self) -> None:
        self._cut_at = None

    def state(self, *, kind: str, namespace: str, name: str) -> WorkloadState | None:
        cut_s = 0.0 if self._cut_at is None else self._past.loop.time() - self._cut_at
        workloads, replica_sets, pods = (self._past.moment(max(lag, cut_s)) for lag in self.lags_s)
        if workloads.workload is None:
            return None
        as_of = self._past.loop.wall() - cut_s
        return state_of(workloads.workload, replica_sets.replica_sets, pods.pods, as_of=as_of)

    async def wait_changed(self, version: int) -> int:
        return await self._past.cache.wait_changed(version)

    @property
    def version(self) -> int:
        return self._past.cache.version

    @version.setter
    def version(self, version: int) -> None:
        """Counted by the cluster's own cache."""
