"""Certificates of our own making, as strict clients and Kubernetes look at them."""

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from shared.certificates import KeyPair, load_key_pair, make_ca, make_leaf, save_key_pair
from shared.errors import CertificateError

CA = make_ca("test CA")


def handshake(server: KeyPair, *, ca: KeyPair, hostname: str, directory: Path) -> None:
    """What a strict client does, without a socket: raises ssl.SSLError when it would refuse."""
    files = {"certificate_file": directory / "crt", "key_file": directory / "key"}
    save_key_pair(server, **files)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(files["certificate_file"], files["key_file"])
    client = ssl.create_default_context(cadata=ca.certificate_pem.decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=hostname)
    theirs = serving.wrap_bio(to_server, to_client, server_side=True)
    for side in (ours, theirs, ours, theirs):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue


@pytest.mark.parametrize("name", ["hook.system.svc", "127.0.0.1"])
def test_a_strict_client_takes_a_serving_certificate_by_name_and_address(name: str, tmp_path: Path) -> None:
    """Python 3.13 insists on key identifiers and usages; the API server on the Service's name."""
    leaf = make_leaf(CA, common_name="hook", names=["hook.system.svc"], addresses=["127.0.0.1"])
    handshake(leaf, ca=CA, hostname=name, directory=tmp_path)
    assert leaf.names() == {"hook.system.svc", "127.0.0.1"}


def test_another_ca_or_another_name_is_refused(tmp_path: Path) -> None:
    leaf = make_leaf(CA, common_name="hook", names=["hook.system.svc"])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(leaf, ca=make_ca("test CA"), hostname="hook.system.svc", directory=tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(leaf, ca=CA, hostname="other.system.svc", directory=tmp_path)


def test_a_client_certificate_names_user_and_groups() -> None:
    leaf = make_leaf(CA, common_name="alice", organizations=["one", "two"], is_client=True).certificate
    names = [attribute.value for attribute in leaf.subject]
    assert names == ["one", "two", "alice"]
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_validity_is_counted_from_now_and_begins_earlier() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    leaf = make_leaf(CA, common_name="x", days=10, now=now)
    assert leaf.lasts_until() == now + timedelta(days=10)
    assert leaf.certificate.not_valid_before_utc < now


def test_a_leaf_knows_its_ca() -> None:
    leaf = make_leaf(CA, common_name="x")
    assert leaf.is_under(CA)
    assert not leaf.is_under(make_ca("test CA"))


def test_what_was_saved_is_loaded_and_the_key_is_for_its_owner_only(tmp_path: Path) -> None:
    leaf = make_leaf(CA, common_name="x")
    files = {"certificate_file": tmp_path / "crt", "key_file": tmp_path / "key"}
    for _ in range(2):
        save_key_pair(leaf, **files)
    assert load_key_pair(**files) == leaf
    assert stat.S_IMODE(files["key_file"].stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crt", "key"]


def test_files_that_do_not_fit_are_told_apart_from_missing_ones(tmp_path: Path) -> None:
    one, other = make_leaf(CA, common_name="x"), make_leaf(CA, common_name="x")
    crt, key = tmp_path / "crt", tmp_path / "key"
    crt.write_bytes(one.certificate_pem)
    with pytest.raises(CertificateError, match="cannot be read: No such file"):
        load_key_pair(certificate_file=crt, key_file=key)
    key.write_bytes(other.key_pem)
    with pytest.raises(CertificateError, match="not that of the certificate"):
        load_key_pair(certificate_file=crt, key_file=key)
    key.write_bytes(b"rubbish")
    with pytest.raises(CertificateError, match="no unencrypted PEM key"):
        load_key_pair(certificate_file=crt, key_file=key)
    crt.write_bytes(b"rubbish")
    with pytest.raises(CertificateError, match="no PEM certificate"):
        load_key_pair(certificate_file=crt, key_file=key)


def test_a_private_key_shows_in_no_representation() -> None:
    assert "PRIVATE" not in repr(CA)
