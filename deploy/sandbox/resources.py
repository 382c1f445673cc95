"""Which resources the API server knows: one table from which storage, discovery and routing are derived."""

from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # one of each: compared by identity
class Resource:
    """One kind of object as the API serves it. `generation_from` names what bumps metadata.generation."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    has_status: bool = False
    has_scale: bool = False
    generation_from: tuple[str, ...] = ()
    create_only: bool = False  # a review: answered, never stored

    @property
    def singular(self) -> str:
        """The lower-case kind, which is what kubectl accepts and prints."""
        return self.kind.lower()

    @property
    def qualified(self) -> str:
        """`deployments.apps`: how messages name it, and the key it is stored under."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        """`apps/v1`, or `v1` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def verbs(self) -> tuple[str, ...]:
        """What discovery says can be done with it."""
        return ("create",) if self.create_only else VERBS


def _core(plural: str, kind: str, *short_names: str, **traits: Any) -> Resource:
    return Resource(group="", version="v1", plural=plural, kind=kind, short_names=short_names, **traits)


def _workload(plural: str, kind: str, short_name: str, **traits: Any) -> Resource:
    common: dict[str, Any] = {"categories": ("all",), "has_status": True, "has_scale": True}
    return Resource(
        group="apps", version="v1", plural=plural, kind=kind, short_names=(short_name,), **common, **traits
    )


def _cluster_wide(group: str, plural: str, kind: str, **traits: Any) -> Resource:
    return Resource(group=group, version="v1", plural=plural, kind=kind, namespaced=False, **traits)


def _rbac(plural: str, kind: str, **traits: Any) -> Resource:
    return Resource(group="rbac.authorization.k8s.io", version="v1", plural=plural, kind=kind, **traits)


def _review(group: str, plural: str, kind: str) -> Resource:
    return _cluster_wide(group, plural, kind, create_only=True)


CONFIGMAPS = _core("configmaps", "ConfigMap", "cm")
EVENTS = _core("events", "Event", "ev")
NAMESPACES = _core("namespaces", "Namespace", "ns", namespaced=False, has_status=True)
NODES = _core("nodes", "Node", "no", namespaced=False, has_status=True)
PODS = _core("pods", "Pod", "po", categories=("all",), has_status=True)
SECRETS = _core("secrets", "Secret")
SERVICE_ACCOUNTS = _core("serviceaccounts", "ServiceAccount", "sa")
SERVICES = _core("services", "Service", "svc", categories=("all",), has_status=True)
# A Deployment's generation also moves with its annotations; a ReplicaSet's does not.
DEPLOYMENTS = _workload(
    "deployments", "Deployment", "deploy", generation_from=("spec", "metadata.annotations")
)
REPLICA_SETS = _workload("replicasets", "ReplicaSet", "rs", generation_from=("spec",))
STATEFUL_SETS = _workload("statefulsets", "StatefulSet", "sts", generation_from=("spec",))
# A custom resource of OpenKruise, as its CustomResourceDefinition has it.
CLONE_SETS = Resource(
    group="apps.kruise.io",
    version="v1alpha1",
    plural="clonesets",
    kind="CloneSet",
    short_names=("clone",),
    has_status=True,
    has_scale=True,
    generation_from=("spec",),
)
AUTOSCALERS = Resource(
    group="autoscaling",
    version="v2",
    plural="horizontalpodautoscalers",
    kind="HorizontalPodAutoscaler",
    short_names=("hpa",),
    categories=("all",),
    has_status=True,
)
LEASES = Resource(group="coordination.k8s.io", version="v1", plural="leases", kind="Lease")
WEBHOOK_CONFIGURATIONS = _cluster_wide(
    "admissionregistration.k8s.io",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    categories=("api-extensions",),
    generation_from=("webhooks",),
)
API_SERVICES = _cluster_wide(
    "apiregistration.k8s.io",
    "apiservices",
    "APIService",
    categories=("api-extensions",),
    has_status=True,
)
ROLES = _rbac("roles", "Role")
ROLE_BINDINGS = _rbac("rolebindings", "RoleBinding")
CLUSTER_ROLES = _rbac("clusterroles", "ClusterRole", namespaced=False)
CLUSTER_ROLE_BINDINGS = _rbac("clusterrolebindings", "ClusterRoleBinding", namespaced=False)
SELF_SUBJECT_REVIEWS = _review("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview")
TOKEN_REVIEWS = _review("authentication.k8s.io", "tokenreviews", "TokenReview")
SELF_ACCESS_REVIEWS = _review("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview")
ACCESS_REVIEWS = _review("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview")

RESOURCES = (
    CONFIGMAPS,
    EVENTS,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    DEPLOYMENTS,
    REPLICA_SETS,
    STATEFUL_SETS,
    CLONE_SETS,
    AUTOSCALERS,
    LEASES,
    WEBHOOK_CONFIGURATIONS,
    API_SERVICES,
    ROLES,
    ROLE_BINDINGS,
    CLUSTER_ROLES,
    CLUSTER_ROLE_BINDINGS,
    SELF_SUBJECT_REVIEWS,
    TOKEN_REVIEWS,
    SELF_ACCESS_REVIEWS,
    ACCESS_REVIEWS,
)

BY_PATH = {(r.group, r.version, r.plural): r for r in RESOURCES}
GROUP_VERSIONS = tuple(dict.fromkeys((r.group, r.version) for r in RESOURCES))
