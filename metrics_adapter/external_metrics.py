"""external.metrics.k8s.io/v1beta1 as JSON: quantities and value lists. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TypedDict

from metrics_adapter.catalogue import Sample

GROUP = "external.metrics.k8s.io"
VERSION = "v1beta1"
GROUP_VERSION = f"{GROUP}/{VERSION}"
KIND = "ExternalMetricValueList"

_SUFFIXES = ("m", "", "k", "M", "G", "T", "P", "E")


class ExternalMetricValue(TypedDict):
    metricName: str
    metricLabels: dict[str, str]
    timestamp: str
    value: str


class ExternalMetricValueList(TypedDict):
    kind: str
    apiVersion: str
    metadata: dict[str, str]
    items: list[ExternalMetricValue]


def quantity(milli: int) -> str:
    """Thousandths as Kubernetes writes a quantity: no fraction, the largest suffix that loses nothing.

    Raises ValueError for a negative one: it would send an HPA to its maxReplicas.
    """
    if milli < 0:
        raise ValueError(f"{milli}m is negative")
    number, steps = milli, 0
    while number and number % 1000 == 0 and steps < len(_SUFFIXES) - 1:
        number, steps = number // 1000, steps + 1
    return f"{number}{_SUFFIXES[steps]}" if number else "0"


def value_list(name: str, samples: Iterable[Sample]) -> ExternalMetricValueList:
    """The reply to a request for a metric."""
    return {
        "kind": KIND,
        "apiVersion": GROUP_VERSION,
        "metadata": {},
        "items": [
            {
                "metricName": name,
                "metricLabels": dict(sample.labels),
                "timestamp": datetime.fromtimestamp(sample.measured_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "value": quantity(sample.milli),
            }
            for sample in samples
        ],
    }
