"""What workers answer to remote control, read into values. Pure.

Task arguments end here, but for the ids of Airflow's task instances: Airflow's carry credentials, and nothing
past this module can log what it never saw.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from shared.airflow_payloads import parse_payload
from shared.workers import NO_LABEL, Software, Task, WorkerSnapshot

Json = Any
"""Decoded JSON that a worker sent."""

_POOLS = {"thread": "threads"}
"""Modules of celery.concurrency that are named otherwise than the --pool they serve."""


_SOFTWARE = re.compile(r"\s*software -> celery:([\w.+-]{1,40}) \([^)\n]*\) kombu:([\w.+-]{1,40}) ")
"""How a report begins; the settings that follow may hold what nobody should see, and are not looked at."""


class MalformedReply(ValueError):
    """A worker answered with an error, or with something we cannot read; says nothing of the content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """The part of a worker's `stats` that matters here."""

    slots: int
    pool: str
    pid: int


def parse_stats(reply: Json) -> Stats:
    """Slots, pool and pid of a worker."""
    with _reading("stats"):
        name = str(reply["pool"].get("implementation", "prefork")).partition(":")[0].rpartition(".")[2]
        pool = _POOLS.get(name, name)
        return Stats(slots=_slots(reply, pool), pool=pool, pid=int(reply["pid"]))


def _slots(stats: Json, pool: str) -> int:
    """Tasks it can run at a time.

    max-concurrency says what the pool was started with: an autoscaler and pool_grow leave it behind, and only
    prefork lists its processes.
    """
    if autoscaler := stats.get("autoscaler"):
        return max(1, int(autoscaler["max"]))
    if pool == "prefork" and (processes := stats["pool"].get("processes")):
        return len(processes)
    return max(1, int(stats["pool"]["max-concurrency"]))


def parse_tasks(reply: Json) -> tuple[Task, ...]:
    """The tasks of `active` or `reserved`."""
    with _reading("a list of tasks"):
        return tuple(map(_task, _list(reply)))


def parse_scheduled(reply: Json) -> tuple[Task, ...]:
    """The tasks of `scheduled`, which are held for their eta."""
    with _reading("scheduled tasks"):
        return tuple(_task(item["request"]) for item in _list(reply))


def parse_active_queues(reply: Json) -> frozenset[str]:
    """Names of the queues a worker consumes."""
    with _reading("active queues"):
        return frozenset(str(queue["name"]) for queue in _list(reply))


def parse_acknowledgement(reply: Json) -> bool:
    """True for an `ok`. It comes before the effect: only active_queues tells that a command was obeyed."""
    with _reading("an acknowledgement"):
        return "ok" in reply


def parse_software(reply: Json) -> Software:
    """The versions in the first line of a `report`. Nothing else of it is kept."""
    with _reading("a report"):
        match = _SOFTWARE.match(reply["ok"])
        if match is None:
            raise ValueError
        return Software(celery=match[1], kombu=match[2])


def snapshot(
    node: str,
    *,
    stats: Stats,
    active_queues: frozenset[str],
    scheduled: tuple[Task, ...],
    reserved: tuple[Task, ...],
    active: tuple[Task, ...],
) -> WorkerSnapshot:
    """One worker from its answers, given in the order in which it was asked.

    A task that moved on between two answers stands in both; it counts where it was seen last.
    """
    started = {task.id for task in active}
    received = started | {task.id for task in reserved}
    return WorkerSnapshot(
        node=node,
        slots=stats.slots,
        active=active,
        reserved=tuple(task for task in reserved if task.id not in started),
        eta=tuple(task for task in scheduled if task.id not in received),
        queues=active_queues,
        pool=stats.pool,
        pid=stats.pid,
    )


def _task(info: Mapping[str, Json]) -> Task:
    started_at, name = info["time_start"], str(info["name"])
    payload = parse_payload(name, info.get("args"))
    return Task(
        id=str(info["id"]),
        name=name,
        key=payload.key if payload else None,
        try_number=payload.try_number if payload else None,
        label=NO_LABEL if payload and payload.is_other else None,
        started_at=None if started_at is None else _finite(started_at),
    )


def _finite(number: Json) -> float:
    """JSON in Python knows NaN and Infinity, which sort nowhere."""
    value = float(number)
    if not math.isfinite(value):
        raise ValueError
    return value


def _list(reply: Json) -> list[Json]:
    if not isinstance(reply, list):
        raise TypeError
    return reply


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Turns whatever a strange reply causes into MalformedReply, which holds none of its content."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
        raise MalformedReply(f"A worker's reply is not {what}.") from None
