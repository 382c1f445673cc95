"""Counts the records of a round while they are written, and the time it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from drain_hook.steps import Writing


class WriteTally:
    """From now until `deadline`, by the clock `now`."""

    def __init__(self, *, deadline: float, now: Callable[[], float]) -> None:
        self._now = now
        self._began = now()
        self._budget_s = deadline - self._began
        self._pods = self._written = 0
        self._seconds = 0.0
        self._first_at: float | None = None
        self._since: float | None = None

    @contextmanager
    def writing(self, pods: int) -> Iterator[None]:
        """While records are being written on so many pods."""
        self._pods += pods
        self._since = self._now()
        if self._first_at is None:
            self._first_at = self._since
        try:
            yield
        finally:
            self._seconds += self._now() - self._since
            self._since = None

    def one_more(self) -> None:
        """A record is written, or its pod is gone."""
        self._written += 1

    @property
    def so_far(self) -> Writing:
        now = self._now()
        return Writing(
            pods=self._pods,
            written=self._written,
            seconds=self._seconds + (0.0 if self._since is None else now - self._since),
            before_s=(now if self._first_at is None else self._first_at) - self._began,
            budget_s=self._budget_s,
        )
