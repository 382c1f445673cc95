"""Scales under review: what the webhook is sent and what its answer does, as recorded in a real cluster."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from deploy.sandbox.apiserver.authentication import service_account_user
from deploy.sandbox.apiserver.server import ApiServer
from tests.sandbox import recordings
from tests.sandbox.apiserver.documents import deployment
from tests.sandbox.apiserver.webhook import Call, Webhook, answered, never, serving
from tests.sandbox.conftest import Cluster
from tests.sandbox.http_client import Client, connected

W = "/apis/apps/v1/namespaces/c/deployments/w"
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
UNSAFE = "object.spec.replicas < oldObject.spec.replicas"
SAFE = "object.spec.?replicas.orValue(0) < oldObject.spec.?replicas.orValue(0)"


@pytest.fixture
async def webhook(cluster: Cluster, client: Client) -> AsyncIterator[Webhook]:
    """A webhook behind its Service, and a Deployment w of five in namespace c; not yet configured."""
    async with serving(cluster.authority) as running:
        await prepare(client)
        yield running


async def prepare(client: Client) -> None:
    for name in ("lab-sys", "c"):
        await client.post("/api/v1/namespaces", {"metadata": {"name": name}})
    spec = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": 443}]}
    service = {"metadata": {"name": "drain-webhook"}, "spec": spec}
    await client.post("/api/v1/namespaces/lab-sys/services", service)
    await client.post("/apis/apps/v1/namespaces/c/deployments", deployment())
    await client.patch(f"{W}/status", {"status": {"replicas": 5}})


async def configure(client: Client, webhook: Webhook, **settings: Any) -> None:
    created = await client.post(CONFIGURATIONS, webhook.configuration(**settings))
    assert created.status == 201, created.body


async def scale(client: Client, replicas: int, query: str = "") -> Any:
    return await client.patch(f"{W}/scale{query}", {"spec": {"replicas": replicas}})


async def replicas(client: Client) -> int:
    return int((await client.get(W)).body["spec"]["replicas"])


def shape(review: Any) -> Any:
    """A review without what differs between any two clusters; whether the versions agree is kept."""
    request = review["request"]
    objects = {}
    for part in ("object", "oldObject"):
        identity = {"uid": "", "resourceVersion": "", "creationTimestamp": ""}
        metadata = request[part]["metadata"]
        assert metadata["resourceVersion"] == request["object"]["metadata"]["resourceVersion"]
        assert identity.keys() < metadata.keys()
        objects[part] = request[part] | {"metadata": metadata | identity}
    extra = dict.fromkeys(request["userInfo"].get("extra", {}), "")
    user = request["userInfo"] | ({"extra": extra} if extra else {})
    if "uid" in user:
        user["uid"] = ""
    return review | {"request": request | objects | {"uid": "", "userInfo": user}}


def recorded_review(name: str, call: int = 0) -> Any:
    return recordings.read(name)["requests"][call]["body"]


async def test_a_scale_down_is_sent_as_the_real_server_sends_it(client: Client, webhook: Webhook) -> None:
    """Body, query and headers of `kubectl scale`, and no client certificate or identity headers."""
    await configure(client, webhook)
    assert (await scale(client, 3)).status == 200
    recorded = recordings.read("c01_kubectl_scale_down")["requests"][0]
    [call] = webhook.calls
    assert shape(call.review) == shape(recorded["body"])
    assert list(call.review["request"]) == list(recorded["body"]["request"])
    assert f"POST {call.path} HTTP/1.1" == recorded["request_line"]
    headers, expected = dict(call.headers), dict(recorded["headers"])
    assert headers.keys() == expected.keys()
    for name in ("User-Agent", "Accept", "Content-Type", "Accept-Encoding"):
        assert headers[name] == expected[name]
    assert headers["Host"] == f"drain-webhook.lab-sys.svc:{webhook.port}"


async def test_zero_replicas_are_left_out_of_the_review(client: Client, webhook: Webhook) -> None:
    """Both ways: to zero and from zero."""
    await configure(client, webhook)
    await scale(client, 0)
    await client.patch(f"{W}/status", {"status": {"replicas": 0}})
    await scale(client, 5)
    for index, call in enumerate(webhook.calls):
        assert shape(call.review) == shape(recorded_review("c29_scale_to_zero_body", index))


async def test_a_dry_run_is_reviewed_as_one_and_changes_nothing(client: Client, webhook: Webhook) -> None:
    """request.dryRun and options.dryRun say so."""
    await configure(client, webhook)
    await scale(client, 2, "?dryRun=All")
    assert shape(webhook.calls[0].review) == shape(recorded_review("c06_dry_run_server"))
    assert await replicas(client) == 5


async def test_an_impersonated_user_is_who_is_reviewed(client: Client, webhook: Webhook) -> None:
    """The webhook sees alice, not the administrator behind her."""
    await configure(client, webhook)
    await client.send(
        "PATCH",
        f"{W}/scale",
        {"spec": {"replicas": 4}},
        Content_Type="application/merge-patch+json",
        Impersonate_User="alice",
        Impersonate_Group="system:masters",
    )
    assert shape(webhook.calls[0].review) == shape(recorded_review("c10_impersonated_user"))


async def test_the_autoscaler_is_known_by_its_service_account(
    stranger: Client, client: Client, server: ApiServer, webhook: Webhook
) -> None:
    """A bearer token's identity has a uid, three groups and a credential id; the PUT names its version."""
    await configure(client, webhook)
    token = server.tokens.issue_for_service_account("kube-system", "horizontal-pod-autoscaler")
    wanted = (await client.get(f"{W}/scale")).body | {"spec": {"replicas": 2}}
    await stranger.send("PUT", f"{W}/scale", wanted, Authorization=f"Bearer {token}")
    recorded = recordings.read("c50_hpa_scale_down_allowed")["first_request"][0]["body"]
    assert shape(webhook.calls[0].review)["request"]["userInfo"] == shape(recorded)["request"]["userInfo"]


@pytest.mark.parametrize("name", ["c11_denied", "c11b_denied_code_429"])
async def test_a_refusal_reaches_the_client_in_the_real_words(
    client: Client, webhook: Webhook, name: str
) -> None:
    """Message, reason and code are the webhook's; a code below 400, or none, becomes 400."""
    await configure(client, webhook)
    recording = recordings.read(name)
    status = recording["requests"][0]["response"]["body"]["response"]["status"]
    webhook.answer = lambda uid: answered(uid, allowed=False, status=status)
    refused = await scale(client, 2)
    reason = f" ({status['reason']})" if "reason" in status else ""
    printed = f"Error from server{reason}: {refused.body['message']}\n"
    assert printed == recording["commands"][0]["stderr"]
    assert refused.status == status.get("code", 400)
    assert await replicas(client) == 5


async def test_a_wait_of_the_webhook_is_passed_on(client: Client, webhook: Webhook) -> None:
    """details.retryAfterSeconds becomes the header by which clients retry on their own."""
    await configure(client, webhook)
    status = {"code": 429, "message": "later", "details": {"retryAfterSeconds": 7}}
    webhook.answer = lambda uid: answered(uid, allowed=False, status=status)
    assert (await scale(client, 2)).headers["Retry-After"] == "7"


async def test_warnings_reach_the_client_and_annotations_the_audit(
    client: Client, server: ApiServer, webhook: Webhook
) -> None:
    """Warnings are headers in kubectl's form; audit annotations carry the webhook's name."""
    await configure(client, webhook)
    webhook.answer = lambda uid: answered(
        uid, allowed=True, warnings=['draining "2" workers'], auditAnnotations={"drained": "w-1,w-2"}
    )
    answer = await scale(client, 3)
    assert answer.warnings == ['299 - "draining \\"2\\" workers"']
    assert server.audit[-1].annotations == {"drain.lab.example/drained": "w-1,w-2"}


async def test_a_refusal_carries_its_warnings(client: Client, webhook: Webhook) -> None:
    """Both reach the client."""
    await configure(client, webhook)
    webhook.answer = lambda uid: answered(uid, allowed=False, warnings=["two are draining"])
    refused = await scale(client, 2)
    assert (refused.status, refused.warnings) == (400, ['299 - "two are draining"'])
    assert refused.body["message"].endswith("denied the request without explanation")


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("c13_reply_allowed_with_status", True),
        ("c13_reply_echo_request", True),
        ("c13_reply_no_content_type_json", True),
        ("c13_reply_status_201", True),
        ("c13_reply_http_500", False),
        ("c13_reply_uid_missing", False),
    ],
)
async def test_odd_replies_count_as_they_do_in_a_real_cluster(
    client: Client, webhook: Webhook, name: str, allowed: bool
) -> None:
    """A 2xx, a JSON body and the right uid are all that matters."""
    await configure(client, webhook)
    recording = recordings.read(name)
    recorded = recording["requests"][0]
    webhook.status = recorded["response"]["status"]
    webhook.content_type = recorded["response"]["headers"].get("Content-Type", "text/plain")
    body = recorded["response"]["body"]

    def answer(uid: str) -> Any:
        if not isinstance(body, dict) or "uid" not in body.get("response", {}):
            return body
        return body | {"response": body["response"] | {"uid": uid}}

    webhook.answer = answer
    outcome = await scale(client, 4)
    assert (outcome.status == 200) is allowed
    assert await replicas(client) == (4 if allowed else 5)
    if not allowed:
        said = recording["commands"][0]["stderr"].partition("Internal error occurred: ")[2].strip()
        uid = recorded["body"]["request"]["uid"]
        expected = said.replace(uid, webhook.calls[0].request["uid"])
        assert outcome.body["message"] == f"Internal error occurred: {expected}"


async def test_a_webhook_that_does_not_answer_fails_the_write(client: Client, webhook: Webhook) -> None:
    """Its timeoutSeconds over, failurePolicy Fail: an internal error in the real server's words."""
    await configure(client, webhook, timeoutSeconds=1)
    webhook.during = never
    refused = await scale(client, 4)
    printed = recordings.read("c14_timeout_fail")["commands"][0]["stderr"]
    expected = printed.partition(": ")[2].strip().replace("18444", str(webhook.port)).replace("2s", "1s")
    assert (refused.status, refused.body["message"]) == (500, expected)
    assert await replicas(client) == 5


async def test_under_ignore_a_failing_webhook_is_passed_over(
    client: Client, server: ApiServer, webhook: Webhook
) -> None:
    """The write goes through without a word to the client; the audit knows."""
    await configure(client, webhook, failurePolicy="Ignore")
    webhook.status = 500
    answer = await scale(client, 4)
    assert (answer.status, answer.warnings) == (200, [])
    assert list(server.audit[-1].annotations.values()) == ["drain.lab.example"]


async def test_a_write_during_the_call_makes_a_second_review(client: Client, webhook: Webhook) -> None:
    """One annotation written meanwhile: two calls with fresh objects and uids, and the scale succeeds."""
    await configure(client, webhook)

    async def annotate_once(_: Call) -> None:
        if len(webhook.calls) == 1:
            await client.patch(W, {"metadata": {"annotations": {"a": "b"}}})

    webhook.during = annotate_once
    assert (await scale(client, 3)).status == 200
    recorded = recordings.read("c43_single_write_during_webhook")
    assert len(webhook.calls) == recorded["webhook_calls"]
    assert len({call.request["uid"] for call in webhook.calls}) == recorded["distinct_uids"]
    versions = [call.request["object"]["metadata"]["resourceVersion"] for call in webhook.calls]
    assert versions[0] != versions[1]


async def test_a_put_with_a_version_conflicts_instead(client: Client, webhook: Webhook) -> None:
    """What the autoscaler sends is reviewed once, and then refused as stale."""
    await configure(client, webhook)

    async def annotate(_: Call) -> None:
        await client.patch(W, {"metadata": {"annotations": {"a": "b"}}})

    webhook.during = annotate
    wanted = (await client.get(f"{W}/scale")).body | {"spec": {"replicas": 3}}
    refused = await client.put(f"{W}/scale", wanted)
    assert [refused.status, refused.body] == recordings.read("c42_conflict_put_with_resourceversion")[
        "result"
    ]
    assert len(webhook.calls) == 1


async def test_a_request_ends_when_its_time_is_over(cluster: Cluster) -> None:
    """Retries included: while somebody writes all the time, the client is told of a timeout."""
    async with (
        serving(cluster.authority) as webhook,
        ApiServer(cluster.certificates, request_timeout_s=0.3) as hasty,
        connected(hasty.url, cluster.authority.file, cluster.admin) as client,
    ):
        await prepare(client)
        await configure(client, webhook)

        async def annotate(_: Call) -> None:
            await client.patch(W, {"metadata": {"annotations": {"calls": str(len(webhook.calls))}}})

        webhook.during = annotate
        refused = await scale(client, 3)
    printed = recordings.read("c44_conflict_long_writer")["result"]["stderr"]
    assert f"Error from server (Timeout): {refused.body['message']}\n" == printed
    assert refused.status == 504
    assert len(webhook.calls) > 2


async def test_a_refusal_of_a_state_that_has_passed_is_asked_for_again(
    client: Client, webhook: Webhook
) -> None:
    """The first attempt may be on an old state, so that only a refusal of the present one counts."""
    await configure(client, webhook)

    async def annotate_once(_: Call) -> None:
        if len(webhook.calls) == 1:
            await client.patch(W, {"metadata": {"annotations": {"a": "b"}}})

    webhook.during = annotate_once
    webhook.answer = lambda uid: answered(uid, allowed=len(webhook.calls) > 1)
    assert (await scale(client, 3)).status == 200


async def test_all_webhooks_are_asked_even_when_one_refuses(client: Client, webhook: Webhook) -> None:
    """They run side by side, so that each one's side effects happen."""
    await configure(client, webhook)
    second = webhook.configuration(name="second.lab.example")
    await client.post(CONFIGURATIONS, second | {"metadata": {"name": "second"}})
    both = asyncio.Event()

    async def together(_: Call) -> None:
        if len(webhook.calls) == 2:
            both.set()
        await both.wait()

    webhook.during = together
    webhook.answer = lambda uid: answered(uid, allowed=uid == webhook.calls[1].request["uid"])
    assert (await scale(client, 3)).status == 400
    assert len(webhook.calls) == 2


@pytest.mark.parametrize(
    ("settings", "calls"),
    [
        ({"objectSelector": {"matchLabels": {"app": "w"}}}, 0),
        ({"objectSelector": {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}}, 1),
        ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "c"}}}, 1),
        ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "d"}}}, 0),
        ({"matchConditions": [{"name": "down", "expression": SAFE}]}, 1),
        ({"matchConditions": [{"name": "up", "expression": f"!({SAFE})"}]}, 0),
        ({"matchConditions": [{"name": "n", "expression": "request.name == 'w' && !request.dryRun"}]}, 1),
    ],
)
async def test_selectors_and_conditions_choose_what_is_sent(
    client: Client, webhook: Webhook, settings: dict[str, Any], calls: int
) -> None:
    """A Scale has no labels, so an objectSelector by label never fits it."""
    await configure(client, webhook, **settings)
    assert (await scale(client, 3)).status == 200
    assert len(webhook.calls) == calls


async def test_a_condition_that_fails_refuses_the_write_or_skips_the_webhook(
    client: Client, webhook: Webhook
) -> None:
    """To zero, the unsafe comparison misses a field: Forbidden under Fail, silently skipped under Ignore."""
    conditions = [{"name": "down", "expression": UNSAFE}]
    await configure(client, webhook, matchConditions=conditions)
    refused = await scale(client, 0)
    printed = recordings.read("c28_match_condition_zero_unsafe")["commands"][0]["stderr"]
    assert f"Error from server (Forbidden): {refused.body['message']}\n" == printed
    lenient = webhook.configuration(matchConditions=conditions, failurePolicy="Ignore")
    await client.patch(f"{CONFIGURATIONS}/lab-wh", {"webhooks": lenient["webhooks"]})
    assert (await scale(client, 0)).status == 200
    assert webhook.calls == []


async def test_a_condition_on_labels_fails_on_a_scale(client: Client, webhook: Webhook) -> None:
    """A Scale has none, and the sentence quotes the expression."""
    text = "object.metadata.labels['nope'] == 'x'"
    await configure(client, webhook, matchConditions=[{"name": "labels", "expression": text}])
    refused = await scale(client, 4)
    printed = recordings.read("c26_match_condition_error")["commands"][0]["stderr"]
    assert f"Error from server (Forbidden): {refused.body['message']}\n" == printed


@pytest.mark.parametrize(
    ("resources", "calls"),
    [(["deployments"], 0), (["*/scale"], 1), (["*/*"], 1), (["*"], 0), (["replicasets/scale"], 0)],
)
async def test_rules_name_subresources_apart(
    client: Client, webhook: Webhook, resources: list[str], calls: int
) -> None:
    """`deployments` is not `deployments/scale`, and `*` is no subresource."""
    rule = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": resources}
    await configure(client, webhook, rules=[rule])
    await scale(client, 3)
    assert len(webhook.calls) == calls


async def test_a_plain_change_of_replicas_is_no_scale(client: Client, webhook: Webhook) -> None:
    """`kubectl apply` and `kubectl patch` of the Deployment go past a rule on deployments/scale."""
    await configure(client, webhook)
    await client.patch(W, {"spec": {"replicas": 2}})
    assert webhook.calls == []


BOTH_RULES = [
    {
        "apiGroups": ["apps"],
        "apiVersions": ["v1"],
        "operations": ["UPDATE"],
        "resources": ["deployments", "deployments/scale"],
    }
]


async def test_an_update_is_sent_with_the_whole_objects(client: Client, webhook: Webhook) -> None:
    """With a rule on deployments: the recorded envelope, and templates that can be compared."""
    await configure(client, webhook, rules=BOTH_RULES)
    await client.patch(W, {"spec": {"replicas": 2}})
    [call] = webhook.calls
    expected = recorded_review("c30_patch_deployment_with_deployments_rule")["request"]
    varies = {"uid", "object", "oldObject", "userInfo", "options"}
    assert {k: v for k, v in call.request.items() if k not in varies} == {
        k: v for k, v in expected.items() if k not in varies
    }
    assert call.replicas == (5, 2)
    for part in ("object", "oldObject"):
        assert call.request[part]["spec"]["template"]["spec"]["containers"]
        assert call.request[part]["metadata"]["uid"]


async def test_a_scale_under_both_rules_is_one_review(client: Client, webhook: Webhook) -> None:
    """`kubectl scale` is about deployments/scale alone."""
    await configure(client, webhook, rules=BOTH_RULES)
    await scale(client, 3)
    [call] = webhook.calls
    assert shape(call.review) == shape(recorded_review("c33_scale_with_both_rules"))


@pytest.mark.parametrize(("labels", "calls"), [({"app": "w"}, 1), ({"app": "other"}, 0)])
async def test_a_whole_object_can_be_selected_by_its_labels(
    client: Client, webhook: Webhook, labels: dict[str, str], calls: int
) -> None:
    """Other than a Scale."""
    await configure(client, webhook, rules=BOTH_RULES, objectSelector={"matchLabels": labels})
    await client.patch(W, {"spec": {"replicas": 2}})
    assert len(webhook.calls) == calls


async def test_a_url_serves_as_well_as_a_service(client: Client, webhook: Webhook) -> None:
    """The name that is verified is then the URL's host."""
    url = f"https://127.0.0.1:{webhook.port}/validate"
    await configure(client, webhook, clientConfig={"url": url, "caBundle": webhook.bundle})
    assert (await scale(client, 3)).status == 200
    assert dict(webhook.calls[0].headers)["Host"] == f"127.0.0.1:{webhook.port}"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"sideEffects": "Some"}, 'webhooks[0].sideEffects: Unsupported value: "Some"'),
        ({"timeoutSeconds": 31}, "the timeout value must be between 1 and 30 seconds"),
        ({"matchConditions": [{"name": "x", "expression": "size(object) > 1"}]}, "does not know 'size'"),
        ({"clientConfig": {}}, "exactly one of url or service is required"),
        ({"admissionReviewVersions": ["v1beta1"]}, "must include at least one of v1"),
    ],
)
async def test_a_wrong_configuration_is_refused_when_it_is_written(
    client: Client, webhook: Webhook, settings: dict[str, Any], sentence: str
) -> None:
    """With the field and the reason."""
    refused = await client.post(CONFIGURATIONS, webhook.configuration(**settings))
    assert refused.status == 422
    assert sentence in refused.body["message"]


async def test_a_webhook_behind_a_missing_service_fails(client: Client, webhook: Webhook) -> None:
    """The sentence names the Service."""
    await configure(client, webhook)
    await client.delete("/api/v1/namespaces/lab-sys/services/drain-webhook")
    assert 'service "drain-webhook" not found' in (await scale(client, 3)).body["message"]


def test_identities_of_service_accounts_differ_each_time() -> None:
    """Every token has a credential id of its own."""
    assert service_account_user("a", "b") != service_account_user("a", "b")
