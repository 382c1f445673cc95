"""What is wrong with what all pools share: Kubernetes, both registrations, permissions. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from shared.checkup.findings import CLUSTER, Check, Finding
from shared.checkup.permissions import (
    ADAPTER,
    API_SERVICE,
    HOOK,
    POOL_NAMESPACE,
    WEBHOOK_CONFIGURATION,
    Permission,
)
from shared.checkup.picture import Backend, Picture, Unread
from shared.kube_documents import webhook_terms_from
from shared.pods import Document

OLDEST_KUBERNETES = (1, 28)
"""From here on a webhook has matchConditions without a feature gate."""

_KUBERNETES = Check(about=CLUSTER, name="kubernetes")
_API_SERVICE = Check(about=CLUSTER, name="api-service")
_WEBHOOK = Check(about=CLUSTER, name="webhook")
_POLICY = Check(about=CLUSTER, name="failure-policy")
_PERMISSIONS = Check(about=CLUSTER, name="permissions")


def check_cluster(picture: Picture) -> Iterator[Finding]:
    """Findings about what is not one pool's."""
    yield check_kubernetes(picture)
    yield from check_api_service(picture)
    yield from check_webhooks(picture)
    yield from check_permissions(picture)


def check_kubernetes(picture: Picture) -> Finding:
    if isinstance(picture.version, Unread):
        return _KUBERNETES.problem(
            f"The Kubernetes API cannot be used from here: {picture.version.reason}",
            "Name another --kubeconfig, or see that its API server can be reached.",
        )
    major, minor = picture.version
    if picture.version < OLDEST_KUBERNETES:
        return _KUBERNETES.problem(
            f"Kubernetes is {major}.{minor}, where webhooks have no matchConditions: scale-ups, too, wait "
            "for the hook, and fail without it.",
            "Upgrade to {}.{} or newer.".format(*OLDEST_KUBERNETES),
        )
    return _KUBERNETES.ok(f"Kubernetes is {major}.{minor}.")


def check_api_service(picture: Picture) -> Iterator[Finding]:
    """Whether HPAs reach the adapter."""
    document = picture.api_service.document
    if isinstance(document, Unread):
        yield _absent(_API_SERVICE, f"APIService {API_SERVICE}", document, "no HPA can read our metrics")
        return
    found = [*_owner(picture), *_availability(document)]
    yield from found
    if not found:
        backend = picture.api_service.backends[0]
        yield _API_SERVICE.ok(f"The APIService is ours, is available, and leads to {_seen(backend)}.")


def check_webhooks(picture: Picture) -> Iterator[Finding]:
    """Whether the API server reaches the hook, and what it does when it does not."""
    document = picture.webhooks.document
    if isinstance(document, Unread):
        what = f"ValidatingWebhookConfiguration {WEBHOOK_CONFIGURATION}"
        yield _absent(_WEBHOOK, what, document, "scale-downs hit busy workers")
        return
    backends = picture.webhooks.backends
    found = list(dict.fromkeys(f for b in backends for f in _backend(_WEBHOOK, b, WEBHOOK_CONFIGURATION)))
    if not backends:
        yield _WEBHOOK.problem(
            f"{WEBHOOK_CONFIGURATION} has no webhook, so the hook is never asked.",
            "Apply deploy/base/webhook.yaml.",
        )
        return
    yield from found
    if not found:
        yield _WEBHOOK.ok(f"The webhook is registered and leads to {_seen(backends[0])}.")
    yield from _failure_policies(document)


def check_permissions(picture: Picture) -> Iterator[Finding]:
    """Whether both services may do what they do."""
    if isinstance(picture.denied, Unread):
        yield _PERMISSIONS.warning(
            f"What {ADAPTER} and {HOOK} may do could not be asked: {picture.denied.reason}",
            "Run this as somebody who may create subjectaccessreviews.",
        )
        return
    yield from map(_denial, _by_place(picture.denied))
    if not picture.denied:
        yield _PERMISSIONS.ok(f"{ADAPTER} and {HOOK} may do all that they need to do.")


def _absent(check: Check, what: str, unread: Unread, consequence: str) -> Finding:
    if unread.is_missing:
        return check.problem(
            f"There is no {what}: {consequence}.", "Install with kubectl apply -k, see deploy/base."
        )
    return check.warning(f"{what} could not be read: {unread.reason}", "Run this as somebody who may.")


def _owner(picture: Picture) -> Iterator[Finding]:
    ours = f"{picture.namespace}/{ADAPTER}"
    backends = picture.api_service.backends
    owner = str(backends[0]) if backends else "the API server itself"
    if owner == ours:
        yield from _backend(_API_SERVICE, backends[0], f"APIService {API_SERVICE}")
        return
    yield _API_SERVICE.problem(
        f"APIService {API_SERVICE} leads to {owner}, not to {ours}: a cluster has one provider of external "
        "metrics, and HPAs ask that one.",
        "If ours is installed elsewhere, name its namespace with --namespace. Otherwise apply "
        "deploy/base/api-service.yaml, and name the other provider as delegate while it is needed.",
    )


def _availability(document: Document) -> Iterator[Finding]:
    conditions = (document.get("status") or {}).get("conditions") or ()
    available: Document = next((c for c in conditions if c.get("type") == "Available"), {})
    if available.get("status") == "True":
        return
    said = (
        f"{available.get('reason', '')}: {available.get('message', '')}" if available else "nobody looked yet"
    )
    yield _API_SERVICE.problem(
        f"The API server does not find APIService {API_SERVICE} available ({said}), so HPAs get no values.",
        f"Look at the pods and the log of {ADAPTER}.",
    )


def _backend(check: Check, backend: Backend, registered: str) -> Iterator[Finding]:
    if backend.problem:
        yield check.problem(
            f"{registered} leads nowhere: {backend.problem}", f"See to the pods of {backend}."
        )
    if not backend.has_ca:
        yield check.problem(
            f"{registered} has no caBundle, so the API server does not trust {backend}.",
            "Start it with --tls-self-managed, which writes one, or have cert-manager inject one.",
        )
    elif backend.tls_problem:
        yield check.problem(
            f"The caBundle of {registered} does not fit the certificate that {backend} serves with: "
            f"{backend.tls_problem}.",
            "With --tls-self-managed it is written again within a minute: see its log if it is not. "
            "Otherwise write the CA that signed the certificate.",
        )


def _seen(backend: Backend) -> str:
    if backend.tls_problem is None:
        return f"{backend} (which cannot be reached from here, so its certificate was not looked at)"
    return f"{backend}, whose certificate fits the caBundle"


def _failure_policies(document: Document) -> Iterator[Finding]:
    terms = list(map(webhook_terms_from, document.get("webhooks") or ()))
    for ignoring in (one for one in terms if one.failure_policy == "Ignore"):
        yield _POLICY.warning(
            f"Webhook {ignoring.name} has failurePolicy Ignore: a scale-down that the hook does not answer "
            f"within {ignoring.timeout_s:.0f} s deletes workers that were not drained.",
            "Set it to Fail, unless you mean this.",
        )
    if all(one.failure_policy == "Fail" for one in terms):
        yield _POLICY.ok("failurePolicy is Fail: without the hook a scale-down waits.")


def _by_place(denied: Iterable[Permission]) -> list[list[Permission]]:
    groups: dict[tuple[str, str, str], list[Permission]] = defaultdict(list)
    for permission in denied:
        groups[permission.account, permission.namespace, permission.granted_by].append(permission)
    return list(groups.values())


def _denial(denied: list[Permission]) -> Finding:
    first = denied[0]
    where = f"in namespace {first.namespace}" if first.namespace else "in the cluster"
    in_full = f" for namespace {first.namespace}" if first.granted_by == POOL_NAMESPACE else ""
    return _PERMISSIONS.problem(
        f"Service account {first.account} may not {', '.join(map(str, denied))} {where}.",
        f"Apply {first.granted_by}{in_full}.",
    )
