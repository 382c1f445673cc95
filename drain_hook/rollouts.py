"""Rollouts of a Deployment: whether one goes on or is stuck, and how a scale-down is split amid one. Pure.

The Deployment controller's own rules, ported: it shares a new size out among the ReplicaSets in proportion to
theirs, whatever stands on the pods; and where that leaves more available pods than it must keep, the rollout
takes those from the old ones at once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from shared.pods import Pod, ReplicaSet, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Headcount:
    """Pods that a ReplicaSet counts, by its uid."""

    active: Mapping[str, int]
    ready: Mapping[str, int]


def count(pods: Collection[Pod]) -> Headcount:
    active = [pod for pod in pods if pod.is_active]
    return Headcount(
        active=Counter(pod.owner_uid for pod in active),
        ready=Counter(pod.owner_uid for pod in active if pod.is_ready),
    )


def sets_in_use(replica_sets: Collection[ReplicaSet], pods: Headcount) -> list[ReplicaSet]:
    """Those that have pods or want some."""
    return [rs for rs in replica_sets if rs.replicas > 0 or pods.active.get(rs.uid, 0) > 0]


def present_set(workload: Workload, replica_sets: Collection[ReplicaSet]) -> ReplicaSet | None:
    """The ReplicaSet of the workload's pod template; None when there is none yet.

    The controller takes the oldest one of equal templates. Where templates are not known the latest revision
    stands for it.
    """
    if not workload.template:
        return max(replica_sets, key=lambda rs: (rs.revision, rs.created_at), default=None)
    of_template = (rs for rs in replica_sets if rs.template == workload.template)
    return min(of_template, key=lambda rs: rs.created_at, default=None)


def is_rollout(workload: Workload, replica_sets: Collection[ReplicaSet], pods: Collection[Pod]) -> bool:
    """Whether pods are there, or wanted, of another template than the workload's present one.

    The workload's generation would not tell: Kubernetes raises it for each annotation, too. While a
    Deployment is paused nothing moves, and a scale-down amid its rollout can be foreseen.
    """
    is_seen = workload.observed_generation >= workload.generation
    if workload.owns_pods:
        return workload.is_updating or not is_seen
    if workload.is_paused and is_seen:
        return False
    in_use = sets_in_use(replica_sets, count(pods))
    present = present_set(workload, replica_sets) if workload.template else next(iter(in_use), None)
    return any(present is None or rs.uid != present.uid for rs in in_use)


def seconds_without_progress(
    workload: Workload, replica_sets: Collection[ReplicaSet], *, now: float
) -> float:
    """How long a rollout has not moved, by what the objects say; 0 while it has not begun."""
    is_seen = workload.observed_generation >= workload.generation
    if not is_seen and present_set(workload, replica_sets) is None:
        return 0.0
    moved_at = max((rs.created_at for rs in replica_sets), default=0.0)
    return max(0.0, now - max(moved_at, workload.progressed_at))


def seconds_since_a_pod_moved(pods: Collection[Pod], *, now: float) -> float:
    """How long no pod has been made, turned ready or ended its grace period.

    A StatefulSet has no condition that tells of its rollout. Its controller waits for one pod after the
    other, so while none moves the rollout does not either.
    """
    moments = (moment for pod in pods for moment in (pod.created_at, pod.ready_since, pod.terminates_by))
    return max(0.0, now - max((moment for moment in moments if moment is not None), default=0.0))


def lost_pods(
    workload: Workload, replica_sets: Collection[ReplicaSet], pods: Headcount, *, to_replicas: int
) -> Mapping[str, int]:
    """How many active pods a scale-down takes from each ReplicaSet, by uid."""
    new = present_set(workload, replica_sets)
    sizes = _scaled(workload, replica_sets, new, pods, to_replicas=to_replicas)
    if workload.strategy == "RollingUpdate" and not workload.is_paused:
        if new:
            sizes[new.uid] = min(sizes[new.uid], to_replicas)
        before = {rs.uid: rs.replicas for rs in replica_sets}
        spare_already = _spare(workload, before, new, pods, replicas=workload.replicas)
        spare = _spare(workload, sizes, new, pods, replicas=to_replicas)
        old_first = sorted((rs for rs in replica_sets if rs is not new), key=lambda rs: rs.created_at)
        sizes = _trimmed(sizes, old_first, pods, spare - max(0, spare_already))
    return {rs.uid: max(0, pods.active.get(rs.uid, 0) - sizes[rs.uid]) for rs in replica_sets}


def _scaled(
    workload: Workload,
    replica_sets: Collection[ReplicaSet],
    new: ReplicaSet | None,
    pods: Headcount,
    *,
    to_replicas: int,
) -> dict[str, int]:
    """The sizes that the controller sets when it hears of the new number of replicas."""
    sizes = {rs.uid: rs.replicas for rs in replica_sets}
    in_use = [rs for rs in replica_sets if rs.replicas > 0]
    if len(in_use) <= 1:
        latest = max(replica_sets, key=lambda rs: rs.created_at, default=None)
        only = in_use[0] if in_use else new or latest
        return sizes | ({only.uid: to_replicas} if only else {})
    if new and (workload.strategy != "RollingUpdate" or _is_saturated(new, pods, to_replicas=to_replicas)):
        return dict.fromkeys(sizes, 0) | {new.uid: to_replicas}
    return sizes | _in_proportion(workload, in_use, to_replicas=to_replicas)


def _in_proportion(workload: Workload, in_use: Sequence[ReplicaSet], *, to_replicas: int) -> dict[str, int]:
    """New sizes during a rolling update: each ReplicaSet keeps its share, the largest takes the rest."""
    allowed = to_replicas + _fences(workload, to_replicas)[0] if to_replicas > 0 else 0
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


def _spare(
    workload: Workload, sizes: Mapping[str, int], new: ReplicaSet | None, pods: Headcount, *, replicas: int
) -> int:
    """How many old pods the rollout may remove at these sizes, as long as no other pod turns ready."""
    old = sum(size for uid, size in sizes.items() if new is None or uid != new.uid)
    available = min(pods.ready.get(new.uid, 0), sizes[new.uid]) if new else 0
    return old + available - (replicas - _fences(workload, replicas)[1])


def _trimmed(
    sizes: Mapping[str, int], old_first: Sequence[ReplicaSet], pods: Headcount, surplus: int
) -> dict[str, int]:
    """Sizes without a surplus of old pods: of all ReplicaSets those first that are not ready."""
    trimmed = dict(sizes)
    for only_unready in (True, False):
        for rs in old_first:
            kept = min(pods.ready.get(rs.uid, 0), trimmed[rs.uid]) if only_unready else 0
            part = max(0, min(surplus, trimmed[rs.uid] - kept))
            trimmed[rs.uid] -= part
            surplus -= part
    return trimmed


def _fences(workload: Workload, replicas: int) -> tuple[int, int]:
    """maxSurge and maxUnavailable in pods: a percentage is rounded up in the one, down in the other."""
    if workload.strategy != "RollingUpdate":
        return 0, 0
    surge, unavailable = workload.max_surge, workload.max_unavailable
    up = -(-int(surge[:-1]) * replicas // 100) if surge.endswith("%") else int(surge)
    down = int(unavailable[:-1]) * replicas // 100 if unavailable.endswith("%") else int(unavailable)
    # Both 0 would never move.
    return up, min(down or (0 if up else 1), replicas)


def _is_saturated(new: ReplicaSet, pods: Headcount, *, to_replicas: int) -> bool:
    """Whether the new template's pods are all there at this size already, so that no old one is needed."""
    return new.desired_replicas == new.replicas == pods.ready.get(new.uid, 0) == to_replicas
