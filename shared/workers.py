"""What Celery workers said of themselves at one moment: tasks, workers, the fleet. Pure values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

GREEN_POOLS = frozenset({"gevent", "eventlet"})
"""Pools whose worker runs a control command only when its next message, or 2 s, have passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskKey:
    """Which task instance of Airflow a task runs."""

    dag_id: str
    task_id: str
    """With the ids of its task groups before it, as `group.task`."""
    run_id: str
    map_index: int = -1
    """-1 unless the task is mapped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What people said of a task: that it must never be stopped, or what it weighs."""

    protect: bool = False
    weight: float | None = None
    """None when nobody gave it one."""

    def over(self, wider: Label) -> Label:
        """This label where it says something, else a wider one; protection adds up."""
        weight = wider.weight if self.weight is None else self.weight
        return Label(protect=self.protect or wider.protect, weight=weight)


NO_LABEL = Label()


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task on a worker. Its arguments are left behind at the door: Airflow's carry credentials."""

    id: str
    name: str
    key: TaskKey | None = None
    """Which task instance it runs; None for tasks that are not Airflow's."""
    try_number: int | None = None
    """Which try of it, as Airflow 3 says in the payload; Airflow 2 does not."""
    label: Label | None = None
    """What Airflow's metadata database says; None where it was not asked, or could not be.

    Of what Airflow has no labels for, as its callbacks, the worker's answer tells that much already.
    """
    started_at: float | None = None
    """Seconds since the epoch; None while it is reserved or held for its eta.

    By the worker's wall clock, or for Airflow's tasks by ours and the age that its database tells.
    """

    def running_seconds(self, now: float) -> float:
        """Seconds it has run at `now`; 0 when it has not started or the worker's clock is ahead of ours."""
        return 0.0 if self.started_at is None else max(0.0, now - self.started_at)


OLDEST_TRIED = (5, 3)
"""Of celery and kombu, which go together: remote control was tried from here on. Long before, a message of a
queue that had been cancelled could end its worker (celery#1773, #2953) or stay prefetched (celery#2564)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """The versions that a worker runs."""

    celery: str
    kombu: str

    @property
    def is_old(self) -> bool:
        """Whether either is older than what was tried; a version that is no number is not."""
        return any(_series(version) < OLDEST_TRIED for version in (self.celery, self.kombu))


def _series(version: str) -> tuple[int, int]:
    numbers = re.match(r"([0-9]+)\.([0-9]+)", version)
    return (int(numbers[1]), int(numbers[2])) if numbers else OLDEST_TRIED


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSnapshot:
    """One worker's answers to stats, active, reserved, scheduled and active_queues."""

    node: str
    """Celery's node name, `celery@<pod name>` as a rule."""
    slots: int
    """Tasks it can run at a time."""
    active: tuple[Task, ...] = ()
    reserved: tuple[Task, ...] = ()
    """Prefetched, not started: a cancelled worker still runs them."""
    eta: tuple[Task, ...] = ()
    """Held for later; given back to the queue when the worker stops."""
    queues: frozenset[str] = frozenset()
    """Names of the queues it consumes now; empty while it drains."""
    pool: str = "prefork"
    """prefork, threads, solo, gevent or eventlet."""
    pid: int = 0
    """Main process: another pid under the same node name is another worker, one that consumes again."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What must end here before the worker can go: running first, then prefetched."""
        return self.active + self.reserved

    @property
    def is_idle(self) -> bool:
        return not self.active and not self.reserved

    @property
    def is_green(self) -> bool:
        return self.pool in GREEN_POOLS


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The workers that were asked: those that answered, and the silent ones (which are not idle)."""

    workers: Mapping[str, WorkerSnapshot] = field(default_factory=lambda: MappingProxyType({}))
    """By node name."""
    silent: frozenset[str] = frozenset()
    """Node names that were asked and gave no whole answer before the deadline."""
    believed: Mapping[str, tuple[Task, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """What Airflow's metadata database says that workers without an answer run, by node name."""
    unplaced: tuple[Task, ...] = ()
    """What it says that runs on none of the workers there are: any without an answer may have it."""
