"""What an HPA's external metrics are now, read through the API server, and the size each asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from deploy.sandbox.client import ApiClient
from deploy.sandbox.controllers.autoscaling import (
    MetricFailure,
    NoPodsMatch,
    Proposal,
    average_value_proposal,
    describe_selector,
    metric_description,
    value_proposal,
)
from deploy.sandbox.controllers.quantities import parse_milli
from deploy.sandbox.controllers.replicasets import ready_since
from deploy.sandbox.controllers.scaling_behavior import tolerance_of
from deploy.sandbox.informers import UNREACHABLE
from deploy.sandbox.resources import PODS, Document, Resource
from shared.pods import selector_text

METRICS_PATH = "/apis/external.metrics.k8s.io/v1beta1"
METRICS_ACCEPT = "application/vnd.kubernetes.protobuf, */*"  # Kubernetes would rather have protobuf
_SOURCE = "metrics from external metrics API"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What an HPA scales, as its scale subresource showed it."""

    resource: Resource
    scale: Document

    @property
    def spec_replicas(self) -> int:
        """A Scale leaves its replicas out when they are 0."""
        return int((self.scale.get("spec") or {}).get("replicas", 0))

    @property
    def status_replicas(self) -> int:
        return int((self.scale.get("status") or {}).get("replicas", 0))

    @property
    def selector(self) -> str:
        return str((self.scale.get("status") or {}).get("selector", ""))


class MetricsReader:
    """Reads one metric after the other; a failure is an outcome like any other."""

    def __init__(self, client: ApiClient, *, tolerance: float) -> None:
        self._client = client
        self._tolerance = tolerance

    async def read(self, autoscaler: Document, target: Target) -> list[Proposal | MetricFailure]:
        """The outcome of each metric of the HPA, in its order."""
        metrics = autoscaler["spec"].get("metrics") or []
        return [await self._propose(autoscaler, metric, target) for metric in metrics]

    async def _propose(
        self, autoscaler: Document, metric: Document, target: Target
    ) -> Proposal | MetricFailure:
        if metric["type"] != "External":
            cause = f'unknown metric source type "{metric["type"]}"'
            return MetricFailure(reason="InvalidMetricSourceType", cause=cause, summary=cause)
        external, namespace = metric["external"], autoscaler["metadata"]["namespace"]
        name, selector = external["metric"]["name"], external["metric"].get("selector")
        by_average = "averageValue" in external["target"]
        try:
            values = await self._get_values(namespace, name, selector)
            if by_average:
                replicas, current = self._average(autoscaler, external["target"], target, values)
            else:
                replicas, current = await self._ratio(autoscaler, external["target"], target, values)
        except (*UNREACHABLE, NoPodsMatch, ValueError, KeyError) as error:
            return _failure(namespace, name, selector, error, by_average=by_average)
        description = f"external metric {metric_description(name, selector)}"
        return Proposal(replicas=replicas, current_milli=current, metric=description)

    async def _get_values(self, namespace: str, name: str, selector: dict[str, Any] | None) -> Sequence[int]:
        text = selector_text(selector or {})
        found = await self._client.request(
            "GET",
            f"{METRICS_PATH}/namespaces/{namespace}/{quote(name.lower())}",
            query={"labelSelector": text} if text else None,
            accept=METRICS_ACCEPT,
        )
        if not found.get("items"):
            raise ValueError("no metrics returned from external metrics API")
        return [parse_milli(item["value"]) for item in found["items"]]

    def _average(
        self, autoscaler: Document, wanted: Document, target: Target, values: Sequence[int]
    ) -> tuple[int, int]:
        proposal = average_value_proposal(
            values,
            target_milli=parse_milli(wanted["averageValue"]),
            status_replicas=target.status_replicas,
            tolerance=tolerance_of(autoscaler["spec"], default=self._tolerance),
        )
        return proposal.replicas, proposal.current_milli

    async def _ratio(
        self, autoscaler: Document, wanted: Document, target: Target, values: Sequence[int]
    ) -> tuple[int, int]:
        pods = await self._pods_of(autoscaler["metadata"]["namespace"], target)
        proposal = value_proposal(
            values,
            target_milli=parse_milli(wanted["value"]),
            spec_replicas=target.spec_replicas,
            pods=len(pods),
            ready_pods=sum(1 for pod in pods if _is_running_and_ready(pod)),
            tolerance=tolerance_of(autoscaler["spec"], default=self._tolerance),
        )
        return proposal.replicas, proposal.current_milli

    async def _pods_of(self, namespace: str, target: Target) -> list[Document]:
        found = await self._client.list(PODS, namespace, labelSelector=target.selector)
        return list(found["items"])


def _is_running_and_ready(pod: Document) -> bool:
    """Terminating or not: the autoscaler does not look at deletion for external metrics."""
    return (pod.get("status") or {}).get("phase") == "Running" and ready_since(pod) is not None


def _failure(
    namespace: str, name: str, selector: dict[str, Any] | None, error: Exception, *, by_average: bool
) -> MetricFailure:
    where = f"{namespace}/{name}/{describe_selector(selector)}"
    if isinstance(error, NoPodsMatch):
        cause = str(error)
    elif isinstance(error, ValueError):
        cause = f"unable to get external metric {where}: {error}"
    else:
        cause = f"unable to get external metric {where}: unable to fetch {_SOURCE}: {error}"
    kind = f"{name} external metric" if by_average else f"external metric {name}"
    return MetricFailure(
        reason="FailedGetExternalMetric",
        cause=cause,
        summary=f"failed to get {name} external metric value: failed to get {kind}: {cause}",
    )
