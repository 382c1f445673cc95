"""One door for each metadata database, and one reading for all pools that ask at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field

import pytest

from shared.airflow_tasks import Metadata
from shared.databases import AT_ONCE, Databases
from shared.errors import DatabaseUnavailable
from shared.pools import Pool, parse_configuration
from tests.fakes.metadata import FakeMetadata, task_key

POOLS = """
pools:
  - &pool
    name: first
    namespace: airflow
    workload: {kind: Deployment, name: first}
    queues: [default]
    slotsPerWorker: 16
    broker: {url: "redis://r/0"}
    airflow: {database: "postgresql://u:p@one/airflow"}
  - {<<: *pool, name: second, workload: {name: second}}
  - {<<: *pool, name: third, workload: {name: third}, airflow: {database: "postgresql://u:p@two/airflow"}}
  - {<<: *pool, name: plain, workload: {name: plain}, airflow: null}
"""


def pools() -> tuple[Pool, ...]:
    return parse_configuration(POOLS).pools


def database_url(pool: Pool) -> str:
    if pool.airflow is None or pool.airflow.database is None:
        raise DatabaseUnavailable("It is no Airflow pool any more.")
    return pool.airflow.database


class Opening:
    """Opens databases in memory, and remembers which."""

    def __init__(self) -> None:
        self.opened: dict[str, FakeMetadata] = {}
        self.databases = Databases(database_url, connect=self)

    def __call__(self, url: str) -> FakeMetadata:
        assert url not in self.opened, "a database is opened once"
        self.opened[url] = FakeMetadata()
        return self.opened[url]

    def of(self, pool: Pool) -> FakeMetadata:
        self.databases.live(pool)
        return self.opened[database_url(pool)]

    async def recent(
        self, pool: Pool, *dag_ids: str, max_age_s: float = 1.0, timeout_s: float = 5.0
    ) -> Metadata:
        return await self.databases.recent(pool, dag_ids, max_age_s=max_age_s, timeout_s=timeout_s)


async def test_pools_in_one_database_share_its_door() -> None:
    first, second, third, _ = pools()
    databases = Opening().databases
    assert databases.live(first) is databases.live(second)
    assert databases.live(first) is not databases.live(third)


async def test_a_pool_without_a_database_is_refused() -> None:
    """Its configuration may have changed while a round went on."""
    *_, plain = pools()
    with pytest.raises(DatabaseUnavailable):
        Opening().databases.live(plain)


async def test_a_database_of_no_pool_is_closed() -> None:
    first, second, third, plain = pools()
    opening = Opening()
    kept, dropped = opening.of(first), opening.of(third)
    await opening.databases.keep_only([second, plain])
    assert (kept.is_closed, dropped.is_closed) == (False, True)


async def test_whoever_asks_at_the_same_time_gets_one_reading() -> None:
    first, second, *_ = pools()
    opening = Opening()
    answers = await asyncio.gather(*(opening.recent(pool) for pool in (first, second, first)))
    assert answers[0] is answers[1] is answers[2]
    assert len(opening.of(first).reads) == 1


async def test_a_reading_that_is_young_enough_is_not_repeated() -> None:
    first, second, *_ = pools()
    opening = Opening()
    assert await opening.recent(first) is await opening.recent(second, max_age_s=60)
    assert await opening.recent(first, max_age_s=60) is not await opening.recent(second, max_age_s=0)


async def test_labels_that_a_reading_has_not_are_asked_for() -> None:
    first, second, *_ = pools()
    opening = Opening()
    database = opening.of(first)
    database.queue(task_key(dag_id="waiting"))
    await opening.recent(first, "one", max_age_s=60)
    await opening.recent(second, "one", "waiting", max_age_s=60)
    assert database.reads == [{"one"}]
    assert (await opening.recent(second, "two", max_age_s=60)).labels.keys() >= {"two", "waiting"}


async def test_those_who_want_other_labels_than_the_reading_under_way_share_the_next() -> None:
    first, second, *_ = pools()
    opening = Opening()
    answers = await asyncio.gather(
        opening.recent(first, "one"), opening.recent(second, "two"), opening.recent(first, "three")
    )
    assert opening.of(first).reads == [{"one"}, {"two", "three"}]
    assert answers[1] is answers[2]


async def test_a_failure_is_told_to_all_who_waited_and_not_kept() -> None:
    first, second, *_ = pools()
    opening = Opening()
    database = opening.of(first)
    database.broken = True
    answers = await asyncio.gather(
        opening.recent(first, max_age_s=60), opening.recent(second, max_age_s=60), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [DatabaseUnavailable] * 2
    database.broken = False
    assert (await opening.recent(first, max_age_s=60)).instances == ()


async def test_whoever_gives_up_does_not_end_the_reading_of_others() -> None:
    first, second, *_ = pools()
    opening = Opening()
    impatient = asyncio.create_task(opening.recent(first))
    patient = asyncio.create_task(opening.recent(second))
    await asyncio.sleep(0)
    impatient.cancel()
    assert (await patient).instances == ()
    assert len(opening.of(first).reads) == 1


async def test_nobody_waits_longer_than_they_said() -> None:
    """Also not for a reading that somebody with more time began."""
    first, second, *_ = pools()
    opening = Opening()
    opening.of(first).hangs = True
    patient = asyncio.create_task(opening.recent(first, timeout_s=60))
    await asyncio.sleep(0)
    with pytest.raises(DatabaseUnavailable, match=r"within 0\.05 s"):
        await opening.recent(second, timeout_s=0.05)
    patient.cancel()
    await asyncio.gather(patient, return_exceptions=True)


@dataclass(kw_only=True)
class SlowMetadata(FakeMetadata):
    """Takes questions, and answers when it is let go on."""

    asked: list[frozenset[str]] = field(default_factory=list)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self, dag_ids: Collection[str] = (), *, timeout_s: float) -> Metadata:
        self.asked.append(frozenset(dag_ids))
        await self.may_answer.wait()
        return await super().read(dag_ids, timeout_s=timeout_s)


class Crowd:
    """Asks for live readings of one database, each question after all before it have got where they can."""

    def __init__(self) -> None:
        self.database = SlowMetadata()
        self.answers: list[asyncio.Task[Metadata]] = []
        self._readings = Databases(database_url, connect=lambda _: self.database).live(pools()[0])

    async def ask(self, *dag_ids: str, timeout_s: float = 60.0) -> None:
        reading = self._readings.read(dag_ids, timeout_s=timeout_s)
        self.answers.append(asyncio.create_task(reading))
        await self.settle()

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def failures(self) -> list[bool]:
        """Whether each answer was a failure."""
        answers = await asyncio.gather(*self.answers, return_exceptions=True)
        return [isinstance(answer, DatabaseUnavailable) for answer in answers]


@pytest.fixture
async def crowd() -> AsyncIterator[Crowd]:
    """As many have asked as are answered at once."""
    crowd = Crowd()
    for _ in range(AT_ONCE):
        await crowd.ask()
    yield crowd
    for answer in crowd.answers:
        answer.cancel()
    await asyncio.gather(*crowd.answers, return_exceptions=True)


async def test_live_readings_that_have_to_wait_are_one(crowd: Crowd) -> None:
    """It begins after all have asked for it, so it is live for each of them."""
    for dag_id in ("one", "two", "three"):
        await crowd.ask(dag_id)
    assert len(crowd.database.asked) == AT_ONCE
    crowd.database.may_answer.set()
    first, second, *others = await asyncio.gather(*crowd.answers)
    assert crowd.database.asked[AT_ONCE:] == [{"one", "two", "three"}]
    assert first is not second
    assert all(other is others[0] for other in others)


async def test_a_live_reading_is_never_an_older_one(crowd: Crowd) -> None:
    """What was sent before somebody asked may miss what they must know; and a failure is not kept."""
    crowd.database.may_answer.set()
    await crowd.ask()
    crowd.database.broken = True
    await crowd.ask()
    crowd.database.broken = False
    await crowd.ask()
    assert await crowd.failures() == [False] * AT_ONCE + [False, True, False]
    assert len(crowd.database.asked) == AT_ONCE + 3


async def test_a_live_reading_is_ended_when_the_last_who_waited_gives_up(crowd: Crowd) -> None:
    """Begun or not; the others go on, and so does whoever comes later."""
    await crowd.ask("one")
    await crowd.ask("two")
    crowd.answers[-1].cancel()
    crowd.answers[0].cancel()
    await crowd.settle()
    await crowd.ask("three")
    assert crowd.database.asked[AT_ONCE:] == [{"one", "two"}]
    crowd.answers[-1].cancel()
    await crowd.settle()
    await crowd.ask("four")
    crowd.database.may_answer.set()
    await asyncio.gather(*crowd.answers, return_exceptions=True)
    assert crowd.database.asked[AT_ONCE:] == [{"one", "two"}, {"four"}]
    assert [answer.cancelled() for answer in crowd.answers] == [True, False, False, True, True, False]


async def test_nobody_waits_longer_for_a_live_reading_than_they_said(crowd: Crowd) -> None:
    """Also not for one that has not begun, or that somebody with more time shares."""
    await crowd.ask(timeout_s=60.0)
    await crowd.ask(timeout_s=0.05)
    with pytest.raises(DatabaseUnavailable, match=r"within 0\.05 s"):
        await crowd.answers[-1]
    crowd.database.may_answer.set()
    assert (await crowd.answers[-2]).instances == ()
