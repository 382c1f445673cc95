"""One connection for each metadata database, whatever number of pools is in it, and one reading for all."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from shared.airflow_tasks import Metadata
from shared.errors import DatabaseUnavailable
from shared.pools import Pool

_SALT = secrets.token_bytes(16)


AT_ONCE = 2
"""Live readings of one database; it has a connection for each."""


class MetadataDatabase(Protocol):
    """The door to a metadata database, as shared.airflow_db and the tests have it."""

    async def read(self, dag_ids: Collection[str] = (), *, timeout_s: float) -> Metadata: ...

    async def close(self) -> None: ...


def metadata_database(url: str) -> MetadataDatabase:
    """The door to a metadata database; its libraries are loaded for the first, and need 12 MB of memory."""
    from shared.airflow_db import AirflowDatabase

    return AirflowDatabase(url, connections=AT_ONCE)


class Databases:
    """Metadata databases by URL, opened when first asked for."""

    def __init__(
        self, database_url: Callable[[Pool], str], *, connect: Callable[[str], MetadataDatabase]
    ) -> None:
        self._database_url = database_url
        self._connect = connect
        self._databases: dict[str, tuple[MetadataDatabase, _Readings, LiveReadings]] = {}

    def name_of(self, pool: Pool) -> str:
        """Equal for pools in one database, also after a change of the configuration; nothing of its URL."""
        return hashlib.blake2b(self._database_url(pool).encode(), key=_SALT, digest_size=8).hexdigest()

    def live(self, pool: Pool) -> LiveReadings:
        """Readings that begin after they were asked for.

        Raises DatabaseUnavailable for a pool that has no database (any more).
        """
        return self._open(pool)[2]

    async def recent(
        self, pool: Pool, dag_ids: Collection[str] = (), *, max_age_s: float, timeout_s: float
    ) -> Metadata:
        """A reading that began at most `max_age_s` ago and has the labels of `dag_ids`.

        Whoever asks at the same time, for whichever pool of the database, gets the same one.
        Raises DatabaseUnavailable, after `timeout_s` at the latest.
        """
        readings = self._open(pool)[1]
        return await readings.recent(frozenset(dag_ids), max_age_s=max_age_s, timeout_s=timeout_s)

    async def keep_only(self, pools: Iterable[Pool]) -> None:
        """Close the databases of which no pool is any more; readings still under way there fail."""
        kept = {self._database_url(pool) for pool in pools if pool.airflow is not None}
        closing = [self._databases.pop(url) for url in self._databases.keys() - kept]
        await asyncio.gather(*(database.close() for database, *_ in closing))

    def _open(self, pool: Pool) -> tuple[MetadataDatabase, _Readings, LiveReadings]:
        url = self._database_url(pool)
        if url not in self._databases:
            database = self._connect(url)
            self._databases[url] = (database, _Readings(database), LiveReadings(database))
        return self._databases[url]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    began_at: float
    """By the event loop's clock."""
    dag_ids: frozenset[str]
    answer: asyncio.Task[Metadata]

    def serves(self, dag_ids: frozenset[str], *, since: float) -> bool:
        """Whether it is young enough, has these labels, and has not failed."""
        if self.began_at < since or (self.answer.done() and _failed(self.answer)):
            return False
        return dag_ids <= self.dag_ids or (
            self.answer.done() and dag_ids <= self.answer.result().labels.keys()
        )


class _Readings:
    """The readings of one database that are shared."""

    def __init__(self, database: MetadataDatabase) -> None:
        self._database = database
        self._last: _Reading | None = None
        self._wanted: frozenset[str] = frozenset()
        """Whatever was asked for since the last reading began."""

    async def recent(self, dag_ids: frozenset[str], *, max_age_s: float, timeout_s: float) -> Metadata:
        now = asyncio.get_running_loop().time
        deadline, since = now() + timeout_s, now() - max_age_s
        self._wanted |= dag_ids
        while True:
            reading = self._last
            if reading is None or (reading.answer.done() and not reading.serves(dag_ids, since=since)):
                reading = self._begin(timeout_s=max(0.0, deadline - now()))
            await asyncio.wait({reading.answer}, timeout=max(0.0, deadline - now()))
            if not reading.answer.done():
                raise DatabaseUnavailable(f"The metadata database did not answer within {timeout_s:g} s.")
            is_ours = reading.began_at >= since
            if reading.serves(dag_ids, since=since) or (is_ours and _failed(reading.answer)):
                return reading.answer.result()

    def _begin(self, *, timeout_s: float) -> _Reading:
        dag_ids, self._wanted = self._wanted, frozenset()
        began_at = asyncio.get_running_loop().time()
        answer = asyncio.create_task(self._database.read(dag_ids, timeout_s=timeout_s))
        answer.add_done_callback(_failed)
        self._last = _Reading(began_at=began_at, dag_ids=dag_ids, answer=answer)
        return self._last


@dataclass(kw_only=True)
class _Batch:
    """A reading that has not begun yet, and who waits for it."""

    dag_ids: frozenset[str] = frozenset()
    deadline: float = 0.0
    """By the event loop's clock, of whoever waits longest."""
    waiting: int = 0


class LiveReadings:
    """Readings of one database for those who must know what it says now: rounds come in crowds.

    Whoever asks while as many are under way as may be shares the next one, which begins after they asked.
    """

    def __init__(self, database: MetadataDatabase) -> None:
        self._database = database
        self._free = asyncio.Semaphore(AT_ONCE)
        self._next: tuple[_Batch, asyncio.Task[Metadata]] | None = None

    async def read(self, dag_ids: Collection[str] = (), *, timeout_s: float) -> Metadata:
        """As the database's own. Raises DatabaseUnavailable, after `timeout_s` at the latest."""
        batch, answer = self._next = self._next or self._begin()
        batch.dag_ids |= frozenset(dag_ids)
        batch.deadline = max(batch.deadline, asyncio.get_running_loop().time() + timeout_s)
        batch.waiting += 1
        try:
            await asyncio.wait({answer}, timeout=timeout_s)
        finally:
            batch.waiting -= 1
            if not batch.waiting:
                self._leave(batch)
                answer.cancel()
        if not answer.done():
            raise DatabaseUnavailable(f"The metadata database did not answer within {timeout_s:.1g} s.")
        return answer.result()

    def _begin(self) -> tuple[_Batch, asyncio.Task[Metadata]]:
        batch = _Batch()
        answer = asyncio.create_task(self._answer(batch))
        answer.add_done_callback(_failed)
        return batch, answer

    async def _answer(self, batch: _Batch) -> Metadata:
        async with self._free:
            self._leave(batch)
            left_s = batch.deadline - asyncio.get_running_loop().time()
            return await self._database.read(batch.dag_ids, timeout_s=max(0.0, left_s))

    def _leave(self, batch: _Batch) -> None:
        """Nobody may join it any more."""
        if self._next is not None and self._next[0] is batch:
            self._next = None


def _failed(answer: asyncio.Task[Metadata]) -> bool:
    """To ask is to take note of the exception, should nobody wait for it any more."""
    return answer.cancelled() or answer.exception() is not None
