"""Metrics of two providers behind one API: ours win, and never depend on the other."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_adapter.catalogue import METRICS, metric_named
from metrics_adapter.delegate import VIA
from metrics_adapter.delegate_answers import Answer
from metrics_adapter.documents import Discovery, discovery
from metrics_adapter.freshness import PoolState
from metrics_adapter.statuses import unavailable
from tests.metrics_adapter.api_server import ADMIN, DEMAND, GROUP, HPA, Adapter, is_status
from tests.metrics_adapter.builders import load, pod, worker
from tests.metrics_adapter.certificates import Authority
from tests.metrics_adapter.provider import VALUES, status

KAFKA = f"{GROUP}/namespaces/airflow/s0-kafka"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@dataclass
class OtherProvider:
    """Answers with `answer`, or not at all."""

    answer: Answer | None = field(default_factory=lambda: Answer(code=200, body=json.dumps(VALUES).encode()))
    is_away: bool = False
    discovery: Discovery | None = field(default_factory=lambda: discovery(("s0-kafka",)))
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    async def read(self, *, namespace: str, metric: str, selector: str) -> Answer | None:
        self.asked.append((namespace, metric, selector))
        if self.is_away:
            raise unavailable("The delegate keda/keda-metrics did not answer within 5 s.")
        return self.answer


@pytest.fixture
def other() -> OtherProvider:
    return OtherProvider()


@pytest.fixture
async def both(authority: Authority, other: OtherProvider, tmp_path: Path) -> AsyncIterator[Adapter]:
    """An adapter with one pool, and a delegate."""
    busy = load([pod("w-0"), pod("w-1")], [worker("w-0", 8), worker("w-1", 3)])
    served = Adapter(authority=authority, directory=tmp_path, others=other)
    served.pools.known = [PoolState(pool=busy.pool, load=busy, age_s=2.0)]
    async with served.running():
        yield served


async def test_what_is_not_ours_is_asked_elsewhere(both: Adapter, other: OtherProvider) -> None:
    answer = await both.ask(f"{KAFKA}?labelSelector=scaledobject.keda.sh%2Fname%3Dorders", headers=HPA)
    assert (answer.code, answer.body, answer.headers["Content-Type"]) == (200, VALUES, "application/json")
    assert other.asked == [("airflow", "s0-kafka", "scaledobject.keda.sh/name=orders")]


async def test_its_errors_are_shown_as_they_are(both: Adapter, other: OtherProvider) -> None:
    said = status(404, "NotFound", "no scaler of this name")
    other.answer = Answer(code=404, body=json.dumps(said).encode())
    answer = await both.ask(KAFKA)
    assert (answer.code, answer.body) == (404, said)


async def test_while_it_is_away_ours_are_served(both: Adapter, other: OtherProvider) -> None:
    other.is_away = True
    assert is_status(await both.ask(KAFKA), 503, "ServiceUnavailable")
    assert (await both.ask(DEMAND)).items == [({"pool": "default", "workload": "default-worker"}, "11")]


async def test_without_a_delegate_a_metric_is_unknown(both: Adapter, other: OtherProvider) -> None:
    other.answer = None
    answer = await both.ask(KAFKA)
    assert is_status(answer, 404, "NotFound")
    assert answer.body["message"].startswith("there is no metric s0-kafka; those that there are: celery_")


async def test_we_say_who_may_read_before_anybody_is_asked(both: Adapter, other: OtherProvider) -> None:
    """The delegate sees our account and not the user: it cannot."""
    both.cluster.is_allowed = lambda spec: spec["resourceAttributes"]["resource"] == "s0-kafka"
    alice = [("X-Remote-User", "alice")]
    assert (await both.ask(KAFKA, headers=alice)).code == 200
    for name in ("secret-metric", "S0-Kafka"):
        answer = await both.ask(f"{GROUP}/namespaces/airflow/{name}", headers=alice)
        assert is_status(answer, 403, "Forbidden")
    assert [metric for _, metric, _ in other.asked] == ["s0-kafka"]


async def test_case_is_kept_for_whoever_looks_for_it(both: Adapter, other: OtherProvider) -> None:
    """Ours are found in any case, and never there."""
    for name in ("Queue.Depth", "CELERY_DEMAND"):
        assert (await both.ask(f"{GROUP}/namespaces/airflow/{name}")).code == 200
    assert other.asked == [("airflow", "Queue.Depth", "")]


async def test_all_namespaces_are_asked_for_as_such(both: Adapter, other: OtherProvider) -> None:
    """Only who may read the metric in the whole cluster gets there."""
    seen: list[Any] = []
    both.cluster.is_allowed = lambda spec: not seen.append(spec["resourceAttributes"].get("namespace"))
    assert (await both.ask(f"{GROUP}/namespaces/*/s0-kafka", headers=HPA)).code == 200
    assert (seen, other.asked) == ([None], [("*", "s0-kafka", "")])


async def test_what_we_have_passed_on_is_not_passed_on_again(both: Adapter, other: OtherProvider) -> None:
    """A delegate that is ourselves, or leads back to us, would go on for ever."""
    answer = await both.ask(KAFKA, headers=[*ADMIN, ("Via", f"1.1 envoy, {VIA}")])
    assert is_status(answer, 404, "NotFound")
    assert other.asked == []


@pytest.mark.parametrize(
    "path",
    [
        f"{GROUP}/namespaces/airflow/a%2Fb",
        f"{GROUP}/namespaces/airflow/50%25",
        f"{GROUP}/namespaces/a%2F..%2Fb/metric",
        f"{GROUP}/namespaces/%2E%2E/metric",
    ],
)
async def test_a_path_cannot_be_made_to_lead_elsewhere(
    both: Adapter, other: OtherProvider, path: str
) -> None:
    assert (await both.ask(path)).code == 404
    assert other.asked == []


@pytest.mark.parametrize(("query", "code"), [("watch=true", 405), ("fieldSelector=spec.x%3Dy", 400)])
async def test_what_no_metric_can_do_is_refused_by_us(
    both: Adapter, other: OtherProvider, query: str, code: int
) -> None:
    assert (await both.ask(f"{KAFKA}?{query}")).code == code
    assert other.asked == []


async def test_discovery_names_both(both: Adapter) -> None:
    legacy = await both.ask(GROUP)
    aggregated = await both.ask("/apis", headers=[*ADMIN, ("Accept", AGGREGATED)])
    (group,) = aggregated.body["items"]
    names = [*METRICS, "s0-kafka"]
    assert [one["name"] for one in legacy.body["resources"]] == names
    assert [one["resource"] for one in group["versions"][0]["resources"]] == names
    assert {verb for one in legacy.body["resources"] for verb in one["verbs"]} == {"get"}
    assert (await both.ask("/apis")).body["kind"] == "APIGroupList"


async def test_whoever_passes_requests_on_to_us_sees_our_metrics_alone(both: Adapter) -> None:
    """Two adapters that are each other's delegates would keep a name alive that nobody has any more."""
    passed_on = [*ADMIN, ("Via", VIA)]
    legacy = await both.ask(GROUP, headers=passed_on)
    aggregated = await both.ask("/apis", headers=[*passed_on, ("Accept", AGGREGATED)])
    (group,) = aggregated.body["items"]
    assert [one["name"] for one in legacy.body["resources"]] == list(METRICS)
    assert [one["resource"] for one in group["versions"][0]["resources"]] == list(METRICS)


async def test_discovery_follows_and_its_etag_too(both: Adapter, other: OtherProvider) -> None:
    """Also back to ours alone; nobody is asked for it."""
    before = await both.ask(GROUP)
    other.discovery, other.is_away = None, True
    after = await both.ask(GROUP, headers=[*ADMIN, ("If-None-Match", before.headers["ETag"])])
    assert [one["name"] for one in after.body["resources"]] == list(METRICS)
    assert other.asked == []


@dataclass
class NobodyMayComeHere:
    """A delegate that no request for a metric of ours may touch."""

    @property
    def discovery(self) -> Discovery | None:
        raise AssertionError("discovery was looked at")

    async def read(self, *, namespace: str, metric: str, selector: str) -> Answer | None:
        raise AssertionError(f"{metric} was asked for elsewhere")


SELECTORS = ["", "?labelSelector=pool%3Ddefault", "?labelSelector=pool%3Dnone", "?labelSelector=a%20b"]


@pytest.mark.parametrize("states", ["fresh", "old", "unknown", "none"])
async def test_our_metrics_never_touch_the_delegate(
    authority: Authority, tmp_path: Path, states: str
) -> None:
    """Whatever is asked of them, and whatever becomes of it: 200, 400, 403, 404 and 503."""
    busy = load([pod("w-0")], [worker("w-0", 8)])
    served = Adapter(authority=authority, directory=tmp_path, others=NobodyMayComeHere())
    served.pools.known = {
        "fresh": [PoolState(pool=busy.pool, load=busy, age_s=2.0)],
        "old": [PoolState(pool=busy.pool, load=busy, age_s=200.0)],
        "unknown": [PoolState(pool=busy.pool)],
        "none": [],
    }[states]
    paths = [f"{GROUP}/namespaces/airflow/{name}" for metric in METRICS for name in (metric, metric.upper())]
    async with served.running():
        codes = {(await served.ask(path + selector)).code for path in paths for selector in SELECTORS}
        served.cluster.is_allowed = lambda spec: False
        refused = {(await served.ask(path, headers=HPA)).code for path in paths}
    assert refused == {403}
    assert codes <= {200, 400, 404, 503}


@given(name=st.sampled_from(sorted(METRICS)), upper=st.lists(st.booleans(), min_size=30, max_size=30))
def test_a_name_of_ours_is_ours_in_any_case(name: str, upper: list[bool]) -> None:
    mixed = "".join(c.upper() if up else c for c, up in zip(name, upper, strict=False))
    metric = metric_named(mixed + name[len(mixed) :])
    assert metric is not None
    assert metric.name == name
