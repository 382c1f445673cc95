"""Values as bytes: what a question was answered with stays its answer until a pool was measured anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from metrics_adapter.catalogue import Metric, labels_of
from metrics_adapter.documents import json_bytes
from metrics_adapter.external_metrics import value_list
from metrics_adapter.freshness import PoolState
from metrics_adapter.selectors import parse_selector
from metrics_adapter.statuses import no_pool, unavailable

EVERY_NAMESPACE = "*"
MOST_REMEMBERED = 1024
LONGEST_REMEMBERED = 1024
"""Characters of a selector: whoever sends others is answered, too, but not at the cost of our memory."""


class Pools(Protocol):
    """What is served."""

    @property
    def max_age_s(self) -> float: ...

    @property
    def revision(self) -> int:
        """Another one whenever what is served changes: not when it ages, or cannot be measured."""

    def states(self) -> Iterable[PoolState]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    body: bytes
    until: float
    """By the clock, when the oldest of its values becomes too old."""


class Answers:
    """Answers from what is known of the pools."""

    def __init__(self, pools: Pools, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._pools = pools
        self._clock = clock
        self._revision: int | None = None
        self._known: dict[tuple[str, str, str], _Answer] = {}

    def body(self, metric: Metric, *, namespace: str, selector: str) -> bytes:
        """An ExternalMetricValueList as JSON.

        Raises SelectorSyntaxError, and ApiError where no pool is in the namespace, or one has no values.
        """
        if self._revision != (revision := self._pools.revision):
            self._known.clear()
            self._revision = revision
        key, now = (metric.name, namespace, selector), self._clock()
        known = self._known.get(key)
        if known is not None and now <= known.until:
            return known.body
        answer = self._answer(metric, namespace=namespace, selector=selector, now=now)
        if len(self._known) < MOST_REMEMBERED and len(selector) <= LONGEST_REMEMBERED:
            self._known[key] = answer
        return answer.body

    def _answer(self, metric: Metric, *, namespace: str, selector: str, now: float) -> _Answer:
        states = [
            state for state in self._pools.states() if namespace in (EVERY_NAMESPACE, state.pool.namespace)
        ]
        if not states:
            raise no_pool(metric.name, namespace=namespace)
        wanted, max_age_s = parse_selector(selector), self._pools.max_age_s
        selected = [state for state in states if wanted.matches(labels_of(state.pool))]
        # One pool that cannot be served refuses them all: a part of a sum is a wrong sum.
        if refusals := list(filter(None, (state.refusal(max_age_s=max_age_s) for state in selected))):
            raise unavailable(" ".join(refusals))
        loads = [state.load for state in selected if state.load is not None]
        values = value_list(metric.name, metric.samples(loads))
        return _Answer(
            body=json_bytes(values),
            until=now + max_age_s - max((state.age_s for state in selected), default=0.0),
        )
