"""Airflow's metadata database for the model: what its workers run, as late as Airflow writes it down."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from shared.airflow_tasks import DagLabels, Metadata
from shared.workers import Label
from tests.fakes.metadata import FakeMetadata
from tests.model.fleet import PROTECTED, ModelFleet

BEHIND_S = 3.0
"""After Celery has started it, a task is still called queued for so long."""


@dataclass(kw_only=True)
class ModelDatabase(FakeMetadata):
    """Rows of all tasks that `fleet` has; labels of tasks are tags of their DAGs, as PROTECTED's."""

    fleet: ModelFleet = field(default_factory=ModelFleet)

    def __post_init__(self) -> None:
        dag_id, _, task_id = PROTECTED.partition(".")
        self.labels[dag_id] = DagLabels(tasks={task_id: Label(protect=True)})
        self.labels["heavy"] = DagLabels(dag=Label(weight=5))

    async def read(self, dag_ids: Collection[str] = (), *, timeout_s: float) -> Metadata:
        self._write_down()
        return await super().read(dag_ids, timeout_s=timeout_s)

    def _write_down(self) -> None:
        """Hosts are known once a task is called running."""
        self.clear()
        now = self.clock()
        for node, worker in self.fleet.workers.items():
            for task in worker.tasks:
                assert task.key is not None, "Airflow's workers run nothing else here"
                seconds = task.running_seconds(now)
                if task.started_at is None or seconds < BEHIND_S:
                    self.queue(task.key, celery_id=task.id, seconds=seconds)
                else:
                    host = node.partition("@")[2]
                    self.start(task.key, host=host, celery_id=task.id, seconds=seconds - BEHIND_S)
