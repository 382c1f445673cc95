"""--tls-self-managed: a CA and a serving certificate of our own, kept in a Secret that all replicas share."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from shared.ca_rotation import Kept, SeenSince, cas_named, may_serve, plan, still_seen
from shared.certificates import KeyPair, as_pem, ca_name, certificates_in, make_ca, make_leaf, save_key_pair
from shared.errors import CertificateError, Conflict, KubernetesError, NotFound
from shared.kube_documents import CaBundles, Secret
from shared.settings import Settings

log = logging.getLogger(__name__)

LOOK_EVERY_S = 15.0
ATTEMPTS = 5
LONGEST_NAME = 64
"""Of a subject in a certificate. Callers look at the alternative names, which may be longer."""
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """Where it stands which CAs the API server trusts when it calls us."""

    read: Callable[[], Awaitable[CaBundles]]
    replace: Callable[[bytes, CaBundles], Awaitable[None]]
    """With these CAs (PEM); raises Conflict when somebody wrote since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """A service that has a certificate to serve with."""

    settings: Settings
    """With its files."""
    problem: Callable[[], str | None] = lambda: None
    """What keeps it from being renewed now."""


class Secrets(Protocol):
    """What is asked of the Kubernetes door."""

    async def secret(self, *, namespace: str, name: str) -> Secret: ...

    async def create_secret(self, *, namespace: str, name: str, data: Mapping[str, bytes]) -> Secret: ...

    async def replace_secret(
        self, *, namespace: str, name: str, data: Mapping[str, bytes], resource_version: str
    ) -> Secret: ...


def own_namespace(environment: Mapping[str, str] = os.environ) -> str:
    """The namespace this pod runs in; `default` outside of a cluster."""
    return pod_namespace(environment) or "default"


def pod_namespace(environment: Mapping[str, str] = os.environ) -> str | None:
    """The namespace this pod runs in; None outside of a cluster."""
    if named := environment.get("POD_NAMESPACE"):
        return named
    return _NAMESPACE_FILE.read_text().strip() if _NAMESPACE_FILE.exists() else None


@asynccontextmanager
async def with_certificate(
    settings: Settings,
    *,
    secrets: Secrets,
    service: str,
    registration: Registration,
    namespace: str | None = None,
    look_every_s: float = LOOK_EVERY_S,
) -> AsyncIterator[Certified]:
    """The settings with the files to serve with: those given or, with --tls-self-managed, ours.

    `service` names the Service in front of us. Raises KubernetesError when the Secret cannot be had.
    """
    if not settings.tls_self_managed:
        yield Certified(settings=settings)
        return
    with tempfile.TemporaryDirectory(prefix="celery-hpa-") as directory:
        keeper = CertificateKeeper(
            secrets=secrets,
            namespace=namespace or own_namespace(),
            service=service,
            registration=registration,
            directory=Path(directory),
        )
        await keeper.refresh()
        task = asyncio.create_task(keeper.run(every_s=look_every_s))
        kept = replace(settings, tls_cert_file=keeper.certificate_file, tls_private_key_file=keeper.key_file)
        try:
            yield Certified(settings=kept, problem=lambda: keeper.problem)
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
        registration: Registration,
        directory: Path,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._secrets = secrets
        self._namespace = namespace
        self._name = f"{service}-tls"
        self._host = f"{service}.{namespace}.svc"
        self._names = frozenset({self._host, f"{service}.{namespace}", "localhost"})
        self._registration = registration
        self._now = now
        self._served: KeyPair | None = None
        self._seen_since: SeenSince = {}
        self.certificate_file = directory / "tls.crt"
        self.key_file = directory / "tls.key"
        self.problem: str | None = None

    async def run(self, *, every_s: float) -> None:
        """Look again for ever."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.refresh()
                self.problem = None
            except KubernetesError as error:
                self.problem = (
                    f"The Secret of our certificate cannot be looked at; the old one stays: {error}"
                )
                log.warning("%s", self.problem)
            except Exception as error:
                # Whatever it is: if this ended, nobody would renew the certificate, and nobody hear of it.
                cause = type(error).__name__
                self.problem = f"Our certificate could not be looked after ({cause}); the old one stays."
                log.exception("%s", self.problem)

    async def refresh(self) -> None:
        """Read Secret and caBundle, renew what they hold if need be, and write the files."""
        for _ in range(ATTEMPTS):
            try:
                await self._look()
                return
            except _Overtaken:
                continue  # somebody registered other CAs meanwhile: see which
        log.warning("Our CA could not be registered, as others write there all the time; trying again soon.")

    async def _look(self) -> None:
        # Before the Secret: so what is written there is never older than what others have read from it.
        found = await self._registered()
        bundles = found.bundles if found else ()
        self._seen_since = still_seen(self._seen_since, bundles, now=self._now())
        kept = await self._kept(bundles)
        self._serve(kept)
        if found and any(bundle != kept.ca_bundle for bundle in bundles):
            await self._register(kept.ca_bundle, found)

    def _serve(self, kept: Kept) -> None:
        if kept.leaf == self._served:
            return
        if may_serve(kept, instead_of=self._served, seen_since=self._seen_since, now=self._now()):
            save_key_pair(kept.leaf, certificate_file=self.certificate_file, key_file=self.key_file)
            self._served = kept.leaf

    async def _registered(self) -> CaBundles | None:
        try:
            return await self._registration.read()
        except KubernetesError as error:
            # Whoever registers us may come later; the API server cannot call us before that anyway.
            log.warning(
                "It cannot be read which CA is registered, trying again in %.0f s: %s", LOOK_EVERY_S, error
            )
            return None

    async def _register(self, ca_bundle: bytes, found: CaBundles) -> None:
        try:
            await self._registration.replace(ca_bundle, found)
        except Conflict as error:
            raise _Overtaken from error
        except KubernetesError as error:
            log.warning("Our CA could not be registered, trying again in %.0f s: %s", LOOK_EVERY_S, error)

    async def _kept(self, bundles: Sequence[bytes]) -> Kept:
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._read_or_make(bundles)
            except (Conflict, NotFound):
                continue  # another replica was faster: take what it made
        return await self._read_or_make(bundles)

    async def _read_or_make(self, bundles: Sequence[bytes]) -> Kept:
        namespace, name = self._namespace, self._name
        try:
            secret = await self._secrets.secret(namespace=namespace, name=name)
        except NotFound:
            made = self._renewed(None, bundles)
            await self._secrets.create_secret(namespace=namespace, name=name, data=_data(made))
            return made
        found = _kept_in(secret)
        kept = self._renewed(found, bundles)
        if kept != found:
            version = secret.resource_version
            await self._secrets.replace_secret(
                namespace=namespace, name=name, data=_data(kept), resource_version=version
            )
        return kept

    def _renewed(self, found: Kept | None, bundles: Sequence[bytes]) -> Kept:
        """What is to be kept from now on."""
        now, host = self._now(), self._host[:LONGEST_NAME]
        name = f"{self._host[: LONGEST_NAME - 3]} CA"
        registered = cas_named(ca_name(name), bundles)
        todo = plan(found, names=self._names, registered=registered, seen_since=self._seen_since, now=now)
        if found and not todo.makes_ca:
            ca = found.ca
        else:
            log.info("A new CA for %s is made and announced.", self._host)
            ca = make_ca(name, now=now)
        if found and not todo.makes_leaf:
            leaf = found.leaf
        else:
            log.info("A new serving certificate for %s is made.", self._host)
            leaf = make_leaf(ca, common_name=host, names=sorted(self._names), now=now)
        return Kept(ca=ca, leaf=leaf, old_cas=todo.old_cas)


class _Overtaken(Exception):
    """Somebody wrote where we are registered, after we have looked."""


def _kept_in(secret: Secret) -> Kept | None:
    """None when it holds something else: it is replaced."""
    try:
        ca = KeyPair(certificate_pem=secret.data["ca.crt"], key_pem=secret.data["ca.key"])
        leaf = KeyPair(certificate_pem=secret.data["tls.crt"], key_pem=secret.data["tls.key"])
        old_cas = certificates_in(secret.data.get("old-ca.crt", b""))
        return Kept(ca=ca.checked(), leaf=leaf.checked(), old_cas=old_cas)
    except (KeyError, CertificateError):
        return None


def _data(kept: Kept) -> dict[str, bytes]:
    return {
        "ca.crt": kept.ca.certificate_pem,
        "ca.key": kept.ca.key_pem,
        "old-ca.crt": as_pem(kept.old_cas),
        "tls.crt": kept.leaf.certificate_pem,
        "tls.key": kept.leaf.key_pem,
    }
