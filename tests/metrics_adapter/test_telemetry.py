"""What Prometheus sees of the adapter."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from metrics_adapter.freshness import PoolState
from metrics_adapter.review_cache import ReviewCache
from metrics_adapter.telemetry import Telemetry
from tests.metrics_adapter.builders import Clock, load, pod, pool, reading, worker


def shown(registry: CollectorRegistry) -> dict[str, float]:
    """Series with their values."""
    lines = (line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#"))
    return {series: float(value) for series, value in (line.rsplit(" ", 1) for line in lines)}


POOL = 'namespace="airflow",pool="default"'


def test_served_values_and_their_age_are_shown() -> None:
    registry = CollectorRegistry()
    pods = [pod("w-0"), pod("w-1")]
    before = reading(pods, [worker("w-0"), worker("w-1")])
    busy = load(pods, [worker("w-0", 3)], last=before)
    states = [PoolState(pool=busy.pool, load=busy, age_s=2.5), PoolState(pool=pool("unmeasured"))]
    Telemetry(registry).show_pools(lambda: states)
    series = shown(registry)
    assert series[f"metrics_adapter_values_age_seconds{{{POOL}}}"] == 2.5
    assert series[f"metrics_adapter_silent_workers{{{POOL}}}"] == 1
    assert series[f'metrics_adapter_value{{metric="celery_demand",{POOL}}}'] == 11
    assert series[f'metrics_adapter_value{{metric="celery_load_factor",{POOL}}}'] == 0.688
    assert not any("unmeasured" in name for name in series)
    states.clear()
    assert not any("airflow" in name for name in shown(registry))


def test_refreshes_and_requests_are_counted() -> None:
    registry = CollectorRegistry()
    telemetry = Telemetry(registry)
    telemetry.refreshed(pool(), seconds=0.04, failure=None)
    telemetry.refreshed(pool(), seconds=3.0, failure="broker")
    telemetry.requested(kind="metric", code=503)
    series = shown(registry)
    assert series[f"metrics_adapter_refresh_seconds_count{{{POOL}}}"] == 2
    assert series[f'metrics_adapter_refresh_failures_total{{{POOL},reason="broker"}}'] == 1
    assert series['metrics_adapter_requests_total{code="503",kind="metric"}'] == 1


async def test_decisions_from_memory_are_told_from_those_asked_for() -> None:
    registry = CollectorRegistry()
    cache: ReviewCache[bool] = ReviewCache(clock=Clock())
    Telemetry(registry).show_access_reviews(cache)

    async def allow() -> bool:
        return True

    for _ in range(3):
        await cache.get("k", allow)
    series = shown(registry)
    assert series['metrics_adapter_access_reviews_total{source="memory"}'] == 2
    assert series['metrics_adapter_access_reviews_total{source="api_server"}'] == 1
    assert series['metrics_adapter_access_reviews_total{source="stale"}'] == 0
    assert series['metrics_adapter_access_reviews_total{source="refused"}'] == 0
