"""Which pods Kubernetes removes: the ReplicaSet and Deployment controllers' own rules, ported. Pure.

The controllers decide in two steps. The Deployment controller sets a new size for each ReplicaSet, where
costs play no part; then each ReplicaSet's own pods are sorted, where costs come fourth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from functools import cmp_to_key
from typing import Any

from drain_hook.ordinals import count_beyond
from drain_hook.rollouts import count, lost_pods
from shared.pods import Pod, ReplicaSet, Workload

_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


def removal_class(pod: Pod) -> tuple[bool, int, bool, bool]:
    """What counts before the cost: unassigned, then Pending, then not ready. Lower classes go first.

    A CloneSet looks for pods that are not available before it looks for those that are not ready.
    """
    return (bool(pod.host), _PHASES.get(pod.phase, 2), pod.is_available, pod.is_ready)


def deletion_order(pods: Collection[Pod], *, related: Collection[Pod] = (), now: float) -> tuple[Pod, ...]:
    """The active pods of one ReplicaSet, the first to be deleted first.

    `related` are the pods of all the workload's ReplicaSets: the more of them share a host, the sooner one
    goes. Without them the pods themselves are counted.
    """
    crowd = Counter(pod.host for pod in related or pods if pod.is_active)
    rank = {
        pod.uid: (*removal_class(pod), pod.deletion_cost, -crowd[pod.host]) for pod in pods if pod.is_active
    }

    def compare(one: Pod, other: Pod) -> int:
        return _sign(rank[one.uid], rank[other.uid]) or _compare_ages(one, other, now=now)

    return tuple(sorted((pod for pod in pods if pod.is_active), key=cmp_to_key(compare)))


def removals(
    workload: Workload, replica_sets: Collection[ReplicaSet], pods: Collection[Pod], *, to_replicas: int
) -> Mapping[str, int]:
    """How many pods go, per ReplicaSet uid: its active pods minus its new size.

    Old minus new replicas would be wrong whenever pods are missing or surplus. During a rollout these are the
    removals that the scale-down itself causes; those by which the rollout goes on come on top, scaled or not.
    """
    return removals_at(workload, replica_sets, pods)(to_replicas)


def removals_at(
    workload: Workload, replica_sets: Collection[ReplicaSet], pods: Collection[Pod]
) -> Callable[[int], Mapping[str, int]]:
    """`removals` at any number of replicas, for whoever asks for many: the pods are counted once."""
    if workload.goes_by_ordinals:
        return lambda to_replicas: {workload.uid: count_beyond(workload, pods, to_replicas=to_replicas)}
    headcount = count(pods)
    return lambda to_replicas: lost_pods(workload, replica_sets, headcount, to_replicas=to_replicas)


def _compare_ages(one: Pod, other: Pod, *, now: float) -> int:
    """The criteria after the cost and the crowd: ready for less time, more restarts, newer."""
    ready = one.is_ready and other.is_ready
    return (
        (
            _younger_first(one, other, one.ready_since or 0.0, other.ready_since or 0.0, now=now)
            if ready
            else 0
        )
        or _sign(other.restarts, one.restarts)
        or _younger_first(one, other, one.created_at, other.created_at, now=now)
    )


def _younger_first(one: Pod, other: Pod, since: float, other_since: float, *, now: float) -> int:
    """Ages are compared by their logarithm, so that among pods of like age the uid decides, as by chance."""
    if since == other_since:
        return 0
    if not since or not other_since:  # a time that is not set goes first
        return -1 if not since else 1
    by_age = _log_age(since, now=now) - _log_age(other_since, now=now)
    return by_age or _sign(one.uid, other.uid)


def _log_age(since: float, *, now: float) -> int:
    nanoseconds = int((now - since) * 1e9)
    return nanoseconds.bit_length() - 1 if nanoseconds > 0 else -1


def _sign(one: Any, other: Any) -> int:
    """-1, 0 or 1 for two values of one ordered type."""
    return int(one > other) - int(one < other)
