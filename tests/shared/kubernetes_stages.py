"""Two Kubernetes APIs on which the same tests play: the fake, and the sandbox's API server over TLS."""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from deploy.sandbox.apiserver.authentication import User
from deploy.sandbox.apiserver.server import ApiServer, Certificates
from deploy.sandbox.kubeconfigs import Access, write_kubeconfig
from shared.kube_client import KubeClient
from shared.pods import WorkloadKey
from shared.workload_cache import WorkloadCache
from tests.fakes.kubernetes import FakeCache, FakeCluster
from tests.fakes.kubernetes_documents import pod_document, replica_set_document, workload_document
from tests.sandbox.authority import Authority

RBAC = "rbac.authorization.k8s.io"
WORKER = WorkloadKey("Deployment", "default", "worker")


class Stage(Protocol):
    """What a test arranges, and the doors it then uses."""

    @property
    def kube(self) -> KubeClient | FakeCluster: ...

    @property
    def cache(self) -> WorkloadCache | FakeCache: ...

    async def add_workload(self, *, replicas: int) -> None:
        """Deployment `worker` with ReplicaSet `worker-rs` and its pods worker-0, worker-1, …"""

    async def add_pod(self, name: str) -> None: ...

    async def delete_pod(self, name: str) -> None: ...

    async def scale(self, replicas: int) -> None: ...

    async def delete_workload(self) -> None: ...

    async def add_config_map(self, name: str, data: Mapping[str, str]) -> None: ...

    async def events(self) -> list[tuple[str, str, str]]:
        """Reason, message and type of each."""

    async def event_counts(self) -> dict[str, int]:
        """How often each was told, by its message."""

    def token_of(self, username: str) -> str:
        """A bearer token that the API server knows."""

    async def grant(self, username: str, *, verb: str, group: str, resource: str) -> None:
        """Allow it to a user, in every namespace; nobody is allowed anything else."""


class FakeStage:
    """Everything in memory."""

    def __init__(self) -> None:
        self.kube = FakeCluster(is_allowed=self._is_granted)
        self._grants: set[tuple[str, str, str, str]] = set()

    @property
    def cache(self) -> FakeCache:
        return self.kube.cache

    async def add_workload(self, *, replicas: int) -> None:
        self.kube.add_workload(replicas=replicas)

    async def add_pod(self, name: str) -> None:
        self.kube.add_pod(name)

    async def delete_pod(self, name: str) -> None:
        self.kube.delete_pod(name)

    async def scale(self, replicas: int) -> None:
        self.kube.scale(replicas)

    async def delete_workload(self) -> None:
        self.kube.delete_workload()

    async def add_config_map(self, name: str, data: Mapping[str, str]) -> None:
        self.kube.config_maps["default", name] = dict(data)

    async def events(self) -> list[tuple[str, str, str]]:
        return [(event.reason, event.message, event.type) for event in self.kube.events]

    async def event_counts(self) -> dict[str, int]:
        return {event.message: event.count for event in self.kube.events}

    def token_of(self, username: str) -> str:
        return self.kube.add_token(username)

    async def grant(self, username: str, *, verb: str, group: str, resource: str) -> None:
        self._grants.add((username, verb, group, resource))

    def _is_granted(self, spec: Mapping[str, Any]) -> bool:
        asked = spec["resourceAttributes"]
        return (spec["user"], asked["verb"], asked["group"], asked["resource"]) in self._grants


@dataclass(kw_only=True)
class SandboxStage:
    """The emulated API server, and an administrator who plays controllers and kubelet."""

    kube: KubeClient
    cache: WorkloadCache
    server: ApiServer
    session: aiohttp.ClientSession

    async def add_workload(self, *, replicas: int) -> None:
        document = workload_document("worker", replicas=replicas)
        template = {"metadata": {"labels": {"app": "worker"}}, "spec": {"containers": [{"name": "worker"}]}}
        document["spec"]["template"] = template
        owner = await self.create("/apis/apps/v1/namespaces/default/deployments", document)
        replica_set = replica_set_document("worker-rs", owner=owner, replicas=replicas)
        replica_set["spec"] |= {"template": template, "selector": {"matchLabels": {"app": "worker"}}}
        self._replica_set = await self.create("/apis/apps/v1/namespaces/default/replicasets", replica_set)
        for index in range(replicas):
            await self.add_pod(f"worker-{index}")

    async def add_pod(self, name: str) -> None:
        document = pod_document(name, owner=self._replica_set)
        document["spec"]["containers"] = [{"name": "worker"}]
        await self.create("/api/v1/namespaces/default/pods", document)
        body = {"status": document["status"]}
        await self.send("PATCH", f"/api/v1/namespaces/default/pods/{name}/status", body)

    async def delete_pod(self, name: str) -> None:
        path = f"/api/v1/namespaces/default/pods/{name}?gracePeriodSeconds=0"
        await self.send("DELETE", path)

    async def scale(self, replicas: int) -> None:
        body = {"spec": {"replicas": replicas}}
        await self.send("PATCH", "/apis/apps/v1/namespaces/default/deployments/worker/scale", body)

    async def delete_workload(self) -> None:
        await self.send("DELETE", "/apis/apps/v1/namespaces/default/deployments/worker")

    async def add_config_map(self, name: str, data: Mapping[str, str]) -> None:
        body = {"metadata": {"name": name}, "data": dict(data)}
        await self.create("/api/v1/namespaces/default/configmaps", body)

    async def events(self) -> list[tuple[str, str, str]]:
        listing = await self.send("GET", "/api/v1/namespaces/default/events")
        return [(event["reason"], event["message"], event["type"]) for event in listing["items"]]

    async def event_counts(self) -> dict[str, int]:
        listing = await self.send("GET", "/api/v1/namespaces/default/events")
        return {event["message"]: event["count"] for event in listing["items"]}

    def token_of(self, username: str) -> str:
        return self.server.tokens.issue(User(name=username))

    async def grant(self, username: str, *, verb: str, group: str, resource: str) -> None:
        rule = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
        role = {"metadata": {"name": f"{username}-{resource}"}, "rules": [rule]}
        binding = {
            "metadata": role["metadata"],
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": f"{username}-{resource}"},
            "subjects": [{"apiGroup": RBAC, "kind": "User", "name": username}],
        }
        await self.create(f"/apis/{RBAC}/v1/clusterroles", role)
        await self.create(f"/apis/{RBAC}/v1/clusterrolebindings", binding)

    async def create(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        metadata = {k: v for k, v in document["metadata"].items() if k not in ("uid", "resourceVersion")}
        return await self.send("POST", path, {**document, "metadata": metadata})

    async def send(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        async with self.session.request(
            method, self.server.url + path, json=body, headers={"Content-Type": kind}
        ) as response:
            document = await response.json()
        assert response.status < 300, document
        return dict(document)


@asynccontextmanager
async def sandbox_stage(directory: Path, **server_options: Any) -> AsyncIterator[SandboxStage]:
    """A stage on an API server of its own."""
    authority = Authority.create(directory / "cluster")
    admin = authority.client("admin", "system:masters")
    async with ApiServer(_certificates(authority, directory), **server_options) as server:
        access = Access(
            url=server.url,
            ca_pem=authority.pair.certificate_pem,
            certificate_pem=admin.certificate.read_bytes(),
            key_pem=admin.key.read_bytes(),
        )
        kubeconfig = write_kubeconfig(directory / "kubeconfig", access)
        context = ssl.create_default_context(cafile=str(authority.file))
        context.load_cert_chain(admin.certificate, admin.key)
        async with (
            KubeClient.connect(str(kubeconfig)) as kube,
            WorkloadCache(kube, [WORKER]) as cache,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
        ):
            yield SandboxStage(kube=kube, cache=cache, server=server, session=session)


def _certificates(authority: Authority, directory: Path) -> Certificates:
    front_proxy = Authority.create(directory / "front-proxy")
    serving = authority.serving("kube-apiserver", "localhost")
    proxy = front_proxy.client("front-proxy-client")
    return Certificates(
        client_ca=authority.file,
        serving_certificate=serving.certificate,
        serving_key=serving.key,
        front_proxy_ca=front_proxy.file,
        front_proxy_certificate=proxy.certificate,
        front_proxy_key=proxy.key,
    )
