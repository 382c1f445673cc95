"""Airflow's metadata database, as far as the check looks at it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shared.checkup.checks import check
from shared.checkup.database_look import DatabaseLook
from shared.checkup.picture import Database, Unread
from shared.checkup.report import as_text, exit_code
from shared.pools import Pool
from shared.settings import database_url_of
from tests.checkup.builders import picture, pool, pool_picture
from tests.shared.airflow_tables import sqlite_tables

PASSWORD = "open-sesame"


def airflow_pool(**airflow: Any) -> Pool:
    return pool(airflow=airflow)


def look_of(**environment: str) -> DatabaseLook:
    return DatabaseLook(url_of=lambda pool: database_url_of(pool, environment=environment), timeout_s=2)


async def test_a_pool_without_airflow_has_none() -> None:
    assert await look_of().database(pool()) is None


async def test_a_database_is_read(tmp_path: Path) -> None:
    tables = sqlite_tables(tmp_path / "airflow.db", 3)
    seen = await look_of().database(airflow_pool(database=tables.url))
    assert isinstance(seen, Database)
    assert seen.task_instances == 0
    found = check(picture(pools=(pool_picture(database=seen),)))
    assert "can be read from here; 0 tasks of Airflow" in as_text(found)
    assert exit_code(found) == 0


async def test_one_that_cannot_be_read_is_named_without_its_password() -> None:
    url = f"postgresql://airflow:{PASSWORD}@127.0.0.1:1/airflow"
    seen = await look_of().database(airflow_pool(database=url))
    assert isinstance(seen, Unread)
    found = check(picture(pools=(pool_picture(database=seen),)))
    assert "cannot be read from here" in as_text(found)
    assert PASSWORD not in as_text(found)
    assert exit_code(found) == 1


async def test_a_secret_that_is_not_here() -> None:
    seen = await look_of().database(airflow_pool(databaseFrom={"env": "NOWHERE_SET"}))
    assert isinstance(seen, Unread)
    assert "NOWHERE_SET is not set" in seen.reason
