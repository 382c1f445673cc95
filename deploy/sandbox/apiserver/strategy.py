"""What happens to a document between the client's body and the store: identity, immutables, generation."""

import secrets
import uuid
from datetime import datetime
from typing import Any

from deploy.sandbox.apiserver.defaults import INITIAL_STATUS, with_defaults
from deploy.sandbox.apiserver.validation import validate
from deploy.sandbox.errors import bad_request, conflict, invalid
from deploy.sandbox.objects import timestamp
from deploy.sandbox.resources import Document, Resource

# The real generator leaves out vowels and look-alikes, so that names read well and spell nothing.
NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
IMMUTABLE_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "generateName",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)


def without_nulls(value: Any) -> Any:
    """A null in a body means that the field is not there."""
    if isinstance(value, dict):
        return {field: without_nulls(item) for field, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def new_object(
    resource: Resource, document: Document, *, namespace: str, now: datetime, honours_costs: bool = True
) -> Document:
    """A posted document made ready to be stored. Raises ApiError 400 or 422 when it cannot be."""
    document = without_nulls(document)
    metadata = document.get("metadata") or {}
    if metadata.get("namespace", namespace) != namespace:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    created = {
        **metadata,
        **({"namespace": namespace} if resource.namespaced else {}),
        "name": _name(resource, metadata),
        "uid": str(uuid.uuid4()),
        "creationTimestamp": timestamp(now),
    }
    created.pop("resourceVersion", None)
    if resource.generation_from:
        created["generation"] = 1
    fresh = document | {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": created}
    if resource.has_status:
        fresh = fresh | {"status": INITIAL_STATUS.get(resource, {})}
    return _checked(resource, fresh, honours_costs=honours_costs)


def _name(resource: Resource, metadata: Document) -> str:
    if name := metadata.get("name"):
        return str(name)
    if prefix := metadata.get("generateName"):
        return str(prefix) + "".join(secrets.choice(NAME_ALPHABET) for _ in range(5))
    raise invalid(resource, "", [("metadata.name", "Required value: name or generateName is required")])


def updated_object(
    resource: Resource,
    current: Document,
    changed: Document,
    *,
    subresource: str = "",
    honours_costs: bool = True,
) -> Document:
    """The new state of an object, of which a client may not change everything.

    Raises ApiError 409 for another object or an older state, 400 or 422 for one that breaks rules.
    """
    changed = without_nulls(changed)
    check_identity(resource, current, changed)
    if subresource == "status":
        return current | {"status": changed.get("status") or {}}
    metadata = {k: v for k, v in changed["metadata"].items() if k not in IMMUTABLE_METADATA}
    metadata |= {k: v for k, v in current["metadata"].items() if k in IMMUTABLE_METADATA}
    updated = changed | {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
    if resource.has_status:
        updated = updated | {"status": current.get("status", {})}
    updated = _checked(resource, updated, current, honours_costs=honours_costs)
    if any(_at(updated, path) != _at(current, path) for path in resource.generation_from):
        metadata["generation"] = current["metadata"].get("generation", 1) + 1
    return updated


def check_identity(resource: Resource, current: Document, changed: Document) -> None:
    """Whether a document claims to be a state of the current one. Raises ApiError 400 or 409."""
    here, there = current["metadata"], changed.get("metadata") or {}
    if there.get("name", here["name"]) != here["name"]:
        raise bad_request(
            f"the name of the object ({there['name']}) does not match the name on the URL ({here['name']})"
        )
    if there.get("uid", here["uid"]) != here["uid"]:
        raise conflict(resource, here["name"], uid_mismatch(there["uid"], here["uid"]))
    if (there.get("resourceVersion") or here["resourceVersion"]) != here["resourceVersion"]:
        raise conflict(resource, here["name"])


def uid_mismatch(wanted: str, found: str) -> str:
    """Why a precondition on the uid does not hold."""
    return f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"


def _checked(
    resource: Resource, document: Document, current: Document | None = None, *, honours_costs: bool
) -> Document:
    try:
        complete = with_defaults(resource, document)
        validate(resource, complete, current, honours_costs=honours_costs)
    except (AttributeError, KeyError, TypeError) as error:
        raise bad_request(
            f"{resource.kind} in version {resource.version!r} cannot be handled: {error!r}"
        ) from error
    return complete


def _at(document: Document, path: str) -> object:
    value: Any = document
    for part in path.split("."):
        value = value.get(part) or {}
    return value
