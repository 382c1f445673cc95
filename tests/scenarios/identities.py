"""Tokens of our service accounts on a real control plane."""

from __future__ import annotations

from pathlib import Path

from deploy.sandbox import manifests
from deploy.sandbox.client import ApiClient
from deploy.sandbox.kubeconfigs import Access, write_kubeconfig

ACCOUNTS = f"/api/v1/namespaces/{manifests.SYSTEM_NAMESPACE}/serviceaccounts"
TOKEN_SECONDS = 3600


async def kubeconfig_of(kube: ApiClient, access: Access, service_account: str, directory: Path) -> Path:
    """A kubeconfig with a fresh token of one of our service accounts."""
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": TOKEN_SECONDS},
    }
    answer = await kube.request("POST", f"{ACCOUNTS}/{service_account}/token", request)
    token = Access(url=access.url, ca_pem=access.ca_pem, token=answer["status"]["token"])
    return write_kubeconfig(directory / f"{service_account}.kubeconfig", token)
