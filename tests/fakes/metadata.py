"""Airflow's metadata database in memory, behind the same doors as shared.airflow_db and shared.databases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from shared.airflow_tasks import DagLabels, Metadata, TaskInstance
from shared.errors import DatabaseUnavailable
from shared.pools import Pool
from shared.workers import NO_LABEL, Label, Task, TaskKey

AIRFLOW_2_TASK = "airflow.providers.celery.executors.celery_executor_utils.execute_command"
AIRFLOW_3_TASK = "execute_workload"


def task_key(task_id: str = "build", *, dag_id: str = "reports", map_index: int = -1) -> TaskKey:
    """Of the run `manual__1`."""
    return TaskKey(dag_id=dag_id, task_id=task_id, run_id="manual__1", map_index=map_index)


def celery_task(key: TaskKey, *, id: str = "3f2a91bc-77", seconds: float | None = 60.0) -> Task:
    """What a worker says of a task instance it runs, since a minute; None: not started."""
    started_at = None if seconds is None else time.time() - seconds
    return Task(id=id, name=AIRFLOW_3_TASK, key=key, started_at=started_at)


@dataclass(kw_only=True)
class FakeMetadata:
    """Task instances and the labels of DAGs as plain data that a test sets; rows grow old by `clock`."""

    labels: dict[str, DagLabels] = field(default_factory=dict)
    """By dag_id; DAGs that are not named have no labels."""
    broken: bool = False
    """The database cannot be reached."""
    hangs: bool = False
    """It takes connections and answers nothing, until the reader's deadline."""
    before_answer: Callable[[], None] | None = None
    """Called when a question has arrived: the place to let a row appear, or the database go away."""
    clock: Callable[[], float] = time.time
    """The database's and ours at once."""
    reads: list[frozenset[str]] = field(default_factory=list)
    """The dag_ids that were asked for beside those with rows, for each question that was answered."""
    is_closed: bool = False
    _rows: dict[TaskKey, tuple[TaskInstance, float]] = field(default_factory=dict)
    """With when they were queued or started."""

    # What Airflow does to it.

    def queue(
        self,
        key: TaskKey,
        *,
        queue: str = "default",
        executor: str | None = None,
        celery_id: str | None = None,
        try_number: int = 1,
        seconds: float = 0.0,
    ) -> None:
        """A task instance was handed to its executor so many seconds ago."""
        row = TaskInstance(
            key=key,
            state="queued",
            queue=queue,
            executor=executor,
            celery_id=celery_id,
            try_number=try_number,
        )
        self._rows[key] = (row, self.clock() - seconds)

    def start(
        self,
        key: TaskKey,
        *,
        host: str,
        queue: str = "default",
        executor: str | None = None,
        celery_id: str | None = None,
        try_number: int = 1,
        seconds: float = 0.0,
    ) -> None:
        """It has been running on the pod `host` for so many seconds."""
        row = TaskInstance(
            key=key,
            state="running",
            queue=queue,
            executor=executor,
            host=host,
            celery_id=celery_id,
            try_number=try_number,
        )
        self._rows[key] = (row, self.clock() - seconds)

    def end(self, *keys: TaskKey) -> None:
        """They succeeded or failed, are deferred, or wait for a retry: no slot is held any more."""
        for key in keys:
            self._rows.pop(key, None)

    def clear(self) -> None:
        """No task instance is queued or running."""
        self._rows.clear()

    def label(self, dag_id: str, label: Label = NO_LABEL, /, **tasks: Label) -> None:
        """Labels of a DAG, and of its tasks by task_id."""
        self.labels[dag_id] = DagLabels(dag=label, tasks=tasks)

    # The door to it.

    async def read(self, dag_ids: Collection[str] = (), *, timeout_s: float) -> Metadata:
        if self.hangs:
            await asyncio.sleep(timeout_s)
            raise DatabaseUnavailable("The database of this test does not answer.")
        await asyncio.sleep(0)
        if self.before_answer is not None:
            self.before_answer()
        if self.broken or self.is_closed:
            raise DatabaseUnavailable("The database of this test is switched off.")
        self.reads.append(frozenset(dag_ids))
        now = self.clock()
        rows = [replace(row, age_s=max(0.0, now - since)) for row, since in self._rows.values()]
        known = {row.key.dag_id for row in rows} | set(dag_ids)
        return Metadata(
            read_at=now,
            instances=tuple(
                replace(row, label=self._labels_of(row.key.dag_id).of(row.key.task_id)) for row in rows
            ),
            labels={dag_id: self._labels_of(dag_id) for dag_id in sorted(known)},
        )

    async def close(self) -> None:
        self.is_closed = True

    def _labels_of(self, dag_id: str) -> DagLabels:
        return self.labels.get(dag_id, DagLabels())


@dataclass(kw_only=True)
class FakeDatabases:
    """The one database of all Airflow pools, whose last reading serves as long as the real one's would."""

    database: FakeMetadata = field(default_factory=FakeMetadata)
    now: float = 0.0
    """The clock by which readings grow old; it goes when the test says so."""
    _last: tuple[float, Metadata] | None = None
    """With when it began."""

    def name_of(self, pool: Pool) -> str:
        return "metadata"

    async def recent(
        self, pool: Pool, dag_ids: Collection[str] = (), *, max_age_s: float, timeout_s: float
    ) -> Metadata:
        assert pool.airflow is not None, "only Airflow pools have a database"
        if self._last is not None:
            began_at, last = self._last
            if began_at >= self.now - max_age_s and last.labels.keys() >= set(dag_ids):
                return last
        began_at = self.now
        self._last = None
        metadata = await self.database.read(dag_ids, timeout_s=timeout_s)
        self._last = (began_at, metadata)
        return metadata
