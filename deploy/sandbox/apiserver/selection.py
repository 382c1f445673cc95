"""Which objects a list or a watch is about: label selector and field selector together."""

from collections.abc import Mapping
from dataclasses import dataclass

from deploy.sandbox.errors import bad_request
from deploy.sandbox.resources import Document, Resource
from metrics_adapter.selectors import Selector, parse_selector
from shared.errors import SelectorSyntaxError

FIELDS = {
    "events": (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.fieldPath",
        "involvedObject.resourceVersion",
        "reason",
        "source",
        "type",
    ),
    "pods": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
    ),
    "namespaces": ("status.phase",),
    "secrets": ("type",),
    "replicasets.apps": ("status.replicas",),
}
METADATA_FIELDS = ("metadata.name", "metadata.namespace")


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRequirement:
    """`path=value` or `path!=value`."""

    path: tuple[str, ...]
    value: str
    equal: bool

    def matches(self, document: Document) -> bool:
        """Whether the object's field is (or is not) that value; a missing field is the empty string."""
        found: object = document
        for part in self.path:
            found = found.get(part, "") if isinstance(found, dict) else ""
        return (str(found) == self.value) is self.equal


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Everything that a list's query asks for."""

    labels: Selector
    fields: tuple[FieldRequirement, ...]

    def matches(self, document: Document) -> bool:
        """Whether the object is selected."""
        metadata = document["metadata"]
        return all(field.matches(document) for field in self.fields) and self.labels.matches(
            metadata.get("labels") or {}
        )


def parse_selection(resource: Resource, query: Mapping[str, str]) -> Selection:
    """From `labelSelector` and `fieldSelector`. Raises ApiError 400 for what cannot be understood."""
    try:
        labels = parse_selector(query.get("labelSelector", ""))
    except SelectorSyntaxError as error:
        raise bad_request(f"unable to parse requirement: {error}") from error
    terms = filter(None, query.get("fieldSelector", "").split(","))
    return Selection(labels=labels, fields=tuple(_field_requirement(resource, term) for term in terms))


def _field_requirement(resource: Resource, term: str) -> FieldRequirement:
    path, separator, value = term.partition("=")
    if not separator:
        raise bad_request(f"invalid selector: '{term}'; can't understand '{term}'")
    equal = not path.endswith("!")
    path, value = path.rstrip("!"), value.removeprefix("=")
    if path not in METADATA_FIELDS + FIELDS.get(resource.qualified, ()):
        raise bad_request(f'field label not supported: "{path}"')
    return FieldRequirement(path=tuple(path.split(".")), value=value, equal=equal)
