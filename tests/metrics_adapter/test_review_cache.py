"""Answers of the API server are remembered, and asked for once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from metrics_adapter.review_cache import IN_USE_S, MOST_IN_USE, RETRY_S, ReviewCache
from shared.errors import Forbidden, KubernetesUnavailable
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


AWAY = KubernetesUnavailable("away", status=503)


@dataclass
class Verdict(Source):
    """Says what it is told to, or that it is away."""

    answer: bool = True

    async def ask(self) -> bool:
        await super().ask()
        return self.answer


def verdicts(clock: Clock) -> ReviewCache[bool]:
    """What is True lasts: five minutes longer while nobody can be asked."""
    return ReviewCache(clock=clock, ttl_s=10.0, lasts=lambda answer: answer, stale_s=300.0)


async def settled() -> None:
    """Whatever is under way and need not wait has ended."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_is_in_use_is_asked_for_before_it_runs_out() -> None:
    """So whoever asks every fifteen seconds never waits."""
    clock, api = Clock(), Verdict()
    answers = verdicts(clock)
    for second in range(60):
        clock.now = float(second)
        answers.ask_ahead()
        await settled()
        if second % 15 == 0:
            assert await answers.get("hpa", api.ask)
    assert (answers.misses, answers.hits, answers.stale) == (1, 3, 0)
    assert api.asked == 1 + 60 // 7


async def test_what_nobody_uses_any_more_is_not_asked_for() -> None:
    clock, api = Clock(), Verdict()
    answers = verdicts(clock)
    await answers.get("a", api.ask)
    for second in range(120):
        clock.now = float(second)
        answers.ask_ahead()
        await settled()
    assert api.asked == 1 + IN_USE_S // 7


async def test_denials_are_not_asked_for_ahead() -> None:
    clock, api = Clock(), Verdict(answer=False)
    answers = verdicts(clock)
    await answers.get("a", api.ask)
    clock.now = 9.0
    answers.ask_ahead()
    await settled()
    assert api.asked == 1


async def test_only_so_many_are_asked_for_ahead() -> None:
    """Who may read everything may think of any number of metrics."""
    clock, api = Clock(), Verdict()
    answers = verdicts(clock)
    for number in range(MOST_IN_USE + 50):
        await answers.get(f"{number}", api.ask)
    api.asked, clock.now = 0, 8.0
    answers.ask_ahead()
    await settled()
    assert api.asked == MOST_IN_USE


async def test_what_is_not_allowed_any_more_is_refused_as_soon_as_that_is_known() -> None:
    clock, api = Clock(), Verdict()
    answers = verdicts(clock)
    assert await answers.get("a", api.ask)
    api.answer, clock.now = False, 7.0
    answers.ask_ahead()
    await settled()
    assert not await answers.get("a", api.ask)


async def test_what_was_allowed_counts_for_a_while_without_the_api_server() -> None:
    """And not a moment longer."""
    clock, api = Clock(), Verdict()
    answers = verdicts(clock)
    await answers.get("a", api.ask)
    api.error = AWAY
    for clock.now in (10.0, 100.0, 309.9):
        assert await answers.get("a", api.ask)
    assert answers.stale == 3
    clock.now = 310.0
    with pytest.raises(KubernetesUnavailable):
        await answers.get("a", api.ask)


async def test_a_denial_never_counts_longer_than_its_time() -> None:
    clock, api = Clock(), Verdict(answer=False)
    answers = verdicts(clock)
    assert not await answers.get("a", api.ask)
    api.error, clock.now = AWAY, 10.0
    with pytest.raises(KubernetesUnavailable):
        await answers.get("a", api.ask)


async def test_what_was_never_allowed_is_not_allowed_without_the_api_server() -> None:
    clock, api = Clock(), Verdict()
    answers = verdicts(clock)
    await answers.get("a", api.ask)
    api.error, clock.now = AWAY, 20.0
    with pytest.raises(KubernetesUnavailable):
        await answers.get("b", api.ask)


async def test_an_api_server_that_is_there_and_does_not_answer_the_question_ends_what_was_allowed() -> None:
    """As when our own permission to ask is gone: only silence may be made up for."""
    clock, api = Clock(), Verdict()
    answers = verdicts(clock)
    await answers.get("a", api.ask)
    api.error, clock.now = Forbidden("no", status=403), 20.0
    with pytest.raises(Forbidden):
        await answers.get("a", api.ask)
    api.error = AWAY
    with pytest.raises(KubernetesUnavailable):
        await answers.get("a", api.ask)


async def test_an_outage_is_told_once_and_asked_about_once_a_second(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A hundred requests a second neither fill the log nor fall upon an API server that comes back."""
    clock, api = Clock(), Verdict()
    answers = verdicts(clock)
    await answers.get("a", api.ask)
    api.asked, api.error = 0, AWAY
    for number in range(300):
        clock.now = 20.0 + number / 100
        answers.ask_ahead()
        assert await answers.get("a", api.ask)
        await settled()
    assert api.asked <= 3 / RETRY_S + 1
    assert len(caplog.records) == 1
    api.error, clock.now = None, 24.0
    await answers.get("a", api.ask)
    await settled()
    assert await answers.get("a", api.ask)
    assert answers.stale == 301


async def test_nobody_waits_for_an_api_server_that_hangs_when_an_older_answer_will_do() -> None:
    """Asked ahead, it has been silent for long enough when the answer runs out."""
    clock, api = Clock(), Verdict()
    answers = verdicts(clock)
    await answers.get("a", api.ask)
    api.gate.clear()
    clock.now = 7.0
    answers.ask_ahead()
    await settled()
    clock.now = 10.0
    assert await answers.get("a", api.ask)
    assert answers.stale == 1
    api.gate.set()
    await settled()
    assert await answers.get("a", api.ask)
    assert answers.stale == 1


async def test_an_answer_is_as_old_as_its_question() -> None:
    """What was true when a slow API server looked."""
    clock, source = Clock(), Source()
    answers = cache(clock)
    source.gate.clear()
    asking = asyncio.create_task(answers.get("a", source.ask))
    await asyncio.sleep(0)
    clock.now = 9.0
    source.gate.set()
    assert await asking == 1
    clock.now = 10.0
    assert await answers.get("a", source.ask) == 2
