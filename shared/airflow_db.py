"""The door to Airflow's metadata database: who holds a slot or waits for one, and which labels they have.

Only airflow_connections behind it knows SQLAlchemy. Every question is a short transaction that only reads,
with statements that end by themselves; on PostgreSQL nothing is prepared and nothing is set for longer, so
that pgbouncer may stand between. Nothing is unpickled.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from shared import airflow_queries as queries
from shared.airflow_connections import Connections, Row, Transaction
from shared.airflow_deadlines import Deadline
from shared.airflow_label_cache import LabelCache, Labels
from shared.airflow_labels import TAG_PREFIX, labels_of_tags, merged, mistakes_in_tags
from shared.airflow_tasks import DagLabels, Metadata, TaskInstance
from shared.errors import DatabaseUnavailable
from shared.workers import Label, TaskKey

log = logging.getLogger(__name__)

_MOST_MISTAKES = 1_000
"""Mistakes in tags of which is remembered that they were told."""


class AirflowDatabase:
    """A metadata database of Airflow 2.9 to 3.3, for the coroutines of one event loop.

    It owns a few threads with a connection each, made when they are needed. A thread whose reading nobody
    waits for any more is stopped, its connection with it.
    """

    def __init__(self, url: str, *, connections: int = 2, connect_timeout_s: float = 5.0) -> None:
        self._connections = Connections(url, most=connections, connect_timeout_s=connect_timeout_s)
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix="airflow-db")
        self._cache = LabelCache()
        self._under_way: dict[Deadline, asyncio.Future[Metadata]] = {}
        self._told: set[str] = set()
        self._is_closed = False

    async def read(self, dag_ids: Collection[str] = (), *, timeout_s: float) -> Metadata:
        """Every task instance that is running or queued, and labels: of their DAGs, and of `dag_ids`.

        Raises DatabaseUnavailable when the database fails, and at `timeout_s` at the latest.
        """
        if self._is_closed:
            raise self._is_in_use_no_more()
        deadline, asked = Deadline(timeout_s), frozenset(dag_ids)
        answer = asyncio.wrap_future(self._threads.submit(self._read, asked, deadline))
        self._under_way[deadline] = answer
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.wait({answer})
        except TimeoutError:
            raise DatabaseUnavailable(
                f"The {self._connections.name} did not answer within {_rounded(timeout_s)} s."
            ) from None
        finally:
            deadline.end()
            answer.cancel()
            del self._under_way[deadline]
        if answer.cancelled():
            raise self._is_in_use_no_more()
        return answer.result()

    async def close(self) -> None:
        """Give up the connections; readings still under way fail."""
        self._is_closed = True
        for deadline, answer in self._under_way.items():
            deadline.end()
            answer.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._connections.close()

    def _is_in_use_no_more(self) -> DatabaseUnavailable:
        return DatabaseUnavailable(f"The {self._connections.name} is in use no more.")

    # In a thread.

    def _read(self, asked: frozenset[str], deadline: Deadline) -> Metadata:
        def work(transaction: Transaction) -> Metadata:
            return self._metadata(transaction, asked)

        return self._connections.run(work, deadline=deadline)

    def _metadata(self, transaction: Transaction, asked: frozenset[str]) -> Metadata:
        rows = transaction.ask(queries.slots(transaction.schema))
        read_at = time.time()
        dag_ids = asked.union(row["dag_id"] for row in rows)
        tags = self._tags(transaction, dag_ids)
        serialized = self._cache.read(transaction, rows=rows, dag_ids=dag_ids)
        labels = {dag: _labels(tags[dag], serialized.by_dag.get(dag, {})) for dag in sorted(dag_ids)}
        of_versions = {
            (dag, version): _labels(tags[dag], serialized.by_version[version])
            for dag, version in set(map(_dag_and_version, rows))
            if version in serialized.by_version
        }
        instances = (
            _instance(row, of_versions.get(_dag_and_version(row), labels[row["dag_id"]])) for row in rows
        )
        return Metadata(read_at=read_at, instances=tuple(instances), labels=labels)

    def _tags(self, transaction: Transaction, dag_ids: Collection[str]) -> Mapping[str, Sequence[str]]:
        """Those that may be labels, by dag_id; mistakes in them are told once."""
        tags: dict[str, list[str]] = defaultdict(list)
        for row in transaction.ask(queries.tags(prefix=TAG_PREFIX), sorted(dag_ids)):
            tags[row["dag_id"]].append(row["name"])
        for dag_id, names in tags.items():
            for mistake in mistakes_in_tags(names):
                self._tell(f"DAG {dag_id}: {mistake}")
        return tags

    def _tell(self, mistake: str) -> None:
        if mistake not in self._told and len(self._told) < _MOST_MISTAKES:
            self._told.add(mistake)
            log.warning("%s", mistake)


def _dag_and_version(row: Row) -> tuple[str, Any]:
    return row["dag_id"], row["dag_version_id"]


def _labels(tags: Sequence[str], serialized: Labels) -> DagLabels:
    """A document that nobody can read may have protected any task."""
    of_tags = labels_of_tags(tags)
    if serialized is None:
        return DagLabels(dag=Label(protect=True).over(of_tags.dag), tasks=of_tags.tasks)
    return merged(of_tags, serialized)


def _instance(row: Row, labels: DagLabels) -> TaskInstance:
    key = TaskKey(
        dag_id=row["dag_id"], task_id=row["task_id"], run_id=row["run_id"], map_index=row["map_index"]
    )
    return TaskInstance(
        key=key,
        state=row["state"],
        queue=row["queue"] or "",
        executor=row["executor"],
        host=(row["hostname"] or "").partition(".")[0],
        celery_id=row["external_executor_id"],
        try_number=row["try_number"],
        age_s=_age(row["age_s"]),
        label=labels.of(row["task_id"]),
    )


def _rounded(seconds: float) -> str:
    """A budget is never the same twice, and a sentence that varies would be told each time."""
    return f"{seconds:.1f}" if seconds < 1 else f"{seconds:.0f}"


def _age(seconds: Any) -> float | None:
    return None if seconds is None else max(0.0, float(seconds))
