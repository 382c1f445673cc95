"""A metadata database that refuses, restarts, hangs or changes: an answer in time that says what to do."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
import pytest

from shared.airflow_db import AirflowDatabase
from shared.airflow_tasks import Metadata
from shared.errors import DatabaseUnavailable
from shared.workers import Label, TaskKey
from tests.brokers import Server
from tests.pgbouncer import pgbouncer
from tests.postgres import PostgresServer, airflow_schema, postgresql
from tests.shared.airflow_tables import AirflowTables, mariadb_tables, sqlite_tables

KEY = TaskKey(dag_id="reports", task_id="build", run_id="manual__1")
OURS = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'celery-hpa'"
READABLE = "task_instance, dag_tag, serialized_dag"
Open = Callable[[str], AirflowDatabase]


@pytest.fixture(scope="module")
def airflow(postgres_server: PostgresServer) -> AirflowTables:
    """Airflow 3 with one task that runs."""
    tables = AirflowTables(postgres_server.create_database("failing", airflow_schema(3)))
    tables.task(KEY, "running")
    return tables


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    """Doors, closed at the end."""
    doors: list[AirflowDatabase] = []

    def door(url: str) -> AirflowDatabase:
        doors.append(AirflowDatabase(url, connect_timeout_s=2))
        return doors[-1]

    yield door
    for each in doors:
        await each.close()


async def refusal(door: AirflowDatabase, *, timeout_s: float = 10) -> str:
    with pytest.raises(DatabaseUnavailable) as caught:
        await door.read(timeout_s=timeout_s)
    return str(caught.value)


async def refusal_of(door: AirflowDatabase, dag_id: str) -> str:
    with pytest.raises(DatabaseUnavailable) as caught:
        await door.read([dag_id], timeout_s=10)
    return str(caught.value)


def keys(metadata: Metadata) -> list[TaskKey]:
    return [instance.key for instance in metadata.instances]


async def until_read(door: AirflowDatabase) -> Metadata:
    """The first answer after a failure."""
    while True:
        try:
            return await door.read(timeout_s=5)
        except DatabaseUnavailable:
            await asyncio.sleep(0.05)


# Permissions.


def role(server: PostgresServer, name: str, *, reads: str) -> str:
    """The URL for a new role that may read these tables and nothing else."""
    grants = f"GRANT USAGE ON SCHEMA public TO {name}; GRANT SELECT ON {reads} TO {name}"
    server.execute(f"CREATE ROLE {name} LOGIN; {grants}", database="failing")
    return server.url_of("failing", user=name)


async def test_a_role_that_may_read_three_tables_is_enough(
    airflow: AirflowTables, postgres_server: PostgresServer, opened: Open
) -> None:
    door = opened(role(postgres_server, "enough", reads=READABLE))
    assert keys(await door.read(["other"], timeout_s=10)) == [KEY]


@pytest.mark.parametrize("table", READABLE.split(", "))
async def test_a_missing_permission_is_named_with_its_grant(
    table: str, airflow: AirflowTables, postgres_server: PostgresServer, opened: Open
) -> None:
    """And needed no more once it is given, also on a connection that is open already."""
    others = ", ".join(other for other in READABLE.split(", ") if other != table)
    door = opened(role(postgres_server, f"lacks_{table}", reads=others))
    assert f"may not read {table}: GRANT SELECT ON {READABLE} to it." in await refusal(door)
    postgres_server.execute(f"GRANT SELECT ON {table} TO lacks_{table}", database="failing")
    assert keys(await door.read(timeout_s=10)) == [KEY]


async def test_the_transaction_cannot_write(airflow: AirflowTables, opened: Open) -> None:
    """Whatever the user may do."""
    airflow.execute(
        "CREATE FUNCTION writes() RETURNS text LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO real_tags VALUES ('written', 'reports'); RETURN 'x'; END $$; "
        "ALTER TABLE dag_tag RENAME TO real_tags; "
        "CREATE VIEW dag_tag AS SELECT writes() AS name, 'reports'::text AS dag_id"
    )
    try:
        assert "read-only transaction" in await refusal(opened(airflow.url))
    finally:
        airflow.execute("DROP VIEW dag_tag; ALTER TABLE real_tags RENAME TO dag_tag; DROP FUNCTION writes")


async def test_a_database_that_is_not_airflow_s_is_told(
    postgres_server: PostgresServer, opened: Open
) -> None:
    sentence = await refusal(opened(postgres_server.url))
    assert "sees no table task_instance and no table dag_tag and no table serialized_dag" in sentence


async def test_tables_that_appear_are_found(postgres_server: PostgresServer, opened: Open) -> None:
    """The hook may start before Airflow's first migration."""
    door = opened(postgres_server.create_database("late"))
    await refusal(door)
    postgres_server.execute(
        "CREATE TABLE task_instance (dag_id text, task_id text, run_id text, map_index int, state text, "
        "queue text, hostname text, queued_dttm timestamptz, start_date timestamptz);"
        "CREATE TABLE dag_tag (name text, dag_id text);"
        "CREATE TABLE serialized_dag (dag_id text, data json, dag_hash text, last_updated timestamptz)",
        database="late",
    )
    assert keys(await door.read(timeout_s=10)) == []


@pytest.fixture(scope="module")
def on_mariadb(mariadb_server: Server) -> AirflowTables:
    tables = mariadb_tables(mariadb_server.url)
    tables.task(KEY, "running")
    return tables


def mariadb_role(tables: AirflowTables, name: str, *, reads: str) -> str:
    tables.execute(f"CREATE USER {name} IDENTIFIED BY 'hunter2'")
    for table in reads.split(", "):
        tables.execute(f"GRANT SELECT ON airflow.{table} TO {name}")
    return tables.url.replace("root", f"{name}:hunter2")


async def test_a_role_on_mariadb_that_may_read_three_tables_is_enough(
    on_mariadb: AirflowTables, opened: Open
) -> None:
    door = opened(mariadb_role(on_mariadb, "enough", reads=READABLE))
    assert keys(await door.read(["other"], timeout_s=10)) == [KEY]


async def test_a_missing_permission_on_mariadb_is_named_with_its_grant(
    on_mariadb: AirflowTables, opened: Open
) -> None:
    """There, a table that one may not read cannot be told from one that is not there."""
    door = opened(mariadb_role(on_mariadb, "lacks", reads="task_instance, dag_tag"))
    sentence = await refusal(door)
    assert "sees no table serialized_dag" in sentence
    assert f"GRANT SELECT ON {READABLE}" in sentence
    on_mariadb.execute("GRANT SELECT ON airflow.serialized_dag TO lacks")
    assert keys(await door.read(timeout_s=10)) == [KEY]


# What goes away and comes back.


async def test_a_restart_between_two_readings_is_no_failure(opened: Open) -> None:
    """The connection in the pool is dead, and a new one serves."""
    with postgresql() as server:
        tables = AirflowTables(server.create_database("airflow", airflow_schema(3)))
        tables.task(KEY, "running")
        door = opened(tables.url)
        assert keys(await door.read(timeout_s=10)) == [KEY]
        server.kill()
        assert "failed: " in await refusal(door)
        server.start_again()
        assert keys(await door.read(timeout_s=10)) == [KEY]
        server.kill()
        server.start_again()
        assert keys(await door.read(timeout_s=10)) == [KEY]


async def test_a_frozen_server_ends_the_reading_and_no_thread_stays(opened: Open) -> None:
    """Its sockets are open and nothing comes; readings that follow have their own deadlines."""
    with postgresql() as server:
        tables = AirflowTables(server.create_database("airflow", airflow_schema(3)))
        tables.task(KEY, "running")
        door = opened(tables.url)
        await door.read(timeout_s=10)
        server.freeze()
        sentences = await asyncio.gather(*(refusal(door, timeout_s=0.3) for _ in range(6)))
        assert {sentence.partition(" did ")[2] for sentence in sentences} == {"not answer within 0.3 s."}
        server.thaw()
        assert keys(await until_read(door)) == [KEY]


async def test_a_frozen_mariadb_ends_the_reading(
    on_mariadb: AirflowTables, mariadb_server: Server, opened: Open
) -> None:
    door = opened(on_mariadb.url)
    await door.read(timeout_s=10)
    mariadb_server.freeze()
    try:
        for _ in range(4):
            assert "did not answer within 0.2 s" in await refusal(door, timeout_s=0.2)
    finally:
        mariadb_server.thaw()
    assert keys(await until_read(door)) == [KEY]


async def test_a_server_that_takes_connections_and_says_nothing_is_told_in_time(opened: Open) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as black_hole:
        door = opened(f"postgresql://u:secret@127.0.0.1:{black_hole.getsockname()[1]}/airflow")
        assert "did not answer within 0.3 s" in await refusal(door, timeout_s=0.3)


async def test_mariadb_that_says_nothing_is_told_in_time(opened: Open) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as black_hole:
        door = opened(f"mysql://u:secret@127.0.0.1:{black_hole.getsockname()[1]}/airflow")
        assert "did not answer within 0.3 s" in await refusal(door, timeout_s=0.3)


async def until_nothing_is_there(server: PostgresServer, *, but: str = "") -> None:
    """No connection of ours, `but` those in a state."""
    while server.execute(f"{OURS} AND state <> '{but}'"):  # noqa: ASYNC110 - the server has no event for us
        await asyncio.sleep(0.05)


@contextmanager
def locked(url: str) -> Iterator[None]:
    """As a migration locks the table."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLE task_instance IN ACCESS EXCLUSIVE MODE")
        yield


async def test_a_locked_table_ends_the_reading_here_and_at_the_server(
    airflow: AirflowTables, postgres_server: PostgresServer, opened: Open
) -> None:
    """Nothing of ours goes on waiting in the line before Airflow's own queries."""
    door = opened(airflow.url)
    with locked(airflow.url):
        await refusal(door, timeout_s=0.5)
        await until_nothing_is_there(postgres_server, but="idle")
    assert keys(await door.read(timeout_s=10)) == [KEY]


async def test_a_locked_table_on_mariadb_ends_the_reading(on_mariadb: AirflowTables, opened: Open) -> None:
    """Its connections cannot be cut; the server ends the statement, and the thread is free."""
    door = opened(on_mariadb.url)
    with on_mariadb.engine.connect() as connection:
        connection.exec_driver_sql("LOCK TABLES task_instance WRITE")
        for _ in range(3):
            await refusal(door, timeout_s=0.5)
    assert keys(await until_read(door)) == [KEY]


async def test_whoever_gives_up_frees_the_thread(airflow: AirflowTables, opened: Open) -> None:
    """A review whose API server hung up: its reading must not keep others waiting."""
    door = opened(airflow.url)
    with locked(airflow.url):
        readings = [asyncio.create_task(door.read(timeout_s=60)) for _ in range(5)]
        await asyncio.sleep(0.2)
        for reading in readings:
            reading.cancel()
        await asyncio.gather(*readings, return_exceptions=True)
    assert keys(await door.read(timeout_s=10)) == [KEY]


async def test_readings_at_the_same_time_are_answered_all(airflow: AirflowTables, opened: Open) -> None:
    door = opened(airflow.url)
    answers = await asyncio.gather(*(door.read(timeout_s=20) for _ in range(20)))
    assert [keys(answer) for answer in answers] == [[KEY]] * 20
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("airflow-db")]
    assert len(threads) <= 2 * 2, "this door's two, and perhaps two that end"


async def test_a_closed_door_refuses(airflow: AirflowTables, opened: Open) -> None:
    door = opened(airflow.url)
    await door.read(timeout_s=10)
    await door.close()
    assert "in use no more" in await refusal(door)


async def test_a_door_that_is_closed_amid_a_reading_leaves_no_connection(
    postgres_server: PostgresServer, airflow: AirflowTables, opened: Open
) -> None:
    """As when a pool is taken out of the configuration."""
    door = opened(airflow.url)
    with locked(airflow.url):
        reading = asyncio.create_task(refusal(door, timeout_s=60))
        while not postgres_server.execute(OURS):  # noqa: ASYNC110 - the server has no event for us
            await asyncio.sleep(0.02)
        await door.close()
        assert "in use no more" in await reading
    await until_nothing_is_there(postgres_server)


async def test_every_reading_under_way_is_told_that_the_door_was_closed(opened: Open) -> None:
    """Those that no thread has begun, too, and at once: whoever waits was not cancelled itself."""
    with closing(socket.create_server(("127.0.0.1", 0))) as black_hole:
        door = opened(f"postgresql://u:secret@127.0.0.1:{black_hole.getsockname()[1]}/airflow")
        readings = [asyncio.create_task(refusal(door, timeout_s=60)) for _ in range(4)]
        await asyncio.sleep(0)
        await door.close()
        async with asyncio.timeout(10):
            sentences = await asyncio.gather(*readings)
    assert all("is in use no more" in sentence for sentence in sentences)


async def test_whoever_is_cancelled_amid_a_reading_is_cancelled(opened: Open) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as black_hole:
        door = opened(f"postgresql://u:secret@127.0.0.1:{black_hole.getsockname()[1]}/airflow")
        reading = asyncio.create_task(door.read(timeout_s=60))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading


# What cannot be sent.


@pytest.mark.parametrize("dag_id", ["x\x00y", "x\ud800y"])
async def test_what_a_driver_cannot_send_is_a_failure_of_the_database(
    dag_id: str, airflow: AirflowTables, opened: Open
) -> None:
    """psycopg2 says so with errors of Python's own; its connection serves on."""
    door = opened(airflow.url)
    assert "failed: " in await refusal_of(door, dag_id)
    assert keys(await door.read(timeout_s=10)) == [KEY]


@pytest.mark.parametrize(("timeout_s", "told"), [(0.26, "within 0.3 s."), (1.04, "within 1 s.")])
async def test_a_budget_is_told_rounded(timeout_s: float, told: str, opened: Open) -> None:
    """The same failure is the same sentence, so that it is told once."""
    with closing(socket.create_server(("127.0.0.1", 0))) as black_hole:
        door = opened(f"postgresql://u:secret@127.0.0.1:{black_hole.getsockname()[1]}/airflow")
        assert (await refusal(door, timeout_s=timeout_s)).endswith(told)


# An upgrade of Airflow under way.


async def test_a_column_that_goes_or_comes_is_noticed_on_the_open_connection(
    airflow: AirflowTables, opened: Open
) -> None:
    door = opened(airflow.url)
    await door.read(timeout_s=10)
    airflow.execute("ALTER TABLE task_instance RENAME COLUMN executor TO executor_2")
    try:
        assert [i.executor for i in (await door.read(timeout_s=10)).instances] == [None]
    finally:
        airflow.execute("ALTER TABLE task_instance RENAME COLUMN executor_2 TO executor")


async def test_tables_in_another_schema_are_found_by_the_search_path(
    postgres_server: PostgresServer, opened: Open
) -> None:
    """Where the administrator sets it for the role."""
    tables = AirflowTables(postgres_server.create_database("elsewhere", airflow_schema(3)))
    tables.task(KEY, "running")
    postgres_server.execute(
        "ALTER SCHEMA public RENAME TO airflow; CREATE ROLE elsewhere LOGIN SUPERUSER; "
        "ALTER ROLE elsewhere SET search_path = airflow",
        database="elsewhere",
    )
    door = opened(postgres_server.url_of("elsewhere", user="elsewhere"))
    assert keys(await door.read(timeout_s=10)) == [KEY]


# Poolers and URLs.


async def test_pgbouncer_may_stand_between(
    airflow: AirflowTables, postgres_server: PostgresServer, opened: Open
) -> None:
    """In transaction mode: what we set must not stay with a connection that others get after us."""
    with pgbouncer(postgres_server) as bouncer:
        url = f"{bouncer.url}/failing"
        doors = [opened(url), opened(url)]
        answers = await asyncio.gather(*(door.read(timeout_s=10) for door in doors * 5))
        assert [keys(answer) for answer in answers] == [[KEY]] * 10
        with closing(psycopg2.connect(url)) as other, other.cursor() as cursor:
            cursor.execute("SHOW statement_timeout")
            assert cursor.fetchone() == ("0",)
            cursor.execute("SHOW transaction_read_only")
            assert cursor.fetchone() == ("off",)
            other.rollback()


@pytest.mark.parametrize(
    "scheme",
    ["postgresql", "postgres", "postgresql+psycopg2", "postgresql+psycopg"],
)
async def test_a_url_serves_as_airflow_has_it(scheme: str, airflow: AirflowTables, opened: Open) -> None:
    door = opened(airflow.url.replace("postgresql", scheme, 1))
    assert keys(await door.read(timeout_s=10)) == [KEY]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://airflow:hunter2@127.0.0.1:1/airflow",
        "postgresql://airflow:hunter2@localhost:1/airflow?sslmode=disable&sslpassword=hunter2",
        "mysql://airflow:hunter2@127.0.0.1:1/airflow",
        "mysql+pymysql://airflow:hunter2@127.0.0.1:1/airflow?no_such_option=hunter2",
        "postgresql://airflow:hunter2@127.0.0.1:1/airflow?no_such_option=hunter2",
        "oracle://airflow:hunter2@127.0.0.1:1/airflow",
        "sqlite:////nowhere/hunter2?password=hunter2",
    ],
)
async def test_a_password_is_in_no_sentence(url: str, opened: Open) -> None:
    """Nor in what a log would print of the error's causes."""
    door = opened(url)
    with pytest.raises(DatabaseUnavailable) as caught:
        await door.read(timeout_s=10)
    assert "hunter2" not in str(caught.value).replace("/nowhere/hunter2", "")
    assert caught.value.__suppress_context__


async def test_a_refused_password_is_told_without_it(postgres_server: PostgresServer, opened: Open) -> None:
    sentence = await refusal(opened(f"postgresql://nobody:hunter2@127.0.0.1:{postgres_server.port}/postgres"))
    assert "nobody" in sentence
    assert "hunter2" not in sentence


async def test_a_file_that_is_not_there_is_not_made(tmp_path: Path, opened: Open) -> None:
    """SQLite would, and the answer would be that nothing runs."""
    await refusal(opened(f"sqlite:///{tmp_path}/none.db"))
    assert not os.listdir(tmp_path)


async def test_sqlite_is_only_read(tmp_path: Path, opened: Open) -> None:
    tables = sqlite_tables(tmp_path / "airflow.db", 3)
    tables.task(KEY, "running")
    tables.tag("reports", "drain:protect")
    (instance,) = (await opened(tables.url).read(timeout_s=10)).instances
    assert instance.label == Label(protect=True)
