"""A healthy picture, of which a test says only what is different."""

from __future__ import annotations

from typing import Any

from deploy.sandbox import manifests
from shared.checkup.permissions import ADAPTER, HOOK
from shared.checkup.picture import (
    Autoscaler,
    Backend,
    ExternalMetric,
    MetricAnswer,
    Picture,
    PoolPicture,
    Registration,
    Workers,
)
from shared.pods import Pod, Workload, WorkloadState
from shared.pools import Pool
from shared.workers import Fleet, Software, Task
from tests.fakes.celery import fake_worker

NOW = 10_000.0
METRIC = ExternalMetric(name="celery_load_factor", selector="pool=worker", target="Value")
METRICS = frozenset({"celery_load_factor", "celery_demand", "celery_desired_workers"})


def pool(**changes: Any) -> Pool:
    document = manifests.pool(
        name="worker", workload="worker", broker_url="redis://broker/0", slots=4, queues=("default",)
    )
    return Pool.model_validate(document | changes)


def pod(name: str, **changes: Any) -> Pod:
    fields: dict[str, Any] = {"name": name, "uid": f"uid-{name}", "ready_since": NOW - 3600}
    return Pod(**(fields | changes))


def state(*pods: Pod, **changes: Any) -> WorkloadState:
    fields: dict[str, Any] = {
        "kind": "Deployment",
        "namespace": "default",
        "name": "worker",
        "uid": "uid",
        "replicas": len(pods),
    }
    return WorkloadState(workload=Workload(**(fields | changes)), pods=pods)


def workers(*names: str, silent: tuple[str, ...] = (), **changes: Any) -> Workers:
    """Those of these pods answer, those of `silent` do not."""
    answering = {node: fake_worker(node) for node in (f"celery@{name}" for name in names)}
    fields: dict[str, Any] = {
        "fleet": Fleet(workers=answering, silent=frozenset(f"celery@{name}" for name in silent)),
        "everyone": {node: worker.queues for node, worker in answering.items()},
        "software": dict.fromkeys(answering, Software(celery="5.6.2", kombu="5.6.1")),
    }
    return Workers(**(fields | changes))


def running(node: str, *, seconds: float) -> Workers:
    """One worker with one task."""
    task = Task(id="1", name="reports.render", started_at=NOW - seconds)
    return workers(node, fleet=Fleet(workers={f"celery@{node}": fake_worker(f"celery@{node}", task)}))


def autoscaler(**changes: Any) -> Autoscaler:
    fields: dict[str, Any] = {
        "namespace": "default",
        "name": "worker",
        "kind": "Deployment",
        "target": "worker",
        "metrics": (METRIC,),
    }
    fields |= changes
    answers = {metric: MetricAnswer(pools=("worker",)) for metric in fields["metrics"]}
    return Autoscaler(**({"answers": answers} | fields))


def pool_picture(**changes: Any) -> PoolPicture:
    fields: dict[str, Any] = {
        "pool": pool(),
        "state": state(pod("worker-0"), pod("worker-1")),
        "broker": "redis://broker/0",
        "workers": workers("worker-0", "worker-1"),
    }
    return PoolPicture(**(fields | changes))


def api_service(*, condition: dict[str, str] | None = None) -> dict[str, Any]:
    available = {"type": "Available", "status": "True", "reason": "Passed"}
    return {"status": {"conditions": [available if condition is None else available | condition]}}


def picture(**changes: Any) -> Picture:
    webhooks = manifests.webhook_configuration(port=443, ca_pem=b"CA")
    fields: dict[str, Any] = {
        "taken_at": NOW,
        "namespace": "celery-hpa",
        "version": (1, 36),
        "api_service": Registration(
            document=api_service(), backends=(Backend(namespace="celery-hpa", name=ADAPTER),)
        ),
        "webhooks": Registration(document=webhooks, backends=(Backend(namespace="celery-hpa", name=HOOK),)),
        "denied": (),
        "autoscalers": (autoscaler(),),
        "metrics": METRICS,
        "pools": (pool_picture(),),
    }
    return Picture(**(fields | changes))
