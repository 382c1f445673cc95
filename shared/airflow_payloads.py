"""Which task instance of Airflow a Celery task runs, by its name and arguments. Pure.

Airflow 3 sends a workload as JSON, which holds a token that is good for the whole API; Airflow 2 sends a
command line. The ids of the task instance are taken out, and everything else ends here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from shared.workers import TaskKey

Json = Any
"""Decoded JSON that a worker sent."""

_NAMES = frozenset({"execute_workload", "execute_command"})
_RUN = ["airflow", "tasks", "run"]
_MAP_INDEX = "--map-index"
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")
"""What JSON may hold and no database: NUL, and halves of characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What a task that Airflow sent is about."""

    key: TaskKey | None = None
    """None where it runs no task instance, or does not say which."""
    try_number: int | None = None
    """Of Airflow 3; Airflow 2 does not say."""
    is_other: bool = False
    """It runs something else of Airflow, as a callback, which no label is about."""


_UNREADABLE = Payload()


def is_airflows(name: str) -> bool:
    """Whether a Celery task of this name was sent by Airflow's executor."""
    module, _, last = name.rpartition(".")
    return last in _NAMES and (module == "" or module.partition(".")[0] == "airflow")


def parse_payload(name: str, args: Json) -> Payload | None:
    """What a Celery task of Airflow is about; None for the tasks of others. Never raises."""
    if not is_airflows(name):
        return None
    if not isinstance(args, Sequence) or isinstance(args, str | bytes) or not args:
        return _UNREADABLE
    return _workload(args[0]) if name.endswith("execute_workload") else _command(args[0])


def _workload(text: Json) -> Payload:
    """Airflow 3: the workload as a JSON text."""
    try:
        workload = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return _UNREADABLE
    if not isinstance(workload, Mapping):
        return _UNREADABLE
    kind, instance = workload.get("type", "ExecuteTask"), workload.get("ti")
    if isinstance(kind, str) and kind != "ExecuteTask":
        return Payload(is_other=True)
    return _payload(instance, instance.get("map_index", -1)) if isinstance(instance, Mapping) else _UNREADABLE


def _command(arguments: Json) -> Payload:
    """Airflow 2: airflow tasks run DAG_ID TASK_ID RUN_ID … [--map-index N] …"""
    if not isinstance(arguments, list) or arguments[:3] != _RUN or len(arguments) < 6:
        return _UNREADABLE
    ids = dict(zip(("dag_id", "task_id", "run_id"), arguments[3:6], strict=True))
    options = dict(pairwise(arguments[6:])) if _are_texts(arguments) else {_MAP_INDEX: None}
    return _payload(ids, _whole(options.get(_MAP_INDEX, "-1")))


def _payload(ids: Mapping[str, Json], map_index: Json) -> Payload:
    dag_id, task_id, run_id = (ids.get(name) for name in ("dag_id", "task_id", "run_id"))
    if not _are_ids([dag_id, task_id, run_id]) or type(map_index) is not int:
        return _UNREADABLE
    try_number = ids.get("try_number")
    return Payload(
        key=TaskKey(dag_id=str(dag_id), task_id=str(task_id), run_id=str(run_id), map_index=map_index),
        try_number=try_number if type(try_number) is int else None,
    )


def _are_texts(values: Sequence[Json]) -> bool:
    return all(isinstance(value, str) and value for value in values)


def _are_ids(values: Sequence[Json]) -> bool:
    return _are_texts(values) and not any(map(_NO_TEXT.search, values))


def _whole(text: Json) -> int | None:
    try:
        return int(text)
    except (TypeError, ValueError):
        return None
