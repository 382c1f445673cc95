"""What was answered stays the answer until something changes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from metrics_adapter.answers import LONGEST_REMEMBERED, Answers
from metrics_adapter.catalogue import METRICS
from metrics_adapter.freshness import PoolState
from metrics_adapter.load import Load
from metrics_adapter.statuses import ApiError
from tests.metrics_adapter.builders import load, pod, worker

DEMAND = METRICS["celery_demand"]


def busy(tasks: int) -> Load:
    return load([pod("w-0")], [worker("w-0", tasks)])


@dataclass
class CountedPools:
    """One pool, and how often it was looked at."""

    load: Load = field(default_factory=lambda: busy(3))
    age_s: float = 0.0
    max_age_s: float = 60.0
    revision: int = 0
    looks: int = 0

    def states(self) -> list[PoolState]:
        self.looks += 1
        return [PoolState(pool=self.load.pool, load=self.load, age_s=self.age_s)]


@dataclass
class Asked:
    """Answers at a time that the test sets."""

    pools: CountedPools = field(default_factory=CountedPools)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self._answers = Answers(self.pools, clock=lambda: self.now)

    def items(self, *, namespace: str = "airflow", selector: str = "pool=default") -> Any:
        return json.loads(self._answers.body(DEMAND, namespace=namespace, selector=selector))["items"]


def test_a_question_that_was_answered_costs_no_look_at_the_pools() -> None:
    asked = Asked()
    assert [asked.items()[0]["value"] for _ in range(3)] == ["3"] * 3
    assert asked.pools.looks == 1


def test_each_question_has_an_answer_of_its_own() -> None:
    asked = Asked()
    assert [len(asked.items(selector=text)) for text in ("pool=default", "pool=other", "")] == [1, 0, 1]
    assert len(asked.items(namespace="*")) == 1
    with pytest.raises(ApiError):
        asked.items(namespace="elsewhere")
    assert len(asked.items()) == 1


def test_a_new_measurement_is_a_new_answer() -> None:
    asked = Asked()
    asked.items()
    asked.pools.load, asked.pools.revision = busy(7), 1
    assert asked.items()[0]["value"] == "7"


def test_an_answer_is_given_until_its_values_are_too_old_and_no_longer() -> None:
    """However often it was given: 503 comes at the age at which it would without a memory."""
    asked = Asked(pools=CountedPools(age_s=20.0))
    asked.items()
    asked.pools.age_s, asked.now = 60.0, 1040.0
    assert asked.items()[0]["value"] == "3"
    asked.pools.age_s, asked.now = 60.1, 1040.1
    with pytest.raises(ApiError, match="not served any more"):
        asked.items()


def test_a_refusal_is_not_remembered() -> None:
    asked = Asked(pools=CountedPools(age_s=61.0))
    with pytest.raises(ApiError):
        asked.items()
    asked.pools.age_s = 1.0
    assert len(asked.items()) == 1


def test_an_endless_selector_is_answered_and_not_kept() -> None:
    asked = Asked()
    selector = f"pool in ({','.join(['default'] * LONGEST_REMEMBERED)})"
    assert [len(asked.items(selector=selector)) for _ in range(2)] == [1, 1]
    assert asked.pools.looks == 2
