"""What must not have happened, read from the workers' journal and from which pods were deleted when. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from deploy.sandbox.demo.journal import Run
from deploy.sandbox.demo.story import PROTECTED

MARGIN_S = 5.0
"""How long after a broker is back it may still hand out tasks of broken connections again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A promise that was broken, and how one can tell."""

    kind: str
    evidence: str


@dataclass(slots=True, kw_only=True)
class Record:
    """What the storm did and saw; times are seconds since the epoch."""

    submitted: dict[str, float] = field(default_factory=dict)
    """When each task was submitted, by id."""
    deleted: dict[str, float] = field(default_factory=dict)
    """When the API server began to delete each pod, by name."""
    killed: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """When we killed the process of a worker, by pod."""
    outages: list[tuple[float, float]] = field(default_factory=list)
    """From when until when a broker was away or silent."""

    def was_cut_off_by_us(self, run: Run) -> bool:
        return run.finished_at is None and any(run.started_at <= at for at in self.killed[run.pod])

    def is_excused(self, task: str, runs: Iterable[Run]) -> bool:
        """Whether Celery may run a task twice, or lose it on Redis: it was under way when a worker or the
        broker was killed, and both only promise "at least once" for what they had acknowledged."""
        begun, ended = self.submitted[task], max((r.finished_at or 0.0 for r in runs), default=0.0)
        kills = [(at, at) for of_pod in self.killed.values() for at in of_pod]
        return any(
            begun <= until + MARGIN_S and (ended == 0.0 or since - MARGIN_S <= ended)
            for since, until in (*self.outages, *kills)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What the journal says."""

    violations: tuple[Violation, ...]
    tasks: int
    cut_off_by_us: int
    """Runs whose worker we killed."""
    repeated: int
    """Tasks that ran twice or were lost because of what we did to their worker or broker."""


def findings(runs: Sequence[Run], record: Record) -> Findings:
    """After the last task has ended, or should have."""
    of_task: defaultdict[str, list[Run]] = defaultdict(list)
    for run in runs:
        of_task[run.id].append(run)
    odd = {task: of_task[task] for task in record.submitted if not _ran_once(of_task[task])}
    excused = {task for task, its_runs in odd.items() if record.is_excused(task, its_runs)}
    return Findings(
        violations=(
            *_deleted_busy(runs, record),
            *_cut_off(runs, record),
            *(_oddity(task, its_runs) for task, its_runs in odd.items() if task not in excused),
        ),
        tasks=len(record.submitted),
        cut_off_by_us=sum(record.was_cut_off_by_us(run) for run in runs),
        repeated=len(excused),
    )


def by_kind(violations: Iterable[Violation]) -> Mapping[str, int]:
    return Counter(violation.kind for violation in violations)


def _ran_once(runs: Sequence[Run]) -> bool:
    return len(runs) == 1 and runs[0].finished_at is not None


def _deleted_busy(runs: Sequence[Run], record: Record) -> Iterable[Violation]:
    """No worker was deleted while it ran a task: our pools all have `whenBusy: wait`."""
    for run in runs:
        at = record.deleted.get(run.pod)
        if at is None or run.started_at >= at or (run.finished_at is not None and run.finished_at <= at):
            continue
        if not record.was_cut_off_by_us(run):
            kind = "protected worker deleted" if run.name == PROTECTED else "busy worker deleted"
            yield Violation(kind=kind, evidence=f"{run.pod} was deleted at {at:.3f}: {_told(run)}")


def _cut_off(runs: Sequence[Run], record: Record) -> Iterable[Violation]:
    for run in runs:
        if run.finished_at is None and run.pod in record.deleted and not record.was_cut_off_by_us(run):
            yield Violation(kind="task cut off", evidence=_told(run))


def _oddity(task: str, runs: Sequence[Run]) -> Violation:
    if any(run.finished_at is not None for run in runs):
        return Violation(kind="task ran twice", evidence="; ".join(map(_told, runs)))
    return Violation(kind="task lost", evidence="; ".join(map(_told, runs)) or f"{task} never ran")


def _told(run: Run) -> str:
    end = "has no end" if run.finished_at is None else f"ended at {run.finished_at:.3f}"
    return f"{run.name} {run.id} on {run.pod} began at {run.started_at:.3f} and {end}"
