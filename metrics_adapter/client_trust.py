"""Whose client certificates and headers are believed, as kube-apiserver publishes it. Pure.

It stands in the ConfigMap kube-system/extension-apiserver-authentication: one CA for the API server when it
acts as a front proxy (and then its X-Remote-… headers say who asks), another one for clients that come by
themselves. They must not be mixed up: any client of the cluster holds a certificate of the second and could
be anyone if it counted as the first. TLS cannot tell which CA was used, so a certificate is checked here
again, against one of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote

from cryptography import x509
from cryptography.x509.oid import NameOID

from metrics_adapter.users import User
from shared.certificates import certificates_in
from shared.client_certificates import Certificates, common_name, subject_values
from shared.errors import CertificateError

CONFIG_MAP = {"namespace": "kube-system", "name": "extension-apiserver-authentication"}


class Headers(Protocol):
    """Request headers: names in any case, several values for one name."""

    def getall(self, key: str, default: list[str], /) -> Sequence[str]: ...

    def items(self) -> Iterable[tuple[str, str]]:
        """Name and value of each, in their order."""

    def __iter__(self) -> Iterator[str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTrust:
    """The ConfigMap, parsed."""

    client_cas: Certificates = ()
    proxy_cas: Certificates = ()
    allowed_names: frozenset[str] = frozenset()
    """Common names a front proxy may have; empty allows every certificate of its CA."""
    username_headers: tuple[str, ...] = ()
    uid_headers: tuple[str, ...] = ()
    group_headers: tuple[str, ...] = ()
    extra_header_prefixes: tuple[str, ...] = ()
    ca_bundle: str = ""
    """Both CAs as PEM, for the TLS handshake, which takes either."""

    def allows(self, certificate: x509.Certificate) -> bool:
        """Whether its name is that of a front proxy."""
        return not self.allowed_names or common_name(certificate) in self.allowed_names


def client_trust_from(data: Mapping[str, str]) -> ClientTrust:
    """The ConfigMap's data, parsed; raises CertificateError naming the key that cannot be used."""
    client_ca = data.get("client-ca-file", "")
    proxy_ca = data.get("requestheader-client-ca-file", "")
    return ClientTrust(
        client_cas=_certificates("client-ca-file", client_ca),
        proxy_cas=_certificates("requestheader-client-ca-file", proxy_ca),
        allowed_names=frozenset(_names(data, "requestheader-allowed-names")),
        username_headers=_names(data, "requestheader-username-headers"),
        uid_headers=_names(data, "requestheader-uid-headers"),
        group_headers=_names(data, "requestheader-group-headers"),
        extra_header_prefixes=_names(data, "requestheader-extra-headers-prefix"),
        ca_bundle="\n".join(filter(None, (client_ca.strip(), proxy_ca.strip()))),
    )


def _certificates(key: str, pem: str) -> Certificates:
    try:
        return certificates_in(pem.encode())
    except CertificateError as error:
        raise CertificateError(f"{key} of {CONFIG_MAP['name']} holds no PEM certificates.") from error


def _names(data: Mapping[str, str], key: str) -> tuple[str, ...]:
    try:
        names = json.loads(data.get(key) or "[]")
    except ValueError as error:
        raise CertificateError(f"{key} of {CONFIG_MAP['name']} is no JSON list.") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CertificateError(f"{key} of {CONFIG_MAP['name']} is no JSON list of strings.")
    return tuple(names)


def user_of_certificate(certificate: x509.Certificate) -> User | None:
    """CN is the user, each O a group; None without a CN."""
    name = common_name(certificate)
    return User(name=name, groups=subject_values(certificate, NameOID.ORGANIZATION_NAME)) if name else None


def user_of_headers(headers: Headers, trust: ClientTrust) -> User | None:
    """Whom the front proxy speaks for; None when it names nobody."""
    name = _first(headers, trust.username_headers)
    if not name:
        return None
    return User(
        name=name,
        uid=_first(headers, trust.uid_headers),
        groups=tuple(group for header in trust.group_headers for group in headers.getall(header, [])),
        extra=_extra(headers, trust.extra_header_prefixes),
    )


def _first(headers: Headers, names: tuple[str, ...]) -> str:
    return next((value for name in names for value in headers.getall(name, []) if value), "")


def _extra(headers: Headers, prefixes: tuple[str, ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    extra: dict[str, tuple[str, ...]] = {}
    lowered = tuple(prefix.lower() for prefix in prefixes)
    names = map(str.lower, headers)
    for header in dict.fromkeys(name for name in names if name.startswith(lowered)):
        for prefix in lowered:
            if header.startswith(prefix):
                key = unquote(header.removeprefix(prefix)).lower()
                extra[key] = extra.get(key, ()) + tuple(headers.getall(header, []))
    return tuple(sorted(extra.items()))
