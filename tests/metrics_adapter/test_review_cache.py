"""Answers of the API server are remembered, and asked for once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from metrics_adapter.review_cache import ReviewCache
from shared.errors import KubernetesUnavailable
from tests.metrics_adapter.builders import Clock


@dataclass
class Source:
    """Answers the number of the question; a closed gate holds it back."""

    asked: int = 0
    error: Exception | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def ask(self) -> int:
        self.asked += 1
        number = self.asked
        await self.gate.wait()
        if self.error:
            raise self.error
        return number


def cache(clock: Clock | None = None, *, size: int = 10) -> ReviewCache[int]:
    return ReviewCache(clock=clock or Clock(), ttl_s=10.0, size=size)


async def test_an_answer_is_remembered_until_it_is_too_old() -> None:
    clock, source = Clock(), Source()
    answers = cache(clock)
    assert await answers.get("a", source.ask) == 1
    clock.now = 9.9
    assert await answers.get("a", source.ask) == 1
    clock.now = 10.0
    assert await answers.get("a", source.ask) == 2
    assert (answers.hits, answers.misses) == (1, 2)


async def test_keys_are_kept_apart() -> None:
    source, answers = Source(), cache()
    assert [await answers.get(key, source.ask) for key in ("a", "b", "a")] == [1, 2, 1]


async def test_many_who_ask_at_once_ask_once() -> None:
    source, answers = Source(), cache()
    source.gate.clear()
    waiting = [asyncio.create_task(answers.get("a", source.ask)) for _ in range(16)]
    await asyncio.sleep(0)
    source.gate.set()
    assert await asyncio.gather(*waiting) == [1] * 16
    assert source.asked == 1


async def test_an_error_reaches_all_who_wait_and_is_not_remembered() -> None:
    source, answers = Source(error=KubernetesUnavailable("gone")), cache()
    results = await asyncio.gather(*(answers.get("a", source.ask) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [KubernetesUnavailable] * 3
    source.error = None
    assert await answers.get("a", source.ask) == 2


async def test_who_started_the_question_may_leave() -> None:
    """Its cancellation does not take the answer from the others."""
    source, answers = Source(), cache()
    source.gate.clear()
    first = asyncio.create_task(answers.get("a", source.ask))
    await asyncio.sleep(0)
    second = asyncio.create_task(answers.get("a", source.ask))
    await asyncio.sleep(0)
    first.cancel()
    source.gate.set()
    assert await second == 1
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_the_least_recently_used_is_dropped() -> None:
    source, answers = Source(), cache(size=2)
    for key in ("a", "b", "a", "c"):
        await answers.get(key, source.ask)
    assert [await answers.get(key, source.ask) for key in ("a", "c", "b")] == [1, 3, 4]
