"""Remember for a few seconds what the API server answered to a review, and ask once for many at a time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class ReviewCache(Generic[Answer]):
    """Answers by key, the least recently used dropped first; errors are passed on and not remembered."""

    def __init__(self, *, clock: Callable[[], float], ttl_s: float = 10.0, size: int = 8192) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self._size = size
        self._answers: OrderedDict[str, tuple[float, Answer]] = OrderedDict()
        self._flights: dict[str, asyncio.Task[Answer]] = {}
        self.hits = 0
        """Requests that needed no call of their own."""
        self.misses = 0

    async def get(self, key: str, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """The remembered answer, or that of `ask`, which runs once for all who wait for this key."""
        remembered = self._answers.get(key)
        if remembered is not None and self._clock() < remembered[0]:
            self.hits += 1
            self._answers.move_to_end(key)
            return remembered[1]
        flight = self._flights.get(key)
        if flight is None:
            self.misses += 1
            flight = self._flights[key] = asyncio.create_task(self._fly(key, ask))
            flight.add_done_callback(_look_at_error)
        else:
            self.hits += 1
        # Whoever started the flight may be cancelled; the others still want the answer.
        return await asyncio.shield(flight)

    async def _fly(self, key: str, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        try:
            answer = await ask()
            self._remember(key, answer)
            return answer
        finally:
            del self._flights[key]

    def _remember(self, key: str, answer: Answer) -> None:
        self._answers[key] = (self._clock() + self._ttl_s, answer)
        self._answers.move_to_end(key)
        while len(self._answers) > self._size:
            self._answers.popitem(last=False)


def _look_at_error(flight: asyncio.Task[Answer]) -> None:
    """asyncio complains of an error that nobody saw, as when all who waited have gone."""
    with suppress(asyncio.CancelledError):
        flight.exception()
