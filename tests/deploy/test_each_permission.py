"""Nothing in the roles of deploy/base is superfluous: without any permission something breaks, and says so.

Each is taken away alone, on an API server that enforces RBAC; then the code that needs it is run under the
service's own account.
"""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from deploy.sandbox import manifests
from deploy.sandbox.access import COMPONENTS
from tests.deploy import features
from tests.deploy.features import Feature, complaint_of
from tests.deploy.manifests import ROOT
from tests.deploy.permissions import POOLS, SYSTEM, Permission, permissions, site

DEPLOYMENTS = f"/apis/apps/v1/namespaces/{POOLS}/deployments"
REPLICA_SETS = f"/apis/apps/v1/namespaces/{POOLS}/replicasets"
PODS = f"/api/v1/namespaces/{POOLS}/pods"
SECRETS = f"/api/v1/namespaces/{SYSTEM}/secrets"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
ROUND = f"{LEASES.format(namespace=POOLS)}/celery-hpa-drain-worker"
LEADER = f"{LEASES.format(namespace=SYSTEM)}/celery-hpa-drain-reconciler"
WHERE = {POOLS: "pools", SYSTEM: "own", "*": "one object"}
"""In the documentation's words."""
UNKNOWN_CA = "It cannot be read which CA is registered, trying again in 15 s: GET "
UNREGISTERED = "Our CA could not be registered, trying again in 15 s: PATCH "


class Breakage(NamedTuple):
    """What does not work any more, and how the first complaint begins."""

    feature: Feature
    complaint: str


def unfollowed(path: str) -> Breakage:
    return Breakage(features.follow_the_workload, f"{path} cannot be followed, trying again: GET {path}: ")


FOLLOWING = {
    f"{verb} {path.rpartition('/')[2]} in {POOLS}": unfollowed(path)
    for path in (DEPLOYMENTS, REPLICA_SETS, PODS)
    for verb in ("list", "watch")
}


def certificate(secret: str, feature: Feature) -> dict[str, Breakage]:
    """Without the Secret a service does not start; without the patch it ends when its certificate does."""
    return {
        f"get secrets in {SYSTEM}": Breakage(feature, f"GET {SECRETS}/{secret}: "),
        f"create secrets in {SYSTEM}": Breakage(feature, f"POST {SECRETS}: "),
        f"patch secrets in {SYSTEM}": Breakage(feature, f"PATCH {SECRETS}/{secret}: "),
    }


BREAKS: dict[str, dict[str, Breakage]] = {
    "metrics-adapter": {
        **FOLLOWING,
        **certificate("metrics-adapter-tls", features.keep_the_adapters_certificate),
        "get apiservices in *": Breakage(features.keep_the_adapters_certificate, UNKNOWN_CA),
        "patch apiservices in *": Breakage(features.keep_the_adapters_certificate, UNREGISTERED),
    },
    "drain-hook": {
        **FOLLOWING,
        **certificate("drain-hook-tls", features.keep_the_hooks_certificate),
        "get validatingwebhookconfigurations in *": Breakage(
            features.read_the_failure_policy,
            "The failurePolicy in force could not be read, the last one is kept to: GET ",
        ),
        "patch validatingwebhookconfigurations in *": Breakage(
            features.keep_the_hooks_certificate, UNREGISTERED
        ),
        f"get deployments in {POOLS}": Breakage(features.look_at_the_workload, f"GET {DEPLOYMENTS}/worker: "),
        f"patch pods in {POOLS}": Breakage(
            features.drain_a_worker,
            "Whether this cluster honours controller.kubernetes.io/pod-deletion-cost could not be found out; "
            "it is taken to be unknown for half a minute, while scale-downs of Deployments are refused: "
            f"PATCH {PODS}/worker-0: ",
        ),
        f"create events in {POOLS}": Breakage(
            features.tell_of_a_scale_down_twice, "An Event could not be written: POST "
        ),
        f"patch events in {POOLS}": Breakage(
            features.tell_of_a_scale_down_twice, "An Event could not be written: PATCH "
        ),
        f"get leases in {POOLS}": Breakage(features.lock_the_workload, f"GET {ROUND}: "),
        f"create leases in {POOLS}": Breakage(
            features.lock_the_workload, f"POST {LEASES.format(namespace=POOLS)}: "
        ),
        f"update leases in {POOLS}": Breakage(
            features.lock_the_workload,
            f"A Lease could not be given back; it runs out by itself: PUT {ROUND}: ",
        ),
        f"get leases in {SYSTEM}": Breakage(features.lead_the_reconcilers, f"GET {LEADER}: "),
        f"create leases in {SYSTEM}": Breakage(
            features.lead_the_reconcilers, f"POST {LEASES.format(namespace=SYSTEM)}: "
        ),
        f"update leases in {SYSTEM}": Breakage(features.lead_the_reconcilers, f"PUT {LEADER}: "),
    },
}
"""By account, and there by verb, resource and where."""
BY_ACCOUNT = [pytest.param(one, id=f"{one.account} {one.words}") for of in BREAKS for one in permissions(of)]
OF_KINDS = [
    pytest.param(kind, one, id=f"{one.account} {one.words}")
    for kind in sorted(COMPONENTS)
    for of in BREAKS
    for one in permissions(of, kind=kind)
]


@pytest.mark.parametrize("account", BREAKS)
def test_each_permission_is_known_and_granted_once(account: str) -> None:
    """A permission that is added needs a line here that says what breaks without it."""
    assert sorted(one.words for one in permissions(account)) == sorted(BREAKS[account])


@pytest.mark.parametrize("permission", BY_ACCOUNT)
async def test_without_a_permission_something_breaks_and_says_so(
    permission: Permission, tmp_path: Path
) -> None:
    feature, beginning = BREAKS[permission.account][permission.words]
    async with site(tmp_path, permission.account, missing=permission) as here:
        complaint = await complaint_of(feature, here)
    assert complaint.startswith(beginning)
    assert permission.refusal in complaint


@pytest.mark.parametrize(("kind", "permission"), OF_KINDS)
async def test_without_what_a_component_adds_its_workloads_are_not_known(
    kind: str, permission: Permission, tmp_path: Path
) -> None:
    follow, look = features.follow_the_workload, features.look_at_the_workload
    async with site(tmp_path, permission.account, missing=permission, kind=kind) as here:
        complaint = await complaint_of(look if permission.verb == "get" else follow, here)
    assert permission.refusal in complaint


@pytest.mark.parametrize("kind", ["Deployment", *sorted(COMPONENTS)])
@pytest.mark.parametrize("account", BREAKS)
async def test_with_all_of_them_everything_works(account: str, kind: str, tmp_path: Path) -> None:
    """And nothing more is needed, either."""
    needed = {breakage.feature for breakage in BREAKS[account].values()}
    of_kind = {features.follow_the_workload, features.look_at_the_workload} & needed
    for feature in sorted(needed if kind == "Deployment" else of_kind, key=lambda one: one.__name__):
        directory = tmp_path / feature.__name__
        directory.mkdir()
        async with site(directory, account, kind=kind) as here:
            assert await complaint_of(feature, here) == "", feature.__name__


OF_THE_CLUSTER = [
    (
        "celery-hpa:metrics-adapter-authentication-reader",
        features.learn_whom_to_trust,
        "Bind our service account to the Role extension-apiserver-authentication-reader in kube-system.",
    ),
    (
        "celery-hpa:metrics-adapter-auth-delegator",
        features.ask_whose_a_token_is,
        'cannot create resource "tokenreviews"',
    ),
    (
        "celery-hpa:metrics-adapter-auth-delegator",
        features.ask_who_may_read_a_metric,
        'cannot create resource "subjectaccessreviews"',
    ),
]
"""Binding, what needs the cluster's role that it gives, and what the complaint says."""


@pytest.mark.parametrize(("binding", "feature", "words"), OF_THE_CLUSTER)
async def test_without_a_role_of_the_clusters_own_nobody_is_let_in(
    binding: str, feature: Feature, words: str, tmp_path: Path
) -> None:
    async with site(tmp_path, "metrics-adapter", without=binding) as here:
        assert words in await complaint_of(feature, here)


@pytest.mark.parametrize("feature", [feature for _, feature, _ in OF_THE_CLUSTER])
async def test_with_the_roles_of_the_cluster_the_adapter_knows_its_callers(
    feature: Feature, tmp_path: Path
) -> None:
    async with site(tmp_path, "metrics-adapter") as here:
        assert await complaint_of(feature, here) == ""


@pytest.mark.parametrize("account", BREAKS)
async def test_pods_of_other_namespaces_are_not_written_to(account: str, tmp_path: Path) -> None:
    """Nor read: a service's reach is that of the bindings, one for each namespace with pools."""
    async with site(tmp_path, account) as here:
        for verb, write in (("list", None), ("patch", {"x": "y"})):
            complaint = await complaint_of(features.at_pods_of("kube-system", write), here)
            assert complaint.endswith(
                f'User "system:serviceaccount:{SYSTEM}:{account}" cannot {verb} resource "pods" '
                'in API group "" in the namespace "kube-system" (403)'
            )


async def test_the_adapter_writes_to_no_pod(tmp_path: Path) -> None:
    async with site(tmp_path, "metrics-adapter") as here:
        complaint = await complaint_of(features.at_pods_of(manifests.NAMESPACE, {"x": "y"}), here)
    assert 'cannot patch resource "pods"' in complaint


def test_every_permission_is_explained() -> None:
    """In docs/security.md, by account, verb and resource, and nothing else is."""
    text = (ROOT / "docs" / "security.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| `(.+?)` `(\w+)` \| (.+?) \|", text, flags=re.MULTILINE)
    explained = [
        (account, f"{verb} {resource}", where)
        for account, verbs, resource, where in rows
        for verb in verbs.split("`, `")
    ]
    granted = [
        (one.account, f"{one.verb} {one.resource}", WHERE[one.namespace])
        for account in BREAKS
        for one in permissions(account)
    ]
    assert sorted(explained) == sorted(granted)
