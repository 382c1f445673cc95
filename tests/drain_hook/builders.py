"""Values for the drain hook's tests, so that a case shows only what differs from idle, ready workers."""

from collections.abc import Iterable, Mapping
from typing import Any

from drain_hook.admission import ScaleDown
from drain_hook.planner import plan_drain
from drain_hook.plans import DrainPlan
from shared.marks import Mark
from shared.pods import Pod, ReplicaSet, Workload
from shared.pools import Pool
from shared.workers import Fleet, Task, WorkerSnapshot

NOW = 1_800_000_000.0
WORKLOAD_UID, REPLICA_SET_UID = "deployment-1", "rs-1"
AIRFLOW = {"airflow": {"database": "postgresql://airflow-db/airflow"}}
"""Makes the workers of a pool those of Airflow."""


def pool(**settings: Any) -> Pool:
    """A pool of one queue; `settings` are keys of the configuration file."""
    return Pool.model_validate(
        {
            "name": "default",
            "namespace": "apps",
            "workload": {"name": "worker"},
            "queues": ["default"],
            "slotsPerWorker": 4,
            "broker": {"url": "redis://broker"},
            "labels": [{"task": "billing.*", "protect": True}, {"task": "heavy.*", "weight": 5}],
            **settings,
        }
    )


def workload(**fields: Any) -> Workload:
    """A Deployment that wants eight replicas and has nothing to do."""
    return Workload(
        **{
            "kind": "Deployment",
            "namespace": "apps",
            "name": "worker",
            "uid": WORKLOAD_UID,
            "replicas": 8,
            "generation": 3,
            "observed_generation": 3,
            **fields,
        }
    )


def replica_set(uid: str = REPLICA_SET_UID, replicas: int = 8, **fields: Any) -> ReplicaSet:
    return ReplicaSet(**{"name": uid, "uid": uid, "replicas": replicas, "generation": 2, **fields})


def scale_down(from_replicas: int, to_replicas: int) -> ScaleDown:
    return ScaleDown(
        review_uid="review-1",
        kind="Deployment",
        namespace="apps",
        name="worker",
        workload_uid=WORKLOAD_UID,
        from_replicas=from_replicas,
        to_replicas=to_replicas,
    )


def pod(name: str, **fields: Any) -> Pod:
    """A ready pod on a host of its own, an hour old."""
    return Pod(
        **{
            "name": name,
            "uid": f"uid-{name}",
            "owner_uid": REPLICA_SET_UID,
            "host": f"host-{name}",
            "ready_since": NOW - 3600,
            "created_at": NOW - 3610,
            **fields,
        }
    )


def unready(name: str, **fields: Any) -> Pod:
    """A running pod that is not ready."""
    return pod(name, is_ready=False, ready_since=None, **fields)


def pending(name: str, **fields: Any) -> Pod:
    """A pod that has not been given to a host."""
    return unready(name, phase="Pending", host="", **fields)


def mark(name: str, from_replicas: int = 8, to_replicas: int = 6, **fields: Any) -> Mark:
    """What a round a minute ago wrote on a pod."""
    return Mark(
        **{
            "round": f"{from_replicas}to{to_replicas}-g2",
            "workload_uid": WORKLOAD_UID,
            "pod_uid": f"uid-{name}",
            "from_replicas": from_replicas,
            "to_replicas": to_replicas,
            "generation": 3,
            "replica_set_generation": 2,
            "since": NOW - 60,
            "asked_at": NOW - 15,
            "queues": ("default",),
            "cost": -1,
            **fields,
        }
    )


def marked(name: str, from_replicas: int = 8, to_replicas: int = 6, **fields: Any) -> Pod:
    """A ready pod that a round has marked."""
    record = mark(name, from_replicas, to_replicas, **fields)
    return pod(name, mark=record, has_mark_annotation=True, cost_annotation=str(record.cost))


def task(name: str = "reports.build", running_s: float | None = 60.0, id: str = "3f2a91bc-77") -> Task:
    """A task that has run for a minute; `running_s=None` has not started."""
    return Task(id=id, name=name, started_at=None if running_s is None else NOW - running_s)


def worker(name: str, *active: Task, **fields: Any) -> WorkerSnapshot:
    """An answer of the worker on the pod of this name; idle without tasks."""
    settings = {"slots": 4, "queues": frozenset({"default"}), **fields}
    return WorkerSnapshot(node=f"celery@{name}", active=active, **settings)


def fleet(*workers: WorkerSnapshot) -> Fleet:
    return Fleet(workers={worker.node: worker for worker in workers})


def names(count: int) -> list[str]:
    """w-0, w-1, …"""
    return [f"w-{index}" for index in range(count)]


def plan(
    pods: Iterable[Pod],
    to_replicas: int,
    *,
    busy: Mapping[str, Iterable[Task]] | None = None,
    silent: Iterable[str] = (),
    from_replicas: int | None = None,
    **inputs: Any,
) -> DrainPlan:
    """A plan for pods of one ReplicaSet; workers are idle unless they are `busy` or `silent`."""
    pods, busy, unheard = tuple(pods), busy or {}, set(silent)
    replicas = len(pods) if from_replicas is None else from_replicas
    answers = [worker(p.name, *busy.get(p.name, ())) for p in pods if p.name not in unheard and p.host]
    defaults: dict[str, Any] = {
        "scale_down": scale_down(replicas, to_replicas),
        "workload": workload(replicas=replicas),
        "replica_sets": [replica_set(replicas=replicas, desired_replicas=replicas)],
        "fleet": fleet(*answers),
        "pool": pool(),
        "now": NOW,
    }
    return plan_drain(pods=pods, **(defaults | inputs))


def leaving(plan: DrainPlan) -> list[str]:
    """Names of the victims."""
    return sorted(victim.pod.name for victim in plan.victims)
