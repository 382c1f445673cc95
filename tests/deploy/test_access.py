"""deploy/base allows the calls that our code makes, where it makes them; and nothing that it never should."""

from typing import NamedTuple

import pytest

from tests.deploy.manifests import grants, installed, roles_of_the_cluster, the

POOLS, OURS, EVERYWHERE = "default", "celery-hpa", "*"


class Call(NamedTuple):
    """A request to the Kubernetes API; a subresource or a name only where one matters."""

    verb: str
    group: str
    resource: str
    namespace: str
    name: str = ""


FOLLOWING = [  # WorkloadCache: a list and a watch each, by Mirror
    Call(verb, group, resource, POOLS)
    for group, resource in (("apps", "deployments"), ("apps", "replicasets"), ("", "pods"))
    for verb in ("list", "watch")
]


def keeping_a_certificate(secret: str) -> list[Call]:
    """CertificateKeeper: KubeClient.secret(), create_secret(), replace_secret(), which is a merge patch."""
    return [
        Call("get", "", "secrets", OURS, secret),
        Call("create", "", "secrets", OURS),
        Call("patch", "", "secrets", OURS, secret),
    ]


def holding_a_lease(namespace: str) -> list[Call]:
    """Lease: KubeClient.read_lease(), create_lease(), replace_lease(), which is a PUT."""
    return [Call(verb, "coordination.k8s.io", "leases", namespace) for verb in ("get", "create", "update")]


CALLS = {
    "metrics-adapter": [
        *FOLLOWING,
        *keeping_a_certificate("metrics-adapter-tls"),
        # run_adapter(): KubeClient.api_service_ca(), replace_api_service_ca()
        *(
            Call(verb, "apiregistration.k8s.io", "apiservices", EVERYWHERE, "v1beta1.external.metrics.k8s.io")
            for verb in ("get", "patch")
        ),
    ],
    "drain-hook": [
        *FOLLOWING,
        *keeping_a_certificate("drain-hook-tls"),
        # Picture and Reconciler: KubeClient.workload(), workload_state(), whose lists FOLLOWING has
        Call("get", "apps", "deployments", POOLS),
        # Cordon: KubeClient.patch_pod()
        Call("patch", "", "pods", POOLS),
        # Events: KubeClient.create_event(), repeat_event()
        Call("create", "", "events", POOLS),
        Call("patch", "", "events", POOLS),
        # RoundLocks, beside the workload; the Reconciler's leadership, beside us
        *holding_a_lease(POOLS),
        *holding_a_lease(OURS),
        # run_hook(): KubeClient.webhook_ca(), replace_webhook_ca();
        # FailurePolicy: KubeClient.webhook_terms()
        *(
            Call(
                verb,
                "admissionregistration.k8s.io",
                "validatingwebhookconfigurations",
                EVERYWHERE,
                "celery-hpa-drain",
            )
            for verb in ("get", "patch")
        ),
    ],
}


def is_allowed(account: str, call: Call) -> bool:
    return any(
        grant.namespace in (call.namespace, "*")
        and grant.allows(call.verb, call.group, call.resource, call.name)
        for grant in grants(account)
    )


@pytest.mark.parametrize(
    ("account", "call"),
    [
        pytest.param(
            account,
            call,
            id=f"{account} {call.verb} {call.resource} in {call.namespace}",
        )
        for account, calls in CALLS.items()
        for call in calls
    ],
)
def test_every_call_is_allowed(account: str, call: Call) -> None:
    assert is_allowed(account, call)


@pytest.mark.parametrize("account", CALLS)
def test_no_more_is_allowed_than_is_called(account: str) -> None:
    """Each verb on each resource, where it is granted, is a call of the table."""
    granted = {
        (verb, group, resource, grant.namespace)
        for grant in grants(account)
        for verb in grant.rule["verbs"]
        for group in grant.rule["apiGroups"]
        for resource in grant.rule["resources"]
    }
    called = {(call.verb, call.group, call.resource, call.namespace) for call in CALLS[account]}
    assert granted == called


@pytest.mark.parametrize(("account", "other"), [tuple(CALLS), tuple(reversed(CALLS))])
def test_neither_reads_the_key_of_the_other(account: str, other: str) -> None:
    assert not is_allowed(account, Call("get", "", "secrets", OURS, f"{other}-tls"))


def test_the_adapter_may_ask_who_its_callers_are_and_what_they_may() -> None:
    """TrustSource reads the front proxy's CA; Authenticator and Authorizer make Token- and access reviews.

    The roles for it are every cluster's own: "system:auth-delegator" creates both reviews.
    """
    assert roles_of_the_cluster("metrics-adapter") == {
        ("Role", "extension-apiserver-authentication-reader", "kube-system"),
        ("ClusterRole", "system:auth-delegator", "*"),
    }
    assert not roles_of_the_cluster("drain-hook")


def test_every_binding_binds_a_role_that_is_there() -> None:
    names = {(one["kind"], one["metadata"]["name"]) for one in installed()}
    of_the_cluster = {name for account in CALLS for _, name, _ in roles_of_the_cluster(account)}
    for binding in installed():
        if "roleRef" in binding:
            kind, name = binding["roleRef"]["kind"], binding["roleRef"]["name"]
            assert (kind, name) in names or name in of_the_cluster, name


def test_every_role_is_bound() -> None:
    roles = {(one["kind"], one["metadata"]["name"]) for one in installed() if "rules" in one}
    references = [one["roleRef"] for one in installed() if "roleRef" in one]
    assert roles <= {(reference["kind"], reference["name"]) for reference in references}


def test_the_autoscaler_may_read_external_metrics() -> None:
    binding = the("ClusterRoleBinding", "celery-hpa:external-metrics-reader")
    (rule,) = the("ClusterRole", binding["roleRef"]["name"])["rules"]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "horizontal-pod-autoscaler", "namespace": "kube-system"}
    ]
    assert rule["apiGroups"] == ["external.metrics.k8s.io"]
    assert set(rule["verbs"]) <= {"get", "list", "watch"}


@pytest.mark.parametrize("account", CALLS)
@pytest.mark.parametrize("verb", ["update", "patch", "delete", "create"])
@pytest.mark.parametrize("resource", ["deployments", "deployments/scale", "replicasets"])
def test_nobody_writes_to_workloads(account: str, verb: str, resource: str) -> None:
    """Replicas are the HPA's, and the user's."""
    assert not is_allowed(account, Call(verb, "apps", resource, POOLS))


@pytest.mark.parametrize("account", CALLS)
def test_nothing_is_deleted_and_nothing_granted_at_large(account: str) -> None:
    for grant in grants(account):
        words = {*grant.rule["verbs"], *grant.rule["resources"], *grant.rule["apiGroups"]}
        assert not words & {"*", "delete", "deletecollection", "escalate", "bind", "impersonate"}


@pytest.mark.parametrize("account", CALLS)
def test_what_is_granted_everywhere_is_one_object(account: str) -> None:
    """Everything else in namespaces that are named: a service's reach is that of its configuration."""
    for grant in grants(account):
        assert grant.namespace != EVERYWHERE or len(grant.rule["resourceNames"]) == 1


@pytest.mark.parametrize("account", CALLS)
def test_the_secrets_of_others_are_not_read(account: str) -> None:
    assert not is_allowed(account, Call("get", "", "secrets", OURS, "celery-hpa-broker"))
    assert not is_allowed(account, Call("list", "", "secrets", OURS))
    assert not is_allowed(account, Call("get", "", "secrets", POOLS, f"{account}-tls"))
