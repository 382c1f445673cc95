"""Events on workloads and pods. One that is told again raises a count, as those of Kubernetes' own parts do.

What is told about one thing is one Event, with the sentence it came to last: a refused HPA asks every 15 s,
and a list of Events in which each try has its own is no use to anybody.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from shared.errors import KubernetesError, NotFound
from shared.pods import Pod, Workload

log = logging.getLogger(__name__)

COMPONENT = "celery-hpa-drain-hook"
MOST_REMEMBERED = 1000
"""Events that may be told again; an older one would be a new Event."""
RAISED_EVERY_S = 60.0
"""What is told again sooner is counted, and written with the next that is not."""


class EventWriter(Protocol):
    async def create_event(
        self, *, involved: Workload | Pod, reason: str, message: str, component: str, type: str = "Normal"
    ) -> str: ...

    async def repeat_event(self, *, namespace: str, name: str, message: str, count: int) -> None: ...


@dataclass(slots=True)
class _Told:
    """An Event that was told."""

    written_at: float
    count: int = 0
    name: str = ""
    """Empty while there is none."""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)


class Events:
    """Written in the background, for nobody waits for them."""

    def __init__(self, writer: EventWriter, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._writer = writer
        self._clock = clock
        self._told: dict[tuple[str, str, str], _Told] = {}
        """By uid of what it is on, reason, and what it is about."""
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, involved: Workload | Pod, reason: str, message: str, *, about: str, type: str) -> None:
        """Say something on `involved`; the same Event again for the same reason and `about`."""
        now, key = self._clock(), (involved.uid, reason, about)
        told = self._told.pop(key, None)
        is_due = told is None or now - told.written_at >= RAISED_EVERY_S
        told = told or _Told(written_at=now)
        told.count += 1
        self._remember(key, told)
        if is_due:
            told.written_at = now
            self._start(self._write(told, involved, reason, message, type))

    async def close(self) -> None:
        """Wait for Events that are on their way."""
        await asyncio.gather(*self._tasks)

    def _remember(self, key: tuple[str, str, str], told: _Told) -> None:
        self._told[key] = told
        if len(self._told) > MOST_REMEMBERED:
            self._told.pop(next(iter(self._told)))

    def _start(self, writing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(writing)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(
        self, told: _Told, involved: Workload | Pod, reason: str, message: str, type: str
    ) -> None:
        async with told.writing:
            try:
                if not told.name or not await self._raise_count(told, involved, message):
                    told.name = await self._writer.create_event(
                        involved=involved, reason=reason, message=message, component=COMPONENT, type=type
                    )
                    told.count = 1
            except KubernetesError as error:
                log.warning("An Event could not be written: %s", error)

    async def _raise_count(self, told: _Told, involved: Workload | Pod, message: str) -> bool:
        """False when the Event is not there any more: they live for an hour after they were told last."""
        try:
            await self._writer.repeat_event(
                namespace=involved.namespace, name=told.name, message=message, count=told.count
            )
        except NotFound:
            return False
        return True
