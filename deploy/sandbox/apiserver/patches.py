"""The three patch types of the Kubernetes API, on plain documents. None of them changes what it is given."""

import copy
import json
from collections.abc import Callable
from typing import Any

from deploy.sandbox.errors import ApiError, bad_request, unsupported_media_type
from deploy.sandbox.resources import Document

# By which field a strategic merge tells the items of a list apart; lists that are not named are replaced.
MERGE_KEYS = {
    "conditions": "type",
    "containers": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ownerReferences": "uid",
    "ports": "containerPort",
    "secrets": "name",
    "volumeMounts": "mountPath",
    "volumes": "name",
    "webhooks": "name",
}
SERVICE_PORT_KEY = "port"
PRIMITIVE_MERGES = ("finalizers",)


def apply_patch(content_type: str, patch: Any, target: Document) -> Document:
    """The patched document. Raises ApiError 415 for a type that is not served, 400 or 422 for a bad patch."""
    media_type = content_type.partition(";")[0].strip()
    if media_type == "application/apply-patch+yaml":
        raise unsupported_media_type(
            "this API server does not do server-side apply: leave --server-side away, or send "
            "application/strategic-merge-patch+json"
        )
    if media_type not in PATCH_TYPES:
        raise unsupported_media_type(
            f"the body of the request was in an unknown format - accepted media types include: "
            f"{', '.join(PATCH_TYPES)}"
        )
    try:
        patched = PATCH_TYPES[media_type](target, patch)
    except (AttributeError, TypeError) as error:
        raise bad_request(f"the patch does not fit the object: {error}") from error
    if not isinstance(patched, dict):
        raise bad_request("the patch does not leave an object behind")
    return patched


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for field, value in patch.items():
        if value is None:
            merged.pop(field, None)
        else:
            merged[field] = merge_patch(merged.get(field), value)
    return merged


def strategic_merge_patch(target: Any, patch: Any) -> Any:
    """A merge patch that merges known lists item by item, and knows `$patch` and its sister directives."""
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {field: value for field, value in patch.items() if field != "$patch"}
    merged = dict(target) if isinstance(target, dict) else {}
    if kept := patch.get("$retainKeys"):
        merged = {field: value for field, value in merged.items() if field in kept}
    for field, value in patch.items():
        if not field.startswith("$"):
            _merge_field(merged, field, value)
    for field, value in patch.items():
        directive, _, name = field.partition("/")
        if directive == "$deleteFromPrimitiveList":
            merged[name] = [item for item in merged.get(name, ()) if item not in value]
        elif directive == "$setElementOrder" and isinstance(merged.get(name), list):
            merged[name] = _in_order(merged[name], value, name)
    return merged


def _merge_field(merged: Document, field: str, value: Any) -> None:
    if value is None:
        merged.pop(field, None)
    elif isinstance(value, list):
        old = merged.get(field)
        merged[field] = _merge_list(field, old if isinstance(old, list) else [], value)
    elif isinstance(value, dict) and value.get("$patch") == "delete":
        merged.pop(field, None)
    else:
        merged[field] = strategic_merge_patch(merged.get(field), value)


def _merge_list(field: str, old: list[Any], patch: list[Any]) -> list[Any]:
    if field in PRIMITIVE_MERGES:
        return old + [item for item in patch if item not in old]
    key = _merge_key(field, old + patch)
    changes = [item for item in patch if not (isinstance(item, dict) and item.get("$patch") == "replace")]
    if key is None or len(changes) < len(patch):
        return changes
    merged = list(old)
    for change in changes:
        _merge_item(merged, key, change)
    return merged


def _merge_item(merged: list[Any], key: str, change: Document) -> None:
    if key not in change:
        raise bad_request(f"map: {json.dumps(change)} does not contain declared merge key: {key}")
    at = next((i for i, item in enumerate(merged) if item.get(key) == change[key]), None)
    if change.get("$patch") == "delete":
        if at is not None:
            del merged[at]
    elif at is None:
        merged.append(strategic_merge_patch({}, change))
    else:
        merged[at] = strategic_merge_patch(merged[at], change)


def _merge_key(field: str, items: list[Any]) -> str | None:
    if field == "ports" and not any("containerPort" in item for item in items if isinstance(item, dict)):
        return SERVICE_PORT_KEY
    return MERGE_KEYS.get(field)


def _in_order(items: list[Any], order: list[Any], field: str) -> list[Any]:
    key = _merge_key(field, items)
    wanted = [entry.get(key) if isinstance(entry, dict) else entry for entry in order]

    def rank(item: Any) -> int:
        name = item.get(key) if isinstance(item, dict) else item
        return wanted.index(name) if name in wanted else len(wanted)

    return sorted(items, key=rank)


def json_patch(target: Any, patch: Any) -> Any:
    """RFC 6902. Raises ApiError 422 when a path is missing or a test fails."""
    if not isinstance(patch, list):
        raise bad_request("a JSON patch is a list of operations")
    document = copy.deepcopy(target)
    for step in patch:
        try:
            document = _step(document, step)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            message = f"the server rejected our request due to an error in our request: {step!r}: {error}"
            raise ApiError(422, "Invalid", message) from error
    return document


def _step(document: Any, step: Document) -> Any:
    operation, path = step["op"], _pointer(step["path"])
    if operation == "test":
        if _read(document, path) != step["value"]:
            raise ValueError(f"testing value {step['path']} failed")
        return document
    if operation in ("move", "copy"):
        source = _pointer(step["from"])
        value = copy.deepcopy(_read(document, source))
        if operation == "move":
            document = _remove(document, source)
        return _add(document, path, value)
    if operation == "remove":
        return _remove(document, path)
    if operation == "replace":
        _read(document, path)
        return _add(_remove(document, path), path, step["value"]) if path else step["value"]
    if operation == "add":
        return _add(document, path, step["value"])
    raise ValueError(f"unknown operation {operation}")


def _pointer(path: str) -> list[str]:
    if path and not path.startswith("/"):
        raise ValueError(f"{path} is no JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]


def _read(document: Any, path: list[str]) -> Any:
    for part in path:
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


def _add(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent, last = _read(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        parent.insert(len(parent) if last == "-" else int(last), value)
    else:
        parent[last] = value
    return document


def _remove(document: Any, path: list[str]) -> Any:
    parent, last = _read(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        del parent[int(last)]
    else:
        del parent[last]
    return document


PATCH_TYPES: dict[str, Callable[[Any, Any], Any]] = {
    "application/json-patch+json": json_patch,
    "application/merge-patch+json": merge_patch,
    "application/strategic-merge-patch+json": strategic_merge_patch,
}
