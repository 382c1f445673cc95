"""What an HPA of deploy/hpa makes of values: the template's own numbers in the sandbox's arithmetic."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from deploy.sandbox.controllers.autoscaling import Tolerance, average_value_proposal, value_proposal
from deploy.sandbox.controllers.quantities import parse_milli
from deploy.sandbox.controllers.scaling_behavior import (
    History,
    Limits,
    Normalized,
    limits_of,
    normalize,
    tolerance_of,
)
from tests.deploy.manifests import BASE, Document, documents

DIRECTORY = BASE.parent / "hpa"
NAMES = tuple(sorted(path.stem for path in DIRECTORY.glob("*.yaml")))


def template(name: str, **changes: Any) -> Document:
    """The HPA of deploy/hpa/NAME.yaml, but for these fields of its spec."""
    (document,) = documents(DIRECTORY / f"{name}.yaml")
    return document | {"spec": document["spec"] | changes}


def without_tolerance(document: Document) -> Document:
    """As it is applied before Kubernetes 1.35, which has one tolerance for all HPAs: a tenth."""
    changed = copy.deepcopy(document)
    for rules in changed["spec"]["behavior"].values():
        del rules["tolerance"]
    return changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What the HPA finds where it scales."""

    replicas: int
    status_replicas: int
    pods: int
    ready_pods: int
    """Running and Ready, terminating ones too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoscaler:
    """An HPA with one External metric."""

    metric: str
    target_milli: int
    is_average: bool
    limits: Limits
    tolerance: Tolerance

    @classmethod
    def of(cls, document: Document) -> Self:
        (metric,) = document["spec"]["metrics"]
        target = metric["external"]["target"]
        is_average = target["type"] == "AverageValue"
        return cls(
            metric=metric["external"]["metric"]["name"],
            target_milli=parse_milli(target["averageValue" if is_average else "value"]),
            is_average=is_average,
            limits=limits_of(document["spec"]),
            tolerance=tolerance_of(document["spec"]),
        )

    @property
    def patience_s(self) -> int:
        """For how long it shrinks nothing."""
        assert self.limits.behavior is not None
        return self.limits.behavior.down.window_s

    def wish(self, values: Sequence[str], scale: Scale) -> int:
        """What the metric asks for, before limits and windows."""
        milli = [parse_milli(value) for value in values]
        if self.is_average:
            proposal = average_value_proposal(
                milli,
                target_milli=self.target_milli,
                status_replicas=scale.status_replicas,
                tolerance=self.tolerance,
            )
        else:
            proposal = value_proposal(
                milli,
                target_milli=self.target_milli,
                spec_replicas=scale.replicas,
                pods=scale.pods,
                ready_pods=scale.ready_pods,
                tolerance=self.tolerance,
            )
        return max(0, proposal.replicas)

    def look(self, wish: int, *, replicas: int, history: History, now_s: float) -> Normalized:
        """The size that it asks for at this look, one every 15 seconds."""
        started = history.starting_at(replicas, now_s)
        return normalize(wish, current=replicas, limits=self.limits, history=started, now_s=now_s)
