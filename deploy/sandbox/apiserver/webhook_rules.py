"""Which webhooks a write is sent to: rules, selectors and match conditions of the webhook configurations."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from deploy.sandbox.apiserver.match_conditions import ConditionError, Expression, parse_condition
from deploy.sandbox.apiserver.writing import Operation, Write
from deploy.sandbox.errors import forbidden
from deploy.sandbox.label_selectors import matches_labels
from deploy.sandbox.resources import NAMESPACES, Document, Resource


def covers(rules: Iterable[Document], write: Write, operation: Operation) -> bool:
    """Whether one of the rules is about this operation on this resource."""
    return any(_covers(rule, write, operation) for rule in rules)


def _covers(rule: Document, write: Write, operation: Operation) -> bool:
    resource = write.resource
    return (
        _lists(rule["operations"], operation)
        and _lists(rule["apiGroups"], resource.group)
        and _lists(rule["apiVersions"], resource.version)
        and rule["scope"] in ("*", "Namespaced" if resource.namespaced else "Cluster")
        and any(_names(pattern, resource, write.subresource) for pattern in rule["resources"])
    )


def _lists(allowed: list[str], value: str) -> bool:
    return "*" in allowed or value in allowed


def _names(pattern: str, resource: Resource, subresource: str) -> bool:
    plural, _, sub = pattern.partition("/")
    # `*` alone stands for every resource, but for no subresource; `*/*` stands for everything.
    return plural in ("*", resource.plural) and (sub == subresource or (sub == "*"))


def selects_namespace(selector: Document, write: Write, namespace: Document | None) -> bool:
    """Whether the namespace selector fits; it minds only namespaced objects and namespaces themselves."""
    if not write.resource.namespaced and write.resource is not NAMESPACES:
        return True
    labels = (namespace or {}).get("metadata", {}).get("labels") or {}
    return matches_labels(selector, labels)


def selects_object(selector: Document, *documents: Document | None) -> bool:
    """Whether the object selector fits the new or the old object. A Scale has no labels, so it fits few."""
    return any(
        matches_labels(selector, document["metadata"].get("labels") or {})
        for document in documents
        if document is not None
    )


def conditions_hold(webhook: Document, write: Write, variables: Mapping[str, Any]) -> bool:
    """Whether all match conditions are true. One that is false decides; else one that fails counts.

    Raises ApiError 403 for a condition that fails under failurePolicy Fail; Ignore skips the webhook.
    """
    failure = None
    for condition in webhook.get("matchConditions") or ():
        try:
            if _condition(condition["expression"])(variables) is not True:
                return False
        except ConditionError as error:
            failure = failure or f"expression '{condition['expression']}' resulted in error: {error}"
    if failure is None:
        return True
    if webhook["failurePolicy"] == "Ignore":
        return False
    raise forbidden(write.resource, write.name, failure)


@lru_cache(maxsize=256)
def _condition(text: str) -> Expression:
    return parse_condition(text)
