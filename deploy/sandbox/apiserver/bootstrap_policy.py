"""The roles that every cluster brings with it, and OpenKruise's: those that somebody in the sandbox needs.

Rules and names are the real ones, so that what suffices here suffices there.
"""

from collections.abc import Iterator, Sequence

from deploy.sandbox.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ROLES,
    Document,
    Resource,
)

API_GROUP = "rbac.authorization.k8s.io"
AUTHENTICATED = {"kind": "Group", "apiGroup": API_GROUP, "name": "system:authenticated"}
EVERYBODY = [AUTHENTICATED, {"kind": "Group", "apiGroup": API_GROUP, "name": "system:unauthenticated"}]
MASTERS = {"kind": "Group", "apiGroup": API_GROUP, "name": "system:masters"}

INFO = ["/healthz", "/livez", "/readyz", "/version", "/version/"]
DISCOVERY = ["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*", *INFO]


def _rule(groups: str, resources: str, verbs: str, *, names: Sequence[str] = ()) -> Document:
    """From words; `core` is the group without a name."""
    rule: Document = {
        "verbs": verbs.split(),
        "apiGroups": ["" if group == "core" else group for group in groups.split()],
        "resources": resources.split(),
    }
    return rule | ({"resourceNames": list(names)} if names else {})


def _paths(paths: Sequence[str], verbs: str = "get") -> Document:
    return {"verbs": verbs.split(), "nonResourceURLs": list(paths)}


EVENTS = _rule("core events.k8s.io", "events", "create patch update")
OF_EVERY_USER: dict[str, tuple[list[Document], list[Document]]] = {
    "cluster-admin": ([MASTERS], [_rule("*", "*", "*"), _paths(["*"], "*")]),
    "system:discovery": ([AUTHENTICATED], [_paths(DISCOVERY)]),
    "system:public-info-viewer": (EVERYBODY, [_paths(INFO)]),
    "system:basic-user": (
        [AUTHENTICATED],
        [
            _rule("authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews", "create"),
            _rule("authentication.k8s.io", "selfsubjectreviews", "create"),
        ],
    ),
}
"""Subjects and rules by the name of role and binding."""
OF_CONTROLLERS = {
    "deployment-controller": [
        _rule("apps extensions", "deployments", "get list update watch"),
        _rule("apps extensions", "deployments/status", "update"),
        _rule("apps extensions", "deployments/finalizers", "update"),
        _rule("apps extensions", "replicasets", "create delete get list patch update watch"),
        _rule("core", "pods", "get list update watch"),
        EVENTS,
    ],
    "replicaset-controller": [
        _rule("apps extensions", "replicasets", "get list update watch"),
        _rule("apps extensions", "replicasets/status", "update"),
        _rule("apps extensions", "replicasets/finalizers", "update"),
        _rule("core", "pods", "create delete get list patch watch"),
        EVENTS,
    ],
    "statefulset-controller": [
        _rule("core", "pods", "list watch"),
        _rule("apps", "statefulsets", "get list watch"),
        _rule("apps", "statefulsets/status", "update"),
        _rule("apps", "statefulsets/finalizers", "update"),
        _rule("core", "pods", "create delete get patch update"),
        _rule("apps", "controllerrevisions", "create delete get list patch update watch"),
        _rule("core", "persistentvolumeclaims", "create get"),
        EVENTS,
    ],
    "horizontal-pod-autoscaler": [
        _rule("autoscaling", "horizontalpodautoscalers", "get list watch"),
        _rule("autoscaling", "horizontalpodautoscalers/status", "update"),
        _rule("*", "*/scale", "get update"),
        _rule("core", "pods", "list watch"),
        _rule("metrics.k8s.io", "pods", "list watch"),
        _rule("custom.metrics.k8s.io", "*", "get list watch"),
        _rule("external.metrics.k8s.io", "*", "get list watch"),
        EVENTS,
    ],
}
"""Rules by the name of the service account in kube-system."""
AUTH_DELEGATOR = [
    _rule("authentication.k8s.io", "tokenreviews", "create"),
    _rule("authorization.k8s.io", "subjectaccessreviews", "create"),
]
AUTHENTICATION_READER = _rule(
    "core", "configmaps", "get list watch", names=["extension-apiserver-authentication"]
)
KRUISE = [
    _rule("apps.kruise.io", "clonesets", "create delete get list patch update watch"),
    _rule("apps.kruise.io", "clonesets/status", "get patch update"),
    _rule("core", "pods", "create delete get list patch update watch"),
    _rule("core", "events", "create delete get list patch update watch"),
]


def bootstrap_policy() -> Iterator[tuple[Resource, str, Document]]:
    """Resource, namespace and document of each."""
    for name, (subjects, rules) in OF_EVERY_USER.items():
        yield from _bound(name, rules, subjects)
    for account, rules in OF_CONTROLLERS.items():
        yield from _bound(f"system:controller:{account}", rules, [_account("kube-system", account)])
    yield from _bound("kruise-manager-role", KRUISE, [_account("kruise-system", "kruise-manager")])
    yield CLUSTER_ROLES, "", _role("system:auth-delegator", AUTH_DELEGATOR)
    yield ROLES, "kube-system", _role("extension-apiserver-authentication-reader", [AUTHENTICATION_READER])


def _bound(
    name: str, rules: list[Document], subjects: list[Document]
) -> Iterator[tuple[Resource, str, Document]]:
    yield CLUSTER_ROLES, "", _role(name, rules)
    reference = {"apiGroup": API_GROUP, "kind": CLUSTER_ROLES.kind, "name": name}
    yield (
        CLUSTER_ROLE_BINDINGS,
        "",
        {"metadata": {"name": name}, "roleRef": reference, "subjects": subjects},
    )


def _role(name: str, rules: list[Document]) -> Document:
    return {"metadata": {"name": name}, "rules": rules}


def _account(namespace: str, name: str) -> Document:
    return {"kind": "ServiceAccount", "name": name, "namespace": namespace}
