"""What the reconciler has to do for a pool, from the pods and from what their workers said. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from drain_hook.mark_life import Ending, ending_of, was_let_through
from shared.marks import Mark
from shared.pods import Pod, Workload, WorkloadState, celery_node
from shared.pools import Pool
from shared.workers import WorkerSnapshot


class Fault(StrEnum):
    """How a worker differs from what its pod's mark says."""

    LACKS_QUEUES = "add_consumer"
    """It is not being drained, and does not consume all of its pool's queues: a cancel came late, or up to
    Celery 5.6 a released worker has forgotten its queues with its last connection."""
    CONSUMES = "cancel_consumer"
    """It is about to be deleted, and consumes: it was restarted since. Of a round that is not let through yet
    nobody knows whether it lives; if it does, the next review finds that the worker consumes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """A worker that should be told something."""

    pod: Pod
    node: str
    fault: Fault
    queues: frozenset[str]
    """To add, or to cancel."""

    def given(self, consumed: frozenset[str] | None) -> Deviation | None:
        """The same by a newer answer: None when the worker is right by now, or silent."""
        if consumed is None:
            return None
        queues = consumed if self.fault is Fault.CONSUMES else self.queues - consumed
        return replace(self, queues=queues) if queues else None

    def record_to_write(self) -> Mark | None:
        """The pod's record with the queues that it lacks; they could not be given back otherwise."""
        mark = self.pod.mark
        if self.fault is not Fault.CONSUMES or mark is None or self.queues <= set(mark.queues):
            return None
        return replace(mark, queues=tuple(sorted(self.queues.union(mark.queues))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Chores:
    """Everything there is to do now."""

    endings: Mapping[Ending, tuple[Pod, ...]] = field(default_factory=dict)
    """Pods whose marks must go, by why."""
    deviations: tuple[Deviation, ...] = ()


def chores_of(
    state: WorkloadState,
    pool: Pool,
    *,
    seen: Callable[[str], WorkerSnapshot | None],
    now: float,
    ttl_s: float,
) -> Chores:
    """`seen` tells a worker's last answer by its node name, None when it is silent or was not asked."""
    endings: dict[Ending, tuple[Pod, ...]] = {}
    deviations = []
    for pod in state.pods:
        if ending := ending_of(pod, state, now=now, ttl_s=ttl_s):
            endings[ending] = (*endings.get(ending, ()), pod)
            continue
        worker = seen(celery_node(pod.name, worker_name=pool.worker_name))
        if worker and (deviation := _deviation(pod, pool, worker, state.workload)):
            deviations.append(deviation)
    return Chores(endings=endings, deviations=tuple(deviations))


def _deviation(pod: Pod, pool: Pool, worker: WorkerSnapshot, workload: Workload) -> Deviation | None:
    if pod.is_terminating or pod.phase != "Running":
        return None
    if pod.mark is not None:
        return _consumes(pod, worker) if was_let_through(pod.mark, workload) else None
    return _lacks_queues(pod, pool, worker)


def _consumes(pod: Pod, worker: WorkerSnapshot) -> Deviation | None:
    if not worker.queues:
        return None
    return Deviation(pod=pod, node=worker.node, fault=Fault.CONSUMES, queues=worker.queues)


def _lacks_queues(pod: Pod, pool: Pool, worker: WorkerSnapshot) -> Deviation | None:
    """Ready workers only, and none where draining is switched off: there they are the user's own affair."""
    missing = frozenset(pool.queues) - worker.queues
    if not missing or not pod.is_ready or not pool.drain.enabled:
        return None
    return Deviation(pod=pod, node=worker.node, fault=Fault.LACKS_QUEUES, queues=missing)
