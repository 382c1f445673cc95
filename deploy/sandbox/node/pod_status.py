"""The status of a pod as the kubelet reports it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from deploy.sandbox.resources import Document


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerReport:
    """What one container is doing. Times are RFC 3339 texts."""

    name: str
    image: str = ""
    state: Literal["waiting", "running", "terminated"] = "waiting"
    reason: str = "ContainerCreating"
    is_ready: bool = False
    restarts: int = 0
    started_at: str = ""
    finished_at: str = ""
    exit_code: int = 0
    has_ended_for_good: bool = False


def pod_status(
    containers: Sequence[ContainerReport], *, before: Document, ip: str, started_at: str, now: str
) -> Document:
    """Phase, conditions and container statuses; a condition's time changes with its status only."""
    phase = _phase(containers, str(before.get("phase", "Pending")))
    all_ready = phase == "Running" and all(one.is_ready for one in containers)
    states = {
        "PodScheduled": True,
        "Initialized": True,
        "ContainersReady": all_ready,
        "Ready": all_ready,
    }
    return {
        "phase": phase,
        "hostIP": "127.0.0.1",
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "startTime": started_at,
        "conditions": _conditions(states, before.get("conditions") or [], now),
        "containerStatuses": [_container_status(one) for one in containers],
    }


def _phase(containers: Sequence[ContainerReport], before: str) -> str:
    if containers and all(one.has_ended_for_good for one in containers):
        return "Succeeded" if all(one.exit_code == 0 for one in containers) else "Failed"
    has_begun = all(one.started_at for one in containers)
    return "Running" if has_begun or before == "Running" else "Pending"


def _conditions(states: dict[str, bool], before: Sequence[Document], now: str) -> list[Document]:
    old = {one["type"]: one for one in before}
    conditions = []
    for kind, is_true in states.items():
        condition: Document = {"type": kind, "status": str(is_true), "lastTransitionTime": now}
        if kind in old and old[kind]["status"] == condition["status"]:
            condition["lastTransitionTime"] = old[kind]["lastTransitionTime"]
        if not is_true:
            condition |= {"reason": "ContainersNotReady", "message": "containers are not ready"}
        conditions.append(condition)
    return conditions


def _container_status(one: ContainerReport) -> Document:
    return {
        "name": one.name,
        "image": one.image,
        "imageID": "",
        "ready": one.is_ready,
        "started": one.state == "running",
        "restartCount": one.restarts,
        "state": _state(one),
    }


def _state(one: ContainerReport) -> Document:
    if one.state == "running":
        return {"running": {"startedAt": one.started_at}}
    if one.state == "waiting":
        return {"waiting": {"reason": one.reason}}
    return {
        "terminated": {
            "exitCode": one.exit_code,
            "reason": "Completed" if one.exit_code == 0 else "Error",
            "startedAt": one.started_at,
            "finishedAt": one.finished_at,
        }
    }
