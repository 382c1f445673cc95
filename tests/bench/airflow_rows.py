"""A metadata database as a big Airflow leaves it after some months: its rows, made by PostgreSQL itself."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

from tests.airflow_page import grants
from tests.postgres import PostgresServer, airflow_schema

DATABASE = "airflow"
ROLE = "celery_hpa"
"""The one that docs/airflow.md makes."""
_RECORDINGS = Path(__file__).parents[1] / "recordings" / "airflow"
_TASKS = ("s0", "s1", "s2", "s3", "s4", "s5", "prot", "grp.mapped")
"""Those of the recorded DAG, which stands for all DAGs."""
_VERSIONS = 10
"""Of each DAG, from Airflow 3 on, which keeps them."""
_COMPRESSED_EVERY = 4
"""One serialized DAG in so many is kept compressed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much there is of everything."""

    task_instances: int
    live: int
    """Of them, queued (one in four) or running; scattered over the newest tenth."""
    dags: int


def create_airflow(server: PostgresServer, *, major: int, size: Size) -> str:
    """Our role's URL of the filled database of Airflow 2 or 3, with statistics as autovacuum keeps them."""
    server.create_database(DATABASE, airflow_schema(major))
    indexes = server.execute(_INDEXES, database=DATABASE)
    for statements in (
        [f"DROP INDEX {name}" for name, _ in indexes],
        _dags(major, size),
        [_task_instances(major, size)],
        [definition for _, definition in indexes],
    ):
        # Foreign keys are not looked at: runs and bundles, which nobody asks for, are left out.
        server.execute(";\n".join(["SET session_replication_role = replica", *statements]), database=DATABASE)
    server.execute("VACUUM ANALYZE", database=DATABASE)
    server.execute(grants("postgresql"), database=DATABASE)
    return server.url_of(DATABASE, user=ROLE)


_INDEXES = """
    SELECT indexname, indexdef FROM pg_indexes
    WHERE tablename = 'task_instance'
    AND indexname NOT IN (SELECT conname FROM pg_constraint WHERE contype IN ('p', 'u'))
"""


def _dags(major: int, size: Size) -> list[str]:
    """Each with three tags; one in ten has one of ours."""
    recorded = (_RECORDINGS / f"serialized_dag_v{major}.json").read_bytes()
    document, compressed = recorded.decode().replace("'", "''"), zlib.compress(recorded).hex()
    json, is_compressed = "json" if major == 2 else "jsonb", f"n % {_COMPRESSED_EVERY} = 0"
    data = f"""
        CASE WHEN {is_compressed} THEN NULL ELSE '{document}'::{json} END,
        CASE WHEN {is_compressed} THEN '\\x{compressed}'::bytea END
    """
    every_dag = f"FROM generate_series(0, {size.dags - 1}) n"
    every_version = f"{every_dag}, generate_series(1, {_VERSIONS}) version"
    tags = f"""
        INSERT INTO dag_tag (dag_id, name)
        SELECT 'dag_' || n, CASE WHEN tag = 3 AND n % 10 = 0 THEN 'drain:protect=prot' ELSE 'team-' || tag END
        {every_dag}, generate_series(1, 3) tag
    """
    if major == 2:
        return [
            tags,
            f"""
            INSERT INTO dag (dag_id, is_paused, is_active, max_active_tasks,
                max_consecutive_failed_dag_runs, has_task_concurrency_limits)
            SELECT 'dag_' || n, false, true, 16, 0, false {every_dag}
            """,
            f"""
            INSERT INTO serialized_dag (dag_id, fileloc, fileloc_hash, dag_hash, last_updated,
                data, data_compressed)
            SELECT 'dag_' || n, '/dags/' || n || '.py', n, md5('dag_' || n), now(), {data} {every_dag}
            """,
        ]
    return [
        tags,
        f"""
        INSERT INTO dag (dag_id, is_paused, is_stale, bundle_name, timetable_type, partition_mapper_info,
            max_active_tasks, max_consecutive_failed_dag_runs, has_task_concurrency_limits)
        SELECT 'dag_' || n, false, false, 'dags-folder', 'cron', '{{}}', 16, 0, false {every_dag}
        """,
        f"""
        INSERT INTO dag_version (id, version_number, dag_id, bundle_name, created_at, last_updated)
        SELECT {_version_id("n", "version")}, version, 'dag_' || n, 'dags-folder',
            {_age("version")}, {_age("version")}
        {every_version}
        """,
        f"""
        INSERT INTO serialized_dag (id, dag_id, dag_version_id, dag_hash, created_at, last_updated,
            data, data_compressed)
        SELECT gen_random_uuid(), 'dag_' || n, {_version_id("n", "version")}, md5('dag_' || n || version),
            {_age("version")}, {_age("version")}, {data}
        {every_version}
        """,
    ]


def _version_id(dag: str, version: str) -> str:
    return f"md5('dag_' || {dag} || 'v' || {version})::uuid"


def _age(version: str) -> str:
    """Newer versions came later."""
    return f"now() - ({_VERSIONS} - {version}) * interval '7 days'"


def _task_instances(major: int, size: Size) -> str:
    """In the order in which runs are; what waits, runs or is deferred is among the newest tenth."""
    newest = size.task_instances // 10
    apart = newest // size.live
    ours = {
        2: ("job_id", "n"),
        3: (
            "id, dag_version_id, last_heartbeat_at",
            f"gen_random_uuid(), {_version_id('dag', f'({_VERSIONS} - (live % 10 = 0)::int)')}, "
            "CASE WHEN is_running THEN now() END",
        ),
    }[major]
    return f"""
        INSERT INTO task_instance (
            {ours[0]},
            dag_id, task_id, run_id, state, try_number, max_tries, hostname, unixname, pool, pool_slots,
            queue, priority_weight, operator, queued_dttm, start_date, end_date, duration, pid, executor,
            executor_config, updated_at, external_executor_id, task_display_name
        )
        SELECT
            {ours[1]},
            'dag_' || dag, task, 'scheduled__2026-01-01T00:00:00+00:00_' || run,
            CASE
                WHEN is_running THEN 'running' WHEN is_queued THEN 'queued'
                WHEN is_new AND n % 50 = 1 THEN 'scheduled' WHEN is_new AND n % 50 = 2 THEN 'deferred'
                WHEN n % 50 = 3 THEN 'failed' WHEN n % 50 = 4 THEN 'skipped' ELSE 'success'
            END,
            1, 0,
            CASE WHEN is_queued THEN '' ELSE 'airflow-worker-' || n % 100 || '.airflow-worker.airflow' END,
            'airflow', 'default_pool', 1,
            CASE WHEN n % 10 = 0 THEN 'kubernetes' WHEN n % 3 = 0 THEN 'reports' ELSE 'default' END,
            1, 'PythonOperator', began, CASE WHEN is_queued THEN NULL ELSE began + interval '1 second' END,
            CASE WHEN is_live THEN NULL ELSE began + interval '90 seconds' END,
            CASE WHEN is_live THEN NULL ELSE 89 END, 4711,
            CASE WHEN n % 20 = 1 THEN 'KubernetesExecutor' END,
            '\\x80057d942e'::bytea, began, gen_random_uuid()::text, task
        FROM (
            SELECT *, is_live AND live % 4 <> 0 AS is_running, is_live AND live % 4 = 0 AS is_queued,
                now() - CASE WHEN is_live THEN live % 7200 ELSE {size.task_instances} - n + 7200 END
                    * interval '1 second' AS began
            FROM (
                SELECT n, run, run % {size.dags} AS dag, (ARRAY{list(_TASKS)})[1 + n % {len(_TASKS)}] AS task,
                    recent >= 0 AS is_new, recent / {apart} AS live,
                    recent >= 0 AND recent % {apart} = 0 AND recent / {apart} < {size.live} AS is_live
                FROM (
                    SELECT n, n / {len(_TASKS)} AS run, n - {size.task_instances - newest} AS recent
                    FROM generate_series(0, {size.task_instances - 1}) n
                ) numbers
            ) instances
        ) aged
    """
