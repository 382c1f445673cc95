"""What both services must be allowed to do, and by which of our manifests they are. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from shared.kube_documents import WORKLOAD_RESOURCES
from shared.pools import Pool

ADAPTER, HOOK = "metrics-adapter", "drain-hook"
"""Their service accounts, and the Services in front of them."""
API_SERVICE = "v1beta1.external.metrics.k8s.io"
WEBHOOK_CONFIGURATION = "celery-hpa-drain"
RECONCILER_LEASE = "celery-hpa-drain-reconciler"
POOL_NAMESPACE = "deploy/base/pool-namespace.yaml"
"""The manifest that is repeated for every namespace with a pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """One thing that one service account must be allowed."""

    account: str
    verb: str
    group: str = ""
    resource: str
    name: str = ""
    """Of one object; empty for all of them."""
    namespace: str = ""
    """Empty for what has no namespace."""
    granted_by: str
    """The manifest of ours that grants it."""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f" {self.name}" if self.name else "")

    def review(self, *, services_in: str) -> dict[str, Any]:
        """The spec of a SubjectAccessReview; `services_in` is the namespace of the service accounts."""
        attributes = {
            "verb": self.verb,
            "group": self.group,
            "resource": self.resource,
            "name": self.name,
            "namespace": self.namespace,
        }
        return {
            "user": f"system:serviceaccount:{services_in}:{self.account}",
            "groups": [
                "system:serviceaccounts",
                f"system:serviceaccounts:{services_in}",
                "system:authenticated",
            ],
            "resourceAttributes": {key: value for key, value in attributes.items() if value},
        }


def needed(pools: Iterable[Pool], *, services_in: str) -> tuple[Permission, ...]:
    """Everything, without what only --tls-self-managed needs: who brings certificates may leave that out."""
    kinds = sorted({(pool.namespace, pool.workload.kind) for pool in pools})
    of_namespaces = [p for namespace in dict(kinds) for p in _in_namespace(namespace)]
    of_kinds = [p for namespace, kind in kinds for p in _of_kind(namespace, kind)]
    return tuple([*_of_the_adapter(), *_of_the_hook(services_in), *of_namespaces, *of_kinds])


def _of_the_adapter() -> Iterable[Permission]:
    manifest = "deploy/base/system-roles.yaml"
    reviews = (
        ("authentication.k8s.io", "tokenreviews"),
        ("authorization.k8s.io", "subjectaccessreviews"),
    )
    for group, resource in reviews:
        yield Permission(account=ADAPTER, verb="create", group=group, resource=resource, granted_by=manifest)
    yield Permission(
        account=ADAPTER,
        verb="get",
        resource="configmaps",
        name="extension-apiserver-authentication",
        namespace="kube-system",
        granted_by=manifest,
    )


def _of_the_hook(services_in: str) -> Iterable[Permission]:
    manifest = "deploy/base/system-roles.yaml"
    yield Permission(
        account=HOOK,
        verb="get",
        group="admissionregistration.k8s.io",
        resource="validatingwebhookconfigurations",
        name=WEBHOOK_CONFIGURATION,
        granted_by=manifest,
    )
    for verb, name in (("create", ""), ("get", RECONCILER_LEASE), ("update", RECONCILER_LEASE)):
        yield Permission(
            account=HOOK,
            verb=verb,
            group="coordination.k8s.io",
            resource="leases",
            name=name,
            namespace=services_in,
            granted_by=manifest,
        )


_EVERYWHERE = (
    (ADAPTER, "apps", "replicasets", ("list", "watch")),
    (ADAPTER, "", "pods", ("list", "watch")),
    (HOOK, "apps", "replicasets", ("list", "watch")),
    (HOOK, "", "pods", ("list", "watch", "patch")),
    (HOOK, "", "events", ("create", "patch")),
    (HOOK, "coordination.k8s.io", "leases", ("get", "create", "update")),
)
"""In each namespace with a pool: account, API group, resource, verbs."""
_OF_WORKLOADS = ((ADAPTER, ("list", "watch")), (HOOK, ("get", "list", "watch")))
COMPONENTS = {"StatefulSet": "deploy/components/statefulset", "CloneSet": "deploy/components/cloneset"}


def _in_namespace(namespace: str) -> Iterable[Permission]:
    for account, group, resource, verbs in _EVERYWHERE:
        for verb in verbs:
            yield Permission(
                account=account,
                verb=verb,
                group=group,
                resource=resource,
                namespace=namespace,
                granted_by=POOL_NAMESPACE,
            )


def _of_kind(namespace: str, kind: str) -> Iterable[Permission]:
    group_version, resource = WORKLOAD_RESOURCES[kind]
    for account, verbs in _OF_WORKLOADS:
        for verb in verbs:
            yield Permission(
                account=account,
                verb=verb,
                group=group_version.partition("/")[0],
                resource=resource,
                namespace=namespace,
                granted_by=COMPONENTS.get(kind, POOL_NAMESPACE),
            )
