"""What it costs to stop a worker now. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from shared.airflow_fleet import has_unknown_label
from shared.pools import Pool
from shared.workers import Task, WorkerSnapshot


def worker_cost(worker: WorkerSnapshot, *, pool: Pool, now: float) -> float:
    """Sum over its tasks of weight * (1 + (running seconds / unitSeconds) ** exponent).

    A reserved task counts as just started, since a worker that stops consuming still runs it. A task held for
    its eta counts nothing: it goes back to the queue.
    """
    return sum(_task_cost(task, pool=pool, now=now) for task in worker.tasks)


def untouchable(tasks: Iterable[Task], *, pool: Pool) -> tuple[Task, ...]:
    """Those that a label says must never be stopped, and those of Airflow whose labels nobody knows."""
    return tuple(task for task in tasks if pool.is_protected(task) or _is_unlabelled(task, pool=pool))


def _is_unlabelled(task: Task, *, pool: Pool) -> bool:
    return pool.airflow is not None and has_unknown_label(task)


def _task_cost(task: Task, *, pool: Pool, now: float) -> float:
    weight = pool.weight(task)
    # An endless running time with weight 0 would be 0 * inf, which is no number and sorts nowhere.
    return weight * (1 + _aged(task.running_seconds(now), pool=pool)) if weight else 0.0


def _aged(seconds: float, *, pool: Pool) -> float:
    try:
        return math.pow(seconds / pool.cost.unit_seconds, pool.cost.exponent)
    except OverflowError:
        return math.inf
