"""How many replicas the HorizontalPodAutoscaler wants for external metrics: Kubernetes 1.36's arithmetic.

Values and targets are whole milli units. What `behavior`, the limits and the windows make of the wish is
`scaling_behavior`'s business.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deploy.sandbox.controllers.quantities import MAX_INT64

MAX_INT32 = 2**31 - 1
SCALING_ACTIVE = "ScalingActive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far the ratio may stray from 1 before anything is done; the bounds themselves are within."""

    up: float = 0.1
    down: float = 0.1

    def covers(self, ratio: float) -> bool:
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What one metric asks for: a replica count, and the metric's current value as the status shows it."""

    replicas: int
    current_milli: int
    metric: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricFailure:
    """A metric that could not be read: the condition's reason, the cause, and the sentence of the event."""

    reason: str
    cause: str
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One condition of the autoscaler's status, before it is given its transition time."""

    type: str
    status: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What all metrics together ask for. `replicas` is None when the answer is to keep what there is."""

    replicas: int | None
    metric: str
    condition: Condition
    error: str | None = None


class NoPodsMatch(ValueError):
    """No pod matches the selector of the scale, so a ratio has nothing to be multiplied with."""


def value_proposal(
    values_milli: Sequence[int],
    *,
    target_milli: int,
    spec_replicas: int,
    pods: int,
    ready_pods: int,
    tolerance: Tolerance,
) -> Proposal:
    """Target type Value: the ratio times the pods that are Running and Ready, terminating ones included.

    Raises NoPodsMatch when the ratio is outside the tolerance and there are no pods at all.
    """
    usage = min(sum(values_milli), MAX_INT64)
    ratio = usage / target_milli
    if spec_replicas == 0:
        return Proposal(replicas=_to_int32(ratio), current_milli=usage)
    if tolerance.covers(ratio):
        return Proposal(replicas=spec_replicas, current_milli=usage)
    if pods == 0:
        raise NoPodsMatch(
            "unable to calculate ready pods: no pods returned by selector while calculating replica count"
        )
    return Proposal(replicas=_to_int32(ratio * ready_pods), current_milli=usage)


def average_value_proposal(
    values_milli: Sequence[int], *, target_milli: int, status_replicas: int, tolerance: Tolerance
) -> Proposal:
    """Target type AverageValue: sum by target, whatever the pods do. A negative sum counts as overflow."""
    usage = _sum_or_overflow(values_milli)
    wanted = status_replicas
    if status_replicas == 0 or not tolerance.covers(usage / (target_milli * status_replicas)):
        wanted = _to_int32(usage / target_milli)
    return Proposal(replicas=wanted, current_milli=_per_replica(usage, status_replicas))


def combine(outcomes: Sequence[Proposal | MetricFailure], *, spec_replicas: int) -> Decision:
    """The largest proposal wins; any failing metric forbids going down, and all failing forbid everything."""
    failures = [outcome for outcome in outcomes if isinstance(outcome, MetricFailure)]
    best: Proposal | None = None
    for outcome in outcomes:
        if isinstance(outcome, Proposal) and (best is None or outcome.replicas > best.replicas):
            best = outcome
    error = None
    if failures:
        error = (
            f"invalid metrics ({len(failures)} invalid out of {len(outcomes)}), "
            f"first error is: {failures[0].summary}"
        )
    if best is None or (failures and best.replicas < spec_replicas):
        return Decision(replicas=None, metric="", condition=_inactive(failures), error=error)
    return Decision(replicas=best.replicas, metric=best.metric, condition=_active(best), error=error)


def metric_description(name: str, selector: dict[str, Any] | None) -> str:
    """The metric as the autoscaler's sentences name it: `queue_depth(nil)`, or with its selector."""
    return f"{name}({describe_selector(selector)})"


def describe_selector(selector: dict[str, Any] | None) -> str:
    """The selector as Kubernetes prints the Go value, since people grep events for it."""
    if selector is None:
        return "nil"
    labels = "".join(f"{key}: {value}," for key, value in sorted((selector.get("matchLabels") or {}).items()))
    requirements = "".join(
        f"LabelSelectorRequirement{{Key:{item['key']},Operator:{item['operator']},"
        f"Values:[{' '.join(item.get('values') or [])}],}},"
        for item in selector.get("matchExpressions") or []
    )
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{labels}}},"
        f"MatchExpressions:[]LabelSelectorRequirement{{{requirements}}},}}"
    )


def _active(best: Proposal) -> Condition:
    return Condition(
        type=SCALING_ACTIVE,
        status=True,
        reason="ValidMetricFound",
        message=f"the HPA was able to successfully calculate a replica count from {best.metric}",
    )


def _inactive(failures: Sequence[MetricFailure]) -> Condition:
    return Condition(
        type=SCALING_ACTIVE,
        status=False,
        reason=failures[0].reason if failures else "InvalidMetricSourceType",
        message="the HPA was unable to compute the replica count: "
        + (failures[0].cause if failures else "the HPA names no metric"),
    )


def _sum_or_overflow(values_milli: Sequence[int]) -> int:
    total = 0
    for value in values_milli:
        total += value
        if total < 0 or total > MAX_INT64:
            return MAX_INT64
    return total


def _per_replica(usage: int, status_replicas: int) -> int:
    if usage == MAX_INT64:
        return MAX_INT64
    if status_replicas == 0:
        return -MAX_INT64 - 1  # what dividing by zero leaves in Kubernetes' integer; only ever displayed
    return math.ceil(usage / status_replicas)


def _to_int32(replicas: float) -> int:
    return min(MAX_INT32, math.ceil(replicas))
