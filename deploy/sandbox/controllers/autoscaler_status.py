"""The status of a HorizontalPodAutoscaler as it is put together during one look at it."""

from collections.abc import Sequence
from typing import Any

from deploy.sandbox.controllers.autoscaling import Condition, MetricFailure, Proposal
from deploy.sandbox.controllers.quantities import format_milli
from deploy.sandbox.resources import Document


class AutoscalerStatus:
    """Begins with the HPA's status; a transition time moves only when its condition's status does."""

    def __init__(self, autoscaler: Document, *, stamp: str) -> None:
        self._before: Document = autoscaler.get("status") or {}
        self._stamp = stamp
        self._conditions = {one["type"]: one for one in self._before.get("conditions") or []}
        self._fields: Document = {}
        self.desired_replicas: int = self._before.get("desiredReplicas", 0)

    def set_condition(self, condition: Condition) -> None:
        old = self._conditions.get(condition.type)
        status = str(condition.status)
        unchanged = old is not None and old["status"] == status
        self._conditions[condition.type] = {
            "type": condition.type,
            "status": status,
            "lastTransitionTime": old["lastTransitionTime"] if old and unchanged else self._stamp,
            "reason": condition.reason,
            "message": condition.message,
        }

    def set_sizes(
        self, *, current: int, desired: int, metrics: Sequence[Document], rescaled: bool = False
    ) -> None:
        """Replicas found and wanted, the metrics, and whether the size was changed just now."""
        self.desired_replicas = desired
        self._fields = {"currentReplicas": current, "desiredReplicas": desired}
        if metrics:
            self._fields["currentMetrics"] = list(metrics)
        if rescaled:
            self._fields["lastScaleTime"] = self._stamp
        elif "lastScaleTime" in self._before:
            self._fields["lastScaleTime"] = self._before["lastScaleTime"]

    @property
    def document(self) -> Document:
        """The status to write. Before any sizes are set the old ones stand."""
        fields = self._fields or {key: value for key, value in self._before.items() if key != "conditions"}
        return {"desiredReplicas": 0, **fields, "conditions": list(self._conditions.values())}

    @property
    def has_changed(self) -> bool:
        return self.document != self._before


def metric_status(metric: dict[str, Any], outcome: Proposal | MetricFailure) -> Document:
    """A metric's entry in currentMetrics; one that could not be read leaves an empty entry."""
    if isinstance(outcome, MetricFailure):
        return {"type": ""}
    external = metric["external"]
    kind = "averageValue" if "averageValue" in external["target"] else "value"
    current = {kind: format_milli(outcome.current_milli)}
    return {"type": "External", "external": {"metric": external["metric"], "current": current}}
