"""From an URL's path to what is asked for: `/apis/apps/v1/namespaces/d/deployments/w/scale` and its like."""

from dataclasses import dataclass
from urllib.parse import unquote

from deploy.sandbox.resources import BY_PATH, Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a resource path names. `resource` is None when this server has no such resource itself."""

    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def resource(self) -> Resource | None:
        """The table's entry for it."""
        return BY_PATH.get((self.group, self.version, self.plural))


NAMESPACE_SUBRESOURCES = ("status", "finalize")


def parse_path(path: str) -> Target | None:
    """The target of a resource path; None for discovery, health and everything else."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if parts[0] == "api" and len(parts) > 2:
        return _target("", parts[1], parts[2:])
    if parts[0] == "apis" and len(parts) > 3:
        return _target(parts[1], parts[2], parts[3:])
    return None


def _target(group: str, version: str, parts: list[str]) -> Target | None:
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2 and parts[2] not in NAMESPACE_SUBRESOURCES:
        namespace, parts = parts[1], parts[2:]
    if len(parts) > 3:
        return None
    plural, name, subresource = (*parts, "", "")[:3]
    return Target(
        group=group,
        version=version,
        plural=plural,
        namespace=namespace,
        name=name,
        subresource=subresource,
    )
