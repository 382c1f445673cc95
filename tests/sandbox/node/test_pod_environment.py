"""Command lines and environments of containers, as Kubernetes spells them out."""

from typing import Any

import pytest

from deploy.sandbox.node.pod_environment import (
    MissingKey,
    command_line,
    environment,
    expand,
    pod_fields,
    references,
)

POD = {
    "metadata": {"name": "w-1", "namespace": "jobs", "uid": "u-1", "labels": {"app": "w"}},
    "spec": {"nodeName": "n"},
}
SECRET = {("Secret", "s"): {"data": {"url": "cmVkaXM6Ly8="}}, ("ConfigMap", "c"): {"data": {"level": "INFO"}}}


def resolve(*env: Any) -> dict[str, str]:
    fields = pod_fields(POD, ip="127.10.0.9")
    return environment({"env": list(env)}, fields=fields, sources=SECRET, base={"HOME": "/h"})


def from_source(name: str, **source: Any) -> dict[str, Any]:
    return {"name": name, "valueFrom": source}


def by_key(name: str, key: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "key": key, **more}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(B)", "$(B)"),
        ("$A", "$A"),
        ("x$(A)y$(A)", "x1y1"),
    ],
)
def test_variables_are_expanded_as_kubernetes_does(text: str, expanded: str) -> None:
    """`$$` is a dollar, and what is unknown stays."""
    assert expand(text, {"A": "1"}) == expanded


def test_later_variables_see_earlier_ones() -> None:
    """The order in the document counts."""
    assert resolve({"name": "B", "value": "$(A)"}, {"name": "A", "value": "1"})["B"] == "$(A)"
    assert resolve({"name": "A", "value": "1"}, {"name": "B", "value": "$(A)"})["B"] == "1"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "w-1"),
        ("metadata.namespace", "jobs"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app']", "w"),
        ("metadata.annotations['none']", ""),
        ("spec.nodeName", "n"),
        ("status.podIP", "127.10.0.9"),
    ],
)
def test_fields_of_the_pod_can_be_named(path: str, value: str) -> None:
    """The downward API, as far as workers use it."""
    assert resolve(from_source("X", fieldRef={"fieldPath": path}))["X"] == value


def test_keys_of_secrets_and_configmaps_can_be_named() -> None:
    """A Secret's value is decoded."""
    found = resolve(
        from_source("URL", secretKeyRef=by_key("s", "url")),
        from_source("LEVEL", configMapKeyRef=by_key("c", "level")),
    )
    assert found == {"HOME": "/h", "URL": "redis://", "LEVEL": "INFO"}


def test_a_missing_key_is_an_error_unless_it_is_optional() -> None:
    """The error names what to create, and no value."""
    assert "X" not in resolve(from_source("X", secretKeyRef=by_key("s", "none", optional=True)))
    with pytest.raises(MissingKey, match="the Secret s has no key none"):
        resolve(from_source("X", secretKeyRef=by_key("s", "none")))
    with pytest.raises(MissingKey, match="does not know"):
        resolve(from_source("X", resourceFieldRef={"resource": "limits.cpu"}))


def test_a_container_names_what_it_refers_to() -> None:
    """So that it can be fetched before."""
    env = [
        from_source("A", secretKeyRef=by_key("s", "k")),
        from_source("B", configMapKeyRef=by_key("c", "k")),
    ]
    assert list(references({"env": [*env, {"name": "C", "value": "x"}]})) == [
        ("Secret", "s"),
        ("ConfigMap", "c"),
    ]


def test_a_container_without_a_command_has_no_command_line() -> None:
    """Its image would have one, but there are no images here."""
    assert command_line({"args": ["x"]}, {}) == []
    assert command_line({"command": ["sh", "-c"], "args": ["echo $(A)"]}, {"A": "1"}) == [
        "sh",
        "-c",
        "echo 1",
    ]
