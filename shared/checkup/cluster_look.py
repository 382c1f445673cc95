"""Takes the picture of a cluster: asks the Kubernetes API, and changes nothing."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from shared.checkup.permissions import API_SERVICE, WEBHOOK_CONFIGURATION, Permission, needed
from shared.checkup.picture import (
    Autoscaler,
    Backend,
    ExternalMetric,
    MetricAnswer,
    Registration,
    Rehearsal,
    ScaledObject,
    Unread,
)
from shared.checkup.served_certificate import tls_problem
from shared.errors import Forbidden, KubernetesError, NotFound
from shared.hook_warnings import said_by_the_hook
from shared.kube_client import KubeClient
from shared.kube_documents import api_services_path, path_of, quoted, webhooks_path, workloads_path
from shared.pods import Document, WorkloadState, selector_text, state_of, workload_from
from shared.pools import Pool

Result = TypeVar("Result")

EXTERNAL_METRICS = "/apis/external.metrics.k8s.io/v1beta1"
_WEBHOOK_WORD = re.compile(r'(?P<how>admission|failed calling) webhook "(?P<name>[^"]+)"')
_DENIED = " denied the request: "
_STATUS = re.compile(r" \(\d+\)$")
DEFAULT_GRACE_S = 30.0
_REVIEWS_AT_ONCE = 10


async def attempt(call: Awaitable[Result]) -> Result | Unread:
    """What the call returns, or why it failed."""
    try:
        return await call
    except KubernetesError as error:
        return _unread(error)


class ClusterLook:
    """Looks at one cluster; what it cannot look at becomes Unread."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube

    async def version(self) -> tuple[int, int] | Unread:
        return await attempt(self._kube.server_version())

    # Registrations

    async def api_service(self) -> Registration:
        document = await attempt(self._kube.read(api_services_path(API_SERVICE)))
        if isinstance(document, Unread):
            return Registration(document=document)
        spec = document.get("spec") or {}
        reference = spec.get("service")
        if not reference:
            return Registration(document=document)
        trusts_all = bool(spec.get("insecureSkipTLSVerify"))
        backend = await self._backend(reference, spec.get("caBundle") or "", trusts_all=trusts_all)
        return Registration(document=document, backends=(backend,))

    async def webhooks(self) -> Registration:
        document = await attempt(self._kube.read(webhooks_path(WEBHOOK_CONFIGURATION)))
        if isinstance(document, Unread):
            return Registration(document=document)
        clients = [webhook.get("clientConfig") or {} for webhook in document.get("webhooks") or ()]
        looks = [self._backend(c["service"], c.get("caBundle") or "") for c in clients if c.get("service")]
        return Registration(document=document, backends=tuple(await asyncio.gather(*looks)))

    async def _backend(self, reference: Document, bundle: str, *, trusts_all: bool = False) -> Backend:
        namespace, name, port = reference["namespace"], reference["name"], int(reference.get("port") or 443)
        backend = Backend(namespace=namespace, name=name, has_ca=bool(bundle) or trusts_all, tls_problem=None)
        service = await attempt(self._kube.read(path_of("api/v1", namespace, "services", name)))
        if isinstance(service, Unread):
            problem = f"there is no Service {backend}." if service.is_missing else ""
            return replace(backend, problem=problem)
        problem = await self._without_endpoints(backend, service)
        if problem or not bundle or trusts_all:
            return replace(backend, problem=problem, tls_problem="" if trusts_all else None)
        spec = service.get("spec") or {}
        host = spec.get("externalName") or spec.get("clusterIP") or ""
        ca, server_name = base64.b64decode(bundle), f"{name}.{namespace}.svc"
        return replace(backend, tls_problem=await tls_problem(host, port, server_name=server_name, ca_pem=ca))

    async def _without_endpoints(self, backend: Backend, service: Document) -> str:
        if (service.get("spec") or {}).get("type") == "ExternalName":
            return ""
        path = path_of("apis/discovery.k8s.io/v1", backend.namespace, "endpointslices")
        slices = await attempt(
            self._kube.list_objects(path, label_selector=f"kubernetes.io/service-name={backend.name}")
        )
        if isinstance(slices, Unread):
            return ""
        endpoints = [endpoint for s in slices.items for endpoint in s.get("endpoints") or ()]
        is_ready = any((endpoint.get("conditions") or {}).get("ready", True) for endpoint in endpoints)
        return "" if is_ready else f"Service {backend} has no endpoint that is ready."

    # Permissions

    async def denied(self, pools: Iterable[Pool], *, services_in: str) -> tuple[Permission, ...] | Unread:
        """What our service accounts need and may not do."""
        gate = asyncio.Semaphore(_REVIEWS_AT_ONCE)

        async def may(permission: Permission) -> bool:
            async with gate:
                return await self._kube.subject_access_review(permission.review(services_in=services_in))

        wanted = needed(pools, services_in=services_in)
        answers = await asyncio.gather(*(attempt(may(permission)) for permission in wanted))
        unread = next((answer for answer in answers if isinstance(answer, Unread)), None)
        if unread is not None:
            return unread
        return tuple(p for p, allowed in zip(wanted, answers, strict=True) if not allowed)

    # Who scales

    async def autoscalers(self, namespaces: Iterable[str]) -> tuple[Autoscaler, ...] | Unread:
        """Those of the whole cluster; where that is forbidden, those of these namespaces."""
        documents = await self._everywhere("apis/autoscaling/v2", "horizontalpodautoscalers", namespaces)
        return documents if isinstance(documents, Unread) else tuple(map(_autoscaler, documents))

    async def scaled_objects(self, namespaces: Iterable[str]) -> tuple[ScaledObject, ...]:
        """None where KEDA is not installed, or they may not be seen."""
        documents = await self._everywhere("apis/keda.sh/v1alpha1", "scaledobjects", namespaces)
        return () if isinstance(documents, Unread) else tuple(map(_scaled_object, documents))

    async def _everywhere(
        self, prefix: str, resource: str, namespaces: Iterable[str]
    ) -> tuple[Document, ...] | Unread:
        try:
            return (await self._kube.list_objects(f"/{prefix}/{resource}")).items
        except Forbidden:
            listings = [
                await attempt(self._kube.list_objects(path_of(prefix, namespace, resource)))
                for namespace in sorted(set(namespaces))
            ]
        except KubernetesError as error:
            return _unread(error)
        unread = next((listing for listing in listings if isinstance(listing, Unread)), None)
        return unread or tuple(
            d for listing in listings if not isinstance(listing, Unread) for d in listing.items
        )

    async def metrics(self) -> frozenset[str] | Unread:
        """Names of the external metrics that are served."""
        document = await attempt(self._kube.read(EXTERNAL_METRICS))
        if isinstance(document, Unread):
            return document
        return frozenset(resource["name"] for resource in document.get("resources") or ())

    async def with_answers(self, autoscaler: Autoscaler) -> Autoscaler:
        """What the autoscaler reads of ours, read as it reads it."""
        ours = [metric for metric in autoscaler.metrics if metric.is_ours]
        answers = await asyncio.gather(*(self._answer(autoscaler.namespace, metric) for metric in ours))
        return replace(autoscaler, answers=dict(zip(ours, answers, strict=True)))

    async def _answer(self, namespace: str, metric: ExternalMetric) -> MetricAnswer:
        path = f"{EXTERNAL_METRICS}/namespaces/{quoted(namespace)}/{quoted(metric.name.lower())}"
        document = await attempt(self._kube.read(path, label_selector=metric.selector))
        if isinstance(document, Unread):
            return MetricAnswer(problem=document.reason)
        items = document.get("items") or ()
        return MetricAnswer(pools=tuple((item.get("metricLabels") or {}).get("pool", "") for item in items))

    # Workloads

    async def workload(self, pool: Pool) -> tuple[WorkloadState | Unread, float]:
        """A pool's workload as it is now, and the grace period of its pods in seconds.

        By lists alone, which both services may ask for, too.
        """
        try:
            return await self._workload(pool)
        except KubernetesError as error:
            return _unread(error), DEFAULT_GRACE_S

    async def _workload(self, pool: Pool) -> tuple[WorkloadState | Unread, float]:
        key = pool.workload_key
        found = await self._kube.list_objects(
            workloads_path(key.kind, key.namespace), field_selector=f"metadata.name={key.name}"
        )
        if not found.items:
            return Unread(reason="it is not there.", is_missing=True), DEFAULT_GRACE_S
        workload, as_of = workload_from(found.items[0], kind=key.kind), time.time()
        where = {"namespace": key.namespace, "selector": workload.selector}
        sets = () if workload.owns_pods else await self._kube.replica_sets(**where)
        state = state_of(workload, sets, await self._kube.pods(**where), as_of=as_of)
        return state, _grace_s(found.items[0])

    async def namespace_labels(self, name: str) -> Mapping[str, str] | Unread:
        document = await attempt(self._kube.read(f"/api/v1/namespaces/{quoted(name)}"))
        return document if isinstance(document, Unread) else document["metadata"].get("labels") or {}

    async def rehearse(self, pool: Pool, state: WorkloadState | Unread) -> Rehearsal | None:
        """Ask for one replica less, as a dry run: nothing else shows that the hook is heard."""
        if isinstance(state, Unread) or state.workload.replicas < 1:
            return None
        key, replicas = pool.workload_key, state.workload.replicas - 1
        try:
            warnings = await self._kube.rehearse_scale(
                kind=key.kind, namespace=key.namespace, name=key.name, replicas=replicas
            )
        except KubernetesError as error:
            return failed_rehearsal(replicas, str(error))
        return Rehearsal(replicas=replicas, said=said_by_the_hook(warnings))


def _unread(error: KubernetesError) -> Unread:
    return Unread(reason=str(error), is_missing=isinstance(error, NotFound))


def _grace_s(workload: Document) -> float:
    """Of its pods; Kubernetes' default where none is written."""
    template = (workload.get("spec") or {}).get("template") or {}
    seconds = (template.get("spec") or {}).get("terminationGracePeriodSeconds")
    return DEFAULT_GRACE_S if seconds is None else float(seconds)


def failed_rehearsal(replicas: int, sentence: str) -> Rehearsal:
    """What an error of the API server says; a webhook's own words, which may quote, come after its name."""
    word = _WEBHOOK_WORD.search(sentence)
    if word is None:
        return Rehearsal(replicas=replicas, not_asked=sentence)
    name, said = word["name"], _STATUS.sub("", sentence[word.end() :])
    if word["how"] == "failed calling":
        return Rehearsal(replicas=replicas, webhook=name, failure=f"{word[0]}{said}")
    return Rehearsal(replicas=replicas, webhook=name, refusal=said.removeprefix(_DENIED).strip())


def _autoscaler(document: Document) -> Autoscaler:
    metadata, spec = document["metadata"], document.get("spec") or {}
    target = spec.get("scaleTargetRef") or {}
    sources = [m["external"] for m in spec.get("metrics") or () if m.get("type") == "External"]
    owners = metadata.get("ownerReferences") or ()
    return Autoscaler(
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        kind=target.get("kind", ""),
        target=target.get("name", ""),
        metrics=tuple(map(_external_metric, sources)),
        is_kedas=any(owner.get("kind") == "ScaledObject" for owner in owners),
        trouble=_trouble(document),
    )


def _external_metric(source: Document) -> ExternalMetric:
    metric = source.get("metric") or {}
    return ExternalMetric(
        name=metric.get("name", ""),
        selector=selector_text(metric.get("selector") or {}),
        target=(source.get("target") or {}).get("type", ""),
    )


def _trouble(document: Document) -> str:
    """An HPA at zero replicas is inactive on purpose."""
    conditions = (document.get("status") or {}).get("conditions") or ()
    return next(
        (
            c.get("message") or c.get("reason") or ""
            for c in conditions
            if c.get("type") in ("AbleToScale", "ScalingActive")
            and c.get("status") == "False"
            and c.get("reason") != "ScalingDisabled"
        ),
        "",
    )


def _scaled_object(document: Document) -> ScaledObject:
    metadata, target = document["metadata"], (document.get("spec") or {}).get("scaleTargetRef") or {}
    return ScaledObject(
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        kind=target.get("kind") or "Deployment",
        target=target.get("name", ""),
    )
