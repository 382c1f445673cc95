"""What the API says of itself: discovery, legacy and aggregated, and OpenAPI, all known in advance. Pure.

Discovery also names what a delegate brings: those documents are made when its names change, not when somebody
asks for them.

The lists are never empty: an API group without resources makes every kubectl and helm of the cluster print
an error, and one whose aggregated discovery is empty is published as having none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metrics_adapter.catalogue import METRICS, Metric
from metrics_adapter.external_metrics import GROUP, GROUP_VERSION, KIND, VERSION

JSON = "application/json"
DISCOVERY_GROUP = "apidiscovery.k8s.io"
DISCOVERY_VERSIONS = ("v2", "v2beta1")
GROUP_PATH = f"/apis/{GROUP}"
VERSION_PATH = f"{GROUP_PATH}/{VERSION}"
OPENAPI_V3_PATH = f"/openapi/v3{VERSION_PATH}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A reply that is known before anybody asks."""

    body: bytes
    etag: str
    content_type: str = JSON


def json_bytes(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def document(content: Mapping[str, Any], *, content_type: str = JSON) -> Document:
    body = json_bytes(content)
    return Document(body=body, etag=f'"{hashlib.sha256(body).hexdigest()[:32]}"', content_type=content_type)


def api_resource_list(metrics: Iterable[str]) -> dict[str, Any]:
    """`get` alone: with `list` or `delete` the garbage collector and the namespace controller come here."""
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": GROUP_VERSION,
        "resources": [
            {"name": metric, "singularName": "", "namespaced": True, "kind": KIND, "verbs": ["get"]}
            for metric in metrics
        ],
    }


_THIS_VERSION = {"groupVersion": GROUP_VERSION, "version": VERSION}
_GROUP: dict[str, Any] = {"name": GROUP, "versions": [_THIS_VERSION], "preferredVersion": _THIS_VERSION}


def api_group_discovery_list(metrics: Iterable[str], *, version: str) -> dict[str, Any]:
    """The same as one aggregated document, which kube-apiserver asks for first."""
    response = {"group": GROUP, "version": VERSION, "kind": KIND}
    resources = [
        {
            "resource": metric,
            "responseKind": response,
            "scope": "Namespaced",
            "singularResource": "",
            "verbs": ["get"],
        }
        for metric in metrics
    ]
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"{DISCOVERY_GROUP}/{version}",
        "metadata": {},
        "items": [
            {
                "metadata": {"name": GROUP},
                "versions": [{"version": VERSION, "resources": resources, "freshness": "Current"}],
            }
        ],
    }


_SCHEMA_PREFIX = "io.k8s.metrics.pkg.apis.external_metrics.v1beta1"
_LIST_SCHEMA = f"{_SCHEMA_PREFIX}.{KIND}"
_VALUE_SCHEMA = f"{_SCHEMA_PREFIX}.ExternalMetricValue"
_GVK = {"group": GROUP, "version": VERSION, "kind": KIND}
_PATH_PARAMETERS = {
    "namespace": "Namespace of the pool.",
    "metric": "Name of a metric, in any case.",
}
_SELECTOR = "Label selector over the labels pool and workload."


def _schemas(references: str) -> dict[str, Any]:
    string = {"type": "string"}
    return {
        _LIST_SCHEMA: {
            "description": "Values of a metric.",
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": string,
                "kind": string,
                "metadata": {"type": "object"},
                "items": {"type": "array", "items": {"$ref": f"{references}{_VALUE_SCHEMA}"}},
            },
            "x-kubernetes-group-version-kind": [_GVK],
        },
        _VALUE_SCHEMA: {
            "description": "One value, with the labels it belongs to.",
            "type": "object",
            "required": ["metricName", "metricLabels", "timestamp", "value"],
            "properties": {
                "metricName": string,
                "metricLabels": {"type": "object", "additionalProperties": string},
                "timestamp": {"type": "string", "format": "date-time"},
                "window": {"type": "integer", "format": "int64"},
                "value": {"type": "string", "description": "A Kubernetes quantity, as 800m."},
            },
        },
    }


def _operation(
    metric: Metric | None, parameters: list[dict[str, Any]], success: dict[str, Any]
) -> dict[str, Any]:
    """Of one metric of ours, or of any."""
    words = metric.name.split("_") if metric else ["metric"]
    return {
        "description": metric.description if metric else "Read the values of an external metric.",
        "operationId": f"listExternalMetricsV1beta1Namespaced{''.join(map(str.capitalize, words))}",
        "tags": ["externalMetrics_v1beta1"],
        "parameters": parameters,
        "responses": {"200": {"description": "OK"} | success, "401": {"description": "Unauthorized"}},
        "x-kubernetes-action": "list",
        "x-kubernetes-group-version-kind": _GVK,
    }


_INFO = {"title": "celery-hpa metrics_adapter", "version": VERSION}


def _paths(parameter_type: Mapping[str, Any], success: dict[str, Any]) -> dict[str, Any]:
    """One for each metric, for kubectl explain looks for its name there, and one for whatever a delegate has.

    Where a parameter's type stands, and what a response looks like, differs between OpenAPI 2 and 3.
    """
    query = {"name": "labelSelector", "in": "query", "description": _SELECTOR, **parameter_type}
    paths = {}
    for metric in (*METRICS.values(), None):
        path = f"{VERSION_PATH}/namespaces/{{namespace}}/{metric.name if metric else '{metric}'}"
        parameters = [
            {"name": name, "in": "path", "required": True, "description": text, **parameter_type}
            for name, text in _PATH_PARAMETERS.items()
            if f"{{{name}}}" in path
        ]
        paths[path] = {"get": _operation(metric, [*parameters, query], success)}
    return paths


def openapi_v2() -> dict[str, Any]:
    paths = _paths({"type": "string"}, {"schema": {"$ref": f"#/definitions/{_LIST_SCHEMA}"}})
    for item in paths.values():
        item["get"]["produces"] = [JSON]
    return {
        "swagger": "2.0",
        "info": _INFO,
        "paths": paths,
        "definitions": _schemas("#/definitions/"),
    }


def openapi_v3() -> dict[str, Any]:
    content = {JSON: {"schema": {"$ref": f"#/components/schemas/{_LIST_SCHEMA}"}}}
    return {
        "openapi": "3.0.0",
        "info": _INFO,
        "paths": _paths({"schema": {"type": "string"}}, {"content": content}),
        "components": {"schemas": _schemas("#/components/schemas/")},
    }


def openapi_v3_index(spec: Document) -> dict[str, Any]:
    """Where the specification is; its address changes with it, so that it can be kept for ever."""
    url = f"{OPENAPI_V3_PATH}?hash={spec.etag.strip(chr(34)).upper()}"
    return {"paths": {VERSION_PATH.lstrip("/"): {"serverRelativeURL": url}}}


def version_info(version: str) -> dict[str, str]:
    major, minor, *_ = [*version.split("."), "0"]
    return {"major": major, "minor": minor, "gitVersion": f"v{version}"}


def documents(*, version: str) -> Mapping[str, Document]:
    """By path; `/apis` is the legacy form, VERSION_PATH without the metrics of others."""
    v3 = document(openapi_v3())
    content: dict[str, Mapping[str, Any]] = {
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_GROUP]},
        GROUP_PATH: {"kind": "APIGroup", "apiVersion": "v1", **_GROUP},
        VERSION_PATH: api_resource_list(METRICS),
        "/openapi/v2": openapi_v2(),
        "/openapi/v3": openapi_v3_index(v3),
        "/version": version_info(version),
    }
    paths = ["/healthz", "/livez", "/readyz", *content, OPENAPI_V3_PATH]
    found = {path: document(each) for path, each in content.items()}
    return found | {OPENAPI_V3_PATH: v3, "/": document({"paths": sorted(paths)})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """Which metrics there are, in each form."""

    resources: Document
    """Of VERSION_PATH."""
    aggregated: Mapping[str, Document]
    """Of `/apis`, by version of the discovery API."""


def discovery(others: Sequence[str] = ()) -> Discovery:
    """Our metrics, and `others` that are passed on to somebody else."""
    return Discovery(
        resources=document(api_resource_list((*METRICS, *others))), aggregated=aggregated_discovery(others)
    )


def aggregated_discovery(others: Sequence[str] = ()) -> Mapping[str, Document]:
    """By version of the discovery API."""
    return {
        version: document(
            api_group_discovery_list((*METRICS, *others), version=version),
            content_type=f"{JSON};g={DISCOVERY_GROUP};v={version};as=APIGroupDiscoveryList",
        )
        for version in DISCOVERY_VERSIONS
    }
