"""Client certificates: whether CAs vouch for one, and whom it names. Pure.

TLS cannot tell which of several CAs was used, nor does it look again at connections that are kept open; so
what a client presented is checked here again, by those who ask who it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.ed25519_issuers import ed25519_issuers

Certificates = tuple[x509.Certificate, ...]

MOST_REMEMBERED = 64
"""Client certificates; a cluster has few that come here, and a handshake refuses those of nobody's CA."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """The client certificate of a connection, as yet unverified, and the intermediates that came with it."""

    leaf: x509.Certificate
    chain: Certificates = ()


class Vouching:
    """Remembers for whom CAs vouch: signatures of a connection's certificate are the same at each request.

    What may change the outcome is still looked at each time: the CAs themselves, and the clock.
    """

    def __init__(self) -> None:
        self._vouched: dict[Presented, _Vouched] = {}

    def vouch(self, presented: Presented, *, cas: Certificates, now: datetime) -> bool:
        """As `verify_client`."""
        known = self._vouched.get(presented)
        if known is not None and known.cas is cas and known.since <= now <= known.until:
            return True
        self._vouched.pop(presented, None)
        if not verify_client(presented.leaf, chain=presented.chain, cas=cas, now=now):
            return False
        if len(self._vouched) >= MOST_REMEMBERED:
            self._vouched.clear()
        self._vouched[presented] = _Vouched(cas=cas, since=now, until=_first_end(presented, cas, now=now))
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Vouched:
    cas: Certificates
    since: datetime
    until: datetime
    """When the first certificate ends that may have been needed."""


def _first_end(presented: Presented, cas: Certificates, *, now: datetime) -> datetime:
    """Of those that are over already none was of use."""
    ends = (certificate.not_valid_after_utc for certificate in (presented.leaf, *presented.chain, *cas))
    return min(end for end in ends if end >= now)


def verify_client(leaf: x509.Certificate, *, chain: Certificates, cas: Certificates, now: datetime) -> bool:
    """Whether `cas` vouch for this client certificate at `now`; `chain` are intermediates it came with."""
    return refusal_of(leaf, chain=chain, cas=cas, now=now) is None


def refusal_of(
    leaf: x509.Certificate, *, chain: Certificates, cas: Certificates, now: datetime
) -> str | None:
    """Why `cas` do not vouch for it; None when they do."""
    if not cas:
        return "no CA is known that could vouch for it"
    if not _is_for_clients(leaf):
        return "its extended key usage is not that of clients"
    builder = verification.PolicyBuilder().store(verification.Store(list(cas))).time(now)
    try:
        builder.extension_policies(
            ca_policy=_CA_POLICY, ee_policy=_LEAF_POLICY
        ).build_client_verifier().verify(leaf, list(chain))
    except verification.VerificationError as error:
        is_vouched_for = any(map(_is_for_clients, ed25519_issuers(leaf, cas, now)))
        return None if is_vouched_for else str(error)
    return None


# The defaults are the public web's: they want a subject alternative name, which Kubernetes' clients have not.
_LEAF_POLICY = verification.ExtensionPolicy.permit_all()
_CA_POLICY = verification.ExtensionPolicy.permit_all().require_present(
    x509.BasicConstraints, verification.Criticality.AGNOSTIC, None
)


def _is_for_clients(leaf: x509.Certificate) -> bool:
    """As Go reads it: without the extension a certificate is good for everything."""
    try:
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return bool({ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(usages))


@lru_cache(maxsize=MOST_REMEMBERED)
def common_name(certificate: x509.Certificate) -> str:
    """CN of the subject; empty without one."""
    return next(iter(subject_values(certificate, NameOID.COMMON_NAME)), "")


def names_of(certificate: x509.Certificate) -> frozenset[str]:
    """Its common name and its subject alternative names: DNS names, addresses and URIs."""
    names = {common_name(certificate)}
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset(filter(None, names))
    return frozenset(filter(None, names | {str(general.value) for general in found}))


def subject_values(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> tuple[str, ...]:
    """What its subject says under `oid`, in its order."""
    return tuple(str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(oid))
