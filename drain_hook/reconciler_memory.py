"""The little that the reconciler remembers from pass to pass; losing it costs a few seconds."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from drain_hook.chores import Deviation, Fault

FIRST_PAUSE_S = 4.0
LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Suspicion:
    fault: Fault
    queues: frozenset[str]
    asked_at: float
    """When the worker was first seen so."""

    def is_confirmed_by(self, newer: _Suspicion) -> bool:
        return (self.fault, self.queues) == (newer.fault, newer.queues) and self.asked_at < newer.asked_at


@dataclass(slots=True)
class Suspects:
    """A worker must be seen wrong twice: it may just be starting, or its release be on the way."""

    _suspicions: dict[str, _Suspicion] = field(default_factory=dict)
    """By node."""

    def confirmed(self, deviations: Collection[tuple[Deviation, float]]) -> frozenset[str]:
        """Nodes that were wrong in the same way in an earlier answer; each comes with when it was asked."""
        seen = {
            deviation.node: _Suspicion(fault=deviation.fault, queues=deviation.queues, asked_at=asked_at)
            for deviation, asked_at in deviations
        }
        confirmed = {
            node
            for node, now in seen.items()
            if (was := self._suspicions.get(node)) and was.is_confirmed_by(now)
        }
        self._suspicions = {
            node: was
            if (was := self._suspicions.get(node)) and (was.fault, was.queues) == (now.fault, now.queues)
            else now
            for node, now in seen.items()
        }
        return frozenset(confirmed)


@dataclass(slots=True)
class Patience:
    """Pods whose release failed wait longer and longer: each try holds the lock that reviews wait for."""

    _next_try: dict[str, tuple[float, float]] = field(default_factory=dict)
    """When, and how long the pause before it was, by pod uid."""

    def is_due(self, pod_uid: str, *, now: float) -> bool:
        return pod_uid not in self._next_try or self._next_try[pod_uid][0] <= now

    def failed(self, pod_uid: str, *, now: float) -> None:
        pause = (
            min(LONGEST_PAUSE_S, 2 * self._next_try[pod_uid][1])
            if pod_uid in self._next_try
            else FIRST_PAUSE_S
        )
        self._next_try[pod_uid] = (now + pause, pause)

    def forget(self, pod_uids: Collection[str]) -> None:
        """They were released, or are gone."""
        self._next_try = {uid: entry for uid, entry in self._next_try.items() if uid not in pod_uids}

    def keep_only(self, pod_uids: Collection[str]) -> None:
        """Forget all others."""
        self.forget(self._next_try.keys() - set(pod_uids))
