"""What the sandbox shows at one moment: pods, the HPA, the adapter, the workers' journal. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from deploy.sandbox.demo.journal import Run
from deploy.sandbox.demo.story import PROTECTED, PodLife
from deploy.sandbox.demo.timeline import RoundMark
from shared.pods import Pod


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRow:
    """One worker in the live view."""

    pod: str
    state: str
    """starting, idle, busy, protected, draining or terminating."""
    tasks: tuple[tuple[str, float], ...]
    """Celery task name and seconds it has run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One frame of the live view."""

    elapsed_s: float
    chapter: str
    load_factor: float | None
    """As the HPA gets it, through the aggregated API; None while the adapter serves no value."""
    waiting: int
    replicas: int
    """spec.replicas of the Deployment."""
    wanted: int
    """status.desiredReplicas of the HPA."""
    submitted: int
    finished: int
    killed: int
    workers: tuple[WorkerRow, ...]
    rounds: tuple[RoundMark, ...]


def worker_rows(pods: Iterable[Pod], runs: Sequence[Run], *, now: float) -> tuple[WorkerRow, ...]:
    """Every pod with what it runs now, oldest first."""
    running: dict[str, list[Run]] = {}
    for run in runs:
        if run.finished_at is None:
            running.setdefault(run.pod, []).append(run)
    return tuple(
        WorkerRow(
            pod=pod.name,
            state=_state(pod, running.get(pod.name, [])),
            tasks=tuple((run.name, now - run.started_at) for run in running.get(pod.name, [])),
        )
        for pod in sorted(pods, key=lambda pod: (pod.created_at, pod.name))
    )


def _state(pod: Pod, running: Sequence[Run]) -> str:
    if pod.is_terminating:
        return "terminating"
    if pod.mark is not None:
        return "draining"
    if any(run.name == PROTECTED for run in running):
        return "protected"
    if not pod.is_ready:
        return "starting"
    return "busy" if running else "idle"


def follow(lives: Mapping[str, PodLife], pods: Iterable[Pod], *, now: float) -> dict[str, PodLife]:
    """The lives of all pods seen so far, carried on to `now`."""
    seen = {pod.name: pod for pod in pods}
    ended = {
        name: life if life.ended_at is not None else replace(life, ended_at=now)
        for name, life in lives.items()
        if name not in seen
    }
    return {
        **lives,
        **ended,
        **{name: _carry_on(lives.get(name), pod, now=now) for name, pod in seen.items()},
    }


def _carry_on(life: PodLife | None, pod: Pod, *, now: float) -> PodLife:
    life = life or PodLife(name=pod.name, started_at=now)
    draining = None if pod.mark is None else life.draining_since or now
    terminating = (life.terminating_since or now) if pod.is_terminating else None
    # Once it terminates its mark does not matter any more; what it was before is what the picture shows.
    return replace(
        life,
        draining_since=life.draining_since if pod.is_terminating else draining,
        terminating_since=terminating,
    )
