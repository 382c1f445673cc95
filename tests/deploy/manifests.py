"""The documents of deploy/base, read from its files as they lie there."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
BASE = ROOT / "deploy" / "base"
Document = dict[str, Any]


def documents(file: Path) -> list[Document]:
    return list(yaml.safe_load_all(file.read_text()))


def kustomization() -> Document:
    (document,) = documents(BASE / "kustomization.yaml")
    return document


@cache
def installed() -> list[Document]:
    """Everything that the kustomization names, but for what it makes."""
    return [document for name in kustomization()["resources"] for document in documents(BASE / name)]


def identity(document: Document) -> tuple[str, str, str]:
    """Kind, namespace and name."""
    metadata = document["metadata"]
    return document["kind"], metadata.get("namespace", ""), metadata["name"]


def the(kind: str, name: str) -> Document:
    """The one document of this kind and name in deploy/base."""
    return the_only(kind, name, installed())


def the_only(kind: str, name: str, among: Collection[Document]) -> Document:
    (document,) = [one for one in among if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return document


def container(deployment: str) -> Document:
    """The container of a service's pods."""
    (only,) = the("Deployment", deployment)["spec"]["template"]["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def asked_in(webhook: Document) -> set[str]:
    """The namespaces in which a webhook is asked."""
    assert webhook["namespaceSelector"].keys() == {"matchExpressions"}
    (expression,) = webhook["namespaceSelector"]["matchExpressions"]
    assert (expression["key"], expression["operator"]) == ("kubernetes.io/metadata.name", "In")
    return set(expression["values"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A rule that an account has, and where: in one namespace, or in all of them ("*")."""

    namespace: str
    role: str
    rule: Document

    def allows(self, verb: str, group: str, resource: str, name: str) -> bool:
        # A name is not known yet when something is created, listed or watched.
        names = self.rule.get("resourceNames")
        is_named = names is None or (name in names and verb not in {"create", "list", "watch"})
        return (
            verb in self.rule["verbs"]
            and group in self.rule["apiGroups"]
            and resource in self.rule["resources"]
            and is_named
        )


def grants(account: str, documents: Collection[Document] | None = None) -> Iterator[Grant]:
    """Every rule that is bound to a service account of ours, roles of the cluster's own left out.

    By deploy/base, if no other `documents` are given.
    """
    documents = installed() if documents is None else documents
    subject = {"kind": "ServiceAccount", "name": account, "namespace": "celery-hpa"}
    for binding in documents:
        if subject in binding.get("subjects", ()):
            namespace = binding["metadata"].get("namespace", "*")
            for role in _roles(binding, namespace, documents):
                for rule in role["rules"]:
                    yield Grant(namespace=namespace, role=role["metadata"]["name"], rule=rule)


def _roles(binding: Document, namespace: str, documents: Collection[Document]) -> list[Document]:
    wanted = (
        binding["roleRef"]["kind"],
        namespace if binding["roleRef"]["kind"] == "Role" else "",
        binding["roleRef"]["name"],
    )
    return [document for document in documents if identity(document) == wanted]


def roles_of_the_cluster(account: str) -> set[tuple[str, str, str]]:
    """Kind, name and namespace ("*" for all) of bound roles that every cluster brings with it."""
    subject = {"kind": "ServiceAccount", "name": account, "namespace": "celery-hpa"}
    bindings = [document for document in installed() if subject in document.get("subjects", ())]
    return {
        (binding["roleRef"]["kind"], binding["roleRef"]["name"], namespace)
        for binding in bindings
        for namespace in [binding["metadata"].get("namespace", "*")]
        if not _roles(binding, namespace, installed())
    }
