"""The accounts, roles and bindings of deploy/base, for a cluster that our services are to run on."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import yaml

from deploy.sandbox.resources import Document

DEPLOY = Path(__file__).parents[1]
KINDS = frozenset({"Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"})
POOL_NAMESPACE = "pool-namespace.yaml"
COMPONENTS = {"StatefulSet": "statefulset", "CloneSet": "cloneset"}


def shipped_access(*, namespaces: Collection[str], kinds: Collection[str] = ()) -> Iterator[Document]:
    """What deploy/base grants, with pools in these namespaces; namespaces and accounts come first.

    `kinds` are those of workloads beside Deployments: the components for them are taken as well.
    """
    for file in _read("base/kustomization.yaml")[0]["resources"]:
        for document in _read(f"base/{file}"):
            if file == POOL_NAMESPACE:
                yield from (_in_namespace(document, namespace) for namespace in sorted(namespaces))
            elif document["kind"] in KINDS:
                yield _extended(document, kinds)


def _in_namespace(document: Document, namespace: str) -> Document:
    return document | {"metadata": document["metadata"] | {"namespace": namespace}}


def _extended(document: Document, kinds: Collection[str]) -> Document:
    """A role with the rules that the components for `kinds` add to it."""
    if document["kind"] != "ClusterRole":
        return document
    return document | {"rules": [*document["rules"], *_added_rules(document["metadata"]["name"], kinds)]}


def _added_rules(role: str, kinds: Collection[str]) -> Iterator[Document]:
    for directory in (f"components/{COMPONENTS[kind]}" for kind in sorted(kinds)):
        for patch in _read(f"{directory}/kustomization.yaml")[0]["patches"]:
            if (patch["target"]["kind"], patch["target"]["name"]) == ("ClusterRole", role):
                operations = yaml.safe_load((DEPLOY / directory / patch["path"]).read_text())
                yield from (operation["value"] for operation in operations)


def _read(path: str) -> list[Document]:
    return list(yaml.safe_load_all((DEPLOY / path).read_text()))
