"""Certificates that a CA with an Ed25519 key has issued itself. Pure.

Go takes them, and so do kube-apiserver and its front proxy; the verifier that we use elsewhere keeps to the
public web's rules, which know no such keys. Nothing but their kind is made up for here: who has a weak key
is refused, and so is a chain of more than one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_UNDERSTOOD = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.SubjectAlternativeName)


def ed25519_issuers(
    leaf: x509.Certificate, cas: Iterable[x509.Certificate], now: datetime
) -> Iterator[x509.Certificate]:
    """Those of `cas` that are such a CA and have issued the certificate; all are valid at `now`.

    What they are good for is the caller's to look at.
    """
    for ca in cas:
        if _has_issued(ca, leaf) and _is_ca(ca) and _is_valid(ca, now) and _is_valid(leaf, now):
            yield ca


def _is_ca(certificate: x509.Certificate) -> bool:
    extensions = certificate.extensions
    try:
        if not extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        return extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound as missing:
        return missing.oid == x509.KeyUsage.oid  # without it a key is good for everything


def _is_valid(certificate: x509.Certificate, now: datetime) -> bool:
    """Also that it says nothing that must be understood and is not, as names that a CA may not vouch for."""
    is_understood = all(
        isinstance(extension.value, _UNDERSTOOD)
        or not (extension.critical or isinstance(extension.value, x509.NameConstraints))
        for extension in certificate.extensions
    )
    return is_understood and certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _has_issued(ca: x509.Certificate, leaf: x509.Certificate) -> bool:
    try:
        if not isinstance(ca.public_key(), Ed25519PublicKey):
            return False
        leaf.verify_directly_issued_by(ca)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True
