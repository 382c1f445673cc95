"""What the hook says of workers and plans, in sentences for people. Never a task's arguments. Pure.

A sentence names moments rather than how long ago they were, and pods in one order: while nothing changes it
stays the same, so that Events about it can be counted rather than repeated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from drain_hook.plans import DrainPlan, Victim
from drain_hook.task_names import name_task
from shared.marks import Mark
from shared.pods import Pod
from shared.workers import Task

_NAMED = 5
"""Workers and tasks named in one sentence; Events and HPA conditions are no place for a hundred."""


def duration(seconds: float) -> str:
    """In the two largest units: `3 min 20 s`, `2 h 5 min`, `4 d 1 h`."""
    whole = max(0, int(seconds))
    units = (("d", whole // 86400), ("h", whole // 3600 % 24), ("min", whole // 60 % 60), ("s", whole % 60))
    first = next((index for index, (_, count) in enumerate(units) if count), len(units) - 1)
    parts = [f"{count} {unit}" for unit, count in units[first : first + 2] if count]
    return " ".join(parts) or "0 s"


def moment(seconds: float) -> str:
    """As Kubernetes writes it: `2026-03-04T12:03:04Z`."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def enumerate_some(items: Sequence[str], *, separator: str = ", ", limit: int = _NAMED) -> str:
    """The first items, and how many there are beyond them."""
    more = len(items) - limit
    return separator.join(items[:limit]) + (f" and {more} more" if more > 0 else "")


def describe_task(task: Task) -> str:
    """`reports.build (3f2a91bc), since 2026-03-04T12:03:04Z`."""
    state = "not started" if task.started_at is None else f"since {moment(task.started_at)}"
    return f"{name_task(task)}, {state}"


def describe_tasks(tasks: Iterable[Task]) -> str:
    """Tasks of one worker, the one that has run longest first."""
    longest_first = sorted(tasks, key=lambda task: math.inf if task.started_at is None else task.started_at)
    return enumerate_some(list(map(describe_task, longest_first)), separator="; ", limit=2)


def describe_victim(victim: Victim) -> str:
    """What is known of the work on a pod that would go."""
    name = victim.pod.name
    if victim.is_silent:
        silence = "did not answer" if victim.pod.is_ready else "is not ready and did not answer"
        return f"{name} {silence}, {_believed_work(victim.believed)}"
    if victim.worker is None:
        return f"{name} has not started yet"
    if victim.worker.is_idle:
        return f"{name} is idle"
    return f"{name} runs {describe_tasks(victim.worker.tasks)}"


def _believed_work(tasks: Sequence[Task]) -> str:
    """What is known of the work of a silent worker."""
    if not tasks:
        return "so its work is unknown"
    return f"but by Airflow's database runs {describe_tasks(tasks)}"


def describe_victims(victims: Sequence[Victim]) -> str:
    """Several of them in one line."""
    return enumerate_some(list(map(describe_victim, _by_name(victims))), separator=" | ")


def why_first(pod: Pod) -> str:
    """Why Kubernetes removes a pod before any ready one, whatever its cost; empty when it does not."""
    if not pod.host:
        return "it is not assigned to a node"
    if pod.phase != "Running":
        return f"it is {pod.phase}"
    if not pod.is_ready:
        return "it is not ready"
    return "" if pod.is_available else "it has not been ready for minReadySeconds"


def describe_protected(pod: Pod, tasks: Iterable[Task], *, why_first: str) -> str:
    """A worker that must not be stopped, the tasks for which it must not, and why it is its turn."""
    first = f" (which Kubernetes would remove first, because {why_first})" if why_first else ""
    return f"{pod.name}{first} runs {describe_tasks(tasks)}"


def describe_mark(mark: Mark) -> str:
    """Why a pod is being drained, and since when; what it runs changes, so Events tell that."""
    return (
        f"since {moment(mark.since)}, for the scale-down from {mark.from_replicas} to"
        f" {mark.to_replicas} replicas (round {mark.round}): it takes no new tasks"
    )


def audit(plan: DrainPlan) -> dict[str, str]:
    """Annotations of the audit event: the round, its victims, and those of them that are busy."""
    notes = {"round": plan.round, "victims": name_victims(plan.victims)}
    return notes | ({"busy": name_victims(plan.busy)} if plan.busy else {})


def name_victims(victims: Sequence[Victim]) -> str:
    """Their pods, in one line."""
    return enumerate_some([victim.pod.name for victim in _by_name(victims)], limit=20)


def _by_name(victims: Iterable[Victim]) -> list[Victim]:
    """What they cost changes with time, and so does the order in which they were chosen."""
    return sorted(victims, key=lambda victim: (len(victim.pod.name), victim.pod.name))
