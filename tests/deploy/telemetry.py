"""Every figure that either service registers."""

from collections.abc import Mapping
from functools import cache

from prometheus_client import CollectorRegistry

from drain_hook.telemetry import Telemetry as HookTelemetry
from metrics_adapter.freshness import PoolState
from metrics_adapter.review_cache import ReviewCache
from metrics_adapter.telemetry import Telemetry as AdapterTelemetry
from shared.serving import show_tasks
from shared.settings import ConfigurationFile
from tests.deploy.manifests import BASE, ROOT

TELEMETRY = (ROOT / "docs" / "telemetry.md").read_text()


def no_pools() -> tuple[PoolState, ...]:
    return ()


def registered() -> CollectorRegistry:
    """Everything that either service registers."""
    registry = CollectorRegistry()
    HookTelemetry(registry)
    adapter = AdapterTelemetry(registry)
    adapter.show_pools(no_pools)
    adapter.show_access_reviews(ReviewCache(clock=lambda: 0.0))
    adapter.show_delegate(lambda: None)
    environment = {"BROKER_URL": "redis://localhost"}
    show_tasks(registry, lambda: 0)
    ConfigurationFile(BASE / "config.yaml", registry=registry, environment=environment)
    return registry


@cache
def figures() -> Mapping[str, str]:
    """Kinds of figures by their names, as they stand in /metrics."""
    return {
        f"{metric.name}_total" if metric.type == "counter" else metric.name: metric.type
        for metric in registered().collect()
    }
