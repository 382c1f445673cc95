"""A second provider behind the adapter: HPAs on metrics of both, and nobody notices when one is away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from deploy.sandbox import manifests
from deploy.sandbox.client import ApiClient
from deploy.sandbox.errors import ApiError
from deploy.sandbox.resources import AUTOSCALERS
from deploy.sandbox.services import apply
from shared.certificates import make_ca
from tests.metrics_adapter.provider import SecondProvider, status, values_of
from tests.scenarios.crews import Cluster, eventually

pytestmark = [pytest.mark.scenario, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

GROUP = "/apis/external.metrics.k8s.io/v1beta1"
VALUES = f"{GROUP}/namespaces/{manifests.NAMESPACE}/"
ACCOUNT = f"system:serviceaccount:{manifests.SYSTEM_NAMESPACE}:{manifests.ADAPTER_SERVICE}"


@asynccontextmanager
async def delegated(cluster: Cluster, provider: SecondProvider) -> AsyncIterator[None]:
    """The provider runs, and both services have read a configuration that names it."""
    path = cluster.directory / "config.yaml"
    before = path.read_text()
    async with provider.running():
        delegate = provider.delegate().model_dump(mode="json", by_alias=True)
        path.write_text(yaml.safe_dump(yaml.safe_load(before) | {"delegate": delegate}))
        try:
            yield
        finally:
            path.write_text(before)


async def answers(kube: ApiClient, metric: str, query: Mapping[str, str] = {}) -> str:
    """Value of the first item, or the code of the error."""
    try:
        document = await kube.request("GET", VALUES + metric, query=dict(query))
    except ApiError as error:
        return f"{error.code}"
    return str(document["items"][0]["value"])


async def who_is(cluster: Cluster, authorization: str) -> str:
    """What the API server says of a token, as a provider asks it."""
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": authorization.removeprefix("Bearer ")},
    }
    path = "/apis/authentication.k8s.io/v1/tokenreviews"
    document = await cluster.kube.request("POST", path, body=review)
    return str(document["status"]["user"]["username"])


async def test_an_hpa_scales_on_a_metric_of_the_other_provider(cluster: Cluster, tmp_path: Path) -> None:
    """One HPA reads ours and theirs; theirs wants more, then is away, and no replica goes for it."""
    provider = SecondProvider(ca=make_ca("their CA"), directory=tmp_path, reply=values_of("2"))
    async with cluster.crew("foreign", 1) as crew, delegated(cluster, provider):

        def is_served(metric: str, value: str, **query: str) -> Callable[[], Awaitable[bool]]:
            async def holds() -> bool:
                return await answers(cluster.kube, metric, query) == value

            return holds

        def ours_is(value: str) -> Callable[[], Awaitable[bool]]:
            return is_served("celery_workers", value, labelSelector="pool=foreign")

        await eventually(is_served("queue_depth", "2"), "theirs are served")
        await eventually(ours_is("1"), "and ours")
        scaler = manifests.autoscaler(name="foreign", pool="foreign", max_replicas=3, behavior={})
        target = {"type": "AverageValue", "averageValue": "1"}
        foreign = {"type": "External", "external": {"metric": {"name": "queue_depth"}, "target": target}}
        scaler["spec"]["metrics"].append(foreign)
        await apply(cluster.kube, scaler)
        try:
            await crew.at_work(2)
            provider.reply, provider.code = status(500, "InternalError", "their database is away"), 500
            assert await answers(cluster.kube, "queue_depth") == "500"
            await eventually(ours_is("2"), "ours are served, and measured anew")
            assert len(await crew.pods()) == 2
        finally:
            await cluster.kube.delete(AUTOSCALERS, manifests.NAMESPACE, "foreign")
        headers = next(headers for path, headers in provider.asked if "queue_depth" in path)
        assert await who_is(cluster, headers["Authorization"]) == ACCOUNT
        resources = (await cluster.kube.request("GET", GROUP))["resources"]
        assert {"celery_demand", "queue_depth"} <= {one["name"] for one in resources}

    async def is_ours_alone() -> bool:
        return await answers(cluster.kube, "queue_depth") == "404"

    await eventually(is_ours_alone, "the delegate has left the configuration")
