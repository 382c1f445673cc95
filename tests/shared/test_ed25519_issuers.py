"""A CA with an Ed25519 key vouches for certificates as it does in Go, and for nothing more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from shared.ed25519_issuers import ed25519_issuers

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
KEY = Ed25519PrivateKey.generate()
IS_CA = x509.BasicConstraints(ca=True, path_length=None)
ONLY_EXAMPLE = x509.NameConstraints(permitted_subtrees=[x509.DNSName("example.com")], excluded_subtrees=None)
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


def usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def certificate(
    *extensions: x509.ExtensionType,
    subject: str = "front-proxy-ca",
    issuer: str = "front-proxy-ca",
    key: Ed25519PrivateKey | EllipticCurvePrivateKey = KEY,
    signed_by: Ed25519PrivateKey | EllipticCurvePrivateKey = KEY,
    begins: datetime = NOW - DAY,
    ends: datetime = NOW + DAY,
    is_critical: bool = True,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=is_critical)
    return builder.sign(signed_by, None if isinstance(signed_by, Ed25519PrivateKey) else hashes.SHA256())


CA = certificate(IS_CA)
LEAF = certificate(subject="front-proxy-client", key=Ed25519PrivateKey.generate())
OTHER_KEY = generate_ec(SECP256R1())


@pytest.mark.parametrize(
    ("ca", "leaf"),
    [
        (CA, LEAF),
        (CA, certificate(subject="front-proxy-client", key=OTHER_KEY)),
        (certificate(IS_CA, usage(signs_certificates=True)), LEAF),
        (CA, certificate(UNKNOWN, subject="front-proxy-client", is_critical=False)),
    ],
)
def test_what_such_a_ca_has_issued_is_believed(ca: x509.Certificate, leaf: x509.Certificate) -> None:
    others = [certificate(IS_CA, signed_by=OTHER_KEY, key=OTHER_KEY), certificate(IS_CA, subject="another")]
    assert list(ed25519_issuers(leaf, [*others, ca], NOW)) == [ca]


@pytest.mark.parametrize(
    ("ca", "leaf"),
    [
        (CA, certificate(subject="a", signed_by=Ed25519PrivateKey.generate())),
        (CA, certificate(subject="a", issuer="another")),
        (CA, certificate(subject="a", begins=NOW - 2 * DAY, ends=NOW - DAY)),
        (CA, certificate(subject="a", begins=NOW + DAY / 2)),
        (certificate(IS_CA, begins=NOW - 2 * DAY, ends=NOW - DAY), LEAF),
        (certificate(), LEAF),
        (certificate(x509.BasicConstraints(ca=False, path_length=None)), LEAF),
        (certificate(IS_CA, usage(signs_certificates=False)), LEAF),
        (certificate(IS_CA, ONLY_EXAMPLE, is_critical=False), LEAF),
        (CA, certificate(UNKNOWN, subject="a")),
        (
            certificate(IS_CA, key=OTHER_KEY, signed_by=OTHER_KEY),
            certificate(subject="a", signed_by=OTHER_KEY),
        ),
    ],
    ids=[
        "another key",
        "another issuer",
        "expired",
        "not begun",
        "expired CA",
        "no basic constraints",
        "no CA",
        "a CA that may not sign certificates",
        "a CA for some names only",
        "something critical that nobody understands",
        "a key of another kind, which the other verifier judges",
    ],
)
def test_what_it_does_not_vouch_for_is_not(ca: x509.Certificate, leaf: x509.Certificate) -> None:
    assert list(ed25519_issuers(leaf, [ca], NOW)) == []


def test_a_client_of_the_ca_cannot_issue() -> None:
    """A chain of more than one is not looked at."""
    key = Ed25519PrivateKey.generate()
    client = certificate(subject="mallory", key=key)
    forged = certificate(subject="front-proxy-client", issuer="mallory", signed_by=key)
    assert list(ed25519_issuers(forged, [CA, client], NOW)) == []
