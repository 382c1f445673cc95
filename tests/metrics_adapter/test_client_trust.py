"""Whose certificates and headers are believed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from multidict import CIMultiDict

from metrics_adapter.client_trust import (
    client_trust_from,
    user_of_certificate,
    user_of_headers,
)
from metrics_adapter.front_proxy_users import LARGEST_REMEMBERED, MOST_REMEMBERED, FrontProxyUsers
from metrics_adapter.users import User
from shared.client_certificates import common_name
from shared.errors import CertificateError
from tests.metrics_adapter.certificates import Authority

NOW = datetime.now(UTC)


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


def test_who_asked_before_is_known_by_the_same_headers_only(
    authority: Authority, recording: Callable[[str], Any]
) -> None:
    """Whatever stands in the others, of which the Audit-Id is another one each time."""
    request = recording("b1")["cases"]["value_no_selector"]["requests"][0]
    trust, users, headers = authority.trust(), FrontProxyUsers(), headers_of(request)
    first = users.user_of(headers, trust)
    headers["Audit-Id"] = "another one"
    assert users.user_of(headers, trust) is first
    assert first == user_of_headers(headers, trust)
    for name in ("x-remote-extra-scopes", "X-Remote-Group"):
        changed = headers.copy()
        changed.add(name, "more")
        assert users.user_of(changed, trust) == user_of_headers(changed, trust) != first


def test_another_trust_reads_the_headers_anew(authority: Authority) -> None:
    users, headers = FrontProxyUsers(), CIMultiDict([("X-Remote-User", "bob"), ("X-Other-User", "eve")])
    assert users.user_of(headers, authority.trust()) == User(name="bob")
    other = authority.trust(requestheader_username_headers='["X-Other-User"]')
    assert users.user_of(headers, other) == User(name="eve")
    nobody = authority.trust(requestheader_username_headers="[]")
    assert users.user_of(headers, nobody) is None


def test_only_so_many_users_are_remembered_and_no_long_ones(authority: Authority) -> None:
    users, trust = FrontProxyUsers(), authority.trust()
    for number in range(3 * MOST_REMEMBERED):
        users.user_of(CIMultiDict([("X-Remote-User", f"user-{number}")]), trust)
    long = CIMultiDict([("X-Remote-User", "bob"), ("X-Remote-Group", "g" * LARGEST_REMEMBERED)])
    assert users.user_of(long, trust) is not users.user_of(long, trust)
    assert len(users._users) <= MOST_REMEMBERED
