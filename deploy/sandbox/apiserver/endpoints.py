"""Where a Service reference leads on one machine, and how to speak TLS with what is there.

A Service of type ExternalName is dialled at its name and at the port of the *reference*, while its
certificate is verified for `<service>.<namespace>.svc`, as a real cluster without endpoint routing does it.
"""

import base64
import ssl
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from deploy.sandbox.apiserver.store import Key, ObjectStore
from deploy.sandbox.resources import SERVICES, Document


class ServiceUnresolved(LookupError):
    """The Service of a reference is missing or leads nowhere on this machine; the text says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An HTTPS server behind a Service: `host` is dialled, `server_name` is who its certificate is for."""

    host: str
    port: int
    server_name: str

    @property
    def authority(self) -> str:
        """Host and port as an URL has them."""
        return f"{self.host}:{self.port}"


def resolve_service(store: ObjectStore, reference: Document) -> Endpoint:
    """The endpoint of a `{namespace, name, port}` reference. Raises ServiceUnresolved."""
    namespace, name = reference["namespace"], reference["name"]
    service = store.get(Key(SERVICES, namespace, name))
    if service is None:
        raise ServiceUnresolved(f'service "{name}" not found')
    external = service["spec"].get("externalName")
    if service["spec"].get("type") != "ExternalName" or not external:
        raise ServiceUnresolved(
            f'service "{name}" is not of type ExternalName: no other type leads to a process here'
        )
    return Endpoint(
        host=external, port=int(reference.get("port", 443)), server_name=f"{name}.{namespace}.svc"
    )


@lru_cache(maxsize=200)
def client_tls(ca_bundle: str, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """TLS towards a backend with this base64 CA bundle (empty: the system's), as a client if told so."""
    authorities = base64.b64decode(ca_bundle).decode() or None
    context = ssl.create_default_context(cadata=authorities)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context
