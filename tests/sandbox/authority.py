"""A certificate authority for tests that writes what it signs into a directory."""

import base64
import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

KEY_FORMAT = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """The files of a certificate and its key."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Signs server and client certificates."""

    directory: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, directory: Path) -> Self:
        """A new authority with a directory of its own."""
        directory.mkdir(parents=True)
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"{directory.name}")
        builder = _builder(name, name, key.public_key())
        # Python 3.13 verifies strictly: an authority must say what its key is for and how to recognise it.
        for extension, critical in (
            (x509.BasicConstraints(ca=True, path_length=None), True),
            (SIGNS_CERTIFICATES, True),
            (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        ):
            builder = builder.add_extension(extension, critical=critical)
        certificate = builder.sign(key, hashes.SHA256())
        authority = cls(directory=directory, certificate=certificate, key=key)
        authority.file.write_bytes(certificate.public_bytes(Encoding.PEM))
        return authority

    @property
    def file(self) -> Path:
        """The authority's own certificate."""
        return self.directory / "ca.crt"

    @property
    def bundle(self) -> str:
        """What a caBundle field takes."""
        return base64.b64encode(self.file.read_bytes()).decode()

    def issue(
        self, common_name: str, *, groups: tuple[str, ...] = (), hosts: tuple[str, ...] = ()
    ) -> KeyPair:
        """A new certificate for a user (with groups) or for a server (with host names, and 127.0.0.1)."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(host) for host in hosts]
        loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        builder = _builder(_name(common_name, groups), self.certificate.subject, key.public_key())
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        for extension in (x509.SubjectAlternativeName([*names, loopback]), signer):
            builder = builder.add_extension(extension, critical=False)
        pair = KeyPair(
            certificate=self.directory / f"{common_name}.crt", key=self.directory / f"{common_name}.key"
        )
        pair.certificate.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM))
        pair.key.write_bytes(key.private_bytes(*KEY_FORMAT))
        return pair


def _name(common_name: str, groups: tuple[str, ...] = ()) -> x509.Name:
    organizations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*organizations, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=1))
    )
