"""Just enough OpenAPI v3 for kubectl: which kinds take which query parameters when they are written."""

from collections.abc import Mapping

from deploy.sandbox.resources import GROUP_VERSIONS, RESOURCES, Document, Resource

# kubectl leaves validation to the server when the patch of a kind takes fieldValidation.
WRITE_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation", "force")


def index(others: Mapping[str, Document]) -> Document:
    """`/openapi/v3`: where the document of each group version is, those of other servers included."""
    ours = (_path(group, version) for group, version in GROUP_VERSIONS)
    return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}"} for path in (*ours, *others)}}


def document(path: str, others: Mapping[str, Document]) -> Document | None:
    """`/openapi/v3/<path>`, None for a group version that nobody serves."""
    if path in others:
        return others[path]
    served = [resource for resource in RESOURCES if _path(resource.group, resource.version) == path]
    if not served:
        return None
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.36.2"},
        "paths": {_object_path(resource): {"patch": _patch(resource)} for resource in served},
    }


def _path(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _object_path(resource: Resource) -> str:
    scope = "/namespaces/{namespace}" if resource.namespaced else ""
    return f"/{_path(resource.group, resource.version)}{scope}/{resource.plural}/{{name}}"


def _patch(resource: Resource) -> Document:
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    parameters = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in WRITE_PARAMETERS]
    return {
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": kind,
        "parameters": parameters,
        "responses": {"200": {"description": "OK"}},
    }
