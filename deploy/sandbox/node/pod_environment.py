"""What a container is started with: its command line and environment, as its pod spells them out. Pure."""

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any

from deploy.sandbox.resources import Document

_REFERENCE = re.compile(r"\$(\$|\((?P<name>[^()$]+)\))")
_KEYED_FIELD = re.compile(r"metadata\.(?P<map>labels|annotations)\['(?P<key>.+)'\]")

Sources = Mapping[tuple[str, str], Document]
"""Secrets and ConfigMaps by kind and name."""


class MissingKey(ValueError):
    """A Secret or ConfigMap lacks the key that a container needs, or is not there at all."""


def expand(text: str, environment: Mapping[str, str]) -> str:
    """`$(NAME)` becomes the variable, `$$` a dollar; an unknown name stays as it is written."""

    def replacement(match: re.Match[str]) -> str:
        name = match["name"]
        return "$" if name is None else environment.get(name, match[0])

    return _REFERENCE.sub(replacement, text)


def command_line(container: Document, environment: Mapping[str, str]) -> list[str]:
    """The argument vector; empty for a container that names no command, which runs no process here."""
    if not container.get("command"):
        return []
    return [expand(part, environment) for part in [*container["command"], *(container.get("args") or [])]]


def references(container: Document) -> Iterator[tuple[str, str]]:
    """The Secrets and ConfigMaps, by kind and name, that the environment is taken from."""
    for variable in container.get("env") or []:
        source = variable.get("valueFrom") or {}
        for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
            if field in source:
                yield kind, source[field]["name"]


def environment(
    container: Document, *, fields: Mapping[str, Any], sources: Sources, base: Mapping[str, str]
) -> dict[str, str]:
    """The variables in order, later ones able to refer to earlier ones, upon the base that every pod has.

    Raises MissingKey for a key that is neither there nor optional.
    """
    result = dict(base)
    for variable in container.get("env") or []:
        value = _value(variable, fields, sources)
        if value is not None:
            result[variable["name"]] = expand(value, result)
    return result


def pod_fields(pod: Document, *, ip: str) -> dict[str, Any]:
    """What a fieldRef can name."""
    metadata = pod["metadata"]
    return {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "metadata.labels": metadata.get("labels") or {},
        "metadata.annotations": metadata.get("annotations") or {},
        "spec.nodeName": pod["spec"].get("nodeName", ""),
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", "default"),
        "status.podIP": ip,
        "status.hostIP": "127.0.0.1",
    }


def _value(variable: Document, fields: Mapping[str, Any], sources: Sources) -> str | None:
    source = variable.get("valueFrom")
    if source is None:
        return str(variable.get("value", ""))
    if "fieldRef" in source:
        return _field(source["fieldRef"]["fieldPath"], fields)
    if "secretKeyRef" in source:
        encoded = _key("Secret", source["secretKeyRef"], sources)
        return None if encoded is None else base64.b64decode(encoded).decode()
    if "configMapKeyRef" in source:
        return _key("ConfigMap", source["configMapKeyRef"], sources)
    raise MissingKey(f"the variable {variable['name']} takes its value from what this kubelet does not know")


def _field(path: str, fields: Mapping[str, Any]) -> str:
    keyed = _KEYED_FIELD.fullmatch(path)
    if keyed:
        return str(fields[f"metadata.{keyed['map']}"].get(keyed["key"], ""))
    return str(fields.get(path, ""))


def _key(kind: str, reference: Document, sources: Sources) -> str | None:
    data = (sources.get((kind, reference["name"])) or {}).get("data") or {}
    if reference["key"] in data:
        return str(data[reference["key"]])
    if reference.get("optional"):
        return None
    raise MissingKey(f"the {kind} {reference['name']} has no key {reference['key']}; create it")
