"""What `kubectl get` shows, computed from literals."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deploy.sandbox import resources
from deploy.sandbox.apiserver.ages import human_duration
from deploy.sandbox.apiserver.tables import table, wants_table
from deploy.sandbox.resources import RESOURCES, Document, Resource

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
METADATA = {"name": "w", "namespace": "n", "creationTimestamp": "2026-11-24T11:55:00Z"}
TEMPLATE = {"spec": {"containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "j"}]}}


def row(resource: Resource, document: Document, *, wide: bool = False) -> dict[str, Any]:
    """The cells of an object by the names of their columns."""
    shown = table(
        resource,
        [{"metadata": METADATA} | document],
        resource_version="1",
        include_object="Metadata",
        now=NOW,
    )
    columns = shown["columnDefinitions"]
    cells = zip(columns, shown["rows"][0]["cells"], strict=True)
    return {column["name"].upper(): cell for column, cell in cells if wide or not column["priority"]}


def test_a_deployment_shows_ready_by_desired() -> None:
    """NAME READY UP-TO-DATE AVAILABLE AGE, and containers, images and selector when wide."""
    spec = {"replicas": 3, "selector": {"matchLabels": {"app": "w"}}, "template": TEMPLATE}
    shown = row(resources.DEPLOYMENTS, {"spec": spec, "status": {"readyReplicas": 2}}, wide=True)
    assert list(shown.items()) == [
        ("NAME", "w"),
        ("READY", "2/3"),
        ("UP-TO-DATE", 0),
        ("AVAILABLE", 0),
        ("AGE", "5m"),
        ("CONTAINERS", "c,d"),
        ("IMAGES", "i:1,j"),
        ("SELECTOR", "app=w"),
    ]


def external(name: str, target: dict[str, str], current: dict[str, str] | None = None) -> Document:
    described: Document = {"metric": {"name": name}, "target": target}
    source = described if current is None else {"metric": {"name": name}, "current": current}
    return {"type": "External", "external": source}


@pytest.mark.parametrize(
    ("metrics", "statuses", "targets"),
    [
        ([], [], "<none>"),
        ([{"type": "Value", "value": "800m"}], [], "<unknown>/800m"),
        ([{"type": "Value", "value": "800m"}], [{"value": "1250m"}], "1250m/800m"),
        ([{"type": "AverageValue", "averageValue": "5"}], [{"averageValue": "2"}], "2/5 (avg)"),
        ([{"type": "AverageValue", "averageValue": "5"}], [], "<unknown>/5 (avg)"),
        ([{"value": "1"}] * 4, [{"value": "2"}] * 4, "2/1, 2/1 + 2 more..."),
    ],
)
def test_an_autoscaler_shows_current_by_target(
    metrics: list[dict[str, str]], statuses: list[dict[str, str]], targets: str
) -> None:
    """External metrics in the real printer's form, two at most."""
    spec = {
        "scaleTargetRef": {"kind": "Deployment", "name": "w"},
        "minReplicas": 1,
        "maxReplicas": 8,
        "metrics": [external("m", target) for target in metrics],
    }
    status = {"currentReplicas": 4, "currentMetrics": [external("m", {}, current) for current in statuses]}
    shown = row(resources.AUTOSCALERS, {"spec": spec, "status": status})
    assert list(shown) == ["NAME", "REFERENCE", "TARGETS", "MINPODS", "MAXPODS", "REPLICAS", "AGE"]
    assert list(shown.values()) == ["w", "Deployment/w", targets, 1, 8, 4, "5m"]


RUNNING = {"ready": True, "restartCount": 0, "state": {"running": {}}}
WAITING = {"ready": False, "restartCount": 0, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
RESTARTED = RUNNING | {
    "restartCount": 2,
    "lastState": {"terminated": {"finishedAt": "2026-11-24T11:59:00Z"}},
}


@pytest.mark.parametrize(
    ("status", "metadata", "expected"),
    [
        ({"phase": "Pending"}, {}, ("0/1", "Pending", "0")),
        ({"phase": "Running", "containerStatuses": [RUNNING]}, {}, ("1/1", "Running", "0")),
        ({"phase": "Running", "containerStatuses": [WAITING]}, {}, ("0/1", "CrashLoopBackOff", "0")),
        ({"phase": "Running", "containerStatuses": [RESTARTED]}, {}, ("1/1", "Running", "2 (60s ago)")),
        (
            {"phase": "Running", "containerStatuses": [RUNNING]},
            {"deletionTimestamp": "2026-11-24T12:00:00Z"},
            ("1/1", "Terminating", "0"),
        ),
    ],
)
def test_a_pod_shows_what_troubles_it(status: Document, metadata: Document, expected: Any) -> None:
    """Ready containers, the most telling reason, and restarts with the latest."""
    spec = {"containers": [{"name": "c"}]}
    shown = row(resources.PODS, {"metadata": METADATA | metadata, "spec": spec, "status": status})
    assert (shown["READY"], shown["STATUS"], shown["RESTARTS"]) == expected


def test_an_event_shows_its_object_and_when_it_was_last_seen() -> None:
    """The name comes last, and only when wide."""
    event = {
        "involvedObject": {"kind": "Deployment", "name": "w"},
        "lastTimestamp": "2026-11-24T11:59:30Z",
        "type": "Normal",
        "reason": "ScalingReplicaSet",
        "message": "Scaled up\n",
        "source": {"component": "deployment-controller"},
        "count": 2,
    }
    shown = row(resources.EVENTS, event)
    assert list(shown.values()) == ["30s", "Normal", "ScalingReplicaSet", "deployment/w", "Scaled up"]
    wide = row(resources.EVENTS, event, wide=True)
    assert list(wide)[-1] == "NAME"
    assert (wide["SOURCE"], wide["COUNT"]) == ("deployment-controller", 2)


def test_an_api_service_says_why_it_is_away() -> None:
    """The reason stands behind False."""
    spec = {"service": {"namespace": "n", "name": "adapter"}}
    away = {"type": "Available", "status": "False", "reason": "FailedDiscoveryCheck"}
    shown = row(resources.API_SERVICES, {"spec": spec, "status": {"conditions": [away]}})
    assert list(shown.values()) == ["w", "n/adapter", "False (FailedDiscoveryCheck)", "5m"]


@pytest.mark.parametrize(
    ("resource", "document", "cells"),
    [
        (resources.LEASES, {"spec": {"holderIdentity": "me"}}, ["w", "me", "5m"]),
        (resources.NAMESPACES, {"status": {"phase": "Active"}}, ["w", "Active", "5m"]),
        (resources.CONFIGMAPS, {"data": {"a": "", "b": ""}}, ["w", 2, "5m"]),
        (resources.SECRETS, {"type": "Opaque", "data": {"a": ""}}, ["w", "Opaque", 1, "5m"]),
        (resources.REPLICA_SETS, {"spec": {"replicas": 2, "template": TEMPLATE}}, ["w", 2, 0, 0, "5m"]),
        (
            resources.STATEFUL_SETS,
            {"spec": {"replicas": 2, "template": TEMPLATE}, "status": {"readyReplicas": 1}},
            ["w", "1/2", "5m"],
        ),
        (
            resources.CLONE_SETS,
            {"spec": {"replicas": 3}, "status": {"updatedReplicas": 2, "readyReplicas": 1, "replicas": 3}},
            ["w", 3, 2, 0, 1, 3, "5m"],
        ),
        (resources.WEBHOOK_CONFIGURATIONS, {"webhooks": [{}]}, ["w", 1, "5m"]),
        (resources.SERVICE_ACCOUNTS, {}, ["w", "5m"]),
        (
            resources.NODES,
            {
                "status": {
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "nodeInfo": {"kubeletVersion": "v1"},
                }
            },
            ["w", "Ready", "<none>", "5m", "v1"],
        ),
        (
            resources.SERVICES,
            {"spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": 443}]}},
            ["w", "ExternalName", "<none>", "localhost", "443/TCP", "5m"],
        ),
    ],
)
def test_every_other_kind_shows_its_columns(resource: Resource, document: Document, cells: list[Any]) -> None:
    """In the real order."""
    assert list(row(resource, document).values()) == cells


def test_every_kind_that_is_stored_has_a_name_and_an_age_or_a_last_sight() -> None:
    """So that `kubectl get` of any of them shows something."""
    for resource in RESOURCES:
        empty = table(resource, [], resource_version="1", include_object="None", now=NOW)
        names = {column["name"] for column in empty["columnDefinitions"]}
        assert "Name" in names
        assert names & {"Age", "Last Seen"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (660, "11m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 1800, "3h30m"),
        (9 * 3600, "9h"),
        (2 * 86400 + 3600, "2d1h"),
        (9 * 86400, "9d"),
    ],
)
def test_ages_lose_detail_as_they_grow(seconds: int, text: str) -> None:
    """Two units at most."""
    assert human_duration(timedelta(seconds=seconds)) == text


def test_a_table_is_shown_to_who_asks_for_this_version() -> None:
    """kubectl offers several forms in one header."""
    assert wants_table("application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
    assert not wants_table("application/json;as=Table;v=v1beta1;g=meta.k8s.io")
    assert not wants_table("application/json")
