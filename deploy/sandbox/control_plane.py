"""The emulated control plane: certificates, API server, controllers and kubelet, started together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.sandbox.apiserver.server import ApiServer, Certificates
from deploy.sandbox.client import ApiClient
from deploy.sandbox.controllers.manager import ACCOUNTS, Controllers
from deploy.sandbox.kubeconfigs import Access, write_kubeconfig
from deploy.sandbox.node.kubelet import Kubelet
from shared.certificates import KeyPair, make_ca, make_leaf, save_key_pair

FRONT_PROXY = "front-proxy-client"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """A running control plane, and how to reach it."""

    server: ApiServer
    kubelet: Kubelet
    kube: ApiClient
    """The administrator's client."""
    kubeconfig: Path
    """The administrator's kubeconfig, for kubectl."""
    directory: Path
    ca_pem: bytes

    def kubeconfig_of(self, namespace: str, service_account: str) -> Path:
        """A kubeconfig with a token of a service account."""
        token = self.server.tokens.issue_for_service_account(namespace, service_account)
        access = Access(url=self.server.url, ca_pem=self.ca_pem, token=token)
        return write_kubeconfig(self.directory / f"{service_account}.kubeconfig", access)


@asynccontextmanager
async def control_plane(
    directory: Path,
    *,
    hpa_sync_period_s: float = 15.0,
    latency_s: float = 0.0,
    honours_costs: bool = True,
) -> AsyncIterator[ControlPlane]:
    """A control plane with one node that keeps its files in `directory`; `latency_s` delays each API call.

    `honours_costs` is the feature gate PodDeletionCost.
    """
    ca = make_ca("kubernetes")
    certificates = _write_certificates(directory / "pki", ca)
    admin = make_leaf(ca, common_name="admin", organizations=("system:masters",), is_client=True)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            ApiServer(certificates, latency_s=latency_s, honours_costs=honours_costs)
        )
        access = Access(
            url=server.url,
            ca_pem=ca.certificate_pem,
            certificate_pem=admin.certificate_pem,
            key_pem=admin.key_pem,
        )
        kube = await stack.enter_async_context(ApiClient(server.url, tls=access.tls(), user_agent="sandbox"))
        clients = await _clients_of_controllers(stack, server, access)
        await stack.enter_async_context(
            Controllers(
                kube, clients=clients, hpa_sync_period_s=hpa_sync_period_s, honours_costs=honours_costs
            )
        )
        kubelet = await stack.enter_async_context(Kubelet(kube, directory=directory / "pods"))
        yield ControlPlane(
            server=server,
            kubelet=kubelet,
            kube=kube,
            kubeconfig=write_kubeconfig(directory / "kubeconfig", access),
            directory=directory,
            ca_pem=ca.certificate_pem,
        )


async def _clients_of_controllers(
    stack: AsyncExitStack, server: ApiServer, access: Access
) -> dict[tuple[str, str], ApiClient]:
    """One for each controller, under the identity that the real one has: reviews show who asks."""
    return {
        account: await stack.enter_async_context(
            ApiClient(
                server.url,
                tls=Access(url=server.url, ca_pem=access.ca_pem).tls(),
                token=server.tokens.issue_for_service_account(*account),
            )
        )
        for account in ACCOUNTS
    }


def _write_certificates(directory: Path, ca: KeyPair) -> Certificates:
    directory.mkdir(parents=True, exist_ok=True)
    proxy_ca = make_ca("front-proxy-ca")
    serving = make_leaf(
        ca, common_name="kube-apiserver", names=("localhost", "kubernetes"), addresses=("127.0.0.1",)
    )
    proxy = make_leaf(proxy_ca, common_name=FRONT_PROXY, is_client=True)
    pairs = {"ca": ca, "front-proxy-ca": proxy_ca, "apiserver": serving, FRONT_PROXY: proxy}
    for name, pair in pairs.items():
        save_key_pair(pair, certificate_file=directory / f"{name}.crt", key_file=directory / f"{name}.key")
    return Certificates(
        client_ca=directory / "ca.crt",
        serving_certificate=directory / "apiserver.crt",
        serving_key=directory / "apiserver.key",
        front_proxy_ca=directory / "front-proxy-ca.crt",
        front_proxy_certificate=directory / f"{FRONT_PROXY}.crt",
        front_proxy_key=directory / f"{FRONT_PROXY}.key",
    )
