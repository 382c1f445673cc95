"""Labels that tasks began with are learned between rounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from drain_hook.label_learning import LabelLearning
from shared.airflow_db import AirflowDatabase
from shared.databases import Databases
from shared.errors import DatabaseUnavailable
from shared.pools import Configuration, Pool
from tests.drain_hook.builders import AIRFLOW, pool
from tests.drain_hook.stages import node, stage
from tests.fakes.metadata import FakeMetadata, celery_task, task_key
from tests.shared.airflow_tables import sqlite_tables

LOAD = task_key("load", dag_id="sales")
PROTECTED = {"dag": {"tasks": [{"task_id": "load", "executor_config": {"drain": {"protect": True}}}]}}


def database_url(pool: Pool) -> str:
    if pool.airflow is None or pool.airflow.database is None:
        raise DatabaseUnavailable("It is no Airflow pool.")
    return pool.airflow.database


async def test_each_database_is_read_once_and_one_that_is_away_disturbs_nobody() -> None:
    """However many pools are on it; plain pools have none."""
    away = {"airflow": {"database": "postgresql://away/airflow"}}
    pools = [
        pool(name=name, workload={"name": name}, **settings)
        for name, settings in {"a": AIRFLOW, "b": away, "c": AIRFLOW, "plain": {}}.items()
    ]
    doors: dict[str, FakeMetadata] = {}

    def connect(url: str) -> FakeMetadata:
        return doors.setdefault(url, FakeMetadata(broken="away" in url))

    learning = LabelLearning(
        Databases(database_url, connect=connect), configuration=lambda: Configuration(pools=tuple(pools))
    )
    await learning.learn()
    await learning.learn()
    assert [len(door.reads) for door in doors.values()] == [2, 0]


@pytest.mark.parametrize("major", [2, 3])
async def test_a_task_whose_dag_was_written_anew_before_the_first_round_stays_protected(
    tmp_path: Path, major: int
) -> None:
    """Without its label, which its process still has; nobody scaled down in between."""
    tables = sqlite_tables(tmp_path / "airflow.db", major)
    scene = stage(1, settings=AIRFLOW, drain={"whenBusy": "proceed"})
    scene.slow_database = database = AirflowDatabase(tables.url)
    scene.celery.start(node("worker-0"), celery_task(LOAD, id="c1"))
    tables.serialize("sales", PROTECTED)
    tables.task(LOAD, "running", seconds=60, hostname="worker-0", external_executor_id="c1")
    learning = LabelLearning(
        Databases(database_url, connect=lambda _: database),
        configuration=lambda: Configuration(pools=(scene.pool,)),
    )
    await learning.learn()
    tables.write_anew("sales", {"dag": {"tasks": [{"task_id": "load"}]}})
    assert (await scene.ask(1, 0)).reason == "Protected"
    await database.close()
