"""What the API server fills in when an object is written: only the defaults that somebody here reads."""

from deploy.sandbox.resources import (
    AUTOSCALERS,
    CLONE_SETS,
    DEPLOYMENTS,
    NAMESPACES,
    PODS,
    REPLICA_SETS,
    STATEFUL_SETS,
    WEBHOOK_CONFIGURATIONS,
    Document,
    Resource,
)

CONTAINER = {
    "resources": {},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "imagePullPolicy": "IfNotPresent",
}
POD_SPEC = {
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "securityContext": {},
    "schedulerName": "default-scheduler",
}
DEPLOYMENT_SPEC = {"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600}
STATEFUL_SET_SPEC = {"replicas": 1, "podManagementPolicy": "OrderedReady", "revisionHistoryLimit": 10}
WEBHOOK = {
    "failurePolicy": "Fail",
    "matchPolicy": "Equivalent",
    "namespaceSelector": {},
    "objectSelector": {},
    "timeoutSeconds": 10,
}
SCALE_UP_POLICIES = [
    {"type": "Pods", "value": 4, "periodSeconds": 15},
    {"type": "Percent", "value": 100, "periodSeconds": 15},
]
SCALE_DOWN_POLICIES = [{"type": "Percent", "value": 100, "periodSeconds": 15}]


def with_defaults(resource: Resource, document: Document) -> Document:
    """The document with what was left out filled in."""
    fill = FILLERS.get(resource)
    return document if fill is None else fill(document)


def _pod_spec(spec: Document) -> Document:
    containers = [CONTAINER | container for container in spec.get("containers") or []]
    return POD_SPEC | spec | {"containers": containers}


def _pod(document: Document) -> Document:
    return document | {"spec": _pod_spec(document.get("spec") or {})}


def _template(spec: Document) -> Document:
    template = spec.get("template") or {}
    return {"template": {"metadata": {}} | template | {"spec": _pod_spec(template.get("spec") or {})}}


def _deployment(document: Document) -> Document:
    spec = document.get("spec") or {}
    strategy = {"type": "RollingUpdate"} | (spec.get("strategy") or {})
    if strategy["type"] == "RollingUpdate":
        rolling = {"maxUnavailable": "25%", "maxSurge": "25%"} | (strategy.get("rollingUpdate") or {})
        strategy = strategy | {"rollingUpdate": rolling}
    return document | {"spec": DEPLOYMENT_SPEC | spec | _template(spec) | {"strategy": strategy}}


def _replica_set(document: Document) -> Document:
    spec = document.get("spec") or {}
    return document | {"spec": {"replicas": 1} | spec | _template(spec)}


def _stateful_set(document: Document) -> Document:
    spec = document.get("spec") or {}
    strategy = {"type": "RollingUpdate"} | (spec.get("updateStrategy") or {})
    if strategy["type"] == "RollingUpdate":
        strategy = strategy | {"rollingUpdate": {"partition": 0} | (strategy.get("rollingUpdate") or {})}
    return document | {"spec": STATEFUL_SET_SPEC | spec | _template(spec) | {"updateStrategy": strategy}}


def _clone_set(document: Document) -> Document:
    """What OpenKruise's own webhook fills in."""
    spec = document.get("spec") or {}
    strategy = {"type": "ReCreate", "maxUnavailable": "20%"} | (spec.get("updateStrategy") or {})
    return document | {"spec": {"replicas": 1} | spec | _template(spec) | {"updateStrategy": strategy}}


def _autoscaler(document: Document) -> Document:
    spec = {"minReplicas": 1} | (document.get("spec") or {})
    behavior = spec.get("behavior")
    if behavior:
        up = {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": SCALE_UP_POLICIES}
        down = {"selectPolicy": "Max", "policies": SCALE_DOWN_POLICIES}
        filled = {
            "scaleUp": up | (behavior.get("scaleUp") or {}),
            "scaleDown": down | (behavior.get("scaleDown") or {}),
        }
        spec = spec | {"behavior": filled}
    return document | {"spec": spec}


def _namespace(document: Document) -> Document:
    metadata = document["metadata"]
    labels = {"kubernetes.io/metadata.name": metadata["name"]} | (metadata.get("labels") or {})
    return document | {"metadata": metadata | {"labels": labels}, "spec": {"finalizers": ["kubernetes"]}}


def _webhook_configuration(document: Document) -> Document:
    webhooks = [_webhook(webhook) for webhook in document.get("webhooks") or []]
    return document | {"webhooks": webhooks}


def _webhook(webhook: Document) -> Document:
    rules = [{"scope": "*"} | rule for rule in webhook.get("rules") or []]
    client = webhook.get("clientConfig") or {}
    if "service" in client:
        client = client | {"service": {"port": 443} | client["service"]}
    return WEBHOOK | webhook | {"rules": rules, "clientConfig": client}


FILLERS = {
    AUTOSCALERS: _autoscaler,
    CLONE_SETS: _clone_set,
    DEPLOYMENTS: _deployment,
    NAMESPACES: _namespace,
    PODS: _pod,
    REPLICA_SETS: _replica_set,
    STATEFUL_SETS: _stateful_set,
    WEBHOOK_CONFIGURATIONS: _webhook_configuration,
}

INITIAL_STATUS: dict[Resource, Document] = {
    NAMESPACES: {"phase": "Active"},
    PODS: {"phase": "Pending", "qosClass": "BestEffort"},
}
