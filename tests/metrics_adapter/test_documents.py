"""Discovery and OpenAPI as kube-apiserver's aggregators read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV2SpecValidator, OpenAPIV30SpecValidator
from openapi_spec_validator.validation.validators import SpecValidator

from metrics_adapter.catalogue import METRICS
from metrics_adapter.documents import OPENAPI_V3_PATH, VERSION_PATH, aggregated_discovery, documents

DOCUMENTS = {path: json.loads(document.body) for path, document in documents(version="0.1.0").items()}


def shape(document: Any) -> Any:
    """Keys and types, without the values; of a list, the shape of its first element."""
    if isinstance(document, dict):
        return {key: shape(value) for key, value in document.items()}
    return [shape(document[0])] if isinstance(document, list) else type(document)


def recorded(recording: Callable[[str], Any], path: str) -> Any:
    """The reply that a real aggregator was content with."""
    line = f"GET {path} HTTP/1.1"
    return next(r for r in recording("a5")["requests"] if r["request_line"] == line)["response"]


def test_legacy_discovery_has_the_shape_that_was_accepted(recording: Callable[[str], Any]) -> None:
    assert shape(DOCUMENTS[VERSION_PATH]) == shape(recorded(recording, VERSION_PATH)["body"])


def test_discovery_names_every_metric_and_no_verb_but_get() -> None:
    """An empty list breaks kubectl; `list` or `delete` would bring in the garbage collector."""
    resources = DOCUMENTS[VERSION_PATH]["resources"]
    assert [resource["name"] for resource in resources] == list(METRICS)
    assert {(r["namespaced"], r["kind"], *r["verbs"]) for r in resources} == {
        (True, "ExternalMetricValueList", "get")
    }


def test_aggregated_discovery_has_the_shape_that_was_accepted(recording: Callable[[str], Any]) -> None:
    reply = recorded(recording, "/apis")
    ours = aggregated_discovery()["v2"]
    assert shape(json.loads(ours.body)) == shape(reply["body"])
    assert ours.content_type == reply["headers"]["Content-Type"]


@pytest.mark.parametrize("version", ["v2", "v2beta1"])
def test_aggregated_discovery_has_our_group_with_its_resources(version: str) -> None:
    """An empty one would be published as a version without any resource."""
    (group,) = json.loads(aggregated_discovery()[version].body)["items"]
    (only,) = group["versions"]
    assert group["metadata"]["name"] == "external.metrics.k8s.io"
    assert [resource["resource"] for resource in only["resources"]] == list(METRICS)
    assert only["freshness"] == "Current"


def test_groups_are_listed() -> None:
    assert DOCUMENTS["/apis"]["groups"][0]["preferredVersion"]["version"] == "v1beta1"
    assert DOCUMENTS["/apis/external.metrics.k8s.io"]["kind"] == "APIGroup"


def test_the_root_names_every_path() -> None:
    assert set(DOCUMENTS["/"]["paths"]) == {*DOCUMENTS, "/healthz", "/livez", "/readyz"} - {"/"}


def references(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        yield from ([document["$ref"]] if "$ref" in document else ())
        for value in document.values():
            yield from references(value)
    elif isinstance(document, list):
        for value in document:
            yield from references(value)


@pytest.mark.parametrize(
    ("path", "validator"),
    [("/openapi/v2", OpenAPIV2SpecValidator), (OPENAPI_V3_PATH, OpenAPIV30SpecValidator)],
)
def test_openapi_is_valid(path: str, validator: type[SpecValidator]) -> None:
    """By the official schemas of each version: kube-apiserver's log tells of any other, again and again."""
    errors = [error.message for error in validator(DOCUMENTS[path]).iter_errors()]
    assert errors == []


@pytest.mark.parametrize("path", ["/openapi/v2", OPENAPI_V3_PATH])
def test_openapi_is_whole(path: str) -> None:
    """Every reference leads somewhere, every path parameter is declared, every response described."""
    spec = DOCUMENTS[path]
    for reference in references(spec):
        target = spec
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]
    for template, item in spec["paths"].items():
        declared = {p["name"] for p in item["get"]["parameters"] if p["in"] == "path" and p["required"]}
        assert all(f"{{{name}}}" in template for name in declared)
        assert template.count("{") == len(declared)
        assert all(response["description"] for response in item["get"]["responses"].values())
        assert item["get"]["operationId"]


@pytest.mark.parametrize("path", ["/openapi/v2", OPENAPI_V3_PATH])
def test_openapi_has_a_path_for_each_metric_with_what_it_means(path: str) -> None:
    """kubectl explain finds a metric by its path; one more is for those of a delegate."""
    operations = {where.rpartition("/")[2]: item["get"] for where, item in DOCUMENTS[path]["paths"].items()}
    described = {name: operations[name]["description"] for name in METRICS}
    assert described == {name: metric.description for name, metric in METRICS.items()}
    assert operations.keys() - METRICS.keys() == {"{metric}"}
    assert len({operation["operationId"] for operation in operations.values()}) == len(operations)


def test_openapi_v3_is_where_its_index_says(recording: Callable[[str], Any]) -> None:
    assert shape(DOCUMENTS["/openapi/v3"]) == shape(recorded(recording, "/openapi/v3")["body"])
    (entry,) = DOCUMENTS["/openapi/v3"]["paths"].values()
    path, _, digest = entry["serverRelativeURL"].partition("?hash=")
    assert path == OPENAPI_V3_PATH
    assert digest
