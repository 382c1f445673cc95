"""The scale subresource: an autoscaling/v1 Scale as a view on a workload, and back."""

from deploy.sandbox.apiserver.strategy import check_identity
from deploy.sandbox.errors import invalid
from deploy.sandbox.resources import CLONE_SETS, Document, Resource
from shared.pods import selector_text


def scale_of(document: Document) -> Document:
    """The Scale of a workload. Zero replicas are left out of spec, as the real server leaves them out."""
    metadata = document["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    replicas = document["spec"].get("replicas", 0)
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {field: metadata[field] for field in kept if field in metadata},
        "spec": {"replicas": replicas} if replicas else {},
        "status": {
            "replicas": document.get("status", {}).get("replicas", 0),
            "selector": _selector(document),
        },
    }


def _selector(document: Document) -> str:
    """A custom resource's is what its controller wrote where the definition's labelSelectorPath points."""
    if document["kind"] == CLONE_SETS.kind:
        return str(document.get("status", {}).get("labelSelector", ""))
    return selector_text(document["spec"]["selector"])


def with_scale(resource: Resource, document: Document, scale: Document) -> Document:
    """The workload with a Scale's replicas. Raises ApiError 409 for a Scale of another state or object."""
    check_identity(resource, document, scale)
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    if not isinstance(replicas, int) or replicas < 0:
        problem = ("spec.replicas", f"Invalid value: {replicas!r}: must be greater than or equal to 0")
        raise invalid(resource, document["metadata"]["name"], [problem])
    return document | {"spec": document["spec"] | {"replicas": replicas}}
