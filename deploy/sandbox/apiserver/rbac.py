"""RBAC as kube-apiserver decides it: roles give verbs on resources, bindings give roles to subjects."""

from collections.abc import Iterator
from dataclasses import dataclass

from deploy.sandbox.apiserver.authentication import MASTERS, User, service_account_of
from deploy.sandbox.apiserver.authorization import Attributes, Decision
from deploy.sandbox.apiserver.store import Key, ObjectStore
from deploy.sandbox.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    ROLES,
    Document,
)

ANY = "*"


class RoleBasedAccess:
    """Decides by the roles and bindings that are stored now; `system:masters` may do everything."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def authorize(self, user: User, attributes: Attributes) -> Decision:
        """Whether the user may do it, and which binding says so or names a role that is missing."""
        if MASTERS in user.groups:
            return Decision(allowed=True)
        missing = []
        for grant in self._grants(user, attributes.namespace):
            rules = self._rules(grant)
            if rules is None:
                missing.append(f'{grant.kind.lower()}.{CLUSTER_ROLES.group} "{grant.role}" not found')
            elif any(allows(rule, attributes) for rule in rules):
                return Decision(allowed=True, reason=f"RBAC: allowed by {grant.description}")
        return Decision(allowed=False, reason=_about(missing))

    def _grants(self, user: User, namespace: str) -> Iterator["Grant"]:
        bindings = self._store.select(CLUSTER_ROLE_BINDINGS)
        if namespace:
            bindings = [*bindings, *self._store.select(ROLE_BINDINGS, namespace)]
        for binding in bindings:
            for subject in binding.get("subjects") or ():
                if is_meant(subject, user, namespace=binding["metadata"].get("namespace", "")):
                    yield Grant(binding=binding, subject=subject)
                    break

    def _rules(self, grant: "Grant") -> list[Document] | None:
        key = (
            Key(CLUSTER_ROLES, "", grant.role)
            if grant.kind == CLUSTER_ROLES.kind
            else Key(ROLES, grant.namespace, grant.role)
        )
        role = self._store.get(key)
        return None if role is None else role.get("rules") or []


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A binding, and its subject that the user is."""

    binding: Document
    subject: Document

    @property
    def namespace(self) -> str:
        """Empty for a ClusterRoleBinding."""
        namespace: str = self.binding["metadata"].get("namespace", "")
        return namespace

    @property
    def kind(self) -> str:
        """Role or ClusterRole."""
        kind: str = self.binding["roleRef"]["kind"]
        return kind

    @property
    def role(self) -> str:
        name: str = self.binding["roleRef"]["name"]
        return name

    @property
    def description(self) -> str:
        """As access reviews give it for their reason."""
        name = self.binding["metadata"]["name"]
        bound = f'RoleBinding "{name}/{self.namespace}"' if self.namespace else f'ClusterRoleBinding "{name}"'
        whom = self.subject["name"]
        if self.subject["kind"] == "ServiceAccount":
            whom = f"{whom}/{self.subject.get('namespace') or self.namespace}"
        return f'{bound} of {self.kind} "{self.role}" to {self.subject["kind"]} "{whom}"'


def is_meant(subject: Document, user: User, *, namespace: str) -> bool:
    """Whether a subject is the user, or a group of theirs; `namespace` is that of the binding."""
    name = subject["name"]
    match subject["kind"]:
        case "User":
            return bool(user.name == name)
        case "Group":
            return name in user.groups
        case "ServiceAccount":
            return service_account_of(user.name) == (subject.get("namespace") or namespace, name)
    return False


def allows(rule: Document, attributes: Attributes) -> bool:
    """Whether a rule of a role covers a request."""
    if not _names(rule.get("verbs"), attributes.verb):
        return False
    if attributes.path:
        return any(_covers_path(path, attributes.path) for path in rule.get("nonResourceURLs") or ())
    return (
        _names(rule.get("apiGroups"), attributes.group)
        and any(_covers_resource(name, attributes) for name in rule.get("resources") or ())
        and (not rule.get("resourceNames") or attributes.name in rule["resourceNames"])
    )


def _names(words: list[str] | None, word: str) -> bool:
    return ANY in (words or ()) or word in (words or ())


def _covers_resource(name: str, attributes: Attributes) -> bool:
    """`*` covers subresources too, `*/scale` that subresource of everything, `pods` no subresource."""
    if name in (ANY, attributes.whole_resource):
        return True
    return bool(attributes.subresource) and name == f"*/{attributes.subresource}"


def _covers_path(pattern: str, path: str) -> bool:
    if pattern.endswith(ANY):
        return path.startswith(pattern[:-1])
    return pattern == path


def _about(missing: list[str]) -> str:
    if not missing:
        return ""
    return f"RBAC: {missing[0]}" if len(missing) == 1 else f"RBAC: [{', '.join(missing)}]"
