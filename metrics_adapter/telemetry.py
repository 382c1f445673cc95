"""Our own Prometheus output: how the adapter fares, and the values it serves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from metrics_adapter.catalogue import METRICS
from metrics_adapter.freshness import PoolState
from metrics_adapter.review_cache import ReviewCache
from shared.pools import Pool

_POOL = ("namespace", "pool")


class Telemetry:
    """Counts as it goes; what can be read from the state of the pools is read when Prometheus asks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._refresh_seconds = Histogram(
            "metrics_adapter_refresh_seconds",
            "Seconds that a refresh of a pool took, failed ones too.",
            _POOL,
            buckets=(0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32),
            registry=registry,
        )
        self._refresh_failures = Counter(
            "metrics_adapter_refresh_failures_total",
            "What failed in refreshes: kubernetes, broker, database, silent, timeout or bug.",
            (*_POOL, "reason"),
            registry=registry,
        )
        self._requests = Counter(
            "metrics_adapter_requests_total",
            "Requests by kind (metric, discovery, openapi, health or other) and HTTP status.",
            ("kind", "code"),
            registry=registry,
        )
        self._requested: dict[tuple[str, int], Counter] = {}
        """Looked up once: this is done at each request."""
        self._delegated = Counter(
            "metrics_adapter_delegate_requests_total",
            "Requests for metrics that are not ours, by what became of them: answered, failed or refused.",
            ("outcome",),
            registry=registry,
        )

    def refreshed(self, pool: Pool, *, seconds: float, failure: str | None) -> None:
        self._refresh_seconds.labels(pool.namespace, pool.name).observe(seconds)
        if failure is not None:
            self._refresh_failures.labels(pool.namespace, pool.name, failure).inc()

    def requested(self, *, kind: str, code: int) -> None:
        series = self._requested.get((kind, code))
        if series is None:
            series = self._requested[kind, code] = self._requests.labels(kind, str(code))
        series.inc()

    def delegated(self, *, outcome: str) -> None:
        self._delegated.labels(outcome).inc()

    def show_delegate(self, is_answering: Callable[[], bool | None]) -> None:
        """None without a delegate."""
        self._registry.register(_Delegate(is_answering))

    def show_pools(self, states: Callable[[], Iterable[PoolState]]) -> None:
        self._registry.register(_Pools(states))

    def show_access_reviews(self, cache: ReviewCache[bool]) -> None:
        self._registry.register(_AccessReviews(cache))


class _Pools(Collector):
    """Built anew for each scrape, so that a pool that left the configuration leaves no series behind."""

    def __init__(self, states: Callable[[], Iterable[PoolState]]) -> None:
        self._states = states

    def collect(self) -> Iterator[Metric]:
        age = GaugeMetricFamily("metrics_adapter_values_age_seconds", "Age of a pool's values.", labels=_POOL)
        silent = GaugeMetricFamily(
            "metrics_adapter_silent_workers",
            "Workers that should have answered the last refresh and did not.",
            labels=_POOL,
        )
        value = GaugeMetricFamily(
            "metrics_adapter_value",
            "What is served, or was before it grew too old.",
            labels=(*_POOL, "metric"),
        )
        for state in self._states():
            if state.load is None:
                continue
            labels = (state.pool.namespace, state.pool.name)
            age.add_metric(labels, state.age_s)
            silent.add_metric(labels, len(state.load.reading.silent))
            for name, metric in METRICS.items():
                for sample in metric.samples((state.load,)):
                    value.add_metric((*labels, name), sample.milli / 1000)
        yield from (age, silent, value)


class _Delegate(Collector):
    def __init__(self, is_answering: Callable[[], bool | None]) -> None:
        self._is_answering = is_answering

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "metrics_adapter_delegate_up",
            "1 while the delegate of the configuration answers, 0 while its metrics are not served.",
        )
        if (is_answering := self._is_answering()) is not None:
            up.add_metric((), is_answering)
        yield up


class _AccessReviews(Collector):
    def __init__(self, cache: ReviewCache[bool]) -> None:
        self._cache = cache

    def collect(self) -> Iterator[Metric]:
        reviews = CounterMetricFamily(
            "metrics_adapter_access_reviews",
            "Decisions on who may read a metric, by source: memory, api_server, stale while that is away, or "
            "refused to a user who makes us ask too much.",
            labels=("source",),
        )
        reviews.add_metric(("memory",), self._cache.hits)
        reviews.add_metric(("api_server",), self._cache.misses)
        reviews.add_metric(("stale",), self._cache.stale)
        reviews.add_metric(("refused",), self._cache.refused)
        yield reviews
