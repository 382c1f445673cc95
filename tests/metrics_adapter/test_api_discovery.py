"""What the API says of itself, asked as kube-apiserver asks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.metrics_adapter.api_server import ADMIN, GROUP, Adapter, sent_headers


async def test_the_requests_of_a_real_aggregator_are_answered(
    adapter: Adapter, recording: Callable[[str], Any]
) -> None:
    """With the headers it sent, also those of its group-less users; none is refused."""
    recorded = [*recording("a1")["requests"], *recording("a5")["requests"]]
    distinct = {json.dumps([r["request_line"], r["headers"]]): r for r in recorded}.values()
    codes = {}
    for request in distinct:
        _, path, _ = request["request_line"].split()
        codes[path] = (await adapter.ask(path, headers=sent_headers(request))).code
    assert codes == dict.fromkeys(codes, 200)
    assert {"/apis", GROUP, "/openapi/v2", "/openapi/v3"} <= codes.keys()


@pytest.mark.parametrize("path", ["/apis", GROUP, "/openapi/v2", "/openapi/v3", "/version", "/"])
async def test_what_did_not_change_is_not_sent_again(adapter: Adapter, path: str) -> None:
    first = await adapter.ask(path)
    again = await adapter.ask(path, headers=[*ADMIN, ("If-None-Match", first.headers["ETag"])])
    assert (first.code, again.code, again.body) == (200, 304, "")
    assert again.headers["ETag"] == first.headers["ETag"]


async def test_aggregated_discovery_is_another_form_of_the_same_path(adapter: Adapter) -> None:
    wanted = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    answer = await adapter.ask("/apis", headers=[*ADMIN, ("Accept", wanted)])
    assert answer.headers["Content-Type"] == wanted
    assert (answer.headers["Vary"], answer.body["kind"]) == ("Accept", "APIGroupDiscoveryList")
    legacy = await adapter.ask("/apis")
    assert (legacy.headers["Vary"], legacy.body["kind"]) == ("Accept", "APIGroupList")
    assert legacy.headers["ETag"] != answer.headers["ETag"]


async def test_a_trailing_slash_is_the_same_path(adapter: Adapter) -> None:
    assert (await adapter.ask(f"{GROUP}/")).body["kind"] == "APIResourceList"
