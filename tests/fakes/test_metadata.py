"""The fake database answers as the real door does, and its switches do what they say."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared.airflow_db import AirflowDatabase
from shared.airflow_tasks import Metadata
from shared.errors import DatabaseUnavailable
from shared.workers import Label
from tests.fakes.metadata import FakeMetadata, task_key
from tests.shared.airflow_tables import sqlite_tables

BUILD, LOAD = task_key("build"), task_key("load", dag_id="sales", map_index=3)


@pytest.mark.parametrize("major", [2, 3])
async def test_it_answers_as_the_real_door_does(tmp_path: Path, major: int) -> None:
    """The same rows, ages and labels, and labels of the same DAGs: with rows, or asked for."""
    tables, fake = sqlite_tables(tmp_path / "airflow.db", major), FakeMetadata()
    tables.task(BUILD, "running", seconds=60, hostname="worker-0", external_executor_id="c1")
    fake.start(BUILD, host="worker-0", celery_id="c1", seconds=60)
    tables.task(LOAD, "queued", seconds=5, queue="high", executor="Celery")
    fake.queue(LOAD, queue="high", executor="Celery", seconds=5)
    tables.task(task_key("old"), "success", hostname="worker-0")
    fake.start(task_key("old"), host="worker-0")
    fake.end(task_key("old"))
    tables.tag("sales", "drain:weight=5=load", "drain:protect", "team-a")
    fake.label("sales", Label(protect=True), load=Label(weight=5))
    tables.tag("asked", "drain:protect")
    fake.label("asked", Label(protect=True))
    tables.tag("unasked", "drain:protect")
    fake.label("unasked", Label(protect=True))
    for dag_id in ("reports", "sales", "asked", "gone"):
        tables.serialize(dag_id, {"dag": {"tasks": []}})
    real = AirflowDatabase(tables.url)
    answers = [await door.read(["asked", "gone"], timeout_s=5) for door in (real, fake)]
    await real.close()
    assert _comparable(answers[0]) == _comparable(answers[1])


async def test_it_can_be_away() -> None:
    """Refused at once, or silent until the reader's deadline, as after its end."""
    database = FakeMetadata(broken=True)
    with pytest.raises(DatabaseUnavailable, match="switched off"):
        await database.read(timeout_s=5)
    database.broken, database.hangs = False, True
    started = asyncio.get_running_loop().time()
    with pytest.raises(DatabaseUnavailable, match="does not answer"):
        await database.read(timeout_s=0.05)
    assert asyncio.get_running_loop().time() >= started + 0.04
    database.hangs = False
    await database.close()
    with pytest.raises(DatabaseUnavailable):
        await database.read(timeout_s=5)


async def test_rows_grow_old() -> None:
    now = 1000.0
    database = FakeMetadata(clock=lambda: now)
    database.queue(BUILD, seconds=2)
    now += 3
    (row,) = (await database.read(timeout_s=5)).instances
    assert row.age_s == 5


def _comparable(metadata: Metadata) -> tuple[Any, ...]:
    """Without what depends on the moment."""
    rows = [replace(row, age_s=round(row.age_s or 0.0)) for row in metadata.instances]
    rows.sort(key=lambda row: str(row.key))
    return rows, metadata.labels
