"""The columns that `kubectl get` shows for each kind, as the real server computes them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from deploy.sandbox.apiserver.ages import age
from deploy.sandbox.resources import (
    API_SERVICES,
    AUTOSCALERS,
    CLONE_SETS,
    CONFIGMAPS,
    DEPLOYMENTS,
    EVENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
    WEBHOOK_CONFIGURATIONS,
    Document,
    Resource,
)
from shared.pods import selector_text

Cell = Callable[[Document, datetime], Any]

NONE = "<none>"
UNKNOWN = "<unknown>"
TARGETS_SHOWN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table; `wide` ones are shown with `-o wide`."""

    name: str
    cell: Cell
    type: str = "string"
    wide: bool = False


def columns_of(resource: Resource) -> list[Column]:
    """What is printed of a kind: at least its name and age."""
    special = COLUMNS.get(resource, [])
    name = Column(name="Name", cell=lambda document, _: document["metadata"]["name"])
    if resource is EVENTS:
        return [*special, Column(name="Name", cell=name.cell, wide=True)]
    narrow = [column for column in special if not column.wide]
    wide = [column for column in special if column.wide]
    if resource is NODES:
        return [name, *narrow[:-1], AGE, narrow[-1]]
    return [name, *narrow, AGE, *wide]


def _at(*path: str, default: Any = "") -> Cell:
    def cell(document: Document, _: datetime) -> Any:
        value: Any = document
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        return default if value is None else value

    return cell


def _age_of(*path: str) -> Cell:
    return lambda document, now: age(_at(*path)(document, now), now)


def _column(name: str, *path: str, default: Any = "", wide: bool = False) -> Column:
    return Column(name=name, cell=_at(*path, default=default), wide=wide)


def _count(name: str, *path: str) -> Column:
    return Column(name=name, cell=_at(*path, default=0), type="integer")


AGE = Column(name="Age", cell=_age_of("metadata", "creationTimestamp"))


def _ready_of_workload(document: Document, _: datetime) -> str:
    return f"{(document.get('status') or {}).get('readyReplicas', 0)}/{document['spec']['replicas']}"


def _joined(field: str) -> Cell:
    return lambda document, _: ",".join(
        container.get(field, "") for container in document["spec"]["template"]["spec"]["containers"]
    )


def _selector(document: Document, _: datetime) -> str:
    return selector_text(document["spec"].get("selector") or {}) or NONE


def _statuses(pod: Document) -> list[Document]:
    return (pod.get("status") or {}).get("containerStatuses") or []


def _ready_of_pod(pod: Document, _: datetime) -> str:
    ready = sum(
        1 for status in _statuses(pod) if status.get("ready") and "running" in status.get("state", {})
    )
    return f"{ready}/{len(pod['spec']['containers'])}"


def _status_of_pod(pod: Document, _: datetime) -> str:
    status = pod.get("status") or {}
    phase = status.get("phase", "")
    if "deletionTimestamp" in pod["metadata"] and phase not in ("Succeeded", "Failed"):
        return "Terminating"
    reason = next(filter(None, map(_trouble, _statuses(pod))), None)
    return reason or status.get("reason") or phase


def _trouble(container: Document) -> str:
    state = container.get("state") or {}
    if ended := state.get("terminated"):
        return str(ended.get("reason") or f"ExitCode:{ended.get('exitCode', 0)}")
    return str((state.get("waiting") or {}).get("reason", ""))


def _restarts(pod: Document, now: datetime) -> str:
    restarts = sum(status.get("restartCount", 0) for status in _statuses(pod))
    ends = [
        ((status.get("lastState") or {}).get("terminated") or {}).get("finishedAt")
        for status in _statuses(pod)
    ]
    latest = max(filter(None, ends), default=None)
    return f"{restarts} ({age(latest, now)} ago)" if restarts and latest else str(restarts)


def _reference(autoscaler: Document, _: datetime) -> str:
    target = autoscaler["spec"]["scaleTargetRef"]
    return f"{target['kind']}/{target['name']}"


def _targets(autoscaler: Document, _: datetime) -> str:
    specs = autoscaler["spec"].get("metrics") or []
    if not specs:
        return NONE
    statuses = (autoscaler.get("status") or {}).get("currentMetrics") or []
    shown = [
        _target(spec, statuses[index] if index < len(statuses) else {})
        for index, spec in enumerate(specs[:TARGETS_SHOWN])
    ]
    more = f" + {len(specs) - TARGETS_SHOWN} more..." if len(specs) > TARGETS_SHOWN else ""
    return ", ".join(shown) + more


def _target(spec: Document, status: Document) -> str:
    source = spec["type"][:1].lower() + spec["type"][1:]
    wanted = (spec.get(source) or {}).get("target") or {}
    current = (status.get(source) or {}).get("current") or {}
    if "averageValue" in wanted:
        return f"{current.get('averageValue', UNKNOWN)}/{wanted['averageValue']} (avg)"
    return f"{current.get('value', '0') if status.get(source) else UNKNOWN}/{wanted.get('value', UNKNOWN)}"


def _involved(event: Document, _: datetime) -> str:
    involved = event.get("involvedObject") or {}
    return "/".join(filter(None, (involved.get("kind", "").lower(), involved.get("name"))))


def _source(event: Document, _: datetime) -> str:
    source = event.get("source") or {}
    component = source.get("component") or event.get("reportingComponent", "")
    host = source.get("host") or event.get("reportingInstance", "")
    return f"{component}, {host}" if host else component


def _last_seen(event: Document, now: datetime) -> str:
    return age(event.get("lastTimestamp") or event.get("firstTimestamp") or event.get("eventTime"), now)


def _first_seen(event: Document, now: datetime) -> str:
    return age(event.get("firstTimestamp") or event.get("eventTime"), now)


def _message(event: Document, _: datetime) -> str:
    return str(event.get("message", "")).strip()


def _status_of_node(node: Document, _: datetime) -> str:
    conditions = (node.get("status") or {}).get("conditions") or ()
    ready = next((c["status"] for c in conditions if c["type"] == "Ready"), None)
    return {"True": "Ready", None: "Unknown"}.get(ready, "NotReady")


def _roles(node: Document, _: datetime) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = node["metadata"].get("labels") or {}
    return ",".join(sorted(key.removeprefix(prefix) for key in labels if key.startswith(prefix))) or NONE


def _entries(field: str) -> Cell:
    return lambda document, _: len(document.get(field) or ())


def _ports(service: Document, _: datetime) -> str:
    ports = service["spec"].get("ports") or []
    return ",".join(f"{port['port']}/{port.get('protocol', 'TCP')}" for port in ports) or NONE


def _backend(service: Document, _: datetime) -> str:
    reference = service["spec"].get("service")
    return f"{reference['namespace']}/{reference['name']}" if reference else "Local"


def _available(service: Document, _: datetime) -> str:
    conditions = (service.get("status") or {}).get("conditions") or ()
    found = next((c for c in conditions if c["type"] == "Available"), None)
    if found is None:
        return "Unknown"
    return "True" if found["status"] == "True" else f"{found['status']} ({found['reason']})"


def _workload_details() -> Iterator[Column]:
    yield Column(name="Containers", cell=_joined("name"), wide=True)
    yield Column(name="Images", cell=_joined("image"), wide=True)
    yield Column(name="Selector", cell=_selector, wide=True)


COLUMNS: dict[Resource, list[Column]] = {
    API_SERVICES: [Column(name="Service", cell=_backend), Column(name="Available", cell=_available)],
    AUTOSCALERS: [
        Column(name="Reference", cell=_reference),
        Column(name="Targets", cell=_targets),
        _column("MinPods", "spec", "minReplicas", default="<unset>"),
        _column("MaxPods", "spec", "maxReplicas"),
        _column("Replicas", "status", "currentReplicas", default=0),
    ],
    CLONE_SETS: [
        _column("Desired", "spec", "replicas", default=0),
        _column("Updated", "status", "updatedReplicas", default=0),
        _column("Updated_Ready", "status", "updatedReadyReplicas", default=0),
        _column("Ready", "status", "readyReplicas", default=0),
        _column("Total", "status", "replicas", default=0),
    ],
    CONFIGMAPS: [Column(name="Data", cell=_entries("data"))],
    DEPLOYMENTS: [
        Column(name="Ready", cell=_ready_of_workload),
        _column("Up-to-date", "status", "updatedReplicas", default=0),
        _column("Available", "status", "availableReplicas", default=0),
        *_workload_details(),
    ],
    EVENTS: [
        Column(name="Last Seen", cell=_last_seen),
        _column("Type", "type"),
        _column("Reason", "reason"),
        Column(name="Object", cell=_involved),
        _column("Subobject", "involvedObject", "fieldPath", wide=True),
        Column(name="Source", cell=_source, wide=True),
        Column(name="Message", cell=_message),
        Column(name="First Seen", cell=_first_seen, wide=True),
        _column("Count", "count", default=1, wide=True),
    ],
    LEASES: [_column("Holder", "spec", "holderIdentity")],
    NAMESPACES: [_column("Status", "status", "phase")],
    NODES: [
        Column(name="Status", cell=_status_of_node),
        Column(name="Roles", cell=_roles),
        _column("Version", "status", "nodeInfo", "kubeletVersion"),
    ],
    PODS: [
        Column(name="Ready", cell=_ready_of_pod),
        Column(name="Status", cell=_status_of_pod),
        Column(name="Restarts", cell=_restarts),
        _column("IP", "status", "podIP", default=NONE, wide=True),
        _column("Node", "spec", "nodeName", default=NONE, wide=True),
        _column("Nominated Node", "status", "nominatedNodeName", default=NONE, wide=True),
        Column(name="Readiness Gates", cell=lambda *_: NONE, wide=True),
    ],
    REPLICA_SETS: [
        _count("Desired", "spec", "replicas"),
        _count("Current", "status", "replicas"),
        _count("Ready", "status", "readyReplicas"),
        *_workload_details(),
    ],
    SECRETS: [_column("Type", "type"), Column(name="Data", cell=_entries("data"))],
    SERVICES: [
        _column("Type", "spec", "type", default="ClusterIP"),
        _column("Cluster-IP", "spec", "clusterIP", default=NONE),
        _column("External-IP", "spec", "externalName", default=NONE),
        Column(name="Port(s)", cell=_ports),
    ],
    STATEFUL_SETS: [
        Column(name="Ready", cell=_ready_of_workload),
        Column(name="Containers", cell=_joined("name"), wide=True),
        Column(name="Images", cell=_joined("image"), wide=True),
    ],
    WEBHOOK_CONFIGURATIONS: [Column(name="Webhooks", cell=_entries("webhooks"), type="integer")],
}
