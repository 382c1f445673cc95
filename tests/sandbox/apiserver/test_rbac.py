"""What roles allow, to whom bindings give them, and how the API server goes by both."""

from typing import Any

import pytest

from deploy.sandbox.apiserver.authentication import User
from deploy.sandbox.apiserver.authorization import Attributes
from deploy.sandbox.apiserver.bootstrap_policy import bootstrap_policy
from deploy.sandbox.apiserver.rbac import RoleBasedAccess, allows, is_meant
from deploy.sandbox.apiserver.server import ApiServer
from deploy.sandbox.apiserver.store import Key, ObjectStore
from deploy.sandbox.resources import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES
from tests.sandbox import recordings
from tests.sandbox.http_client import Client

RBAC = "/apis/rbac.authorization.k8s.io/v1"
READS_PODS = {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}
ANNA = User(name="anna", groups=("developers", "system:authenticated"))
BOT = User(
    name="system:serviceaccount:ci:bot", groups=("system:serviceaccounts", "system:serviceaccounts:ci")
)


def asked(verb: str, resource: str, *, group: str = "", name: str = "", namespace: str = "ci") -> Attributes:
    resource, _, subresource = resource.partition("/")
    return Attributes(
        verb=verb, group=group, resource=resource, subresource=subresource, name=name, namespace=namespace
    )


@pytest.mark.parametrize(
    ("rule", "attributes", "expected"),
    [
        ({}, asked("get", "pods"), True),
        ({}, asked("watch", "pods"), False),
        ({}, asked("get", "secrets"), False),
        ({}, asked("get", "pods", group="metrics.k8s.io"), False),
        ({}, asked("get", "pods/log"), False),
        ({"resources": ["pods/log"]}, asked("get", "pods/log"), True),
        ({"resources": ["pods/log"]}, asked("get", "pods"), False),
        ({"resources": ["*"]}, asked("get", "pods/log"), True),
        ({"resources": ["*/log"]}, asked("get", "pods/log"), True),
        ({"resources": ["*/log"]}, asked("get", "log"), False),
        ({"verbs": ["*"], "apiGroups": ["*"]}, asked("patch", "pods", group="x"), True),
        ({"resourceNames": ["a"]}, asked("get", "pods", name="a"), True),
        ({"resourceNames": ["a"]}, asked("get", "pods", name="b"), False),
        ({"resourceNames": ["a"]}, asked("list", "pods"), False),
        ({}, Attributes(verb="get", path="/api"), False),
    ],
)
def test_a_rule_covers_what_it_names(rule: dict[str, Any], attributes: Attributes, expected: bool) -> None:
    """A subresource is a resource of its own; what names objects says nothing of a list of all."""
    assert allows(READS_PODS | rule, attributes) is expected


@pytest.mark.parametrize(
    ("urls", "path", "expected"),
    [
        (["/version"], "/version", True),
        (["/version"], "/version/", False),
        (["/apis/*"], "/apis/apps/v1", True),
        (["/apis/*"], "/apis", False),
        (["*"], "/anything", True),
    ],
)
def test_paths_are_covered_by_their_beginning(urls: list[str], path: str, expected: bool) -> None:
    rule = {"verbs": ["get"], "nonResourceURLs": urls}
    assert allows(rule, Attributes(verb="get", path=path)) is expected
    assert not allows(rule, asked("get", "pods"))


@pytest.mark.parametrize(
    ("subject", "user"),
    [
        ({"kind": "User", "name": "anna"}, ANNA),
        ({"kind": "Group", "name": "developers"}, ANNA),
        ({"kind": "ServiceAccount", "name": "bot", "namespace": "ci"}, BOT),
        ({"kind": "ServiceAccount", "name": "bot"}, BOT),
        ({"kind": "Group", "name": "system:serviceaccounts:ci"}, BOT),
    ],
)
def test_a_subject_is_a_user_a_group_or_an_account(subject: dict[str, str], user: User) -> None:
    """An account without a namespace is one of the binding's."""
    assert is_meant(subject, user, namespace="ci")
    assert not is_meant(subject, BOT if user is ANNA else ANNA, namespace="ci")


def test_an_account_of_another_namespace_is_another() -> None:
    assert not is_meant({"kind": "ServiceAccount", "name": "bot", "namespace": "cd"}, BOT, namespace="ci")
    assert not is_meant({"kind": "ServiceAccount", "name": "bot"}, BOT, namespace="cd")


def stored(
    *, binding_namespace: str, role_kind: str = "ClusterRole", with_role: bool = True
) -> RoleBasedAccess:
    """A role for pods, bound to anna."""
    store = ObjectStore()
    role = Key(CLUSTER_ROLES, "", "pods") if role_kind == "ClusterRole" else Key(ROLES, "ci", "pods")
    if with_role:
        store.put(role, {"metadata": {"name": "pods"}, "rules": [READS_PODS]})
    store.put(
        Key(ROLE_BINDINGS if binding_namespace else CLUSTER_ROLE_BINDINGS, binding_namespace, "annas"),
        {
            "metadata": {"name": "annas"} | ({"namespace": binding_namespace} if binding_namespace else {}),
            "roleRef": {"kind": role_kind, "name": "pods"},
            "subjects": [{"kind": "User", "name": "anna"}],
        },
    )
    return RoleBasedAccess(store)


@pytest.mark.parametrize(
    ("bound_in", "asked_in", "expected"),
    [("ci", "ci", True), ("ci", "cd", False), ("ci", "", False), ("", "cd", True), ("", "", True)],
)
def test_a_binding_reaches_as_far_as_its_namespace(bound_in: str, asked_in: str, expected: bool) -> None:
    """A cluster role that is bound in a namespace gives nothing anywhere else."""
    access = stored(binding_namespace=bound_in)
    assert access.authorize(ANNA, asked("list", "pods", namespace=asked_in)).allowed is expected
    assert not access.authorize(BOT, asked("list", "pods", namespace=asked_in)).allowed


@pytest.mark.parametrize(
    ("bound_in", "kind", "reason"),
    [
        (
            "",
            "ClusterRole",
            'ClusterRoleBinding "annas" of ClusterRole "pods" to User "anna"',
        ),
        ("ci", "Role", 'RoleBinding "annas/ci" of Role "pods" to User "anna"'),
    ],
)
def test_the_reason_names_the_binding(bound_in: str, kind: str, reason: str) -> None:
    decision = stored(binding_namespace=bound_in, role_kind=kind).authorize(ANNA, asked("get", "pods"))
    assert decision.reason == f"RBAC: allowed by {reason}"


def test_a_missing_role_is_named() -> None:
    """It is the usual mistake of whoever installs by hand."""
    decision = stored(binding_namespace="ci", with_role=False).authorize(ANNA, asked("get", "pods"))
    assert not decision.allowed
    assert decision.reason == 'RBAC: clusterrole.rbac.authorization.k8s.io "pods" not found'


@pytest.mark.parametrize("name", ["system:auth-delegator", "system:controller:horizontal-pod-autoscaler"])
def test_roles_of_the_cluster_are_the_real_ones(name: str) -> None:
    (recorded,) = [
        role
        for role in recordings.read("f3_default_clusterroles")["roles"]
        if role["metadata"]["name"] == name
    ]
    (ours,) = [
        role
        for resource, _, role in bootstrap_policy()
        if resource is CLUSTER_ROLES and role["metadata"]["name"] == name
    ]
    assert ours["rules"] == recorded["rules"]


def test_the_reader_of_the_front_proxys_ca_has_the_real_role() -> None:
    (ours,) = [role for resource, _, role in bootstrap_policy() if resource is ROLES]
    recorded = recordings.read("f1_extension_apiserver_authentication")["role"]
    assert (ours["metadata"]["name"], ours["rules"]) == (recorded["metadata"]["name"], recorded["rules"])


async def test_what_is_granted_holds_from_the_next_request(
    client: Client, stranger: Client, server: ApiServer
) -> None:
    """And no longer than it is."""
    bearer = {"Authorization": f"Bearer {server.tokens.issue_for_service_account('default', 'bot')}"}
    path = "/api/v1/namespaces/default/pods"
    assert (await stranger.get(path, **bearer)).status == 403
    role = {"metadata": {"name": "pods"}, "rules": [READS_PODS]}
    binding = {
        "metadata": {"name": "pods"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "pods"},
        "subjects": [{"kind": "ServiceAccount", "name": "bot"}],
    }
    await client.post(f"{RBAC}/namespaces/default/roles", role)
    await client.post(f"{RBAC}/namespaces/default/rolebindings", binding)
    assert (await stranger.get(path, **bearer)).status == 200
    assert (await stranger.get("/api/v1/pods", **bearer)).status == 403
    await client.send("DELETE", f"{RBAC}/namespaces/default/rolebindings/pods")
    assert (await stranger.get(path, **bearer)).status == 403


async def test_one_object_is_listed_by_whoever_may_read_just_that(
    client: Client, stranger: Client, server: ApiServer
) -> None:
    """As an extension API server watches the one ConfigMap that its role names."""
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role"}
    binding = {
        "metadata": {"name": "reader"},
        "roleRef": reference | {"name": "extension-apiserver-authentication-reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "bot", "namespace": "default"}],
    }
    await client.post(f"{RBAC}/namespaces/kube-system/rolebindings", binding)
    bearer = {"Authorization": f"Bearer {server.tokens.issue_for_service_account('default', 'bot')}"}
    path = "/api/v1/namespaces/kube-system/configmaps"
    one = f"{path}?fieldSelector=metadata.name%3Dextension-apiserver-authentication"
    assert (await stranger.get(one, **bearer)).status == 200
    assert (await stranger.get(path, **bearer)).status == 403
    assert (await stranger.get(f"{path}?fieldSelector=metadata.name%3Dother", **bearer)).status == 403


async def test_an_aggregated_api_is_refused_before_it_is_asked(stranger: Client, server: ApiServer) -> None:
    """In the same words, with the name of the metric for the resource."""
    token = server.tokens.issue_for_service_account("default", "bot")
    path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/celery_demand"
    refused = await stranger.get(path, Authorization=f"Bearer {token}")
    assert refused.status == 403
    assert refused.body["message"] == (
        "celery_demand.external.metrics.k8s.io is forbidden: "
        'User "system:serviceaccount:default:bot" cannot list resource "celery_demand" '
        'in API group "external.metrics.k8s.io" in the namespace "default"'
    )


async def test_one_may_ask_what_one_may(stranger: Client, server: ApiServer) -> None:
    """`kubectl auth can-i`, which every account may ask."""
    token = server.tokens.issue_for_service_account("default", "bot")
    attributes = {"verb": "list", "resource": "pods", "namespace": "default"}
    answer = await stranger.send(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        {"spec": {"resourceAttributes": attributes}},
        Authorization=f"Bearer {token}",
    )
    assert (answer.status, answer.body["status"]) == (201, {"allowed": False})
