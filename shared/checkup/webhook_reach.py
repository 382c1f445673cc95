"""Which webhooks are asked about a pool, by their rules and selectors as Kubernetes reads them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from shared.kube_documents import WORKLOAD_RESOURCES
from shared.pods import Document

_NAME = "kubernetes.io/metadata.name"
"""A label of each namespace, which the API server writes itself."""


def covering(document: Document, kind: str, *, subresource: str) -> list[Document]:
    """Webhooks of a configuration with a rule for updates of the kind itself, or of its subresource."""
    return [
        webhook
        for webhook in document.get("webhooks") or ()
        if any(_covers(rule, kind, subresource) for rule in webhook.get("rules") or ())
    ]


def selects_namespace(webhook: Document, namespace: str, labels: Mapping[str, str] | None) -> bool:
    """Whether it is asked there; with labels that are not known (None), as far as the name tells."""
    known = {**(labels or {}), _NAME: namespace}
    return all(
        (labels is None and requirement["key"] not in known) or _holds(requirement, known)
        for requirement in _requirements(webhook.get("namespaceSelector") or {})
    )


def selects_a_scale(webhook: Document) -> bool:
    """Whether its objectSelector admits what a scale-down is about: a Scale, which never has a label."""
    return all(_holds(requirement, {}) for requirement in _requirements(webhook.get("objectSelector") or {}))


def _covers(rule: Document, kind: str, subresource: str) -> bool:
    group_version, plural = WORKLOAD_RESOURCES[kind]
    # `*` behind the slash stands for every subresource, and for none.
    names = {f"{own}/{sub}" if sub else own for own in (plural, "*") for sub in {subresource, "*"}}
    return bool(
        {group_version.partition("/")[0], "*"} & set(rule.get("apiGroups") or ())
        and names & set(rule.get("resources") or ())
        and {"UPDATE", "*"} & set(rule.get("operations") or ())
        and (rule.get("scope") or "*") in ("*", "Namespaced")
    )


def _requirements(selector: Document) -> Iterator[Document]:
    for key, value in (selector.get("matchLabels") or {}).items():
        yield {"key": key, "operator": "In", "values": [value]}
    yield from selector.get("matchExpressions") or ()


def _holds(requirement: Document, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(requirement["key"]), requirement.get("values") or ()
    match requirement["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case _:
            return value is None
