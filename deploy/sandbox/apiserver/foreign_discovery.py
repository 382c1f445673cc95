"""What another API server says it serves: the aggregated document, or the plain one of a group version."""

import json
from dataclasses import dataclass

from multidict import CIMultiDict

from deploy.sandbox.apiserver.authentication import User
from deploy.sandbox.apiserver.availability import group_version_path
from deploy.sandbox.apiserver.backends import AGGREGATOR, Backends, identity
from deploy.sandbox.apiserver.discovery import ACCEPT_AGGREGATED
from deploy.sandbox.resources import Document

SPECIFICATION_READER = User(name="system:aggregator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovered:
    """A group as an APIGroupDiscovery document, None if the backend has no such group."""

    group: Document | None
    etag: str = ""


async def discover(backends: Backends, service: Document, known: Discovered | None) -> Discovered:
    """Ask a backend for its group. Raises what `Backends.request` raises, and ValueError or KeyError."""
    headers = CIMultiDict({"Accept": ACCEPT_AGGREGATED, "Accept-Encoding": "gzip"})
    if known and known.etag:
        headers["If-None-Match"] = known.etag
    headers.extend(identity(AGGREGATOR))
    answer = await backends.request(service, "/apis", headers)
    if answer.status == 304 and known:
        return known
    if answer.status == 200 and "as=APIGroupDiscoveryList" in answer.headers.get("Content-Type", ""):
        wanted = service["spec"]["group"]
        groups = {group["metadata"]["name"]: group for group in json.loads(answer.body)["items"]}
        return Discovered(group=groups.get(wanted), etag=answer.headers.get("ETag", ""))
    return await _discover_resources(backends, service)


async def specified(backends: Backends, service: Document) -> Document | None:
    """A backend's OpenAPI v3 document of its group version, None without one. Raises as `discover` does."""
    headers = CIMultiDict({"Accept": "application/json"})
    # These questions come without any group, as the real aggregator asks them.
    headers.extend(identity(SPECIFICATION_READER))
    index = await backends.request(service, "/openapi/v3", headers)
    if index.status != 200:
        return None
    entry = json.loads(index.body)["paths"].get(group_version_path(service).strip("/"))
    answer = entry and await backends.request(service, entry["serverRelativeURL"], headers)
    return json.loads(answer.body) if answer and answer.status == 200 else None


async def _discover_resources(backends: Backends, service: Document) -> Discovered:
    # This question comes without any group, as the real aggregator asks it.
    headers = CIMultiDict({"Accept": "application/json", "Accept-Encoding": "gzip"})
    headers.extend(identity(User(name=AGGREGATOR.name)))
    answer = await backends.request(service, group_version_path(service), headers)
    if answer.status != 200:
        return Discovered(group=None)
    return Discovered(group=_as_group(service["spec"], json.loads(answer.body)))


def _as_group(spec: Document, resource_list: Document) -> Document:
    resources = [
        {
            "resource": entry["name"],
            "responseKind": {"group": spec["group"], "version": spec["version"], "kind": entry["kind"]},
            "scope": "Namespaced" if entry["namespaced"] else "Cluster",
            "singularResource": entry.get("singularName", ""),
            "verbs": entry["verbs"],
        }
        for entry in resource_list["resources"]
    ]
    version = {"version": spec["version"], "resources": resources, "freshness": "Current"}
    return {"metadata": {"name": spec["group"]}, "versions": [version]}
