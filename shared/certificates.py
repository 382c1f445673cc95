"""A CA of our own and certificates under it: made, read and kept as PEM. ECDSA P-256 throughout.

Every extension that Python 3.13 and Go look at is there: key identifiers, key usages, basic constraints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.errors import CertificateError

CA_DAYS = 3650
LEAF_DAYS = 365
BACKDATED = timedelta(hours=1)
"""Validity begins so much earlier: the clock of whoever verifies may be behind ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A certificate and its private key, as PEM."""

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)

    @property
    def certificate(self) -> x509.Certificate:
        """Raises CertificateError."""
        try:
            return x509.load_pem_x509_certificate(self.certificate_pem)
        except ValueError as error:
            raise CertificateError("the certificate is no PEM certificate") from error

    @property
    def key(self) -> ec.EllipticCurvePrivateKey:
        """Raises CertificateError."""
        try:
            key = serialization.load_pem_private_key(self.key_pem, password=None)
        except (ValueError, TypeError) as error:
            raise CertificateError("the private key is no unencrypted PEM key") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise CertificateError("the private key is no elliptic curve key, as those made here are")
        return key

    def checked(self) -> KeyPair:
        """Itself; raises CertificateError when its parts cannot be read or do not belong together."""
        if self.certificate.public_key() != self.key.public_key():
            raise CertificateError("the private key is not that of the certificate")
        return self

    def begins_at(self) -> datetime:
        """When it was made."""
        return self.certificate.not_valid_before_utc + BACKDATED

    def lasts_until(self) -> datetime:
        """The end of its validity."""
        return self.certificate.not_valid_after_utc

    def names(self) -> frozenset[str]:
        """The DNS names and addresses it is good for."""
        try:
            names = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return frozenset()
        return frozenset(map(str, (general.value for general in names)))

    def is_under(self, ca: KeyPair) -> bool:
        """Whether `ca` signed it."""
        return self.is_signed_by(ca.certificate)

    def is_signed_by(self, ca: x509.Certificate) -> bool:
        """Whether this CA signed it."""
        try:
            self.certificate.verify_directly_issued_by(ca)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True


def ca_name(common_name: str) -> x509.Name:
    """The subject of a CA that is made here."""
    return _subject(common_name, ())


def make_ca(common_name: str, *, days: int = CA_DAYS, now: datetime | None = None) -> KeyPair:
    """A CA that signs leaves and nothing below them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = ca_name(common_name)
    builder = _builder(key, subject=name, issuer=name, days=days, now=now)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return _pair(builder.sign(key, hashes.SHA256()), key)


def make_leaf(
    ca: KeyPair,
    *,
    common_name: str,
    names: Sequence[str] = (),
    addresses: Sequence[str] = (),
    days: int = LEAF_DAYS,
    is_client: bool = False,
    organizations: Sequence[str] = (),
    now: datetime | None = None,
) -> KeyPair:
    """A certificate for a server, or with `is_client` for a client: Kubernetes' user and groups.

    Raises CertificateError when the CA cannot be used.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = ca.certificate
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH if is_client else ExtendedKeyUsageOID.SERVER_AUTH
    builder = _builder(
        key, subject=_subject(common_name, organizations), issuer=issuer.subject, days=days, now=now
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    builder = builder.add_extension(_authority_of(issuer), critical=False)
    if names or addresses:
        general = [*map(x509.DNSName, names), *(x509.IPAddress(ip_address(a)) for a in addresses)]
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    return _pair(builder.sign(ca.key, hashes.SHA256()), key)


def certificates_in(pem: bytes) -> tuple[x509.Certificate, ...]:
    """All of them, none where nothing stands; raises CertificateError for what is no PEM."""
    if not pem.strip():
        return ()
    try:
        return tuple(x509.load_pem_x509_certificates(pem))
    except ValueError as error:
        raise CertificateError("it holds no PEM certificates") from error


def as_pem(certificates: Iterable[x509.Certificate]) -> bytes:
    """One after the other."""
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def save_key_pair(pair: KeyPair, *, certificate_file: Path, key_file: Path) -> None:
    """Write both as PEM; the key so that only its owner can read it, and each file in one step."""
    _replace_file(key_file, pair.key_pem, mode=0o600)
    _replace_file(certificate_file, pair.certificate_pem, mode=0o644)


def load_key_pair(*, certificate_file: Path, key_file: Path) -> KeyPair:
    """Read both; raises CertificateError when they cannot be read or do not belong together."""
    try:
        pair = KeyPair(certificate_pem=certificate_file.read_bytes(), key_pem=key_file.read_bytes())
    except OSError as error:
        raise CertificateError(f"{error.filename} cannot be read: {error.strerror}") from error
    return pair.checked()


def _builder(
    key: ec.EllipticCurvePrivateKey, *, subject: x509.Name, issuer: x509.Name, days: int, now: datetime | None
) -> x509.CertificateBuilder:
    moment = now or datetime.now(UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - BACKDATED)
        .not_valid_after(moment + timedelta(days=days))
        .add_extension(identifier, critical=False)
    )


def _subject(common_name: str, organizations: Sequence[str]) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organizations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _authority_of(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> KeyPair:
    return KeyPair(
        certificate_pem=certificate.public_bytes(serialization.Encoding.PEM),
        key_pem=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _replace_file(path: Path, content: bytes, *, mode: int) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    beside.touch(mode=mode, exist_ok=False)
    beside.write_bytes(content)
    beside.replace(path)
