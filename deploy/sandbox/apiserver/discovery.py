"""What the API server says it serves: the legacy documents and the aggregated one, from the one table."""

from collections.abc import Iterable

from deploy.sandbox.resources import GROUP_VERSIONS, RESOURCES, Document, Resource

ACCEPT_AGGREGATED = ",".join(
    f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
    for version in ("v2", "v2beta1")
)
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
VERSION = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.2",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-06-10T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "linux/amd64",
}
SUBRESOURCE_VERBS = ["get", "patch", "update"]


def wants_aggregated(accept: str) -> bool:
    """Whether a client asks for all groups in one document."""
    return "as=APIGroupDiscoveryList" in accept and "v=v2" in accept


def core_versions() -> Document:
    """`/api` as older clients read it."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def group_list(foreign: Iterable[tuple[str, str]] = ()) -> Document:
    """`/apis` as older clients read it; `foreign` are the group versions of other servers."""
    versions: dict[str, list[str]] = {}
    for group, version in (*GROUP_VERSIONS, *foreign):
        if group:
            versions.setdefault(group, []).append(version)
    groups = [_group(group, served) for group, served in versions.items()]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group_document(wanted: str, foreign: Iterable[tuple[str, str]] = ()) -> Document | None:
    """`/apis/<group>`, None for a group that nobody serves."""
    versions = [version for group, version in (*GROUP_VERSIONS, *foreign) if group == wanted]
    return {"kind": "APIGroup", "apiVersion": "v1"} | _group(wanted, versions) if versions else None


def _group(group: str, versions: list[str]) -> Document:
    listed = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": listed, "preferredVersion": listed[0]}


def resource_list(group: str, version: str) -> Document | None:
    """`/api/v1` or `/apis/<group>/<version>`, None for one that is not served here."""
    entries = [entry for resource in _of(group, version) for entry in _entries(resource)]
    if not entries:
        return None
    group_version = f"{group}/{version}" if group else version
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": entries,
    }


def _of(group: str, version: str) -> list[Resource]:
    return [resource for resource in RESOURCES if (resource.group, resource.version) == (group, version)]


def _entries(resource: Resource) -> list[Document]:
    entry: Document = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    return [entry, *(_subresource_entry(resource, name) for name in _subresources(resource))]


def _subresource_entry(resource: Resource, subresource: str) -> Document:
    kind = {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    return {
        "name": f"{resource.plural}/{subresource}",
        "singularName": "",
        "namespaced": resource.namespaced,
        **(kind if subresource == "scale" else {"kind": resource.kind}),
        "verbs": SUBRESOURCE_VERBS,
    }


def _subresources(resource: Resource) -> list[str]:
    return ["scale"] * resource.has_scale + ["status"] * resource.has_status


def core_discovery() -> Document:
    """`/api` in aggregated form."""
    return _discovery_list([_group_discovery("")])


def group_discovery(foreign: Iterable[Document] = ()) -> Document:
    """`/apis` in aggregated form: our groups, and what other servers said about theirs."""
    groups = dict.fromkeys(group for group, _ in GROUP_VERSIONS if group)
    return _discovery_list([*map(_group_discovery, groups), *foreign])


def _discovery_list(items: list[Document]) -> Document:
    kind = {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2"}
    return kind | {"metadata": {}, "items": items}


def _group_discovery(group: str) -> Document:
    versions = [
        {
            "version": version,
            "resources": [_discovered(resource) for resource in _of(group, version)],
            "freshness": "Current",
        }
        for served, version in GROUP_VERSIONS
        if served == group
    ]
    return {"metadata": {"name": group} if group else {}, "versions": versions}


def _discovered(resource: Resource) -> Document:
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    scale = {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    subresources = [
        {
            "subresource": name,
            "responseKind": scale if name == "scale" else kind,
            "verbs": SUBRESOURCE_VERBS,
        }
        for name in _subresources(resource)
    ]
    return {
        "resource": resource.plural,
        "responseKind": kind,
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(resource.verbs),
        "shortNames": list(resource.short_names),
        "categories": list(resource.categories),
        "subresources": subresources,
    }
