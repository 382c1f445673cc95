"""Kubernetes' JSON, beyond what shared.pods reads: paths, Events, Leases, Secrets, reviews. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from shared.pods import Document, Pod, Workload, parse_time

LONGEST_EVENT_MESSAGE = 1024
_WARNING = re.compile(r'\d{3} \S+ "((?:[^"\\]|\\.)*)"')

WORKLOAD_RESOURCES = {
    "Deployment": ("apps/v1", "deployments"),
    "StatefulSet": ("apps/v1", "statefulsets"),
    "CloneSet": ("apps.kruise.io/v1alpha1", "clonesets"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUser:
    """Whom a bearer token belongs to, by TokenReview."""

    username: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """The data of a Secret, decoded."""

    data: Mapping[str, bytes] = field(repr=False)
    resource_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceName:
    """Which Service."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    def is_named(self, name: str, *, namespace: str | None) -> bool:
        """Whether it is this one, of whichever namespace if that is None."""
        return self.name == name and namespace in (None, self.namespace)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookClient:
    """Whom a webhook calls."""

    index: int
    """Of the webhook in its configuration, as long as nobody writes there."""
    name: str
    service: ServiceName | None
    """None where it calls `url`."""
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaBundles:
    """Which CAs the API server trusts when it calls us."""

    bundles: tuple[bytes, ...]
    """As PEM: one for each webhook of a configuration, or that of an APIService; empty where none is set."""
    resource_version: str
    clients: tuple[WebhookClient, ...] = ()
    """Of a configuration: one for each of `bundles`."""
    owner: ServiceName | None = None
    """Of an APIService: the Service that it leads to; None when the API server itself answers for it."""

    def only(self, clients: Collection[WebhookClient]) -> CaBundles:
        """Those of these webhooks."""
        kept = [pair for pair in zip(self.bundles, self.clients, strict=True) if pair[1] in clients]
        return replace(
            self, bundles=tuple(bundle for bundle, _ in kept), clients=tuple(client for _, client in kept)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """What stands in the Lease object."""

    holder: str
    """Who holds it; empty when it was released."""
    duration_s: int
    acquired_at: float
    """Seconds since the epoch, by the holder's clock."""
    renewed_at: float
    """Seconds since the epoch, by the holder's clock."""
    transitions: int = 0
    """How often it went from one holder to another."""
    resource_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A list reply: the objects, and the resourceVersion from which a watch goes on."""

    items: tuple[Document, ...]
    resource_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookTerms:
    """What a webhook configuration says of one webhook that gives no answer."""

    name: str
    failure_policy: str
    """`Fail` or `Ignore`."""
    timeout_s: float
    """How long the API server waits for its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchEvent:
    """One line of a watch: ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Document


def path_of(prefix: str, namespace: str, resource: str, name: str | None = None) -> str:
    """The path of a namespaced resource, or of one object of it."""
    path = f"/{prefix}/namespaces/{quoted(namespace)}/{resource}"
    return path if name is None else f"{path}/{quoted(name)}"


def workloads_path(kind: str, namespace: str, name: str | None = None) -> str:
    group_version, resource = WORKLOAD_RESOURCES[kind]
    return path_of(f"apis/{group_version}", namespace, resource, name)


def replica_sets_path(namespace: str) -> str:
    return path_of("apis/apps/v1", namespace, "replicasets")


def pods_path(namespace: str, name: str | None = None) -> str:
    return path_of("api/v1", namespace, "pods", name)


def secrets_path(namespace: str, name: str | None = None) -> str:
    return path_of("api/v1", namespace, "secrets", name)


def leases_path(namespace: str, name: str | None = None) -> str:
    return path_of("apis/coordination.k8s.io/v1", namespace, "leases", name)


def quoted(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


def selectors_query(label_selector: str, field_selector: str) -> dict[str, str]:
    both = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {key: value for key, value in both.items() if value}


def review_document(api_version: str, kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "spec": dict(spec)}


def token_user_from(user: Document) -> TokenUser:
    return TokenUser(
        username=user.get("username", ""),
        uid=user.get("uid", ""),
        groups=tuple(user.get("groups") or ()),
        extra={key: tuple(values) for key, values in (user.get("extra") or {}).items()},
    )


def event_document(
    involved: Workload | Pod, *, now: float, reason: str, message: str, component: str, type: str
) -> dict[str, Any]:
    moment = _rfc3339(now)
    kind, api_version = (
        ("Pod", "v1") if isinstance(involved, Pod) else (involved.kind, WORKLOAD_RESOURCES[involved.kind][0])
    )
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{involved.name}.", "namespace": involved.namespace},
        "involvedObject": {
            "apiVersion": api_version,
            "kind": kind,
            "namespace": involved.namespace,
            "name": involved.name,
            "uid": involved.uid,
        },
        "reason": reason,
        "message": message[:LONGEST_EVENT_MESSAGE],
        "type": type,
        "source": {"component": component},
        "reportingComponent": component,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }


def event_repetition(*, now: float, message: str, count: int) -> dict[str, Any]:
    """What changes of an Event when it is told again; a merge patch."""
    return {"message": message[:LONGEST_EVENT_MESSAGE], "lastTimestamp": _rfc3339(now), "count": count}


def lease_document(namespace: str, name: str, record: LeaseRecord) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    if record.resource_version:
        metadata["resourceVersion"] = record.resource_version
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata,
        "spec": {
            "holderIdentity": record.holder,
            "leaseDurationSeconds": record.duration_s,
            "acquireTime": _rfc3339(record.acquired_at),
            "renewTime": _rfc3339(record.renewed_at),
            "leaseTransitions": record.transitions,
        },
    }


def lease_from(document: Document) -> LeaseRecord:
    spec = document.get("spec") or {}
    return LeaseRecord(
        holder=spec.get("holderIdentity") or "",
        duration_s=spec.get("leaseDurationSeconds") or 1,
        acquired_at=parse_time(spec.get("acquireTime")) or 0.0,
        renewed_at=parse_time(spec.get("renewTime")) or 0.0,
        transitions=spec.get("leaseTransitions") or 0,
        resource_version=document["metadata"]["resourceVersion"],
    )


def secret_document(namespace: str, name: str, data: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "data": encoded(data),
    }


def secret_from(document: Document) -> Secret:
    data = document.get("data") or {}
    return Secret(
        data={key: base64.b64decode(value) for key, value in data.items()},
        resource_version=document["metadata"]["resourceVersion"],
    )


def api_service_ca_from(document: Document) -> CaBundles:
    """Of an APIService."""
    spec = document["spec"]
    return CaBundles(
        bundles=(_ca_bundle(spec),),
        resource_version=document["metadata"]["resourceVersion"],
        owner=service_name_from(spec),
    )


def webhook_cas_from(document: Document) -> CaBundles:
    """Of a ValidatingWebhookConfiguration."""
    webhooks = document.get("webhooks") or ()
    return CaBundles(
        bundles=tuple(_ca_bundle(webhook["clientConfig"]) for webhook in webhooks),
        resource_version=document["metadata"]["resourceVersion"],
        clients=tuple(
            WebhookClient(
                index=index,
                name=webhook["name"],
                service=service_name_from(webhook["clientConfig"]),
                url=webhook["clientConfig"].get("url") or "",
            )
            for index, webhook in enumerate(webhooks)
        ),
    )


def _ca_bundle(holder: Document) -> bytes:
    return base64.b64decode(holder.get("caBundle") or "")


def webhook_terms_from(webhook: Document) -> WebhookTerms:
    """Of one entry of `webhooks`; the defaults are those of admissionregistration.k8s.io/v1."""
    return WebhookTerms(
        name=webhook["name"],
        failure_policy=webhook.get("failurePolicy") or "Fail",
        timeout_s=float(webhook.get("timeoutSeconds") or 10),
    )


def warnings_in(headers: Iterable[str]) -> tuple[str, ...]:
    """The texts of `Warning` headers, as kubectl prints them; several may stand in one."""
    texts = (match[1] for header in headers for match in _WARNING.finditer(header))
    return tuple(re.sub(r"\\(.)", r"\1", text) for text in texts)


def version_from(document: Document) -> tuple[int, int]:
    """Major and minor; that of a managed cluster may read `32+`. 0 for what is no number."""
    return _leading_number(document.get("major", "")), _leading_number(document.get("minor", ""))


def _leading_number(text: str) -> int:
    digits = re.match("[0-9]+", text)
    return int(digits[0]) if digits else 0


def service_name_from(spec: Document) -> ServiceName | None:
    """The Service of an APIService's spec, or of a webhook's clientConfig; None where there is none."""
    service = spec.get("service")
    return ServiceName(namespace=service["namespace"], name=service["name"]) if service else None


def api_services_path(name: str) -> str:
    return f"/apis/apiregistration.k8s.io/v1/apiservices/{quoted(name)}"


def webhooks_path(name: str) -> str:
    return f"/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{quoted(name)}"


def encoded(data: Mapping[str, bytes]) -> dict[str, str]:
    return {key: base64_text(value) for key, value in data.items()}


def base64_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _rfc3339(seconds: float) -> str:
    """Kubernetes' MicroTime."""
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
