"""A process that can be killed or stopped at any instant, and what it sees of the outside."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from random import Random
from typing import Any

CALLER: ContextVar[str] = ContextVar("CALLER", default="")
"""On whose behalf a call is made: a review's uid, or empty for the background."""


class Process:
    """One replica of the hook, as far as the outside can tell."""

    def __init__(self, random: Random, *, latency_s: Callable[[str], float]) -> None:
        """`latency_s`: of one way of a request, by its method."""
        self._random = random
        self._latency_s = latency_s
        self.died = asyncio.Event()
        self._may_run = asyncio.Event()
        self._may_run.set()
        self._never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._crash_in: int | None = None
        self.on_call: Callable[[str, dict[str, Any]], None] = lambda method, arguments: None
        """Told of every request as it takes effect."""

    @property
    def is_running(self) -> bool:
        return self._may_run.is_set() and not self.died.is_set()

    def kill(self) -> None:
        """Nothing of it runs any more, no `finally` either; what it has sent still arrives."""
        self.died.set()
        self._may_run.set()

    def kill_after(self, instants: int) -> None:
        """There is one before each request leaves, and one before its answer is seen."""
        self._crash_in = instants

    def spare(self) -> None:
        """It is not to die after all."""
        self._crash_in = None

    def stop(self) -> None:
        self._may_run.clear()

    def go_on(self) -> None:
        self._may_run.set()

    async def call(
        self, method: str, request: Callable[[], Awaitable[Any]], arguments: dict[str, Any]
    ) -> Any:
        await self.live()
        await asyncio.sleep(self._latency_s(method))
        self.on_call(method, arguments)
        try:
            return await request()
        finally:
            await asyncio.sleep(self._latency_s(method))
            await self.live()

    async def live(self) -> None:
        """Go on, unless this is where it ends."""
        if self._crash_in is not None:
            self._crash_in -= 1
            if self._crash_in < 0:
                self.kill()
        await self._may_run.wait()
        if self.died.is_set():
            await self._never


class Door:
    """The outside as one process sees it: `target` behind latency, and beside it what it keeps in memory."""

    def __init__(self, target: object, process: Process, **own: object) -> None:
        self._target = target
        self._process = process
        self.__dict__.update(own)

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        real = getattr(self._target, method)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._process.call(
                method, lambda: real(*args, **kwargs), {"positional": args, **kwargs}
            )

        return call
