"""Which pods Kubernetes removes: the ReplicaSet and Deployment controllers' own rules, ported. Pure.

The controllers decide in two steps. The Deployment controller sets a new size for each ReplicaSet, where
costs play no part; then each ReplicaSet's own pods are sorted, where costs come fourth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import cmp_to_key
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from drain_hook.ordinals import count_beyond
from drain_hook.rollouts import count, lost_pods
from shared.pods import Pod, ReplicaSet, Workload

_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


def removal_class(pod: Pod) -> tuple[bool, int, bool, bool]:
    """What counts before the cost: unassigned, then Pending, then not ready. Lower classes go first.

    A CloneSet looks for pods that are not available before it looks for those that are not ready.
    """
    return (bool(pod.host), _PHASES.get(pod.phase, 2), pod.is_available, pod.is_ready)


def deletion_order(
    pods: Collection[Pod], *, related: Collection[Pod] = (), costs_count: bool = True, now: float
) -> tuple[Pod, ...]:
    """The active pods of one ReplicaSet, the first to be deleted first.

    `related` are the pods of all the workload's ReplicaSets: the more of them share a host, the sooner one
    goes. Without them the pods themselves are counted. Costs do not count where Kubernetes' feature gate
    PodDeletionCost is off.
    """
    rank = _ranks(related or pods, costs_count=costs_count)
    ranked = [(rank(pod), _aged(pod, now=now)) for pod in pods if pod.is_active]
    # Most pods differ in nothing but what counts last. Comparing that is slow: only like ones are compared.
    groups = groupby(sorted(ranked, key=itemgetter(0)), key=itemgetter(0))
    return tuple(one.pod for _, like in groups for one in sorted((aged for _, aged in like), key=_BY_AGE))


def certainly_before(
    pods: Collection[Pod], *, related: Collection[Pod], moments: Iterable[float]
) -> Callable[[Pod, Pod], bool]:
    """Tells of any two of these pods whether the one goes first where costs do not count.

    At each of these moments, and whether or not Kubernetes looks at sidecars. The order by which it sorts is
    none that could be sorted by: pods of one second are alike, others of like age go by uid. So what a sort
    makes of it hangs on what it begins with; but whoever goes before each of the others ends before them all.
    """
    rank = _ranks(related, costs_count=False)
    ranks = {pod.uid: rank(pod) for pod in pods}
    seen = [pods]
    if any(pod.sidecar_restarts for pod in pods):
        seen.append([replace(pod, sidecar_restarts=0) for pod in pods])
    views = [{pod.uid: _aged(pod, now=now) for pod in one} for one in seen for now in moments]
    different = [view for index, view in enumerate(views) if view not in views[:index]]

    def is_before(one: Pod, other: Pod) -> bool:
        if ranks[one.uid] != ranks[other.uid]:
            return ranks[one.uid] < ranks[other.uid]
        return all(_compare(view[one.uid], view[other.uid]) < 0 for view in different)

    return is_before


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


_Rank = tuple[bool, int, bool, bool, int, int]


def _ranks(related: Collection[Pod], *, costs_count: bool) -> Callable[[Pod], _Rank]:
    """What counts before ages do."""
    crowd = Counter(pod.host for pod in related if pod.is_active)
    return lambda pod: (*removal_class(pod), pod.deletion_cost * costs_count, -crowd[pod.host])


class _Age(NamedTuple):
    """Compared by its logarithm, so that among pods of like age the uid decides, as by chance."""

    since: float
    """Seconds since the epoch; 0 when it is not set."""
    logarithm: int


class _Aged(NamedTuple):
    """A pod with what counts after the cost and the crowd, worked out once and compared often."""

    pod: Pod
    ready: _Age
    created: _Age


def _aged(pod: Pod, *, now: float) -> _Aged:
    return _Aged(pod, _age(pod.ready_since or 0.0, now=now), _age(pod.created_at, now=now))


def _age(since: float, *, now: float) -> _Age:
    return _Age(since, _log_age(since, now=now))


def _compare(one: _Aged, other: _Aged) -> int:
    """Ready for less time, more restarts, newer; whether they are ready has been looked at before.

    Restarts of sidecars count since Kubernetes has looked at them, which is not in every version in use.
    """
    by_chance = _sign(one.pod.uid, other.pod.uid)
    return (
        (_younger_first(one.ready, other.ready, by_chance) if one.pod.is_ready else 0)
        or other.pod.restarts - one.pod.restarts
        or other.pod.sidecar_restarts - one.pod.sidecar_restarts
        or _younger_first(one.created, other.created, by_chance)
    )


def _younger_first(one: _Age, other: _Age, by_chance: int) -> int:
    if one.since == other.since:
        return 0
    if not one.since or not other.since:  # a time that is not set goes first
        return -1 if not one.since else 1
    return one.logarithm - other.logarithm or by_chance


_BY_AGE = cmp_to_key(_compare)


def _log_age(since: float, *, now: float) -> int:
    nanoseconds = int((now - since) * 1e9)
    return nanoseconds.bit_length() - 1 if nanoseconds > 0 else -1


def _sign(one: str, other: str) -> int:
    """-1, 0 or 1."""
    return int(one > other) - int(one < other)
