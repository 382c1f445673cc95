"""Which pods of a ReplicaSet should go: the forced ones, then the cheapest where there is a choice. Pure.

Kubernetes sorts pods into classes before it looks at costs: unassigned, Pending, not ready, ready. A class
that goes as a whole leaves no choice, so its pods are forced; only within the last one do costs decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from drain_hook.costs import untouchable, worker_cost
from drain_hook.mark_life import is_deletion_pending
from drain_hook.ordinals import highest_first
from drain_hook.own_order import Costs, own_order
from drain_hook.victims import deletion_order, removal_class
from shared.pods import INT32_MIN, Pod, Workload, WorkloadState, celery_node, parse_cost
from shared.pools import Pool
from shared.workers import Fleet, Task, WorkerSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An active pod, and what speaks for and against removing it."""

    pod: Pod
    node: str
    worker: WorkerSnapshot | None
    is_silent: bool
    believed: tuple[Task, ...]
    """What Airflow's metadata database says that a silent worker runs."""
    untouchable: tuple[Task, ...]
    """Tasks that a label protects, and those whose labels are not known."""
    is_going: bool
    """An earlier scale-down that was let through is about to remove it."""
    group: tuple[int, ...]
    """Its class, and whether it goes before its like whatever we write: lower groups go first, as a whole.

    Where costs choose nobody, as in a StatefulSet, each is a group of its own: there is no choice.
    """
    expense: tuple[bool, bool, bool, float]
    """Whether it is silent, is busy, takes new tasks, and its cost: idle ones go first, silent ones last.

    Among busy ones those that drain already go first, then the cheapest. Were cost alone to decide, another
    would be drained at each review, since the tasks of one that drains grow old while the others start new
    ones; none would ever get to its end. An idle one still takes the place of a busy one that drains.
    """

    @property
    def is_protected(self) -> bool:
        """Whether it must not be chosen."""
        return bool(self.untouchable)

    @property
    def is_idle(self) -> bool:
        """Whether it said that it has nothing to do, or has not begun."""
        return not self.is_silent and (self.worker is None or self.worker.is_idle)

    @property
    def queues(self) -> frozenset[str]:
        """What it consumes, or consumed before it was cancelled; empty when nobody knows."""
        before = self.pod.mark.queues if self.pod.mark else ()
        return frozenset(before) | (self.worker.queues if self.worker else frozenset())


def candidates_of(
    replica_set_uid: str, state: WorkloadState, *, fleet: Fleet, pool: Pool, costs: Costs, now: float
) -> tuple[Candidate, ...]:
    """The active pods of a ReplicaSet, in the order in which Kubernetes would remove them as they stand."""
    is_pending, is_choice = is_deletion_pending(state), costs.choose(state.workload)
    return tuple(
        _candidate(
            pod,
            state.workload,
            turn=None if is_choice else turn,
            is_pending=is_pending,
            fleet=fleet,
            pool=pool,
            now=now,
        )
        for turn, pod in enumerate(_in_order(replica_set_uid, state, is_choice=is_choice, now=now))
    )


def choose(candidates: Sequence[Candidate], count: int) -> Iterator[tuple[Candidate, bool]]:
    """Who goes when `count` must, and whether there was no choice. `count` is at most most_removable()."""
    for group in _groups(candidates):
        if count <= 0:
            return
        is_forced = len(group) <= count
        willing = group if is_forced else _cheapest_first(group)
        yield from ((candidate, is_forced) for candidate in willing[:count])
        count -= len(group)


def most_removable(candidates: Sequence[Candidate]) -> int:
    """How many can go before it is the turn of a protected one."""
    most = 0
    for group in _groups(candidates):
        willing = sum(not candidate.is_protected for candidate in group)
        most += willing
        if willing < len(group):
            break
    return most


def _in_order(replica_set_uid: str, state: WorkloadState, *, is_choice: bool, now: float) -> tuple[Pod, ...]:
    own = [pod for pod in state.pods if pod.owner_uid == replica_set_uid]
    if state.workload.goes_by_ordinals:
        return highest_first(own)
    if not is_choice:
        return own_order(own, related=state.pods, now=now)
    return deletion_order(own, related=state.pods, now=now)


def _candidate(
    pod: Pod,
    workload: Workload,
    *,
    turn: int | None,
    is_pending: bool,
    fleet: Fleet,
    pool: Pool,
    now: float,
) -> Candidate:
    """`turn` is its place in the order where there is no choice."""
    node = celery_node(pod.name, worker_name=pool.worker_name)
    worker = fleet.workers.get(node)
    # A pod that is unassigned or Pending runs no worker yet; if one has answered all the same, it counts.
    is_silent = node in fleet.silent or (worker is None and bool(pod.host) and pod.phase != "Pending")
    is_busy = worker is not None and not worker.is_idle
    # What a silent worker runs is unknown, whatever it said before; Airflow's database may know.
    believed = fleet.believed.get(node, ()) if is_silent else ()
    known = WorkerSnapshot(node=node, slots=0, active=believed) if worker is None or is_silent else worker
    tasks = (*worker.tasks, *believed) if worker is not None and is_busy else believed
    # Most are idle: what need not be worked out for each of a thousand is not.
    cost = 0.0 if known.is_idle else worker_cost(known, pool=pool, now=now)
    is_draining = pod.mark is not None and pod.mark.workload_uid == workload.uid
    is_going = is_pending and _is_let_go(pod, workload)
    return Candidate(
        pod=pod,
        node=node,
        worker=worker,
        is_silent=is_silent,
        believed=believed,
        untouchable=untouchable(tasks, pool=pool) if tasks else (),
        is_going=is_going,
        group=_group(pod, is_going=is_going) if turn is None else (turn,),
        expense=(is_silent, is_busy and not is_silent, not is_draining, cost),
    )


def _group(pod: Pod, *, is_going: bool) -> tuple[int, ...]:
    return (*removal_class(pod), _precedence(pod, is_going=is_going))


def _precedence(pod: Pod, *, is_going: bool) -> int:
    """0 if nobody can write a lower cost than the pod's, 1 if its deletion is already under way, else 2."""
    if parse_cost(pod.foreign_cost) == INT32_MIN:
        return 0
    return 1 if is_going else 2


def _is_let_go(pod: Pod, workload: Workload) -> bool:
    """Whether the round that marked it was let through and took effect."""
    mark = pod.mark
    return (
        mark is not None
        and mark.workload_uid == workload.uid
        and mark.generation < workload.generation
        and workload.replicas <= mark.to_replicas
    )


def _groups(candidates: Sequence[Candidate]) -> Iterator[list[Candidate]]:
    in_groups = sorted(candidates, key=lambda candidate: candidate.group)
    return (list(group) for _, group in groupby(in_groups, key=lambda candidate: candidate.group))


def _cheapest_first(group: Sequence[Candidate]) -> list[Candidate]:
    """The unprotected ones; those of equal expense stay in Kubernetes' own order."""
    return sorted((c for c in group if not c.is_protected), key=lambda candidate: candidate.expense)
