"""What a pool's workers have to do at one moment: the numbers that every metric is computed from. Pure.

Rules of the whole file:

- A worker that answered before and is silent now is unknown, and unknown is never idle: all its slots count
  as occupied.
- A worker that never answered is starting, and idle, as long as its pod is young; after that it is unknown
  too.
- A worker with a protected task counts as fully occupied, so that an HPA never asks for fewer workers than
  are protected.
- A draining worker (its pod is marked, or terminating) takes no new tasks, and those it runs are no demand:
  an HPA that counted them would ask back the very replica that is leaving.
- A queue that several pools consume is divided among them, so that its tasks are counted once.
- Of an Airflow pool the metadata database says what waits, and what workers without an answer run, where it
  knows these by name; what the others run they say themselves. A task that the database still calls queued
  and a worker has is no waiting one: the database is up to some seconds behind.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from shared.airflow_fleet import waiting_of
from shared.airflow_tasks import TaskInstance
from shared.errors import CeleryHpaError
from shared.pods import Pod, celery_node
from shared.pools import Pool
from shared.workers import Fleet, Task, WorkerSnapshot

PoolKey = tuple[str, str]
"""Namespace and name of a pool."""

NOTHING: Mapping[str, int] = MappingProxyType({})
STARTING_S = 300.0
"""How long a worker may take until its first answer; Airflow's need a minute on a loaded node."""


class WorkersSilent(CeleryHpaError):
    """Workers should have answered and none did: that says nothing about their load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A pod of the pool and what is known of its worker."""

    pod: Pod
    node: str
    slots: int
    """As it answered, now or last; slotsPerWorker before its first answer."""
    answer: WorkerSnapshot | None = None
    believed: tuple[Task, ...] | None = None
    """Without an answer, what Airflow's metadata database says that it runs; None where there is none."""
    unplaced: tuple[Task, ...] = ()
    """Unknown, what it may run besides: the database says it of no worker that there is."""
    has_answered: bool = False
    """Now or before."""
    is_solo: bool = False
    """Celery's solo pool: by its last answer, it is silent whenever it runs a task."""
    is_unknown: bool = False
    """It should have answered and did not."""
    is_protected: bool = False
    """It runs a task that a label protects."""

    @property
    def is_draining(self) -> bool:
        return self.pod.mark is not None or self.pod.is_terminating

    @property
    def is_ready(self) -> bool:
        """Whether an HPA with a Value target multiplies by it: it counts terminating pods, too."""
        return self.pod.phase == "Running" and self.pod.is_ready

    @property
    def active_tasks(self) -> int:
        """Of an unknown worker the most it can be, by what a database tells of it."""
        if self.answer is not None:
            return len(self.answer.active)
        if self.believed is not None:
            return max(len(self.believed), min(self.slots, len(self.believed + self.unplaced)))
        return self.slots if self.is_unknown else 0

    @property
    def occupied(self) -> int:
        return max(self.active_tasks, self.slots) if self.is_protected else self.active_tasks

    @property
    def reserved(self) -> int:
        return len(self.answer.reserved) if self.answer else 0

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What it is known to have, started or not."""
        return self.answer.tasks if self.answer else self.believed or ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One refresh of one pool."""

    pool: Pool
    source: str
    """Equal for pools whose waiting tasks come from one broker, or one database; never its URL."""
    measured_at: float
    """Seconds since the epoch, when the asking began."""
    members: tuple[Member, ...]
    queue_lengths: Mapping[str, int]
    """Of a broker's queues; empty for an Airflow pool."""
    queued: tuple[TaskInstance, ...] = ()
    """What an Airflow pool's queues hold by the metadata database, whoever has it."""

    @property
    def staying(self) -> tuple[Member, ...]:
        """The workers that are there and not draining, Pending ones too."""
        return tuple(m for m in self.members if m.pod.is_active and not m.is_draining)

    @property
    def taking_slots(self) -> int:
        """Slots that take tasks from the queues."""
        return slots(m for m in self.staying if m.has_answered)

    @property
    def silent(self) -> tuple[str, ...]:
        """Node names of the unknown workers."""
        return tuple(m.node for m in self.members if m.is_unknown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A reading with the pool's share of the waiting tasks."""

    reading: Reading
    queued: int
    """Its share of the tasks in its queues."""
    oldest_waiting_s: float | None = None
    """How long the oldest of them waits, by the database's clock; None for plain Celery, whose do not say."""

    @property
    def pool(self) -> Pool:
        return self.reading.pool

    @property
    def waiting(self) -> int:
        """Tasks in queues, and those prefetched by workers that stay."""
        return self.queued + sum(m.reserved for m in self.reading.staying)

    @property
    def demand(self) -> int:
        """Slots wanted."""
        return self.waiting + sum(m.occupied for m in self.reading.staying)


def slots(members: Iterable[Member]) -> int:
    return sum(member.slots for member in members)


def take_reading(
    *,
    pool: Pool,
    source: str,
    pods: Iterable[Pod],
    fleet: Fleet,
    queue_lengths: Mapping[str, int] = NOTHING,
    queued: Iterable[TaskInstance] = (),
    last: Reading | None,
    measured_at: float,
) -> Reading:
    """The reading of a refresh; `last` is the one before.

    `queued` is what waits in an Airflow pool's queues, `queue_lengths` what waits in those of any other.
    """
    before = {m.pod.uid: m for m in last.members if m.has_answered} if last else {}
    members = tuple(
        _member(pod, pool=pool, fleet=fleet, before=before.get(pod.uid), now=measured_at)
        for pod in pods
        if pod.is_active or pod.is_terminating
    )
    return Reading(
        pool=pool,
        source=source,
        measured_at=measured_at,
        members=members,
        queue_lengths={queue: queue_lengths.get(queue, 0) for queue in pool.queues},
        queued=tuple(queued),
    )


def _member(pod: Pod, *, pool: Pool, fleet: Fleet, before: Member | None, now: float) -> Member:
    node = celery_node(pod.name, worker_name=pool.worker_name)
    answer = fleet.workers.get(node)
    if answer is not None:
        return Member(
            pod=pod,
            node=node,
            slots=answer.slots,
            answer=answer,
            has_answered=True,
            is_solo=answer.pool == "solo",
            is_protected=any(map(pool.is_protected, answer.tasks)),
        )
    believed = fleet.believed.get(node, ()) if pool.airflow else None
    is_unknown = pod.is_active and (before is not None or _should_have_answered(pod, now))
    unplaced = fleet.unplaced if is_unknown else ()
    return Member(
        pod=pod,
        node=node,
        slots=before.slots if before else pool.slots_per_worker,
        believed=believed,
        unplaced=unplaced,
        has_answered=before is not None,
        is_solo=before is not None and before.is_solo,
        is_unknown=is_unknown,
        is_protected=any(map(pool.is_protected, (*(believed or ()), *unplaced))),
    )


def _should_have_answered(pod: Pod, now: float) -> bool:
    return pod.is_ready and pod.ready_since is not None and now - pod.ready_since > STARTING_S


def check_that_some_answer(reading: Reading) -> None:
    """Raise WorkersSilent where all are that should answer: then nothing is known of any of them."""
    unknown = [m.node for m in reading.members if m.is_unknown and m.is_ready and not m.is_solo]
    if unknown and not any(m.answer for m in reading.members):
        raise WorkersSilent(
            f"None of its workers answers over the broker, among them {unknown[0]}: look whether they are "
            "connected to it and whether worker_enable_remote_control is on."
        )


def divide(length: int, shares: Mapping[PoolKey, int]) -> Mapping[PoolKey, int]:
    """`length` tasks in proportion to `shares`, whole tasks that add up; equally where no one has any."""
    weights = shares if any(shares.values()) else dict.fromkeys(shares, 1)
    total = sum(weights.values())
    parts = {key: length * weight // total for key, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda key: (-(length * weights[key] % total), key))
    for key in by_remainder[: length - sum(parts.values())]:
        parts[key] += 1
    return parts


def loads(readings: Collection[Reading]) -> Mapping[PoolKey, Load]:
    """The load of every pool that was read; of a shared queue the latest length counts, once."""
    consumers: dict[tuple[str, str], list[Reading]] = defaultdict(list)
    for reading in readings:
        for queue in reading.pool.queues:
            consumers[reading.source, queue].append(reading)
    queued: dict[PoolKey, int] = defaultdict(int)
    oldest: dict[PoolKey, float] = defaultdict(float)
    for (_, queue), sharers in consumers.items():
        latest = max(sharers, key=lambda reading: reading.measured_at)
        waiting = _waiting_instances(queue, latest, sharers)
        length = latest.queue_lengths[queue] + len(waiting)
        oldest_s = max((instance.age_s or 0.0 for instance in waiting), default=0.0)
        parts = divide(length, {r.pool.key: r.taking_slots for r in sharers})
        for key, part in parts.items():
            queued[key] += part
            oldest[key] = max(oldest[key], oldest_s)
    return {
        r.pool.key: Load(
            reading=r,
            queued=queued[r.pool.key],
            oldest_waiting_s=oldest[r.pool.key] if r.pool.airflow else None,
        )
        for r in readings
    }


def _waiting_instances(queue: str, latest: Reading, sharers: Collection[Reading]) -> Sequence[TaskInstance]:
    """What the database calls queued and no worker of these pools has."""
    queued = [instance for instance in latest.queued if instance.queue == queue]
    if not queued:
        return ()
    tasks = (task for reading in sharers for member in reading.members for task in member.tasks)
    return waiting_of(queued, tasks)
