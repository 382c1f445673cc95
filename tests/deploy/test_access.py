"""What the roles of deploy/base never allow. That they allow what our code needs: test_each_permission.py."""

from typing import NamedTuple

import pytest

from shared.pools import parse_configuration
from tests.deploy.manifests import BASE, grants, installed, roles_of_the_cluster

POOLS, OURS, EVERYWHERE = "default", "celery-hpa", "*"


class Call(NamedTuple):
    """A request to the Kubernetes API; a subresource or a name only where one matters."""

    verb: str
    group: str
    resource: str
    namespace: str
    name: str = ""


ACCOUNTS = ("metrics-adapter", "drain-hook")


def is_allowed(account: str, call: Call) -> bool:
    return any(
        grant.namespace in (call.namespace, "*")
        and grant.allows(call.verb, call.group, call.resource, call.name)
        for grant in grants(account)
    )


@pytest.mark.parametrize(("account", "other"), [ACCOUNTS, tuple(reversed(ACCOUNTS))])
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
    of_the_cluster = {name for account in ACCOUNTS for _, name, _ in roles_of_the_cluster(account)}
    for binding in installed():
        if "roleRef" in binding:
            kind, name = binding["roleRef"]["kind"], binding["roleRef"]["name"]
            assert (kind, name) in names or name in of_the_cluster, name


def test_every_role_is_bound() -> None:
    roles = {(one["kind"], one["metadata"]["name"]) for one in installed() if "rules" in one}
    references = [one["roleRef"] for one in installed() if "roleRef" in one]
    assert roles <= {(reference["kind"], reference["name"]) for reference in references}


def test_nobody_but_our_accounts_is_granted_anything() -> None:
    """The autoscaler reads external metrics by a role that every cluster has for it."""
    subjects = [subject for one in installed() for subject in one.get("subjects", ())]
    ours = [{"kind": "ServiceAccount", "name": name, "namespace": OURS} for name in ACCOUNTS]
    assert [subject for subject in subjects if subject not in ours] == []


def test_pods_are_written_to_in_namespaces_of_pools_only() -> None:
    """By the one role that bindings of such a namespace give, and that none for all of them does."""
    writing = {
        grant.namespace
        for account in ACCOUNTS
        for grant in grants(account)
        if "pods" in grant.rule["resources"] and set(grant.rule["verbs"]) - {"get", "list", "watch"}
    }
    assert writing == {
        pool.namespace for pool in parse_configuration((BASE / "config.yaml").read_text()).pools
    }


@pytest.mark.parametrize("account", ACCOUNTS)
@pytest.mark.parametrize("verb", ["update", "patch", "delete", "create"])
@pytest.mark.parametrize("resource", ["deployments", "deployments/scale", "replicasets"])
def test_nobody_writes_to_workloads(account: str, verb: str, resource: str) -> None:
    """Replicas are the HPA's, and the user's."""
    assert not is_allowed(account, Call(verb, "apps", resource, POOLS))


@pytest.mark.parametrize("account", ACCOUNTS)
def test_nothing_is_deleted_and_nothing_granted_at_large(account: str) -> None:
    for grant in grants(account):
        words = {*grant.rule["verbs"], *grant.rule["resources"], *grant.rule["apiGroups"]}
        assert not words & {"*", "delete", "deletecollection", "escalate", "bind", "impersonate"}


@pytest.mark.parametrize("account", ACCOUNTS)
def test_what_is_granted_everywhere_is_one_object(account: str) -> None:
    """Everything else in namespaces that are named: a service's reach is that of its configuration."""
    for grant in grants(account):
        assert grant.namespace != EVERYWHERE or len(grant.rule["resourceNames"]) == 1


@pytest.mark.parametrize("account", ACCOUNTS)
def test_the_secrets_of_others_are_not_read(account: str) -> None:
    assert not is_allowed(account, Call("get", "", "secrets", OURS, "celery-hpa-broker"))
    assert not is_allowed(account, Call("list", "", "secrets", OURS))
    assert not is_allowed(account, Call("get", "", "secrets", POOLS, f"{account}-tls"))
