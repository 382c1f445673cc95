"""Which pods Kubernetes removes: the ReplicaSet and Deployment controllers' own rules, ported. Pure.

The controllers decide in two steps. The Deployment controller sets a new size for each ReplicaSet, where
costs play no part; then each ReplicaSet's own pods are sorted, where costs come fourth.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from functools import cmp_to_key
from typing import Any

from drain_hook.ordinals import count_beyond
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


def is_rollout(workload: Workload, replica_sets: Collection[ReplicaSet], pods: Collection[Pod]) -> bool:
    """Whether the workload is between two templates, or its controller has not yet seen its last change."""
    active = _active_pods(pods)
    in_use = [rs for rs in replica_sets if rs.replicas > 0 or active[rs.uid] > 0]
    return len(in_use) > 1 or workload.observed_generation < workload.generation or workload.is_updating


def removals(
    workload: Workload, replica_sets: Collection[ReplicaSet], pods: Collection[Pod], *, to_replicas: int
) -> Mapping[str, int]:
    """How many pods go, per ReplicaSet uid: its active pods minus its new size.

    Old minus new replicas would be wrong whenever pods are missing or surplus. During a rollout these are the
    removals that the scale-down itself causes; those by which the rollout goes on come on top, scaled or not.
    """
    if workload.goes_by_ordinals:
        return {workload.uid: count_beyond(workload, pods, to_replicas=to_replicas)}
    active = _active_pods(pods)
    sizes = _new_sizes(workload, replica_sets, pods, to_replicas=to_replicas)
    return {rs.uid: max(0, active[rs.uid] - sizes[rs.uid]) for rs in replica_sets}


def _new_sizes(
    workload: Workload, replica_sets: Collection[ReplicaSet], pods: Collection[Pod], *, to_replicas: int
) -> Mapping[str, int]:
    sizes = {rs.uid: rs.replicas for rs in replica_sets}
    in_use = [rs for rs in replica_sets if rs.replicas > 0]
    newest = max(replica_sets, key=lambda rs: (rs.revision, rs.created_at), default=None)
    if newest is None:
        return sizes
    if len(in_use) <= 1:
        only = in_use[0] if in_use else newest
        return sizes | {only.uid: to_replicas}
    if workload.strategy != "RollingUpdate" or _is_saturated(newest, pods, to_replicas=to_replicas):
        return dict.fromkeys(sizes, 0) | {newest.uid: to_replicas}
    return sizes | _in_proportion(workload, in_use, to_replicas=to_replicas)


def _in_proportion(workload: Workload, in_use: list[ReplicaSet], *, to_replicas: int) -> dict[str, int]:
    """New sizes during a rolling update: each ReplicaSet keeps its share, the largest takes the rest."""
    allowed = to_replicas + _surge(workload, to_replicas) if to_replicas > 0 else 0
    to_add = allowed - sum(rs.replicas for rs in in_use)
    # Of equal ones the newer grows first and the older shrinks first.
    largest_first = sorted(
        in_use, key=lambda rs: (-rs.replicas, -rs.created_at if to_add > 0 else rs.created_at)
    )
    sizes, added = {}, 0
    for rs in largest_first:
        share = _share(rs, workload, allowed=allowed, left=to_add - added)
        sizes[rs.uid] = rs.replicas + share
        added += share
    largest = largest_first[0]
    sizes[largest.uid] = max(0, sizes[largest.uid] + to_add - added)
    return sizes


def _share(rs: ReplicaSet, workload: Workload, *, allowed: int, left: int) -> int:
    """What one ReplicaSet gains or loses; never more than is `left` to be added or removed."""
    if left == 0:
        return 0
    before = rs.max_replicas or workload.status_replicas
    if allowed == 0:
        fraction = -rs.replicas
    elif before == 0:
        fraction = 0
    else:
        fraction = math.floor(rs.replicas * allowed / before + 0.5) - rs.replicas
    return min(fraction, left) if left > 0 else max(fraction, left)


def _surge(workload: Workload, replicas: int) -> int:
    """maxSurge in pods; a percentage is rounded up."""
    if workload.strategy != "RollingUpdate":
        return 0
    text = workload.max_surge
    return -(-int(text[:-1]) * replicas // 100) if text.endswith("%") else int(text)


def _is_saturated(newest: ReplicaSet, pods: Collection[Pod], *, to_replicas: int) -> bool:
    """Whether the new template's pods are all there at this size already, so that no old one is needed."""
    ready = sum(1 for pod in pods if pod.owner_uid == newest.uid and pod.is_active and pod.is_ready)
    return newest.desired_replicas == newest.replicas == ready == to_replicas


def _active_pods(pods: Collection[Pod]) -> Counter[str]:
    return Counter(pod.owner_uid for pod in pods if pod.is_active)


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
