"""Service accounts on a real control plane, with the very roles of deploy/base and nothing more."""

from __future__ import annotations

from pathlib import Path

import yaml

from deploy.sandbox import manifests
from deploy.sandbox.client import MERGE_PATCH, ApiClient
from deploy.sandbox.errors import ApiError
from deploy.sandbox.kubeconfigs import Access, write_kubeconfig
from deploy.sandbox.resources import Document

BASE = Path(__file__).parents[2] / "deploy" / "base"
STATEFUL_SETS = BASE.parent / "components" / "statefulset"
FILES = (
    "namespace.yaml",
    "service-accounts.yaml",
    "cluster-roles.yaml",
    "system-roles.yaml",
    "pool-namespace.yaml",
)
RBAC = "/apis/rbac.authorization.k8s.io/v1"
COLLECTIONS = {
    "Namespace": "/api/v1/namespaces",
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "ClusterRole": f"{RBAC}/clusterroles",
    "ClusterRoleBinding": f"{RBAC}/clusterrolebindings",
    "Role": f"{RBAC}/namespaces/{{namespace}}/roles",
    "RoleBinding": f"{RBAC}/namespaces/{{namespace}}/rolebindings",
}
TOKEN_SECONDS = 3600


async def grant_what_we_ship(kube: ApiClient) -> None:
    """Create the accounts, roles and bindings of deploy/base, with what StatefulSets need besides."""
    for file in FILES:
        for document in yaml.safe_load_all((BASE / file).read_text()):
            await _apply(kube, _with_stateful_sets(document))


def _with_stateful_sets(document: Document) -> Document:
    """A role with the rules that the component adds to it."""
    name = document["metadata"]["name"].removeprefix("celery-hpa:")
    patch = STATEFUL_SETS / f"{name}.yaml"
    if document["kind"] != "ClusterRole" or not patch.exists():
        return document
    added = [operation["value"] for operation in yaml.safe_load(patch.read_text())]
    return document | {"rules": [*document["rules"], *added]}


async def kubeconfig_of(kube: ApiClient, access: Access, service_account: str, directory: Path) -> Path:
    """A kubeconfig with a fresh token of one of our service accounts."""
    path = COLLECTIONS["ServiceAccount"].format(namespace=manifests.SYSTEM_NAMESPACE)
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": TOKEN_SECONDS},
    }
    answer = await kube.request("POST", f"{path}/{service_account}/token", request)
    token = Access(url=access.url, ca_pem=access.ca_pem, token=answer["status"]["token"])
    return write_kubeconfig(directory / f"{service_account}.kubeconfig", token)


async def _apply(kube: ApiClient, document: Document) -> None:
    metadata = document["metadata"]
    path = COLLECTIONS[document["kind"]].format(namespace=metadata.get("namespace", ""))
    try:
        await kube.request("POST", path, document)
    except ApiError as error:
        if error.code != 409:
            raise
        await kube.request("PATCH", f"{path}/{metadata['name']}", document, content_type=MERGE_PATCH)
