"""Every single permission of deploy/base, and a cluster where just one of them is missing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.sandbox import manifests
from deploy.sandbox.access import shipped_access
from deploy.sandbox.client import ApiClient
from deploy.sandbox.kubeconfigs import Access, read_kubeconfig, write_kubeconfig
from deploy.sandbox.resources import Document
from deploy.sandbox.services import apply
from shared.kube_client import KubeClient
from shared.pods import WorkloadKey
from tests.deploy.manifests import Grant, grants
from tests.shared.kubernetes_stages import SandboxStage, sandbox_stage

EVERYWHERE, CLUSTER_SCOPE = "*", "at the cluster scope"
SYSTEM, POOLS = manifests.SYSTEM_NAMESPACE, manifests.NAMESPACE
NAME = "worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """One verb on one resource, by one role."""

    account: str
    role: str
    namespace: str
    """Where it is given: `*` for everywhere."""
    verb: str
    group: str
    resource: str

    @property
    def words(self) -> str:
        """As a table has it."""
        return f"{self.verb} {self.resource} in {self.namespace}"

    @property
    def refusal(self) -> str:
        """What the API server says where it is missing."""
        where = f'in the namespace "{self.namespace}"' if self.namespace != EVERYWHERE else CLUSTER_SCOPE
        return (
            f'User "system:serviceaccount:{SYSTEM}:{self.account}" cannot {self.verb} '
            f'resource "{self.resource}" in API group "{self.group}" {where}'
        )


def permissions(account: str, *, kind: str = "Deployment") -> list[Permission]:
    """All that an account of ours has by roles of ours; for another kind what its component adds."""
    base = [one for grant in grants(account) for one in _single(account, grant)]
    if kind == "Deployment":
        return base
    documents = list(shipped_access(namespaces={POOLS}, kinds={kind}))
    with_kind = [one for grant in grants(account, documents) for one in _single(account, grant)]
    return [one for one in with_kind if one not in base]


def _single(account: str, grant: Grant) -> Iterator[Permission]:
    for group in grant.rule["apiGroups"]:
        for resource in grant.rule["resources"]:
            for verb in grant.rule["verbs"]:
                yield Permission(
                    account=account,
                    role=grant.role,
                    namespace=grant.namespace,
                    verb=verb,
                    group=group,
                    resource=resource,
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A cluster with a workload, `worker`, both registrations, and an account's client."""

    stage: SandboxStage
    kube: KubeClient
    directory: Path
    workload: WorkloadKey
    """A Deployment of three pods, or something else without any."""


@asynccontextmanager
async def site(
    directory: Path,
    account: str,
    *,
    missing: Permission | None = None,
    without: str = "",
    kind: str = "Deployment",
) -> AsyncIterator[Site]:
    """All of deploy/base, and of the component for `kind`, but for one permission, or for one binding."""
    kinds = {kind} - {"Deployment"}
    async with sandbox_stage(directory) as stage:
        access = read_kubeconfig(directory / "kubeconfig")
        async with ApiClient(access.url, tls=access.tls()) as administrator:
            for document in shipped_access(namespaces={POOLS}, kinds=kinds):
                if document["metadata"]["name"] != without:
                    await apply(administrator, _lacking(document, missing) if missing else document)
            await apply(administrator, manifests.api_service(port=443, ca_pem=b""))
            await apply(administrator, manifests.webhook_configuration(port=443, ca_pem=b""))
            for other in kinds:
                await apply(administrator, _without_pods(other))
        await stage.add_workload(replicas=3)
        token = stage.server.tokens.issue_for_service_account(SYSTEM, account)
        own = Access(url=access.url, ca_pem=access.ca_pem, token=token)
        kubeconfig = write_kubeconfig(directory / f"{account}.kubeconfig", own)
        async with KubeClient.connect(str(kubeconfig)) as kube:
            workload = WorkloadKey(kind, POOLS, NAME)
            yield Site(stage=stage, kube=kube, directory=directory, workload=workload)


def _without_pods(kind: str) -> Document:
    return manifests.of_kind(
        kind,
        manifests.worker_deployment(name=NAME, replicas=0, command=[], environment={}, grace_seconds=0),
    )


def _lacking(document: Document, missing: Permission) -> Document:
    if "rules" not in document or document["metadata"]["name"] != missing.role:
        return document
    rules = [single for rule in document["rules"] for single in _rules_without(rule, missing)]
    assert rules != document["rules"]
    return document | {"rules": rules}


def _rules_without(rule: Document, missing: Permission) -> Iterator[Document]:
    """A rule for each resource, less the verb."""
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            is_it = (group, resource) == (missing.group, missing.resource)
            verbs = [verb for verb in rule["verbs"] if not (is_it and verb == missing.verb)]
            yield rule | {"apiGroups": [group], "resources": [resource], "verbs": verbs}
