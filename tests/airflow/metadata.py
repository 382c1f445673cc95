"""Airflow's metadata database as the tests need it: the role of our services, DAGs started, rows read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from tests.airflow.verdict import Instance
from tests.airflow_page import grants
from tests.postgres import PostgresServer

DATABASE, OWNER = "airflow", "airflow"
READER = "celery_hpa"
"""The role that docs/airflow.md makes."""


class MetadataDatabase:
    """One database on a server; every question has a connection of its own, since the server goes away."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        server.execute(f"CREATE ROLE {OWNER} LOGIN")
        server.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
        # Which driver a URL without one means depends on the version of SQLAlchemy.
        self.url = server.url_of(DATABASE, user=OWNER).replace("://", "+psycopg2://", 1)
        self.reader_url = server.url_of(DATABASE, user=READER)

    def admit_reader(self) -> None:
        """Make the role of docs/airflow.md, which may do what is granted there, and nothing else."""
        # PostgreSQL lets everybody connect by default.
        self.server.execute(f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC")
        self.server.execute(f"GRANT ALL ON DATABASE {DATABASE} TO {OWNER}")
        self.server.execute(grants("postgresql"), database=DATABASE)

    async def has_dags(self, dag_ids: Iterable[str]) -> bool:
        """Whether Airflow has read them all, and could run them."""
        rows = await self._execute("SELECT dag_id FROM serialized_dag")
        return set(dag_ids) <= {dag_id for (dag_id,) in rows}

    async def start(self, *dag_ids: str) -> None:
        """They run once when they are not paused any more; Airflow's own command takes seconds for that."""
        names = ", ".join(f"'{dag_id}'" for dag_id in dag_ids)
        await self._execute(f"UPDATE dag SET is_paused = false WHERE dag_id IN ({names})")

    async def instances(self) -> tuple[Instance, ...]:
        """Every task instance of every run, the tries that were repeated, too."""
        rows = await self._execute(
            "SELECT dag_id, task_id, map_index, coalesce(state, ''), try_number, hostname, "
            "extract(epoch FROM start_date)::float, extract(epoch FROM end_date)::float "
            "FROM task_instance ORDER BY 1, 2, 3"
        )
        return tuple(
            Instance(
                dag_id=dag_id,
                task_id=task_id,
                map_index=map_index,
                state=state,
                tries=tries,
                pod=pod,
                started_at=started_at,
                ended_at=ended_at,
            )
            for dag_id, task_id, map_index, state, tries, pod, started_at, ended_at in rows
        )

    async def _execute(self, sql: str) -> list[tuple]:
        return await asyncio.to_thread(self.server.execute, sql, database=DATABASE)
