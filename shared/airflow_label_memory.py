"""What the code of running tasks said when they were first seen: a process keeps the code it started with.

Airflow does not: it writes a DAG that has changed over the document there was (2.x), deletes that of a DAG
whose file is gone (2.x), or names the new version in the rows of tasks that run already (3.x, where a DAG's
bundle has no versions).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import NamedTuple

from shared.workers import Label

Instance = tuple[str, str, str, int]
"""dag_id, task_id, run_id and map_index: there are ten thousands, and a TaskKey takes longer to hash."""


class Run(NamedTuple):
    """A process that runs a task instance, and what the code says of it."""

    celery_id: str | None
    try_number: int | None
    code: Label | None
    """None where there is no such task in the code."""

    def may_be(self, other: Run) -> bool:
        """Whether nothing says that these are two processes."""
        return _may_be(self.celery_id, other.celery_id) and _may_be(self.try_number, other.try_number)

    def begun_as(self, first: Run) -> Run:
        """With what is known of either, and the code that it began with."""
        return Run(self.celery_id or first.celery_id, self.try_number or first.try_number, first.code)


class LabelMemory:
    """The code of each running task, from when it was first seen until its row leaves."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._first: Mapping[Instance, Run] = {}
        self._read_at = 0.0

    def recall(self, running: Mapping[Instance, Run], *, read_at: float) -> Mapping[Instance, Label | None]:
        """What the code of each says, or said when it was first seen; None where neither is known.

        Both count: protection adds up. `running` is all that ran at `read_at`, and is remembered.
        """
        with self._lock:
            before = self._first
            first = {key: _first(run, before.get(key)) for key, run in running.items()}
            if read_at >= self._read_at:
                self._first, self._read_at = first, read_at
        return {key: _both(first[key].code, run.code) for key, run in running.items()}


def _may_be(one: object, other: object) -> bool:
    return one == other or one is None or other is None


def _first(run: Run, before: Run | None) -> Run:
    if before is None or before.code is None or not run.may_be(before):
        return run
    return before if run == before else run.begun_as(before)


def _both(first: Label | None, now: Label | None) -> Label | None:
    return first if first is None or now is None or now is first else first.over(now)
