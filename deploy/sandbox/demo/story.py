"""The demo's story: which tasks are submitted, and what became of them. Pure."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from deploy.sandbox.demo.journal import Run

SHORT, LONG, PROTECTED = "orders.import", "reports.render", "billing.close_month"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTask:
    """A task to submit: its Celery name and how long it will run."""

    name: str
    seconds: float


def burst(*, count: int, short_s: float, protected_s: float) -> tuple[PlannedTask, ...]:
    """`count` tasks in a fixed order: every tenth runs ten times as long, and one more is protected.

    Without the long tail even a plain HPA kills little: all workers would fall idle together. Most of it
    comes late, so that scale-downs meet workers that are busy for a good while yet.
    """
    long, half = count // 10, count // 2
    places = random.Random(339)
    tail = {*places.sample(range(half), long // 5), *places.sample(range(half, count), long - long // 5)}
    tasks = [
        PlannedTask(name=LONG, seconds=10 * short_s)
        if number in tail
        else PlannedTask(name=SHORT, seconds=short_s)
        for number in range(count)
    ]
    tasks.insert(count * 2 // 3, PlannedTask(name=PROTECTED, seconds=protected_s))
    return tuple(tasks)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodLife:
    """When a pod could hold tasks, seconds since the epoch; `ended_at` is None while it lives."""

    name: str
    started_at: float
    draining_since: float | None = None
    terminating_since: float | None = None
    ended_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of the submitted tasks, and what it took."""

    submitted: int
    finished: int
    killed: int
    """Started, and their pod was gone before they ended."""
    lost: int
    """Never finished, killed ones among them."""
    run_twice: int
    worker_seconds: float
    least_worker_seconds: float
    """The fewest workers that could have held what ran at each moment, never below the HPA's minReplicas."""


def outcome(
    *, submitted: frozenset[str], runs: tuple[Run, ...], pods: Mapping[str, PodLife], slots: int, now: float
) -> Outcome:
    """The figures of a story; `submitted` are task ids."""
    finished = {run.id for run in runs if run.finished_at is not None}
    killed = [run for run in runs if run.finished_at is None and _is_gone(pods.get(run.pod))]
    starts = Counter(run.id for run in runs)
    return Outcome(
        submitted=len(submitted),
        finished=len(finished & submitted),
        killed=len(killed),
        lost=len(submitted - finished),
        run_twice=sum(1 for count in starts.values() if count > 1),
        worker_seconds=sum((pod.ended_at or now) - pod.started_at for pod in pods.values()),
        least_worker_seconds=_least_worker_seconds(runs, pods, slots=slots, now=now),
    )


def _is_gone(pod: PodLife | None) -> bool:
    return pod is None or pod.ended_at is not None


def _least_worker_seconds(
    runs: tuple[Run, ...], pods: Mapping[str, PodLife], *, slots: int, now: float
) -> float:
    if not pods:
        return 0.0
    begin, end = min(p.started_at for p in pods.values()), max(p.ended_at or now for p in pods.values())
    changes = sorted(
        [(run.started_at, 1) for run in runs]
        + [(_end_of(run, pods, now=now), -1) for run in runs]
        + [(end, 0)]
    )
    total, running, since = 0.0, 0, begin
    for at, change in changes:
        total += max(1, ceil(running / slots)) * (at - since)
        running, since = running + change, at
    return total


def _end_of(run: Run, pods: Mapping[str, PodLife], *, now: float) -> float:
    if run.finished_at is not None:
        return run.finished_at
    pod = pods.get(run.pod)
    return now if pod is None or pod.ended_at is None else pod.ended_at
