"""Counts records while a round writes them, and the time it takes; remembers where there was not the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from drain_hook.steps import Writing

BELIEVED_S = 60.0
"""How long the pace of a round that ran out of time is held against the next ones."""


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


@dataclass(slots=True)
class KnownPaces:
    """What the last round of each workload that ran out of time had managed; forgotten after a minute.

    So a large scale-down that is asked for every 15 s does not put its records on all pods, and takes them
    back, each time; and an API server that has recovered is found out soon.
    """

    _seen: dict[tuple[str, str], tuple[float, Writing]] = field(default_factory=dict)

    def learn(self, workload: tuple[str, str], writing: Writing, *, now: float) -> None:
        """`now` by any clock that goes on, the same one each time."""
        self._seen[workload] = (now, writing)

    def of(self, workload: tuple[str, str], *, now: float) -> Writing | None:
        """What was learnt a short while ago."""
        learnt_at, writing = self._seen.get(workload, (now, None))
        if now - learnt_at < BELIEVED_S:
            return writing
        del self._seen[workload]
        return None
