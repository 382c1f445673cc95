"""Airflow's task instances and their labels: what its metadata database said at one moment. Pure values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from shared.workers import NO_LABEL, Label, TaskKey

UNKNOWN = Label(protect=True)
"""Of a task whose code cannot be found: it may have been protected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DagLabels:
    """The labels of one DAG and its tasks."""

    dag: Label = NO_LABEL
    """What its tags say of all its tasks."""
    tasks: Mapping[str, Label] = field(default_factory=dict)
    """By task_id: what its tags or an executor_config say of one task."""
    task_ids: frozenset[str] | None = None
    """Of all tasks in its code; None where that has no label, so that nobody looked for them."""

    def of(self, task_id: str) -> Label:
        """Protected when either says so, or its code has no such task; the weight nearest to the task."""
        label = self.tasks.get(task_id, NO_LABEL).over(self.dag)
        is_known = self.task_ids is None or task_id in self.task_ids
        return label if is_known else label.over(UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInstance:
    """A row of `task_instance` that holds or waits for a slot."""

    key: TaskKey
    state: Literal["queued", "running"]
    queue: str
    """Celery's queue, where the executor is Celery's."""
    executor: str | None = None
    """As the DAG's author wrote it; None is the default executor, and all there is before Airflow 2.10."""
    host: str = ""
    """The first label of `hostname`: the pod's name. Empty while it is queued."""
    celery_id: str | None = None
    """`external_executor_id`; None until the executor has told it."""
    try_number: int | None = None
    """Counted when it was scheduled, or before Airflow 2.10 when it began to run."""
    age_s: float | None = None
    """Seconds since it was queued, or began to hold its slot, by the database's own clock; never negative.

    It began at `start_date`, or was queued later: a deferred or rescheduled task keeps its first start.
    """
    label: Label = NO_LABEL
    """Of its code, for a running task as it was when it was first seen and as it is, and of tags as they are.

    Protected where there is no code of it.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What the metadata database said at one moment."""

    read_at: float
    """Seconds since the epoch by our wall clock, when the answer was there."""
    instances: tuple[TaskInstance, ...] = ()
    """Every task instance that is running or queued, of all executors and queues."""
    labels: Mapping[str, DagLabels] = field(default_factory=dict)
    """By dag_id, for tasks that Celery still has and that have no row any more.

    Of the newest version that a row above runs, where there is one, else of the newest there is. A DAG of
    which Airflow has none any more knows no task, so all of them are protected.
    Holds every DAG that was asked for or has a row above, those without labels, too.
    """
    by_key: Mapping[TaskKey, TaskInstance] = field(init=False, repr=False, compare=False)
    by_celery_id: Mapping[str, TaskInstance] = field(init=False, repr=False, compare=False)
    running_by_host: Mapping[str, Sequence[TaskInstance]] = field(init=False, repr=False, compare=False)
    queued: Sequence[TaskInstance] = field(init=False, repr=False, compare=False)
    """The instances by what they are looked for by: once, however many pools share a reading."""

    def __post_init__(self) -> None:
        running = defaultdict[str, list[TaskInstance]](list)
        for row in self.instances:
            if row.state == "running":
                running[row.host].append(row)
        found = {
            "by_key": {row.key: row for row in self.instances},
            "by_celery_id": {row.celery_id: row for row in self.instances if row.celery_id},
            "running_by_host": dict(running),
            "queued": tuple(row for row in self.instances if row.state == "queued"),
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)
