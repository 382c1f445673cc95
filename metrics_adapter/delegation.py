"""Metrics that are not ours: asked of the delegate that the configuration names, as long as it answers.

Our own never come by here. Its discovery is looked at in the background, and the last that was seen stays
while it is away.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Protocol

from metrics_adapter.catalogue import metric_named
from metrics_adapter.circuit import Circuit
from metrics_adapter.delegate import Provider
from metrics_adapter.delegate_answers import Answer, NoAnswer
from metrics_adapter.documents import Discovery, discovery
from metrics_adapter.statuses import unavailable
from shared.pools import Delegate
from shared.settings import ConfigurationFile

log = logging.getLogger(__name__)

LOOK_EVERY_S = 30.0
LOOK_AGAIN_S = 5.0
"""After a look that found nothing."""
MOST_AT_ONCE = 32
"""Requests that may wait for a delegate; one that is slow must not fill our memory."""

Connect = Callable[[Delegate], AbstractAsyncContextManager[Provider]]


class DelegationObserver(Protocol):
    """Who wants to know what became of each request for a metric that is not ours."""

    def delegated(self, *, outcome: str) -> None: ...


class Delegation:
    """What is known of the delegate in force, and the way to it; nothing without one."""

    def __init__(
        self,
        connect: Connect,
        *,
        observer: DelegationObserver,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._observer = observer
        self._clock = clock
        self._delegate: Delegate | None = None
        self._provider: Provider | None = None
        self._circuit = Circuit()
        self._rest_began = asyncio.Event()
        self._in_flight = 0
        self._names: tuple[str, ...] = ()
        self.discovery: Discovery | None = None
        """Our metrics and those of its own discovery, as last seen; None where there are no others."""
        self.problem: str | None = None
        """Why its metrics are not served."""

    @property
    def is_answering(self) -> bool | None:
        """None without a delegate."""
        return None if self._delegate is None else self.problem is None

    async def follow(self, file: ConfigurationFile) -> None:
        """Keep to the delegate of the configuration in force, until cancelled."""
        while True:
            version, delegate = file.version, file.current.delegate
            async with asyncio.TaskGroup() as group:
                keeping = group.create_task(self.keep(delegate))
                while file.current.delegate == delegate:
                    version = await file.wait_changed(version)
                keeping.cancel()

    async def keep(self, delegate: Delegate | None) -> None:
        """Pass requests on to this one, and look at its discovery now and then, until cancelled."""
        if delegate is None:
            return
        async with self._connect(delegate) as provider:
            self._delegate, self._provider = delegate, provider
            try:
                while True:
                    await self._look(provider)
                    await self._pause()
            finally:
                self._delegate = self._provider = self.problem = None
                self._circuit = Circuit()
                self._show(())

    async def _look(self, provider: Provider) -> None:
        """Read its discovery; after a rest this is what tells whether it may be asked again."""
        try:
            names = await provider.names()
        except NoAnswer as error:
            self._found_nothing(str(error))
        except Exception:
            # Nothing that another server sends may end this one.
            log.exception("The discovery of a delegate could not be read.")
            self._found_nothing("sends a discovery that cannot be read; our log says more")
        else:
            self._circuit = self._circuit.after_look(self._clock(), found=True)
            self._show(tuple(name for name in names if metric_named(name) is None))
            self._note(None)

    def _found_nothing(self, reason: str) -> None:
        self._circuit = self._circuit.after_look(self._clock(), found=False)
        self._note(reason)

    def _show(self, names: tuple[str, ...]) -> None:
        if names != self._names:
            self._names = names
            self.discovery = discovery(names) if names else None

    async def read(self, *, namespace: str, metric: str, selector: str) -> Answer | None:
        """Its answer, or None without a delegate. Raises ApiError 503 when it gives none."""
        provider, delegate = self._provider, self._delegate
        if provider is None or delegate is None:
            return None
        if not self._circuit.is_closed or self._in_flight >= MOST_AT_ONCE:
            self._observer.delegated(outcome="refused")
            raise unavailable(self._refusal(delegate))
        self._in_flight += 1
        try:
            answer = await provider.values(namespace=namespace, metric=metric, selector=selector)
        except NoAnswer as error:
            self._observer.delegated(outcome="failed")
            self._failed(provider, str(error))
            raise unavailable(_sentence(delegate, str(error))) from error
        finally:
            self._in_flight -= 1
        self._observer.delegated(outcome="answered")
        self._answered(provider)
        return answer

    def _answered(self, provider: Provider) -> None:
        if provider is not self._provider:
            return  # it is no delegate any more
        if not self._circuit.is_closed:
            self._note(None)
        self._circuit = self._circuit.after_answer()

    def _failed(self, provider: Provider, reason: str) -> None:
        if provider is not self._provider:
            return
        was_closed = self._circuit.is_closed
        self._circuit = self._circuit.after_failure(self._clock())
        if was_closed and not self._circuit.is_closed:
            self._rest_began.set()
            self._note(reason)

    def _refusal(self, delegate: Delegate) -> str:
        if self._circuit.is_closed:
            return _sentence(delegate, f"is slow: {MOST_AT_ONCE} requests wait for it already")
        return f"{self.problem} It is left alone for a moment, and asked again by itself."

    def _note(self, reason: str | None) -> None:
        if self._delegate is None:
            return
        problem = _sentence(self._delegate, reason) if reason else None
        if problem and not self.problem:
            log.warning("%s Its metrics are not served, ours are.", problem)
        if self.problem and not problem:
            log.info("%s", _sentence(self._delegate, "answers again"))
        self.problem = problem

    async def _pause(self) -> None:
        """Until the next look; until a rest ends, should one begin meanwhile."""
        next_look = self._clock() + (LOOK_AGAIN_S if self.problem else LOOK_EVERY_S)
        while True:
            until = self._circuit.rests_until
            left_s = (next_look if until is None else until) - self._clock()
            if left_s <= 0:
                return
            self._rest_began.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._rest_began.wait()


def _sentence(delegate: Delegate, reason: str) -> str:
    return f"The delegate {delegate.title} {reason}."
