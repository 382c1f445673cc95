"""`python prune.py DEFINITIONS VERSION > kubernetes-VERSION.json`: what our manifests need of its schemas.

DEFINITIONS is `_definitions.json` of the strict schemas of a Kubernetes version, which the package
`kubernetes-validate` on PyPI brings, made from the OpenAPI document that Kubernetes publishes (Apache-2.0).
Descriptions and status are left out; every field of what is kept is there, so that a wrong one is found.
"""

import json
import sys
from pathlib import Path
from typing import Any

KINDS = {
    "v1": ("ConfigMap", "Namespace", "Secret", "Service", "ServiceAccount"),
    "admissionregistration.k8s.io/v1": ("ValidatingWebhookConfiguration",),
    "apiregistration.k8s.io/v1": ("APIService",),
    "apps/v1": ("Deployment",),
    "autoscaling/v2": ("HorizontalPodAutoscaler",),
    "flowcontrol.apiserver.k8s.io/v1": ("FlowSchema",),
    "flowcontrol.apiserver.k8s.io/v1beta3": ("FlowSchema",),
    "networking.k8s.io/v1": ("NetworkPolicy",),
    "policy/v1": ("PodDisruptionBudget",),
    "rbac.authorization.k8s.io/v1": ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"),
}
KEPT = {"$ref", "additionalProperties", "enum", "format", "items", "oneOf", "properties", "required", "type"}
WANTED = {f"{version} {kind}" for version, kinds in KINDS.items() for kind in kinds}


def names_of(schema: dict[str, Any]) -> list[str]:
    """Versions and kinds that a definition is the schema of."""
    ours = schema.get("x-kubernetes-group-version-kind", ())
    return ["/".join(filter(None, (of["group"], of["version"]))) + f" {of['kind']}" for of in ours]


def bare(schema: Any) -> Any:
    """A schema with the words that say what is valid."""
    if not isinstance(schema, dict):
        return schema
    kept = {word: value for word, value in schema.items() if word in KEPT}
    for word in ("items", "additionalProperties"):
        if word in kept:
            kept[word] = bare(kept[word])
    if "properties" in kept:
        kept["properties"] = {name: bare(of) for name, of in kept["properties"].items() if name != "status"}
    if "oneOf" in kept:
        kept["oneOf"] = [bare(of) for of in kept["oneOf"]]
    if "$ref" in kept:
        kept["$ref"] = kept["$ref"].rpartition("/")[2]
    return kept


def references(schema: Any) -> set[str]:
    """Names of the definitions that a bare schema refers to."""
    if isinstance(schema, list):
        return set().union(*map(references, schema))
    if not isinstance(schema, dict):
        return set()
    own = {schema["$ref"]} if isinstance(schema.get("$ref"), str) else set()
    return own.union(*map(references, schema.values()))


def pruned(definitions: dict[str, Any], version: str) -> dict[str, Any]:
    kinds = {name: key for key, schema in definitions.items() for name in names_of(schema) if name in WANTED}
    kept: dict[str, Any] = {}
    waiting = set(kinds.values())
    while waiting:
        name = waiting.pop()
        kept[name] = bare(definitions[name])
        waiting |= references(kept[name]) - kept.keys()
    source = (
        "Kubernetes' OpenAPI document as in the strict schemas of kubernetes-validate 1.37.0, by prune.py"
    )
    return {"kubernetes": version, "source": source, "kinds": kinds, "definitions": kept}


if __name__ == "__main__":
    document = pruned(json.loads(Path(sys.argv[1]).read_text())["$defs"], sys.argv[2])
    print(json.dumps(document, sort_keys=True, separators=(",", ":")))
