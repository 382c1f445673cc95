"""The private PostgreSQL server does to its clients what its methods say."""

from collections.abc import Iterator

import psycopg2
import pytest

from tests.postgres import PostgresServer, airflow_schema, postgresql


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgresql() as server:
        yield server


@pytest.mark.parametrize("major", [2, 3])
def test_it_has_the_tables_of_airflow(server: PostgresServer, major: int) -> None:
    server.create_database(f"airflow{major}", airflow_schema(major))
    assert server.execute("SELECT count(*) FROM task_instance", database=f"airflow{major}") == [(0,)]


def test_what_was_written_is_there_after_it_was_killed(server: PostgresServer) -> None:
    """Killed with a connection open: its process, too, is gone before another server starts."""
    connection = psycopg2.connect(server.url)
    server.execute("CREATE TABLE kept (it integer); INSERT INTO kept VALUES (1)")
    server.kill()
    with pytest.raises(psycopg2.OperationalError), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    connection.close()
    server.start_again()
    assert server.execute("SELECT it FROM kept") == [(1,)]


def test_nobody_is_answered_while_it_is_frozen(server: PostgresServer) -> None:
    server.freeze()
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(server.url, connect_timeout=2)
    server.thaw()
    assert server.execute("SELECT 1") == [(1,)]
