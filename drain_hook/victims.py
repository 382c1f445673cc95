"""Which pods Kubernetes removes: the ReplicaSet and Deployment controllers' own rules, ported. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from shared.pods import Pod, ReplicaSet, Workload


def deletion_order(pods: Collection[Pod], *, related: Collection[Pod] = (), now: float) -> tuple[Pod, ...]:
    """The pods of one ReplicaSet, the first to be deleted first. `related`: active pods of the whole workload."""
    raise NotImplementedError


def is_rollout(workload: Workload, replica_sets: Collection[ReplicaSet], pods: Collection[Pod]) -> bool:
    """Whether the workload is between two templates, or its controller has not yet seen its last change."""
    raise NotImplementedError


def removals(
    workload: Workload, replica_sets: Collection[ReplicaSet], pods: Collection[Pod], *, to_replicas: int
) -> Mapping[str, int]:
    """Pods that go per ReplicaSet uid: active pods minus the new target."""
    raise NotImplementedError
