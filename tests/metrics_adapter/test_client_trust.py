"""Whose certificates and headers are believed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from multidict import CIMultiDict

from metrics_adapter.client_trust import (
    client_trust_from,
    common_name,
    user_of_certificate,
    user_of_headers,
    verify_client,
)
from metrics_adapter.users import User
from shared.certificates import KeyPair, make_leaf
from shared.errors import CertificateError
from tests.metrics_adapter.certificates import Authority, expired, for_servers, namesake

NOW = datetime.now(UTC)


def is_verified(leaf: KeyPair, ca: KeyPair, now: datetime = NOW) -> bool:
    return verify_client(leaf.certificate, chain=(), cas=(ca.certificate,), now=now)


def test_a_client_certificate_of_the_ca_is_believed(authority: Authority) -> None:
    """It needs no subject alternative name: Kubernetes' clients have none."""
    assert is_verified(authority.front_proxy(), authority.proxy_ca)
    assert is_verified(authority.client(), authority.client_ca)


def test_a_certificate_of_the_other_ca_is_not(authority: Authority) -> None:
    """Else any client of the cluster could act as the front proxy and be anyone."""
    assert not is_verified(authority.client("front-proxy-client"), authority.proxy_ca)
    assert not is_verified(authority.front_proxy(), authority.client_ca)


def test_the_name_of_the_ca_is_not_enough(authority: Authority) -> None:
    impostor = namesake(authority.proxy_ca)
    leaf = make_leaf(impostor, common_name="front-proxy-client", is_client=True)
    assert not is_verified(leaf, authority.proxy_ca)


def test_an_expired_certificate_is_not_believed(authority: Authority) -> None:
    assert not is_verified(expired(authority.proxy_ca, "front-proxy-client"), authority.proxy_ca)


def test_a_certificate_for_servers_is_not_believed(authority: Authority) -> None:
    assert not is_verified(for_servers(authority.proxy_ca, "front-proxy-client"), authority.proxy_ca)


def test_without_a_ca_nobody_is_believed(authority: Authority) -> None:
    assert not verify_client(authority.front_proxy().certificate, chain=(), cas=(), now=NOW)


def test_both_cas_of_a_rotation_are_believed(authority: Authority) -> None:
    new = namesake(authority.proxy_ca)
    leaf = make_leaf(new, common_name="front-proxy-client", is_client=True)
    cas = (authority.proxy_ca.certificate, new.certificate)
    assert verify_client(leaf.certificate, chain=(), cas=cas, now=NOW)
    assert verify_client(authority.front_proxy().certificate, chain=(), cas=cas, now=NOW)


def ed25519(
    subject: str, issuer: str, key: Ed25519PrivateKey, *extensions: x509.ExtensionType
) -> x509.Certificate:
    """Signed with `key`, which is its own, too."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, None)


def test_a_ca_with_an_ed25519_key_is_believed_as_in_go() -> None:
    """As long as it, and the certificate, are for clients."""
    key, is_ca = Ed25519PrivateKey.generate(), x509.BasicConstraints(ca=True, path_length=None)
    servers = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    leaf = ed25519("front-proxy-client", "ca", key)
    for ca, certificate, believed in (
        (ed25519("ca", "ca", key, is_ca), leaf, True),
        (ed25519("ca", "ca", key, is_ca), ed25519("front-proxy-client", "ca", key, servers), False),
        (ed25519("ca", "ca", key, is_ca, servers), leaf, False),
        (ed25519("ca", "ca", Ed25519PrivateKey.generate(), is_ca), leaf, False),
    ):
        assert verify_client(certificate, chain=(), cas=(ca,), now=NOW) is believed


def test_the_config_map_of_a_real_api_server_is_understood(recording: Callable[[str], Any]) -> None:
    trust = client_trust_from(recording("f1")["configmap"]["data"])
    assert [common_name(ca) for ca in (*trust.client_cas, *trust.proxy_cas)] == [
        "lab-ca",
        "lab-front-proxy-ca",
    ]
    assert trust.allowed_names == {"front-proxy-client"}
    assert trust.username_headers == ("X-Remote-User",)
    assert trust.uid_headers == ()
    assert trust.ca_bundle.count("BEGIN CERTIFICATE") == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("client-ca-file", "no PEM"),
        ("requestheader-client-ca-file", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"),
        ("requestheader-allowed-names", "front-proxy-client"),
        ("requestheader-group-headers", '{"X-Remote-Group": 1}'),
        ("requestheader-username-headers", "[1]"),
    ],
)
def test_a_key_that_cannot_be_used_is_named(authority: Authority, key: str, value: str) -> None:
    with pytest.raises(CertificateError, match=key):
        authority.trust(**{key: value})


def test_an_empty_config_map_trusts_nobody() -> None:
    trust = client_trust_from({})
    assert (trust.client_cas, trust.proxy_cas, trust.ca_bundle) == ((), (), "")


def test_a_subject_is_a_user_and_groups(authority: Authority) -> None:
    """CN is the user, each O a group."""
    leaf = authority.client("alice", "dev", "ops").certificate
    assert user_of_certificate(leaf) == User(name="alice", groups=("dev", "ops"))


def test_a_subject_without_a_common_name_is_nobody(authority: Authority) -> None:
    nameless = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.client_ca.certificate.subject)
        .public_key(authority.client_ca.key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW.replace(year=NOW.year + 1, day=1))
        .sign(authority.client_ca.key, hashes.SHA256())
    )
    assert user_of_certificate(nameless) is None


def headers_of(request: dict[str, Any]) -> CIMultiDict[str]:
    return CIMultiDict(request["headers"])


def test_the_headers_of_a_real_hpa_controller_name_it(
    authority: Authority, recording: Callable[[str], Any]
) -> None:
    """Groups are repeated headers; the key of an extra is percent-encoded and in any case."""
    request = recording("b1")["cases"]["value_no_selector"]["requests"][0]
    assert user_of_headers(headers_of(request), authority.trust()) == User(
        name="system:serviceaccount:kube-system:horizontal-pod-autoscaler",
        groups=("system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"),
        extra=(
            ("authentication.kubernetes.io/credential-id", ("JTI=f79d0496-31ec-4432-afc2-972c32fc2a60",)),
        ),
    )


def test_the_uid_is_read_where_the_config_map_names_its_header(
    authority: Authority, recording: Callable[[str], Any]
) -> None:
    """It is sent either way; without the key another proxy might have passed a client's header on."""
    request = recording("b1")["cases"]["value_no_selector"]["requests"][0]
    trust = authority.trust(requestheader_uid_headers='["X-Remote-Uid"]')
    user = user_of_headers(headers_of(request), trust)
    assert user is not None
    assert user.uid == "c8ca2b93-2236-4aa4-9a89-09f5ecbae77a"


def test_the_first_username_header_with_a_value_counts(authority: Authority) -> None:
    trust = authority.trust(requestheader_username_headers='["X-Other-User", "X-Remote-User"]')
    headers = CIMultiDict([("X-Other-User", ""), ("X-Remote-User", "bob"), ("x-remote-user", "eve")])
    assert user_of_headers(headers, trust) == User(name="bob")


def test_without_a_username_there_is_no_user(authority: Authority) -> None:
    assert user_of_headers(CIMultiDict([("X-Remote-Group", "system:masters")]), authority.trust()) is None


def test_values_of_one_extra_are_kept_together(authority: Authority) -> None:
    headers = CIMultiDict(
        [("X-Remote-User", "bob"), ("X-Remote-Extra-Scopes", "a"), ("x-remote-extra-scopes", "b")]
    )
    user = user_of_headers(headers, authority.trust())
    assert user is not None
    assert user.extra == (("scopes", ("a", "b")),)
