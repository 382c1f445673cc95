"""The aggregator in front of a backend: its checks, its discovery, and what it passes on."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from deploy.sandbox.apiserver.availability import available_condition
from deploy.sandbox.apiserver.server import ApiServer
from deploy.sandbox.apiserver.store import Change
from deploy.sandbox.resources import API_SERVICES
from tests.sandbox import recordings
from tests.sandbox.apiserver.backend import GROUP, PATH, Backend, api_service, serving
from tests.sandbox.conftest import Cluster
from tests.sandbox.http_client import Client

API_SERVICES_PATH = "/apis/apiregistration.k8s.io/v1/apiservices"
VALUES = f"{PATH}/namespaces/default/queue_depth"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

CHECKS = recordings.read("a3_availability_status_codes")["cases"]


@pytest.fixture
async def backend(cluster: Cluster, client: Client) -> AsyncIterator[Backend]:
    """A backend behind its Service, not yet registered."""
    async with serving(cluster.authority, cluster.front_proxy) as running:
        await client.post("/api/v1/namespaces", {"metadata": {"name": "lab-sys"}})
        service = {"metadata": {"name": "metrics-adapter"}, "spec": EXTERNAL_NAME}
        await client.post("/api/v1/namespaces/lab-sys/services", service)
        yield running


EXTERNAL_NAME = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": 443}]}


async def register(cluster: Cluster, client: Client, server: ApiServer, port: int, status: str) -> Any:
    """Create the APIService and wait until its condition Available has this status."""
    changes: asyncio.Queue[Change] = asyncio.Queue()
    server.store.history(API_SERVICES).watchers.add(changes)
    await client.post(API_SERVICES_PATH, api_service(cluster.authority.bundle, port))
    return await until(changes, status)


async def until(changes: asyncio.Queue[Change], status: str) -> Any:
    while True:
        condition = available_condition((await changes.get()).document)
        if condition.get("status") == status:
            return condition


def recorded(line: str, accept: str | None) -> dict[str, str]:
    """The headers of the first such request that a real aggregator made."""
    for request in recordings.read("a1_apiservice_registered_first_90s")["requests"]:
        headers = dict(request["headers"])
        if request["request_line"] == f"GET {line} HTTP/1.1" and headers.get("Accept") == accept:
            return headers
    raise AssertionError(f"{line} with {accept} was not recorded")


async def test_a_backend_is_available_once_it_answers(
    cluster: Cluster, client: Client, server: ApiServer, backend: Backend
) -> None:
    """Checked with the aggregator's identity and client certificate, as recorded."""
    condition = await register(cluster, client, server, backend.port, "True")
    assert (condition["reason"], condition["message"]) == ("Passed", "all checks passed")
    check = backend.requests(PATH)[0]
    expected = recorded(PATH, None)
    assert check.keys() == expected.keys()
    same = [name for name in expected if name != "Host"]
    assert [check[name] for name in same] == [expected[name] for name in same]
    assert {seen.peer for seen in backend.seen} == {"front-proxy-client"}


async def test_openapi_is_asked_for_by_a_user_without_groups(
    cluster: Cluster, client: Client, server: ApiServer, backend: Backend
) -> None:
    """As recorded; who refuses it fills a real API server's log."""
    await register(cluster, client, server, backend.port, "True")
    asked = backend.requests("/openapi/v3")[0]
    assert asked["X-Remote-User"] == "system:aggregator"
    assert "X-Remote-Group" not in asked


async def test_without_aggregated_discovery_the_plain_one_is_asked_for(
    cluster: Cluster, client: Client, server: ApiServer, backend: Backend
) -> None:
    """That question names the aggregator's user and no group, and its answer is folded into ours."""
    await register(cluster, client, server, backend.port, "True")
    asked = next(headers for headers in backend.requests(PATH) if headers.get("Accept") == "application/json")
    assert asked["X-Remote-User"] == recorded(PATH, "application/json")["X-Remote-User"]
    assert "X-Remote-Group" not in asked
    assert backend.requests("/apis")[0]["Accept"].startswith(AGGREGATED)
    groups = (await client.get("/apis", Accept=AGGREGATED)).body["items"]
    [group] = [group for group in groups if group["metadata"]["name"] == GROUP]
    assert group["versions"][0]["freshness"] == "Current"
    assert group["versions"][0]["resources"][0]["resource"] == "queue_depth"


async def test_aggregated_discovery_of_a_backend_is_taken_as_it_is(
    cluster: Cluster, client: Client, server: ApiServer, backend: Backend
) -> None:
    """Then the plain document is not asked for."""
    group = {"metadata": {"name": GROUP}, "versions": [{"version": "v1beta1", "resources": []}]}
    backend.groups = [group]
    await register(cluster, client, server, backend.port, "True")
    assert group in (await client.get("/apis", Accept=AGGREGATED)).body["items"]
    assert all("Accept" not in headers for headers in backend.requests(PATH))


async def test_legacy_discovery_names_the_foreign_group(
    cluster: Cluster, client: Client, server: ApiServer, backend: Backend
) -> None:
    """`/apis/<group>` is answered here and never reaches the backend."""
    await register(cluster, client, server, backend.port, "True")
    assert GROUP in [group["name"] for group in (await client.get("/apis")).body["groups"]]
    document = (await client.get(f"/apis/{GROUP}")).body
    assert document["preferredVersion"]["groupVersion"] == f"{GROUP}/v1beta1"
    assert backend.requests(f"/apis/{GROUP}") == []


async def test_a_users_request_is_passed_on_with_its_identity(
    cluster: Cluster, client: Client, server: ApiServer, backend: Backend
) -> None:
    """The path and query stay as they are, the identity is ours to say, and the credentials stay here."""
    await register(cluster, client, server, backend.port, "True")
    query = "?labelSelector=a%3Db%2Cc+in+%28d%2Ce%29"
    answer = await client.get(VALUES + query, Accept="application/json, */*", X_Remote_User="forged")
    assert answer.body["seen"] == VALUES + query
    assert answer.headers["ETag"] == '"x"'
    request = recordings.read("a2_kubectl_through_aggregator")["requests"][1]
    expected = {name for name, _ in request["headers"]} - {"Kubectl-Command", "Kubectl-Session"}
    [seen] = [seen for seen in backend.seen if seen.line.startswith(f"GET {VALUES}")]
    headers = dict(seen.headers)
    assert headers.keys() == expected
    assert headers["X-Remote-User"] == "lab-admin"
    groups = [value for name, value in seen.headers if name == "X-Remote-Group"]
    assert groups == ["system:masters", "system:authenticated"]
    assert headers["X-Forwarded-Uri"] == VALUES


async def test_a_bearer_token_stays_with_the_aggregator(
    cluster: Cluster, client: Client, stranger: Client, server: ApiServer, backend: Backend
) -> None:
    """A service account arrives as user, uid and groups."""
    await register(cluster, client, server, backend.port, "True")
    token = server.tokens.issue_for_service_account("kube-system", "horizontal-pod-autoscaler")
    await stranger.get(VALUES, Authorization=f"Bearer {token}")
    [headers] = backend.requests(VALUES)
    assert headers["X-Remote-User"] == "system:serviceaccount:kube-system:horizontal-pod-autoscaler"
    assert headers["X-Remote-Uid"]
    assert "Authorization" not in headers


async def test_an_escaped_namespace_arrives_escaped(
    cluster: Cluster, client: Client, server: ApiServer, backend: Backend
) -> None:
    """`namespaces/%2A` is how kubectl asks for all namespaces."""
    await register(cluster, client, server, backend.port, "True")
    path = f"{PATH}/namespaces/%2A/queue_depth"
    assert (await client.get(path)).body["seen"] == path


@pytest.mark.parametrize("status", sorted(code for code in CHECKS if code.isdigit()))
async def test_a_checks_answer_counts_as_it_does_in_a_real_cluster(
    cluster: Cluster, client: Client, server: ApiServer, backend: Backend, status: str
) -> None:
    """Any 2xx will do, whatever the body; everything else is said in the real server's words."""
    backend.status = int(status)
    expected = CHECKS[status]
    condition = await register(cluster, client, server, backend.port, expected["status"])
    assert condition["reason"] == expected["reason"]
    assert condition["message"] == expected["message"].replace("18443", str(backend.port))


async def test_an_unavailable_backends_group_is_stale_and_its_paths_503(
    cluster: Cluster, client: Client, server: ApiServer, backend: Backend
) -> None:
    """Clients are told, and other groups are not touched by it."""
    backend.status = 500
    await register(cluster, client, server, backend.port, "False")
    assert (await client.get(VALUES)).body["reason"] == "ServiceUnavailable"
    groups = (await client.get("/apis", Accept=AGGREGATED)).body["items"]
    [group] = [group for group in groups if group["metadata"]["name"] == GROUP]
    assert group["versions"] == [{"version": "v1beta1", "freshness": "Stale"}]


async def test_a_backend_that_comes_up_later_is_noticed(
    cluster: Cluster, client: Client, server: ApiServer, backend: Backend
) -> None:
    """Checks of an unavailable backend are repeated with growing pauses."""
    backend.status = 503
    changes: asyncio.Queue[Change] = asyncio.Queue()
    await register(cluster, client, server, backend.port, "False")
    server.store.history(API_SERVICES).watchers.add(changes)
    backend.status = 200
    await until(changes, "True")


async def test_a_missing_service_is_said_to_be_missing(
    cluster: Cluster, client: Client, server: ApiServer
) -> None:
    """No Service, nowhere to go."""
    condition = await register(cluster, client, server, 1, "False")
    assert condition["reason"] == "ServiceNotFound"


async def test_a_wrong_certificate_is_no_answer(cluster: Cluster, client: Client, server: ApiServer) -> None:
    """The certificate is verified for <service>.<namespace>.svc with the caBundle of the registration."""
    async with serving(cluster.front_proxy, cluster.front_proxy) as impostor:
        await client.post("/api/v1/namespaces", {"metadata": {"name": "lab-sys"}})
        service = {"metadata": {"name": "metrics-adapter"}, "spec": EXTERNAL_NAME}
        await client.post("/api/v1/namespaces/lab-sys/services", service)
        condition = await register(cluster, client, server, impostor.port, "False")
    assert "certificate" in condition["message"].lower()


async def test_a_deleted_registration_ends_the_group(
    cluster: Cluster, client: Client, server: ApiServer, backend: Backend
) -> None:
    """Its paths are unknown again."""
    await register(cluster, client, server, backend.port, "True")
    await client.delete(f"{API_SERVICES_PATH}/v1beta1.{GROUP}")
    assert (await client.get(VALUES)).status == 404
