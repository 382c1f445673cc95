"""What is not there, cannot be asked for, or is not known."""

from __future__ import annotations

import pytest

from metrics_adapter.freshness import PoolState
from tests.metrics_adapter.api_server import ADMIN, DEMAND, GROUP, Adapter, is_status
from tests.metrics_adapter.builders import pool


async def test_old_values_are_not_served(adapter: Adapter) -> None:
    """The HPA looks at no timestamp: it would believe them for ever."""
    (state,) = adapter.pools.known
    adapter.pools.known = [
        PoolState(pool=state.pool, load=state.load, age_s=61.0, problem="The broker does not answer.")
    ]
    answer = await adapter.ask(DEMAND)
    assert is_status(answer, 503, "ServiceUnavailable")
    assert answer.body["message"] == (
        "The values of pool airflow/default are 61 s old and not served any more (maxAge is 60 s). "
        "The broker does not answer."
    )


async def test_a_pool_that_was_never_measured_is_no_zero(adapter: Adapter) -> None:
    adapter.pools.known = [PoolState(pool=pool(), problem="The broker does not answer.")]
    answer = await adapter.ask(DEMAND)
    assert is_status(answer, 503, "ServiceUnavailable")
    assert "has not been measured yet. The broker" in answer.body["message"]


async def test_a_part_of_a_sum_is_no_sum(adapter: Adapter) -> None:
    """One pool that cannot be served refuses them all, unless it is not selected."""
    adapter.pools.known.append(PoolState(pool=pool("other")))
    assert (await adapter.ask(DEMAND)).code == 503
    assert (await adapter.ask(f"{DEMAND}?labelSelector=pool%3Ddefault")).code == 200


@pytest.mark.parametrize(
    ("path", "method", "code", "reason"),
    [
        (f"{GROUP}/namespaces/airflow/celery_damand", "GET", 404, "NotFound"),
        (f"{GROUP}/celery_demand", "GET", 404, "NotFound"),
        (f"{GROUP}/namespaces/airflow", "GET", 404, "NotFound"),
        (f"{DEMAND}/status", "GET", 404, "NotFound"),
        ("/apis/custom.metrics.k8s.io/v1beta1", "GET", 404, "NotFound"),
        ("/favicon.ico", "GET", 404, "NotFound"),
        (DEMAND, "POST", 405, "MethodNotAllowed"),
        (DEMAND, "DELETE", 405, "MethodNotAllowed"),
        ("/openapi/v2", "PUT", 405, "MethodNotAllowed"),
        (f"{DEMAND}?watch=true", "GET", 405, "MethodNotAllowed"),
        (f"{DEMAND}?watch=1", "GET", 405, "MethodNotAllowed"),
        (f"{DEMAND}?labelSelector=a%20b", "GET", 400, "BadRequest"),
        (f"{DEMAND}?labelSelector=pool%3D%3D%3Dx", "GET", 400, "BadRequest"),
        (f"{DEMAND}?fieldSelector=spec.x%3Dy", "GET", 400, "BadRequest"),
    ],
)
async def test_every_error_is_a_status(
    adapter: Adapter, path: str, method: str, code: int, reason: str
) -> None:
    """Of anything else clients show "the server could not find the requested resource" and no more."""
    assert is_status(await adapter.ask(path, method=method), code, reason)


async def test_an_unknown_metric_is_told_which_there_are(adapter: Adapter) -> None:
    answer = await adapter.ask(f"{GROUP}/namespaces/airflow/celery_damand")
    assert "celery_demand" in answer.body["message"]


@pytest.mark.parametrize(
    "query",
    ["limit=500", "pretty=true", "watch=false", "timeoutSeconds=5", "fieldSelector=metadata.name%3Dx"],
)
async def test_other_parameters_change_nothing(adapter: Adapter, query: str) -> None:
    assert (await adapter.ask(f"{DEMAND}?{query}")).code == 200


async def test_what_cannot_be_json_is_not_acceptable(adapter: Adapter) -> None:
    headers = [*ADMIN, ("Accept", "application/vnd.kubernetes.protobuf")]
    assert is_status(await adapter.ask(DEMAND, headers=headers), 406, "NotAcceptable")


async def test_a_bug_shows_nothing_of_itself(adapter: Adapter, caplog: pytest.LogCaptureFixture) -> None:
    adapter.pools.known = [None]  # type: ignore[list-item]  # what a bug would look like
    answer = await adapter.ask(DEMAND)
    assert is_status(answer, 500, "InternalError")
    assert "NoneType" not in answer.body["message"]
    assert "NoneType" in caplog.text


async def test_requests_are_counted_by_what_they_are(adapter: Adapter) -> None:
    await adapter.ask(DEMAND)
    await adapter.ask(GROUP)
    await adapter.ask("/openapi/v3")
    await adapter.ask("/nothing")
    await adapter.ask_bare("/livez")
    assert adapter.requests.seen == [
        ("metric", 200),
        ("discovery", 200),
        ("openapi", 200),
        ("other", 404),
        ("health", 200),
    ]
