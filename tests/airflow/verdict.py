"""What a run has shown: facts, and whether each is as it must be. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A task instance as Airflow has it; times in seconds since the epoch."""

    dag_id: str
    task_id: str
    map_index: int
    state: str
    tries: int
    pod: str
    """Where it ran, or runs; empty before."""
    started_at: float | None
    ended_at: float | None

    @property
    def name(self) -> str:
        index = "" if self.map_index < 0 else f"[{self.map_index}]"
        return f"{self.dag_id}.{self.task_id}{index}"

    @property
    def is_first_try_success(self) -> bool:
        return self.state == "success" and self.tries == 1

    def ran_at(self, moment: float) -> bool:
        return self.started_at is not None and self.started_at <= moment < (self.ended_at or float("inf"))


@dataclass(slots=True, kw_only=True)
class Evidence:
    """What was seen of one Airflow."""

    idle: frozenset[str] = frozenset()
    """Pods of workers that ran nothing at the first scale-down."""
    busy: frozenset[str] = frozenset()
    """Those with a long task then."""
    guarded: frozenset[str] = frozenset()
    """Those with protected tasks."""
    is_released: bool = False
    """Whether their tasks have been told to end."""
    touched: set[str] = field(default_factory=set)
    """Worker pods that were marked or deleted before that."""
    deleted: dict[str, float] = field(default_factory=dict)
    """Worker pods, and when their deletion began."""
    restarted: set[str] = field(default_factory=set)
    killed: tuple[str, ...] = ()
    """Worker pods that did not end within their grace period, or ended without having been told to."""
    most_workers: int = 0
    remarks: list[str] = field(default_factory=list)
    """What was not as it must be while the story was told."""
    instances: tuple[Instance, ...] = ()
    refusals: Counter[str] = field(default_factory=Counter)
    """Verdicts of the hook that were no, by reason."""
    allowed: int = 0
    unavailable_s: float | None = None
    """How long after the database had stopped the adapter served no value any more."""
    recovered_at: float = float("inf")
    recovered_s: float | None = None
    """How long after it had started again everything was as before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A line of the summary."""

    name: str
    value: object
    is_right: bool = True


def facts(seen: Evidence, *, instances: int, most_workers: int) -> tuple[Fact, ...]:
    """The summary; `instances` and `most_workers` are how many there had to be."""
    successes = sum(instance.is_first_try_success for instance in seen.instances)
    untouched = seen.guarded - seen.touched
    hit = [pod for pod, at in seen.deleted.items() if any(_ran_on(pod, at, seen.instances))]
    return (
        Fact(name="task instances", value=len(seen.instances), is_right=len(seen.instances) == instances),
        Fact(name="first-try successes", value=successes, is_right=successes == instances),
        Fact(name="killed", value=len(seen.killed), is_right=not seen.killed),
        Fact(name="workers at most", value=seen.most_workers, is_right=seen.most_workers == most_workers),
        Fact(name="workers removed", value=len(seen.deleted), is_right=len(seen.deleted) >= most_workers - 1),
        Fact(name="  while they ran a task", value=len(hit), is_right=not hit),
        Fact(
            name="protected workers untouched",
            value=f"{len(untouched)} of {len(seen.guarded)}",
            is_right=bool(seen.guarded) and untouched == seen.guarded,
        ),
        Fact(name="scale-downs allowed", value=seen.allowed, is_right=seen.allowed >= 1),
        *(
            Fact(name=f"  refused: {reason}", value=seen.refusals[reason], is_right=seen.refusals[reason] > 0)
            for reason in ("LabelsUnknown", "Protected", *sorted(seen.refusals.keys() - _EXPECTED))
        ),
        Fact(
            name="database away: seconds until 503",
            value=_seconds(seen.unavailable_s),
            is_right=seen.unavailable_s is not None,
        ),
        Fact(
            name="database back: seconds until well",
            value=_seconds(seen.recovered_s),
            is_right=seen.recovered_s is not None,
        ),
    )


_EXPECTED = {"LabelsUnknown", "Protected"}


def complaints(seen: Evidence, shown: Iterable[Fact]) -> list[str]:
    """A sentence for each thing that is not as it must be."""
    wrong = [f"{fact.name.strip()}: {fact.value}" for fact in shown if not fact.is_right]
    failed = [
        f"{instance.name} on {instance.pod or 'no worker'}: {instance.state or 'none'}, try {instance.tries}"
        for instance in seen.instances
        if not instance.is_first_try_success
    ]
    return [*seen.remarks, *wrong, *failed, *(f"killed: {pod}" for pod in seen.killed)]


def table(columns: Mapping[str, Sequence[Fact]]) -> list[str]:
    """A column for each Airflow; what is wrong has an exclamation mark."""
    names = dict.fromkeys(fact.name for column in columns.values() for fact in column)
    cells = {title: {fact.name: fact for fact in column} for title, column in columns.items()}
    lines = [_row("", list(columns))]
    lines += [_row(name, [_cell(column.get(name)) for column in cells.values()]) for name in names]
    return lines


def _cell(fact: Fact | None) -> str:
    if fact is None:
        return "-"
    return f"{fact.value}{'' if fact.is_right else ' !'}"


def _row(name: str, cells: Iterable[str]) -> str:
    return (f"{name:<36}" + "".join(f"{cell:>16}" for cell in cells)).rstrip()


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f}"


def _ran_on(pod: str, moment: float, instances: Iterable[Instance]) -> list[Instance]:
    return [instance for instance in instances if instance.pod == pod and instance.ran_at(moment)]
