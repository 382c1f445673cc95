"""Which metrics there are, and how each is computed from the load of pools. Pure.

A count has one item for each pool, since an HPA sums items. A ratio has exactly one item, whatever was
selected: the sum of two load factors is no load factor, and that of two ages no age.

How the load factor is rounded: an HPA with a Value target computes ceil(value / target * readyPods) in
floating point, so a milli too much is a replica too many. The value is rounded up, as Kubernetes rounds
what is finer than a milli, unless the milli below (or, where floating point would overshoot, the one below
that) is the one that makes the HPA arrive at ceil(demand / (slots per worker * target)). The target itself
is left to the dead band: to the HPA it means the replicas that it has asked for, however many pods are
ready. With the pool's own target and fewer ready pods than the target has millis (800 at 0.8) one of the
three always does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from metrics_adapter.load import Load, slots
from shared.pools import Algorithm, Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One item of a reply."""

    labels: Mapping[str, str]
    milli: int
    """The value in thousandths."""
    measured_at: float
    """Seconds since the epoch; of a total, its oldest part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """A metric that adds up over pools."""

    name: str
    description: str
    of: Callable[[Load], int]

    def samples(self, loads: Sequence[Load]) -> tuple[Sample, ...]:
        return tuple(_sample((load,), self.of(load) * 1000) for load in loads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A metric that does not add up: several pools give one total."""

    name: str
    description: str
    milli_of: Callable[[Sequence[Load]], int]
    has: Callable[[Load], bool] = lambda load: True
    """Whether a pool has it at all."""

    def samples(self, loads: Sequence[Load]) -> tuple[Sample, ...]:
        having = tuple(filter(self.has, loads))
        return (_sample(having, self.milli_of(having)),) if having else ()


Metric = Count | Ratio


def labels_of(pool: Pool) -> dict[str, str]:
    return {"pool": pool.name, "workload": pool.workload.name}


def _sample(loads: Sequence[Load], milli: int) -> Sample:
    return Sample(
        labels=labels_of(loads[0].pool) if len(loads) == 1 else {},
        milli=milli,
        measured_at=min(load.reading.measured_at for load in loads),
    )


def load_factor_milli(loads: Sequence[Load]) -> int:
    """Demand / slots of the ready pods, those an HPA multiplies by; with none ready, of one worker."""
    load_factor = Fraction(sum(load.demand for load in loads), sum(map(_slots_of_ready_pods, loads)))
    algorithms = {load.pool.algorithm for load in loads}
    if len(algorithms) > 1:
        return math.ceil(load_factor * 1000)
    algorithm = algorithms.pop()
    if _is_in_dead_band(load_factor, algorithm):
        return _target_milli(algorithm)
    return _rounded(load_factor, ready_pods=_ready_pods(loads), target_milli=_target_milli(algorithm))


def desired_workers(load: Load) -> int:
    """What the algorithm wants, whoever is ready; inside the dead band, as many workers as stay."""
    algorithm, staying = load.pool.algorithm, load.reading.staying
    staying_slots = slots(staying)
    if staying and _is_in_dead_band(Fraction(load.demand, staying_slots), algorithm):
        return len(staying)
    slots_per_worker = Fraction(staying_slots, len(staying)) if staying else load.pool.slots_per_worker
    return math.ceil(load.demand / (slots_per_worker * Fraction(algorithm.target)))


def _oldest_waiting_milli(loads: Sequence[Load]) -> int:
    return math.ceil(max(load.oldest_waiting_s or 0.0 for load in loads)) * 1000


def _is_in_dead_band(load_factor: Fraction, algorithm: Algorithm) -> bool:
    if algorithm.scale_up_above is None and algorithm.scale_down_below is None:
        return False
    low = algorithm.target if algorithm.scale_down_below is None else algorithm.scale_down_below
    high = algorithm.target if algorithm.scale_up_above is None else algorithm.scale_up_above
    return Fraction(low) <= load_factor <= Fraction(high)


def _rounded(load_factor: Fraction, *, ready_pods: int, target_milli: int) -> int:
    up = math.ceil(load_factor * 1000)
    wanted = math.ceil(load_factor * 1000 * ready_pods / target_milli)
    candidates = (m for m in (up, up - 1, up - 2) if m >= 0 and m != target_milli)
    return next((m for m in candidates if math.ceil(m / target_milli * ready_pods) == wanted), up)


def _target_milli(algorithm: Algorithm) -> int:
    return int(algorithm.target * 1000)


def _slots_of_ready_pods(load: Load) -> int:
    return slots(m for m in load.reading.members if m.is_ready) or load.pool.slots_per_worker


def _ready_pods(loads: Sequence[Load]) -> int:
    return sum(m.is_ready for load in loads for m in load.reading.members) or 1


def _answered(load: Load) -> int:
    return sum(m.has_answered and m.pod.is_active for m in load.reading.members)


def _slots(load: Load) -> int:
    return slots(m for m in load.reading.members if m.has_answered and m.pod.is_active)


def _active_tasks(load: Load) -> int:
    return sum(m.active_tasks for m in load.reading.staying)


_METRICS: Collection[Metric] = (
    Ratio(
        name="celery_load_factor",
        description="Demand / slots of the ready workers; exactly the target inside the pool's dead band.",
        milli_of=load_factor_milli,
    ),
    Count(
        name="celery_demand",
        description="Slots wanted: occupied ones on workers that do not drain, and waiting tasks.",
        of=lambda load: load.demand,
    ),
    Count(
        name="celery_desired_workers",
        description="Workers that the pool's algorithm wants.",
        of=desired_workers,
    ),
    Count(
        name="celery_active_tasks",
        description="Tasks running on workers that do not drain; of a silent worker, what is known.",
        of=_active_tasks,
    ),
    Count(
        name="celery_waiting_tasks",
        description="Tasks in the pool's queues (its share of those it shares), and prefetched ones.",
        of=lambda load: load.waiting,
    ),
    Count(
        name="celery_slots",
        description="Slots of the workers that celery_workers counts.",
        of=_slots,
    ),
    Count(
        name="celery_workers",
        description="Workers that have answered, now or before, and whose pods are not terminating.",
        of=_answered,
    ),
    Ratio(
        name="celery_oldest_waiting_seconds",
        description="How long the oldest waiting task of an Airflow pool waits, whole seconds; 0 with none.",
        milli_of=_oldest_waiting_milli,
        has=lambda load: load.oldest_waiting_s is not None,
    ),
)

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _METRICS}
"""By name, in lower case: an HPA lower-cases what its user wrote."""


def metric_named(name: str) -> Metric | None:
    return METRICS.get(name.lower())
