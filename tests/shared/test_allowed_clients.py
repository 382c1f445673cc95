"""Which client certificates are let in, by a file that changes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared.allowed_clients import AllowedClients
from shared.certificates import KeyPair, make_ca, make_leaf
from shared.client_certificates import Presented
from shared.errors import CertificateError

CA, OTHER_CA = make_ca("one CA"), make_ca("other CA")


def presented(ca: KeyPair = CA, name: str = "apiserver", *, names: tuple[str, ...] = ()) -> Presented:
    return Presented(leaf=make_leaf(ca, common_name=name, names=names, is_client=True).certificate)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "ca.crt"
    file.write_bytes(CA.certificate_pem)
    return file


def test_each_certificate_of_the_ca_is_let_in_where_no_names_are_given(file: Path) -> None:
    clients = AllowedClients(file)
    assert clients.objection(presented()) is None
    assert clients.objection(presented(name="alice")) is None
    assert "another CA" in (clients.objection(presented(OTHER_CA)) or "")
    assert "is wanted" in (clients.objection(None) or "")


def test_names_are_common_or_alternative_ones(file: Path) -> None:
    """Those as in kube-apiserver's --requestheader-allowed-names; these many certificates have instead."""
    clients = AllowedClients(file, names=frozenset({"apiserver", "api.example.com"}))
    assert clients.objection(presented()) is None
    assert clients.objection(presented(name="x", names=("api.example.com",))) is None
    assert "none of the names" in (clients.objection(presented(name="alice")) or "")
    assert clients.objection(presented(OTHER_CA)) is not None, "a name of another CA says nothing"


def test_another_file_is_in_force_at_once(file: Path) -> None:
    """Both CAs while one is replaced, and then the new one alone; also over connections that are open."""
    clients = AllowedClients(file)
    file.write_bytes(CA.certificate_pem + OTHER_CA.certificate_pem)
    assert [clients.objection(presented(ca)) for ca in (CA, OTHER_CA)] == [None, None]
    assert clients.ca_bundle().count("BEGIN CERTIFICATE") == 2
    file.write_bytes(OTHER_CA.certificate_pem)
    assert clients.objection(presented(CA)) is not None
    assert clients.objection(presented(OTHER_CA)) is None


@pytest.mark.parametrize("content", [b"", b"half a certif", None])
def test_a_file_that_cannot_be_used_changes_nothing(
    file: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    clients = AllowedClients(file)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    assert [clients.objection(presented()) for _ in range(3)] == [None, None, None]
    assert caplog.text.count("stay as they were") == 1
    with pytest.raises(CertificateError, match=r"ca\.crt"):
        AllowedClients(file)


def test_a_certificate_that_has_ended_is_not_let_in(file: Path) -> None:
    """Although its connection was made before."""
    later = datetime.now(UTC) + timedelta(days=400)
    clients = AllowedClients(file, now=lambda: later)
    assert clients.objection(presented()) is not None
