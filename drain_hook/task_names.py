"""What tasks are called in sentences for people: as Airflow knows them, where they are Airflow's. Pure."""

from __future__ import annotations

from shared.airflow_payloads import is_airflows
from shared.workers import Task

_LONGEST = 80
"""Of each part of a name."""


def name_task(task: Task) -> str:
    """`reports.build (3f2a91bc)`; one of Airflow by what it is there, as `sales.load[3] (run manual__1)`."""
    if task.key is None:
        return f"{_name_without_key(task)} ({task.id[:8]})"
    index = "" if task.key.map_index < 0 else f"[{task.key.map_index}]"
    name = f"{_short(task.key.dag_id)}.{_short(task.key.task_id)}{index}"
    return f"{name} (run {_short(task.key.run_id)})"


def _name_without_key(task: Task) -> str:
    if not is_airflows(task.name):
        return _short(task.name)
    return "a task of Airflow that cannot be told" if task.label is None else "a callback of Airflow"


def _short(name: str) -> str:
    """On one line, and no longer than an Event may bear."""
    return " ".join(name.split())[:_LONGEST]
