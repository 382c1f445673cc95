"""The values of metrics, as an HPA reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from metrics_adapter.catalogue import METRICS
from metrics_adapter.freshness import PoolState
from tests.metrics_adapter.api_server import DEMAND, GROUP, HPA, Adapter, is_status, sent_headers
from tests.metrics_adapter.builders import busy_load, load, pool


async def test_a_metric_is_served(adapter: Adapter) -> None:
    answer = await adapter.ask(DEMAND)
    assert answer.code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.items == [({"pool": "default", "workload": "default-worker"}, "11")]


async def test_every_metric_of_discovery_is_served(adapter: Adapter) -> None:
    answers = {name: await adapter.ask(f"{GROUP}/namespaces/airflow/{name}") for name in METRICS}
    assert {name: [value for _, value in answer.items] for name, answer in answers.items()} == {
        "celery_load_factor": ["688m"],
        "celery_demand": ["11"],
        "celery_desired_workers": ["2"],
        "celery_active_tasks": ["11"],
        "celery_waiting_tasks": ["0"],
        "celery_slots": ["16"],
        "celery_workers": ["2"],
        "celery_oldest_waiting_seconds": [],  # Celery's own tasks do not say
    }


async def test_the_requests_of_a_real_hpa_controller_are_answered(
    adapter: Adapter, recording: Callable[[str], Any]
) -> None:
    """In JSON although it prefers protobuf, with its selectors, under its own name and RBAC."""
    adapter.cluster.is_allowed = lambda spec: spec["user"] == HPA[0][1]
    cases = recording("b1")["cases"]
    requests = [r for case in cases.values() for r in case.get("requests", ())]
    asked = [r for r in requests if "/namespaces/b/queue_depth" in r["request_line"]]
    assert len(asked) == 7
    for request in asked:
        path = request["request_line"].split()[1].replace("b/queue_depth", "airflow/celery_demand")
        answer = await adapter.ask(path, headers=sent_headers(request))
        assert (answer.code, answer.body["kind"]) == (200, "ExternalMetricValueList")


async def test_requests_of_a_real_kubectl_are_answered(
    adapter: Adapter, recording: Callable[[str], Any]
) -> None:
    for request in recording("a2")["requests"]:
        path = request["request_line"].split()[1].replace("queue_depth", "celery_demand")
        answer = await adapter.ask(path.replace("/default/", "/airflow/"), headers=sent_headers(request))
        assert answer.code == request["response"]["status"]


async def test_names_are_matched_in_any_case(adapter: Adapter) -> None:
    assert (await adapter.ask(f"{GROUP}/namespaces/airflow/Celery_Demand")).body["items"][0][
        "metricName"
    ] == "celery_demand"


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("", ["one", "two"]),
        ("pool%3Done", ["one"]),
        ("pool+in+%28one%2Ctwo%29", ["one", "two"]),
        ("workload%21%3Done-worker", ["two"]),
        ("pool%3Dthree", []),
    ],
)
async def test_a_selector_selects_pools(adapter: Adapter, selector: str, names: list[str]) -> None:
    """A known metric without a matching pool is an empty list, as in the reference."""
    adapter.pools.known = [
        PoolState(pool=each.pool, load=each) for each in (load(of=pool("one")), load(of=pool("two")))
    ]
    answer = await adapter.ask(f"{DEMAND}?labelSelector={selector}")
    assert [labels["pool"] for labels, _ in answer.items] == names


async def test_a_load_factor_is_one_item_whatever_is_selected(adapter: Adapter) -> None:
    loads = [busy_load(8, ready=1), busy_load(0, ready=1)]
    adapter.pools.known = [PoolState(pool=each.pool, load=each) for each in loads]
    answer = await adapter.ask(f"{GROUP}/namespaces/airflow/celery_load_factor")
    assert answer.items == [({}, "500m")]


async def test_metrics_are_served_in_the_namespace_of_their_pool_alone(adapter: Adapter) -> None:
    answer = await adapter.ask(f"{GROUP}/namespaces/other/celery_demand")
    assert is_status(answer, 404, "NotFound")
    assert "other" in answer.body["message"]


async def test_every_namespace_can_be_read_at_once(adapter: Adapter) -> None:
    """kubectl writes the star as %2A; whoever reads it must be allowed to everywhere."""
    elsewhere = load(of=pool("default", namespace="other"), waiting=5)
    adapter.pools.known.append(PoolState(pool=elsewhere.pool, load=elsewhere))
    seen: list[dict[str, str]] = []

    def allow(spec: Mapping[str, Any]) -> bool:
        seen.append(spec["resourceAttributes"])
        return True

    adapter.cluster.is_allowed = allow
    answer = await adapter.ask(f"{GROUP}/namespaces/%2A/celery_demand", headers=HPA)
    assert [value for _, value in answer.items] == ["11", "5"]
    assert "namespace" not in seen[0]
