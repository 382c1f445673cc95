"""The objects of the demo and the scenarios, as a user would write them in YAML. Pure."""

from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import Collection
from typing import Any

from deploy.sandbox.resources import CLONE_SETS, DEPLOYMENTS, STATEFUL_SETS, Resource

Document = dict[str, Any]

WORKLOADS = {resource.kind: resource for resource in (DEPLOYMENTS, STATEFUL_SETS, CLONE_SETS)}

NAMESPACE = "default"
SYSTEM_NAMESPACE = "celery-hpa"
ADAPTER_SERVICE, HOOK_SERVICE = "metrics-adapter", "drain-hook"
PROTECTED_TASKS = "billing.*"

DECREASE = "object.spec.?replicas.orValue(0) < oldObject.spec.?replicas.orValue(0)"
"""Lets only scale-downs through; replicas is left out of a Scale when it is 0."""
UPDATE_DECREASE = DECREASE.replace("orValue(0)", "orValue(1)")
"""The same for whole Deployments, which have 1 replica where none are named."""


def worker_command(*, slots: int, queues: tuple[str, ...], pool: str = "prefork") -> list[str]:
    """The command line of a worker pod; `$(POD_NAME)` is expanded by the kubelet."""
    return [
        *(sys.executable, "-m", "celery", "--app", "deploy.sandbox.tasks", "worker"),
        *("--hostname", "celery@$(POD_NAME)", "--concurrency", str(slots), "--pool", pool),
        *("--queues", ",".join(queues), "--loglevel", "INFO", "--without-gossip", "--without-mingle"),
    ]


def worker_deployment(
    *,
    name: str,
    replicas: int,
    command: list[str],
    environment: dict[str, str],
    grace_seconds: int,
    namespace: str = NAMESPACE,
) -> Document:
    """A Deployment of Celery workers."""
    labels = {"app": name}
    env: list[Document] = [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    env += [{"name": key, "value": value} for key, value in environment.items()]
    container = {"name": "worker", "image": "celery-worker", "command": command, "env": env}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": grace_seconds, "containers": [container]},
            },
        },
    }


def of_kind(kind: str, deployment: Document) -> Document:
    """The workers of a Deployment as a workload of another kind."""
    resource = WORKLOADS[kind]
    spec = deployment["spec"] | ({"serviceName": ""} if resource is STATEFUL_SETS else {})
    return deployment | {"apiVersion": resource.api_version, "kind": kind, "spec": spec}


def autoscaler(
    *, name: str, pool: str, max_replicas: int, behavior: Document, namespace: str = NAMESPACE
) -> Document:
    """A stock HPA on celery_load_factor, as the README shows it."""
    metric = {"name": "celery_load_factor", "selector": {"matchLabels": {"pool": pool}}}
    target = {"type": "Value", "value": "800m"}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": 1,
            "maxReplicas": max_replicas,
            "metrics": [{"type": "External", "external": {"metric": metric, "target": target}}],
            "behavior": behavior,
        },
    }


def external_name_service(name: str) -> Document:
    """A Service for a server on this machine: the port is named by whoever refers to it."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": SYSTEM_NAMESPACE},
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": 443}]},
    }


def api_service(*, port: int, ca_pem: bytes) -> Document:
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
        "spec": {
            "group": "external.metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "caBundle": b64encode(ca_pem).decode(),
            "service": {"namespace": SYSTEM_NAMESPACE, "name": ADAPTER_SERVICE, "port": port},
        },
    }


def webhook_configuration(
    *,
    port: int,
    ca_pem: bytes,
    timeout_seconds: int = 10,
    failure_policy: str = "Fail",
    with_updates: bool = False,
    kinds: Collection[str] = (),
) -> Document:
    """`with_updates` also asks the hook about updates of whole Deployments: kubectl apply, Helm, …

    `kinds` are those of workloads whose scales it is asked about beside Deployments.
    """
    service = {"namespace": SYSTEM_NAMESPACE, "name": HOOK_SERVICE, "port": port}
    ca = b64encode(ca_pem).decode()

    def webhook(name: str, condition: str, *rules: Document) -> Document:
        full_name = f"{name}.drain.celery-hpa.io"
        return {
            "name": full_name,
            "clientConfig": {"caBundle": ca, "service": {**service, "path": f"/validate/{full_name}"}},
            "rules": list(rules),
            "matchConditions": [{"name": "decrease", "expression": condition}],
            "failurePolicy": failure_policy,
            "sideEffects": "NoneOnDryRun",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": timeout_seconds,
        }

    rules = [_rule(WORKLOADS[kind], "scale") for kind in ("Deployment", *sorted(kinds))]
    updates = [webhook("update", UPDATE_DECREASE, _rule(DEPLOYMENTS))] if with_updates else []
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "celery-hpa-drain"},
        "webhooks": [webhook("scale", DECREASE, *rules), *updates],
    }


def _rule(resource: Resource, subresource: str = "") -> Document:
    return {
        "apiGroups": [resource.group],
        "apiVersions": [resource.version],
        "operations": ["UPDATE"],
        "resources": [f"{resource.plural}/{subresource}" if subresource else resource.plural],
        "scope": "Namespaced",
    }


def pool(
    *,
    name: str,
    workload: str,
    broker_url: str,
    slots: int,
    queues: tuple[str, ...],
    namespace: str = NAMESPACE,
    kind: str = "Deployment",
    drain: Document | None = None,
) -> Document:
    """A pool of the configuration file that protects PROTECTED_TASKS."""
    return {
        "name": name,
        "namespace": namespace,
        "workload": {"kind": kind, "name": workload},
        "queues": list(queues),
        "slotsPerWorker": slots,
        "broker": {"url": broker_url},
        "labels": [{"task": PROTECTED_TASKS, "protect": True}],
        "drain": drain or {},
    }


def configuration(*pools: Document) -> Document:
    """The file that both services read, impatient as a sandbox should be."""
    return {"refresh": "1s", "maxAge": "30s", "roundTtl": "20s", "pools": list(pools)}
