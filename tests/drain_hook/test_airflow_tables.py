"""Rounds on the tables of a metadata database, through the door that services have."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.airflow_db import AirflowDatabase
from tests.drain_hook.builders import AIRFLOW
from tests.drain_hook.stages import node, stage
from tests.fakes.metadata import celery_task, task_key
from tests.shared.airflow_tables import sqlite_tables

BUILD, LOAD = task_key("build", dag_id="reports"), task_key("load", dag_id="sales")


@pytest.mark.parametrize("major", [2, 3])
async def test_tags_rows_and_a_table_that_is_away(tmp_path: Path, major: int) -> None:
    """A tag protects from the next review on; without a table nothing goes, and with it all is well again."""
    tables = sqlite_tables(tmp_path / "airflow.db", major)
    scene = stage(2, settings=AIRFLOW)
    scene.slow_database = database = AirflowDatabase(tables.url)
    for pod, key in (("worker-0", LOAD), ("worker-1", BUILD)):
        scene.celery.start(node(pod), celery_task(key, id=pod))
        tables.serialize(key.dag_id, {"dag": {"tasks": []}})
        tables.task(key, "running", seconds=60, hostname=f"{pod}.workers.apps", external_executor_id=pod)
    tables.tag("sales", "drain:protect")
    assert (await scene.ask(2, 1)).reason == "Busy"
    assert scene.marked == {"worker-1"}
    assert "runs sales.load (run manual__1)" in (await scene.ask(2, 0)).message
    tables.execute("ALTER TABLE dag_tag RENAME TO gone")
    assert (await scene.ask(2, 1)).reason == "LabelsUnknown"
    tables.execute("ALTER TABLE gone RENAME TO dag_tag")
    tables.untag("sales")
    scene.celery.silent.add(node("worker-1"))
    verdict = await scene.ask(2, 0)
    assert verdict.reason == "Busy"
    assert "worker-1 did not answer, but by Airflow's database runs reports.build" in verdict.message
    await database.close()
