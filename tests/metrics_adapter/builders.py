"""Pools, pods and workers in one line each, so that a case shows only what differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from metrics_adapter.load import Load, Reading, loads, take_reading
from shared.marks import Mark
from shared.pods import Pod
from shared.pools import Configuration, Pool
from shared.workers import Fleet, Task, WorkerSnapshot

NOW = 1_800_000_000.0


@dataclass
class Clock:
    """A clock that goes when the test says so."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def pool(name: str = "default", **fields: Any) -> Pool:
    document: dict[str, Any] = {
        "name": name,
        "namespace": "airflow",
        "workload": {"name": f"{name}-worker"},
        "queues": [name],
        "slotsPerWorker": 8,
        "broker": {"url": "redis://broker/0"},
    }
    return Pool.model_validate(document | fields)


def configuration(*pools: Pool, **fields: Any) -> Configuration:
    return Configuration.model_validate({"pools": pools or (pool(),), **fields})


def pod(name: str = "w-0", *, is_draining: bool = False, **fields: Any) -> Pod:
    """Ready for an hour; `is_draining` gives it a mark."""
    uid = f"uid-{name}"
    defaults: dict[str, Any] = {
        "uid": uid,
        "namespace": "airflow",
        "ready_since": NOW - 3600,
        "mark": mark(uid) if is_draining else None,
    }
    return Pod(name=name, **(defaults | fields))


def starting_pod(name: str = "w-0", **fields: Any) -> Pod:
    """Ready for a minute: its worker may still be importing."""
    return pod(name, ready_since=NOW - 60, **fields)


def mark(pod_uid: str) -> Mark:
    return Mark(
        round="r1",
        workload_uid="uid-worker",
        pod_uid=pod_uid,
        from_replicas=2,
        to_replicas=1,
        generation=1,
        replica_set_generation=1,
        since=NOW,
        asked_at=NOW,
        queues=("default",),
        cost=-100,
    )


def tasks(count: int, *, name: str = "work", prefix: str = "t") -> tuple[Task, ...]:
    return tuple(Task(id=f"{prefix}{index}", name=name, started_at=NOW - 5) for index in range(count))


def worker(
    pod_name: str = "w-0",
    active: int | tuple[Task, ...] = 0,
    *,
    reserved: int | tuple[Task, ...] = 0,
    slots: int = 8,
    **fields: Any,
) -> WorkerSnapshot:
    return WorkerSnapshot(
        node=f"celery@{pod_name}",
        slots=slots,
        active=tasks(active) if isinstance(active, int) else active,
        reserved=tasks(reserved, prefix="r") if isinstance(reserved, int) else reserved,
        **fields,
    )


def fleet(*workers: WorkerSnapshot, silent: Iterable[str] = ()) -> Fleet:
    return Fleet(
        workers={worker.node: worker for worker in workers},
        silent=frozenset(f"celery@{name}" for name in silent),
    )


def reading(
    pods: Iterable[Pod] = (),
    workers: Iterable[WorkerSnapshot] = (),
    *,
    of: Pool | None = None,
    waiting: int | Mapping[str, int] = 0,
    last: Reading | None = None,
    broker: str = "b1",
    measured_at: float = NOW,
) -> Reading:
    """A refresh; `waiting` tasks are in the pool's first queue, or in those named."""
    of = of or pool()
    return take_reading(
        pool=of,
        source=broker,
        pods=pods,
        fleet=fleet(*workers),
        queue_lengths=waiting if isinstance(waiting, Mapping) else {of.queues[0]: waiting},
        last=last,
        measured_at=measured_at,
    )


def load(*args: Any, **fields: Any) -> Load:
    """The load of the only pool; arguments as of `reading`."""
    (only,) = loads([reading(*args, **fields)]).values()
    return only


def busy_load(demand: int, *, ready: int, slots: int = 8, target: str = "0.8", **algorithm: str) -> Load:
    """`ready` workers with `slots` each and a demand of so many slots, all of it waiting."""
    names = [f"w-{index}" for index in range(ready)]
    of = pool(slotsPerWorker=slots, algorithm={"target": target, **algorithm})
    return load(
        [pod(name) for name in names],
        [worker(name, slots=slots) for name in names],
        of=of,
        waiting=demand,
    )
