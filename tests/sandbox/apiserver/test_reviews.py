"""Who is asking and what they may do, in the answers of a real cluster."""

from typing import Any

import pytest

from deploy.sandbox.apiserver.server import ApiServer
from tests.sandbox import recordings
from tests.sandbox.http_client import Client

ACCESS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
TOKENS = "/apis/authentication.k8s.io/v1/tokenreviews"
CONFIGMAP = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
CASES = recordings.read("f2_sar_and_tokenreview")["cases"]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


REVIEWED = [name for name, case in CASES.items() if case.get("path") == ACCESS and case.get("status") == 201]


async def test_a_denied_request_gets_the_real_refusal(stranger: Client, server: ApiServer) -> None:
    """The user, the verb, the resource and where."""
    token = server.tokens.issue_for_service_account("lab-sys", "ext-api")
    review = await stranger.send("POST", ACCESS, CASES["without_rbac_sar"]["request"], **bearer(token))
    configmap = await stranger.get(CONFIGMAP, **bearer(token))
    assert review.body == CASES["without_rbac_sar"]["response"]
    assert configmap.body == CASES["without_rbac_configmap"]["response"]
    assert (review.status, configmap.status) == (403, 403)


@pytest.mark.parametrize("name", REVIEWED)
async def test_an_access_review_is_answered_as_recorded(client: Client, name: str) -> None:
    """201 in any case, with the binding that allows it; a denial has no key `denied`."""
    answer = await client.post(ACCESS, CASES[name]["request"])
    assert answer.status == 201
    assert answer.body["spec"] == CASES[name]["request"]["spec"]
    assert answer.body["status"] == CASES[name]["response"]["status"]


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


@pytest.mark.parametrize(
    ("headers", "whom"),
    [
        ({"User": "admin"}, 'users "admin" is forbidden: User "{me}" cannot impersonate resource "users"'),
        (
            {"User": "system:serviceaccount:n:a"},
            'serviceaccounts "a" is forbidden: User "{me}" cannot impersonate resource "serviceaccounts"',
        ),
    ],
)
async def test_who_may_not_pose_as_others_is_refused(
    stranger: Client, server: ApiServer, headers: dict[str, str], whom: str
) -> None:
    """Impersonation is a verb like others, which a plain service account does not have."""
    token = server.tokens.issue_for_service_account("default", "default")
    headers = {f"Impersonate_{name}": value for name, value in headers.items()}
    refused = await stranger.get("/version", **headers, **bearer(token))
    assert refused.status == 403
    assert refused.body["message"].startswith(whom.format(me="system:serviceaccount:default:default"))


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
