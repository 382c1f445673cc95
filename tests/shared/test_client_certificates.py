"""Which client certificates are believed, and whom they name."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from shared.certificates import KeyPair, make_ca, make_leaf
from shared.client_certificates import (
    MOST_REMEMBERED,
    Presented,
    Vouching,
    common_name,
    names_of,
    verify_client,
)
from tests.metrics_adapter.certificates import expired, for_servers, namesake
from tests.shared.test_ed25519_issuers import certificate

NOW = datetime.now(UTC)
CA = make_ca("lab-ca")
LEAF = make_leaf(CA, common_name="front-proxy-client", is_client=True)


def is_verified(leaf: KeyPair, ca: KeyPair = CA) -> bool:
    return verify_client(leaf.certificate, chain=(), cas=(ca.certificate,), now=NOW)


def test_a_client_certificate_of_the_ca_is_believed() -> None:
    """It needs no subject alternative name: Kubernetes' clients have none."""
    assert is_verified(LEAF)


def test_a_certificate_of_another_ca_is_not() -> None:
    """Else any client of the cluster could act as the front proxy and be anyone."""
    assert not is_verified(make_leaf(make_ca("other"), common_name="front-proxy-client", is_client=True))


def test_the_name_of_the_ca_is_not_enough() -> None:
    impostor = namesake(CA)
    assert not is_verified(make_leaf(impostor, common_name="front-proxy-client", is_client=True))


def test_an_expired_certificate_is_not_believed() -> None:
    assert not is_verified(expired(CA, "front-proxy-client"))


def test_a_certificate_for_servers_is_not_believed() -> None:
    assert not is_verified(for_servers(CA, "front-proxy-client"))


def test_without_a_ca_nobody_is_believed() -> None:
    assert not verify_client(LEAF.certificate, chain=(), cas=(), now=NOW)


def test_both_cas_of_a_rotation_are_believed() -> None:
    new = namesake(CA)
    leaf = make_leaf(new, common_name="front-proxy-client", is_client=True)
    cas = (CA.certificate, new.certificate)
    assert verify_client(leaf.certificate, chain=(), cas=cas, now=NOW)
    assert verify_client(LEAF.certificate, chain=(), cas=cas, now=NOW)


def test_its_names_are_its_common_name_and_the_alternative_ones() -> None:
    leaf = make_leaf(CA, common_name="apiserver", names=["api.example.com"], addresses=["10.0.0.1"])
    assert names_of(leaf.certificate) == {"apiserver", "api.example.com", "10.0.0.1"}
    assert names_of(LEAF.certificate) == {common_name(LEAF.certificate)} == {"front-proxy-client"}


def ed25519(
    subject: str, issuer: str, key: Ed25519PrivateKey, *extensions: x509.ExtensionType
) -> x509.Certificate:
    """Signed with `key`, which is its own, too."""
    return certificate(*extensions, subject=subject, issuer=issuer, key=key, signed_by=key, is_critical=False)


def test_a_ca_with_an_ed25519_key_is_believed_as_in_go() -> None:
    """As long as it, and the certificate, are for clients."""
    key, is_ca = Ed25519PrivateKey.generate(), x509.BasicConstraints(ca=True, path_length=None)
    servers = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    leaf = ed25519("front-proxy-client", "ca", key)
    for ca, presented, believed in (
        (ed25519("ca", "ca", key, is_ca), leaf, True),
        (ed25519("ca", "ca", key, is_ca), ed25519("front-proxy-client", "ca", key, servers), False),
        (ed25519("ca", "ca", key, is_ca, servers), leaf, False),
        (ed25519("ca", "ca", Ed25519PrivateKey.generate(), is_ca), leaf, False),
    ):
        assert verify_client(presented, chain=(), cas=(ca,), now=NOW) is believed


DAY = timedelta(days=1)
CAS = (CA.certificate,)


def test_a_certificate_that_cas_vouched_for_is_looked_at_again_when_they_change() -> None:
    """Else a CA that was withdrawn would be believed on connections that are kept open."""
    vouching, presented = Vouching(), Presented(leaf=LEAF.certificate)
    others = (make_ca("other").certificate,)
    assert [vouching.vouch(presented, cas=cas, now=NOW) for cas in (CAS, CAS, others, (), CAS)] == [
        *(True, True, False, False, True)
    ]


def test_a_certificate_that_cas_vouched_for_expires_all_the_same() -> None:
    vouching = Vouching()
    leaf = make_leaf(CA, common_name="front-proxy-client", is_client=True, days=2)
    presented, end = Presented(leaf=leaf.certificate), leaf.certificate.not_valid_after_utc
    times = (NOW, end - timedelta(seconds=1), end + timedelta(seconds=1), NOW, NOW - 3650 * DAY)
    assert [vouching.vouch(presented, cas=CAS, now=now) for now in times] == [True, True, False, True, False]


def test_a_ca_that_is_over_does_not_keep_the_others_from_vouching() -> None:
    """A bundle may hold the CA of before."""
    over = make_ca("lab-ca", days=1, now=NOW - 3 * DAY)
    vouching, presented = Vouching(), Presented(leaf=LEAF.certificate)
    cas = (over.certificate, CA.certificate)
    assert [vouching.vouch(presented, cas=cas, now=NOW) for _ in range(2)] == [True, True]


def test_one_certificate_says_nothing_of_another() -> None:
    """However many there are, and although all have one name."""
    vouching, impostor = Vouching(), namesake(CA)
    for _ in range(MOST_REMEMBERED + 1):
        leaf = make_leaf(CA, common_name="a", is_client=True)
        other = make_leaf(impostor, common_name="a", is_client=True)
        assert vouching.vouch(Presented(leaf=leaf.certificate), cas=CAS, now=NOW)
        assert not vouching.vouch(Presented(leaf=other.certificate), cas=CAS, now=NOW)
