"""An event loop whose clock jumps: hours of retries and time-outs pass in seconds, and always alike."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
EPOCH = 1_800_000_000.0
"""Seconds since the epoch when a loop begins; long after any real clock of today."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Waits for nothing: when no task can go on, it is at once as late as the next one wants it to be."""

    def __init__(self) -> None:
        self._selector_of_time = _JumpingSelector()
        super().__init__(self._selector_of_time)

    def time(self) -> float:
        return self._selector_of_time.now

    def wall(self) -> float:
        """Seconds since the epoch."""
        return EPOCH + self.time()

    def monotonic(self) -> float:
        return self.time()

    def pass_time(self, seconds: float) -> None:
        self.run_until_complete(asyncio.sleep(seconds))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.run_until_complete(work)

    def end(self) -> None:
        """Stop everything that still runs, however often it must be told, and close."""
        while tasks := asyncio.all_tasks(self):
            for task in tasks:
                task.cancel()
            self.run_until_complete(asyncio.wait(tasks, timeout=1.0))
        self.close()


class _JumpingSelector(selectors.DefaultSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("every task waits for something that will never happen")
        self.now += max(0.0, timeout)
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        return ready


def table(figures: Mapping[str, object]) -> str:
    """Figures one below the other."""
    return "\n".join(f"{name:<58}{figure!s:>12}" for name, figure in figures.items())
