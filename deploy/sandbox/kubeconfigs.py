"""kubeconfig files: written for kubectl and our services, read for any cluster that the scenarios run on."""

from __future__ import annotations

import base64
import ssl
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where an API server is, whom it trusts us to be, and whom we trust it to be."""

    url: str
    ca_pem: bytes
    certificate_pem: bytes | None = None
    key_pem: bytes | None = None
    token: str | None = None
    namespace: str = "default"

    def tls(self) -> ssl.SSLContext:
        """A client's context; Python loads a certificate from files only."""
        context = ssl.create_default_context(cadata=self.ca_pem.decode())
        if self.certificate_pem is not None and self.key_pem is not None:
            with TemporaryDirectory() as directory:
                pair = Path(directory, "pair.pem")
                pair.write_bytes(self.certificate_pem + b"\n" + self.key_pem)
                context.load_cert_chain(pair)
        return context


def write_kubeconfig(path: Path, access: Access) -> Path:
    """A kubeconfig with one context, readable by its owner only."""
    user: dict[str, Any] = {}
    if access.token is not None:
        user["token"] = access.token
    if access.certificate_pem is not None and access.key_pem is not None:
        user["client-certificate-data"] = _encoded(access.certificate_pem)
        user["client-key-data"] = _encoded(access.key_pem)
    cluster = {"server": access.url, "certificate-authority-data": _encoded(access.ca_pem)}
    context = {"cluster": "sandbox", "user": "user", "namespace": access.namespace}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "sandbox", "cluster": cluster}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "sandbox", "context": context}],
        "current-context": "sandbox",
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def read_kubeconfig(path: Path) -> Access:
    """The current context of a kubeconfig with a certificate or a token; relative files are beside it."""
    document = yaml.safe_load(path.read_text())
    context = _named(document["contexts"], document["current-context"])["context"]
    cluster = _named(document["clusters"], context["cluster"])["cluster"]
    user = _named(document["users"], context["user"])["user"]
    ca = _bytes(cluster, "certificate-authority", path)
    if ca is None:
        raise ValueError(f"{path} names no certificate authority for {cluster['server']}")
    return Access(
        url=cluster["server"],
        ca_pem=ca,
        certificate_pem=_bytes(user, "client-certificate", path),
        key_pem=_bytes(user, "client-key", path),
        token=user.get("token"),
        namespace=context.get("namespace", "default"),
    )


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)


def _bytes(entry: dict[str, Any], key: str, path: Path) -> bytes | None:
    if data := entry.get(f"{key}-data"):
        return base64.b64decode(data)
    return (path.parent / entry[key]).read_bytes() if key in entry else None


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
