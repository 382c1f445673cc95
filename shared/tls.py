"""TLS for a server whose certificate, and whose clients' CAs, change while it runs."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from cryptography import x509

from shared.client_certificates import MOST_REMEMBERED, Presented
from shared.errors import CertificateError

log = logging.getLogger(__name__)

ClientCa = Callable[[], str]
"""PEM of the CAs whose client certificates the handshake takes; empty while none is known."""


class ReloadingTls:
    """Gives `context`; each handshake uses the files, and the client CAs, as they are at that moment.

    What cannot be loaded (the key is there, its certificate not yet) leaves the last good one in use.
    """

    def __init__(
        self,
        *,
        certificate_file: Path,
        key_file: Path,
        client_ca: ClientCa | None = None,
        on_stranger: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_stranger` is told of each client certificate that no CA vouches for.

        Raises CertificateError when the files cannot be used now.
        """
        self._certificate_file = certificate_file
        self._key_file = key_file
        self._client_ca = client_ca
        self._seen = self._look()
        self._current = self._build()
        self.context = self._build()
        # Python has no other way to change the certificates of new handshakes; it fires without SNI, too.
        self.context.sni_callback = self._on_handshake
        self.context.sslobject_class = _telling(on_stranger)

    def _on_handshake(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        self._refresh()
        connection.context = self._current

    def _refresh(self) -> None:
        try:
            seen = self._look()
            if seen != self._seen:
                self._seen = seen
                self._current = self._build()
                log.info("The serving certificate or its clients' CAs changed and are in use.")
        except CertificateError as error:
            log.error("The serving certificate stays as it was: %s", error)

    def _look(self) -> tuple[object, ...]:
        """What tells one state of affairs from another, without reading the files."""
        files = (fingerprint(self._certificate_file), fingerprint(self._key_file))
        return (*files, self._client_ca() if self._client_ca else "")

    def _build(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._certificate_file, self._key_file)
            if self._client_ca:
                context.verify_mode = ssl.CERT_OPTIONAL
                if authorities := self._client_ca():
                    context.load_verify_locations(cadata=authorities)
        except (OSError, ValueError) as error:
            raise CertificateError(
                f"{self._certificate_file} and {self._key_file} cannot be used together: {error}"
            ) from error
        return context


def _telling(on_stranger: Callable[[], None]) -> type[ssl.SSLObject]:
    """asyncio keeps a handshake that failed to itself."""

    class Telling(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except ssl.SSLCertVerificationError:
                on_stranger()
                raise

    return Telling


def fingerprint(path: Path) -> tuple[int, ...]:
    """What tells a file from what it was before; raises CertificateError when there is none."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror}") from error
    return (status.st_ino, status.st_mtime_ns, status.st_size)


def presented_by(transport: asyncio.BaseTransport | None) -> Presented | None:
    """The client certificate of a connection; its intermediates only where Python shows them (3.13)."""
    tls = transport and transport.get_extra_info("ssl_object")
    leaf = tls.getpeercert(binary_form=True) if tls else None
    if not tls or not leaf:
        return None
    chain = tls.get_unverified_chain()[1:] if hasattr(tls, "get_unverified_chain") else ()
    return _parsed(leaf, tuple(chain))


@lru_cache(maxsize=MOST_REMEMBERED)
def _parsed(leaf: bytes, chain: tuple[bytes, ...]) -> Presented:
    """Once, not at each request of a connection that is kept open for days."""
    return Presented(
        leaf=x509.load_der_x509_certificate(leaf),
        chain=tuple(map(x509.load_der_x509_certificate, chain)),
    )
