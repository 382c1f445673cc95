"""Which client certificates are let in: those of the CAs in a file, by name, as both are at this moment."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from shared.certificates import as_pem, certificates_in
from shared.client_certificates import Certificates, Presented, names_of, verify_client
from shared.errors import CertificateError
from shared.tls import fingerprint

log = logging.getLogger(__name__)


class AllowedClients:
    """Reads the file again whenever it changes; one that cannot be used leaves the last good one in force."""

    def __init__(
        self,
        file: Path,
        *,
        names: frozenset[str] = frozenset(),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`names` are common or subject alternative names; without any, each certificate of the CAs will do.

        Raises CertificateError when the file cannot be used now.
        """
        self._file = file
        self._names = names
        self._now = now
        self._problem = ""
        self._seen = fingerprint(file)
        self._cas = self._read()

    def ca_bundle(self) -> str:
        """The CAs as PEM, for the handshake."""
        return as_pem(self._current()).decode()

    def objection(self, presented: Presented | None) -> str | None:
        """Why whoever presented this is not let in, as a sentence; None for whom we let in."""
        if presented is None:
            return "A client certificate is wanted here; only the API server is given an answer."
        chain, cas = presented.chain, self._current()
        if not verify_client(presented.leaf, chain=chain, cas=cas, now=self._now()):
            return "The client certificate is out of date, not meant for clients, or of another CA."
        if self._names and not self._names & names_of(presented.leaf):
            return "The client certificate has none of the names that are let in."
        return None

    def _current(self) -> Certificates:
        try:
            seen = fingerprint(self._file)
            if seen != self._seen:
                self._seen = seen
                self._cas = self._read()
                log.info("The CAs of our clients changed and are in use.")
            self._problem = ""
        except CertificateError as error:
            if self._problem != str(error):
                log.error("The CAs of our clients stay as they were: %s", error)
            self._problem = str(error)
        return self._cas

    def _read(self) -> Certificates:
        try:
            found = certificates_in(self._file.read_bytes())
        except OSError as error:
            raise CertificateError(f"{self._file} cannot be read: {error.strerror}") from error
        except CertificateError as error:
            raise CertificateError(f"{self._file} cannot be used: {error}") from error
        if not found:
            raise CertificateError(
                f"{self._file} is empty: it must hold the CA of the API server's certificate"
            )
        return found
