"""The tables of a metadata database as Airflow fills them, on any server and of any version."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa

from shared.configuration_values import DATABASE_SCHEMES
from shared.workers import TaskKey

RECORDINGS = Path(__file__).parents[1] / "recordings" / "airflow"
TABLES = ("task_instance", "dag_tag", "serialized_dag")
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
MYSQL_3 = (
    """CREATE TABLE task_instance (
        id CHAR(32) PRIMARY KEY, dag_id VARCHAR(250), task_id VARCHAR(250), run_id VARCHAR(250),
        map_index INT DEFAULT -1, state VARCHAR(20), queue VARCHAR(256), hostname VARCHAR(1000),
        start_date TIMESTAMP(6) NULL, queued_dttm TIMESTAMP(6) NULL, executor VARCHAR(1000),
        executor_config BLOB, external_executor_id TEXT, dag_version_id CHAR(32),
        try_number INT DEFAULT 0, INDEX ti_state (state))""",
    "CREATE TABLE dag_tag (name VARCHAR(100), dag_id VARCHAR(250), PRIMARY KEY (name, dag_id))",
    """CREATE TABLE serialized_dag (
        id CHAR(32) PRIMARY KEY, dag_id VARCHAR(250), data JSON, data_compressed LONGBLOB,
        created_at TIMESTAMP(6) NULL, last_updated TIMESTAMP(6) NULL, dag_hash VARCHAR(32),
        dag_version_id CHAR(32) UNIQUE)""",
)
"""As Airflow 3 makes them on MySQL and MariaDB, as far as it matters."""
_KEY = ("dag_id", "task_id", "run_id", "map_index")


class AirflowTables:
    """Writes what the scheduler and the workers would."""

    def __init__(self, url: str) -> None:
        self.url = url
        scheme, _, place = url.partition("://")
        self.engine = sa.create_engine(f"{DATABASE_SCHEMES[scheme]}://{place}", poolclass=sa.NullPool)
        sa.event.listen(self.engine, "connect", _without_foreign_keys)
        self._tables = sa.MetaData()
        self._tables.reflect(self.engine, only=TABLES)

    @property
    def has_versions(self) -> bool:
        return "dag_version_id" in self._tables.tables["task_instance"].columns

    def task(
        self,
        key: TaskKey,
        state: str,
        *,
        seconds: float = 0.0,
        version: UUID | None = None,
        **columns: Any,
    ) -> None:
        """A task instance that has been in its state for so many seconds."""
        since = datetime.now(UTC) - timedelta(seconds=seconds)
        values = {
            "id": uuid4(),
            "dag_id": key.dag_id,
            "task_id": key.task_id,
            "run_id": key.run_id,
            "map_index": key.map_index,
            "state": state,
            "queue": "default",
            "hostname": "pod-a" if state == "running" else "",
            "queued_dttm": since if state == "queued" else LONG_AGO,
            "start_date": since if state == "running" else None,
            "try_number": 1,
            "pool": "default_pool",
            "pool_slots": 1,
            "span_status": "not_started",
            "executor_config": b"\x80\x05this pickle must not be opened",
            "dag_version_id": version,
        }
        self._insert("task_instance", values | columns)

    def recorded(self, rows: list[dict[str, Any]]) -> None:
        """Rows as they were recorded; their times are text."""
        for row in rows:
            times = {k: row[k] and datetime.fromisoformat(row[k]) for k in ("start_date", "queued_dttm")}
            key = TaskKey(**{name: row[name] for name in _KEY})
            rest = {name: value for name, value in row.items() if name not in (*_KEY, "state")}
            self.task(key, row["state"], **(rest | times))

    def tag(self, dag_id: str, *names: str) -> None:
        for name in names:
            self._insert("dag_tag", {"dag_id": dag_id, "name": name})

    def untag(self, dag_id: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.text("DELETE FROM dag_tag WHERE dag_id = :dag_id"), {"dag_id": dag_id})

    def serialize(
        self,
        dag_id: str,
        document: Mapping[str, Any] | None = None,
        *,
        version: UUID | None = None,
        compressed: bytes | None = None,
        minutes: int = 0,
    ) -> None:
        """A serialized DAG, written so many minutes after the first; another document is another hash."""
        text = json.dumps(document)
        values = {
            "id": uuid4(),
            "dag_id": dag_id,
            "data": document,
            "data_compressed": compressed,
            "dag_hash": hashlib.md5(text.encode() + (compressed or b"")).hexdigest(),
            "created_at": LONG_AGO + timedelta(minutes=minutes),
            "last_updated": LONG_AGO + timedelta(minutes=minutes),
            "fileloc": "/dags/lab.py",
            "fileloc_hash": 1,
            "dag_version_id": version or uuid4(),
        }
        if compressed is not None and self.engine.dialect.name != "mysql":
            values["data"] = sa.null()  # None would be JSON's null
        self._insert("serialized_dag", values)

    def write_anew(self, dag_id: str, document: Mapping[str, Any]) -> None:
        """A changed DAG: over the document there was, or as a new version that its tasks name from now on."""
        version = uuid4()
        if self.has_versions:
            name = self._fitting(version)
            self.execute(f"UPDATE task_instance SET dag_version_id = '{name}' WHERE dag_id = '{dag_id}'")
        else:
            self.forget(dag_id)
        self.serialize(dag_id, document, version=version, minutes=5)

    def forget(self, dag_id: str) -> None:
        """A DAG whose file is gone."""
        self.execute(f"DELETE FROM serialized_dag WHERE dag_id = '{dag_id}'")

    def empty(self) -> None:
        for table in TABLES:
            self.execute(f"DELETE FROM {table}")

    def execute(self, sql: str) -> None:
        with self.engine.begin() as connection:
            connection.exec_driver_sql(sql)

    def _insert(self, table: str, values: Mapping[str, Any]) -> None:
        columns = self._tables.tables[table].columns
        fitting = {name: self._fitting(v) for name, v in values.items() if name in columns}
        with self.engine.begin() as connection:
            connection.execute(sa.insert(self._tables.tables[table]), fitting)

    def _fitting(self, value: Any) -> Any:
        """SQLite and MySQL have neither UUIDs nor time zones, and MariaDB's JSON is text."""
        if self.engine.dialect.name != "postgresql":
            if isinstance(value, UUID):
                return value.hex
            if isinstance(value, dict) and self.engine.dialect.name == "mysql":
                return json.dumps(value)
            if isinstance(value, datetime):
                return value.astimezone(UTC).replace(tzinfo=None)
        return value


def compressed(document: Mapping[str, Any]) -> bytes:
    """As [core] compress_serialized_dags has it."""
    return zlib.compress(json.dumps(document).encode())


def sqlite_tables(file: Path, major: int) -> AirflowTables:
    """A file with the tables of Airflow 2 or 3."""
    dump = (RECORDINGS / f"schema_{major}.sql").read_text()
    statements = dump.partition("= SQLite =")[2].partition("\n")[2]
    statements = statements.replace("CREATE TABLE sqlite_sequence(name,seq);", "")
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(f"PRAGMA synchronous = OFF; BEGIN; {statements} COMMIT;")
    return AirflowTables(f"sqlite:///{file}")


def mariadb_tables(url: str) -> AirflowTables:
    """A server's only database, with the tables of Airflow 3 in place of those it has."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for table in TABLES:
            connection.exec_driver_sql(f"DROP TABLE IF EXISTS {table}")
        for statement in MYSQL_3:
            connection.exec_driver_sql(statement)
    return AirflowTables(url)


def recording(name: str) -> Any:
    return json.loads((RECORDINGS / name).read_text())


def _without_foreign_keys(connection: Any, record: Any) -> None:
    """Runs, versions and DAGs themselves do not matter here."""
    driver = type(connection).__module__.partition(".")[0]
    statement = {
        "psycopg2": "SET SESSION session_replication_role = replica",
        "pymysql": "SET foreign_key_checks = 0, time_zone = '+00:00'",
    }.get(driver)
    if statement is not None:
        with closing(connection.cursor()) as cursor:
            cursor.execute(statement)
        connection.commit()
