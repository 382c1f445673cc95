"""The hook's own figures, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from drain_hook.admission import Verdict
from shared.pools import Pool

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Telemetry:
    """Counters and histograms, made in the registry that is given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._verdicts = Counter(
            "drain_hook_verdicts",
            "Answers to reviews.",
            ["pool", "namespace", "allowed", "reason"],
            registry=registry,
        )
        self._round_seconds = Histogram(
            "drain_hook_round_seconds",
            "From a review's arrival to its verdict.",
            ["allowed"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._phase_seconds = Histogram(
            "drain_hook_phase_seconds",
            "Time spent in one step of a round.",
            ["phase"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._marks = Counter(
            "drain_hook_marks", "Pods marked as victims.", ["pool", "namespace"], registry=registry
        )
        self._releases = Counter(
            "drain_hook_releases",
            "Pods given back, by why; Spared ones are those Kubernetes should have deleted.",
            ["pool", "namespace", "reason"],
            registry=registry,
        )
        self._heals = Counter(
            "drain_hook_heals",
            "Workers that did not consume as they should, mended: added or cancelled again.",
            ["pool", "namespace", "command"],
            registry=registry,
        )
        self._mispredicted = Counter(
            "drain_hook_mispredicted_victims",
            "Marked pods that Kubernetes spared: it deleted others, that were not drained.",
            ["pool", "namespace"],
            registry=registry,
        )
        self._marked_pods = Gauge(
            "drain_hook_marked_pods",
            "Pods that are being drained now.",
            ["pool", "namespace"],
            registry=registry,
        )
        self._in_flight = Gauge("drain_hook_rounds_in_flight", "Rounds being prepared.", registry=registry)
        self._is_leader = Gauge(
            "drain_hook_reconciler_is_leader", "1 where the reconciler acts.", registry=registry
        )
        self._database_failures = Counter(
            "drain_hook_database_failures",
            "Rounds that could not read Airflow's metadata database.",
            ["pool", "namespace"],
            registry=registry,
        )
        self._fails_open = Gauge(
            "drain_hook_failure_policy_ignore",
            "1 while the API server lets scale-downs through that we do not answer.",
            registry=registry,
        )

        self._old_workers = Gauge(
            "drain_hook_old_workers",
            "Workers with a celery or kombu before 5.3, with which draining was never tried.",
            ["pool", "namespace"],
            registry=registry,
        )
        self._costs_ignored = Gauge(
            "drain_hook_deletion_costs_ignored",
            "1 while this cluster does not look at pod-deletion-cost.",
            registry=registry,
        )

    def verdict(self, pool: Pool, verdict: Verdict, *, seconds: float) -> None:
        allowed = str(verdict.allowed).lower()
        self._verdicts.labels(pool.name, pool.namespace, allowed, verdict.reason).inc()
        self._round_seconds.labels(allowed).observe(seconds)

    def marked(self, pool: Pool, pods: int) -> None:
        self._marks.labels(pool.name, pool.namespace).inc(pods)

    def released(self, pool: Pool, reason: str, pods: int = 1) -> None:
        self._releases.labels(pool.name, pool.namespace, reason).inc(pods)

    def healed(self, pool: Pool, command: str, workers: int) -> None:
        self._heals.labels(pool.name, pool.namespace, command).inc(workers)

    def mispredicted(self, pool: Pool, pods: int) -> None:
        self._mispredicted.labels(pool.name, pool.namespace).inc(pods)

    def marked_now(self, pool: Pool, pods: int) -> None:
        self._marked_pods.labels(pool.name, pool.namespace).set(pods)

    def old_workers(self, pool: Pool, workers: int) -> None:
        self._old_workers.labels(pool.name, pool.namespace).set(workers)

    def database_failed(self, pool: Pool) -> None:
        self._database_failures.labels(pool.name, pool.namespace).inc()

    def leads(self, is_leader: bool) -> None:
        self._is_leader.set(is_leader)

    def ignores_costs(self, ignored: bool) -> None:
        self._costs_ignored.set(ignored)

    def fails_open(self, ignores_failures: bool) -> None:
        self._fails_open.set(ignores_failures)

    @contextmanager
    def round(self) -> Iterator[None]:
        """Counts a round as in flight."""
        with self._in_flight.track_inprogress():
            yield

    @contextmanager
    def phase(self, name: str, spent: dict[str, float]) -> Iterator[None]:
        """Measures a step; adds its seconds to `spent`, which goes into the log line of the round."""
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            spent[name] = spent.get(name, 0.0) + seconds
            self._phase_seconds.labels(name).observe(seconds)
