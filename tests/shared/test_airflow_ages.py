"""How long a task has held its slot, where start_date does not say it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared.airflow_db import AirflowDatabase
from shared.workers import TaskKey
from tests.shared.airflow_tables import sqlite_tables

KEY = TaskKey(dag_id="d", task_id="wait", run_id="r")


@pytest.mark.parametrize("major", [2, 3])
@pytest.mark.parametrize(
    ("started_s", "queued_s", "age_s"),
    [
        (3600, 3610, 3600),
        (6 * 3600, 5, 5),
        (None, 7, 7),
        (8, None, 8),
    ],
)
async def test_a_task_that_waited_elsewhere_is_as_old_as_its_slot(
    tmp_path: Path, major: int, started_s: int | None, queued_s: int | None, age_s: int
) -> None:
    """A deferred task that goes on, and a rescheduled sensor, keep the start_date of their first turn."""
    tables = sqlite_tables(tmp_path / "airflow.db", major)
    now = datetime.now(UTC)
    times = {
        name: None if seconds is None else now - timedelta(seconds=seconds)
        for name, seconds in (("start_date", started_s), ("queued_dttm", queued_s))
    }
    tables.task(KEY, "running", **times)
    database = AirflowDatabase(tables.url)
    (instance,) = (await database.read(timeout_s=10)).instances
    await database.close()
    assert instance.age_s is not None
    assert age_s - 1 < instance.age_s < age_s + 300
