"""Remember for a few seconds what the API server answered to a review, and ask once for many at a time.

Some answers are worth more: they are asked for again before they run out, as long as somebody uses them, so
that nobody has to wait; and they may be relied on for a while when the API server cannot be asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from metrics_adapter.review_limits import ReviewLimits
from metrics_adapter.statuses import unavailable
from shared.errors import KubernetesError, KubernetesUnavailable

log = logging.getLogger(__name__)

AHEAD_S = 3.0
"""So long before its end an answer is asked for again."""
IN_USE_S = 40.0
"""And so long after it was used last: the HPA controller asks every 15 s, or somewhat later."""
MOST_IN_USE = 128
"""Of more than so many only the latest are asked for ahead: no caller makes us ask without end."""
PATIENCE_S = 0.5
"""How long an answer is waited for where an older one could be given."""
RETRY_S = 1.0
"""How often an API server that is away is asked again where an older answer can be given."""

Answer = TypeVar("Answer")
Ask = Callable[[], Awaitable[Answer]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remembered(Generic[Answer]):
    answer: Answer
    asked_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flight(Generic[Answer]):
    task: asyncio.Task[Answer]
    started_at: float


class ReviewCache(Generic[Answer]):
    """Answers by key, the least recently used dropped first; errors are passed on and not remembered."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        what: str = "a review",
        ttl_s: float = 10.0,
        size: int = 8192,
        lasts: Callable[[Answer], bool] = lambda answer: False,
        stale_s: float = 0.0,
        limits: ReviewLimits | None = None,
    ) -> None:
        """`what` is asked for, in a sentence; answers that `lasts` may be `stale_s` older in an outage."""
        self._clock = clock
        self._what = what
        self._ttl_s = ttl_s
        self._size = size
        self._lasts = lasts
        self._stale_s = stale_s
        self._limits = limits or ReviewLimits(clock=clock)
        self._answers: OrderedDict[str, _Remembered[Answer]] = OrderedDict()
        self._flights: dict[str, _Flight[Answer]] = {}
        self._in_use: OrderedDict[str, tuple[float, Ask[Answer]]] = OrderedDict()
        """When each that lasts was used last, and how it is asked for."""
        self._trouble: tuple[type[KubernetesError], int] | None = None
        self._retry_at = 0.0
        self.hits = 0
        """Requests that needed no call of their own."""
        self.misses = 0
        self.stale = 0
        """Requests that an older answer had to do for, as the API server could not be asked."""
        self.refused = 0
        """Requests for which the API server was not asked, since it was asked too much already."""

    async def get(self, key: str, ask: Ask[Answer], *, asker: str = "") -> Answer:
        """The remembered answer, or that of `ask`, which runs once for all who wait for this key.

        Raises ApiError 503 when `asker` asks too much.
        """
        answer = await self._get(key, ask, asker)
        if self._lasts(answer):
            self._in_use[key] = (self._clock(), ask)
            self._in_use.move_to_end(key)
            if len(self._in_use) > MOST_IN_USE:
                self._in_use.popitem(last=False)
        return answer

    async def get_once(self, ask: Ask[Answer], *, asker: str = "") -> Answer:
        """The answer of `ask`, which is not remembered; raises as `get` does."""
        self._take(asker, is_known=False)
        self.misses += 1
        try:
            return await ask()
        finally:
            self._limits.give_back(asker, is_known=False)

    async def _get(self, key: str, ask: Ask[Answer], asker: str) -> Answer:
        remembered = self._answers.get(key)
        if remembered is not None and self._age_s(remembered) < self._ttl_s:
            self.hits += 1
            self._answers.move_to_end(key)
            return remembered.answer
        if remembered is not None and self._may_be_stale(remembered):
            return await self._newer_or(remembered, key, ask, asker)
        is_new = key not in self._flights
        flight = self._limited_flight(key, ask, asker, is_known=bool(remembered and remembered.answer))
        self.misses += is_new
        self.hits += not is_new
        # Whoever started the flight may be cancelled; the others still want the answer.
        return await asyncio.shield(flight.task)

    async def _newer_or(self, old: _Remembered[Answer], key: str, ask: Ask[Answer], asker: str) -> Answer:
        """The old answer only while the API server is away or silent: any other error is one.

        So is asking too much: else whoever lost a permission could keep it by that.
        """
        if key in self._flights or self._may_ask():
            flight = self._limited_flight(key, ask, asker, is_known=True)
            patience_s = flight.started_at + PATIENCE_S - self._clock()
            if not self._is_away and patience_s > 0:
                await asyncio.wait({flight.task}, timeout=patience_s)
            if flight.task.done() and not isinstance(flight.task.exception(), KubernetesUnavailable):
                self.misses += 1
                return flight.task.result()
        self.stale += 1
        return old.answer

    async def keep_fresh(self) -> None:
        """Ask ahead for ever."""
        while True:
            await asyncio.sleep(RETRY_S)
            self.ask_ahead()

    def ask_ahead(self) -> None:
        """Ask again for what is in use and runs out soon; nobody waits for it."""
        now = self._clock()
        for key, (used_at, ask) in list(self._in_use.items()):
            remembered = self._answers.get(key)
            if remembered is None or now - used_at > IN_USE_S or not self._lasts(remembered.answer):
                del self._in_use[key]
            elif self._age_s(remembered) >= self._ttl_s - AHEAD_S and self._may_ask():
                self._flight(key, ask)

    @property
    def _is_away(self) -> bool:
        return self._trouble is not None and issubclass(self._trouble[0], KubernetesUnavailable)

    def _may_ask(self) -> bool:
        return not self._is_away or self._clock() >= self._retry_at

    def _age_s(self, remembered: _Remembered[Answer]) -> float:
        return self._clock() - remembered.asked_at

    def _may_be_stale(self, remembered: _Remembered[Answer]) -> bool:
        return self._lasts(remembered.answer) and self._age_s(remembered) < self._ttl_s + self._stale_s

    def _limited_flight(self, key: str, ask: Ask[Answer], asker: str, *, is_known: bool) -> _Flight[Answer]:
        """Where it is a new one, the asker is charged for it."""
        if key in self._flights:
            return self._flights[key]
        self._take(asker, is_known=is_known)
        flight = self._flight(key, ask)
        flight.task.add_done_callback(lambda _: self._limits.give_back(asker, is_known=is_known))
        return flight

    def _take(self, asker: str, *, is_known: bool) -> None:
        if not self._limits.take(asker, is_known=is_known):
            self.refused += 1
            raise unavailable(f"the API server is asked too often {self._what}; try again in a few seconds")

    def _flight(self, key: str, ask: Ask[Answer]) -> _Flight[Answer]:
        """The one that is under way, or a new one."""
        if key not in self._flights:
            now = self._clock()
            task = asyncio.create_task(self._fly(key, ask, now))
            task.add_done_callback(_look_at_error)
            self._flights[key] = _Flight(task=task, started_at=now)
            self._retry_at = now + RETRY_S
        return self._flights[key]

    async def _fly(self, key: str, ask: Ask[Answer], asked_at: float) -> Answer:
        try:
            answer = await ask()
        except KubernetesUnavailable as error:
            self._complain(error)
            raise
        except KubernetesError as error:
            # The API server is there and does not say yes any more: nothing older counts.
            self._answers.pop(key, None)
            self._complain(error)
            raise
        finally:
            del self._flights[key]
        self._trouble = None
        self._remember(key, _Remembered(answer=answer, asked_at=asked_at))
        return answer

    def _complain(self, error: KubernetesError) -> None:
        """Once, not at every request."""
        trouble = (type(error), error.status)
        if trouble != self._trouble:
            log.error("The API server does not say %s: %s", self._what, error)
        self._trouble = trouble

    def _remember(self, key: str, remembered: _Remembered[Answer]) -> None:
        self._answers[key] = remembered
        self._answers.move_to_end(key)
        while len(self._answers) > self._size:
            self._answers.popitem(last=False)


def _look_at_error(flight: asyncio.Task[Answer]) -> None:
    """asyncio complains of an error that nobody saw, as when all who waited have gone."""
    with suppress(asyncio.CancelledError):
        flight.exception()
