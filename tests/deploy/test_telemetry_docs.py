"""A figure of our own without documentation, or documentation without a figure, fails here."""

import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from drain_hook.telemetry import Telemetry as HookTelemetry
from metrics_adapter.freshness import PoolState
from metrics_adapter.review_cache import ReviewCache
from metrics_adapter.telemetry import Telemetry as AdapterTelemetry
from shared.settings import ConfigurationFile

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs" / "telemetry.md").read_text()


def no_pools() -> tuple[PoolState, ...]:
    return ()


def registered() -> CollectorRegistry:
    """Everything that either service registers."""
    registry = CollectorRegistry()
    HookTelemetry(registry)
    adapter = AdapterTelemetry(registry)
    adapter.show_pools(no_pools)
    adapter.show_access_reviews(ReviewCache(clock=lambda: 0.0))
    environment = {"BROKER_URL": "redis://localhost"}
    ConfigurationFile(ROOT / "deploy" / "base" / "config.yaml", registry=registry, environment=environment)
    return registry


def names_of(metrics: Iterator[Metric]) -> set[str]:
    """As they stand in /metrics."""
    return {f"{metric.name}_total" if metric.type == "counter" else metric.name for metric in metrics}


def test_every_figure_is_documented() -> None:
    """By the name that a query needs."""
    documented = re.findall(r"^\| `(\w+)` \|", REFERENCE, flags=re.MULTILINE)
    assert sorted(documented) == sorted(names_of(iter(registered().collect())))
