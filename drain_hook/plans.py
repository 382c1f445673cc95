"""The plan of a scale-down as a value: it can be logged, compared, and shown for a dry run. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from shared.pods import Pod
from shared.workers import Task, WorkerSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    """A pod that Kubernetes will remove, once its deletion cost is written."""

    pod: Pod
    node: str
    """Celery's node name of its worker."""
    worker: WorkerSnapshot | None
    """What its worker said; None when it is silent, or when the pod runs none yet."""
    is_silent: bool
    """It may run tasks and did not answer: unknown, not idle."""
    believed: tuple[Task, ...] = ()
    """What Airflow's metadata database says that a silent one runs."""
    is_forced: bool
    """Kubernetes removes it whatever we write: unassigned, Pending or not ready, or none is to be left."""
    is_going: bool = False
    """An earlier scale-down that was let through is about to remove it: its record stays that round's."""
    may_stay: bool = False
    """Kubernetes takes any of several, of which this is one, where costs do not count."""
    cost: int | None
    """pod-deletion-cost that must stand on the pod; one value for all victims of a ReplicaSet, None where
    costs choose nobody."""
    queues: tuple[str, ...]
    """What to cancel, and to give back on release."""

    @property
    def is_busy(self) -> bool:
        return self.is_silent or (self.worker is not None and not self.worker.is_idle)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a scale-down cannot be prepared at all."""

    reason: str
    """Protected, LabelsUnknown, RolloutInProgress or CannotPredict."""
    sentence: str
    possible_replicas: int | None = None
    """The lowest replica count that is possible now; None when no count is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainPlan:
    """Who leaves, who is busy, and what to give back. With a refusal there are no victims and no releases."""

    round: str
    """Short name of the round, the same whenever the same scale-down is reviewed."""
    since: float
    """When draining for this round began, seconds since the epoch; what new marks of the round should say."""
    victims: tuple[Victim, ...] = ()
    spares: int = 0
    """So many of the victims stay, and nobody can tell which."""
    silent: tuple[str, ...] = ()
    """Node names of all workers of the workload that did not answer."""
    protected: tuple[str, ...] = ()
    """Node names of all workers of the workload that run a protected task."""
    no_choice: str = ""
    """Why it is these victims, whatever they run; empty where deletion costs choose them."""
    doubt: str = ""
    """A sentence for whoever scales, where it is only believed that costs choose."""
    releases: tuple[Pod, ...] = ()
    """Marked pods that this plan does not use."""
    refusal: Refusal | None = None
    adopts: bool = False
    """The open marks are exactly this round: same victims, same costs, written for this generation."""

    @property
    def busy(self) -> tuple[Victim, ...]:
        """Victims with tasks, and those that did not answer."""
        return tuple(victim for victim in self.victims if victim.is_busy)
