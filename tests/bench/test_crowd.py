"""The crowd that stands for many workers answers as they would."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deploy.sandbox.cluster import broker
from shared.celery_control import CeleryControl
from tests.bench.crowd import EFFECT_S, Fleet, crowd, recorded_answers
from tests.brokers import rabbitmq
from tests.scenarios.crews import eventually

NAMES = [f"celery@worker-{number}" for number in range(20)]
QUEUE = "bench"


@asynccontextmanager
async def _broker(kind: str, directory: Path) -> AsyncIterator[str]:
    if kind == "rabbitmq":
        with rabbitmq(directory) as server:
            yield server.url
    else:
        async with broker(directory) as url:
            yield url


@pytest.mark.parametrize("kind", ["valkey", "rabbitmq"])
async def test_every_worker_of_the_crowd_answers_whatever_it_is_asked(tmp_path: Path, kind: str) -> None:
    """Whichever of its processes answers for it, and it does what it is told."""
    async with _broker(kind, tmp_path) as url, crowd(tmp_path, url, QUEUE, processes=2):
        control = CeleryControl(url)
        try:
            fleet = await control.inspect(NAMES, timeout_s=20)
            software = await control.software(NAMES, timeout_s=20)
            heard = await control.consumers(timeout_s=2)

            async def consumes(queues: frozenset[str]) -> bool:
                return await control.active_queues(NAMES[:1], timeout_s=20) == {NAMES[0]: queues}

            await control.cancel_consumers({NAMES[0]: [QUEUE]}, timeout_s=20)
            await eventually(lambda: consumes(frozenset()), "the consumer is cancelled")
            others = await control.active_queues(NAMES[1:], timeout_s=20)
            await control.add_consumers({NAMES[0]: [QUEUE]}, timeout_s=20)
            await eventually(lambda: consumes(frozenset({QUEUE})), "it consumes again")
        finally:
            await control.close()
    assert fleet.workers.keys() == software.keys() == heard.keys() == set(NAMES)
    assert not fleet.silent
    for worker in fleet.workers.values():
        assert (len(worker.active), worker.queues) == (2, {QUEUE})
    assert set(others.values()) == {frozenset({QUEUE})}


def test_a_worker_says_ok_before_it_obeys() -> None:
    fleet = Fleet(recorded_answers(), queue=QUEUE, is_idle=True)

    def consumed(now: float) -> list[str]:
        return [queue["name"] for queue in fleet.answer("w", "active_queues", {}, now=now)]

    assert "ok" in fleet.answer("w", "cancel_consumer", {"queue": QUEUE}, now=0.0)
    assert (consumed(0.0), consumed(EFFECT_S)) == ([QUEUE], [])
    fleet.answer("w", "add_consumer", {"queue": "other"}, now=1.0)
    assert (consumed(1.0), consumed(2.0)) == ([], ["other"])
    assert fleet.answer("w", "active", {}, now=2.0) == []


def test_each_worker_is_of_one_part_and_to_everybody_is_to_those_seen() -> None:
    parts = [Fleet(recorded_answers(), queue=QUEUE, is_idle=True, part=(number, 3)) for number in range(3)]
    assert sorted(name for part in parts for name in part.addressed(NAMES)) == sorted(NAMES)
    assert parts[0].addressed(None) == []
    mine = parts[0].addressed(NAMES)
    for name in mine:
        parts[0].answer(name, "ping", {}, now=0.0)
    assert parts[0].addressed(None) == mine
