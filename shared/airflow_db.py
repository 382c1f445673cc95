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
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from shared import airflow_queries as queries
from shared.airflow_connections import Connections, Transaction
from shared.airflow_deadlines import Deadline
from shared.airflow_label_cache import LabelCache, Serialized
from shared.airflow_label_memory import LabelMemory, Run
from shared.airflow_labels import TAG_PREFIX, UNREADABLE, labels_of_tags, merged, mistakes_in_tags
from shared.airflow_queries import Slot
from shared.airflow_tasks import UNKNOWN, DagLabels, Metadata, TaskInstance
from shared.errors import DatabaseUnavailable
from shared.workers import Label, TaskKey

log = logging.getLogger(__name__)

_MOST_MISTAKES = 1_000
"""Mistakes in tags, and tasks without code, of which is remembered that they were told."""
_NO_TAGS = DagLabels()


class AirflowDatabase:
    """A metadata database of Airflow 2.9 to 3.3, for the coroutines of one event loop.

    It owns a few threads with a connection each, made when they are needed. A thread whose reading nobody
    waits for any more is stopped, its connection with it.
    """

    def __init__(self, url: str, *, connections: int = 2, connect_timeout_s: float = 5.0) -> None:
        self._connections = Connections(url, most=connections, connect_timeout_s=connect_timeout_s)
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix="airflow-db")
        self._cache = LabelCache()
        self._memory = LabelMemory()
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
        slots = transaction.ask(queries.slots(transaction.schema))
        read_at = time.time()
        dag_ids = asked.union(slot.dag_id for slot in slots)
        tags = self._tags(transaction, dag_ids)
        serialized = self._cache.read(transaction, slots=slots, dag_ids=dag_ids)
        codes = self._codes(slots, serialized, read_at=read_at)
        return Metadata(
            read_at=read_at,
            instances=tuple(
                _instance(slot, _labelled(slot.task_id, code, tags[slot.dag_id]))
                for slot, code in zip(slots, codes, strict=True)
            ),
            labels={dag: merged(tags[dag], serialized.of_dag(dag)) for dag in sorted(dag_ids)},
        )

    def _codes(self, slots: Collection[Slot], serialized: Serialized, *, read_at: float) -> Iterator[Label]:
        """What the code of each says, and of those that run, what it said when they were first seen, too."""
        codes = [serialized.of(slot).of(slot.task_id) for slot in slots]
        running = {
            slot.instance: Run(slot.external_executor_id, slot.try_number, code)
            for slot, code in zip(slots, codes, strict=True)
            if slot.state == "running"
        }
        known = self._memory.recall(running, read_at=read_at)
        for slot, code in zip(slots, codes, strict=True):
            label = known[slot.instance] if slot.state == "running" else code
            if label is None and serialized.of(slot) is not UNREADABLE:
                self._tell(_without_code(slot))
            yield label or UNKNOWN

    def _tags(self, transaction: Transaction, dag_ids: Collection[str]) -> Mapping[str, DagLabels]:
        """What tags say, by dag_id; mistakes in them are told once."""
        names = defaultdict[str, list[str]](list)
        for tag in transaction.ask(queries.tags(prefix=TAG_PREFIX), sorted(dag_ids)):
            names[tag.dag_id].append(tag.name)
        for dag_id, of_dag in names.items():
            for mistake in mistakes_in_tags(of_dag):
                self._tell(f"DAG {dag_id}: {mistake}")
        return {dag_id: labels_of_tags(names[dag_id]) if dag_id in names else _NO_TAGS for dag_id in dag_ids}

    def _tell(self, mistake: str) -> None:
        if mistake not in self._told and len(self._told) < _MOST_MISTAKES:
            self._told.add(mistake)
            log.warning("%s", mistake)


def _without_code(slot: Slot) -> str:
    return (
        f"DAG {slot.dag_id}: its code, as Airflow has stored it, has no task {slot.task_id}, as when one is "
        "renamed or removed while it runs. It counts as protected until it has ended."
    )


def _labelled(task_id: str, code: Label, tags: DagLabels) -> Label:
    """Most DAGs have no tags of ours."""
    return code if tags is _NO_TAGS else code.over(tags.of(task_id))


def _instance(slot: Slot, label: Label) -> TaskInstance:
    dag_id, task_id, run_id, map_index = slot.instance
    return TaskInstance(
        key=TaskKey(dag_id=dag_id, task_id=task_id, run_id=run_id, map_index=map_index),
        state=slot.state,
        queue=slot.queue or "",
        executor=slot.executor,
        host=(slot.hostname or "").partition(".")[0],
        celery_id=slot.external_executor_id,
        try_number=slot.try_number,
        age_s=_age(slot.age_s),
        label=label,
    )


def _rounded(seconds: float) -> str:
    """A budget is never the same twice, and a sentence that varies would be told each time."""
    return f"{seconds:.1f}" if seconds < 1 else f"{seconds:.0f}"


def _age(seconds: Any) -> float | None:
    return None if seconds is None else max(0.0, float(seconds))
