"""Broker and Kubernetes API are down together: the adapter is no problem of the cluster's all the same."""

from __future__ import annotations

import json

import pytest
from aiohttp import web

from tests.metrics_adapter.aggregator import (
    METRIC,
    Answer,
    Question,
    Serving,
    front_proxy_of,
    trust,
    until_believed,
)
from tests.metrics_adapter.api_server import GROUP
from tests.metrics_adapter.certificates import Authority
from tests.metrics_adapter.lab import Lab, config, until

AS_ALICE = Question(METRIC.path, [("X-Remote-User", "alice")])
DISCOVERED = [
    Question(GROUP, [("X-Remote-User", "system:kube-aggregator")]),
    Question("/apis", [("X-Remote-User", "system:kube-aggregator"), ("X-Remote-Group", "system:masters")]),
    Question("/openapi/v2", [("X-Remote-User", "system:aggregator")]),
    Question("/openapi/v3", [("X-Remote-User", "system:aggregator")]),
    *(Question(path) for path in ("/healthz", "/livez", "/readyz")),
]


async def overloaded(_request: web.Request) -> web.Response:
    return web.Response(status=503, text="etcd is away")


async def overloaded_for_us(request: web.Request) -> web.Response | None:
    return await overloaded(request) if request.headers.get("User-Agent") == "celery-hpa" else None


async def down(lab: Lab, how: str) -> None:
    lab.celery.broken = True
    for door in lab.opened:
        door.broken = True
    if how == "gone":
        await lab.stage.server.__aexit__(None, None, None)
    else:
        lab.stage.server.trouble = overloaded


@pytest.mark.parametrize("how", ["gone", "overloaded"])
async def test_with_everything_down_discovery_and_health_answer_and_old_values_are_refused(
    lab: Lab, how: str
) -> None:
    """The APIService stays available. Values are served until `maxAge`, then 503 says why.

    Nothing is made up, and who was never allowed to read is not allowed now.
    """
    serving, authority = Serving(lab.directory), Authority.make()
    lab.files, lab.configuration = serving.files, config(maxAge=1)
    await trust(lab, authority)
    aggregator = front_proxy_of(lab, serving, authority.front_proxy())
    async with lab.running(), aggregator:
        await until_believed(lab, serving, authority.front_proxy())
        assert (await aggregator.ask(METRIC)).code == 200
        assert (await aggregator.ask(AS_ALICE)).code == 403
        await down(lab, how)

        async def ask() -> Answer:
            return await aggregator.ask(METRIC)

        refused = await until(ask, lambda answer: answer.code != 200)
        assert refused.code == 503
        status = json.loads(refused.text)
        assert (status["kind"], status["reason"]) == ("Status", "ServiceUnavailable")
        assert "and not served any more" in status["message"]
        answers = [await aggregator.ask(question, is_fresh=True) for question in DISCOVERED]
        assert {answer.path: answer.code for answer in answers} == dict.fromkeys(
            (question.path for question in DISCOVERED), 200
        )
        assert "default/default" in await lab.telemetry("/readyz")
        carol = Question(METRIC.path, [("X-Remote-User", "carol")])
        assert (await aggregator.ask(carol)).code == 500


async def test_who_starts_in_an_outage_believes_nobody_and_is_not_ready_until_it_is_over(lab: Lab) -> None:
    """It cannot tell the front proxy from anybody else; the Service sends requests to other replicas."""
    serving, authority = Serving(lab.directory), Authority.make()
    lab.files = serving.files
    await trust(lab, authority)
    lab.stage.server.trouble = overloaded_for_us
    aggregator = front_proxy_of(lab, serving, authority.front_proxy())
    async with lab.running(), aggregator:
        ready = await until(lambda: lab.telemetry("/readyz"), lambda text: "cannot be read" in text)
        assert ready.startswith("not ready\n")
        assert (await aggregator.ask(METRIC)).code in (0, 401)
        lab.stage.server.trouble = None
        await until(lambda: lab.telemetry("/readyz"), lambda text: text.startswith("ok"))
        await until(lambda: aggregator.ask(METRIC), lambda answer: answer.code == 200)
