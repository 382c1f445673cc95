"""--tls-self-managed: a CA and a serving certificate of our own, kept in a Secret that all replicas share."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from shared.certificates import LEAF_DAYS, KeyPair, make_ca, make_leaf, save_key_pair
from shared.errors import CertificateError, Conflict, KubernetesError, NotFound
from shared.kube_documents import Secret
from shared.settings import Settings

log = logging.getLogger(__name__)

LOOK_EVERY_S = 15.0
ATTEMPTS = 5
RENEW_WHEN_LEFT = timedelta(days=LEAF_DAYS) / 3
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

Publish = Callable[[bytes], Awaitable[None]]
"""Tells the API server which CA (PEM) to trust when it calls us."""


class Secrets(Protocol):
    """What is asked of the Kubernetes door."""

    async def secret(self, *, namespace: str, name: str) -> Secret: ...

    async def create_secret(self, *, namespace: str, name: str, data: Mapping[str, bytes]) -> Secret: ...

    async def replace_secret(
        self, *, namespace: str, name: str, data: Mapping[str, bytes], resource_version: str
    ) -> Secret: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What the Secret holds."""

    ca: KeyPair
    leaf: KeyPair

    def is_sound(self, names: frozenset[str], *, now: datetime) -> bool:
        """Whether it can be served for long enough; raises CertificateError when it cannot be read."""
        return (
            min(self.ca.lasts_until(), self.leaf.lasts_until()) - now > RENEW_WHEN_LEFT
            and names <= self.leaf.names()
            and self.leaf.is_under(self.ca)
        )


def own_namespace(environment: Mapping[str, str] = os.environ) -> str:
    """The namespace this pod runs in; `default` outside of a cluster."""
    if named := environment.get("POD_NAMESPACE"):
        return named
    return _NAMESPACE_FILE.read_text().strip() if _NAMESPACE_FILE.exists() else "default"


@asynccontextmanager
async def with_certificate(
    settings: Settings, *, secrets: Secrets, service: str, publish: Publish, namespace: str | None = None
) -> AsyncIterator[Settings]:
    """The settings with the files to serve with: those given or, with --tls-self-managed, ours.

    `service` names the Service in front of us. Raises KubernetesError when the Secret cannot be had.
    """
    if not settings.tls_self_managed:
        yield settings
        return
    with tempfile.TemporaryDirectory(prefix="celery-hpa-") as directory:
        keeper = CertificateKeeper(
            secrets=secrets,
            namespace=namespace or own_namespace(),
            service=service,
            publish=publish,
            directory=Path(directory),
        )
        await keeper.refresh()
        task = asyncio.create_task(keeper.run())
        try:
            yield replace(
                settings, tls_cert_file=keeper.certificate_file, tls_private_key_file=keeper.key_file
            )
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class CertificateKeeper:
    """Makes the certificate, renews it in time, and follows what another replica has made."""

    def __init__(
        self,
        *,
        secrets: Secrets,
        namespace: str,
        service: str,
        publish: Publish,
        directory: Path,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._secrets = secrets
        self._namespace = namespace
        self._name = f"{service}-tls"
        self._host = f"{service}.{namespace}.svc"
        self._names = frozenset({self._host, f"{service}.{namespace}", "localhost"})
        self._publish = publish
        self._now = now
        self._written: KeyPair | None = None
        self.certificate_file = directory / "tls.crt"
        self.key_file = directory / "tls.key"

    async def run(self) -> None:
        """Look again for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.refresh()
            except KubernetesError as error:
                log.warning("The Secret of our certificate cannot be looked at; the old one stays: %s", error)

    async def refresh(self) -> None:
        """Read the Secret, renew what it holds if need be, write the files, publish the CA."""
        bundle = await self._bundle()
        if bundle.leaf != self._written:
            save_key_pair(bundle.leaf, certificate_file=self.certificate_file, key_file=self.key_file)
            self._written = bundle.leaf
        try:
            await self._publish(bundle.ca.certificate_pem)
        except KubernetesError as error:
            # Whoever registers us may come later; the API server cannot call us before that anyway.
            log.warning("Our CA could not be registered, trying again in a minute: %s", error)

    async def _bundle(self) -> Bundle:
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._read_or_make()
            except (Conflict, NotFound):
                continue  # another replica was faster: take what it made
        return await self._read_or_make()

    async def _read_or_make(self) -> Bundle:
        namespace, name = self._namespace, self._name
        try:
            secret = await self._secrets.secret(namespace=namespace, name=name)
        except NotFound:
            made = self._renewed(None)
            await self._secrets.create_secret(namespace=namespace, name=name, data=_data(made))
            return made
        found = _bundle_from(secret)
        bundle = self._renewed(found)
        if bundle is not found:
            version = secret.resource_version
            await self._secrets.replace_secret(
                namespace=namespace, name=name, data=_data(bundle), resource_version=version
            )
        return bundle

    def _renewed(self, found: Bundle | None) -> Bundle:
        """The same bundle while it is sound, else a new leaf; a new CA only when the old one is no use."""
        now = self._now()
        if found and found.is_sound(self._names, now=now):
            return found
        ca = found.ca if found else None
        if ca is None or ca.lasts_until() - now < timedelta(days=LEAF_DAYS):
            ca = make_ca(f"{self._host} CA", now=now)
        log.info("A new serving certificate for %s was made.", self._host)
        leaf = make_leaf(ca, common_name=self._host, names=sorted(self._names), now=now)
        return Bundle(ca=ca, leaf=leaf)


def _bundle_from(secret: Secret) -> Bundle | None:
    """None when it holds something else: it is replaced."""
    try:
        ca = KeyPair(certificate_pem=secret.data["ca.crt"], key_pem=secret.data["ca.key"])
        leaf = KeyPair(certificate_pem=secret.data["tls.crt"], key_pem=secret.data["tls.key"])
        return Bundle(ca=ca.checked(), leaf=leaf.checked())
    except (KeyError, CertificateError):
        return None


def _data(bundle: Bundle) -> dict[str, bytes]:
    return {
        "ca.crt": bundle.ca.certificate_pem,
        "ca.key": bundle.ca.key_pem,
        "tls.crt": bundle.leaf.certificate_pem,
        "tls.key": bundle.leaf.key_pem,
    }
