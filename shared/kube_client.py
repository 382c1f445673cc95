"""The Kubernetes API, as far as we use it: the calls we make, in the values of `shared.pods`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

import aiohttp

from shared.errors import Conflict, KubernetesError
from shared.kube_connection import JSON_PATCH, MERGE_PATCH, KubeConnection, connect, error_type
from shared.kube_documents import (
    CaBundles,
    LeaseRecord,
    Listing,
    Secret,
    ServiceName,
    TokenUser,
    WatchEvent,
    WebhookTerms,
    api_service_ca_from,
    api_services_path,
    base64_text,
    encoded,
    event_document,
    event_repetition,
    lease_document,
    lease_from,
    leases_path,
    path_of,
    pods_path,
    replica_sets_path,
    review_document,
    secret_document,
    secret_from,
    secrets_path,
    selectors_query,
    service_name_from,
    token_user_from,
    version_from,
    warnings_in,
    webhook_cas_from,
    webhook_terms_from,
    webhooks_path,
    workloads_path,
)
from shared.pods import (
    Document,
    Pod,
    ReplicaSet,
    Workload,
    WorkloadState,
    pod_from,
    replica_set_from,
    state_of,
    workload_from,
)

CALL_TIMEOUT_S = 10.0
INVALID = 422
"""Also how a JSON patch ends whose test does not hold."""
WATCH_LASTS_S = 240
"""How long the server is asked to keep a watch open."""
WATCH_SILENCE_S = 90.0
"""A watch without a byte for so long may be dead: kube-apiserver sends a bookmark about every minute."""


class KubeClient:
    """Every call raises KubernetesError, in `timeout_s` at the latest, and is made once."""

    def __init__(self, connection: KubeConnection, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._connection = connection
        self._timeout_s = timeout_s

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, kubeconfig: str | None, *, context: str | None = None, timeout_s: float = CALL_TIMEOUT_S
    ) -> AsyncIterator[Self]:
        """A client from a kubeconfig file, or without one from the pod's service account.

        Raises ConfigurationError when neither can be used. No call is made yet.
        """
        async with connect(kubeconfig, context=context) as connection:
            yield cls(connection, timeout_s=timeout_s)

    def within(self, timeout_s: float) -> Self:
        """The same connection with another deadline for each call, in seconds."""
        return type(self)(self._connection, timeout_s=timeout_s)

    async def read(self, path: str, *, label_selector: str = "") -> Document:
        """Any document, as its JSON."""
        return await self._json("GET", path, query=selectors_query(label_selector, ""))

    # Workloads

    async def workload(self, *, kind: str, namespace: str, name: str) -> Workload:
        """The workload as it is now."""
        document = await self._json("GET", workloads_path(kind, namespace, name))
        return workload_from(document, kind=kind)

    async def replica_sets(
        self, *, namespace: str, selector: str, owner_uid: str | None = None
    ) -> tuple[ReplicaSet, ...]:
        """ReplicaSets as they are now, by name; only those that `owner_uid` controls when it is given."""
        listing = await self.list_objects(replica_sets_path(namespace), label_selector=selector)
        sets = map(replica_set_from, listing.items)
        return tuple(sorted((s for s in sets if owner_uid in (None, s.owner_uid)), key=lambda s: s.name))

    async def pods(self, *, namespace: str, selector: str) -> tuple[Pod, ...]:
        """Pods as they are now, by name, whoever controls them."""
        listing = await self.list_objects(pods_path(namespace), label_selector=selector)
        return tuple(sorted(map(pod_from, listing.items), key=lambda pod: pod.name))

    async def workload_state(self, *, kind: str, namespace: str, name: str) -> WorkloadState:
        """The workload with what belongs to it, as it is now: three calls, the last two side by side.

        Two for a workload that owns its pods itself.
        """
        workload = await self.workload(kind=kind, namespace=namespace, name=name)
        as_of = time.time()
        selector = workload.selector
        if workload.owns_pods:
            return state_of(
                workload, (), await self.pods(namespace=namespace, selector=selector), as_of=as_of
            )
        try:
            async with asyncio.TaskGroup() as group:
                sets = group.create_task(self.replica_sets(namespace=namespace, selector=selector))
                pods = group.create_task(self.pods(namespace=namespace, selector=selector))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return state_of(workload, sets.result(), pods.result(), as_of=as_of)

    async def rehearse_scale(self, *, kind: str, namespace: str, name: str, replicas: int) -> tuple[str, ...]:
        """Scale as a dry run: admission webhooks are asked, and nothing is stored. Returns their warnings."""
        path = f"{workloads_path(kind, namespace, name)}/scale"
        body, query = {"spec": {"replicas": replicas}}, {"dryRun": "All"}
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        async with self._connection.response(
            "PATCH", path, query=query, body=body, content_type=MERGE_PATCH, timeout=timeout
        ) as response:
            await response.read()
            return warnings_in(response.headers.getall("Warning", ()))

    async def patch_pod(
        self,
        *,
        namespace: str,
        name: str,
        uid: str,
        annotations: Mapping[str, str | None],
        resource_version: str = "",
        dry_run: bool = False,
    ) -> Pod:
        """Set annotations, remove those that are None; Conflict, and nothing done, for another uid.

        And when the pod was written to since `resource_version`, unless that is left out. A dry run is
        answered as if, and stores nothing.
        """
        metadata: dict[str, Any] = {"uid": uid, "annotations": dict(annotations)}
        if resource_version:
            metadata["resourceVersion"] = resource_version
        body = {"metadata": metadata}
        path, query = pods_path(namespace, name), {"dryRun": "All"} if dry_run else {}
        return pod_from(await self._json("PATCH", path, query=query, body=body, content_type=MERGE_PATCH))

    async def create_event(
        self, *, involved: Workload | Pod, reason: str, message: str, component: str, type: str = "Normal"
    ) -> str:
        """An Event on a workload or a pod; `type` is Normal or Warning. Long messages are cut.

        Returns its name, for `repeat_event`.
        """
        path = path_of("api/v1", involved.namespace, "events")
        body = event_document(
            involved, now=time.time(), reason=reason, message=message, component=component, type=type
        )
        name: str = (await self._json("POST", path, body=body))["metadata"]["name"]
        return name

    async def repeat_event(self, *, namespace: str, name: str, message: str, count: int) -> None:
        """It has been told so often now, and last with this message. Raises NotFound when it has expired."""
        path = path_of("api/v1", namespace, "events", name)
        body = event_repetition(now=time.time(), message=message, count=count)
        await self._json("PATCH", path, body=body, content_type=MERGE_PATCH)

    # Leases

    async def read_lease(self, *, namespace: str, name: str) -> LeaseRecord:
        return lease_from(await self._json("GET", leases_path(namespace, name)))

    async def create_lease(self, *, namespace: str, name: str, record: LeaseRecord) -> LeaseRecord:
        """Raises Conflict when it exists."""
        body = lease_document(namespace, name, record)
        return lease_from(await self._json("POST", leases_path(namespace), body=body))

    async def replace_lease(self, *, namespace: str, name: str, record: LeaseRecord) -> LeaseRecord:
        """Raises Conflict when somebody wrote since `record.resource_version`."""
        body = lease_document(namespace, name, record)
        return lease_from(await self._json("PUT", leases_path(namespace, name), body=body))

    async def server_version(self) -> tuple[int, int]:
        """Major and minor of the API server."""
        return version_from(await self._json("GET", "/version"))

    # Who may what

    async def subject_access_review(self, spec: Mapping[str, Any]) -> bool:
        """Whether the API server's authorizers allow what `spec` (of a SubjectAccessReview) describes."""
        reply = await self._json(
            "POST",
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            body=review_document("authorization.k8s.io/v1", "SubjectAccessReview", spec),
        )
        return reply.get("status", {}).get("allowed") is True

    async def token_review(self, token: str, *, audiences: Collection[str] = ()) -> TokenUser | None:
        """Whom the token belongs to; None when it is not valid."""
        spec = {"token": token} | ({"audiences": list(audiences)} if audiences else {})
        reply = await self._json(
            "POST",
            "/apis/authentication.k8s.io/v1/tokenreviews",
            body=review_document("authentication.k8s.io/v1", "TokenReview", spec),
        )
        status = reply.get("status", {})
        return token_user_from(status.get("user", {})) if status.get("authenticated") is True else None

    # Configuration and certificates

    async def config_map(self, *, namespace: str, name: str) -> Mapping[str, str]:
        """The data of a ConfigMap."""
        document = await self._json("GET", path_of("api/v1", namespace, "configmaps", name))
        return document.get("data") or {}

    async def secret(self, *, namespace: str, name: str) -> Secret:
        """The data of a Secret."""
        return secret_from(await self._json("GET", secrets_path(namespace, name)))

    async def create_secret(self, *, namespace: str, name: str, data: Mapping[str, bytes]) -> Secret:
        """Raises Conflict when it exists."""
        body = secret_document(namespace, name, data)
        return secret_from(await self._json("POST", secrets_path(namespace), body=body))

    async def replace_secret(
        self, *, namespace: str, name: str, data: Mapping[str, bytes], resource_version: str
    ) -> Secret:
        """Replace the data; raises Conflict when somebody wrote since `resource_version`."""
        path = secrets_path(namespace, name)
        body = {"metadata": {"resourceVersion": resource_version}, "data": encoded(data)}
        return secret_from(await self._json("PATCH", path, body=body, content_type=MERGE_PATCH))

    async def authorization(self) -> str | None:
        """Our own Authorization header, for servers that ask Kubernetes who we are; None without a token."""
        return await self._connection.authorization()

    async def api_service_owner(self, name: str) -> ServiceName | None:
        """The Service that an APIService leads to; None when the API server itself answers for it."""
        return service_name_from((await self._json("GET", api_services_path(name)))["spec"])

    async def api_service_ca(self, name: str) -> CaBundles:
        """Which CA the aggregator trusts for an APIService."""
        return api_service_ca_from(await self._json("GET", api_services_path(name)))

    async def replace_api_service_ca(self, name: str, ca_bundle: bytes, found: CaBundles) -> None:
        """Have the aggregator trust these CAs (PEM); raises Conflict when somebody wrote since `found`."""
        body = {
            "metadata": {"resourceVersion": found.resource_version},
            "spec": {"caBundle": base64_text(ca_bundle)},
        }
        await self._json("PATCH", api_services_path(name), body=body, content_type=MERGE_PATCH)

    async def webhook_terms(self, name: str) -> tuple[WebhookTerms, ...]:
        """What holds for each webhook of a ValidatingWebhookConfiguration, in its order."""
        document = await self._json("GET", webhooks_path(name))
        return tuple(map(webhook_terms_from, document.get("webhooks") or ()))

    async def webhook_ca(self, name: str) -> CaBundles:
        """Which CA the API server trusts for each webhook of a ValidatingWebhookConfiguration."""
        return webhook_cas_from(await self._json("GET", webhooks_path(name)))

    async def replace_webhook_ca(self, name: str, ca_bundle: bytes, found: CaBundles) -> None:
        """Have the API server trust these CAs (PEM) for every webhook of a configuration that is in `found`.

        Raises Conflict when somebody wrote since `found`.
        """
        # The indexes hold for this version only.
        test = {"op": "test", "path": "/metadata/resourceVersion", "value": found.resource_version}
        operations = [
            {
                "op": "add",
                "path": f"/webhooks/{client.index}/clientConfig/caBundle",
                "value": base64_text(ca_bundle),
            }
            for bundle, client in zip(found.bundles, found.clients, strict=True)
            if bundle != ca_bundle
        ]
        try:
            await self._json("PATCH", webhooks_path(name), body=[test, *operations], content_type=JSON_PATCH)
        except KubernetesError as error:
            if error.status == INVALID:
                raise Conflict(str(error), status=INVALID) from error
            raise

    # Lists and watches

    async def list_objects(self, path: str, *, label_selector: str = "", field_selector: str = "") -> Listing:
        """All objects there, as they are now."""
        query = selectors_query(label_selector, field_selector)
        reply = await self._json("GET", path, query=query)
        return Listing(
            items=tuple(reply.get("items") or ()),
            resource_version=reply.get("metadata", {}).get("resourceVersion", ""),
        )

    async def watch(
        self,
        path: str,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        silence_s: float = WATCH_SILENCE_S,
    ) -> AsyncGenerator[WatchEvent, None]:
        """What changes there after `resource_version`, until the server ends the watch or is silent.

        Raises Gone when that version is too old: list again. Close the iterator (contextlib.aclosing).
        """
        query = selectors_query(label_selector, field_selector) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(WATCH_LASTS_S),
        }
        timeout = aiohttp.ClientTimeout(
            total=WATCH_LASTS_S + 30, sock_connect=self._timeout_s, sock_read=silence_s
        )
        async with self._connection.response("GET", path, query=query, timeout=timeout) as response:
            yield WatchEvent(type="BOOKMARK", object={"metadata": {"resourceVersion": resource_version}})
            # Where nothing changes the first bookmark may take two minutes: silence is an end, not a failure.
            with suppress(aiohttp.SocketTimeoutError):
                async for line in response.content:
                    yield _watch_event(line)

    async def _json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] = {},
        body: object = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        return await self._connection.json(
            method, path, query=query, body=body, content_type=content_type, timeout_s=self._timeout_s
        )


def _watch_event(line: bytes) -> WatchEvent:
    event = json.loads(line)
    if event["type"] == "ERROR":
        status = event["object"]
        code = status.get("code", 500)
        raise error_type(code)(f"the watch ended: {status.get('message', '')} ({code})", status=code)
    return WatchEvent(type=event["type"], object=event["object"])
