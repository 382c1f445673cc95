"""How long the questions to the metadata database of a big Airflow take, and how PostgreSQL answers them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.airflow_db import AirflowDatabase
from tests.bench.airflow_rows import DATABASE, Size, create_airflow
from tests.bench.figures import Figures, Target, row
from tests.bench.statements import Sent, plan_of, sent_statements, sequential_scans
from tests.postgres import PostgresServer, postgresql

SIZE = Size(task_instances=1_000_000, live=1_600, dags=2_000)
QUICK_SIZE = Size(task_instances=100_000, live=1_600, dags=200)
LIMIT_MS = 20.0
"""For the middle one of the times that a query took."""
BIG_PAGES = 1_000
"""A table of more (8 MB) must not be read from one end to the other."""
WITHOUT_INDEX = frozenset({"serialized_dag by dag_id"})
"""Airflow 3 has no index for these. They are asked only for DAGs of which no row names a version."""
TIMEOUT_S = 30.0
_SETTINGS = ("shared_buffers=512MB", "maintenance_work_mem=256MB", "max_wal_size=8GB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One query: what it took each time it was sent, and how PostgreSQL runs it."""

    name: str
    seconds: tuple[float, ...]
    plan: str
    read_whole: frozenset[str] = frozenset()
    """Big tables that the plan reads from one end to the other."""

    @property
    def figures(self) -> Figures:
        return Figures.of(self.seconds)


async def measure_database(directory: Path, *, repeats: int) -> Sequence[Target]:
    """For Airflow 2 and 3: fill a database, read it as the services do."""
    size = QUICK_SIZE if os.environ.get("QUICK") else SIZE
    targets: list[Target] = []
    for major in (2, 3):
        started = time.perf_counter()
        with postgresql(*_SETTINGS) as server:
            url = create_airflow(server, major=major, size=size)
            print(
                f"\nAirflow {major}: {size.task_instances:,} task instances, {size.live:,} of them queued or "
                f"running, {size.dags:,} DAGs; filled in {time.perf_counter() - started:.0f} s. "
                "Milliseconds:\n"
            )
            measured = await _measure(server, url, major=major, repeats=repeats)
        plans = directory / f"plans_{major}.txt"
        plans.write_text("\n\n".join(one.plan for one in measured))
        print(f"\n{plans.read_text()}", flush=True)
        targets += targets_of(major, measured)
    return targets


def targets_of(major: int, measured: Sequence[Measured]) -> Iterator[Target]:
    """Of the middle times, and of plans; that some have no index is Airflow's doing."""
    slowest = max(measured, key=lambda one: one.figures.median_s)
    what = f"Airflow {major}, slowest query ({slowest.name}), ms"
    yield Target(what=what, measured=slowest.figures.median_s * 1000, limit=LIMIT_MS)
    whole = [one.name for one in measured if one.read_whole and one.name not in WITHOUT_INDEX]
    what = f"Airflow {major}, queries that read a big table whole"
    yield Target(what=what, measured=len(whole), limit=0)


async def _measure(server: PostgresServer, url: str, *, major: int, repeats: int) -> list[Measured]:
    """Each query that is sent; prints what reads and queries took."""
    database = AirflowDatabase(url)
    try:
        with sent_statements() as sent:
            first_s = await _read(database)
            again_s = [await _read_again(database, server, number, major=major) for number in range(repeats)]
    finally:
        await database.close()
    queries = [_measured(server, url, group) for group in _by_shape(sent)]
    print(row("", ["n", "median", "p95"]))
    print(row("the first read", Figures.of([first_s]).cells()))
    print(row("a read, when a DAG has changed", Figures.of(again_s).cells()))
    for query in queries:
        note = f"   reads all of {', '.join(query.read_whole)}" if query.read_whole else ""
        print(row(query.name, query.figures.cells()) + note)
    return queries


async def _read(database: AirflowDatabase, dag_ids: Sequence[str] = ()) -> float:
    """How long it takes, with all that is made of the answers."""
    started = time.perf_counter()
    await database.read(dag_ids, timeout_s=TIMEOUT_S)
    return time.perf_counter() - started


async def _read_again(database: AirflowDatabase, server: PostgresServer, number: int, *, major: int) -> float:
    """After a DAG that runs was stored anew; some DAGs without a row are asked for, as if they just ended."""
    key = "dag_id" if major == 2 else "dag_version_id"
    server.execute(
        f"UPDATE serialized_dag SET dag_hash = md5('changed {number}'), last_updated = now() WHERE {key} = ("
        f"SELECT {key} FROM task_instance WHERE state = 'running' ORDER BY run_id OFFSET {number} LIMIT 1)",
        database=DATABASE,
    )
    ended = server.execute(
        "SELECT dag_id FROM dag WHERE dag_id NOT IN (SELECT dag_id FROM task_instance WHERE state IN ("
        f"'running', 'queued')) ORDER BY dag_id OFFSET {number * 10} LIMIT 10",
        database=DATABASE,
    )
    return await _read(database, [dag_id for (dag_id,) in ended])


def _by_shape(sent: Sequence[Sent]) -> list[list[Sent]]:
    """Those that ask tables, in the order in which each was sent first."""
    groups: dict[str, list[Sent]] = {}
    for one in sent:
        if one.tables:
            groups.setdefault(one.shape, []).append(one)
    return list(groups.values())


def _measured(server: PostgresServer, url: str, group: Sequence[Sent]) -> Measured:
    """With the plan for the one that looked for most."""
    most = max(group, key=lambda one: len(one.parameters))
    plan = plan_of(most, url=url)
    pages = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relpages > "
    big = {name for (name,) in server.execute(f"{pages}{BIG_PAGES}", database=DATABASE)}
    return Measured(
        name=most.name,
        seconds=tuple(one.seconds for one in group),
        plan=f"{most.shape}\n\n{plan}",
        read_whole=sequential_scans(plan) & big,
    )
