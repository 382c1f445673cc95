"""Runs both services as their own processes and registers them with a control plane, ours or any other."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from deploy.sandbox import manifests
from deploy.sandbox.access import shipped_access
from deploy.sandbox.client import ApiClient
from deploy.sandbox.errors import ApiError
from deploy.sandbox.processes import free_port, running
from deploy.sandbox.resources import RESOURCES, Document, Resource
from shared.certificates import KeyPair, make_ca, make_leaf, save_key_pair

AVAILABLE_S = 40.0
VALUES = "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Where the two services are, and where they write."""

    directory: Path
    configuration: Path
    adapter_telemetry: int
    hook_telemetry: int

    @property
    def hook_log(self) -> Path:
        return self.directory / "drain_hook.log"


@asynccontextmanager
async def services(
    kube: ApiClient,
    *,
    directory: Path,
    configuration: Document,
    adapter_kubeconfig: Path,
    hook_kubeconfig: Path,
    with_webhook: bool = True,
    with_updates: bool = False,
) -> AsyncIterator[Services]:
    """Both services, registered and answering; unregistered and stopped at the end.

    Their accounts may do what deploy/base grants them, and no more. `with_updates` has the hook asked about
    updates of whole Deployments, too.
    """
    path = directory / "config.yaml"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(configuration, sort_keys=False))
    ca = make_ca("celery-hpa sandbox")
    adapter, hook = (
        Service("metrics_adapter", manifests.ADAPTER_SERVICE),
        Service("drain_hook", manifests.HOOK_SERVICE),
    )
    async with AsyncExitStack() as stack:
        await grant_what_we_ship(kube, configuration)
        for service, kubeconfig in ((adapter, adapter_kubeconfig), (hook, hook_kubeconfig)):
            await apply(kube, manifests.external_name_service(service.name))
            command = service.command(directory, path, kubeconfig, ca)
            log = directory / f"{service.module}.log"
            await stack.enter_async_context(running(command, log=log, ready=f"{service.module} serves"))
        stack.push_async_callback(_unregister, kube)
        await apply(kube, manifests.api_service(port=adapter.port, ca_pem=ca.certificate_pem))
        if with_webhook:
            webhook = manifests.webhook_configuration(
                port=hook.port,
                ca_pem=ca.certificate_pem,
                with_updates=with_updates,
                kinds=_kinds_beside_deployments(configuration),
            )
            await apply(kube, webhook)
        await _until_available(kube)
        yield Services(
            directory=directory,
            configuration=path,
            adapter_telemetry=adapter.telemetry_port,
            hook_telemetry=hook.telemetry_port,
        )


class Service:
    """A process of one of our two services, with the ports it will have."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name
        self.port, self.telemetry_port = free_port(), free_port()

    def command(self, directory: Path, configuration: Path, kubeconfig: Path, ca: KeyPair) -> list[str]:
        """Its command line, for which a certificate is written to `directory`."""
        host = f"{self.name}.{manifests.SYSTEM_NAMESPACE}.svc"
        leaf = make_leaf(ca, common_name=host, names=(host, "localhost"), addresses=("127.0.0.1",))
        certificate, key = directory / f"{self.name}.crt", directory / f"{self.name}.key"
        save_key_pair(leaf, certificate_file=certificate, key_file=key)
        return [
            *(sys.executable, "-m", self.module, "--config", str(configuration)),
            *("--kubeconfig", str(kubeconfig), "--host", "127.0.0.1", "--log-format", "json"),
            *("--port", str(self.port), "--telemetry-port", str(self.telemetry_port)),
            *("--tls-cert-file", str(certificate), "--tls-private-key-file", str(key)),
        ]


async def grant_what_we_ship(kube: ApiClient, configuration: Document) -> None:
    """The accounts, roles and bindings of deploy/base, in the namespaces that the configuration names."""
    for document in shipped_access(
        namespaces={pool["namespace"] for pool in configuration["pools"]},
        kinds=_kinds_beside_deployments(configuration),
    ):
        await apply(kube, document)


def _kinds_beside_deployments(configuration: Document) -> set[str]:
    return {pool["workload"]["kind"] for pool in configuration["pools"]} - {"Deployment"}


async def apply(kube: ApiClient, document: Document) -> Document:
    """Create an object, or make the one of this name look like `document`."""
    resource = _resource_of(document)
    try:
        return await kube.create(resource, document)
    except ApiError as error:
        if error.code != 409:
            raise
    metadata = document["metadata"]
    return await kube.patch(resource, metadata.get("namespace", ""), metadata["name"], document)


def _resource_of(document: Document) -> Resource:
    kind = (document["apiVersion"], document["kind"])
    return next(r for r in RESOURCES if (r.api_version, r.kind) == kind)


async def _unregister(kube: ApiClient) -> None:
    """Leave no webhook behind that nobody answers: it would refuse every scale-down of the cluster."""
    for document in (
        manifests.webhook_configuration(port=0, ca_pem=b""),
        manifests.api_service(port=0, ca_pem=b""),
    ):
        try:
            await kube.delete(_resource_of(document), "", document["metadata"]["name"])
        except ApiError as error:
            if error.code != 404:
                raise


async def _until_available(kube: ApiClient) -> None:
    """Until the API server passes requests for external metrics on to the adapter."""
    deadline = asyncio.get_running_loop().time() + AVAILABLE_S
    while True:
        try:
            await kube.request("GET", "/apis/external.metrics.k8s.io/v1beta1")
            return
        except ApiError as error:
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(
                    f"The API server did not find the adapter within {AVAILABLE_S:.0f} s: {error}"
                ) from error
        await asyncio.sleep(0.1)
