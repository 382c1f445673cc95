"""Who is asking and what they may do, in the answers of a real cluster."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from deploy.sandbox.apiserver.authentication import User
from deploy.sandbox.apiserver.authorization import AllowKnownUsers, Attributes, Denial
from deploy.sandbox.apiserver.server import ApiServer
from tests.sandbox import recordings
from tests.sandbox.conftest import Cluster
from tests.sandbox.http_client import Client, connected

ACCESS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
TOKENS = "/apis/authentication.k8s.io/v1/tokenreviews"
CONFIGMAP = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
EXT_API = "system:serviceaccount:lab-sys:ext-api"
CASES = recordings.read("f2_sar_and_tokenreview")["cases"]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
async def strict(cluster: Cluster) -> AsyncIterator[ApiServer]:
    """A server that denies ext-api what an unprivileged service account may not do."""
    denials = (
        Denial(user=EXT_API, verb="create", resource="subjectaccessreviews"),
        Denial(user=EXT_API, verb="get", resource="configmaps"),
        Denial(user="mallory"),
    )
    async with ApiServer(cluster.certificates, authorizer=AllowKnownUsers(*denials)) as server:
        yield server


async def test_a_denied_request_gets_the_real_refusal(cluster: Cluster, strict: ApiServer) -> None:
    """The user, the verb, the resource and where."""
    token = strict.tokens.issue_for_service_account("lab-sys", "ext-api")
    async with connected(strict.url, cluster.authority.file) as client:
        review = await client.send("POST", ACCESS, CASES["without_rbac_sar"]["request"], **bearer(token))
        configmap = await client.get(CONFIGMAP, **bearer(token))
    assert review.body == CASES["without_rbac_sar"]["response"]
    assert configmap.body == CASES["without_rbac_configmap"]["response"]
    assert (review.status, configmap.status) == (403, 403)


async def test_an_access_review_asks_the_same_authorizer(cluster: Cluster, strict: ApiServer) -> None:
    """201 in any case; a denial says allowed false and has no key denied."""
    async with connected(strict.url, cluster.authority.file, cluster.admin) as client:
        request = CASES["sar_hpa_controller_default_rbac"]["request"]
        allowed = await client.post(ACCESS, request)
        denied = await client.post(ACCESS, {"spec": request["spec"] | {"user": "mallory"}})
        master = {"user": "mallory", "groups": ["system:masters"]}
        masters = await client.post(ACCESS, {"spec": request["spec"] | master})
    assert [answer.status for answer in (allowed, denied, masters)] == [201, 201, 201]
    assert allowed.body["status"]["allowed"] is True
    assert allowed.body["spec"] == request["spec"]
    assert denied.body["status"] == {"allowed": False}
    assert masters.body["status"]["allowed"] is True


@pytest.mark.parametrize(
    "spec",
    [
        {"user": "a"},
        {"resourceAttributes": {"verb": "get"}},
        {"user": "a", "resourceAttributes": {"verb": "get"}, "nonResourceAttributes": {"path": "/"}},
    ],
)
async def test_an_access_review_that_asks_nothing_is_invalid(client: Client, spec: Any) -> None:
    """422, as the real server's validation."""
    assert (await client.post(ACCESS, {"spec": spec})).status == 422


async def test_a_token_review_names_the_tokens_user(client: Client, server: ApiServer) -> None:
    """With the audience it is good for."""
    token = server.tokens.issue_for_service_account("default", "default")
    answer = await client.post(TOKENS, {"spec": {"token": token}})
    status, expected = answer.body["status"], CASES["tokenreview_good"]["response"]["status"]
    assert answer.status == 201
    assert status["audiences"] == expected["audiences"]
    assert status["user"].keys() == expected["user"].keys()
    assert status["user"]["groups"] == expected["user"]["groups"]


async def test_a_token_review_of_a_bad_token_is_no_error(client: Client, server: ApiServer) -> None:
    """201 without `authenticated`, for a wrong audience too."""
    bad = await client.post(TOKENS, {"spec": {"token": "nonsense"}})
    assert (bad.status, bad.body["status"]) == (201, CASES["tokenreview_bad"]["response"]["status"])
    token = server.tokens.issue_for_service_account("default", "default")
    wrong = await client.post(TOKENS, {"spec": {"token": token, "audiences": ["https://other"]}})
    assert wrong.body["status"] == CASES["tokenreview_wrong_audience"]["response"]["status"]


async def test_a_stranger_may_ask_for_health_and_version_only(stranger: Client) -> None:
    """Everything else is forbidden to system:anonymous."""
    assert (await stranger.get("/readyz")).body == "ok"
    assert (await stranger.get("/version")).body["gitVersion"].startswith("v1.36.")
    refused = await stranger.get("/api/v1/namespaces/default/pods")
    assert refused.status == 403
    assert 'User "system:anonymous" cannot list resource "pods"' in refused.body["message"]
    assert (await stranger.get("/apis")).status == 403


async def test_an_unknown_token_is_unauthorized(stranger: Client) -> None:
    """401, and not the anonymous user."""
    assert (await stranger.get("/version", **bearer("nonsense"))).status == 401


async def test_only_masters_impersonate(stranger: Client, server: ApiServer) -> None:
    """A service account cannot pose as somebody else."""
    token = server.tokens.issue_for_service_account("default", "default")
    refused = await stranger.get("/version", Impersonate_User="admin", **bearer(token))
    assert refused.status == 403
    assert "cannot impersonate" in refused.body["message"]


async def test_a_review_of_oneself(client: Client) -> None:
    """`kubectl auth whoami`, with a service account's groups filled in when one is impersonated."""
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    who = await client.post(path, {})
    assert who.body["status"]["userInfo"]["username"] == "lab-admin"
    account = await client.send("POST", path, {}, Impersonate_User="system:serviceaccount:n:a")
    assert account.body["status"]["userInfo"]["groups"] == [
        "system:serviceaccounts",
        "system:serviceaccounts:n",
        "system:authenticated",
    ]


def test_a_denial_covers_what_it_names() -> None:
    """Subresources are resources of their own."""
    authorizer = AllowKnownUsers(Denial(resource="deployments/scale"))
    user = User(name="u", groups=("system:authenticated",))
    asked = Attributes(verb="update", group="apps", resource="deployments")
    assert authorizer.authorize(user, asked).allowed
    scale = Attributes(verb="update", group="apps", resource="deployments", subresource="scale")
    assert not authorizer.authorize(user, scale).allowed
